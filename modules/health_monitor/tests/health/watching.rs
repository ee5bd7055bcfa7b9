//! The module on the bench, and its words on components.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use health_monitor::HealthMonitor;
use module_sdk::testing::{Bench, FakeHost};
use serde_json::{Value, json};

/// Time within which something has to have happened, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// The module on the bench.
pub(crate) struct Watching {
    pub(crate) bench: Bench<HealthMonitor>,
    _directory: tempfile::TempDir,
}

impl Watching {
    /// Starts the module with providers, and with some checks only, ten times a second.
    pub(crate) fn start(providers: Value, checks: Value) -> Self {
        Self::start_on(|host| host.set_providers(providers), checks)
    }

    /// Starts the module on a host that is prepared.
    pub(crate) fn start_on(prepare: impl FnOnce(&FakeHost), checks: Value) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let host = Arc::new(FakeHost::new(directory.path()));
        prepare(&host);
        let bench = Bench::start_on(host, config(checks)).expect("it starts");
        Self { bench, _directory: directory }
    }

    /// Returns the directory of the module.
    pub(crate) fn directory(&self) -> &Path {
        self.bench.data_dir()
    }

    /// Returns the components as `checks` shows them.
    pub(crate) fn checks(&mut self) -> Vec<Value> {
        let reply = self.bench.command("checks", json!({})).expect("it answers");
        reply.data.as_array().cloned().unwrap_or_default()
    }

    /// Returns a component once it fits.
    pub(crate) fn once(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let all = self.checks();
            let found = all.iter().find(|check| check["name"] == name);
            if let Some(found) = found.filter(|found| fits(found)) {
                return found.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "{name} is {found:#?}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Returns the message of a component once it has a state.
    pub(crate) fn message(&mut self, name: &str, status: &str) -> String {
        let check = self.once(name, |check| check["status"] == status);
        check["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Returns the message of a component once it has a part.
    pub(crate) fn says(&mut self, name: &str, part: &str) -> Value {
        let has = |check: &Value| check["message"].as_str().is_some_and(|it| it.contains(part));
        self.once(name, has)
    }

    /// Lets time pass on the bench, a second at a time.
    pub(crate) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.bench.advance(Duration::from_secs(1)).expect("no timer fails");
        }
    }

    /// Returns the names of the alerts that fire.
    pub(crate) fn alerts(&mut self) -> Vec<String> {
        let reply = self.bench.command("alerts", json!({})).expect("it answers");
        let alerts = reply.data.as_array().cloned().unwrap_or_default();
        let names = alerts.iter().map(|alert| alert["name"].as_str().unwrap_or_default());
        names.map(str::to_owned).collect()
    }
}

fn config(checks: Value) -> Value {
    let mut all = json!({
        "clock": {"enabled": false},
        "databases": {"enabled": false},
        "disk": {"enabled": false},
        "memory": {"enabled": false},
        "modules": {"enabled": false},
        "providers": {"enabled": false},
        "router": {"enabled": false},
    });
    for (name, settings) in checks.as_object().into_iter().flatten() {
        all[name] = settings.clone();
    }
    json!({"interval_ms": 100, "checks": all})
}

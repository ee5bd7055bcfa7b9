//! The daemon and its modules, as the daemon itself tells of them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use module_sdk::{Host, jiff::Timestamp};

use super::{
    Check, CheckOptions, Progress,
    status::{self, Module, Status, Warning},
};
use crate::{
    metric::{
        CONFIG_INVALID, DAEMON_MEMORY, LEDGER_LOSSES, LEDGER_TROUBLE, MODULE_DROPPED, MODULE_LAG,
        MODULE_RESTARTS, MODULE_STATE, Metric,
    },
    reading::{Component, Found, Report, Series},
    text,
};

/// Modules that are watched at most.
const MODULES: usize = 100;
/// Reasons for which events are dropped that nobody asked for.
const LOSSES: [&str; 4] = ["failed", "lost", "overflow", "retention"];
/// Time for which the daemon's warnings are taken as it told them last: it looks at many files for
/// them.
const WARNED_FOR: Duration = Duration::from_secs(60);
/// Time between two questions while all is well: a change of state is asked for at once.
const WELL_FOR: Duration = Duration::from_secs(10);
/// Time for which a loss of the ledger is news, in milliseconds.
const RECENT_MS: i64 = 3_600_000;

pub(super) struct Modules {
    host: Host,
    deadline: Duration,
    daemon: Component,
    memory: Arc<Series>,
    ledger_trouble: Arc<Series>,
    ledger_losses: Arc<Series>,
    config_invalid: Arc<Series>,
    known: BTreeMap<String, Known>,
    /// Warnings of the daemon, and the time at which it told them.
    warned: Option<(Instant, Vec<Warning>)>,
    /// `true` where somebody said how often it is to run.
    is_timed: bool,
    /// `true` where all was well at the last run.
    is_well: bool,
}

/// A module that was seen, with what its reports consist of.
struct Known {
    component: Component,
    restarts: Arc<Series>,
    lag: Arc<Series>,
    states: BTreeMap<String, Arc<Series>>,
    dropped: BTreeMap<&'static str, Arc<Series>>,
}

impl Modules {
    pub(super) fn new(options: &CheckOptions, host: &Host) -> Self {
        let daemon: Component = "daemon".into();
        let of_daemon = |metric| Series::new(metric, &daemon, []);
        Self {
            host: host.clone(),
            deadline: Duration::from_millis(options.deadline_ms),
            memory: of_daemon(&DAEMON_MEMORY),
            ledger_trouble: of_daemon(&LEDGER_TROUBLE),
            ledger_losses: of_daemon(&LEDGER_LOSSES),
            config_invalid: of_daemon(&CONFIG_INVALID),
            daemon,
            known: BTreeMap::new(),
            warned: None,
            is_timed: options.interval_ms.is_some(),
            is_well: false,
        }
    }

    /// Asks for the state, and now and then for the warnings as well.
    fn ask(&mut self) -> module_sdk::Result<Status> {
        if let Some((at, warnings)) = &self.warned
            && at.elapsed() < WARNED_FOR
        {
            let brief = status::ask_briefly(&self.host, self.deadline)?;
            return Ok(Status { warnings: warnings.clone(), ..brief });
        }
        let status = status::ask(&self.host, self.deadline)?;
        self.warned = Some((Instant::now(), status.warnings.clone()));
        Ok(status)
    }

    fn report(&mut self, status: &Status, now: Timestamp) -> Report {
        let mut report = Report::default();
        self.daemon(status, now, &mut report);
        let wanted = status.modules.iter().filter(|module| module.is_wanted());
        let wanted: Vec<&Module> = wanted.take(MODULES).collect();
        self.known.retain(|name, _| wanted.iter().any(|module| module.name == *name));
        for module in wanted {
            let known =
                self.known.entry(module.name.clone()).or_insert_with(|| Known::new(&module.name));
            known.report(module, &mut report);
        }
        report
    }

    #[expect(clippy::cast_precision_loss, reason = "sizes beyond 2^53 bytes may be rounded")]
    fn daemon(&self, status: &Status, now: Timestamp, report: &mut Report) {
        let recent: Vec<&str> = status
            .ledger
            .losses
            .iter()
            .filter(|loss| {
                let found = loss.found.parse::<Timestamp>().ok();
                found.is_some_and(|at| now.as_millisecond() - at.as_millisecond() < RECENT_MS)
            })
            .map(|loss| loss.what.as_str())
            .collect();
        let mut words: Vec<String> = Vec::new();
        words.extend(status.ledger.trouble.as_deref().map(text::visible));
        words.extend(recent.last().map(|what| text::visible(what)));
        words.extend(status.config_error.as_deref().map(text::visible));
        let warnings = status.warnings.iter().take(3);
        words.extend(warnings.map(|warning| {
            format!("{}: {}", text::visible(&warning.name), text::visible(&warning.message))
        }));
        let found = Found::present(&self.daemon, &self.memory).saying(words.join("; "));
        report.found.push(found);
        if status.memory_bytes > 0 {
            report.read(&self.memory, status.memory_bytes as f64);
        }
        let flag = |is_so: bool| f64::from(u8::from(is_so));
        report.read(&self.ledger_trouble, flag(status.ledger.trouble.is_some()));
        report.read(&self.ledger_losses, recent.len() as f64);
        report.read(&self.config_invalid, flag(status.config_error.is_some()));
    }
}

impl Check for Modules {
    fn run(&mut self, _: &Progress) -> Report {
        match self.ask() {
            Ok(status) => {
                self.is_well = status.is_well();
                self.report(&status, self.host.now())
            }
            Err(error) => {
                self.is_well = false;
                let message = format!("the daemon does not tell its state: {error}");
                let known = self.known.values().map(|known| &known.component);
                let all = [&self.daemon].into_iter().chain(known);
                let found = all.map(|component| Found::unknown(component, message.as_str()));
                Report { found: found.collect(), ..Report::default() }
            }
        }
    }

    fn idle(&self) -> Duration {
        if self.is_well && !self.is_timed { WELL_FOR } else { Duration::ZERO }
    }
}

impl Known {
    fn new(name: &str) -> Self {
        let name = text::visible(name);
        let component: Component = format!("module.{name}").into();
        Self {
            restarts: Series::new(&MODULE_RESTARTS, &component, [&name]),
            lag: Series::new(&MODULE_LAG, &component, [&name]),
            states: BTreeMap::new(),
            dropped: BTreeMap::new(),
            component,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counters beyond 2^53 may be rounded")]
    fn report(&mut self, module: &Module, report: &mut Report) {
        if module.state == "absent" {
            let reason = module.reason.as_deref().unwrap_or("no library of that name was found");
            report.found.push(Found::absent(&self.component, text::visible(reason)));
            return;
        }
        let message = match (&module.reason, module.health.status.as_str()) {
            (Some(reason), _) => format!("{}: {}", module.state, text::visible(reason)),
            (None, "ok" | "unknown" | "") if module.runs() => String::new(),
            (None, _) if module.health.message.is_empty() => text::visible(&module.state),
            (None, status) => format!("{status}: {}", text::visible(&module.health.message)),
        };
        report.found.push(Found::present(&self.component, &self.lag).saying(message));
        let component = &self.component;
        // The words are the daemon's: there are some ten states and reasons.
        let series = |metric: &'static Metric, word: &str| {
            let module = component.strip_prefix("module.").unwrap_or(component);
            Series::new(metric, component, [module, &text::visible(word)])
        };
        let state = self
            .states
            .entry(module.state.clone())
            .or_insert_with_key(|state| series(&MODULE_STATE, state));
        report.read(state, 1.0);
        report.read(&self.restarts, module.restarts as f64);
        report.read(&self.lag, Duration::from_millis(module.lag_ms).as_secs_f64());
        // The daemon leaves out what is 0, from which growth has to be seen.
        for reason in LOSSES {
            let count = module.dropped_by.get(reason).copied().unwrap_or(0);
            let dropped = self
                .dropped
                .entry(reason)
                .or_insert_with_key(|reason| series(&MODULE_DROPPED, reason));
            report.read(dropped, count as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use module_sdk::testing::FakeHost;
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::reading::Presence;

    fn reported(status: Value) -> Report {
        let directory = tempfile::tempdir().expect("a directory");
        let host = Arc::new(FakeHost::new(directory.path()));
        let host = host.host().expect("a host");
        let mut modules = Modules::new(&CheckOptions::default(), &host);
        let now = "2026-11-30T10:00:00Z".parse().expect("a time");
        modules.report(&from_value(status).expect("a status"), now)
    }

    fn value(report: &Report, metric: &str, label: &str) -> Option<f64> {
        let is_it = |reading: &&crate::reading::Reading| {
            reading.series.metric.name == metric
                && (label.is_empty() || reading.series.labels.iter().any(|it| &**it == label))
        };
        report.readings.iter().find(is_it).map(|reading| reading.value)
    }

    #[test]
    fn modules_are_shown_as_the_daemon_tells_them() {
        let report = reported(json!({
            "memory_bytes": 1_000,
            "modules": [
                {"name": "ingest", "desired": "enabled", "state": "running", "lag_ms": 1_500,
                 "restarts": 2, "dropped_by": {"overflow": 7}, "health": {"status": "ok"}},
                {"name": "learning", "desired": "disabled", "state": "stopped"},
                {"name": "router", "desired": "enabled", "state": "quarantined",
                 "reason": "panicked\u{1b}[31m"},
                {"name": "dashboard", "desired": "enabled", "state": "absent",
                 "reason": "no library"},
                {"name": "meter", "desired": "enabled", "state": "degraded",
                 "health": {"status": "degraded", "message": "the disk is full"}},
            ],
        }));
        let found: Vec<_> = report
            .found
            .iter()
            .map(|it| (&*it.component, it.presence, it.message.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("daemon", Presence::Present, ""),
                ("module.ingest", Presence::Present, ""),
                ("module.router", Presence::Present, "quarantined: panicked\\u{1b}[31m"),
                ("module.dashboard", Presence::Absent, "no library"),
                ("module.meter", Presence::Present, "degraded: the disk is full"),
            ]
        );
        assert_eq!(value(&report, "lodestar_module_lag_seconds", "ingest"), Some(1.5));
        assert_eq!(value(&report, "lodestar_module_dropped_total", "overflow"), Some(7.0));
        assert_eq!(value(&report, "lodestar_module_state", "quarantined"), Some(1.0));
        assert_eq!(value(&report, "lodestar_module_lag_seconds", "dashboard"), None);
        assert_eq!(value(&report, "process_memory_usage_bytes", ""), Some(1_000.0));
    }

    #[test]
    fn warnings_are_asked_for_now_and_then() {
        let directory = tempfile::tempdir().expect("a directory");
        let fake = Arc::new(FakeHost::new(directory.path()));
        fake.answer("host", "status", |args, _| {
            let warning = json!({"name": "permissions", "message": "anybody may write it"});
            let warnings = if args["brief"] == true { vec![] } else { vec![warning] };
            module_sdk::Reply::json(&json!({"memory_bytes": 1, "warnings": warnings}))
        });
        let host = fake.host().expect("a host");
        let mut modules = Modules::new(&CheckOptions::default(), &host);
        for _ in 0..3 {
            let report = modules.run(&Progress::default());
            assert_eq!(report.found[0].message, "permissions: anybody may write it");
        }
        let asked: Vec<Value> = fake.called().into_iter().map(|call| call.arguments).collect();
        assert_eq!(asked, [json!({}), json!({"brief": true}), json!({"brief": true})]);
    }

    #[test]
    fn what_is_well_is_asked_for_less_often() {
        let directory = tempfile::tempdir().expect("a directory");
        let fake = Arc::new(FakeHost::new(directory.path()));
        let is_asked = fake.host().expect("a host");
        let idle = |options: &CheckOptions, module: Value| {
            let status = json!({"memory_bytes": 1, "modules": [module]});
            fake.answer("host", "status", move |_, _| module_sdk::Reply::json(&status));
            let mut modules = Modules::new(options, &is_asked);
            modules.run(&Progress::default());
            modules.idle()
        };
        let module = |state: &str, health: &str, lag_ms: u64| {
            json!({"name": "ingest", "desired": "enabled", "state": state, "lag_ms": lag_ms,
                   "health": {"status": health}})
        };
        let usual = CheckOptions::default();
        assert_eq!(idle(&usual, module("running", "ok", 0)), WELL_FOR);
        for amiss in [
            module("quarantined", "unknown", 0),
            module("running", "degraded", 0),
            module("running", "ok", 2_000),
        ] {
            assert_eq!(idle(&usual, amiss), Duration::ZERO);
        }
        let often = CheckOptions { interval_ms: Some(1_000), ..usual };
        assert_eq!(idle(&often, module("running", "ok", 0)), Duration::ZERO);
    }

    #[test]
    fn a_loss_is_news_for_an_hour() {
        let loss = |found: &str| json!({"found": found, "what": "3 events are damaged"});
        let report = reported(json!({"ledger": {
            "trouble": "the disk is full",
            "losses": [loss("2026-11-30T08:00:00Z"), loss("2026-11-30T09:30:00Z")],
        }, "config_error": "line 3"}));
        assert_eq!(value(&report, "lodestar_ledger_recent_losses", ""), Some(1.0));
        assert_eq!(value(&report, "lodestar_ledger_trouble", ""), Some(1.0));
        assert_eq!(value(&report, "lodestar_config_invalid", ""), Some(1.0));
        let message = "the disk is full; 3 events are damaged; line 3";
        assert_eq!(report.found[0].message, message);
        let well = reported(json!({"ledger": {"trouble": null}}));
        assert_eq!(value(&well, "lodestar_ledger_trouble", ""), Some(0.0));
    }
}

//! The daemon with the router, in front of the provider.

use std::{
    cell::Cell,
    fs::{self, Permissions},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use harness::{Daemon, Sandbox, http, wait_until};
use serde_json::{Value, json};

use crate::{load::message, process, report};

/// Starts of which the median is taken.
const STARTS: usize = 11;

/// Returns a configuration with the router on an address, and these providers.
pub(crate) fn configuration(listen: &str, providers: &str, router: &str) -> String {
    format!(
        "providers:\n{providers}modules:\n  router:\n    enabled: true\n    listen: {listen}\n\
         {router}  usage_tracker:\n    enabled: true\nmetrics:\n  listen: 127.0.0.1:0\n"
    )
}

/// Reference to the key of every provider, in a configuration.
pub(crate) const KEY: &str = "file:KEY";

/// Makes a place for a daemon, with the key of the providers.
fn place(modules: &[&str], configuration: &str) -> Sandbox {
    let sandbox = Sandbox::new(modules, "");
    let path = sandbox.path("key");
    fs::write(&path, "sk-upstream").expect("the sandbox is writable");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("the file is ours");
    sandbox.configure(&configuration.replace(KEY, &format!("file:{}", path.display())));
    sandbox
}

fn provider(name: &str, upstream: SocketAddr) -> String {
    format!(
        "  {name}: {{base_url: \"http://{upstream}/v1\", api: openai, key: {KEY}, \
         models: [m, slow]}}\n"
    )
}

/// A daemon with router and `usage_tracker`.
pub(crate) struct Gateway {
    // Before the sandbox, which it needs while it ends.
    daemon: Daemon<'static>,
    sandbox: &'static Sandbox,
    pub(crate) address: SocketAddr,
    sent: Cell<u64>,
}

impl Gateway {
    /// Starts it with one provider.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        Self::with(&configuration("127.0.0.1:0", &provider("mock", upstream), ""))
    }

    /// Starts it with a configuration.
    pub(crate) fn with(configuration: &str) -> Self {
        // It lives as long as the process.
        let sandbox = Box::leak(Box::new(place(&["router", "usage_tracker"], configuration)));
        let daemon = sandbox.start();
        daemon.wait_state("router", "running");
        let address = daemon.address("router", "http").parse().expect("it is an address");
        Self { daemon, sandbox, address, sent: Cell::new(0) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Adds to the number of requests that were answered.
    pub(crate) fn sent(&self, count: u64) {
        self.sent.set(self.sent.get() + count);
    }

    pub(crate) fn memory_mb(&self) -> f64 {
        process::memory_mb(self.pid())
    }

    pub(crate) fn report_memory(&self, when: &str, goal_mb: Option<f64>) {
        let mut figure = json!({
            "name": format!("gateway: resident memory {when}"), "value": self.memory_mb(),
            "unit": "MB",
        });
        if let Some(goal) = goal_mb {
            figure["goal"] = json!({"at_most": goal, "of": "value"});
        }
        report(figure);
    }

    /// Waits until `usage_tracker` has handled all that it is to handle.
    pub(crate) fn wait_handled(&self) {
        let mut last = None;
        let mut since = Instant::now();
        wait_until("all events are handled", || {
            let events = self.daemon.module("usage_tracker")["events"].clone();
            let now = (events["handled"].clone(), events["pending"].clone());
            if last.as_ref() != Some(&now) {
                last = Some(now);
                since = Instant::now();
                return None;
            }
            (events["pending"] == 0 && since.elapsed() > Duration::from_secs(2)).then_some(())
        });
    }

    /// Reports how many of the requests that were answered are not in the books.
    pub(crate) fn report_lost(&self) {
        self.wait_handled();
        let summary = self.sandbox.json(&["usage", "summary"]);
        let known = summary["total"]["requests"].as_f64().unwrap_or_default();
        let lost = (self.sent.get() as f64 - known).abs();
        report(json!({
            "name": "gateway: answers without one event", "value": lost, "unit": "requests",
            "goal": {"at_most": 0, "of": "value"},
        }));
    }

    /// Returns all requests in the books.
    pub(crate) fn export(&self) -> Vec<Value> {
        self.wait_handled();
        let output = self.sandbox.lodestar(&["usage", "export", "--format", "jsonl"]);
        assert_eq!(output.code, 0, "{}", output.stderr);
        let parse = |line| serde_json::from_str(line).expect("a line is a JSON object");
        output.stdout.lines().map(parse).collect()
    }

    /// Returns what the daemon has logged.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }
}

/// Measures the time from the start of the daemon to the first answer of the router, beyond that
/// to the first answer of a daemon without it.
pub(crate) fn start_to_first_answer(upstream: SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = free.local_addr().expect("it is bound").to_string();
    drop(free);
    let text = configuration(&address, &provider("mock", upstream), "");
    let with = place(&["router", "usage_tracker"], &text);
    let bare = "modules:\n  usage_tracker:\n    enabled: true\nmetrics:\n  listen: 127.0.0.1:0\n";
    let without = Sandbox::new(&["usage_tracker"], bare);
    let body = message("m", 64, false);
    let asked = || {
        let answer = http::post(&address, "/v1/chat/completions", &[], body.as_bytes());
        answer.is_ok_and(|answer| answer.status == 200)
    };
    let (mut answered, mut up) = (Vec::new(), Vec::new());
    // The first start makes keys and databases.
    for round in 0..=STARTS {
        let begin = Instant::now();
        let daemon = with.spawn();
        wait_until("the router answers", || asked().then_some(()));
        let first = begin.elapsed();
        assert!(daemon.stop().success());
        let begin = Instant::now();
        let daemon = without.spawn();
        wait_until("the daemon answers", || daemon.status());
        let bare = begin.elapsed();
        assert!(daemon.stop().success());
        if round > 0 {
            answered.push(first.as_secs_f64() * 1e3);
            up.push(bare.as_secs_f64() * 1e3);
        }
    }
    answered.sort_by(f64::total_cmp);
    up.sort_by(f64::total_cmp);
    let (first, bare) = (answered[STARTS / 2], up[STARTS / 2]);
    report(json!({
        "name": "gateway: start to first answer, beyond the daemon's", "value": first - bare,
        "unit": "ms", "baseline": {"name": "daemon without router", "value": bare},
        "goal": {"at_most": 60, "of": "value"},
    }));
}

//! Costs of watching: the processor time of all checks of the machine.
//!
//! Run with `cargo xtask bench health`, on a quiet machine.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use harness::{Sandbox, http, wait_until};
use serde_json::{Value, json};

/// Time during which the processes are watched, and that which they get to come to rest before.
const WATCH: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(5);

/// Configuration of a daemon without the module, whose idling is what the checks come on top of.
const BARE: &str = "metrics:\n  listen: 127.0.0.1:0\n";

/// Configuration of a daemon that looks at everything once a second.
const EACH_SECOND: &str = "\
modules:
  health_monitor:
    interval_ms: 1000
metrics:
  listen: 127.0.0.1:0
";

fn main() {
    host_checks();
}

/// Prints a figure as one line of JSON.
fn report(figure: Value) {
    println!("{figure}");
}

/// Measures what the checks of the machine cost at one run a second, beside an exporter that is
/// asked as often.
fn host_checks() {
    let (bare, watching) =
        (Sandbox::new(&[], BARE), Sandbox::new(&["health_monitor"], EACH_SECOND));
    let (bare, watching) = (bare.start(), watching.start());
    let exporter = NodeExporter::start();
    thread::sleep(SETTLE);
    let cpu = || {
        let exporter = exporter.as_ref().map(|exporter| cpu_seconds(exporter.child.id()));
        (cpu_seconds(bare.pid()), cpu_seconds(watching.pid()), exporter)
    };
    let (begin, before) = (Instant::now(), cpu());
    let mut due = begin;
    while begin.elapsed() < WATCH {
        if let Some(exporter) = &exporter {
            let page = http::get(&exporter.address, "/metrics").expect("it answers");
            assert_eq!(page.status, 200);
        }
        due += Duration::from_secs(1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let (took, after) = (begin.elapsed().as_secs_f64(), cpu());
    let percent = |before: f64, after: f64| (after - before) / took * 100.0;
    let (idle, all) = (percent(before.0, after.0), percent(before.1, after.1));
    report(json!({
        "name": "health: host checks at 1 s, on top of idle", "value": all - idle, "unit": "%",
        "baseline": {"name": "idle daemon without the module", "value": idle},
        "goal": {"at_most": 0.05, "of": "value"},
    }));
    let Some((before, after)) = before.2.zip(after.2) else {
        return eprintln!(
            "SKIPPED health: prometheus-node-exporter is not installed; `apt-get install \
             prometheus-node-exporter`"
        );
    };
    report(json!({
        "name": "health: host checks against node_exporter", "value": all - idle, "unit": "%",
        "baseline": {"name": "node_exporter, scraped at 1 s", "value": percent(before, after)},
        "goal": {"at_most": 0.1, "of": "ratio"},
    }));
}

/// Debian's `prometheus-node-exporter`, on a free port. It is killed when it is dropped.
struct NodeExporter {
    child: Child,
    address: String,
}

impl NodeExporter {
    /// Starts it; `None` where it is not installed.
    fn start() -> Option<Self> {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let mut command = Command::new("prometheus-node-exporter");
        command.arg(format!("--web.listen-address={address}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        wait_until("node_exporter answers", || http::get(&address, "/metrics").ok());
        Some(Self { child, address })
    }
}

impl Drop for NodeExporter {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns the processor time of all threads of a process so far, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let of_task = |task: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    tasks.filter_map(of_task).sum::<f64>() / 1e9
}

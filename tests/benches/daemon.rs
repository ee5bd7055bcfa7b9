//! Costs of the daemon as a process: its start, its rest, and the acceptance of an event.
//!
//! Run with `cargo xtask bench daemon`, on a quiet machine.

use std::{
    fs,
    net::TcpListener,
    os::unix::net::UnixDatagram,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use harness::{Daemon, Sandbox, ServiceManager, http, telemetry};
use serde_json::{Value, json};

/// Number of starts of which the median is taken.
const STARTS: usize = 11;
/// Time during which the daemon is watched at rest.
const REST: Duration = Duration::from_secs(60);
/// Time that a just started daemon gets to come to rest: after ten seconds it returns the memory
/// that only its start needed.
const SETTLE: Duration = Duration::from_secs(15);
/// Option of this program that makes it the baseline of a daemon at rest.
const WAKER: &str = "--waker";
/// Time between two wake-ups of the baseline, about that of a daemon with two modules.
const WAKE: Duration = Duration::from_millis(800);
/// Number of events per second, for `SECONDS` seconds.
const RATE: u32 = 1_000;
const SECONDS: u32 = 10;

/// Configuration of a daemon that loads nothing: what the modules add is seen beside it.
const BARE: &str = "metrics:\n  listen: 127.0.0.1:0\n";
/// Configuration of a daemon with the modules of [`Sandbox::usual`] and the health monitor.
const THREE: &str = "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  usage_tracker:\n  \
                     health_monitor:\nmetrics:\n  listen: 127.0.0.1:0\n";
/// Configuration of a daemon with the modules of [`Sandbox::usual`] and `learning`.
const LEARNING: &str = "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  usage_tracker:\n  \
                        learning:\n    serving: {listen: 127.0.0.1:0}\nmetrics:\n  \
                        listen: 127.0.0.1:0\n";

fn main() {
    if std::env::args().any(|word| word == WAKER) {
        wake_forever();
    }
    start_to_ready();
    restarts();
    at_rest();
    acceptance();
}

/// Prints a figure as one line of JSON.
fn report(figure: Value) {
    println!("{figure}");
}

fn start_to_ready() {
    let usual = Sandbox::usual();
    let bare = Sandbox::new(&[], BARE);
    // The first start makes keys and databases; a start is what comes after it.
    let median = |sandbox: &Sandbox| {
        ready_ms(sandbox);
        let mut times = (0..STARTS).map(|_| ready_ms(sandbox)).collect::<Vec<_>>();
        times.sort_by(f64::total_cmp);
        times[STARTS / 2]
    };
    let baseline = json!({"name": "without modules", "value": median(&bare)});
    report(json!({
        "name": "daemon: start to READY, two modules", "value": median(&usual), "unit": "ms",
        "baseline": baseline, "goal": {"at_most": 300, "of": "value"},
    }));
}

/// Measures the time from the start of the process until it tells systemd that it is ready.
fn ready_ms(sandbox: &Sandbox) -> f64 {
    let path = sandbox.path("notify");
    drop(fs::remove_file(&path));
    let notify = UnixDatagram::bind(&path).expect("the sandbox is writable");
    notify.set_read_timeout(Some(Duration::from_secs(20))).expect("it is a socket");
    let mut command = sandbox.lodestard();
    command.env("NOTIFY_SOCKET", &path);
    let begin = Instant::now();
    let daemon = Daemon::spawn(sandbox, command);
    let mut said = [0; 512];
    // It says other things as well: which sockets to keep over a restart.
    while {
        let count = notify.recv(&mut said).expect("it says that it is ready");
        !String::from_utf8_lossy(&said[..count]).contains("READY=1")
    } {}
    let time = begin.elapsed();
    assert!(daemon.stop().success());
    time.as_secs_f64() * 1e3
}

/// Measures for how long callers of a module's port get no answer while the daemon is replaced.
fn restarts() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = free.local_addr().expect("it is bound").to_string();
    drop(free);
    let config = format!(
        "modules:\n  ingest:\n    listen: {address}\n  usage_tracker:\nmetrics:\n  listen: \
         127.0.0.1:0\n"
    );
    let sandbox = Sandbox::new(&["ingest", "usage_tracker"], &config);
    let (alone, _) = median_restart(&address, &|| sandbox.start());
    let manager = ServiceManager::new(&sandbox);
    let (kept, failed) = median_restart(&address, &|| manager.start());
    report(json!({
        "name": "daemon: restart, no answer for", "value": alone, "unit": "ms",
        "baseline": {"name": "systemd keeps the sockets", "value": kept},
    }));
    report(json!({
        "name": "daemon: calls failed while it keeps them", "value": failed, "unit": "",
        "goal": {"at_most": 0, "of": "value"},
    }));
}

/// Observations of a caller that calls again and again.
struct Restart {
    /// Longest time between two answers, in milliseconds.
    gap_ms: f64,
    failed: u64,
}

/// Returns the median of the gaps in milliseconds, and how many calls failed in all.
fn median_restart<'a>(address: &str, start: &dyn Fn() -> Daemon<'a>) -> (f64, u64) {
    let mut gaps: Vec<_> = (0..STARTS).map(|_| restart(address, start)).collect();
    gaps.sort_by(|left, right| left.gap_ms.total_cmp(&right.gap_ms));
    (gaps[STARTS / 2].gap_ms, gaps.iter().map(|it| it.failed).sum())
}

fn restart<'a>(address: &str, start: &dyn Fn() -> Daemon<'a>) -> Restart {
    let before = start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let caller = scope.spawn(|| call(address, &stop));
        assert!(before.stop().success());
        let after = start();
        stop.store(true, Ordering::Relaxed);
        let seen = caller.join().expect("it does not panic");
        assert!(after.stop().success());
        seen
    })
}

/// Calls until it is told to stop, and then until it was answered.
fn call(address: &str, stop: &AtomicBool) -> Restart {
    let mut seen = Restart { gap_ms: 0.0, failed: 0 };
    let mut last = Instant::now();
    loop {
        // A daemon that ends says 503 to who asks for its health: an answer as well.
        match http::get(address, "/healthz") {
            Ok(_) => {
                seen.gap_ms = seen.gap_ms.max(last.elapsed().as_secs_f64() * 1e3);
                last = Instant::now();
                if stop.load(Ordering::Relaxed) {
                    return seen;
                }
            }
            // Refused, or queued by the kernel when the socket was closed.
            Err(_) => seen.failed += 1,
        }
        thread::sleep(Duration::from_micros(200));
    }
}

fn at_rest() {
    let (usual, bare) = (Sandbox::usual(), Sandbox::new(&[], BARE));
    let three = Sandbox::new(&["ingest", "usage_tracker", "health_monitor"], THREE);
    let learning = Sandbox::new(&["ingest", "usage_tracker", "learning"], LEARNING);
    let (usual, bare, three) = (usual.start(), bare.start(), three.start());
    let learning = learning.start();
    let waker = Waker::start();
    let pids = [usual.pid(), bare.pid(), three.pid(), waker.0.id()];
    thread::sleep(SETTLE);
    let before = pids.map(cpu_seconds);
    thread::sleep(REST);
    let mut cpu = pids.map(cpu_seconds);
    for (after, before) in cpu.iter_mut().zip(before) {
        *after = (*after - before) / REST.as_secs_f64() * 100.0;
    }
    let without = json!({"name": "without modules", "value": rss_mib(&bare)});
    report(json!({
        "name": "daemon: memory at rest, two modules", "value": rss_mib(&usual), "unit": "MiB",
        "baseline": without, "goal": {"at_most": 30, "of": "value"},
    }));
    report(json!({
        "name": "daemon: memory at rest, three modules", "value": rss_mib(&three), "unit": "MiB",
        "baseline": without, "goal": {"at_most": 30, "of": "value"},
    }));
    let usual_memory = json!({"name": "two modules", "value": rss_mib(&usual)});
    report(json!({
        "name": "daemon: memory at rest, learning on top",
        "value": rss_mib(&learning) - rss_mib(&usual), "unit": "MiB",
        "baseline": usual_memory, "goal": {"at_most": 3, "of": "value"},
    }));
    // What a wake-up costs differs tenfold between machines and their states: beside the daemon
    // stands a program that does nothing but wake up as often.
    let baseline = json!({"name": "a program that only wakes up", "value": cpu[3]});
    report(json!({
        "name": "daemon: CPU at rest, two modules", "value": cpu[0], "unit": "%",
        "baseline": baseline, "goal": {"at_most": 0.2, "of": "value"},
    }));
    for (name, value) in [("without modules", cpu[1]), ("three modules", cpu[2])] {
        let name = format!("daemon: CPU at rest, {name}");
        report(json!({"name": name, "value": value, "unit": "%", "baseline": baseline}));
    }
}

/// This program as the baseline of a daemon at rest. It is killed when it is dropped.
struct Waker(Child);

impl Waker {
    fn start() -> Self {
        let program = std::env::current_exe().expect("it runs");
        let mut command = Command::new(program);
        Self(command.arg(WAKER).stdin(Stdio::null()).spawn().expect("it runs already"))
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Wakes up, looks at its processor time and wakes another thread, as the daemon's tick does,
/// until it is killed.
fn wake_forever() -> ! {
    let (ticks, ticked) = mpsc::channel();
    thread::spawn(move || ticked.iter().for_each(drop));
    loop {
        thread::sleep(WAKE);
        let tasks = fs::read_dir("/proc/self/task").expect("it lives").count();
        ticks.send(tasks).expect("the other thread waits");
    }
}

/// Returns the resident memory in MiB (`VmRSS` of proc(5)).
fn rss_mib(daemon: &Daemon<'_>) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    let kib = line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
    kib.expect("a number of KiB") / 1024.0
}

/// Returns the processor time of all its threads so far, in seconds (`/proc/PID/schedstat` counts
/// nanoseconds per thread; the ticks of `/proc/PID/stat` are too coarse for a daemon that does
/// nothing).
fn cpu_seconds(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let of_task = |task: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    tasks.filter_map(of_task).sum::<f64>() / 1e9
}

/// Measures the time from a request's first byte to `200`, one event each, at a fixed rate.
fn acceptance() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    let baseline = p99_ms(|_| {
        let answer = http::get(&address, "/healthz").expect("it answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
    let value = p99_ms(|number| {
        let body = telemetry::claude_code("bench", &format!("bench-{number}")).to_string();
        let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
        assert_eq!(answer.expect("ingest answers").status, 200);
    });
    report(json!({
        "name": "ingest: acceptance over HTTP at 1,000/s, p99", "value": value, "unit": "ms",
        "baseline": {"name": "GET /healthz", "value": baseline},
        "goal": {"at_most": 5, "of": "value"},
    }));
}

/// Returns the 99th percentile of a call's time in milliseconds, called at [`RATE`].
fn p99_ms(call: impl Fn(u32)) -> f64 {
    let begin = Instant::now();
    let mut times = Vec::new();
    for number in 0..RATE * SECONDS {
        let due = begin + Duration::from_secs(1) * number / RATE;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // From when it was due: a call that waits behind a slow one counts its wait.
        call(number);
        times.push(due.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() * 99 / 100]
}

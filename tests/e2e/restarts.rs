//! Stop and restart of the daemon: its sockets stay open if a service manager keeps them, its
//! modules stop in order, and a second signal ends it at once.

use std::{
    io::ErrorKind,
    net::TcpListener,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use harness::{Daemon, Sandbox, ServiceManager, SetOnDrop, http, telemetry, wait_until};
use rustix::process::Signal;

/// Results of clients that never reuse a connection.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
}

impl Seen {
    fn send(&self, address: &str, client: &str) {
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let body = telemetry::claude_code("s", &format!("{client}-{number}")).to_string();
            let counter = match http::post(address, "/v1/logs", &[telemetry::JSON], body.as_bytes())
            {
                Ok(answer) if answer.status == 200 => &self.answered,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => &self.refused,
                _ => &self.broken,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn wait_for_more(&self) {
        let goal = self.answered() + 20;
        wait_until("requests are answered", || (self.answered() > goal).then_some(()));
    }
}

/// Restarts the daemon several times while clients send: no connection is refused, and each request
/// is answered.
fn restarts_refuse_nobody(sandbox: &Sandbox, manager: &ServiceManager<'_>) {
    let mut daemon = manager.start();
    let address = daemon.address("ingest", "http");
    let seen = Seen::default();
    let daemon = std::thread::scope(|scope| {
        let _stop = SetOnDrop(&seen.stop);
        for client in 0..3 {
            let (seen, address) = (&seen, &address);
            scope.spawn(move || seen.send(address, &format!("client{client}")));
        }
        for _ in 0..3 {
            seen.wait_for_more();
            assert!(daemon.stop().success());
            daemon = manager.start();
            assert_eq!(daemon.address("ingest", "http"), address);
        }
        seen.wait_for_more();
        daemon
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((count(&seen.refused), count(&seen.broken)), (0, 0), "{}", daemon.log());
    wait_until("all is counted", || {
        (sandbox.json(&["usage", "summary"])["total"]["requests"] == seen.answered()).then_some(())
    });
    assert!(daemon.stop().success());
}

#[test]
fn kept_sockets_survive_restarts() {
    let sandbox = Sandbox::usual();
    let manager = ServiceManager::new(&sandbox);
    restarts_refuse_nobody(&sandbox, &manager);
    let kept = manager.kept();
    let mut names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let expected = ["ingest.grpc.kept", "ingest.http.kept", "lodestard.metrics.kept"];
    assert_eq!(names, expected, "each once");
}

#[test]
fn sockets_of_units_survive_restarts() {
    let sandbox = Sandbox::usual();
    let mut manager = ServiceManager::new(&sandbox);
    let address = manager.open("ingest.http");
    restarts_refuse_nobody(&sandbox, &manager);
    let daemon = manager.start();
    assert_eq!(daemon.address("ingest", "http"), address);
    let kept = manager.kept();
    assert!(kept.iter().all(|(name, _)| !name.contains("http")), "it is the unit's: {kept:?}");
}

#[test]
fn a_killed_daemon_refuses_nobody_either() {
    let sandbox = Sandbox::usual();
    let manager = ServiceManager::new(&sandbox);
    let daemon = manager.start();
    let address = daemon.address("ingest", "http");
    let seen = Seen::default();
    std::thread::scope(|scope| {
        let _stop = SetOnDrop(&seen.stop);
        let client = scope.spawn(|| seen.send(&address, "client"));
        seen.wait_for_more();
        daemon.kill();
        let daemon = manager.start();
        seen.wait_for_more();
        // Before the daemon ends: what then connects to the kept socket is answered by nobody.
        seen.stop.store(true, Ordering::Relaxed);
        client.join().expect("it only counts");
        drop(daemon);
    });
    assert_eq!(seen.refused.load(Ordering::Relaxed), 0);
}

#[test]
fn a_kept_socket_goes_when_the_configuration_no_longer_asks_for_it() {
    let sandbox = Sandbox::usual();
    let manager = ServiceManager::new(&sandbox);
    let of_ingest = || {
        let kept = manager.kept().into_iter();
        kept.filter(|(name, _)| name == "ingest.http.kept").map(|(_, at)| at).collect::<Vec<_>>()
    };
    let daemon = manager.start();
    let first = daemon.address("ingest", "http");
    assert_eq!(of_ingest(), [first.as_str()]);
    // Disabled and enabled while it runs.
    assert_eq!(sandbox.lodestar(&["modules", "disable", "ingest"]).code, 0);
    wait_until("it is closed", || of_ingest().is_empty().then_some(()));
    TcpListener::bind(&first).expect("nobody has it");
    assert_eq!(sandbox.lodestar(&["modules", "enable", "ingest"]).code, 0);
    let second = daemon.address("ingest", "http");
    // The daemon says so to its manager beside the answer to the command.
    wait_until("it is kept", || (of_ingest() == [second.as_str()]).then_some(()));
    // Another address while it does not run.
    assert!(daemon.stop().success());
    let usual = sandbox.configuration();
    let free = TcpListener::bind("127.0.0.2:0").expect("a port is free");
    let other = free.local_addr().expect("it is bound").to_string();
    drop(free);
    sandbox.configure(&usual.replacen("127.0.0.1:0", &other, 1));
    let daemon = manager.start();
    assert_eq!(daemon.address("ingest", "http"), other);
    assert_eq!(of_ingest(), [other.as_str()]);
    TcpListener::bind(&second).expect("nobody has it");
    // Disabled, or gone from the file, while it does not run.
    assert!(daemon.stop().success());
    sandbox.configure("modules:\n  usage_tracker:\nmetrics:\n  listen: 127.0.0.1:0\n");
    let daemon = manager.start();
    wait_until("it is closed", || of_ingest().is_empty().then_some(()));
    TcpListener::bind(&other).expect("nobody has it");
    assert!(daemon.stop().success());
}

/// Creates a sandbox with these modules in this order; `misbehaver` never returns from its stop.
fn hanging(order: [&str; 2]) -> Sandbox {
    let section = |module: &str| match module {
        "misbehaver" => "  misbehaver:\n    fault: stop_hangs\n".to_owned(),
        other => format!("  {other}:\n"),
    };
    let sections = order.map(section).concat();
    Sandbox::new(&order, &format!("modules:\n{sections}metrics:\n  listen: 127.0.0.1:0\n"))
}

/// Sends the stop signal to the daemon and waits until the hanging module is asked to stop.
fn begin_to_stop(daemon: &Daemon<'_>) {
    daemon.signal(Signal::TERM);
    daemon.wait_state("misbehaver", "draining");
}

#[test]
fn modules_stop_in_reverse_order_and_a_second_signal_ends_at_once() {
    for (order, other) in
        [(["counter", "misbehaver"], "running"), (["misbehaver", "counter"], "stopped")]
    {
        let sandbox = hanging(order);
        let daemon = sandbox.start();
        begin_to_stop(&daemon);
        assert_eq!(daemon.module("counter")["state"], other, "{order:?}");
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait().code(), Some(1), "it did not wait: {}", daemon.log());
        assert!(daemon.log().contains("a second signal"), "{}", daemon.log());
    }
}

#[test]
fn who_does_not_stop_within_the_grace_period_is_left_behind_by_name() {
    let sandbox = hanging(["counter", "misbehaver"]);
    let daemon = sandbox.start();
    begin_to_stop(&daemon);
    assert!(daemon.wait().success(), "{}", daemon.log());
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("did not stop in time")).unwrap_or_default();
    assert!(line.contains("misbehaver"), "{log}");
    assert!(!sandbox.socket().exists(), "its place is left free");
}

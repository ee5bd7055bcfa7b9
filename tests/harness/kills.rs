//! Random kills of the processes that modules run in.

use std::sync::atomic::AtomicBool;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Daemon, Sandbox, Sent, SetOnDrop, wait_until};

/// The modules of [`isolated`].
pub const MODULES: [&str; 2] = ["usage_tracker", "ingest"];

/// Number of clients that send at the same time.
pub const CLIENTS: u64 = 3;
/// Creates a sandbox with the usual modules, each in a process of its own that may end as often as
/// it likes.
#[must_use]
pub fn isolated() -> Sandbox {
    let own = "    isolation: process\n    restart: {limit: 1000000, backoff_max_ms: 1}\n";
    let config = MODULES.map(|module| format!("  {module}:\n{own}")).concat();
    Sandbox::new(
        &MODULES,
        &format!(
            "modules:\n{config}    listen: 127.0.0.1:0\n    rate_limit: {{requests_per_second: \
             100000, burst: 100000}}\nmetrics:\n  listen: 127.0.0.1:0\n"
        ),
    )
}

/// Kills the process of a module, as soon as it has one.
///
/// # Panics
///
/// When it gets none.
pub fn kill_runner(sandbox: &Sandbox, module: &str) {
    let runner = wait_until("the module has a process", || {
        let info = sandbox.json(&["modules", "info", module]);
        i32::try_from(info["process"]["pid"].as_i64()?).ok()
    });
    let runner = Pid::from_raw(runner).expect("a pid is positive");
    // An error means that it has just been killed.
    let _ = kill_process(runner, Signal::KILL);
}

/// Kills the processes of modules at random moments under load, so many times, and waits until all
/// that was accepted is handled. Returns what was sent.
///
/// # Panics
///
/// When the daemon does not get on with its work.
#[must_use]
pub fn runners_under_load(
    sandbox: &Sandbox,
    daemon: &Daemon<'_>,
    kills: u64,
    random: &mut Random,
) -> Sent {
    let (sent, stop) = (Sent::default(), AtomicBool::new(false));
    let address = daemon.address("ingest", "http");
    std::thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        for client in 0..CLIENTS {
            let (sent, address, stop) = (&sent, &address, &stop);
            scope.spawn(move || sent.until_told(address, &format!("client{client}"), stop));
        }
        for _ in 0..kills {
            let goal = sent.count() + 1 + random.below(100);
            wait_until("enough is accepted", || (sent.count() >= goal).then_some(()));
            kill_runner(sandbox, MODULES[usize::from(random.below(4) == 0)]);
        }
    });
    wait_until("all is answered", || sent.send_again(&address).then_some(()));
    wait_until_handled(daemon);
    sent
}

/// Waits until `usage_tracker` has handled all that waits for it.
///
/// # Panics
///
/// When it does not.
pub fn wait_until_handled(daemon: &Daemon<'_>) {
    wait_until("all that waits is handled", || {
        (daemon.module("usage_tracker")["events"]["pending"] == 0).then_some(())
    });
}

/// Numbers that look random, the same ones for the same seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Creates the numbers of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number, from 0 up to `limit` without it.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % limit
    }
}

//! Random kills of the processes that modules run in.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Sandbox, wait_until};

/// The modules of [`isolated`].
pub const MODULES: [&str; 2] = ["usage_tracker", "ingest"];

const PATIENCE: Duration = Duration::from_secs(60);

/// The usual modules, each in a process of its own that may end as often as it likes.
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
    let runner = wait_until("the module has a process", PATIENCE, || {
        let info = sandbox.json(&["modules", "info", module]);
        i32::try_from(info["process"]["pid"].as_i64()?).ok()
    });
    let runner = Pid::from_raw(runner).expect("a pid is positive");
    // An error means that it has just been killed.
    let _ = kill_process(runner, Signal::KILL);
}

/// Numbers that look random, the same ones for the same seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one, from 0 up to `limit` without it.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % limit
    }
}

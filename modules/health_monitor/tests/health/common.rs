//! The module on the bench, and waiting for its checks, which run on threads of their own.

use std::time::{Duration, Instant};

use health_monitor::HealthMonitor;
use module_sdk::testing::Bench;
use serde_json::Value;

/// Longest time for what should be there at once. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the module with this configuration.
pub(crate) fn start(config: Value) -> Bench<HealthMonitor> {
    Bench::start(config).expect("it starts")
}

/// Moves the clock second by second until something is there.
pub(crate) fn until<T>(
    bench: &mut Bench<HealthMonitor>,
    what: &str,
    find: impl Fn(&mut Bench<HealthMonitor>) -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        bench.advance(Duration::from_secs(1)).expect("no timer fails");
        if let Some(found) = find(bench) {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

//! Detection of calls of modules that take too long.

use std::time::Duration;

use super::{CALL_DEADLINE, Daemon};
use crate::module::State;

/// Marks modules whose call exceeds its deadline as stalled.
pub(super) fn detect_stalls(daemon: &Daemon) {
    let config = daemon.config();
    for slot in daemon.modules.all() {
        let state = slot.entry.state();
        let Some((call, time)) = slot.entry.clock().running() else { continue };
        let deadline = config.module(&slot.entry.name).and_then(|it| it.limits.call_deadline_ms);
        let deadline = deadline.map_or(CALL_DEADLINE, Duration::from_millis);
        if time < deadline || matches!(state, State::Stalled) {
            continue;
        }
        let name = &slot.entry.name;
        let seconds = time.as_secs_f64();
        tracing::error!(module = name, call, seconds, "a call of the module does not return");
        let millis = deadline.as_millis();
        let reason = format!("its {call} did not return within {millis} ms; its events wait");
        daemon.histories.record(name, "stalled", reason.clone());
        slot.entry.enter_from(state, State::Stalled, reason);
    }
}

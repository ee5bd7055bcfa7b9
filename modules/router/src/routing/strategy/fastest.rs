//! The target that answered fastest so far.

use super::{Case, Choice, Ranking, Strategy};

/// Time that a local model takes to be loaded, in milliseconds, where nothing better is known.
const COLD_START_MS: f64 = 10_000.0;

#[derive(Debug)]
pub(super) struct Fastest;

impl Strategy for Fastest {
    fn rank(&self, case: &Case<'_>) -> Ranking {
        let streams = case.request.inspected.stream;
        let mut order: Vec<(usize, f64)> =
            case.choices.iter().map(|choice| expected_ms(choice, streams)).enumerate().collect();
        order.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        Ranking { order: order.into_iter().map(|(index, _)| index).collect(), ..Ranking::default() }
    }
}

/// Returns the time to the first content of a stream, or to the whole answer; infinite for a target
/// that has not answered yet.
fn expected_ms(choice: &Choice<'_>, streams: bool) -> f64 {
    let view = &choice.view;
    let measured = if streams { view.ttft_p50_ms } else { view.latency_p50_ms };
    let Some(measured) = measured else {
        return f64::INFINITY;
    };
    // A local model answers one after the other.
    let queue = if view.is_local { f64::from(view.in_flight) } else { 0.0 };
    let cold = if view.is_loaded == Some(false) { COLD_START_MS } else { 0.0 };
    measured * (1.0 + queue) + cold
}

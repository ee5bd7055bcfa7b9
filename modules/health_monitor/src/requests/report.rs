//! Components that only requests know, as a check would report them.

use super::{MINUTES_MS, Windows, scope::Scope, steady, steady_ms};
use crate::{
    board::Board,
    reading::{Found, Report},
    requests::Measure,
    rule::Function,
    time::Moment,
};

/// Name of what reports them. A check that looks at a component itself takes it over.
pub const CHECK: &str = "requests";

/// Time over which the response times in the table are taken, in milliseconds, where there were
/// requests within it; else all that is kept counts.
const HEADLINE_MS: i64 = 10 * 60_000;

impl Windows {
    /// Reports all that had requests within the time for which minutes are kept, and that no check
    /// reports by itself.
    pub fn report(&mut self, board: &Board, now: Moment) -> Report {
        let now_ms = steady(now);
        self.forget(now_ms);
        let mut report = Report::default();
        for scope in self.scopes() {
            let is_taken = |entry: &crate::board::Entry| entry.check != CHECK;
            if board.get(scope.component()).is_none_or(|entry| !is_taken(entry)) {
                add(scope, now_ms, &mut report);
            }
        }
        if report.found.iter().all(|found| found.component != *self.all.component()) {
            let message = "no request was reported within the last hour";
            report.found.push(Found::absent(self.all.component(), message));
        }
        report
    }
}

fn add(scope: &Scope, now_ms: i64, report: &mut Report) {
    let over_ms = steady_ms(MINUTES_MS);
    let counts = scope.counts(over_ms, now_ms);
    if counts.requests == 0 {
        return;
    }
    let series = scope.series(Measure::Duration);
    let p95 = |over_ms| scope.value(Measure::Duration, Function::P95, over_ms, now_ms);
    if let Some(seconds) = p95(HEADLINE_MS).or_else(|| p95(over_ms)) {
        report.read(series, seconds);
    }
    let requests = match counts.requests {
        1 => "1 request".to_owned(),
        requests => format!("{requests} requests"),
    };
    let said = format!("p95 of {requests} within the last hour, {} failed", counts.errors);
    report.found.push(Found::present(scope.component(), series).saying(said));
}

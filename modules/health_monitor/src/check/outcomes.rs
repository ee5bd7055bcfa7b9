//! Outcomes of probes: one that fails says little, three of four say that something is down, until
//! one is answered.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    metric::{COMPONENT_UP, PROBE_DURATION, PROBE_FAILURES},
    reading::{Component, Reading, Report, Series},
    text,
};

/// Probes that are looked at together, and failures among them from which on it is down, where the
/// last one failed as well. Of probes every 5 s of which 2% fail for no reason that is so for 10 s
/// once in years; without the last one it would be once in months.
const WINDOW: usize = 4;
const FAILURES: usize = 3;

/// The last outcomes of a component's probes, and what follows from them.
#[derive(Debug)]
pub struct Outcomes {
    component: Component,
    /// `true` for a probe that was answered, oldest first.
    last: Vec<bool>,
    /// State; `None` until the first answer or the third failure.
    is_up: Option<bool>,
    /// Explanation of the last probe where it failed.
    failure: Option<String>,
    duration: Option<f64>,
    /// Durations that were not reported yet, in seconds.
    measured: Vec<f64>,
    failures: BTreeMap<&'static str, Failures>,
    up: Arc<Series>,
    seconds: Arc<Series>,
}

/// Failed probes of one reason.
#[derive(Debug)]
struct Failures {
    series: Arc<Series>,
    count: f64,
    /// `true` once it was reported.
    is_told: bool,
}

/// A probe that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kind in a word, one of a few.
    pub reason: &'static str,
    /// Explanation in words.
    pub message: String,
}

impl Failure {
    /// Creates a failure.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl From<module_http_client::ClientError> for Failure {
    fn from(error: module_http_client::ClientError) -> Self {
        Self::new(error.reason(), text::visible(&error.to_string()))
    }
}

impl Outcomes {
    /// Begins without any.
    #[must_use]
    pub fn new(component: &Component) -> Self {
        Self {
            component: component.clone(),
            last: Vec::with_capacity(WINDOW),
            is_up: None,
            failure: None,
            duration: None,
            measured: Vec::new(),
            failures: BTreeMap::new(),
            up: Series::new(&COMPONENT_UP, component, [component]),
            seconds: Series::new(&PROBE_DURATION, component, [component]),
        }
    }

    /// Takes the outcome of a probe: its duration in seconds, or why it failed.
    pub fn take(&mut self, outcome: Result<f64, Failure>) {
        if self.last.len() == WINDOW {
            self.last.remove(0);
        }
        self.last.push(outcome.is_ok());
        match outcome {
            Ok(seconds) => {
                (self.duration, self.failure) = (Some(seconds), None);
                self.measured.push(seconds);
            }
            Err(Failure { reason, message }) => {
                let series =
                    || Series::new(&PROBE_FAILURES, &self.component, [&self.component, reason]);
                let new = || Failures { series: series(), count: 0.0, is_told: false };
                self.failures.entry(reason).or_insert_with(new).count += 1.0;
                self.failure = Some(message);
            }
        }
        if self.is_failing() {
            self.is_up = Some(false);
        } else if self.is_up.is_some() || self.failure.is_none() {
            self.is_up = Some(true);
        }
    }

    fn is_failing(&self) -> bool {
        self.failure.is_some() && self.failed() >= FAILURES
    }

    fn failed(&self) -> usize {
        self.last.iter().filter(|is_ok| !**is_ok).count()
    }

    /// Returns whether it is up; `None` until that is decided.
    #[must_use]
    pub const fn is_up(&self) -> Option<bool> {
        self.is_up
    }

    /// Returns whether there is no hurry to ask again: the last probe agrees with the state, and is
    /// not the only one that was answered lately.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match self.is_up {
            None => false,
            Some(true) => self.failure.is_none() && self.failed() < FAILURES,
            Some(false) => true,
        }
    }

    /// Returns the series that stands for the component.
    #[must_use]
    pub const fn headline(&self) -> &Arc<Series> {
        &self.up
    }

    /// Returns what the last probe says where it failed: `last probe: connection refused (2 of 4)`.
    #[must_use]
    pub fn message(&self) -> Option<String> {
        let failure = self.failure.as_ref()?;
        Some(format!("last probe: {failure} ({} of {WINDOW})", self.failed()))
    }

    /// Adds the readings.
    pub fn report(&mut self, report: &mut Report) {
        if let Some(is_up) = self.is_up {
            report.read(&self.up, f64::from(u8::from(is_up)));
        }
        if let Some(seconds) = self.duration {
            report.read(&self.seconds, seconds);
        }
        let measured = self.measured.drain(..);
        let series = || self.seconds.clone();
        report.measured.extend(measured.map(|value| Reading { series: series(), value }));
        for failures in self.failures.values_mut() {
            if !std::mem::replace(&mut failures.is_told, true) {
                // Growth is counted from the first value, and there was none before.
                report.read(&failures.series, 0.0);
            }
            report.read(&failures.series, failures.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(outcomes: &str) -> Outcomes {
        let mut all = Outcomes::new(&"router".into());
        for outcome in outcomes.chars() {
            all.take(match outcome {
                '+' => Ok(0.01),
                _ => Err(Failure::new("connect", "connection refused")),
            });
        }
        all
    }

    #[test]
    fn three_of_four_decide_where_the_last_one_failed() {
        let check = |outcomes: &str, is_up: Option<bool>, is_settled: bool| {
            let all = fed(outcomes);
            assert_eq!((all.is_up(), all.is_settled()), (is_up, is_settled), "{outcomes}");
        };
        check("", None, false);
        check("-", None, false);
        check("--", None, false);
        check("---", Some(false), true);
        check("+", Some(true), true);
        check("+-", Some(true), false);
        check("+--", Some(true), false);
        check("+---", Some(false), true);
        check("+-+-", Some(true), false);
        check("++-+-+-+", Some(true), true);
        check("----+", Some(true), false);
        check("---+-", Some(false), true);
        check("--+", Some(true), true);
        check("----++", Some(true), true);
        check("--+-", Some(false), true);
    }

    #[test]
    fn the_last_failure_is_told_and_failures_are_counted() {
        assert_eq!(fed("+").message(), None);
        let twice = fed("++--");
        let message = twice.message();
        assert_eq!(message.as_deref(), Some("last probe: connection refused (2 of 4)"));
        let mut report = Report::default();
        let mut failing = fed("-+--");
        failing.report(&mut report);
        let values: Vec<_> =
            report.readings.iter().map(|it| (it.series.metric.name, it.value)).collect();
        assert_eq!(
            values,
            [
                ("lodestar_component_up", 0.0),
                ("lodestar_probe_duration_seconds", 0.01),
                ("lodestar_probe_failures_total", 0.0),
                ("lodestar_probe_failures_total", 3.0)
            ]
        );
        let durations = |report: &Report| report.measured.iter().map(|it| it.value).sum::<f64>();
        assert_eq!(durations(&report), 0.01);
        let mut report = Report::default();
        failing.report(&mut report);
        assert_eq!(report.readings.len(), 3, "the beginning is told once");
        assert_eq!(durations(&report), 0.0, "and each duration");
    }
}

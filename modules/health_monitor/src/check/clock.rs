//! The clock: whether it was set, and how far it is from others.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use module_sdk::{human, jiff::Timestamp};

use super::{Check, Progress};
use crate::{
    metric::{CLOCK_JUMPS, CLOCK_SKEW},
    reading::{Component, Found, Report, Series},
};

/// Observations of the clock, by the module's own timer and by the probes of providers.
#[derive(Debug, Default)]
pub struct Observations(Mutex<Observed>);

#[derive(Debug, Default)]
struct Observed {
    skew: Option<f64>,
    jumps: u32,
    last_jump: Option<String>,
}

impl Observations {
    /// Takes by how many milliseconds the clock was set, which is 0 where it was not.
    pub fn set_by(&self, jump_ms: i64, at: Timestamp) {
        if jump_ms == 0 {
            return;
        }
        let by = human::duration(Duration::from_millis(jump_ms.unsigned_abs()));
        let direction = if jump_ms > 0 { "forward" } else { "back" };
        let mut observed = self.lock();
        observed.jumps = observed.jumps.saturating_add(1);
        observed.last_jump = Some(format!("set {direction} by {by} at {at:.0}"));
    }

    /// Takes the seconds by which the clock is ahead of each of others.
    pub(super) fn ahead_of(&self, mut seconds: Vec<f64>) {
        seconds.sort_by(f64::total_cmp);
        self.lock().skew = seconds.get(seconds.len() / 2).copied();
    }

    fn lock(&self) -> MutexGuard<'_, Observed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Clock {
    observations: Arc<Observations>,
    component: Component,
    skew: Arc<Series>,
    jumps: Arc<Series>,
}

impl Clock {
    pub(super) fn new(observations: &Arc<Observations>) -> Self {
        let component: Component = "clock".into();
        Self {
            observations: observations.clone(),
            skew: Series::new(&CLOCK_SKEW, &component, []),
            jumps: Series::new(&CLOCK_JUMPS, &component, []),
            component,
        }
    }
}

impl Check for Clock {
    fn run(&mut self, _: &Progress) -> Report {
        let mut report = Report::default();
        let observed = self.observations.lock();
        let headline = if observed.skew.is_some() { &self.skew } else { &self.jumps };
        let message = observed.last_jump.clone().unwrap_or_default();
        report.found.push(Found::present(&self.component, headline).saying(message));
        report.read(&self.jumps, f64::from(observed.jumps));
        if let Some(skew) = observed.skew {
            report.read(&self.skew, skew);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(observations: &Arc<Observations>) -> Vec<f64> {
        let report = Clock::new(observations).run(&Progress::default());
        report.readings.iter().map(|reading| reading.value).collect()
    }

    #[test]
    fn the_median_of_the_providers_counts() {
        let observations = Arc::new(Observations::default());
        assert_eq!(values(&observations), [0.0]);
        observations.ahead_of(vec![0.4, -0.2, 3_600.0]);
        assert_eq!(values(&observations), [0.0, 0.4]);
        observations.ahead_of(Vec::new());
        assert_eq!(values(&observations), [0.0]);
    }

    #[test]
    fn a_clock_that_is_set_is_counted_and_told() {
        let observations = Arc::new(Observations::default());
        let at = "2026-11-20T10:00:00Z".parse().expect("a time");
        observations.set_by(0, at);
        observations.set_by(-86_400_000, at);
        let report = Clock::new(&observations).run(&Progress::default());
        assert_eq!(report.found[0].message, "set back by 1d 0h at 2026-11-20T10:00:00Z");
        assert_eq!(report.readings[0].value, 1.0);
    }
}

//! Requests that are counted together: all, or those of a model, a provider or a project.

use std::sync::Arc;

use module_sdk::LogHistogram;

use super::{
    FIVES_MS, HOURS_MS, MINUTES_MS, Measure,
    ring::Ring,
    sample::{Counts, Minute, Sample, Tally},
    steady_ms,
};
use crate::{
    reading::{Component, Series},
    rule::Function,
};

/// Kind of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    All,
    Model,
    Provider,
    Project,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Project => "project",
        }
    }

    /// Returns the component of a name.
    pub(crate) fn component(self, name: &str) -> Component {
        match self {
            Self::All => "requests".into(),
            _ => format!("{}.{name}", self.as_str()).into(),
        }
    }

    /// Returns the values of the labels `scope`, `gen_ai_request_model`, `gen_ai_provider_name` and
    /// `lodestar_project`.
    pub(crate) const fn labels(self, name: &str) -> [&str; 4] {
        let scope = self.as_str();
        match self {
            Self::All => [scope, "", "", ""],
            Self::Model => [scope, name, "", ""],
            Self::Provider => [scope, "", name, ""],
            Self::Project => [scope, "", "", name],
        }
    }
}

/// Requests of one name.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) kind: Kind,
    component: Component,
    series: [Arc<Series>; Measure::ALL.len()],
    last_ms: i64,
    pub(crate) minutes: Ring<Minute>,
    pub(crate) fives: Ring<Counts>,
    pub(crate) hours: Ring<Counts>,
}

impl Scope {
    pub(crate) fn new(kind: Kind, name: &str) -> Self {
        let component = kind.component(name);
        Self {
            kind,
            series: series(kind, &component, name),
            component,
            last_ms: i64::MIN,
            minutes: Ring::new(60_000, steady_ms(MINUTES_MS)),
            fives: Ring::new(5 * 60_000, steady_ms(FIVES_MS)),
            hours: Ring::new(3_600_000, steady_ms(HOURS_MS)),
        }
    }

    pub(crate) fn rename(&mut self, component: &Component) {
        self.component = component.clone();
        self.series = series(self.kind, component, self.name());
    }

    pub(crate) const fn component(&self) -> &Component {
        &self.component
    }

    pub(crate) fn name(&self) -> &str {
        self.component.split_once('.').map_or("", |(_, name)| name)
    }

    /// Returns the time of the latest request.
    pub(crate) const fn last_ms(&self) -> i64 {
        self.last_ms
    }

    pub(crate) fn take(&mut self, sample: &Sample<'_>, at_ms: i64, now_ms: i64) {
        self.last_ms = self.last_ms.max(at_ms);
        let newest = self.minutes.newest();
        if let Some(minute) = self.minutes.at(at_ms, now_ms) {
            minute.add(sample);
        }
        if self.minutes.newest() != newest {
            self.minutes.closed().for_each(Minute::close);
        }
        for ring in [&mut self.fives, &mut self.hours] {
            if let Some(counts) = ring.at(at_ms, now_ms) {
                counts.add(sample);
            }
        }
    }

    pub(crate) fn forget(&mut self, now_ms: i64) {
        self.minutes.forget(now_ms);
        self.fives.forget(now_ms);
        self.hours.forget(now_ms);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hours.is_empty()
    }

    pub(crate) fn seen(&mut self, at_ms: i64) {
        self.last_ms = self.last_ms.max(at_ms);
    }

    pub(crate) const fn series(&self, measure: Measure) -> &Arc<Series> {
        &self.series[measure as usize]
    }

    /// Returns the sums of a time, from the buckets that are fine enough for it.
    pub(crate) fn counts(&self, over_ms: i64, now_ms: i64) -> Counts {
        let mut sum = Counts::default();
        match over_ms {
            over if over <= steady_ms(MINUTES_MS) => {
                self.minutes.within(over, now_ms).for_each(|minute| sum += &minute.counts);
            }
            over if over <= steady_ms(FIVES_MS) => {
                self.fives.within(over, now_ms).for_each(|counts| sum += counts);
            }
            over => self.hours.within(over, now_ms).for_each(|counts| sum += counts),
        }
        sum
    }

    /// Returns the numbers of the first and last bucket that count for a time.
    pub(crate) const fn touched(&self, over_ms: i64, now_ms: i64) -> (i64, i64) {
        self.minutes.touched(over_ms, now_ms)
    }

    /// Returns the value of a function over a time; `None` where there is nothing to take it of.
    pub(crate) fn value(
        &self,
        measure: Measure,
        function: Function,
        over_ms: i64,
        now_ms: i64,
    ) -> Option<f64> {
        let percent = match function {
            Function::P50 => 50,
            Function::P95 => 95,
            Function::P99 => 99,
            _ => return of_counts(&self.counts(over_ms, now_ms), measure, function),
        };
        let mut times = LogHistogram::default();
        for minute in self.minutes.within(over_ms, now_ms) {
            match measure {
                Measure::Duration => minute.duration.add_to(&mut times),
                Measure::FirstToken => minute.ttft.add_to(&mut times),
                _ => return None,
            }
        }
        times.percentile(percent).map(|ms| f64::from(ms) / 1_000.0)
    }
}

fn of_counts(counts: &Counts, measure: Measure, function: Function) -> Option<f64> {
    let judged = (counts.requests > 0).then_some(());
    let (tally, unit) = match measure {
        Measure::Requests => return judged.map(|()| f64::from(counts.requests)),
        Measure::Errors => return judged.map(|()| f64::from(counts.errors)),
        Measure::ErrorRatio => {
            return judged.map(|()| f64::from(counts.errors) / f64::from(counts.requests));
        }
        Measure::Duration => (counts.duration_ms, 1e3),
        Measure::FirstToken => (counts.ttft_ms, 1e3),
        Measure::Cost => (counts.cost_nano, 1e9),
        Measure::Tokens => (counts.tokens, 1.0),
    };
    of_tally(tally, unit, function)
}

#[expect(clippy::cast_precision_loss, reason = "sums beyond 2^53 may be rounded")]
fn of_tally(tally: Tally, unit: f64, function: Function) -> Option<f64> {
    if tally.count == 0 {
        return None;
    }
    let count = f64::from(tally.count);
    match function {
        Function::Count => Some(count),
        Function::Sum => Some(tally.sum as f64 / unit),
        Function::Avg => Some(tally.sum as f64 / unit / count),
        Function::Max => Some(tally.max as f64 / unit),
        _ => None,
    }
}

fn series(kind: Kind, component: &Component, name: &str) -> [Arc<Series>; Measure::ALL.len()] {
    Measure::ALL.map(|(_, metric)| Series::new(metric, component, kind.labels(name)))
}

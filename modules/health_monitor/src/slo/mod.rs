//! Service level objectives: how many requests may fail or be slow, how many did, and how fast the
//! error budget is used up.
//!
//! Which burn is a trouble stands in the rules (`error_budget_*` in `rules.toml`); here it is only
//! measured. Buckets of five minutes and of an hour are kept in the database.

mod options;
mod standing;
mod store;

use std::{collections::BTreeMap, ops::AddAssign, sync::Arc};

pub use options::{Measure, ScopeOptions, SloError, SloKind, SloOptions, all};
pub use standing::{Burn, Standing};

use crate::{
    metric::{SLO_BUDGET, SLO_BURN_RATE, SLO_ERRORS, SLO_REQUESTS},
    reading::{Component, Found, Report, Series},
    requests::{Outcome, Sample, ring::Ring, steady},
    rule::Pattern,
    time::Moment,
};

/// Name of what reports them.
pub const CHECK: &str = "slo";

/// Windows over which burn rates are told.
pub(crate) const WINDOWS: [(&str, i64); 5] = [
    ("5m", 5 * MINUTE_MS),
    ("30m", 30 * MINUTE_MS),
    ("1h", HOUR_MS),
    ("6h", 6 * HOUR_MS),
    ("3d", 72 * HOUR_MS),
];

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// Length of the buckets in the database, in milliseconds, and the time for which the shorter ones
/// are kept.
const FIVE_MS: i64 = 5 * MINUTE_MS;
const FIVES_MS: i64 = 73 * HOUR_MS;

/// Buckets that wait at most while the database is not available: two days of both lengths.
const WAITING: usize = 650;

/// An objective, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Slo {
    /// Name.
    pub name: Arc<str>,
    /// Fraction of the requests that have to be good.
    pub objective: f64,
    /// Kind of what is good.
    pub kind: SloKind,
    /// Time within which an answer is good, in milliseconds, where it is of response times.
    pub threshold_ms: Option<u32>,
    /// Response time that is judged.
    pub measure: Measure,
    /// Requests that count.
    pub scope: Scope,
    /// Time over which the budget lasts, in milliseconds.
    pub window_ms: i64,
}

/// Requests that count for an objective.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scope {
    pub(crate) model: Option<Pattern>,
    pub(crate) provider: Option<Pattern>,
    pub(crate) project: Option<Pattern>,
}

impl Scope {
    fn fits(&self, sample: &Sample<'_>) -> bool {
        let fits = |pattern: &Option<Pattern>, name: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| name.is_some_and(|name| pattern.fits(name)))
        };
        fits(&self.model, sample.model)
            && fits(&self.provider, sample.provider)
            && fits(&self.project, sample.project)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all =
            [("model", &self.model), ("provider", &self.provider), ("project", &self.project)];
        let given = all.iter().filter_map(|(name, pattern)| Some((name, pattern.as_ref()?)));
        let mut is_first = true;
        for (name, pattern) in given {
            write!(f, "{}{name} {}", if is_first { "" } else { ", " }, pattern.as_str())?;
            is_first = false;
        }
        if is_first { f.write_str("all requests") } else { Ok(()) }
    }
}

impl Slo {
    /// Returns what identifies the counts of the objective in the database: those of another
    /// definition are no counts of this one.
    fn key(&self) -> String {
        let threshold = self.threshold_ms.map_or(String::new(), |ms| format!(" {ms}ms"));
        format!("{} {:?} {:?}{threshold} {}", self.name, self.kind, self.measure, self.scope)
    }

    /// Judges a request: `None` where it does not count.
    fn is_good(&self, sample: &Sample<'_>) -> Option<bool> {
        if !self.scope.fits(sample) {
            return None;
        }
        match (self.kind, sample.outcome) {
            (_, Outcome::Neither) | (SloKind::Latency, Outcome::Failed) => None,
            (SloKind::Availability, outcome) => Some(outcome == Outcome::Good),
            (SloKind::Latency, Outcome::Good) => {
                let took = match self.measure {
                    Measure::Duration => sample.duration_ms,
                    Measure::FirstToken => sample.ttft_ms,
                };
                Some(took? <= self.threshold_ms?)
            }
        }
    }
}

/// Requests that count, and those of them that were good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) good: i64,
    pub(crate) total: i64,
}

impl Share {
    pub(crate) const fn bad(self) -> i64 {
        self.total.saturating_sub(self.good)
    }
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Self) {
        self.good = self.good.saturating_add(other.good);
        self.total = self.total.saturating_add(other.total);
    }
}

/// Length of a bucket and its beginning by the clock, in milliseconds.
type Bucket = (i64, i64);

/// All objectives and how they stand.
#[derive(Debug, Default)]
pub struct Objectives {
    all: Vec<Objective>,
}

#[derive(Debug)]
struct Objective {
    slo: Slo,
    component: Component,
    budget: Arc<Series>,
    /// Burn rate, requests and errors of each window.
    windows: [[Arc<Series>; 3]; WINDOWS.len()],
    minutes: Ring<Share>,
    fives: Ring<Share>,
    hours: Ring<Share>,
    /// Counts that the database has not got yet.
    waiting: BTreeMap<Bucket, Share>,
    /// `true` once what the database has was read.
    is_loaded: bool,
}

impl Objectives {
    /// Begins with nothing counted.
    #[must_use]
    pub fn new(slos: Vec<Slo>) -> Self {
        Self { all: slos.into_iter().map(Objective::new).collect() }
    }

    /// Takes a request that ended milliseconds ago, as [`crate::requests::Windows::take`] does.
    pub fn take(&mut self, sample: &Sample<'_>, age_ms: i64, now: Moment) {
        let age_ms = age_ms.max(0);
        for objective in &mut self.all {
            if let Some(is_good) = objective.slo.is_good(sample) {
                let share = Share { good: i64::from(is_good), total: 1 };
                objective.add(share, age_ms, now);
            }
        }
    }

    /// Reports how the objectives stand.
    pub fn report(&self, now: Moment) -> Report {
        let mut report = Report::default();
        for objective in &self.all {
            objective.report(now, &mut report);
        }
        report
    }

    /// Returns how the objectives stand, by name.
    #[must_use]
    pub fn standings(&self, now: Moment) -> Vec<Standing> {
        self.all.iter().map(|objective| objective.standing(now)).collect()
    }
}

impl Objective {
    fn new(slo: Slo) -> Self {
        let component: Component = format!("{CHECK}.{}", slo.name).into();
        let windows = WINDOWS.map(|(window, _)| {
            let labels = [&*slo.name, window];
            let metrics = [&SLO_BURN_RATE, &SLO_REQUESTS, &SLO_ERRORS];
            metrics.map(|metric| Series::new(metric, &component, labels))
        });
        Self {
            budget: Series::new(&SLO_BUDGET, &component, [&slo.name]),
            minutes: Ring::new(MINUTE_MS, 70 * MINUTE_MS),
            fives: Ring::new(FIVE_MS, FIVES_MS),
            hours: Ring::new(HOUR_MS, slo.window_ms + HOUR_MS),
            waiting: BTreeMap::new(),
            is_loaded: false,
            component,
            windows,
            slo,
        }
    }

    fn add(&mut self, share: Share, age_ms: i64, now: Moment) {
        let clock_ms = now.at.as_millisecond().saturating_sub(age_ms);
        if self.count(share, age_ms, now) {
            for width in [FIVE_MS, HOUR_MS] {
                let at = clock_ms.div_euclid(width) * width;
                *self.waiting.entry((width, at)).or_default() += share;
            }
            while self.waiting.len() > WAITING {
                self.waiting.pop_first();
            }
        }
    }

    /// Adds to the rings; returns whether any of them reaches back so far.
    fn count(&mut self, share: Share, age_ms: i64, now: Moment) -> bool {
        let now_ms = steady(now);
        let at_ms = now_ms.saturating_sub(age_ms);
        let mut is_kept = false;
        for ring in [&mut self.minutes, &mut self.fives, &mut self.hours] {
            if let Some(sum) = ring.at(at_ms, now_ms) {
                *sum += share;
                is_kept = true;
            }
        }
        is_kept
    }

    /// Returns the counts of a time, from the finest buckets that reach so far.
    fn share(&self, over_ms: i64, now: Moment) -> Share {
        let ring = match over_ms {
            over if over <= HOUR_MS => &self.minutes,
            over if over <= 72 * HOUR_MS => &self.fives,
            _ => &self.hours,
        };
        let mut sum = Share::default();
        ring.within(over_ms, steady(now)).for_each(|share| sum += *share);
        sum
    }

    fn report(&self, now: Moment, report: &mut Report) {
        let standing = self.standing(now);
        if standing.requests == 0 {
            let message = "no request that counts was reported";
            return report.found.push(Found::absent(&self.component, message));
        }
        for ([burn, requests, errors], window) in self.windows.iter().zip(&standing.windows) {
            report.read(requests, count(window.requests));
            report.read(errors, count(window.errors));
            window.burn_rate.into_iter().for_each(|rate| report.read(burn, rate));
        }
        report.read(&self.budget, standing.budget_remaining);
        let said = format!("{}; {}", standing.objective_text(), standing.used_up_text());
        report.found.push(Found::present(&self.component, &self.budget).saying(said));
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of requests are far below 2^53")]
pub(crate) const fn count(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests;

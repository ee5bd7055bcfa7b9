//! The latest values of all series, and as much of the past as rules look at.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    metric::{Kind, Metric},
    reading::{Component, Reading, Series},
    rule::{Function, RuleSet},
};

/// Points that are kept of a series, at most, for the longest window of a rule.
const POINTS: u64 = 120;

/// Values by series.
#[derive(Debug, Default)]
pub struct Values {
    metrics: HashMap<&'static str, HashMap<Arc<Series>, Track>>,
}

/// A series over time.
#[derive(Debug)]
struct Track {
    /// Name of the check that reads it.
    check: &'static str,
    latest: f64,
    /// Steady time of the latest value, in milliseconds.
    read_ms: u64,
    /// `true` where its component was looked at since, and did not have it.
    is_stale: bool,
    /// Past values, oldest first; empty where no rule looks back.
    past: VecDeque<(u64, f64)>,
}

impl Values {
    /// Takes the readings that a check made at a moment.
    pub fn take(
        &mut self,
        check: &'static str,
        readings: Vec<Reading>,
        rules: &RuleSet,
        now_ms: u64,
    ) {
        for Reading { series, value } in readings {
            let metric = series.metric;
            let of_metric = self.metrics.entry(metric.name).or_default();
            let track = match of_metric.get_mut(&series) {
                Some(track) => track,
                None => of_metric.entry(series).or_insert_with(|| Track {
                    check,
                    latest: value,
                    read_ms: now_ms,
                    is_stale: false,
                    past: VecDeque::new(),
                }),
            };
            (track.check, track.latest, track.read_ms, track.is_stale) =
                (check, value, now_ms, false);
            let window = rules.window_ms(metric);
            if window > 0 {
                track.remember(value, now_ms, window);
            }
        }
    }

    /// Forgets the series that a check has not read since a time: it does not report them any more.
    /// Those of components of which it says that nothing is known keep their values for rules, and
    /// are not known at the moment.
    pub fn forget(
        &mut self,
        check: &'static str,
        before_ms: u64,
        is_unknown: impl Fn(&Component) -> bool,
    ) {
        for of_metric in self.metrics.values_mut() {
            of_metric.retain(|series, track| {
                let is_read = track.check != check || track.read_ms >= before_ms;
                track.is_stale |= !is_read;
                is_read || is_unknown(&series.component)
            });
        }
    }

    /// Notes that no series of a check is known at the moment. Rules go on with what was read last.
    pub fn expire(&mut self, check: &'static str) {
        let tracks = self.metrics.values_mut().flat_map(HashMap::values_mut);
        tracks.filter(|track| track.check == check).for_each(|track| track.is_stale = true);
    }

    /// Returns every series of a metric with its value, or with that of a function over a time.
    pub fn each(
        &self,
        metric: &Metric,
        function: Option<(Function, u64)>,
        now_ms: u64,
    ) -> impl Iterator<Item = (&Arc<Series>, f64)> {
        let tracks = self.metrics.get(metric.name).into_iter().flatten();
        tracks.filter_map(move |(series, track)| {
            track.value(metric.kind, function, now_ms).map(|value| (series, value))
        })
    }

    /// Returns the value of a component's series of a metric; where several have one, the largest.
    /// A metric that only one series has goes for every component.
    pub fn of(
        &self,
        component: &str,
        metric: &Metric,
        function: Option<(Function, u64)>,
        now_ms: u64,
        is_meant: impl Fn(&Series) -> bool,
    ) -> Option<f64> {
        let meant = self.each(metric, function, now_ms).filter(|(series, _)| is_meant(series));
        let all: Vec<(&Component, f64)> =
            meant.map(|(series, value)| (&series.component, value)).collect();
        let own = all.iter().filter(|(owner, _)| &***owner == component).map(|(_, value)| *value);
        match (own.reduce(f64::max), all.as_slice()) {
            (Some(value), _) => Some(value),
            (None, [(_, value)]) => Some(*value),
            (None, _) => None,
        }
    }

    /// Returns the latest value of a series.
    #[must_use]
    pub fn latest(&self, series: &Series) -> Option<f64> {
        self.metrics.get(series.metric.name)?.get(series).map(|track| track.latest)
    }

    /// Returns the series that are known at the moment, with their values.
    pub fn fresh(&self) -> impl Iterator<Item = (&Arc<Series>, f64)> {
        let tracks = self.metrics.values().flatten().filter(|(_, track)| !track.is_stale);
        tracks.map(|(series, track)| (series, track.latest))
    }

    /// Returns all series with their latest values.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<Series>, f64)> {
        self.metrics.values().flatten().map(|(series, track)| (series, track.latest))
    }
}

impl Track {
    fn remember(&mut self, value: f64, now_ms: u64, window_ms: u64) {
        let spacing = window_ms / POINTS;
        let is_due = self.past.back().is_none_or(|(at, _)| now_ms.saturating_sub(*at) >= spacing);
        if is_due {
            self.past.push_back((now_ms, value));
        }
        // One older than the window stays: growth is counted from it.
        while self.past.len() > 1 && self.past[1].0.saturating_add(window_ms) <= now_ms {
            self.past.pop_front();
        }
    }

    fn value(&self, kind: Kind, function: Option<(Function, u64)>, now_ms: u64) -> Option<f64> {
        let Some((function, over_ms)) = function else { return Some(self.latest) };
        let from = now_ms.saturating_sub(over_ms);
        let within = || {
            let past = self.past.iter().filter(|(at, _)| *at >= from).map(|(_, value)| *value);
            past.chain([self.latest])
        };
        match (function, kind) {
            (Function::Max, _) => within().reduce(f64::max),
            (Function::Min, _) => within().reduce(f64::min),
            (Function::Avg, _) => {
                let (sum, count) =
                    within().fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
                Some(sum / f64::from(count))
            }
            (Function::Increase, Kind::Counter) => Some(self.increase(from)),
            #[expect(clippy::cast_precision_loss, reason = "a year in ms is far below 2^53")]
            (Function::Rate, Kind::Counter) => {
                Some(self.increase(from) / (over_ms as f64 / 1_000.0))
            }
            _ => None,
        }
    }

    /// Returns by how much a counter grew since a time. One that became smaller began anew at 0.
    fn increase(&self, from_ms: u64) -> f64 {
        // The last value before the window is where growth within it began.
        let first = self.past.partition_point(|(at, _)| *at < from_ms).saturating_sub(1);
        let mut values = self.past.iter().skip(first).map(|(_, value)| *value);
        let Some(mut before) = values.next() else { return 0.0 };
        let mut sum = 0.0;
        for value in values.chain([self.latest]) {
            sum += if value >= before { value - before } else { value };
            before = value;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::metric::{MEMORY_UTILIZATION, OOM_KILLS};

    fn rules() -> RuleSet {
        let rules: BTreeMap<_, _> = serde_json::from_value(serde_json::json!({
            "mine": {"metric": MEMORY_UTILIZATION.name, "function": "avg", "over": "1m",
                     "above": 1},
        }))
        .expect("it is a rule");
        RuleSet::new(&rules).expect("it is valid")
    }

    fn fed(metric: &'static Metric, values: &[(u64, f64)]) -> Values {
        let (rules, mut store) = (rules(), Values::default());
        let series = Series::new(metric, &"memory".into(), []);
        for (at, value) in values {
            let reading = Reading { series: series.clone(), value: *value };
            store.take("memory", vec![reading], &rules, *at);
        }
        store
    }

    fn value(store: &Values, metric: &Metric, function: Function, over: u64, now: u64) -> f64 {
        let mut all = store.each(metric, Some((function, over)), now);
        all.next().expect("there is one").1
    }

    #[test]
    fn functions_look_at_their_window() {
        let values = [(0, 9.0), (10_000, 0.5), (70_000, 0.1), (80_000, 0.3)];
        let store = fed(&MEMORY_UTILIZATION, &values);
        let avg = value(&store, &MEMORY_UTILIZATION, Function::Avg, 20_000, 80_000);
        assert!((avg - (0.1 + 0.3 + 0.3) / 3.0).abs() < 1e-9, "{avg}");
        assert_eq!(value(&store, &MEMORY_UTILIZATION, Function::Max, 60_000, 80_000), 0.3);
        assert_eq!(value(&store, &MEMORY_UTILIZATION, Function::Min, 60_000, 80_000), 0.1);
    }

    #[test]
    fn growth_survives_a_counter_that_begins_anew() {
        let values = [(0, 5.0), (100_000, 7.0), (200_000, 1.0), (300_000, 2.0)];
        let store = fed(&OOM_KILLS, &values);
        let grown = |over| value(&store, &OOM_KILLS, Function::Increase, over, 300_000);
        assert_eq!(grown(600_000), 4.0);
        assert_eq!(grown(50_000), 1.0);
        let rate = value(&store, &OOM_KILLS, Function::Rate, 100_000, 300_000);
        assert!((rate - 0.02).abs() < 1e-9, "{rate}");
        let first = fed(&OOM_KILLS, &[(0, 9.0)]);
        assert_eq!(value(&first, &OOM_KILLS, Function::Increase, 60_000, 0), 0.0);
    }

    #[test]
    fn what_is_not_known_at_the_moment_is_kept_for_rules() {
        let mut store = fed(&MEMORY_UTILIZATION, &[(5, 0.5)]);
        store.expire("disk");
        assert_eq!(store.fresh().count(), 1, "it is of another check");
        store.expire("memory");
        assert_eq!((store.fresh().count(), store.iter().count()), (0, 1));
        let series = store.iter().map(|(series, _)| series.clone()).next().expect("it is kept");
        store.take("memory", vec![Reading { series, value: 0.5 }], &rules(), 7);
        assert_eq!(store.fresh().count(), 1);
    }

    #[test]
    fn what_is_no_longer_reported_is_forgotten() {
        let mut store = fed(&MEMORY_UTILIZATION, &[(5, 0.5)]);
        store.forget("memory", 5, |_| false);
        store.forget("disk", 6, |_| false);
        store.forget("memory", 6, |component| &**component == "memory");
        assert_eq!(store.of("disk./", &MEMORY_UTILIZATION, None, 5, |_| true), Some(0.5));
        store.forget("memory", 6, |_| false);
        assert_eq!(store.iter().count(), 0);
    }
}

//! The latest values of all series, and as much of the past as rules look at.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    metric::{self, Kind, Metric},
    reading::{Component, Reading, Series},
    rule::{Function, RuleSet},
};

/// Points that are kept of a series, at most, for the longest window of a rule.
const POINTS: u64 = 120;

/// Values by series.
#[derive(Debug)]
pub struct Values {
    /// Values of each metric, by its slot.
    metrics: Box<[OfMetric]>,
    /// Slots of the metrics that each check reads or read.
    slots: HashMap<&'static str, Vec<usize>>,
    /// Number of the last change.
    version: u64,
    /// Number of the last change that was judged.
    settled: u64,
}

/// Values of one metric.
#[derive(Debug, Default)]
struct OfMetric {
    tracks: HashMap<Arc<Series>, Track>,
    /// Number of the last change: of a value that was another one, was new or went, or of whether
    /// one is known.
    changed: u64,
}

/// A series over time.
#[derive(Debug)]
struct Track {
    /// Name of the check that reads it.
    check: &'static str,
    first: f64,
    latest: f64,
    /// Steady time of the latest value, in milliseconds.
    read_ms: u64,
    /// Steady time since which the value has been the latest one, in milliseconds.
    constant_ms: u64,
    /// `true` where its component was looked at since, and did not have it.
    is_stale: bool,
    /// Past values, oldest first; empty where no rule looks back.
    past: VecDeque<(u64, f64)>,
    /// Numbers of the conditions that judge it.
    judging: Box<[usize]>,
}

impl Default for Values {
    fn default() -> Self {
        let metrics = metric::ALL.iter().map(|_| OfMetric::default()).collect();
        Self { metrics, slots: HashMap::new(), version: 0, settled: 0 }
    }
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
        self.version += 1;
        let slots = self.slots.entry(check).or_default();
        for Reading { series, value } in readings {
            let metric = series.metric;
            // No value is kept of what is not listed.
            let Some(of_metric) = self.metrics.get_mut(metric.slot) else { continue };
            let track = match of_metric.tracks.get_mut(&series) {
                Some(track) => {
                    if track.latest.to_bits() != value.to_bits() {
                        track.constant_ms = now_ms;
                        of_metric.changed = self.version;
                    }
                    if track.is_stale {
                        of_metric.changed = self.version;
                    }
                    track
                }
                None => {
                    of_metric.changed = self.version;
                    let judging = rules.judging(&series);
                    of_metric.tracks.entry(series).or_insert_with(|| Track {
                        check,
                        first: value,
                        latest: value,
                        read_ms: now_ms,
                        constant_ms: now_ms,
                        is_stale: false,
                        past: VecDeque::new(),
                        judging,
                    })
                }
            };
            (track.check, track.latest, track.read_ms, track.is_stale) =
                (check, value, now_ms, false);
            if !slots.contains(&metric.slot) {
                slots.push(metric.slot);
            }
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
        self.version += 1;
        for slot in self.slots.get(check).into_iter().flatten() {
            let OfMetric { tracks, changed } = &mut self.metrics[*slot];
            tracks.retain(|series, track| {
                let is_read = track.read_ms >= before_ms || track.check != check;
                if !is_read {
                    track.is_stale = true;
                    *changed = self.version;
                }
                is_read || is_unknown(&series.component)
            });
        }
    }

    /// Notes that no series of a check is known at the moment. Rules go on with what was read last.
    pub fn expire(&mut self, check: &'static str) {
        self.version += 1;
        for OfMetric { tracks, changed } in &mut self.metrics {
            for track in tracks.values_mut().filter(|track| track.check == check) {
                track.is_stale = true;
                *changed = self.version;
            }
        }
    }

    /// Notes that all values were judged.
    pub fn settle(&mut self) {
        self.settled = self.version;
    }

    /// Returns whether a metric has no series at all.
    #[must_use]
    pub fn has_none(&self, metric: &Metric) -> bool {
        self.metrics.get(metric.slot).is_none_or(|of_metric| of_metric.tracks.is_empty())
    }

    /// Returns whether values of a metric changed since they were judged.
    #[must_use]
    pub fn is_changed(&self, metric: &Metric) -> bool {
        self.metrics.get(metric.slot).is_some_and(|it| it.changed > self.settled)
    }

    /// Returns the number of the last change; there are more of them than of changed values.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Returns the slots of the metrics that changed after a version.
    pub fn changed_since(&self, version: u64) -> impl Iterator<Item = usize> {
        let numbered = self.metrics.iter().enumerate();
        numbered.filter(move |(_, it)| it.changed > version).map(|(slot, _)| slot)
    }

    /// Returns every series of a metric with its value, or with that of a function over a time.
    pub fn each(
        &self,
        metric: &Metric,
        function: Option<(Function, u64)>,
        now_ms: u64,
    ) -> impl Iterator<Item = (&Arc<Series>, f64)> {
        self.tracks(metric).filter_map(move |(series, track)| {
            track.value(metric.kind, function, now_ms).map(|value| (series, value))
        })
    }

    /// Returns every series that a condition judges, as [`each`](Self::each) does.
    pub fn judged_by(
        &self,
        number: usize,
        metric: &Metric,
        function: Option<(Function, u64)>,
        now_ms: u64,
    ) -> impl Iterator<Item = (&Arc<Series>, f64)> {
        let judged = self.tracks(metric).filter(move |(_, track)| track.judging.contains(&number));
        judged.filter_map(move |(series, track)| {
            track.value(metric.kind, function, now_ms).map(|value| (series, value))
        })
    }

    fn tracks(&self, metric: &Metric) -> impl Iterator<Item = (&Arc<Series>, &Track)> {
        self.metrics.get(metric.slot).into_iter().flat_map(|of_metric| &of_metric.tracks)
    }

    /// Returns the latest value of a series.
    #[must_use]
    pub fn latest(&self, series: &Series) -> Option<f64> {
        self.metrics.get(series.metric.slot)?.tracks.get(series).map(|track| track.latest)
    }

    /// Returns the first value of a series.
    #[must_use]
    pub fn first(&self, series: &Series) -> Option<f64> {
        self.metrics.get(series.metric.slot)?.tracks.get(series).map(|track| track.first)
    }

    /// Returns the series of the metric in a slot that are known at the moment, with their values.
    pub fn fresh(&self, slot: usize) -> impl Iterator<Item = (&Arc<Series>, f64)> {
        let tracks = self.metrics.get(slot).into_iter().flat_map(|of_metric| &of_metric.tracks);
        let fresh = tracks.filter(|(_, track)| !track.is_stale);
        fresh.map(|(series, track)| (series, track.latest))
    }

    /// Returns all series with their latest values.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<Series>, f64)> {
        let tracks = self.metrics.iter().flat_map(|of_metric| &of_metric.tracks);
        tracks.map(|(series, track)| (series, track.latest))
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
        // What was the same all the time needs no sum. A point of the very moment of a change may
        // be of before it.
        let is_constant = self.constant_ms < from;
        let within = || {
            let past = self.past.iter().filter(|(at, _)| *at >= from).map(|(_, value)| *value);
            past.chain([self.latest])
        };
        match (function, kind) {
            (Function::Max | Function::Min | Function::Avg, _) if is_constant => Some(self.latest),
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
        if self.past.get(first).is_none_or(|(at, _)| *at > self.constant_ms) {
            return 0.0;
        }
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
    fn what_stays_the_same_has_the_value_that_a_sum_would_have() {
        // The value is another one from 50 s on.
        let values: Vec<(u64, f64)> =
            (0..60).map(|at| (at * 5_000, if at < 10 { 3.0 } else { 4.0 })).collect();
        let (gauge, counter) = (fed(&MEMORY_UTILIZATION, &values), fed(&OOM_KILLS, &values));
        let grown = |over| value(&counter, &OOM_KILLS, Function::Increase, over, 295_000);
        assert_eq!((grown(60_000), grown(244_000)), (0.0, 0.0));
        assert_eq!((grown(245_000), grown(295_000)), (1.0, 1.0));
        for function in [Function::Avg, Function::Max, Function::Min] {
            assert_eq!(value(&gauge, &MEMORY_UTILIZATION, function, 60_000, 295_000), 4.0);
        }
    }

    #[test]
    fn growth_within_one_moment_counts() {
        let store = fed(&OOM_KILLS, &[(0, 0.0), (0, 1.0)]);
        assert_eq!(value(&store, &OOM_KILLS, Function::Increase, 600_000, 0), 1.0);
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
        let slot = MEMORY_UTILIZATION.slot;
        let fresh = |store: &Values| store.fresh(slot).count();
        store.expire("disk");
        assert_eq!(fresh(&store), 1, "it is of another check");
        store.expire("memory");
        assert_eq!((fresh(&store), store.iter().count()), (0, 1));
        let series = store.iter().map(|(series, _)| series.clone()).next().expect("it is kept");
        let version = store.version();
        store.take("memory", vec![Reading { series, value: 0.5 }], &rules(), 7);
        assert_eq!(fresh(&store), 1);
        assert_eq!(store.changed_since(version).collect::<Vec<_>>(), [slot], "it is known again");
    }

    #[test]
    fn what_changed_is_told_to_whoever_looked_before() {
        let mut store = fed(&MEMORY_UTILIZATION, &[(5, 0.5)]);
        let series = store.iter().map(|(series, _)| series.clone()).next().expect("it is there");
        let slot = MEMORY_UTILIZATION.slot;
        let mut seen = 0;
        let mut changed = |store: &Values| {
            let slots: Vec<usize> = store.changed_since(seen).collect();
            seen = store.version();
            slots
        };
        assert_eq!(changed(&store), [slot]);
        assert!(changed(&store).is_empty());
        let reading = |value| vec![Reading { series: series.clone(), value }];
        let taken = |store: &mut Values, value, at| {
            store.take("memory", reading(value), &rules(), at);
            store.forget("memory", at, |_| false);
        };
        taken(&mut store, 0.5, 6);
        assert!(changed(&store).is_empty(), "it is the same");
        taken(&mut store, 0.6, 7);
        assert!(store.is_changed(&MEMORY_UTILIZATION));
        store.settle();
        assert!(!store.is_changed(&MEMORY_UTILIZATION));
        assert_eq!(changed(&store), [slot], "that it was judged is another matter");
        store.expire("memory");
        assert_eq!(changed(&store), [slot]);
        store.take("memory", Vec::new(), &rules(), 8);
        store.forget("memory", 8, |_| false);
        assert_eq!(changed(&store), [slot], "it is gone");
    }

    #[test]
    fn what_is_no_longer_reported_is_forgotten() {
        let mut store = fed(&MEMORY_UTILIZATION, &[(5, 0.5)]);
        store.forget("memory", 5, |_| false);
        store.forget("disk", 6, |_| false);
        store.forget("memory", 6, |component| &**component == "memory");
        assert_eq!(store.iter().map(|(_, value)| value).collect::<Vec<_>>(), [0.5]);
        store.forget("memory", 6, |_| false);
        assert_eq!(store.iter().count(), 0);
    }
}

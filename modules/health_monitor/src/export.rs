//! Values for Prometheus: every metric that is `exported` as a series of the host.
//!
//! Only what changed is handed over. A value that is not known any more is not shown: a frozen one
//! would be a lie, and 0 another.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use module_sdk::{
    Counter, Gauge, Histogram, Host,
    events::{AlertSeverity, CheckStatus},
};

use crate::{
    metric::{self, Kind, Metric, UNLISTED, Unit},
    monitor::Monitor,
    reading::{Component, Reading, Report, Series},
    text,
    values::Values,
};

/// State of a piece of hardware, by what the rules say of its component.
pub static HARDWARE_STATUS: Metric = Metric {
    name: "hw_status",
    unit: Unit::Flag,
    kind: Kind::Gauge,
    help: "1 for the current state of the component, 0 for the others.",
    labels: &["hw_id", "hw_type", "hw_state"],
    exported: true,
    slot: UNLISTED,
};

/// Alerts that fire.
pub static ALERTS_FIRING: Metric = Metric {
    name: "lodestar_alerts_firing",
    unit: Unit::Count,
    kind: Kind::Gauge,
    help: "Alerts now firing by severity.",
    labels: &["severity"],
    exported: true,
    slot: UNLISTED,
};

/// Metrics that follow from the others; no rule can judge them.
pub static DERIVED: [&Metric; 2] = [&HARDWARE_STATUS, &ALERTS_FIRING];

/// Values of `hw_state`.
const STATES: [&str; 3] = ["ok", "degraded", "failed"];

/// Label of the metrics that are of a piece of hardware, and that of its kind.
const HARDWARE: [&str; 2] = ["hw_id", "hw_type"];

/// The series that Prometheus sees.
#[derive(Debug)]
pub struct Exporter {
    host: Host,
    /// The series of each metric, by its slot.
    series: Box<[HashMap<Arc<Series>, Exported>]>,
    /// Version of the values that were handed over last; 0 where all are to be.
    seen: u64,
    /// Counters of components of which a series was seen before this round.
    counted: HashSet<(&'static str, Component)>,
    hardware: HashMap<Component, Hardware>,
    firing: Vec<Exported>,
    /// Metrics of which the host took a series no more, and that was logged.
    refused: HashSet<&'static str>,
    round: u64,
}

/// A series as it was handed over.
#[derive(Debug)]
struct Exported {
    /// Instrument of the host; `None` where it refused one.
    instrument: Option<Instrument>,
    /// Last value.
    value: f64,
    /// Round in which it was seen last.
    round: u64,
}

#[derive(Debug)]
enum Instrument {
    Gauge(Gauge),
    Counter(Counter),
    Histogram(Histogram),
}

/// Piece of hardware behind a component.
#[derive(Debug)]
struct Hardware {
    id: String,
    kind: String,
    /// Its states in the order of [`STATES`], with the place of the one that it has; none where its
    /// state is not known.
    shown: Option<(usize, Vec<Exported>)>,
}

impl Exporter {
    /// Begins with nothing.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self {
            host,
            series: metric::ALL.iter().map(|_| HashMap::new()).collect(),
            seen: 0,
            counted: HashSet::new(),
            hardware: HashMap::new(),
            firing: Vec::new(),
            refused: HashSet::new(),
            round: 0,
        }
    }

    /// Hands over what changed since the last time.
    pub fn update(&mut self, monitor: &Monitor) {
        self.round += 1;
        let values = monitor.values();
        let seen = std::mem::replace(&mut self.seen, values.version());
        let mut began = Vec::new();
        for slot in values.changed_since(seen) {
            self.metric(slot, values, &mut began);
        }
        self.counted.extend(began);
        self.statuses(monitor);
        self.alerts(monitor);
    }

    /// Hands over the values of the metric in a slot; notes the counters that it begins with.
    fn metric(&mut self, slot: usize, values: &Values, began: &mut Vec<(&'static str, Component)>) {
        for (series, value) in values.fresh(slot) {
            // What is measured each time is handed over as it comes.
            if !series.metric.exported || series.metric.kind == Kind::Histogram {
                continue;
            }
            match self.series[slot].get_mut(series) {
                Some(exported) => exported.set(value, self.round),
                None => {
                    if series.metric.kind == Kind::Counter {
                        began.push((series.metric.name, series.component.clone()));
                    }
                    self.begin(series, values.first(series).unwrap_or(value), value);
                }
            }
            if let Some(at) = series.metric.labels.iter().position(|label| *label == HARDWARE[0]) {
                self.hardware(series, at);
            }
        }
        self.end(slot);
    }

    /// Hands over each measurement of the reports.
    pub fn observe(&mut self, reports: &[(&'static str, Report)]) {
        for Reading { series, value } in reports.iter().flat_map(|(_, report)| &report.measured) {
            if self.of(series).is_none() {
                self.begin(series, *value, *value);
            }
            if let Some(Exported { instrument: Some(Instrument::Histogram(histogram)), .. }) =
                self.of(series)
            {
                histogram.observe(*value);
            }
        }
    }

    fn of(&self, series: &Series) -> Option<&Exported> {
        self.series.get(series.metric.slot)?.get(series)
    }

    fn begin(&mut self, series: &Arc<Series>, first: f64, value: f64) {
        let labels: Vec<(&str, String)> =
            series.pairs().map(|(name, value)| (name, text::visible(value))).collect();
        let labels: Vec<(&str, &str)> =
            labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // What a source counted before it was first looked at is not ours: it would be counted
        // again after every reload. A further label of what is counted already begins at 0.
        let key = (series.metric.name, series.component.clone());
        let start = if self.counted.contains(&key) { 0.0 } else { first };
        let mut exported = self.register(series.metric, &labels, start);
        exported.set(value, self.round);
        if let Some(of_metric) = self.series.get_mut(series.metric.slot) {
            of_metric.insert(series.clone(), exported);
        }
    }

    /// Registers a series with the host; a metric that it refuses is logged once.
    fn register(
        &mut self,
        metric: &'static Metric,
        labels: &[(&str, &str)],
        start: f64,
    ) -> Exported {
        let (name, help) = (metric.name, metric.help);
        let instrument = match metric.kind {
            Kind::Counter => self.host.counter(name, help, labels).map(Instrument::Counter),
            Kind::Histogram => self.host.histogram(name, help, labels).map(Instrument::Histogram),
            Kind::Gauge | Kind::Requests => {
                self.host.gauge(name, help, labels).map(Instrument::Gauge)
            }
        };
        if let Err(error) = &instrument
            && self.refused.insert(name)
        {
            tracing::warn!(metric = name, %error, "a metric is not available");
        }
        // A gauge has no value yet, whatever its first one is.
        let value = if metric.kind == Kind::Counter { start } else { f64::NAN };
        Exported { instrument: instrument.ok(), value, round: self.round }
    }

    /// Ends the series of a metric that have no value any more. Counters and histograms stay: they
    /// go on where they were.
    fn end(&mut self, slot: usize) {
        let round = self.round;
        let mut is_room = false;
        self.series[slot].retain(|_, exported| {
            let stays = match &exported.instrument {
                Some(Instrument::Counter(_) | Instrument::Histogram(_)) => true,
                Some(Instrument::Gauge(_)) | None => exported.round == round,
            };
            if !stays {
                is_room |= exported.instrument.is_some();
                exported.clear();
            }
            stays
        });
        if is_room {
            // The next round tries those again that the host refused.
            for of_metric in &mut self.series {
                let known = of_metric.len();
                of_metric.retain(|_, exported| exported.instrument.is_some());
                if of_metric.len() < known {
                    self.seen = 0;
                }
            }
        }
    }

    fn hardware(&mut self, series: &Series, at: usize) {
        let label = |name: &str| series.pairs().find(|(label, _)| *label == name);
        let kind = label(HARDWARE[1]).map(|(_, kind)| kind);
        if !self.hardware.contains_key(&series.component) {
            // `gpu.0` is a gpu.
            let kind = kind.or_else(|| series.component.split('.').next());
            let hardware = Hardware {
                id: text::visible(&series.labels[at]),
                kind: text::visible(kind.unwrap_or_default()),
                shown: None,
            };
            self.hardware.insert(series.component.clone(), hardware);
        }
    }

    fn statuses(&mut self, monitor: &Monitor) {
        let mut all = std::mem::take(&mut self.hardware);
        all.retain(|component, hardware| {
            let status = monitor.board().get(component).map(|entry| entry.status);
            let state = match status {
                Some(CheckStatus::Ok) => Some(0),
                Some(CheckStatus::Warning) => Some(1),
                Some(CheckStatus::Critical) => Some(2),
                Some(CheckStatus::Unknown | CheckStatus::Absent) | None => None,
            };
            if hardware.shown.as_ref().map(|(shown, _)| *shown) != state {
                self.show(hardware, state);
            }
            status.is_some()
        });
        self.hardware = all;
    }

    fn show(&mut self, hardware: &mut Hardware, state: Option<usize>) {
        let former = hardware.shown.take().map(|(_, series)| series);
        let Some(state) = state else {
            return former.into_iter().flatten().for_each(|mut series| series.clear());
        };
        let mut series = former.unwrap_or_else(|| {
            let states = STATES.iter();
            states
                .map(|state| {
                    let values = [&hardware.id, &hardware.kind, *state];
                    let labels: Vec<(&str, &str)> =
                        HARDWARE_STATUS.labels.iter().copied().zip(values).collect();
                    self.register(&HARDWARE_STATUS, &labels, 0.0)
                })
                .collect()
        });
        for (at, series) in series.iter_mut().enumerate() {
            series.set(f64::from(u8::from(at == state)), self.round);
        }
        hardware.shown = Some((state, series));
    }

    fn alerts(&mut self, monitor: &Monitor) {
        if self.firing.is_empty() {
            self.firing = AlertSeverity::ALL
                .iter()
                .map(|severity| {
                    let labels = [("severity", severity.as_str())];
                    self.register(&ALERTS_FIRING, &labels, 0.0)
                })
                .collect();
        }
        let mut counts = [0_u32; AlertSeverity::ALL.len()];
        for alert in monitor.firing() {
            if let Some(at) = AlertSeverity::ALL.iter().position(|it| *it == alert.severity) {
                counts[at] += 1;
            }
        }
        for (series, count) in self.firing.iter_mut().zip(counts) {
            series.set(f64::from(count), self.round);
        }
    }
}

impl Exported {
    #[expect(clippy::float_cmp, reason = "the very same value need not be handed over again")]
    fn set(&mut self, value: f64, round: u64) {
        self.round = round;
        match &self.instrument {
            // A source that began anew has grown from 0.
            Some(Instrument::Counter(counter)) if value < self.value => counter.add(value),
            Some(Instrument::Counter(counter)) => counter.add(value - self.value),
            Some(Instrument::Gauge(gauge)) if value != self.value => gauge.set(value),
            Some(Instrument::Gauge(_) | Instrument::Histogram(_)) | None => {}
        }
        self.value = value;
    }

    fn clear(&mut self) {
        if let Some(Instrument::Gauge(gauge)) = &self.instrument {
            gauge.clear();
        }
        self.value = f64::NAN;
    }
}

#[cfg(test)]
mod tests;

//! A card that is known, with its counters and what its reports consist of. It outlives sessions:
//! one that is lost is still told.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    item::{Item, Items},
    session::{About, End, Process, Sample},
    xid::Xid,
};
use crate::{
    metric::{
        GPU_CLOCK, GPU_DRIVER_UP, GPU_HEADROOM, GPU_LEASED, GPU_MEMORY_LIMIT, GPU_MEMORY_USAGE,
        GPU_MEMORY_UTILIZATION, GPU_PERFORMANCE_STATE, GPU_POWER_LIMIT, GPU_SUPPORTED,
        GPU_THROTTLE, GPU_UP, GPU_UTILIZATION, HARDWARE_ERRORS, HARDWARE_FAN, HARDWARE_POWER,
        HARDWARE_TEMPERATURE, HARDWARE_TEMPERATURE_LIMIT, Metric,
    },
    reading::{Component, Found, Report, Series},
};

/// Calls in a row that are too late after which a card counts as lost.
const TIMEOUTS: u8 = 3;
/// Longest time between two samples for which a card is taken to be throttled.
const LONGEST_THROTTLE: Duration = Duration::from_secs(60);
/// Time between two questions for what changes seldom or is dear.
const RARE: Duration = Duration::from_secs(10);

/// Reasons for lower clocks by their name in the label `reason`, with their bits in NVML. An idle
/// card is not throttled.
const REASONS: [(&str, u64); 6] = [
    ("thermal", 0x20 | 0x40),
    ("power", 0x04),
    ("power_brake", 0x80),
    ("hardware", 0x08),
    ("sync_boost", 0x10),
    ("clock_setting", 0x02 | 0x100),
];

/// Reason why a card does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    OffTheBus,
    ResetRequired,
    Late,
    NotListed,
}

impl Lost {
    const fn as_str(self) -> &'static str {
        match self {
            Self::OffTheBus => "the driver has lost it, it fell off the bus",
            Self::ResetRequired => "it has to be reset",
            Self::Late => "it was too late three times in a row",
            Self::NotListed => "the driver does not list it any more",
        }
    }
}

#[derive(Debug)]
pub(super) struct Card {
    /// The label `hw_id`: its UUID, or its place where it does not tell one.
    pub(super) id: Arc<str>,
    pub(super) component: Component,
    about: About,
    lost: Option<Lost>,
    timeouts: u8,
    series: CardSeries,
    throttled_s: [f64; REASONS.len()],
    sampled: Option<Instant>,
    rarely_sampled: Option<Instant>,
    power_limit: Option<f64>,
    processes: Option<Vec<Process>>,
    details: Arc<Value>,
}

impl Card {
    pub(super) fn new(about: About) -> Self {
        let id: Arc<str> = match &about.id {
            Some(id) => id.as_str().into(),
            None => format!("gpu-{}", about.index).into(),
        };
        let component: Component = "gpu".into();
        let mut card = Self {
            series: CardSeries::new(&component, &id),
            id,
            component,
            lost: None,
            timeouts: 0,
            throttled_s: [0.0; REASONS.len()],
            sampled: None,
            rarely_sampled: None,
            power_limit: None,
            processes: None,
            details: Arc::default(),
            about: about.clone(),
        };
        card.begin(about);
        card
    }

    /// Goes on in a new session, in which everything is asked for again.
    pub(super) fn begin(&mut self, about: About) {
        (self.lost, self.timeouts) = (None, 0);
        (self.sampled, self.rarely_sampled) = (None, None);
        let end = about.end;
        // One that is lost already does not tell its name again.
        if about.id.is_some() || self.about.id.is_none() {
            self.about = about;
        }
        self.end(end);
        self.describe();
    }

    /// Takes the name that it has among the others.
    pub(super) fn call(&mut self, name: &str) {
        if &*self.component != name {
            self.component = name.into();
            let xids = std::mem::take(&mut self.series.xids);
            self.series = CardSeries::new(&self.component, &self.id);
            let again = |xid: Xid| hardware_error(&self.component, &self.id, &xid.to_string());
            self.series.xids = xids.into_keys().map(|xid| (xid, again(xid))).collect();
        }
    }

    pub(super) const fn index(&self) -> u32 {
        self.about.index
    }

    pub(super) const fn has_told_its_id(&self) -> bool {
        self.about.id.is_some()
    }

    pub(super) const fn unsupported(&self) -> Items {
        self.about.unsupported
    }

    pub(super) const fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    pub(super) const fn lose(&mut self, lost: Lost) {
        self.lost = Some(lost);
    }

    pub(super) fn wants_rare(&self) -> bool {
        self.rarely_sampled.is_none_or(|at| at.elapsed() >= RARE)
    }

    /// Notes that a call was too late.
    pub(super) const fn time_out(&mut self) {
        self.timeouts = self.timeouts.saturating_add(1);
        if self.timeouts >= TIMEOUTS {
            self.lose(Lost::Late);
        }
    }

    fn end(&mut self, end: Option<End>) {
        match end {
            Some(End::Lost) => self.lose(Lost::OffTheBus),
            Some(End::ResetRequired) => self.lose(Lost::ResetRequired),
            Some(End::TimedOut) => self.time_out(),
            Some(End::Closed) => {}
            None => self.timeouts = 0,
        }
    }

    /// Takes a sample into a report.
    pub(super) fn take(
        &mut self,
        mut sample: Sample,
        is_leased: bool,
        xids: &[(Xid, u64)],
        report: &mut Report,
    ) {
        self.about.unsupported = sample.unsupported;
        self.end(sample.end);
        if self.is_lost() {
            return self.report_lost(xids, report);
        }
        if sample.end.is_some() || !sample.is_reached {
            let message = "the NVIDIA driver does not answer for this card.";
            report.found.push(Found::unknown(&self.component, message));
            return;
        }
        if let Some(rare) = sample.rare.take() {
            self.rarely_sampled = Some(Instant::now());
            (self.power_limit, self.processes) = (rare.power_limit, rare.processes);
            self.describe();
        }
        self.count_throttling(sample.throttle_reasons);
        let headline = match sample.memory {
            Some(_) => &self.series.memory_utilization,
            None => &self.series.temperature,
        };
        let found = Found::present(&self.component, headline).with(&self.details);
        report.found.push(found);
        report.read(&self.series.up, 1.0);
        report.read(&self.series.leased, f64::from(u8::from(is_leased)));
        self.report_sample(&sample, report);
        self.report_counters(xids, report);
    }

    /// Reports a card that is lost: that it is, and its counters.
    pub(super) fn report_lost(&mut self, xids: &[(Xid, u64)], report: &mut Report) {
        let lost = self.lost.map_or("", Lost::as_str);
        let found = Found::present(&self.component, &self.series.up)
            .with(&self.details)
            .saying(format!("{}: {lost}.", self.about.name));
        report.found.push(found);
        report.read(&self.series.up, 0.0);
        self.report_counters(xids, report);
        self.sampled = None;
    }

    fn report_sample(&self, sample: &Sample, report: &mut Report) {
        let series = &self.series;
        let mut read = |series: &Arc<Series>, value: Option<f64>| {
            if let Some(value) = value {
                report.read(series, value);
            }
        };
        read(&series.utilization, sample.utilization);
        if let Some(memory) = sample.memory {
            read(&series.memory_usage, Some(memory.used));
            read(&series.memory_limit, Some(memory.total));
            // What the driver keeps for itself is neither free nor in use.
            let usable = memory.used + memory.free;
            read(&series.memory_utilization, (usable > 0.0).then(|| memory.used / usable));
        }
        read(&series.temperature, sample.temperature);
        read(&series.slowdown, self.about.slowdown);
        read(&series.shutdown, self.about.shutdown);
        let headroom = self.about.slowdown.zip(sample.temperature);
        read(&series.headroom, headroom.map(|(slowdown, now)| slowdown - now));
        read(&series.power, sample.power);
        read(&series.power_limit, self.power_limit);
        read(&series.fan, sample.fan);
        read(&series.clock, sample.clock);
        read(&series.memory_clock, sample.memory_clock);
        read(&series.performance_state, sample.performance_state);
        read(&series.ecc_corrected, sample.ecc.map(|ecc| ecc.corrected));
        read(&series.ecc_uncorrected, sample.ecc.map(|ecc| ecc.uncorrected));
    }

    /// Adds the time since the last sample to the reasons that hold now.
    fn count_throttling(&mut self, reasons: Option<u64>) {
        let now = Instant::now();
        let before = self.sampled.replace(now);
        let (Some(reasons), Some(before)) = (reasons, before) else { return };
        let seconds = now.duration_since(before).min(LONGEST_THROTTLE).as_secs_f64();
        for (throttled_s, (_, bits)) in self.throttled_s.iter_mut().zip(REASONS) {
            if reasons & bits != 0 {
                *throttled_s += seconds;
            }
        }
    }

    fn report_counters(&mut self, xids: &[(Xid, u64)], report: &mut Report) {
        if !self.about.unsupported.has(Item::ThrottleReasons) {
            for (series, seconds) in self.series.throttle.iter().zip(self.throttled_s) {
                report.read(series, seconds);
            }
        }
        for (xid, count) in xids {
            let is_new = !self.series.xids.contains_key(xid);
            let series = self
                .series
                .xids
                .entry(*xid)
                .or_insert_with(|| hardware_error(&self.component, &self.id, &xid.to_string()));
            if is_new {
                // Growth is counted from the first value, and there was none before.
                report.read(series, 0.0);
            }
            #[expect(clippy::cast_precision_loss, reason = "there are never so many")]
            report.read(series, *count as f64);
        }
        for (item, series) in &self.series.supported {
            let is_supported = !self.about.unsupported.has(*item);
            report.read(series, f64::from(u8::from(is_supported)));
        }
    }

    /// Writes down what `lodestar health gpu` shows besides the values.
    fn describe(&mut self) {
        self.details = Arc::new(json!({
            "id": &*self.id,
            "name": self.about.name,
            "index": self.about.index,
            "driver": &*self.about.driver,
            "processes": self.processes,
        }));
    }
}

/// Series of a card.
#[derive(Debug)]
struct CardSeries {
    up: Arc<Series>,
    leased: Arc<Series>,
    utilization: Arc<Series>,
    memory_usage: Arc<Series>,
    memory_limit: Arc<Series>,
    memory_utilization: Arc<Series>,
    temperature: Arc<Series>,
    slowdown: Arc<Series>,
    shutdown: Arc<Series>,
    headroom: Arc<Series>,
    power: Arc<Series>,
    power_limit: Arc<Series>,
    fan: Arc<Series>,
    clock: Arc<Series>,
    memory_clock: Arc<Series>,
    performance_state: Arc<Series>,
    ecc_corrected: Arc<Series>,
    ecc_uncorrected: Arc<Series>,
    throttle: Vec<Arc<Series>>,
    xids: BTreeMap<Xid, Arc<Series>>,
    supported: Vec<(Item, Arc<Series>)>,
}

impl CardSeries {
    fn new(component: &Component, id: &str) -> Self {
        let of = |metric: &'static Metric| Series::new(metric, component, [id]);
        let of_kind =
            |metric: &'static Metric, label: &str| Series::new(metric, component, [id, label]);
        let limit = |kind| Series::new(&HARDWARE_TEMPERATURE_LIMIT, component, [id, "gpu", kind]);
        Self {
            up: of(&GPU_UP),
            leased: of(&GPU_LEASED),
            utilization: of_kind(&GPU_UTILIZATION, "general"),
            memory_usage: of(&GPU_MEMORY_USAGE),
            memory_limit: of(&GPU_MEMORY_LIMIT),
            memory_utilization: of(&GPU_MEMORY_UTILIZATION),
            temperature: of_kind(&HARDWARE_TEMPERATURE, "gpu"),
            slowdown: limit("high.degraded"),
            shutdown: limit("high.critical"),
            headroom: of(&GPU_HEADROOM),
            power: of_kind(&HARDWARE_POWER, "gpu"),
            power_limit: of(&GPU_POWER_LIMIT),
            fan: of(&HARDWARE_FAN),
            clock: of_kind(&GPU_CLOCK, "sm"),
            memory_clock: of_kind(&GPU_CLOCK, "memory"),
            performance_state: of(&GPU_PERFORMANCE_STATE),
            ecc_corrected: hardware_error(component, id, "ecc_corrected"),
            ecc_uncorrected: hardware_error(component, id, "ecc_uncorrected"),
            throttle: REASONS.map(|(reason, _)| of_kind(&GPU_THROTTLE, reason)).into(),
            xids: BTreeMap::new(),
            supported: Item::ALL.map(|item| (item, of_kind(&GPU_SUPPORTED, item.as_str()))).into(),
        }
    }
}

fn hardware_error(component: &Component, id: &str, kind: &str) -> Arc<Series> {
    Series::new(&HARDWARE_ERRORS, component, [id, "gpu", kind])
}

/// Returns the report of a driver that does not answer.
pub(super) fn without_driver(component: &Component, reason: &str, message: String) -> Report {
    let series = Series::new(&GPU_DRIVER_UP, component, [reason]);
    let found = Found::present(component, &series).saying(message);
    let mut report = Report { found: vec![found], ..Report::default() };
    report.read(&series, 0.0);
    report
}

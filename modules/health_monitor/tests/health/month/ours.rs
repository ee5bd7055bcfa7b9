//! The month as the module sees it: monitor, windows of requests, objectives and notifier.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use health_monitor::{
    check::outcomes::{Failure, Outcomes},
    metric::{DISK_FREE, DISK_UTILIZATION, GPU_SUPPORTED, HARDWARE_TEMPERATURE},
    monitor::Monitor,
    notify::{
        matcher::Matcher,
        note::News,
        notifier::{Circumstances, Notifier, Policy, Route},
    },
    reading::{Component, Found, Report, Series},
    requests::{self, Outcome, Sample, Windows},
    rule::RuleSet,
    slo::{self, Objectives},
    time::Moment,
};
use module_sdk::{events::AlertSeverity, jiff::Timestamp};

use super::{Reading, verdict::Word};

/// Size of the disk in bytes.
const DISK_BYTES: f64 = 100e9;
/// Steps between two reports of what requests say: their windows are of minutes.
const REPORT_STEPS: u64 = 12;

fn policy() -> Policy {
    Policy {
        critical_wait_ms: 5_000,
        wait_ms: 30_000,
        interval_ms: 300_000,
        critical_reminder_ms: Some(3_600_000),
        warning_reminder_ms: Some(4 * 3_600_000),
        windows: Vec::new(),
        routes: vec![Route {
            channel: "log".to_owned(),
            min_severity: AlertSeverity::Info,
            matcher: Matcher::default(),
            send_resolved: true,
            cap_per_hour: Some(6),
        }],
    }
}

/// A component that is probed.
struct Probed {
    component: Component,
    outcomes: Outcomes,
}

impl Probed {
    fn new(component: &str) -> Self {
        let component: Component = component.into();
        Self { outcomes: Outcomes::new(&component), component }
    }

    fn take(&mut self, is_up: bool) -> Report {
        let outcome = if is_up { Ok(0.01) } else { Err(Failure::new("connect", "refused")) };
        self.outcomes.take(outcome);
        let message = self.outcomes.message().unwrap_or_default();
        let found = match self.outcomes.is_up() {
            None => Found::unknown(&self.component, message),
            Some(_) => Found::present(&self.component, self.outcomes.headline()).saying(message),
        };
        let mut report = Report { found: vec![found], ..Report::default() };
        self.outcomes.report(&mut report);
        report
    }
}

/// The module without its threads, its database and its bus.
pub(crate) struct Site {
    rules: RuleSet,
    monitor: Monitor,
    notifier: Notifier,
    requests: Windows,
    objectives: Objectives,
    router: Probed,
    provider: Probed,
    disk: [Arc<Series>; 2],
    gpu: [Arc<Series>; 2],
    steps: u64,
}

impl Site {
    pub(crate) fn new() -> Self {
        let rules = RuleSet::new(&BTreeMap::new()).expect("they are valid");
        let disk: Component = "disk./".into();
        let gpu: Component = "gpu".into();
        let objectives = slo::all(&BTreeMap::new()).expect("they are valid");
        Self {
            monitor: Monitor::new(rules.clone(), Vec::new()),
            notifier: Notifier::new(policy(), &[], moment(0)),
            requests: Windows::default(),
            objectives: Objectives::new(objectives),
            router: Probed::new("router"),
            provider: Probed::new("provider.ollama"),
            disk: [&DISK_UTILIZATION, &DISK_FREE].map(|it| Series::new(it, &disk, ["/"])),
            gpu: [
                Series::new(&HARDWARE_TEMPERATURE, &gpu, ["GPU-1", "gpu"]),
                Series::new(&GPU_SUPPORTED, &gpu, ["GPU-1", "temperature_limit"]),
            ],
            rules,
            steps: 0,
        }
    }

    /// Takes the readings of a moment; returns what people are told.
    pub(crate) fn take(&mut self, reading: &Reading) -> Vec<Word> {
        let now = moment(reading.at_s);
        let router = self.router.take(reading.router);
        self.monitor.take("router", router, now);
        let provider = self.provider.take(reading.provider);
        self.monitor.take("providers", provider, now);
        self.take_values(reading, now);
        self.take_request(reading, now);
        if self.steps.is_multiple_of(REPORT_STEPS) {
            let report = self.requests.report(self.monitor.board(), now);
            self.monitor.take(requests::CHECK, report, now);
            self.monitor.take(slo::CHECK, self.objectives.report(now), now);
        }
        self.steps += 1;
        let step = self.monitor.step(&self.requests, now);
        let circumstances =
            Circumstances { rules: &self.rules, silences: &[], acknowledged: &BTreeSet::new() };
        let told = self.notifier.step(&step.transitions, &circumstances, now);
        let notes = told.notes.into_iter().enumerate();
        let words = notes.flat_map(|(number, (_, note))| {
            note.items.into_iter().map(move |item| Word {
                at_s: now.steady_ms / 1_000,
                note: number,
                name: item.alert.name,
                is_end: item.news == News::Resolved,
                is_reminder: item.news == News::Reminder,
            })
        });
        words.collect()
    }

    fn take_values(&mut self, reading: &Reading, now: Moment) {
        let [utilization, free] = &self.disk;
        let mut report = Report::default();
        report.found.push(Found::present(&utilization.component, utilization));
        report.read(utilization, reading.disk);
        report.read(free, (1.0 - reading.disk) * DISK_BYTES);
        self.monitor.take("disk", report, now);
        let [temperature, supported] = &self.gpu;
        let mut report = Report::default();
        report.found.push(Found::present(&temperature.component, temperature));
        report.read(temperature, reading.gpu);
        // A card that does not tell its own limit: that of the rule holds.
        report.read(supported, 0.0);
        self.monitor.take("gpu", report, now);
    }

    fn take_request(&mut self, reading: &Reading, now: Moment) {
        let Some((is_good, took_ms)) = reading.request else { return };
        let sample = Sample {
            model: Some("qwen3:8b"),
            provider: Some("ollama"),
            project: Some("house"),
            outcome: if is_good { Outcome::Good } else { Outcome::Failed },
            cost_nano: None,
            tokens: Some(2_000),
            duration_ms: is_good.then_some(took_ms),
            ttft_ms: is_good.then_some(took_ms / 8),
        };
        self.requests.take(&sample, 0, now);
        self.objectives.take(&sample, 0, now);
    }
}

fn moment(at_s: u64) -> Moment {
    const START_MS: u64 = 1_795_132_800_000;
    let at_ms = i64::try_from(START_MS + at_s * 1_000).expect("it is a date");
    let at = Timestamp::from_millisecond(at_ms).expect("it is a date");
    Moment { at, steady_ms: at_s * 1_000 }
}

use std::collections::BTreeMap;

use module_sdk::testing::FakeHost;

use super::*;
use crate::{
    metric::{
        DISK_UTILIZATION, HARDWARE_TEMPERATURE, MEMORY_UTILIZATION, PRESSURE_RATIO,
        PRESSURE_STALLED, PROBE_DURATION, PROBE_FAILURES,
    },
    monitor::NoRequests,
    reading::{Found, Report},
    rule::RuleSet,
    time::Moment,
};

/// A monitor with its exporter, and the host that sees what is exported.
struct Scene {
    fake: Arc<FakeHost>,
    monitor: Monitor,
    exporter: Exporter,
    now_ms: u64,
}

impl Scene {
    fn new() -> Self {
        Self::with(serde_json::json!({}))
    }

    fn with(rules: serde_json::Value) -> Self {
        let fake = Arc::new(FakeHost::new(std::path::Path::new("/nowhere")));
        let host = fake.host().expect("it tells about itself");
        let rules = serde_json::from_value(rules).expect("they have the form");
        let rules = RuleSet::new(&rules).expect("they are valid");
        let monitor = Monitor::new(rules, Vec::new());
        Self { fake, monitor, exporter: Exporter::new(host), now_ms: 0 }
    }

    /// Takes a report and exports; returns what the host then shows, without the alerts.
    fn after(&mut self, check: &'static str, report: Report) -> BTreeMap<String, f64> {
        self.now_ms += 1_000;
        let at = self.fake.now();
        let now = Moment { at, steady_ms: self.now_ms };
        self.monitor.take(check, report, now);
        self.monitor.step(&NoRequests, now);
        self.exporter.update(&self.monitor);
        let mut shown = self.fake.metrics();
        shown.retain(|name, _| !name.starts_with("lodestar_alerts_firing"));
        shown
    }
}

fn disks(values: &[(&str, f64)]) -> Report {
    let mut report = Report::default();
    for (path, value) in values {
        let component: Component = format!("disk.{path}").into();
        let series = Series::new(&DISK_UTILIZATION, &component, [path]);
        report.found.push(Found::present(&component, &series));
        report.read(&series, *value);
    }
    report
}

fn disk(path: &str, value: f64) -> (String, f64) {
    let labels = serde_json::json!({"system_filesystem_mountpoint": path});
    (format!("system_filesystem_utilization_ratio{labels}"), value)
}

#[test]
fn a_series_is_there_as_long_as_it_has_a_value() {
    let mut scene = Scene::new();
    let shown = scene.after("disk", disks(&[("/", 0.5), ("/a", 0.0)]));
    assert_eq!(shown, BTreeMap::from([disk("/", 0.5), disk("/a", 0.0)]));
    let shown = scene.after("disk", disks(&[("/", 0.6)]));
    assert_eq!(shown, BTreeMap::from([disk("/", 0.6)]), "a disk is gone");
    let shown = scene.after("disk", disks(&[("/", 0.6), ("/a\u{1b}", 0.1)]));
    assert_eq!(shown, BTreeMap::from([disk("/", 0.6), disk("/a\\u{1b}", 0.1)]));
    let mut unknown = disks(&[("/", 0.6)]);
    unknown.found.push(Found::unknown(&"disk./a\u{1b}".into(), "it does not answer"));
    let shown = scene.after("disk", unknown);
    assert_eq!(shown, BTreeMap::from([disk("/", 0.6)]), "a value that is not known");
    let hangs = Report { hangs: Some("no answer".to_owned()), ..Report::default() };
    assert_eq!(scene.after("disk", hangs), BTreeMap::new());
    let shown = scene.after("disk", disks(&[("/", 0.6)]));
    assert_eq!(shown, BTreeMap::from([disk("/", 0.6)]));
}

#[test]
fn a_counter_begins_with_what_was_counted_since() {
    let component: Component = "pressure.memory".into();
    let series = |kind| Series::new(&PRESSURE_STALLED, &component, ["memory", kind]);
    let (some, full) = (series("some"), series("full"));
    let hidden = Series::new(&PRESSURE_RATIO, &component, ["memory", "some"]);
    let report = |values: &[(&Arc<Series>, f64)]| {
        let mut report = Report::default();
        report.found.push(Found::present(&component, &hidden));
        report.read(&hidden, 0.5);
        values.iter().for_each(|(series, value)| report.read(series, *value));
        report
    };
    let name = |kind: &str| {
        format!("{}{{\"kind\":\"{kind}\",\"resource\":\"memory\"}}", PRESSURE_STALLED.name)
    };
    let mut scene = Scene::new();
    let shown = scene.after("pressure", report(&[(&some, 1_000.0)]));
    assert_eq!(shown, BTreeMap::from([(name("some"), 0.0)]));
    let shown = scene.after("pressure", report(&[(&some, 1_002.5)]));
    assert_eq!(shown, BTreeMap::from([(name("some"), 2.5)]));
    // The source began anew, and counts something further.
    let shown = scene.after("pressure", report(&[(&some, 1.0), (&full, 3.0)]));
    assert_eq!(shown, BTreeMap::from([(name("some"), 3.5), (name("full"), 3.0)]));
    // A gap is no loss.
    scene.after("pressure", report(&[]));
    let shown = scene.after("pressure", report(&[(&some, 1.5), (&full, 3.0)]));
    assert_eq!(shown, BTreeMap::from([(name("some"), 4.0), (name("full"), 3.0)]));
}

#[test]
fn what_is_counted_from_zero_on_is_counted_whole() {
    // A source that says 0 first has seen the beginning: of Xids, of failed probes.
    let component: Component = "router".into();
    let series = Series::new(&PROBE_FAILURES, &component, ["router", "connect"]);
    let mut scene = Scene::new();
    let mut report = Report::default();
    report.found.push(Found::present(&component, &series));
    report.read(&series, 0.0);
    report.read(&series, 1.0);
    let shown = scene.after("router", report);
    assert_eq!(shown.into_values().collect::<Vec<_>>(), [1.0]);
}

#[test]
fn hardware_has_one_state_at_a_time() {
    let mut scene = Scene::with(serde_json::json!({
        "hot": {"metric": MEMORY_UTILIZATION.name, "component": "gpu*", "above": 0.8},
        "hottest": {"metric": MEMORY_UTILIZATION.name, "component": "gpu*", "above": 0.9,
            "severity": "critical"},
    }));
    let component: Component = "gpu.0".into();
    let temperature = Series::new(&HARDWARE_TEMPERATURE, &component, ["GPU-1", "gpu"]);
    let load = Series::new(&MEMORY_UTILIZATION, &component, []);
    let report = |value: f64| {
        let mut report = Report::default();
        report.found.push(Found::present(&component, &temperature));
        report.read(&temperature, 50.0);
        report.read(&load, value);
        report
    };
    let states = |shown: BTreeMap<String, f64>| -> Vec<(String, f64)> {
        let name = |name: String| {
            let labels = name.strip_prefix("hw_status")?;
            let labels: serde_json::Value = serde_json::from_str(labels).ok()?;
            assert_eq!((&labels["hw_id"], &labels["hw_type"]), (&"GPU-1".into(), &"gpu".into()));
            labels["hw_state"].as_str().map(str::to_owned)
        };
        shown.into_iter().filter_map(|(of, value)| Some((name(of)?, value))).collect()
    };
    let expected = |values: [f64; 3]| {
        let names = ["degraded", "failed", "ok"].map(str::to_owned);
        names.into_iter().zip(values).collect::<Vec<_>>()
    };
    let mut after = |report| states(scene.after("gpu", report));
    assert_eq!(after(report(0.5)), expected([0.0, 0.0, 1.0]));
    assert_eq!(after(report(0.85)), expected([1.0, 0.0, 0.0]));
    assert_eq!(after(report(0.95)), expected([0.0, 1.0, 0.0]));
    let mut unknown = Report::default();
    unknown.found.push(Found::unknown(&component, "it does not answer"));
    let hangs = Report { hangs: Some("no answer".to_owned()), ..Report::default() };
    assert_eq!(after(report(0.5)), expected([0.0, 0.0, 1.0]));
    assert_eq!(after(unknown), [], "its state is not known");
    assert_eq!(after(report(0.5)), expected([0.0, 0.0, 1.0]));
    assert_eq!(after(hangs), []);
    assert_eq!(after(Report::default()), []);
}

#[test]
fn alerts_are_counted_from_zero_on() {
    let mut scene = Scene::with(serde_json::json!({
        "full": {"metric": DISK_UTILIZATION.name, "above": 0.5, "severity": "critical"},
    }));
    let firing = |scene: &Scene| -> Vec<f64> {
        let name =
            |severity: &str| format!("lodestar_alerts_firing{{\"severity\":\"{severity}\"}}");
        let shown = scene.fake.metrics();
        AlertSeverity::ALL.iter().map(|severity| shown[&name(severity.as_str())]).collect()
    };
    scene.after("disk", disks(&[("/", 0.1), ("/a", 0.1)]));
    assert_eq!(firing(&scene), [0.0, 0.0, 0.0]);
    for (values, critical) in [([0.6, 0.1], 1.0), ([0.6, 0.6], 2.0), ([0.1, 0.1], 0.0)] {
        let report = || disks(&[("/", values[0]), ("/a", values[1])]);
        scene.after("disk", report());
        scene.after("disk", report());
        assert_eq!(firing(&scene), [critical, 0.0, 0.0]);
    }
}

#[test]
fn each_measurement_is_handed_over() {
    let mut scene = Scene::new();
    let component: Component = "router".into();
    let series = Series::new(&PROBE_DURATION, &component, ["router"]);
    let probed = |durations: &[f64]| {
        let mut report = Report::default();
        report.read(&series, 9.0);
        report.measured.extend(
            durations.iter().map(|value| Reading { series: series.clone(), value: *value }),
        );
        report
    };
    // The bench shows the last one.
    for (durations, last) in [(&[0.25, 0.5][..], 0.5), (&[], 0.5), (&[0.25], 0.25)] {
        let report = probed(durations);
        scene.exporter.observe(&[("router", report.clone())]);
        let shown = scene.after("router", report);
        let shown: Vec<(&str, f64)> = shown.iter().map(|(name, it)| (name.as_str(), *it)).collect();
        let name = "lodestar_probe_duration_seconds{\"component\":\"router\"}";
        assert_eq!(shown, [(name, last)]);
    }
}

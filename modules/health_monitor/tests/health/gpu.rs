//! The check of GPUs over a library that answers like a T600.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fake_nvml::{Fake, code};
use health_monitor::{
    check::{Check, GpuOptions, Progress, gpu},
    reading::{Presence, Report},
};
use tempfile::TempDir;

/// A check over a library of its own.
struct Rig {
    fake: Fake,
    check: Box<dyn Check>,
    _directory: TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::without(&[])
    }

    fn without(functions: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let fake = Fake::without(directory.path(), functions);
        let check = check_over(&fake);
        Self { fake, check, _directory: directory }
    }

    fn run(&mut self) -> Report {
        self.check.run(&Progress::default())
    }
}

/// Makes a check that tries again at once.
fn check_over(fake: &Fake) -> Box<dyn Check> {
    let library = Some(fake.library());
    gpu(&GpuOptions { library, retry_ms: 0, ..GpuOptions::default() }, &Arc::default())()
}

/// Returns the last value of a metric whose labels contain one.
fn value(report: &Report, metric: &str, label: &str) -> Option<f64> {
    values(report, metric, label).last().copied()
}

fn values(report: &Report, metric: &str, label: &str) -> Vec<f64> {
    let meant = report.readings.iter().filter(|reading| {
        reading.series.metric.name == metric
            && (label.is_empty() || reading.series.labels.iter().any(|it| &**it == label))
    });
    meant.map(|reading| reading.value).collect()
}

fn is(report: &Report, component: &str, presence: Presence) {
    let found = report.found.iter().find(|found| &*found.component == component);
    let found = found.unwrap_or_else(|| panic!("no {component} in {report:#?}"));
    assert_eq!(found.presence, presence, "{found:?}");
}

/// Runs a check until its report is as wanted.
fn until(rig: &mut Rig, wanted: impl Fn(&Report) -> bool) -> Report {
    let begun = Instant::now();
    loop {
        let report = rig.run();
        if wanted(&report) {
            return report;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came: {report:#?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_card_tells_what_it_has() {
    let mut rig = Rig::new();
    let report = rig.run();
    is(&report, "gpu", Presence::Present);
    let check = |metric: &str, label: &str, expected: f64| {
        let value = value(&report, metric, label).unwrap_or_else(|| panic!("no {metric}"));
        assert!((value - expected).abs() < 1e-6, "{metric} {label} is {value}");
    };
    check("lodestar_gpu_up", "", 1.0);
    check("hw_gpu_utilization_ratio", "general", 0.4);
    check("hw_gpu_memory_usage_bytes", "", 2_048.0 * 1_048_576.0);
    check("hw_gpu_memory_limit_bytes", "", 4_096.0 * 1_048_576.0);
    check("hw_gpu_memory_utilization_ratio", "", 2_048.0 / 3_968.0);
    check("hw_temperature_celsius", "gpu", 51.0);
    check("hw_temperature_limit_celsius", "high.degraded", 99.0);
    check("hw_temperature_limit_celsius", "high.critical", 104.0);
    check("lodestar_gpu_temperature_headroom_celsius", "", 48.0);
    check("hw_power_watts", "gpu", 22.0);
    check("lodestar_gpu_power_limit_watts", "", 40.0);
    check("hw_fan_speed_ratio", "", 0.42);
    check("lodestar_gpu_clock_hertz", "sm", 1_335e6);
    check("lodestar_gpu_clock_hertz", "memory", 5_001e6);
    check("lodestar_gpu_performance_state", "", 0.0);
    check("lodestar_gpu_throttle_seconds_total", "thermal", 0.0);
    check("lodestar_gpu_supported", "fan", 1.0);
    // A T600 has no ECC: it is absent, and not zero.
    check("lodestar_gpu_supported", "ecc", 0.0);
    assert_eq!(value(&report, "hw_errors_total", "ecc_corrected"), None);
    assert_eq!(&*report.readings[0].series.labels[0], "GPU-00000000-0000-0000-0000-000000000000");
}

#[test]
fn ecc_is_told_where_a_card_has_it() {
    let mut rig = Rig::new();
    rig.fake.set("0.ecc_corrected", 7);
    rig.fake.set("0.ecc_uncorrected", 1);
    let report = rig.run();
    assert_eq!(value(&report, "hw_errors_total", "ecc_corrected"), Some(7.0));
    assert_eq!(value(&report, "hw_errors_total", "ecc_uncorrected"), Some(1.0));
}

#[test]
fn a_sample_asks_little_and_nothing_twice_that_is_not_there() {
    let mut rig = Rig::new();
    // The thread that waits for Xids would call in between.
    rig.fake.set("0.event_types", 0);
    rig.fake.set("0.fan", "unsupported");
    drop(rig.fake.calls());
    drop(rig.run());
    let first = rig.fake.calls();
    for dear in ["nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPcieThroughput"] {
        assert!(!first.iter().any(|call| call.ends_with(dear)), "{first:?}");
    }
    let report = rig.run();
    let calls = rig.fake.calls();
    assert_eq!(
        calls,
        [
            "0.nvmlDeviceGetHandleByIndex_v2",
            "0.nvmlDeviceGetUtilizationRates",
            "0.nvmlDeviceGetMemoryInfo_v2",
            "0.nvmlDeviceGetTemperature",
            "0.nvmlDeviceGetPowerUsage",
            "0.nvmlDeviceGetClockInfo",
            "0.nvmlDeviceGetClockInfo",
            "0.nvmlDeviceGetPerformanceState",
            "0.nvmlDeviceGetCurrentClocksThrottleReasons",
        ]
    );
    assert_eq!(value(&report, "hw_fan_speed_ratio", ""), None);
    assert_eq!(value(&report, "lodestar_gpu_supported", "fan"), Some(0.0));
    // Not asked for again, it is still told when it was asked for last.
    assert_eq!(value(&report, "lodestar_gpu_power_limit_watts", ""), Some(40.0));
}

#[test]
fn a_new_session_asks_for_everything_again() {
    let mut rig = Rig::new();
    rig.fake.set("0.fan", "unsupported");
    assert_eq!(value(&rig.run(), "hw_fan_speed_ratio", ""), None);
    rig.fake.unset("0.fan");
    assert_eq!(value(&rig.run(), "hw_fan_speed_ratio", ""), None);
    rig.fake.set("0.code", code::GPU_IS_LOST);
    assert_eq!(value(&rig.run(), "lodestar_gpu_up", ""), Some(0.0));
    rig.fake.unset("0.code");
    assert_eq!(value(&rig.run(), "hw_fan_speed_ratio", ""), Some(0.42));
}

#[test]
fn what_an_older_driver_lacks_is_absent() {
    let mut rig = Rig::without(&[
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetFanSpeed_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetSupportedEventTypes",
        "nvmlDeviceGetTemperatureThreshold",
    ]);
    let report = rig.run();
    is(&report, "gpu", Presence::Present);
    assert_eq!(value(&report, "hw_temperature_celsius", ""), Some(51.0));
    for metric in ["hw_gpu_memory_usage_bytes", "hw_fan_speed_ratio", "hw_errors_total"] {
        assert_eq!(value(&report, metric, ""), None, "{metric}");
    }
    for item in ["memory", "fan", "processes", "xid", "temperature_limit"] {
        assert_eq!(value(&report, "lodestar_gpu_supported", item), Some(0.0), "{item}");
    }
}

#[test]
fn without_the_library_there_is_nothing_to_watch_until_it_comes() {
    let directory = tempfile::tempdir().expect("a directory");
    let library = directory.path().join("libnvidia-ml.so.1");
    let options = GpuOptions { library: Some(library), retry_ms: 0, ..GpuOptions::default() };
    let mut check = gpu(&options, &Arc::default())();
    let report = check.run(&Progress::default());
    is(&report, "gpu", Presence::Absent);
    assert!(report.readings.is_empty(), "{report:?}");
    let message = &report.found[0].message;
    assert!(
        message.starts_with("no NVIDIA driver: ") && message.contains("libnvidia"),
        "{message}"
    );
    let _fake = Fake::new(directory.path());
    is(&check.run(&Progress::default()), "gpu", Presence::Present);
    // What is no library of NVIDIA's is none either.
    let other = directory.path().join("other.so");
    std::fs::write(&other, "no library").expect("a file can be written");
    let options = GpuOptions { library: Some(other), retry_ms: 0, ..GpuOptions::default() };
    is(&gpu(&options, &Arc::default())().run(&Progress::default()), "gpu", Presence::Absent);
}

#[test]
fn a_driver_that_is_not_there_is_tried_again_only_when_due() {
    let directory = tempfile::tempdir().expect("a directory");
    let fake = Fake::new(directory.path());
    fake.set("nvmlInit_v2", code::UNKNOWN);
    let library = Some(fake.library());
    let mut check = gpu(&GpuOptions { library, ..GpuOptions::default() }, &Arc::default())();
    drop(fake.calls());
    is(&check.run(&Progress::default()), "gpu", Presence::Unknown);
    assert_eq!(fake.calls(), ["nvmlInit_v2"]);
    is(&check.run(&Progress::default()), "gpu", Presence::Unknown);
    assert_eq!(fake.calls(), [""; 0]);
}

#[test]
fn a_driver_that_does_not_answer_is_a_trouble_and_no_unknown() {
    let mut rig = Rig::new();
    let mut check = |code, reason: &str| {
        rig.fake.set("nvmlInit_v2", code);
        let report = rig.run();
        is(&report, "gpu", Presence::Present);
        assert_eq!(value(&report, "lodestar_gpu_driver_up", reason), Some(0.0), "{report:?}");
        assert_eq!(report.readings.len(), 1, "{report:?}");
    };
    check(code::VERSION_MISMATCH, "version_mismatch");
    check(code::DRIVER_NOT_LOADED, "not_loaded");
    rig.fake.set("nvmlInit_v2", code::NO_PERMISSION);
    let report = rig.run();
    is(&report, "gpu", Presence::Unknown);
    assert!(report.found[0].message.contains("/dev/nvidia"), "{report:?}");
    rig.fake.unset("nvmlInit_v2");
    rig.fake.set("cards", 0);
    is(&rig.run(), "gpu", Presence::Absent);
    rig.fake.unset("cards");
    let report = rig.run();
    assert_eq!(value(&report, "lodestar_gpu_up", ""), Some(1.0));
    assert_eq!(value(&report, "lodestar_gpu_driver_up", ""), None);
}

#[test]
fn a_card_that_is_lost_is_told_and_left_alone_while_the_other_goes_on() {
    let mut rig = Rig::new();
    rig.fake.set("cards", 2);
    let report = rig.run();
    is(&report, "gpu.0", Presence::Present);
    is(&report, "gpu.1", Presence::Present);
    for code in [code::GPU_IS_LOST, code::RESET_REQUIRED] {
        rig.fake.set("1.code", code);
        let report = rig.run();
        assert_eq!(values(&report, "lodestar_gpu_up", ""), [1.0, 0.0]);
        assert_eq!(values(&report, "hw_temperature_celsius", "").len(), 1, "{report:?}");
        assert!(report.found[1].message.starts_with("NVIDIA T600: "), "{report:?}");
        // Its counters stay, for what happened to it is still asked for.
        assert!(values(&report, "lodestar_gpu_throttle_seconds_total", "thermal").len() == 2);
        rig.fake.unset("1.code");
        assert_eq!(values(&rig.run(), "lodestar_gpu_up", ""), [1.0, 1.0]);
    }
    // One that the driver does not even list is as lost.
    rig.fake.set("1.code", code::GPU_IS_LOST);
    drop(rig.run());
    rig.fake.set("cards", 1);
    let report = rig.run();
    assert_eq!(values(&report, "lodestar_gpu_up", ""), [1.0, 0.0]);
    is(&report, "gpu.1", Presence::Present);
}

#[test]
fn a_lost_card_is_not_called() {
    let directory = tempfile::tempdir().expect("a directory");
    let fake = Fake::new(directory.path());
    fake.set("0.event_types", 0);
    let library = Some(fake.library());
    let mut check = gpu(&GpuOptions { library, ..GpuOptions::default() }, &Arc::default())();
    drop(check.run(&Progress::default()));
    fake.set("0.code", code::GPU_IS_LOST);
    drop(check.run(&Progress::default()));
    drop(fake.calls());
    let report = check.run(&Progress::default());
    assert_eq!(value(&report, "lodestar_gpu_up", ""), Some(0.0));
    assert_eq!(fake.calls(), [""; 0]);
}

#[test]
fn a_card_that_is_lost_from_the_start_is_told() {
    let mut rig = Rig::new();
    rig.fake.set("0.code", code::GPU_IS_LOST);
    let report = rig.run();
    assert_eq!(value(&report, "lodestar_gpu_up", "gpu-0"), Some(0.0), "{report:?}");
    rig.fake.unset("0.code");
    let report = rig.run();
    assert_eq!(report.found.len(), 1);
    let id = "GPU-00000000-0000-0000-0000-000000000000";
    assert_eq!(value(&report, "lodestar_gpu_up", id), Some(1.0), "{report:?}");
}

#[test]
fn three_answers_that_come_too_late_are_a_loss() {
    let mut rig = Rig::new();
    drop(rig.run());
    rig.fake.set("0.nvmlDeviceGetTemperature", code::TIMEOUT);
    is(&rig.run(), "gpu", Presence::Unknown);
    is(&rig.run(), "gpu", Presence::Unknown);
    let report = rig.run();
    assert_eq!(value(&report, "lodestar_gpu_up", ""), Some(0.0), "{report:?}");
    rig.fake.unset("0.nvmlDeviceGetTemperature");
    assert_eq!(value(&rig.run(), "lodestar_gpu_up", ""), Some(1.0));
}

#[test]
fn an_xid_counts_each_time_that_it_comes() {
    let mut rig = Rig::new();
    rig.fake.set("cards", 2);
    drop(rig.run());
    rig.fake.xid(1, 79);
    let count = |report: &Report, count: f64| {
        value(report, "hw_errors_total", "xid_79").is_some_and(|value| value >= count)
    };
    let report = until(&mut rig, |report| count(report, 1.0));
    // It begins at 0, so that the first one is growth.
    assert_eq!(values(&report, "hw_errors_total", "xid_79"), [0.0, 1.0]);
    let series = report.readings.iter().map(|reading| &reading.series);
    let mut errors = series.filter(|series| series.metric.name == "hw_errors_total");
    assert!(errors.all(|series| &*series.component == "gpu.1"));
    rig.fake.xid(1, 79);
    let report = until(&mut rig, |report| count(report, 2.0));
    assert_eq!(values(&report, "hw_errors_total", "xid_79"), [2.0]);
    // A new session goes on counting.
    rig.fake.set("0.code", code::GPU_IS_LOST);
    drop(rig.run());
    rig.fake.unset("0.code");
    drop(rig.run());
    rig.fake.xid(1, 79);
    let report = until(&mut rig, |report| count(report, 3.0));
    assert_eq!(values(&report, "hw_errors_total", "xid_79"), [3.0]);
}

#[test]
fn time_at_lower_clocks_is_counted_by_its_reason() {
    let mut rig = Rig::new();
    drop(rig.run());
    // Idle (1) is none; software thermal slowdown (0x20) is.
    rig.fake.set("0.throttle", 0x21);
    let throttled = |report: &Report| {
        value(report, "lodestar_gpu_throttle_seconds_total", "thermal") > Some(0.0)
    };
    let report = until(&mut rig, throttled);
    assert_eq!(value(&report, "lodestar_gpu_throttle_seconds_total", "power"), Some(0.0));
}

#[test]
fn names_obey_nobody() {
    let mut rig = Rig::new();
    rig.fake.set("0.name", "NVIDIA\u{1b}[31m T600");
    rig.fake.set("0.uuid", "GPU-\u{7}1");
    let report = rig.run();
    let details = report.found[0].details.clone().expect("it has details");
    assert_eq!(details["name"], "NVIDIA\\u{1b}[31m T600");
    assert_eq!(details["id"], "GPU-\\u{7}1");
    assert_eq!(value(&report, "lodestar_gpu_up", "GPU-\\u{7}1"), Some(1.0));
    // What is no text at all has no name.
    let long = "x".repeat(95);
    rig.fake.set("0.code", code::GPU_IS_LOST);
    drop(rig.run());
    rig.fake.unset("0.code");
    rig.fake.set("0.name", &long);
    let details = rig.run().found[0].details.clone().expect("it has details");
    assert_eq!(details["name"], long);
}

#[test]
fn processes_are_told_by_their_memory_and_each_once() {
    let mut rig = Rig::new();
    let own = std::process::id();
    let many: Vec<String> = (1_000_000..1_000_100).map(|pid| format!("{pid}:5")).collect();
    rig.fake.set("0.processes", format!("{own}:1073741824 {}", many.join(" ")));
    rig.fake.set("0.graphics", format!("{own}:3 1000000:18446744073709551615"));
    let details = rig.run().found[0].details.clone().expect("it has details");
    let processes = details["processes"].as_array().expect("a list");
    assert_eq!(processes.len(), 64);
    assert_eq!(processes[0]["pid"], own);
    assert_eq!(processes[0]["memory_bytes"], 1_073_741_824_u64);
    assert!(processes[0]["name"].as_str().is_some_and(|name| !name.is_empty()));
    assert!(processes[1]["name"].is_null(), "there is no process of that number");
}

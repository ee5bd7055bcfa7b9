//! The shipped rules about the machine itself: what raises them, what does not, and when they end.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use health_monitor::{
    alert::Transition,
    metric::{
        DISK_FREE, DISK_FULL_ETA, DISK_INODES, DISK_UTILIZATION, MEMORY_AVAILABLE,
        MEMORY_UTILIZATION, Metric, PRESSURE_STALLED, SWAP_UTILIZATION,
    },
    monitor::{Monitor, NoRequests},
    reading::{Component, Found, Report, Series},
    rule::RuleSet,
    time::Moment,
};
use module_sdk::jiff::{Timestamp, ToSpan as _};

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;

/// Time between two reports, in seconds.
const EVERY: u64 = 5;

/// Returns the alerts of `seconds` in which each second has the report that `at` gives: the second,
/// the name of the rule, and whether it was raised or ended.
fn alerts(seconds: u64, at: impl Fn(u64) -> Report) -> Vec<(u64, String, bool)> {
    let rules = RuleSet::new(&BTreeMap::new()).expect("the shipped rules are valid");
    let mut monitor = Monitor::new(rules, Vec::new());
    let start: Timestamp = "2026-11-20T10:00:00Z".parse().expect("a time");
    let mut all = Vec::new();
    for second in (0..seconds).step_by(EVERY as usize) {
        let time = start + i64::try_from(second).expect("it is small").seconds();
        let now = Moment { at: time, steady_ms: second * 1_000 };
        monitor.take("machine", at(second), now);
        let step = monitor.step(&NoRequests, now);
        all.extend(step.transitions.into_iter().map(|transition| match transition {
            Transition::Raised(alert) => (second, alert.name.to_string(), true),
            Transition::Resolved(alert, _) => (second, alert.name.to_string(), false),
        }));
    }
    all
}

/// Returns a report of a component with these values.
fn report<const N: usize>(component: &str, values: &[(&'static Metric, [&str; N], f64)]) -> Report {
    let component: Component = component.into();
    let mut report = Report::default();
    for (metric, labels, value) in values {
        let series = Series::new(metric, &component, *labels);
        if report.found.is_empty() {
            report.found.push(Found::present(&component, &series));
        }
        report.read(&series, *value);
    }
    report
}

/// Asserts that the rule is raised and ends within these seconds; and no other one.
fn told(found: &[(u64, String, bool)], rule: &str, raised: Range<u64>, ended: Range<u64>) {
    let [(first, first_name, true), (last, last_name, false)] = found else {
        panic!("{rule}: {found:?}")
    };
    assert_eq!((first_name.as_str(), last_name.as_str()), (rule, rule));
    assert!(raised.contains(first) && ended.contains(last), "{found:?}");
}

/// Returns the seconds of stall until a second, where each one within a range has a part.
fn stalled(second: u64, within: &Range<u64>, part: f64) -> f64 {
    100.0 + part * second.clamp(within.start, within.end).saturating_sub(within.start) as f64
}

fn pressure(resource: &'static str, second: u64, within: &Range<u64>, parts: [f64; 2]) -> Report {
    let value = |kind, part| (&PRESSURE_STALLED, [resource, kind], stalled(second, within, part));
    let values = [value("some", parts[0]), value("full", parts[1])];
    report(&format!("pressure.{resource}"), &values)
}

#[test]
fn memory_that_is_waited_for_is_told() {
    let within = 2 * MINUTE..10 * MINUTE;
    let some = alerts(30 * MINUTE, |second| pressure("memory", second, &within, [0.3, 0.02]));
    told(&some, "memory_pressure", 3 * MINUTE..4 * MINUTE, 15 * MINUTE..17 * MINUTE);
    let all = alerts(30 * MINUTE, |second| pressure("memory", second, &within, [0.3, 0.3]));
    let raised = |name: &str| all.iter().find(|(_, rule, is_raised)| rule == name && *is_raised);
    let (stall, ..) = raised("memory_stall").expect("it is raised");
    assert!((2 * MINUTE + 50..3 * MINUTE + 10).contains(stall), "{all:?}");
    assert_eq!(all.len(), 4, "each once, and its end: {all:?}");
    let blip = 2 * MINUTE..2 * MINUTE + 10;
    let found = alerts(10 * MINUTE, |second| pressure("memory", second, &blip, [0.5, 0.5]));
    assert_eq!(found, [], "ten seconds are no trouble");
}

#[test]
fn disks_that_are_waited_for_are_told_after_long() {
    let within = 5 * MINUTE..35 * MINUTE;
    let found = alerts(90 * MINUTE, |second| pressure("io", second, &within, [0.9, 0.8]));
    told(&found, "io_pressure", 17 * MINUTE..19 * MINUTE, 47 * MINUTE..49 * MINUTE);
    let backup = 5 * MINUTE..12 * MINUTE;
    let found = alerts(60 * MINUTE, |second| pressure("io", second, &backup, [1.0, 1.0]));
    assert_eq!(found, [], "a backup is no trouble");
    let some = alerts(60 * MINUTE, |second| pressure("io", second, &within, [1.0, 0.1]));
    assert_eq!(some, [], "others went on");
}

#[test]
fn memory_and_swap_are_told_where_both_are_short() {
    let within = 2 * MINUTE..20 * MINUTE;
    let memory = |second: u64, available: f64| {
        let used = if within.contains(&second) { 0.96 } else { 0.5 };
        report("memory", &[(&MEMORY_UTILIZATION, [], used), (&MEMORY_AVAILABLE, [], available)])
    };
    let found = alerts(60 * MINUTE, |second| memory(second, 1e9));
    told(&found, "memory_low", 7 * MINUTE..8 * MINUTE, 24 * MINUTE..26 * MINUTE);
    assert_eq!(alerts(60 * MINUTE, |second| memory(second, 10e9)), [], "10 GB are enough");

    let swap = |second: u64, used: f64| {
        let mut both = memory(second, 10e9);
        let swap = report("swap", &[(&SWAP_UTILIZATION, [], used)]);
        both.found.extend(swap.found);
        both.readings.extend(swap.readings);
        both
    };
    let found = alerts(60 * MINUTE, |second| swap(second, 0.95));
    told(&found, "swap_full", 7 * MINUTE..8 * MINUTE, 29 * MINUTE..31 * MINUTE);
    assert_eq!(alerts(60 * MINUTE, |second| swap(second, 0.5)), []);
}

#[test]
fn a_disk_that_will_be_full_is_told() {
    let disk = |eta: f64, used: f64, inodes: f64| {
        let value = |metric, value| (metric, ["/"], value);
        let values = [
            value(&DISK_UTILIZATION, used),
            value(&DISK_FREE, 100e9),
            value(&DISK_INODES, inodes),
            value(&DISK_FULL_ETA, eta),
        ];
        report("disk./", &values)
    };
    let within = 10 * MINUTE..2 * HOUR;
    let eta = |second: u64, eta| if within.contains(&second) { eta } else { f64::INFINITY };
    let found = alerts(4 * HOUR, |second| disk(eta(second, 7_200.0), 0.85, 0.1));
    let ended = 2 * HOUR + 29 * MINUTE..2 * HOUR + 31 * MINUTE;
    told(&found, "disk_full_soon", 40 * MINUTE..41 * MINUTE, ended);
    let empty = alerts(4 * HOUR, |second| disk(eta(second, 7_200.0), 0.3, 0.1));
    assert_eq!(empty, [], "a rather empty disk has time");
    let inodes = |second: u64| if within.contains(&second) { 0.99 } else { 0.2 };
    let found = alerts(4 * HOUR, |second| disk(f64::INFINITY, 0.5, inodes(second)));
    let ended = 2 * HOUR + 9 * MINUTE..2 * HOUR + 11 * MINUTE;
    told(&found, "inodes_low", 15 * MINUTE..16 * MINUTE, ended);
}

#[test]
fn a_disk_that_hangs_is_told_and_keeps_its_other_troubles() {
    let component: Component = "disk./".into();
    let utilization = Series::new(&DISK_UTILIZATION, &component, ["/"]);
    let free = Series::new(&DISK_FREE, &component, ["/"]);
    let full = |series: &Arc<Series>, free: &Arc<Series>| {
        let mut report = Report::default();
        report.found.push(Found::present(&component, series));
        report.read(series, 0.95);
        report.read(free, 10e9);
        report
    };
    let hangs = || {
        let mut report = Report::default();
        report.found.push(Found::unknown(&component, "it does not answer"));
        report
    };
    let found = alerts(HOUR, |second| match second / MINUTE {
        10..30 => hangs(),
        _ => full(&utilization, &free),
    });
    let names: Vec<(&str, bool)> =
        found.iter().map(|(_, name, is_raised)| (name.as_str(), *is_raised)).collect();
    let expected = [("disk_low", true), ("disk_unknown", true), ("disk_unknown", false)];
    assert_eq!(names, expected, "{found:?}");
    assert!((11 * MINUTE..12 * MINUTE).contains(&found[1].0), "{found:?}");
    let hung = alerts(20 * MINUTE, |second| match second / MINUTE {
        5.. => Report { hangs: Some("no answer".to_owned()), ..Report::default() },
        _ => full(&utilization, &free),
    });
    let names: Vec<&str> = hung.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(names, ["disk_low", "disk_unknown"], "the check hangs as a whole");
}

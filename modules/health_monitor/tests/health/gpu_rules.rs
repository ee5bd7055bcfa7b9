//! The rules of GPUs, over time: counters that grow, and how long a trouble lasts.

use std::collections::BTreeMap;

use health_monitor::{
    alert::Transition,
    metric::{GPU_THROTTLE, GPU_UP, HARDWARE_ERRORS},
    monitor::{Monitor, NoRequests},
    reading::{Component, Found, Report, Series},
    rule::RuleSet,
    time::Moment,
};
use module_sdk::jiff::Timestamp;

/// Returns the alerts that are raised by readings of which there is one a second, with the second.
fn raised(seconds: u64, read: impl Fn(&Component, u64, &mut Report)) -> Vec<(String, u64)> {
    let rules = RuleSet::new(&BTreeMap::new()).expect("the shipped rules are valid");
    let mut monitor = Monitor::new(rules, Vec::new());
    let component: Component = "gpu".into();
    let up = Series::new(&GPU_UP, &component, ["GPU-1"]);
    let mut raised = Vec::new();
    for second in 0..seconds {
        let at = Timestamp::from_second(1_800_000_000 + i64::try_from(second).expect("few"));
        let now = Moment { at: at.expect("a time"), steady_ms: second * 1_000 };
        let mut report = Report::default();
        report.found.push(Found::present(&component, &up));
        report.read(&up, 1.0);
        read(&component, second, &mut report);
        monitor.take("gpu", report, now);
        for transition in monitor.step(&NoRequests, now).transitions {
            if let Transition::Raised(alert) = transition {
                raised.push((alert.name.to_string(), second));
            }
        }
    }
    raised
}

#[test]
fn heat_that_lowers_the_clocks_is_told_when_it_lasts() {
    let throttled = |share: f64, reason: &'static str| {
        raised(1_200, move |component, second, report| {
            let series = Series::new(&GPU_THROTTLE, component, ["GPU-1", reason]);
            let second = u32::try_from(second).expect("few");
            report.read(&series, f64::from(second) * share);
        })
    };
    let alerts = throttled(0.5, "thermal");
    let [(name, second)] = alerts.as_slice() else { panic!("{alerts:?}") };
    assert_eq!(name, "gpu_thermal_throttle");
    // A quarter of five minutes at half the time, and two minutes more.
    assert!((265..=285).contains(second), "{second}");
    assert_eq!(throttled(0.2, "thermal"), []);
    // A card that is as fast as its power allows is well.
    assert_eq!(throttled(1.0, "power"), []);
}

#[test]
fn an_xid_is_told_at_once_and_by_its_kind() {
    let check = |kind: &'static str, expected: &[&str]| {
        let alerts = raised(1_300, move |component, second, report| {
            let series = Series::new(&HARDWARE_ERRORS, component, ["GPU-1", "gpu", kind]);
            if second == 60 {
                report.read(&series, 0.0);
            }
            if second >= 60 {
                report.read(&series, 1.0);
            }
        });
        let names: Vec<&str> = alerts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, expected, "{kind}");
        // One tick until it is seen, one until it has lasted for no time.
        assert!(alerts.iter().all(|(_, second)| (60..=61).contains(second)), "{alerts:?}");
    };
    check("xid_79", &["gpu_xid_fatal"]);
    check("xid_94", &["gpu_xid_memory"]);
    check("xid_31", &["gpu_xid_app"]);
    // Of others nothing is known, and errors that were corrected did no harm.
    check("xid_8", &[]);
    check("ecc_corrected", &[]);
}

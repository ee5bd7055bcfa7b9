use module_sdk::{
    events::AlertSeverity,
    jiff::{Timestamp, ToSpan as _},
};
use serde_json::json;

use super::*;
use crate::{
    metric::{DISK_FREE, DISK_UTILIZATION},
    reading::Found,
};

/// A monitor of two disks, with a clock that the test moves.
struct Site {
    monitor: Monitor,
    seconds: u64,
    utilization: Vec<Arc<Series>>,
    free: Vec<Arc<Series>>,
}

impl Site {
    fn new(rules: serde_json::Value) -> Self {
        Self::resuming(rules, Vec::new())
    }

    fn resuming(rules: serde_json::Value, firing: Vec<Alert>) -> Self {
        let rules = serde_json::from_value(rules).expect("they are rules");
        let monitor = Monitor::new(RuleSet::new(&rules).expect("they are valid"), firing);
        let disks: [Component; 2] = ["disk./".into(), "disk./home".into()];
        let series = |metric| {
            let of = |disk: &Component| Series::new(metric, disk, [&disk["disk.".len()..]]);
            disks.iter().map(of).collect()
        };
        let (utilization, free) = (series(&DISK_UTILIZATION), series(&DISK_FREE));
        Self { monitor, seconds: 0, utilization, free }
    }

    fn now(&self) -> Moment {
        let begin: Timestamp = "2026-11-20T10:00:00Z".parse().expect("a time");
        let seconds = i64::try_from(self.seconds).expect("not long");
        Moment { at: begin + seconds.seconds(), steady_ms: self.seconds * 1_000 }
    }

    /// Reports both disks at a time, as fractions in use and free gigabytes.
    fn at(&mut self, seconds: u64, disks: [(f64, f64); 2]) -> Step {
        self.seconds = seconds;
        let mut report = Report::default();
        for (index, (used, free)) in disks.into_iter().enumerate() {
            let series = &self.utilization[index];
            report.found.push(Found::present(&series.component, series));
            report.read(series, used);
            report.read(&self.free[index], free * 1e9);
        }
        let now = self.now();
        self.monitor.take("disk", report, now);
        self.monitor.step(&NoRequests, now)
    }

    fn status(&self, component: &str) -> CheckStatus {
        self.monitor.board().get(component).expect("it is known").status
    }
}

fn raised(step: &Step) -> Vec<(&str, &str)> {
    let raised = step.transitions.iter().filter_map(|transition| match transition {
        Transition::Raised(alert) => Some((&*alert.name, &*alert.component)),
        Transition::Resolved(..) => None,
    });
    raised.collect()
}

fn resolved(step: &Step) -> Vec<&str> {
    let resolved = step.transitions.iter().filter_map(|transition| match transition {
        Transition::Resolved(alert, _) => Some(&*alert.name),
        Transition::Raised(_) => None,
    });
    resolved.collect()
}

const WELL: (f64, f64) = (0.5, 100.0);

#[test]
fn an_alert_needs_its_time_and_ends_below_its_second_threshold() {
    let mut site = Site::new(json!({}));
    assert_eq!(site.at(0, [WELL, WELL]), Step::default());
    let step = site.at(10, [WELL, (0.91, 10.0)]);
    assert!(step.transitions.is_empty());
    assert_eq!(step.changes[0].to, CheckStatus::Warning, "what is so is shown at once");
    assert!(raised(&site.at(120, [WELL, (0.91, 10.0)])).is_empty());
    let step = site.at(130, [WELL, (0.92, 9.0)]);
    assert_eq!(raised(&step), [("disk_low", "disk./home")]);
    let alert = site.monitor.alerts()[0].clone();
    assert!(alert.message.starts_with("disk./home is 92% full (limit 90%)."), "{}", alert.message);
    assert!(alert.message.contains("du -xh --max-depth=2 /home "), "{}", alert.message);
    // Between the two thresholds it goes on, however long.
    assert!(site.at(2_000, [WELL, (0.87, 13.0)]).transitions.is_empty());
    assert_eq!(site.status("disk./home"), CheckStatus::Warning);
    // Below it is over, after ten minutes.
    assert!(site.at(2_010, [WELL, WELL]).transitions.is_empty());
    assert_eq!(site.status("disk./home"), CheckStatus::Ok);
    assert_eq!(resolved(&site.at(2_610, [WELL, WELL])), ["disk_low"]);
    assert!(site.monitor.alerts().is_empty());
    assert_eq!(site.monitor.board().overall(), crate::board::Overall::Healthy);
}

#[test]
fn a_condition_that_was_interrupted_begins_anew() {
    let mut site = Site::new(json!({}));
    site.at(0, [WELL, (0.91, 10.0)]);
    site.at(60, [WELL, WELL]);
    site.at(70, [WELL, (0.91, 10.0)]);
    assert!(raised(&site.at(185, [WELL, (0.91, 10.0)])).is_empty());
    assert_eq!(raised(&site.at(190, [WELL, (0.91, 10.0)])), [("disk_low", "disk./home")]);
}

#[test]
fn further_conditions_are_of_the_same_component() {
    let mut site = Site::new(json!({}));
    // A large disk may be 95 % full, and little space on another one says nothing of it.
    for seconds in [0, 200] {
        assert!(raised(&site.at(seconds, [(0.95, 500.0), (0.5, 10.0)])).is_empty());
    }
    // Less than 1 GB is enough whatever the fraction; the worst trouble is shown.
    site.at(300, [(0.95, 0.9), WELL]);
    assert_eq!(site.status("disk./"), CheckStatus::Critical);
    assert_eq!(raised(&site.at(360, [(0.95, 0.9), WELL])), [("disk_almost_full", "disk./")]);
    assert_eq!(site.monitor.board().overall().exit_code(), 2);
}

#[test]
fn alerts_of_before_a_restart_go_on_or_end() {
    let rules = json!({"disk_low": {"for": "0s", "keep_firing_for": "0s"}});
    let mut site = Site::new(rules.clone());
    site.at(0, [(0.95, 10.0), (0.95, 10.0)]);
    let firing: Vec<Alert> = site.monitor.alerts().into_iter().cloned().collect();
    assert_eq!(firing.len(), 2);
    let mut site = Site::resuming(rules, firing.clone());
    assert_eq!(site.monitor.step(&NoRequests, site.now()), Step::default(), "nothing is known yet");
    assert!(site.at(5, [(0.95, 10.0), WELL]).transitions.is_empty(), "told before");
    assert_eq!(site.monitor.alerts().len(), 2);
    assert_eq!(resolved(&site.at(60, [(0.95, 10.0), WELL])), ["disk_low"]);
    assert_eq!(site.monitor.alerts()[0].id, firing[0].id);
    let gone = json!({"disk_low": {"enabled": false}});
    let mut site = Site::resuming(gone, firing);
    assert_eq!(resolved(&site.at(0, [(0.95, 10.0), WELL])), ["disk_low", "disk_low"]);
}

#[test]
fn what_is_gone_or_not_known_is_judged_by_rules_about_states() {
    let rules = json!({"disk_unknown": {"enabled": false},
                       "hanging": {"check": "unknown", "component": "disk.*",
                                        "for": "1m", "severity": "critical"}});
    let mut site = Site::new(rules);
    site.at(0, [(0.97, 4.0), WELL]);
    let hanging = Report { hangs: Some("no answer".into()), ..Report::default() };
    for seconds in [5, 64, 65] {
        site.seconds = seconds;
        site.monitor.take("disk", hanging.clone(), site.now());
        let step = site.monitor.step(&NoRequests, site.now());
        assert_eq!(raised(&step).len(), if seconds == 65 { 2 } else { 0 }, "{seconds}");
        let shown = &site.monitor.board().get("disk./").expect("it is known").message;
        assert_eq!(shown, "disk./: no answer");
    }
    // A disk that was taken away is forgotten, with its values.
    site.seconds = 70;
    let mut report = Report::default();
    report.found.push(Found::present(&site.utilization[0].component, &site.utilization[0]));
    report.read(&site.utilization[0], 0.5);
    site.monitor.take("disk", report, site.now());
    site.monitor.step(&NoRequests, site.now());
    assert!(site.monitor.board().get("disk./home").is_none());
    assert!(site.monitor.values().iter().all(|(series, _)| &*series.component == "disk./"));
}

#[test]
fn an_event_fires_until_none_has_come_for_a_while() {
    let rules = json!({"spend_budget": {"enabled": false},
                       "budget": {"event": "usage.budget.*", "match": {"name": "team*"},
                                  "keep_firing_for": "1h", "severity": "warning"}});
    let mut site = Site::new(rules);
    let event = |site: &mut Site, name: &str| {
        let (topic, fields) = ("usage.budget.exceeded", json!({"name": name}));
        site.monitor.take_event(topic, fields, format!("budget.{name}").into());
        site.monitor.step(&NoRequests, site.now())
    };
    assert!(raised(&event(&mut site, "mine")).is_empty());
    assert_eq!(raised(&event(&mut site, "team-a")), [("budget", "budget.team-a")]);
    site.seconds = 1_800;
    assert!(raised(&event(&mut site, "team-a")).is_empty());
    site.seconds = 5_399;
    assert!(site.monitor.step(&NoRequests, site.now()).transitions.is_empty());
    site.seconds = 5_400;
    assert_eq!(resolved(&site.monitor.step(&NoRequests, site.now())), ["budget"]);
}

#[test]
fn the_worst_alert_comes_first() {
    let rules = json!({"disk_low": {"for": "0s"}, "disk_almost_full": {"for": "0s"}});
    let mut site = Site::new(rules);
    site.at(0, [(0.91, 10.0), WELL]);
    site.at(5, [(0.91, 10.0), (0.98, 4.0)]);
    let severities: Vec<AlertSeverity> =
        site.monitor.alerts().iter().map(|alert| alert.severity).collect();
    use AlertSeverity::{Critical, Warning};
    assert_eq!(severities, [Critical, Warning, Warning]);
}

use module_sdk::jiff::ToSpan as _;
use proptest::prelude::*;

use super::*;
use crate::notify::note::{Kind, News};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

fn policy() -> Policy {
    Policy {
        critical_wait_ms: 5 * SECOND,
        wait_ms: 30 * SECOND,
        interval_ms: 5 * MINUTE,
        critical_reminder_ms: Some(HOUR),
        warning_reminder_ms: Some(4 * HOUR),
        windows: Vec::new(),
        routes: vec![route("ops")],
    }
}

fn route(channel: &str) -> Route {
    Route {
        channel: channel.to_owned(),
        min_severity: AlertSeverity::Info,
        matcher: Matcher::default(),
        send_resolved: true,
        cap_per_hour: Some(6),
    }
}

fn moment(ms: u64) -> Moment {
    let start: Timestamp = "2026-11-20T10:00:00Z".parse().expect("a time");
    Moment { at: start + i64::try_from(ms).expect("it is short").milliseconds(), steady_ms: ms }
}

fn rules() -> RuleSet {
    let rules = serde_json::json!({
        "router_down": {"metric": "system_memory_utilization_ratio", "above": 1},
        "model_down": {
            "metric": "system_memory_utilization_ratio", "above": 1, "keep_firing_for": "5m",
            "hidden_by": ["router_down"],
        },
    });
    RuleSet::new(&serde_json::from_value(rules).expect("they are rules")).expect("they are valid")
}

/// A notifier, and all that it ever told.
struct Scene {
    notifier: Notifier,
    rules: RuleSet,
    silences: Vec<Matcher>,
    acknowledged: BTreeSet<String>,
    firing: BTreeMap<(String, String), Alert>,
    waiting: Vec<Transition>,
    now_ms: u64,
    told: Vec<(u64, String, Note)>,
    suppressed: Vec<Suppressed>,
}

impl Scene {
    fn new(policy: Policy) -> Self {
        Self {
            notifier: Notifier::new(policy, &[], moment(0)),
            rules: rules(),
            silences: Vec::new(),
            acknowledged: BTreeSet::new(),
            firing: BTreeMap::new(),
            waiting: Vec::new(),
            now_ms: 0,
            told: Vec::new(),
            suppressed: Vec::new(),
        }
    }

    fn raise(&mut self, name: &str, component: &str, severity: AlertSeverity) {
        let alert = Alert {
            id: format!("{name}-{component}-{}", self.now_ms),
            name: name.into(),
            severity,
            component: component.into(),
            labels: [("component".to_owned(), component.to_owned())].into(),
            message: format!("{component} is in trouble."),
            value: None,
            since: moment(self.now_ms).at,
        };
        self.firing.insert((name.to_owned(), component.to_owned()), alert.clone());
        self.waiting.push(Transition::Raised(alert));
    }

    fn end(&mut self, name: &str, component: &str) {
        let alert = self.firing.remove(&(name.to_owned(), component.to_owned()));
        let alert = alert.expect("it fires");
        self.waiting.push(Transition::Resolved(alert, moment(self.now_ms).at));
    }

    /// Lets time pass, second by second.
    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.step();
            self.now_ms += SECOND;
        }
        self.step();
    }

    fn step(&mut self) {
        let circumstances = Circumstances {
            rules: &self.rules,
            silences: &self.silences,
            acknowledged: &self.acknowledged,
        };
        let transitions = std::mem::take(&mut self.waiting);
        let told = self.notifier.step(&transitions, &circumstances, moment(self.now_ms));
        let notes = told.notes.into_iter().map(|(channel, note)| (self.now_ms, channel, note));
        self.told.extend(notes);
        self.suppressed.extend(told.suppressed);
    }

    /// Begins anew from what was saved, after a time in which nothing ran.
    fn restart(&mut self, policy: Policy, down_ms: u64) {
        let saved = self.notifier.save(moment(self.now_ms)).expect("it changed");
        self.now_ms += down_ms;
        let firing: Vec<Alert> = self.firing.values().cloned().collect();
        // The steady clock begins at 0 in another process.
        let now = Moment { steady_ms: self.now_ms, ..moment(self.now_ms) };
        self.notifier = Notifier::resume(policy, &saved, &firing, now).expect("it is read");
        self.waiting.clear();
    }

    /// Returns what was told since the last call, as `second: news component, …`.
    fn told(&mut self) -> Vec<String> {
        let told = std::mem::take(&mut self.told).into_iter();
        told.map(|(ms, _, note)| {
            let items = note.items.iter().map(|item| {
                let news = format!("{:?}", item.news).to_lowercase();
                format!("{news} {}", item.alert.component)
            });
            let items: Vec<String> = items.collect();
            let digest = if note.kind == Kind::Digest { "digest: " } else { "" };
            format!("{}: {digest}{}", ms / SECOND, items.join(", "))
        })
        .collect()
    }
}

use AlertSeverity::{Critical, Info, Warning};

#[test]
fn what_comes_together_is_told_together_and_once() {
    let mut scene = Scene::new(policy());
    scene.raise("a", "one", Warning);
    scene.pass(20 * SECOND);
    scene.raise("a", "two", Warning);
    scene.pass(20 * MINUTE);
    assert_eq!(scene.told(), ["30: firing one, firing two"]);
    scene.end("a", "one");
    scene.pass(10 * SECOND);
    scene.raise("b", "three", Critical);
    scene.pass(10 * MINUTE);
    assert_eq!(scene.told(), ["1235: firing three, resolved one"]);
}

#[test]
fn a_critical_alert_is_told_within_seconds() {
    let mut scene = Scene::new(policy());
    scene.raise("a", "one", Critical);
    scene.pass(MINUTE);
    scene.end("a", "one");
    scene.pass(10 * MINUTE);
    // The end waits for the interval, a new beginning does not.
    assert_eq!(scene.told(), ["5: firing one", "305: resolved one"]);
    scene.raise("a", "one", Critical);
    scene.pass(MINUTE);
    assert_eq!(scene.told(), ["665: firing one"]);
}

#[test]
fn what_is_over_before_it_is_told_is_not_told() {
    let mut scene = Scene::new(policy());
    scene.raise("a", "one", Warning);
    scene.pass(20 * SECOND);
    scene.end("a", "one");
    scene.pass(HOUR);
    assert!(scene.told().is_empty());
    assert!(scene.notifier.state.troubles.is_empty(), "it is forgotten");
}

#[test]
fn a_consequence_is_hidden_until_its_cause_is_over() {
    let mut scene = Scene::new(policy());
    scene.raise("router_down", "router", Critical);
    scene.raise("model_down", "model.a", Warning);
    scene.raise("model_down", "model.b", Warning);
    scene.pass(20 * MINUTE);
    assert_eq!(scene.told(), ["5: firing router"]);
    assert_eq!(scene.suppressed, [Suppressed::Hidden; 2]);
    scene.end("router_down", "router");
    scene.pass(MINUTE);
    scene.end("model_down", "model.a");
    scene.pass(HOUR);
    // `model.b` fires on, for longer than `keep_firing_for`: it is a trouble of its own.
    assert_eq!(scene.told(), ["1205: resolved router", "1530: firing model.b"]);
}

#[test]
fn a_critical_alert_hides_the_milder_ones_of_its_component() {
    let mut scene = Scene::new(policy());
    scene.raise("disk_low", "disk./", Warning);
    scene.raise("disk_almost_full", "disk./", Critical);
    scene.raise("disk_low", "disk./home", Warning);
    scene.pass(5 * MINUTE);
    assert_eq!(scene.told(), ["5: firing disk./, firing disk./home"]);
}

#[test]
fn what_flaps_is_told_once_and_once_when_it_is_quiet() {
    let mut scene = Scene::new(policy());
    for _ in 0..10 {
        scene.raise("a", "one", Critical);
        scene.pass(2 * MINUTE);
        scene.end("a", "one");
        scene.pass(MINUTE);
    }
    assert_eq!(scene.told(), ["5: firing one", "485: flapping one"]);
    scene.raise("a", "one", Critical);
    scene.pass(29 * MINUTE);
    assert!(scene.told().is_empty());
    scene.pass(2 * MINUTE);
    assert_eq!(scene.told(), ["3605: firing one"]);
    scene.end("a", "one");
    scene.pass(10 * MINUTE);
    assert_eq!(scene.told().len(), 1);
}

#[test]
fn what_comes_back_is_not_over() {
    let mut scene = Scene::new(policy());
    let again = |scene: &mut Scene| {
        scene.raise("a", "one", Critical);
        scene.pass(2 * MINUTE);
        scene.end("a", "one");
    };
    again(&mut scene);
    scene.pass(10 * MINUTE);
    assert_eq!(scene.told(), ["5: firing one", "305: resolved one"]);
    again(&mut scene);
    scene.pass(14 * MINUTE);
    assert_eq!(scene.told(), ["725: firing one"]);
    scene.pass(2 * MINUTE);
    assert_eq!(scene.told(), ["1745: resolved one"]);
    // After an hour of quiet it is a new one.
    scene.pass(HOUR);
    again(&mut scene);
    scene.pass(10 * MINUTE);
    assert_eq!(scene.told(), ["5405: firing one", "5705: resolved one"]);
}

#[test]
fn reminders_come_by_severity_and_not_where_somebody_works_on_it() {
    let mut scene = Scene::new(policy());
    scene.raise("a", "one", Critical);
    scene.raise("a", "two", Warning);
    scene.raise("a", "three", Info);
    scene.pass(4 * HOUR + MINUTE);
    let expected = [
        "5: firing one, firing two, firing three",
        "3605: reminder one",
        "7205: reminder one",
        "10805: reminder one",
        "14405: reminder one, reminder two",
    ];
    assert_eq!(scene.told(), expected);
    scene.acknowledged.insert("a-one-0".to_owned());
    scene.pass(3 * HOUR);
    assert!(scene.told().is_empty());
}

#[test]
fn reminders_of_one_severity_come_together() {
    let mut scene = Scene::new(policy());
    for minute in 0..4 {
        scene.raise("a", &format!("c{minute}"), Critical);
        scene.pass(5 * MINUTE);
    }
    scene.told();
    scene.pass(2 * HOUR);
    let together = "reminder c0, reminder c1, reminder c2, reminder c3";
    let expected = [format!("3605: {together}"), format!("7205: {together}")];
    assert_eq!(scene.told(), expected);
}

#[test]
fn beyond_the_cap_news_are_held_back_for_one_digest() {
    let mut scene = Scene::new(policy());
    for minute in 0..10 {
        scene.raise("a", &format!("c{minute}"), Warning);
        scene.pass(MINUTE);
    }
    scene.end("a", "c9");
    let told = scene.told();
    assert_eq!(told.len(), 5, "the last one is kept for something critical: {told:?}");
    scene.pass(20 * MINUTE);
    assert!(scene.told().is_empty());
    scene.notifier.save(moment(scene.now_ms));
    scene.pass(MINUTE);
    assert_eq!(scene.notifier.save(moment(scene.now_ms)), None, "nothing changes meanwhile");
    scene.raise("a", "now", Critical);
    scene.pass(10 * SECOND);
    let told = scene.told();
    assert_eq!(
        told,
        ["1865: digest: firing now, firing c5, firing c6, firing c7, firing c8, resolved c9"]
    );
    assert_eq!(scene.suppressed, [Suppressed::Capped; 5]);
}

#[test]
fn a_silence_ends_and_then_it_is_told() {
    let mut scene = Scene::new(policy());
    scene.raise("a", "one", Warning);
    scene.raise("a", "two", Warning);
    scene.pass(MINUTE);
    assert_eq!(scene.told(), ["30: firing one, firing two"]);
    scene.silences.push("one".parse().expect("it is a matcher"));
    scene.end("a", "one");
    scene.end("a", "two");
    scene.raise("b", "one", Warning);
    scene.pass(10 * MINUTE);
    assert_eq!(scene.told(), ["330: resolved two"]);
    scene.silences.clear();
    scene.pass(10 * MINUTE);
    assert_eq!(scene.told(), ["690: firing one, resolved one"]);
}

#[test]
fn channels_get_what_they_ask_for() {
    let disks: Matcher = "component=disk.*".parse().expect("it is a matcher");
    let mut policy = policy();
    policy.routes = vec![
        Route { min_severity: Critical, send_resolved: false, ..route("pager") },
        Route { matcher: disks, ..route("disks") },
        route("email"),
    ];
    let mut scene = Scene::new(policy);
    scene.raise("router_down", "router", Critical);
    scene.raise("disk_low", "disk./", Warning);
    scene.raise("channel_down", "channel.email", Critical);
    scene.pass(MINUTE);
    scene.end("router_down", "router");
    scene.end("channel_down", "channel.email");
    scene.pass(HOUR / 2);
    let told = |channel: &str| -> Vec<String> {
        let notes = scene.told.iter().filter(|(_, name, _)| name == channel);
        notes.map(|(ms, _, note)| format!("{} {}", ms / SECOND, note.title())).collect()
    };
    assert_eq!(told("pager"), ["5 Lodestar: CRITICAL: 2 firing"]);
    assert_eq!(told("disks"), ["30 Lodestar: warning: disk./ firing"]);
    let expected = ["5 Lodestar: CRITICAL: 2 firing", "305 Lodestar: router resolved"];
    assert_eq!(told("email"), expected);
}

#[test]
fn a_restart_tells_nothing_twice_and_forgets_nothing() {
    let mut scene = Scene::new(policy());
    scene.raise("a", "told", Critical);
    scene.pass(10 * SECOND);
    scene.raise("a", "pending", Warning);
    scene.step();
    assert_eq!(scene.told(), ["5: firing told"]);
    scene.restart(policy(), 10 * MINUTE);
    // One ended and one began while nothing ran.
    scene.pass(MINUTE);
    assert_eq!(scene.told(), ["610: firing pending"]);
    scene.end("a", "told");
    scene.waiting.clear();
    scene.raise("a", "missed", Warning);
    scene.waiting.clear();
    scene.restart(policy(), MINUTE);
    scene.pass(HOUR / 2);
    assert_eq!(scene.told(), ["735: firing missed, resolved told"]);
}

#[derive(Debug, Clone)]
enum Act {
    Raise(usize, bool),
    End(usize),
    Pass(u64),
    Silence(usize, u64),
    Restart(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..8_usize, any::<bool>()).prop_map(|(which, critical)| Act::Raise(which, critical)),
        3 => (0..8_usize).prop_map(Act::End),
        6 => (1..40_u64).prop_map(|s| Act::Pass(s * 15 * SECOND)),
        1 => (0..8_usize, 1..30_u64).prop_map(|(which, m)| Act::Silence(which, m * MINUTE)),
        1 => (0..10_u64).prop_map(|m| Act::Restart(m * MINUTE)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_and_nothing_told_twice(acts in proptest::collection::vec(act(), 1..60)) {
        let policy =
            || Policy { critical_reminder_ms: None, warning_reminder_ms: None, ..policy() };
        let mut scene = Scene::new(policy());
        // Troubles that fired for long enough, and were neither silenced nor hidden.
        let mut owed: BTreeSet<String> = BTreeSet::new();
        let mut silenced: BTreeSet<usize> = BTreeSet::new();
        let name = |which: usize| format!("component{which}");
        for act in acts {
            match act {
                Act::Raise(which, is_critical) => {
                    let rule = if is_critical { "critical" } else { "warning" };
                    let severity = if is_critical { Critical } else { Warning };
                    if !scene.firing.contains_key(&(rule.to_owned(), name(which))) {
                        scene.raise(rule, &name(which), severity);
                    }
                }
                Act::End(which) => {
                    for rule in ["critical", "warning"] {
                        if scene.firing.contains_key(&(rule.to_owned(), name(which))) {
                            scene.end(rule, &name(which));
                        }
                    }
                }
                Act::Pass(ms) => {
                    let fired: Vec<_> = scene.firing.keys().cloned().collect();
                    scene.pass(ms);
                    if ms >= 5 * MINUTE + 30 * SECOND {
                        for (rule, component) in fired {
                            let cause = ("critical".to_owned(), component.clone());
                            let is_hidden = rule == "warning" && scene.firing.contains_key(&cause);
                            let mut silenced = silenced.iter().map(|which| name(*which));
                            if !is_hidden && !silenced.any(|name| name == component) {
                                owed.insert(format!("{rule} {component}"));
                            }
                        }
                    }
                }
                Act::Silence(which, ms) => {
                    scene.silences = vec![name(which).parse().expect("it is a matcher")];
                    silenced.insert(which);
                    scene.pass(ms);
                    scene.silences.clear();
                    silenced.remove(&which);
                }
                Act::Restart(down_ms) => {
                    scene.step();
                    if let Some(saved) = scene.notifier.save(moment(scene.now_ms)) {
                        scene.now_ms += down_ms;
                        let firing: Vec<Alert> = scene.firing.values().cloned().collect();
                        let now = moment(scene.now_ms);
                        scene.notifier = Notifier::resume(policy(), &saved, &firing, now)
                            .expect("it is read");
                    }
                }
            }
        }
        for (rule, component) in scene.firing.keys().cloned().collect::<Vec<_>>() {
            scene.end(&rule, &component);
        }
        scene.pass(3 * HOUR);
        // Never more than the cap within an hour.
        for (index, (at, ..)) in scene.told.iter().enumerate() {
            let within = scene.told[index..].iter().take_while(|(later, ..)| later - at < HOUR);
            prop_assert!(within.count() <= 6);
        }
        let mut last: BTreeMap<String, News> = BTreeMap::new();
        for (_, _, note) in &scene.told {
            for item in &note.items {
                let key = format!("{} {}", item.alert.name, item.alert.component);
                owed.remove(&key);
                let before = last.insert(key.clone(), item.news);
                // One note per trouble and one for its end; a digest may tell of both at once.
                let is_right = match item.news {
                    News::Firing => matches!(before, None | Some(News::Resolved | News::Flapping)),
                    News::Flapping => before != Some(News::Flapping),
                    News::Resolved => before != Some(News::Resolved) || note.kind == Kind::Digest,
                    News::Reminder | News::Test => false,
                };
                prop_assert!(is_right, "{key}: {before:?} and then {:?}", item.news);
            }
        }
        prop_assert!(owed.is_empty(), "never told: {owed:?}");
        for (key, news) in last {
            prop_assert_eq!(news, News::Resolved, "the end of {} was not told", key);
        }
    }
}

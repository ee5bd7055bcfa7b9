//! Notifications: from an alert to a receiver, over failures and restarts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use health_monitor::{
    HealthMonitor,
    alert::{Alert, Transition},
    notify::{Notify, options::NotifyOptions},
    rule::RuleSet,
    store::Store,
    time::Moment,
};
use module_sdk::{
    ErrorKind, Host,
    events::AlertSeverity,
    jiff::{Timestamp, ToSpan as _},
    testing::{Bench, FakeHost},
};
use serde_json::{Value, json};

use crate::receiver::{Answer, Receiver, wait_until};

/// Everything that tells, without the checks: alerts begin and end as the test wants.
struct Scene {
    fake: Arc<FakeHost>,
    host: Host,
    store: Store,
    notify: Notify,
    options: NotifyOptions,
    rules: RuleSet,
    firing: BTreeMap<String, Alert>,
    waiting: Vec<Transition>,
    second: u64,
    /// Second at which the steady clock began.
    started: u64,
}

impl Scene {
    fn new(directory: &Path, notify: Value) -> Self {
        let options: NotifyOptions = serde_json::from_value(notify).expect("it has the form");
        let fake = Arc::new(FakeHost::new(directory));
        let host = fake.host().expect("it tells about itself");
        let mut store = Store::open(Store::options(directory, None)).expect("it opens");
        let notify = Notify::start(&options, &host, &mut store, &[], at(0, 0)).expect("it starts");
        Self {
            fake,
            host,
            store,
            notify,
            options,
            rules: RuleSet::new(&BTreeMap::new()).expect("the shipped rules are valid"),
            firing: BTreeMap::new(),
            waiting: Vec::new(),
            second: 0,
            started: 0,
        }
    }

    fn now(&self) -> Moment {
        at(self.second, self.started)
    }

    fn raise(&mut self, component: &str, severity: AlertSeverity) {
        let alert = Alert {
            id: format!("made_up-{component}-{}", self.second),
            name: "made_up".into(),
            severity,
            component: component.into(),
            labels: [("component".to_owned(), component.to_owned())].into(),
            message: format!("{component} is in trouble."),
            value: None,
            since: self.now().at,
        };
        self.firing.insert(component.to_owned(), alert.clone());
        self.waiting.push(Transition::Raised(alert));
    }

    fn end(&mut self, component: &str) {
        let alert = self.firing.remove(component).expect("it fires");
        self.waiting.push(Transition::Resolved(alert, self.now().at));
    }

    /// Lets time pass, second by second, as the module does; what is on its way arrives meanwhile.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            let now = self.now();
            let transitions = std::mem::take(&mut self.waiting);
            self.notify.step(&transitions, &self.rules, now);
            let notify = &self.notify;
            let also = |it: &module_sqlite::rusqlite::Connection| notify.write(it, now);
            self.store.record(&transitions, Some(&also)).expect("it is written");
            self.notify.written();
            self.notify.send(now);
            wait_until("what is on its way arrives", || self.notify.couriers().is_quiet());
            self.second += 1;
        }
    }

    /// Ends at once, as `kill -9` does, and starts again after a time.
    fn restart(&mut self, seconds: u64) {
        self.second += seconds;
        self.started = self.second;
        self.notify.stop();
        self.store.close().expect("it closes");
        self.store = Store::open(Store::options(self.fake_dir(), None)).expect("it opens");
        let firing = self.store.firing().expect("it is read");
        let now = self.now();
        self.notify = Notify::start(&self.options, &self.host, &mut self.store, &firing, now)
            .expect("it starts");
    }

    fn fake_dir(&self) -> &Path {
        self.host.data_dir()
    }
}

fn at(second: u64, started: u64) -> Moment {
    let start: Timestamp = "2026-11-20T10:00:00Z".parse().expect("a time");
    Moment {
        at: start + i64::try_from(second).expect("it is short").seconds(),
        steady_ms: (second - started) * 1_000,
    }
}

fn webhook(receiver: &Receiver) -> Value {
    json!({"channels": {
        "ops": {"kind": "webhook", "url": receiver.url(), "local": true},
    }})
}

/// Returns `news component` of every alert that the receiver has, each note once.
fn told(receiver: &Receiver) -> Vec<String> {
    let mut notes = BTreeSet::new();
    let mut told = Vec::new();
    for received in receiver.received().into_iter().filter(|it| matches!(it.answered, 0 | 200)) {
        let is_new = notes.insert(received.body["id"].to_string());
        let alerts = received.body["alerts"].as_array().cloned().unwrap_or_default();
        for alert in alerts.iter().filter(|_| is_new) {
            let word = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
            told.push(format!("{} {}", word("news"), word("component")));
        }
    }
    told
}

#[test]
fn a_webhook_that_is_down_for_an_hour_loses_nothing_and_sends_nothing_twice() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let receiver = Receiver::start();
    // How long the retries wait is left to chance, so that a reminder may become due or not.
    let mut notify = webhook(&receiver);
    notify["reminders"] = json!({"critical": "0s", "warning": "0s"});
    let mut scene = Scene::new(directory.path(), notify);
    scene.raise("one", AlertSeverity::Critical);
    scene.pass(60);
    assert_eq!(told(&receiver), ["firing one"]);

    receiver.answer(Answer::Status(503, ""));
    scene.raise("two", AlertSeverity::Critical);
    scene.pass(900);
    let attempts = receiver.received().len();
    assert!((8..20).contains(&attempts), "it is asked less and less: {attempts}");
    scene.end("one");
    scene.pass(900);
    scene.restart(60);
    scene.raise("three", AlertSeverity::Warning);
    scene.pass(900);
    // The receiver takes it, and the answer is lost: the same note comes again.
    receiver.answer(Answer::Lost);
    let before = receiver.received().len();
    while receiver.received().len() == before {
        scene.pass(1);
    }
    receiver.answer(Answer::Status(503, ""));
    scene.pass(600);
    assert_eq!(told(&receiver), ["firing one", "firing two"]);

    receiver.answer(Answer::Status(200, ""));
    scene.end("two");
    scene.end("three");
    scene.pass(900);
    let expected = [
        "firing one",
        "firing two",
        "resolved one",
        "firing three",
        "resolved two",
        "resolved three",
    ];
    assert_eq!(told(&receiver), expected);
    // What the receiver took has an id of its own, which it was given each time.
    let mut taken = BTreeSet::new();
    for received in receiver.received() {
        let key = received.header("idempotency-key").expect("it has a key").to_owned();
        assert_eq!(received.body["id"], key);
        if received.answered == 200 {
            assert!(taken.insert(key), "nothing is sent again that was taken");
        }
    }
    let metrics = scene.fake.metrics();
    let delivered = r#"lodestar_notifications_total{"channel":"ops","result":"sent"}"#;
    assert_eq!(metrics[delivered], 5.0, "{metrics:?}");
}

#[test]
fn one_channel_that_hangs_delays_no_other() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let receiver = Receiver::start();
    let mut options = webhook(&receiver);
    options["channels"]["hanging"] = json!({
        "kind": "command", "program": "/bin/sleep", "args": ["1000"], "deadline": "60s",
    });
    let mut scene = Scene::new(directory.path(), options);
    scene.raise("one", AlertSeverity::Critical);
    let now = at(0, 0);
    let transitions = std::mem::take(&mut scene.waiting);
    scene.notify.step(&transitions, &scene.rules, now);
    let later = at(10, 0);
    scene.notify.step(&[], &scene.rules, later);
    scene.notify.send(later);
    wait_until("the note arrives", || !told(&receiver).is_empty());
    assert!(!scene.notify.couriers().is_quiet(), "the other one hangs");
    scene.notify.stop();
}

#[test]
fn a_dead_channel_is_seen() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let receiver = Receiver::start();
    receiver.answer(Answer::Status(302, "location: http://169.254.169.254/latest\r\n"));
    let mut scene = Scene::new(directory.path(), webhook(&receiver));
    scene.raise("one", AlertSeverity::Critical);
    scene.pass(10);
    let report = scene.notify.report();
    assert_eq!(report.found.len(), 1, "the log is not among them");
    assert_eq!(&*report.found[0].component, "channel.ops");
    let message = &report.found[0].message;
    assert!(message.starts_with("1 note waits; the last attempt: the server redirects to "));
    assert!(message.contains("169.254.169.254"), "{message}");
}

/// Returns a configuration with a rule that fires at once on any machine.
fn config(notify: Value) -> Value {
    // This machine, and the daemon that is none, must raise no alert of their own.
    let off = json!({"enabled": false});
    json!({
        "checks": {
            "clock": off, "cost": off, "databases": off, "disk": off, "gpu": off, "modules": off,
            "pressure": off, "providers": off, "router": off,
        },
        "interval_ms": 100,
        "notify": notify,
        "rules": {"any_memory": {
            "metric": "system_memory_utilization_ratio", "above": 0, "severity": "critical",
            "message": "{component} is in use.",
        }},
    })
}

/// Lets a second pass, of two minutes at most: a receiver takes real time, within which a reminder
/// must not become due. Then only what has come is taken.
fn pass(bench: &mut Bench<HealthMonitor>, seconds: &mut u32) {
    *seconds += 1;
    if *seconds <= 120 {
        bench.advance(Duration::from_secs(1)).expect("no timer fails");
    } else {
        bench.command("alerts", json!({})).expect("it answers");
    }
}

/// Waits until the alert of [`config`] fires; returns its id.
fn firing(bench: &mut Bench<HealthMonitor>) -> String {
    let mut id = None;
    wait_until("the alert fires", || {
        let alerts = bench.command("alerts", json!({})).expect("it answers").data;
        id = alerts[0]["id"].as_str().map(str::to_owned);
        id.is_some()
    });
    id.expect("it fires")
}

#[test]
fn an_alert_reaches_the_log_and_the_webhook() {
    let receiver = Receiver::start();
    let mut bench = Bench::<HealthMonitor>::start(config(webhook(&receiver))).expect("it starts");
    firing(&mut bench);
    let logged = |bench: &Bench<HealthMonitor>| {
        let logged = bench.host().logged();
        logged.iter().filter(|it| it.message == "[critical] memory is in use.").count()
    };
    let mut seconds = 0;
    wait_until("it is told", || {
        pass(&mut bench, &mut seconds);
        logged(&bench) >= 1 && !told(&receiver).is_empty()
    });
    assert_eq!((logged(&bench), told(&receiver)), (1, vec!["firing memory".to_owned()]));
    bench.advance(Duration::from_secs(600)).expect("no timer fails");
    assert_eq!((logged(&bench), told(&receiver).len()), (1, 1), "once");
    bench.stop().expect("it stops");
}

#[test]
fn what_is_silenced_is_not_told_until_the_silence_ends() {
    let receiver = Receiver::start();
    let mut bench = Bench::<HealthMonitor>::start(config(webhook(&receiver))).expect("it starts");
    let silence = json!({"match": "memory", "for": "2h", "comment": "we know\u{1b}[31m"});
    let silence = bench.command("silence", silence).expect("it is silenced").data;
    assert_eq!(silence["comment"], "we know\\u{1b}[31m");
    firing(&mut bench);
    bench.advance(Duration::from_secs(3_600)).expect("no timer fails");
    assert!(receiver.received().is_empty());
    let list = bench.command("silence", json!({"list": true})).expect("it answers").data;
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    let end = json!({"end": silence["id"]});
    bench.command("silence", end.clone()).expect("it ends");
    let error = bench.command("silence", end).expect_err("it has ended");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let mut seconds = 0;
    wait_until("it is told", || {
        pass(&mut bench, &mut seconds);
        told(&receiver) == ["firing memory"]
    });
    for wrong in [json!({"match": "memory"}), json!({"match": ",", "for": "1h"})] {
        let error = bench.command("silence", wrong).expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
}

#[test]
fn an_acknowledged_alert_is_not_told_again() {
    let receiver = Receiver::start();
    let mut bench = Bench::<HealthMonitor>::start(config(webhook(&receiver))).expect("it starts");
    let id = firing(&mut bench);
    let error = bench.command("ack", json!({"id": "nothing"})).expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let reply = bench.command("ack", json!({"id": "any_memory", "by": "Ada"})).expect("it is one");
    assert_eq!(reply.data, json!({"id": id, "acknowledged_by": "Ada"}));
    let mut seconds = 0;
    wait_until("it is told", || {
        pass(&mut bench, &mut seconds);
        told(&receiver).len() == 1
    });
    bench.advance(Duration::from_secs(3 * 3_600)).expect("no timer fails");
    assert_eq!(told(&receiver), ["firing memory"], "no reminder");
    let history = bench.command("history", json!({})).expect("it answers").data;
    assert_eq!(history[0]["acknowledged_by"], "Ada");
}

#[test]
fn a_test_shows_which_channels_work() {
    let (works, refuses) = (Receiver::start(), Receiver::start());
    refuses.answer(Answer::Status(401, ""));
    let mut options = webhook(&works);
    options["channels"]["broken"] =
        json!({"kind": "webhook", "secret_url": refuses.url(), "local": true});
    options["channels"]["desk"] = json!({"kind": "desktop", "program": "/nowhere/notify-send"});
    options["channels"]["metadata"] =
        json!({"kind": "webhook", "url": "http://169.254.169.254/", "local": true});
    options["channels"]["near"] = json!({"kind": "webhook", "url": works.url()});
    let mut bench = Bench::<HealthMonitor>::start(config(options)).expect("it starts");
    let reply = bench.command("test-notify", json!({})).expect("it answers");
    assert_eq!(reply.exit_code, 1);
    let outcome = |name: &str| {
        let all = reply.data.as_array().expect("it is a list");
        let own = all.iter().find(|it| it["channel"] == name).expect("it is in it");
        own["error"].as_str().unwrap_or("delivered").to_owned()
    };
    assert_eq!(outcome("ops"), "delivered");
    assert_eq!(outcome("log"), "delivered");
    assert_eq!(outcome("broken"), "the server answers 401");
    assert_eq!(outcome("desk"), "notify-send is not installed; install the package libnotify-bin");
    for name in ["metadata", "near"] {
        assert!(outcome(name).contains("is not asked"), "{}", outcome(name));
    }
    assert!(!reply.data.to_string().contains("/hook"), "no address is shown");
    assert_eq!(works.received()[0].body["kind"], "test");
    let reply = bench.command("test-notify", json!({"channel": "ops"})).expect("it answers");
    assert_eq!((reply.exit_code, reply.data.as_array().map(Vec::len)), (0, Some(1)));
    let error = bench.command("test-notify", json!({"channel": "osp"})).expect_err("no such");
    assert!(error.to_string().contains("`ops`"), "{error}");
}

#[test]
fn a_channel_that_cannot_be_is_refused_with_its_key() {
    let check = |channel: Value, expected: &str| {
        let config = config(json!({"channels": {"ops": channel}}));
        let error = Bench::<HealthMonitor>::start(config).expect_err(expected).to_string();
        assert!(error.contains(expected) && !error.contains("canary"), "{error}");
    };
    check(
        json!({"kind": "webhook", "format": "slack", "url": "https://x/canary"}),
        "notify.channels.ops.url",
    );
    check(json!({"kind": "email", "host": "mail.example"}), "notify.channels.ops.to");
    check(json!({"kind": "command", "program": "notify.sh"}), "notify.channels.ops.program");
    check(json!({"kind": "webhook", "url": "https://x", "formt": "slack"}), "formt");
    check(json!({"kind": "pigeon"}), "pigeon");
}

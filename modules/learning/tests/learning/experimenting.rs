//! Experiments with simulated sessions: what the router is told, and what ends one.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use learning::{
    Learning,
    experiment::{Arm, arm},
};
use module_sdk::{
    Error, ErrorKind, Reply,
    events::{LlmFeedbackGiven, LlmRequestCompleted, RequestSource, RequestStatus},
    testing::{Bench, FakeHost},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    common::{NOW, refused, run},
    versions::{FakeOllama, config, train},
};

/// A router that notes what it is told.
#[derive(Clone, Default)]
pub(crate) struct FakeRouter {
    told: Arc<Mutex<Vec<Value>>>,
    is_away: Arc<Mutex<bool>>,
}

impl FakeRouter {
    pub(crate) fn on(&self, host: &FakeHost) {
        let this = self.clone();
        host.answer("router", "experiments", move |args, _| {
            if *this.is_away.lock().expect("no test panics with it") {
                return Err(Error::unavailable("it is not there"));
            }
            this.told.lock().expect("no test panics with it").push(args);
            Reply::json(&json!({}))
        });
    }

    fn told(&self, action: &str) -> Vec<Value> {
        let told = self.told.lock().expect("no test panics with it");
        told.iter().filter(|args| args["action"] == action).cloned().collect()
    }

    /// Waits until the router was told something of an experiment so often.
    fn heard(&self, action: &str, id: &str, times: usize) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.told(action).iter().filter(|args| args["id"] == id).count() < times {
            assert!(Instant::now() < end, "{action} {id}: {:?}", self.told(action));
            std::thread::yield_now();
        }
    }
}

struct Site {
    bench: Bench<Learning>,
    router: FakeRouter,
    server: FakeOllama,
    version: String,
    sessions: u32,
}

fn open(directory: &Path, server: &FakeOllama, router: &FakeRouter) -> Bench<Learning> {
    let host = Arc::new(FakeHost::new(directory));
    host.set_now(NOW.parse().expect("a time"));
    router.on(&host);
    host.set_providers(json!({
        "home": {"base_url": server.base_url, "api": "ollama", "local": true},
    }));
    let mut config = config(Some(server));
    config["experiments"] = json!({"outcome_seconds": 2});
    Bench::start_on(host, config).expect("it starts")
}

impl Site {
    /// Starts with a version that passed its gates.
    fn start(directory: &Path) -> Self {
        let (server, router) = (FakeOllama::start(), FakeRouter::default());
        let mut bench = open(directory, &server, &router);
        let version = train(&mut bench);
        run(&mut bench, "gates", json!({"version": version}));
        Self { bench, router, server, version, sessions: 0 }
    }

    fn begin(&mut self, more: Value) -> Value {
        let mut args = json!({
            "action": "start", "id": self.version, "share": 50, "margin": 0.1, "by": "ada",
            "reason": "is it as good",
        });
        let all = args.as_object_mut().expect("an object");
        all.extend(more.as_object().expect("an object").clone());
        run(&mut self.bench, "experiments", args)
    }

    fn status(&mut self, id: &str) -> Value {
        run(&mut self.bench, "experiments", json!({"action": "status", "id": id}))
    }

    fn state(&mut self) -> Value {
        let args = json!({"action": "show", "id": self.version});
        run(&mut self.bench, "versions", args)["state"].clone()
    }

    /// Lets a number of new sessions ask once, each in its arm, and returns their reports.
    fn ask(&mut self, id: &str, number: u32, fails: impl Fn(Arm, u32) -> bool) {
        let at = self.bench.host().now().as_millisecond();
        let reports: Vec<LlmRequestCompleted> = (self.sessions..self.sessions + number)
            .map(|session| {
                let name = format!("session-{session}");
                let arm = arm(id, &name, 50);
                let status =
                    if fails(arm, session) { RequestStatus::Error } else { RequestStatus::Ok };
                LlmRequestCompleted { status: Some(status), ..report(id, &name, arm, at) }
            })
            .collect();
        self.sessions += number;
        let (handled, result) = self.bench.send_all(&reports);
        result.expect("they are handled");
        assert_eq!(handled, reports.len());
    }

    /// Lets sessions ask, and their outcomes be counted, until the experiment has ended.
    fn run(&mut self, id: &str, fails: impl Fn(Arm, u32) -> bool) -> Value {
        for _ in 0..60 {
            self.ask(id, 50, &fails);
            self.bench.advance(Duration::from_secs(3)).expect("timers run");
            let status = self.status(id);
            if !status["ended_at"].is_null() {
                return status;
            }
        }
        panic!("it does not end: {:#}", self.status(id));
    }
}

fn report(id: &str, session: &str, arm: Arm, at: i64) -> LlmRequestCompleted {
    let side = if arm == Arm::Challenger { "variant" } else { "control" };
    LlmRequestCompleted {
        schema: 1,
        source: Some(RequestSource::Gateway),
        source_ref: Some(format!("request of {session}")),
        dedupe_key: format!("gateway:{session}"),
        session_id: Some(session.to_owned()),
        variant: Some(format!("{id}:{side}")),
        status: Some(RequestStatus::Ok),
        duration_ms: Some(900 + u32::try_from(session.len()).expect("it is short")),
        started_at: at - 900,
        ended_at: at,
        ..LlmRequestCompleted::default()
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

#[test]
fn an_equal_challenger_passes_and_nothing_is_promoted() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut site = Site::start(directory.path());
    let begun = site.begin(json!({}));
    let id = text(&begun["id"]);
    assert_eq!((&begun["state"], &begun["trouble"]), (&json!("ab_running"), &Value::Null));
    assert_eq!(site.state(), "ab_running");
    site.router.heard("begin", &id, 2);
    let told = site.router.told("begin");
    assert_eq!((&told[0]["dry_run"], &told[1]["dry_run"]), (&json!(true), &Value::Null));
    // At the provider that leads to its server, and at no other one.
    assert_eq!(told[1]["use"], json!([format!("home/lodestar:{}", site.version)]), "{told:#?}");
    assert_eq!((&told[1]["share"], &told[1]["salt"]), (&json!(0.5), &json!(id)));
    let models = told[1]["models"].as_array().expect("patterns");
    assert!(models.contains(&json!("llama3.2:1b")), "the base answers alone: {models:?}");
    let again = json!({"action": "start", "id": site.version, "reason": "twice"});
    let error = refused(&mut site.bench, "experiments", again);
    assert!(error.contains("`experiment` is not possible"), "{error}");

    let ended = site.run(&id, |_, session| session % 20 == 0);
    assert_eq!(ended["state"], "ab_passed", "{ended:#}");
    assert!(ended["p_value"].as_f64().is_some_and(|p| p <= 0.05), "{ended:#}");
    assert_eq!(site.state(), "ab_passed");
    site.router.heard("end", &id, 1);
    // It serves nobody: a person approves and deploys it, or not.
    let shown = json!({"action": "show", "id": site.version});
    let shown = run(&mut site.bench, "versions", shown);
    assert_eq!((&shown["alias"], &shown["approval"]), (&Value::Null, &Value::Null), "{shown:#}");
    assert_eq!(site.server.served(), None);
    let version = json!({"version": site.version});
    let error = site.bench.command("deploy", version).expect_err("nobody approved it");
    assert_eq!(error.kind(), ErrorKind::Refused);
    let audit = run(&mut site.bench, "audit", json!({}));
    assert_eq!(audit["intact"], true, "{audit:#}");
    let list = run(&mut site.bench, "experiments", json!({}));
    assert_eq!((&list[0]["id"], &list[0]["state"]), (&json!(id), &json!("ab_passed")));
    assert!(list[0]["created_at"].is_string(), "{list:#}");
}

#[test]
fn a_worse_challenger_and_one_that_fails_are_stopped() {
    for (more, reason, verdict) in [
        (json!({"guardrail": ["error=0.5"]}), "worse than the champion", "worse"),
        (json!({"guardrail": ["error=0.05"]}), "exceeded: error", "guardrail"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut site = Site::start(directory.path());
        let id = text(&site.begin(more)["id"]);
        let fails = |arm: Arm, session: u32| arm == Arm::Challenger && session.is_multiple_of(2);
        let ended = site.run(&id, fails);
        assert_eq!(ended["state"], "ab_failed", "{ended:#}");
        assert_eq!(ended["verdict"], verdict, "{ended:#}");
        assert!(text(&ended["end_reason"]).contains(reason), "{ended:#}");
        site.router.heard("end", &id, 1);
        assert_eq!(site.state(), "ab_failed");
        let approve = json!({"version": site.version, "reason": "all the same", "by": "ada"});
        let error = refused(&mut site.bench, "approve", approve);
        assert!(error.contains("while the version is ab_failed"), "{error}");
        // What comes later changes nothing.
        let before = site.status(&id);
        site.ask(&id, 50, |_, _| false);
        assert_eq!(site.status(&id), before);
    }
}

#[test]
fn a_wrong_ratio_ends_it_without_an_answer() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut site = Site::start(directory.path());
    let id = text(&site.begin(json!({}))["id"]);
    let at = site.bench.host().now().as_millisecond();
    let reports: Vec<LlmRequestCompleted> =
        (0..500).map(|session| report(&id, &format!("s{session}"), Arm::Champion, at)).collect();
    site.bench.send_all(&reports).1.expect("they are handled");
    let found = Instant::now();
    site.router.heard("end", &id, 1);
    assert!(found.elapsed() < Duration::from_secs(1), "{:?}", found.elapsed());
    let ended = site.status(&id);
    assert_eq!(
        (&ended["state"], &ended["verdict"]),
        (&json!("inconclusive"), &json!("wrong_ratio"))
    );
    site.router.heard("end", &id, 1);
    assert_eq!(site.state(), "inconclusive");
}

#[test]
fn it_goes_on_after_a_restart_and_counts_nothing_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut site = Site::start(directory.path());
    // The id, and with it the draw, is another one each time: by chance a usual level finds an
    // answer within forty sessions, and an arm gets few of them.
    let id = text(&site.begin(json!({"alpha": 0.0001}))["id"]);
    let at = site.bench.host().now().as_millisecond();
    let of = |wanted: Arm| {
        let names = (0..).map(|session| format!("s{session}"));
        names.filter(|name| arm(&id, name, 50) == wanted).take(20).collect::<Vec<_>>()
    };
    let (champion, challenger) = (of(Arm::Champion), of(Arm::Challenger));
    let pairs = champion.into_iter().zip(challenger);
    let names: Vec<String> = pairs.flat_map(|(one, other)| [one, other]).collect();
    let reports: Vec<LlmRequestCompleted> =
        names.iter().map(|name| report(&id, name, arm(&id, name, 50), at)).collect();
    let given: Vec<LlmFeedbackGiven> = names
        .iter()
        .enumerate()
        .map(|(index, name)| LlmFeedbackGiven {
            schema: 1,
            session_id: Some(name.clone()),
            good: Some(index % 4 != 0),
            origin: "person".to_owned(),
            at,
            ..LlmFeedbackGiven::default()
        })
        .collect();
    let ids: Vec<Uuid> = given.iter().map(|_| Uuid::now_v7()).collect();
    site.bench.send_all(&reports).1.expect("they are handled");
    let Site { bench, router, server, .. } = site;
    let begun = router.told("begin").len();
    drop(bench);
    let mut bench = open(directory.path(), &server, &router);
    router.heard("begin", &id, begun + 1);
    for _ in 0..2 {
        bench.send_all(&reports).1.expect("they are handled");
        bench.send_with_ids(&given, &ids).1.expect("they are handled");
    }
    let args = json!({"action": "status", "id": id});
    let status = run(&mut bench, "experiments", args.clone());
    let assigned = |status: &Value| {
        let of = |arm: &str| status["assigned"][arm].as_u64().expect("a number");
        of("champion") + of("challenger")
    };
    assert_eq!((assigned(&status), &status["waiting"]), (40, &json!(40)), "{status:#}");
    bench.advance(Duration::from_secs(6)).expect("timers run");
    bench.send_all(&reports).1.expect("they are handled");
    let status = run(&mut bench, "experiments", args);
    assert_eq!((&status["units"], &status["waiting"]), (&json!(40), &json!(0)), "{status:#}");
    let sum = |key: &str| {
        let of = |arm: &str| status["outcomes"][arm][key].as_u64().expect("a number");
        of("champion") + of("challenger")
    };
    assert_eq!((sum("good"), sum("all")), (30, 40), "{status:#}");
}

#[test]
fn a_person_stops_one_and_the_router_hears_it_though_it_was_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut site = Site::start(directory.path());
    let id = text(&site.begin(json!({}))["id"]);
    let stop = json!({"action": "stop", "id": id, "reason": "enough", "by": "ada"});
    let unknown = json!({"action": "stop", "id": "v9-000000", "reason": "enough"});
    let error = site.bench.command("experiments", unknown).expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let unsaid = json!({"action": "stop", "id": id});
    assert!(refused(&mut site.bench, "experiments", unsaid).contains("say why"));
    let hidden = json!({"action": "stop", "id": id, "reason": "a\nb", "by": "ada"});
    assert!(refused(&mut site.bench, "experiments", hidden).contains("the reason"));
    assert_eq!(site.state(), "ab_running");

    *site.router.is_away.lock().expect("no test panics with it") = true;
    let error = refused(&mut site.bench, "experiments", stop.clone());
    assert!(error.contains("has ended"), "{error}");
    assert_eq!(site.state(), "inconclusive");
    assert!(site.router.told("end").is_empty());
    *site.router.is_away.lock().expect("no test panics with it") = false;
    site.bench.advance(Duration::from_secs(2)).expect("timers run");
    site.router.heard("end", &id, 1);
    let error = refused(&mut site.bench, "experiments", stop);
    assert!(error.contains("has ended"), "{error}");
    let log = run(&mut site.bench, "audit", json!({"limit": 1}));
    assert_eq!(log["last"][0]["reason"], "enough", "{log:#}");
    assert_eq!(log["last"][0]["actor"], "person:ada", "{log:#}");
}

#[test]
fn a_version_in_an_experiment_or_after_it_is_led_on() {
    for is_worse in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut site = Site::start(directory.path());
        let id = text(&site.begin(json!({}))["id"]);
        if is_worse {
            site.run(&id, |arm, session| arm == Arm::Challenger && session.is_multiple_of(2));
        }
        let done = crate::advice::follow(&mut site.bench, &site.version, &id);
        let first = if is_worse { "gates" } else { "experiments" };
        assert!(done[0].starts_with(first), "{done:#?}");
        assert_eq!(site.state(), "deployed");
    }
}

#[test]
fn what_makes_no_sense_is_refused_or_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut site = Site::start(directory.path());
    let version = site.version.clone();
    let mut check = |change: Value, words: &str| {
        let mut args = json!({"action": "start", "id": version, "reason": "why not", "by": "ada"});
        let all = args.as_object_mut().expect("an object");
        all.extend(change.as_object().expect("an object").clone());
        let error = refused(&mut site.bench, "experiments", args);
        assert!(error.contains(words), "{error}");
    };
    check(json!({"id": "v9"}), "v9");
    check(json!({"reason": " "}), "say why");
    check(json!({"share": 0}), "share");
    check(json!({"share": 60}), "it gets 50 % of the sessions at most");
    check(json!({"guardrail": ["speed=2"]}), "nothing is measured");
    check(json!({"by": "a\u{202e}b"}), "the name of the person");
    *site.router.is_away.lock().expect("no test panics with it") = true;
    let start = json!({"action": "start", "id": site.version, "reason": "why not"});
    let error = site.bench.command("experiments", start).expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("router"), "{error}");
    assert_eq!(site.state(), "gated", "nothing was begun");
    let error = site.bench.command("experiments", json!({"action": "status"}));
    assert_eq!(error.expect_err("there is none").kind(), ErrorKind::NotFound);

    // Text that it was learnt from is taken back in the middle.
    *site.router.is_away.lock().expect("no test panics with it") = false;
    let id = text(&site.begin(json!({}))["id"]);
    run(&mut site.bench, "forget", json!({"project": "shop"}));
    site.bench.advance(Duration::from_secs(12)).expect("timers run");
    let ended = site.status(&id);
    assert!(text(&ended["end_reason"]).contains("taken back"), "{ended:#}");
    site.router.heard("end", &id, 1);
}

#[test]
fn a_version_that_no_provider_leads_to_is_tried_on_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let site = Site::start(directory.path());
    let Site { bench, router, server, version, .. } = site;
    drop(bench);
    let host = Arc::new(FakeHost::new(directory.path()));
    host.set_now(NOW.parse().expect("a time"));
    router.on(&host);
    // It has a model of the same name, on another machine.
    let elsewhere = json!({"base_url": "http://127.0.0.1:9", "api": "ollama", "local": true});
    host.set_providers(json!({"home": elsewhere}));
    let mut bench: Bench<Learning> =
        Bench::start_on(host, config(Some(&server))).expect("it starts");
    let start = json!({"action": "start", "id": version, "reason": "why not"});
    let error = bench.command("experiments", start).expect_err("nobody would get it");
    assert_eq!(error.kind(), ErrorKind::Refused);
    for words in ["no provider leads to", &server.base_url, "lodestar modules reload router"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(router.told("begin").is_empty());
}

#[test]
fn a_shadow_is_compared_pair_by_pair_and_answers_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut site = Site::start(directory.path());
    let begun = site.begin(json!({"shadow": true, "guardrail": ["latency=1.2"], "most": 200}));
    let id = text(&begun["id"]);
    assert_eq!((&begun["state"], &begun["kind"]), (&json!("shadow"), &json!("shadow")));
    assert_eq!(site.state(), "shadow");
    site.router.heard("begin", &id, 2);
    let told = site.router.told("begin").pop().expect("it was told");
    assert!(told["use"].is_null() && told["shadow"].is_string(), "{told}");
    let at = site.bench.host().now().as_millisecond();
    for session in 0..60 {
        let name = format!("s{session}");
        let served = report(&id, &name, Arm::Champion, at);
        let beside = LlmRequestCompleted {
            variant: Some(format!("{id}:shadow")),
            session_id: None,
            duration_ms: Some(2_000 + session),
            ..served.clone()
        };
        site.bench.send(&served).expect("it is handled");
        site.bench.send(&beside).expect("it is handled");
    }
    let ended = site.status(&id);
    assert_eq!((&ended["state"], &ended["exceeded"]), (&json!("ended"), &json!("latency")));
    assert!(ended["pairs"].as_u64().is_some_and(|pairs| pairs >= 30), "{ended:#}");
    site.router.heard("end", &id, 1);
    assert_eq!(site.state(), "gated", "it can be tried again, or approved");
}

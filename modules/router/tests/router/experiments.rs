//! Experiments: requests that are asked beside an answer, which nobody gets.

use std::time::{Duration, Instant};

use module_sdk::events::LlmRequestCompleted;
use serde_json::{Value, json};

use crate::{
    gateway::{Answer, Gateway},
    upstream::{Act, End, Upstream, chat, chat_events, models},
};

struct Site {
    control: Upstream,
    shadow: Upstream,
    gateway: Gateway,
}

/// Starts a router whose experiment `x` asks `other/gpt-4o-mini` beside `cloud/gpt-4o`.
fn start(shadow: impl Fn() -> Act + Send + Sync + 'static, settings: Value) -> Site {
    let control = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ if asked.body.contains("\"stream\":true") => {
            Act::Stream("text/event-stream", chat_events(&["con", "trol"]), End::Good)
        }
        _ => chat("control"),
    });
    let shadow = Upstream::start(move |asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o-mini"]),
        _ => shadow(),
    });
    let providers = json!({
        "cloud": {"base_url": control.url(), "api": "openai", "key": "k", "models": ["gpt-4o"]},
        "other": {"base_url": shadow.url(), "api": "openai", "key": "s",
            "models": ["gpt-4o-mini"]},
    });
    let mut routing = json!({"experiments": [{"name": "x", "models": "gpt-4o", "share": 1,
        "shadow": "other/gpt-4o-mini"}]});
    for (key, value) in settings.as_object().expect("an object") {
        routing[key] = value.clone();
    }
    let gateway = Gateway::start(providers, json!({"routing": routing}));
    Site { control, shadow, gateway }
}

impl Site {
    /// Asks in a session that is on the side without the variant.
    fn ask(&self, stream: bool) -> Answer {
        let body = json!({"model": "gpt-4o", "stream": stream, "max_tokens": 50,
            "messages": [{"role": "user", "content": "canary-8814"}]});
        let headers = [
            ("x-lodestar-session", &*self.session()),
            ("x-lodestar-project", "shop"),
            ("authorization", "Bearer sk-of-the-client"),
        ];
        self.gateway.post_with("/v1/chat/completions", &headers, &body.to_string())
    }

    /// Returns a session on the side without the variant.
    fn session(&self) -> String {
        let body = json!({"model": "gpt-4o", "messages": []}).to_string();
        let is_control = |session: &String| {
            let headers = [("x-lodestar-session", session.as_str())];
            let decision = self.gateway.post_with("/v1/decision", &headers, &body).json();
            decision["variant"] == "x:control"
        };
        let mut sessions = (0..100).map(|number| number.to_string());
        sessions.find(is_control).expect("half of them are")
    }

    fn status(&mut self) -> Value {
        self.gateway.bench.command("status", json!({})).expect("it answers").data["shadows"].clone()
    }

    /// Waits until an outcome was counted so often.
    fn counted(&mut self, outcome: &str, times: u64) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.status()[outcome] != times {
            assert!(Instant::now() < end, "{outcome}: {}", self.status());
            std::thread::yield_now();
        }
    }
}

#[test]
fn another_model_is_asked_beside_the_answer_and_nobody_gets_what_it_says() {
    for stream in [false, true] {
        let mut site = start(|| chat("secret of the shadow"), json!({}));
        let answer = site.ask(stream);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains("trol") && !answer.body.contains("shadow"), "{answer:?}");
        assert!(!format!("{:?}", answer.headers).contains("other/"), "{:?}", answer.headers);
        let reports = site.gateway.reports(2);
        let is_shadow = |report: &&LlmRequestCompleted| report.upstream.as_deref() == Some("other");
        let shadow = reports.iter().find(is_shadow).expect("its report");
        assert_eq!(shadow.variant.as_deref(), Some("x:shadow"));
        assert_eq!(shadow.client.as_deref(), Some("lodestar"));
        assert_eq!((&shadow.session_id, &shadow.project), (&None, &None));
        assert!(shadow.cost_nano_usd > Some(0), "{shadow:?}");
        let answered = reports.iter().find(|report| !is_shadow(report)).expect("its report");
        assert_eq!(answered.variant.as_deref(), Some("x:control"));
        assert_eq!(answered.project.as_deref(), Some("shop"));

        let asked = &site.shadow.asked("/chat/completions")[0];
        assert_eq!(asked.header("authorization"), Some("Bearer s"));
        assert_eq!(asked.json()["model"], "gpt-4o-mini");
        assert_ne!(asked.json()["stream"], true, "it is asked for a whole answer");
        assert_eq!(asked.json()["messages"][0]["content"], "canary-8814");

        let id = answer.header("x-lodestar-request-id").expect("an id").to_owned();
        let end = Instant::now() + Duration::from_secs(20);
        let story = loop {
            let told = site.gateway.bench.command("explain", json!({"id": id}));
            let told = told.expect("a story").data;
            if told["shadows"][0].is_object() || Instant::now() > end {
                break told;
            }
            std::thread::yield_now();
        };
        assert_eq!(
            (&story["variant"], &story["shadow"]),
            (&json!("x:control"), &json!("other/gpt-4o-mini")),
            "{story:#}"
        );
        assert_eq!(story["shadows"][0]["variant"], "x:shadow", "{story:#}");
        assert_eq!(story["attempts"].as_array().map(Vec::len), Some(1), "{story:#}");
        // What the client is charged is the cost of its answer alone.
        let cost = module_sdk::Usd::from_nano(answered.cost_nano_usd.expect("it is known"));
        assert_eq!(story["cost_usd"], json!(cost), "{story:#}");
        let savings = site.gateway.bench.command("savings", json!({})).expect("sums").data;
        assert_eq!((&savings["requests"], &savings["shadows"]["requests"]), (&json!(1), &json!(1)));
        assert_eq!(savings["cost_usd"], json!(cost), "{savings:#}");
        assert_eq!(site.status()["asked"], 1);
        assert_eq!(site.control.asked("/chat/completions").len(), 1);
    }
}

#[test]
fn one_that_stood_in_for_the_model_is_not_asked_again() {
    let down = Upstream::start(|_| Act::Answer(500, vec![], "{}".to_owned()));
    let other = Upstream::start(|_| {
        Act::Stream("text/event-stream", chat_events(&["stood ", "in"]), End::Good)
    });
    let provider = |it: &Upstream, model: &str| {
        let models = [model];
        json!({"base_url": it.url(), "api": "openai", "key": "k", "models": models})
    };
    let gateway = Gateway::start(
        json!({"cloud": provider(&down, "gpt-4o"), "other": provider(&other, "gpt-4o-mini")}),
        json!({"retries": {"attempts": 0}, "routing": {
            "fallbacks": {"gpt-4o": "other/gpt-4o-mini"},
            "experiments": [{"name": "x", "models": "gpt-4o", "share": 1,
                "shadow": "other/gpt-4o-mini"}]}}),
    );
    let mut site = Site { control: down, shadow: other, gateway };
    let answer = site.ask(true);
    assert!(answer.body.contains("stood"), "{answer:?}");
    let id = answer.header("x-lodestar-request-id").expect("an id").to_owned();
    let end = Instant::now() + Duration::from_secs(20);
    // The story is told when the request is over, and with it what is asked beside it.
    while site.gateway.bench.command("explain", json!({"id": id})).is_err() {
        assert!(Instant::now() < end, "its story is told");
    }
    assert_eq!(site.status()["asked"], 0, "{}", site.status());
    assert_eq!(site.shadow.asked("/chat/completions").len(), 1);
}

#[test]
fn one_that_hangs_is_in_nobodys_way_and_further_ones_are_left_out() {
    let mut site = start(|| Act::Hang, json!({"shadows": {"in_flight": 1}}));
    for _ in 0..4 {
        assert_eq!(site.ask(false).status, 200);
    }
    site.counted("busy", 3);
    assert_eq!(site.status()["asked"], 1);
    assert!(site.shadow.asked("/chat/completions").len() <= 1);
}

#[test]
fn what_they_may_cost_is_bounded_and_no_part_of_the_clients_limits() {
    let mut site = start(|| chat("x"), json!({"shadows": {"usd_per_day": 0.0000001}}));
    site.ask(false);
    site.counted("budget", 1);
    assert!(site.shadow.asked("/chat/completions").is_empty());

    let control = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ => chat("control"),
    });
    let providers = json!({
        "cloud": {"base_url": control.url(), "api": "openai", "key": "k",
            "models": ["gpt-4o", "gpt-4o-mini"]},
    });
    let experiment = json!({"name": "x", "models": "gpt-4o", "share": 1,
        "shadow": "cloud/gpt-4o-mini"});
    let limit = json!({"requests_per_day": 1_000, "tokens_per_day": 1_000_000});
    let settings = json!({"routing": {"experiments": [experiment]},
        "quotas": {"all": limit, "anonymous": limit, "projects": {"shop": limit}}});
    let gateway = Gateway::start(providers, settings);
    let mut site = Site { shadow: Upstream::start(|_| Act::Close), control, gateway };
    site.ask(false);
    site.gateway.reports(2);
    let used = site.gateway.bench.command("status", json!({})).expect("it answers").data;
    let used = used["used"].as_array().expect("a list").clone();
    let of = |quantity: &str| used.iter().find(|it| it["quantity"] == quantity).cloned();
    assert_eq!(of("requests").expect("it is counted")["used"], 1, "{used:?}");
    assert_eq!(of("tokens").expect("it is counted")["used"], 120, "{used:?}");
}

#[test]
fn nobody_is_asked_beside_what_was_not_answered() {
    let failing = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ => Act::Answer(400, Vec::new(), json!({"error": {"message": "no"}}).to_string()),
    });
    let providers = json!({
        "cloud": {"base_url": failing.url(), "api": "openai", "key": "k",
            "models": ["gpt-4o", "gpt-4o-mini"]},
    });
    let experiment = json!({"name": "x", "models": "gpt-4o", "share": 1,
        "shadow": "cloud/gpt-4o-mini"});
    let gateway = Gateway::start(providers, json!({"routing": {"experiments": [experiment]}}));
    let mut site = Site { shadow: Upstream::start(|_| Act::Close), control: failing, gateway };
    assert_eq!(site.ask(false).status, 400);
    site.gateway.reports(1);
    let counts = site.status();
    assert!(counts.as_object().expect("counts").values().all(|count| *count == 0), "{counts}");
}

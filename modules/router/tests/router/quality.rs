//! Checks of local answers.

use module_sdk::events::LlmFeedbackGiven;
use serde_json::{Value, json};

use crate::{
    gateway::Gateway,
    upstream::{Act, End, Upstream, chat, chat_events, models},
};

struct Checked {
    _home: Upstream,
    cloud: Upstream,
    gateway: Gateway,
}

/// Starts a router with a local model that says `Paris.`, and a baseline model that says `paid`.
fn start(paid: &'static str, quality: Value) -> Checked {
    let home = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["small"]),
        _ if asked.body.contains("\"stream\":true") => {
            Act::Stream("text/event-stream", chat_events(&["Paris."]), End::Good)
        }
        _ => chat("Paris."),
    });
    let cloud = Upstream::start(move |asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ => chat(paid),
    });
    let providers = json!({
        "home": {"base_url": home.url(), "api": "openai", "local": true, "models": ["small"]},
        "cloud": {"base_url": cloud.url(), "api": "openai", "key": "k", "models": ["gpt-4o"]},
    });
    let settings = json!({"baseline_model": "gpt-4o", "quality": quality});
    Checked { _home: home, cloud, gateway: Gateway::start(providers, settings) }
}

impl Checked {
    fn ask(&self, stream: bool) -> String {
        self.ask_for("auto:cheap", stream)
    }

    fn ask_for(&self, model: &str, stream: bool) -> String {
        let body = json!({"model": model, "stream": stream, "max_tokens": 50,
            "messages": [{"role": "user", "content": "Which city? canary-6620"}]});
        let answer = self.gateway.post("/v1/chat/completions", &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("x-lodestar-request-id").expect("an id").to_owned()
    }

    /// Returns the feedback, as soon as it is there.
    fn feedback(&self) -> LlmFeedbackGiven {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let given: Vec<LlmFeedbackGiven> =
                self.gateway.bench.host().emitted_as().expect("it is feedback");
            if let Some(given) = given.into_iter().next() {
                return given;
            }
            assert!(std::time::Instant::now() < end, "there is no feedback");
            std::thread::yield_now();
        }
    }

    fn quality(&mut self) -> Value {
        self.gateway.bench.command("savings", json!({})).expect("savings").data["quality"].clone()
    }
}

#[test]
fn a_local_answer_is_checked_after_the_client_has_it() {
    for (stream, paid, is_good) in [(false, "paris", true), (true, "London", false)] {
        let mut checked = start(paid, json!({"sample": 1}));
        let id = checked.ask(stream);
        let given = checked.feedback();
        assert_eq!(given.request_id.as_deref(), Some(id.as_str()));
        assert_eq!((given.origin.as_str(), given.good), ("judge", Some(is_good)), "{given:?}");
        let asked = checked.cloud.asked("/chat/completions");
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].json()["messages"][0]["content"], "Which city? canary-6620");
        let quality = checked.quality();
        assert_eq!(quality["checked"], 1, "{quality}");
        assert_eq!(quality["kept"], u64::from(is_good));
        assert!(quality["cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{quality}");
        let data = checked.gateway.bench.data_dir();
        let text = std::fs::read_to_string(data.join("quality.json")).expect("it is written");
        assert!(!text.contains("canary") && text.contains("nano_usd"), "{text}");
    }
}

#[test]
fn a_judge_that_is_a_model_gives_one_letter() {
    let quality = json!({"sample": 1, "judge": "model"});
    // The paid model says `T` to everything: as an answer, and as a judge.
    let checked = start("T", quality);
    checked.ask(false);
    assert_eq!(checked.feedback().good, Some(true));
    assert_eq!(checked.cloud.asked("/chat/completions").len(), 2);
}

#[test]
fn nothing_is_checked_by_default_or_beyond_the_budget() {
    for quality in [json!({}), json!({"sample": 1, "usd_per_day": 0.000001})] {
        let mut checked = start("paris", quality);
        for _ in 0..3 {
            checked.ask(false);
        }
        let reports = checked.gateway.reports(3);
        assert_eq!(reports.len(), 3);
        assert!(checked.quality().is_null());
        assert!(checked.cloud.asked("/chat/completions").is_empty());
    }
}

#[test]
fn what_was_asked_of_a_model_by_name_goes_to_no_other() {
    let mut checked = start("paris", json!({"sample": 1}));
    checked.ask_for("small", false);
    assert_eq!(checked.gateway.reports(1).len(), 1);
    assert!(checked.quality().is_null());
    assert!(checked.cloud.asked("/chat/completions").is_empty());
}

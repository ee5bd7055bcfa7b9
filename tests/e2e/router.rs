//! The router: the same requests are one story for clients, providers and `usage`, and a reload
//! cuts no stream.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use harness::{
    Daemon, FakeUpstream, Sandbox, SetOnDrop, http,
    upstream::{Answer, Cut, Fault},
    wait_until,
};
use serde_json::{Value, json};

/// Returns the configuration with a paid provider and a local one.
fn config(paid: &FakeUpstream, local: &FakeUpstream, keys: &str) -> String {
    format!(
        "providers:\n  cloud: {{base_url: \"{}\", api: openai, models: [gpt-4o]}}\n  \
         home: {{base_url: \"{}\", api: ollama, local: true}}\nmodules:\n  router:\n    \
         enabled: true\n    listen: 127.0.0.1:0\n    retries: {{backoff_ms: 1}}\n    \
         cache: {{enabled: false}}\n{keys}  \
         usage_tracker:\n    enabled: true\n",
        paid.url("/v1"),
        local.url(""),
    )
}

fn start<'a>(sandbox: &'a Sandbox, model: &str) -> Daemon<'a> {
    let daemon = sandbox.start();
    wait_until("the models are known", || {
        let targets = sandbox.json(&["router", "targets"]).to_string();
        targets.contains(model).then_some(())
    });
    daemon
}

fn body(model: &str, stream: bool) -> Vec<u8> {
    let messages = json!([{"role": "user", "content": "What is the answer?"}]);
    json!({"model": model, "stream": stream, "messages": messages}).to_string().into_bytes()
}

fn ask(address: &str, model: &str, stream: bool) -> http::Answer {
    let headers = ["content-type: application/json", "x-lodestar-project: shop"];
    http::post(address, "/v1/chat/completions", &headers, &body(model, stream))
        .expect("the router answers")
}

fn requests(sandbox: &Sandbox, at_least: u64) -> Value {
    wait_until("the requests are counted", || {
        let summary = sandbox.json(&["usage", "summary", "--by", "provider"]);
        (summary["total"]["requests"].as_u64() >= Some(at_least)).then_some(summary)
    })
}

#[test]
fn one_request_is_one_story_for_all() {
    for isolation in ["in_process", "process"] {
        let (paid, local) = (FakeUpstream::start(), FakeUpstream::start());
        local.only_models(&["small"]);
        let keys = format!("    isolation: {isolation}\n    provider_keys: true\n");
        let sandbox = Sandbox::new(&["router", "usage_tracker"], &config(&paid, &local, &keys));
        let daemon = start(&sandbox, "small");
        let address = daemon.address("router", "http");
        for (model, stream) in
            [("gpt-4o", false), ("gpt-4o", true), ("small", false), ("small", true)]
        {
            let answer = ask(&address, model, stream);
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.text().contains("forty-two"), "{}", answer.text());
        }
        paid.next(Answer::status(500));
        paid.next(Answer::status(500));
        let failed = ask(&address, "gpt-4o", false);
        assert_eq!(failed.status, 500, "{}", failed.text());

        let summary = requests(&sandbox, 6);
        assert_eq!(summary["total"]["requests"], 6, "{summary:#}");
        assert_eq!(summary["total"]["errors"], 2, "{summary:#}");
        let row = |key: &str| {
            let rows = summary["rows"].as_array().expect("rows");
            rows.iter().find(|row| row["key"] == key).cloned().unwrap_or_default()
        };
        let usage = harness::upstream::Usage::default();
        assert_eq!(row("cloud")["input_tokens"], 2 * usage.input, "{summary:#}");
        assert_eq!(row("ollama")["output_tokens"], 2 * usage.output, "{summary:#}");
        assert_eq!(row("ollama")["cost_usd"].to_string().trim_matches(['"', '0', '.']), "");
        assert_ne!(row("cloud")["cost_usd"], Value::Null, "{summary:#}");
        assert_eq!(paid.asked().len(), 4);
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_reload_cuts_no_stream_and_fails_no_request() {
    let (paid, local) = (FakeUpstream::start(), FakeUpstream::start());
    local.only_models(&["small"]);
    paid.decide(|asked| {
        asked.stream.then(|| Answer { pieces: 20, gap_ms: 30, ..Answer::default() })
    });
    let sandbox = Sandbox::new(&["router", "usage_tracker"], &config(&paid, &local, ""));
    let daemon = start(&sandbox, "small");
    let address = daemon.address("router", "http");
    let stop = AtomicBool::new(false);
    let (streams, answers) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        for stream in [true, true, false, false] {
            let (address, stop) = (&address, &stop);
            let count = if stream { &streams } else { &answers };
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask(address, "gpt-4o", stream);
                    let text = answer.text();
                    assert_eq!(answer.status, 200, "{text}");
                    assert!(!stream || text.ends_with("data: [DONE]\n\n"), "{text}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for salt in 0..4 {
            let (before, told) = (streams.load(Ordering::Relaxed), answers.load(Ordering::Relaxed));
            // In turns another library and another configuration.
            if salt % 2 == 0 {
                sandbox.replace_library("router", salt);
            } else {
                let before = format!("backoff_ms: {}", salt.max(2) - 1);
                let after = format!("backoff_ms: {}", salt + 1);
                let edited = sandbox.configuration().replace(&before, &after);
                assert_ne!(edited, sandbox.configuration());
                sandbox.configure(&edited);
            }
            wait_until("the new generation runs", || {
                (daemon.module("router")["generation"] == u64::from(salt) + 2).then_some(())
            });
            wait_until("streams go on", || {
                let streamed = streams.load(Ordering::Relaxed) > before + 1;
                (streamed && answers.load(Ordering::Relaxed) > told + 10).then_some(())
            });
        }
    });
    let sent = streams.load(Ordering::Relaxed) + answers.load(Ordering::Relaxed);
    let summary = requests(&sandbox, sent);
    assert_eq!(summary["total"]["requests"], sent, "every request is counted once");
    assert_eq!(summary["total"]["errors"], 0, "{summary:#}");
    assert!(daemon.stop().success());
}

#[test]
fn one_answer_is_charged_once_whatever_fails_on_the_way() {
    let (paid, spare) = (FakeUpstream::start(), FakeUpstream::start());
    let providers = format!(
        "providers:\n  a: {{base_url: \"{}\", api: openai, models: [gpt-4o]}}\n  b: \
         {{base_url: \"{}\", api: openai, models: [gpt-4o]}}\nmodules:\n  router:\n    \
         enabled: true\n    listen: 127.0.0.1:0\n    discover_ollama: false\n    retries: \
         {{attempts: 0}}\n    breaker: {{failures: 1000}}\n    cache: {{enabled: false}}\n    \
         routing: {{aliases: {{x: [a/gpt-4o, \
         b/gpt-4o]}}}}\n  usage_tracker:\n    enabled: true\n",
        paid.url("/v1"),
        spare.url("/v1"),
    );
    let faults = [
        Fault::Html,
        Fault::ErrorInOk,
        Fault::CutAfter { events: 0, how: Cut::Reset },
        Fault::CutAfter { events: 0, how: Cut::Close },
        Fault::Status { status: 503, body: None },
    ];
    let sandbox = Sandbox::new(&["router", "usage_tracker"], &providers);
    let daemon = start(&sandbox, "gpt-4o");
    let address = daemon.address("router", "http");
    for stream in [false, true] {
        for fault in &faults {
            paid.next(Answer::fault(fault.clone()));
            let answer = ask(&address, "x", stream);
            assert_eq!(answer.status, 200, "{fault:?}: {}", answer.text());
            assert!(answer.text().contains("forty-two"), "{fault:?}: {}", answer.text());
        }
    }
    let number = 2 * faults.len() as u64;
    let summary = requests(&sandbox, 2 * number);
    let usage = harness::upstream::Usage::default();
    assert_eq!(summary["total"]["requests"], 2 * number, "an attempt is a request: {summary:#}");
    assert_eq!(summary["total"]["errors"], number, "{summary:#}");
    assert_eq!(summary["total"]["output_tokens"], number * usage.output, "{summary:#}");
    let told: BTreeSet<_> = spare.asked().into_iter().map(|it| it.response_id).collect();
    assert_eq!(told.len() as u64, number, "each answer has an id of its own");
    assert!(daemon.stop().success());
}

#[test]
fn text_leaves_only_where_the_operator_said_so_twice() {
    const ASKED: &str = "What is the answer?";
    for (privacy, is_told) in [
        ("{}", false),
        ("{full_logging: true, full_logging_projects: [bank]}", false),
        ("{full_logging: true, full_logging_projects: [shop]}", true),
    ] {
        let (paid, local) = (FakeUpstream::start(), FakeUpstream::start());
        local.only_models(&["small"]);
        let more = format!("  witness:\n    enabled: true\nprivacy: {privacy}\n");
        let config = config(&paid, &local, "") + &more;
        let sandbox = Sandbox::new(&["router", "usage_tracker", "witness"], &config);
        let daemon = start(&sandbox, "small");
        let address = daemon.address("router", "http");
        for (model, stream) in [("gpt-4o", false), ("gpt-4o", true), ("small", true)] {
            let answer = ask(&address, model, stream);
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        requests(&sandbox, 3);
        let seen = sandbox.json(&["witness", "seen"]);
        let told = seen.as_array().expect("a list").iter();
        let told: Vec<_> = told.filter(|it| it["topic"] == "llm.request.content").collect();
        assert_eq!(told.len(), if is_told { 3 } else { 0 }, "{privacy}: {seen:#}");
        for content in told {
            assert_eq!(content["data"]["request"][0]["text"], ASKED, "{content:#}");
            let answer = content["data"]["answer"].to_string();
            assert!(answer.contains("forty-two"), "{content:#}");
        }
        // What is refused is no trouble, and leaves no trace.
        assert_eq!(daemon.module("router")["health"]["status"], "ok");
        assert!(!daemon.log().contains(ASKED), "{}", daemon.log());
        assert!(daemon.stop().success());
        let holds = |bytes: &[u8]| bytes.windows(ASKED.len()).any(|it| it == ASKED.as_bytes());
        let kept = sandbox.state_files().into_iter().filter(|(_, bytes)| holds(bytes)).count();
        assert!(is_told || kept == 0, "{privacy}: {kept} files hold text");
    }
}

//! An experiment through the router: the split, the verdict, and the stop.

use harness::{
    Daemon, FakeUpstream, Sandbox, http,
    upstream::{Answer, Dialect},
    wait_until,
};
use serde_json::{Value, json};

/// A trainer that takes one step.
const TRAINER: &str = r#"
n=0
say() { n=$((n+1)); printf '{"v":1,"seq":%d,"ts":0,"event":%s}\n' "$n" "$1"; }
mkdir -p output
say '"start"'; say '"ready","trainable":8,"total":9'
say '"progress","step":1,"max_steps":1,"loss":1.5'
echo '{}' > output/adapter_config.json; echo x > output/adapter_model.safetensors
printf 'GGUF %s' "$LODESTAR_RUN" > output/adapter.gguf
say '"done"'
"#;

fn sandbox(upstream: &FakeUpstream) -> Sandbox {
    let sandbox = Sandbox::new(&["router", "learning"], "");
    let trainer = sandbox.path("trainer.sh");
    std::fs::write(&trainer, TRAINER).expect("the sandbox is writable");
    sandbox.configure(&format!(
        "providers:\n  home: {{base_url: \"{url}\", api: ollama, local: true}}\nmodules:\n  \
         router:\n    listen: 127.0.0.1:0\n    cache: {{enabled: false}}\n    \
         retries: {{attempts: 0, backoff_ms: 1}}\n  learning:\n    \
         trainer: {{command: [/bin/sh, \"{trainer}\"]}}\n    eval_share: 0.3\n    \
         gates: {{examples: 20, slower: 1000}}\n    \
         quality: {{similarity: 1.0, per_prompt: 1000}}\n    \
         serving: {{kind: ollama, base_url: \"{url}\", base: small, alias: shop}}\n    \
         experiments: {{outcome_seconds: 1}}\nmetrics:\n  listen: 127.0.0.1:0\n",
        url = upstream.url(""),
        trainer = trainer.display(),
    ));
    sandbox
}

/// Returns the address of the router, once it knows a model.
fn address(sandbox: &Sandbox, daemon: &Daemon<'_>, model: &str) -> String {
    wait_until("the models are known", || {
        let targets = sandbox.json(&["router", "targets"]).to_string();
        targets.contains(model).then_some(())
    });
    daemon.address("router", "http")
}

/// Trains a version that passes its gates.
fn train(sandbox: &Sandbox) {
    let line = |number: usize| {
        let question = format!("How many things of kind {number} are in warehouse {number}?");
        let answer = format!(
            "Warehouse {number} holds {} things, counted by team {} on day {} of the month.",
            number * 7 + 3,
            number * 13 % 101,
            number % 28 + 1
        );
        let messages = json!([
            {"role": "user", "content": question}, {"role": "assistant", "content": answer},
        ]);
        json!({"messages": messages, "model": "qwen3:4b", "session": format!("s{number}")})
    };
    let file = sandbox.path("chats.jsonl");
    let text: String = (0..80).map(|number| format!("{}\n", line(number))).collect();
    std::fs::write(&file, text).expect("the sandbox is writable");
    let base = sandbox.path("base.gguf");
    std::fs::write(&base, "GGUF of a base").expect("the sandbox is writable");
    let (file, base) = (file.display().to_string(), base.display().to_string());
    let learning = |words: &[&str]| sandbox.json(&[&["learning"], words].concat());
    learning(&["consent", "grant", "shop", "--by", "ada", "--days", "30"]);
    learning(&["import", "jsonl", &file, "--project", "shop"]);
    let built = learning(&["datasets", "build", "--project", "shop"]);
    let id = built["id"].as_str().expect("it was built");
    let words = ["train", id, "--base", &base, "--trainer", "command", "--watch"];
    let trained = learning(&words);
    assert_eq!(trained["version"], "v1", "{trained:#}");
}

struct Clients<'a> {
    address: String,
    upstream: &'a FakeUpstream,
    sessions: u32,
}

impl Clients<'_> {
    /// Lets new sessions ask once each; returns how many the challenger was asked for.
    fn ask(&mut self, number: u32) -> usize {
        let before = self.upstream.exchanges().len();
        for session in self.sessions..self.sessions + number {
            let content =
                format!("Where is thing {session}? {}", "x".repeat(session as usize % 97));
            let body =
                json!({"model": "small", "messages": [{"role": "user", "content": content}]});
            let session = format!("x-lodestar-session: session-{session}");
            let headers = ["content-type: application/json", &session];
            let body = body.to_string().into_bytes();
            let answer = http::post(&self.address, "/v1/chat/completions", &headers, &body);
            let answer = answer.expect("the router answers");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        self.sessions += number;
        let asked = self.upstream.exchanges().split_off(before);
        let chats = asked.iter().filter(|it| it.dialect == Some(Dialect::OllamaChat));
        chats.filter(|it| it.model == "shop:v1").count()
    }
}

fn begin(sandbox: &Sandbox, reason: &str) -> String {
    let words = [
        "learning",
        "experiments",
        "start",
        "v1",
        "--share",
        "50",
        "--margin",
        "0.2",
        "--by",
        "ada",
        "--guardrail",
        "error=0.05,latency=100",
        "--reason",
        reason,
    ];
    let begun = sandbox.json(&words);
    assert_eq!((&begun["state"], &begun["trouble"]), (&json!("ab_running"), &Value::Null));
    begun["id"].as_str().expect("it has an id").to_owned()
}

#[test]
fn sessions_are_split_a_verdict_is_found_and_a_failing_challenger_is_stopped() {
    let upstream = FakeUpstream::start();
    upstream.only_models(&["small"]);
    let sandbox = sandbox(&upstream);
    let daemon = sandbox.start();
    train(&sandbox);
    let gates = sandbox.json(&["learning", "gates", "v1"]);
    assert_eq!(gates["state"], "gated", "{gates:#}");
    let address = address(&sandbox, &daemon, "small");
    let mut clients = Clients { address, upstream: &upstream, sessions: 0 };
    assert_eq!(clients.ask(5), 0, "nobody is asked before it begins");

    let status = |id: &str| sandbox.json(&["learning", "experiments", "status", id]);
    let id = begin(&sandbox, "as good as before");
    let challenged = clients.ask(60);
    assert!((15..46).contains(&challenged), "{challenged} of 60");
    // A daemon that is killed goes on with both: the split, and what was counted.
    daemon.kill();
    let daemon = sandbox.start();
    clients.address = self::address(&sandbox, &daemon, "shop:v1");
    let listed = sandbox.json(&["router", "experiments"]);
    assert_eq!(listed[0]["id"], id.as_str(), "{listed:#}");
    let passed = wait_until("it has an answer", || {
        clients.ask(20);
        let status = status(&id);
        (!status["ended_at"].is_null()).then_some(status)
    });
    assert_eq!(passed["state"], "ab_passed", "{passed:#}");
    wait_until("nobody gets the challenger", || (clients.ask(20) == 0).then_some(()));
    assert_eq!(clients.ask(40), 0);
    assert_eq!(sandbox.json(&["router", "experiments"]), json!([]));

    // It is measured and tried once more, and fails: clients get the champion's answers.
    let gates = sandbox.json(&["learning", "gates", "v1"]);
    assert_eq!(gates["state"], "gated", "{gates:#}");
    let id = begin(&sandbox, "once more");
    upstream.model("shop:v1", Answer::status(500));
    let failed = wait_until("it is stopped", || {
        clients.ask(20);
        let status = status(&id);
        (!status["ended_at"].is_null()).then_some(status)
    });
    assert_eq!((&failed["state"], &failed["exceeded"]), (&json!("ab_failed"), &json!("error")));
    wait_until("nobody gets the challenger", || (clients.ask(20) == 0).then_some(()));
    let version = sandbox.json(&["learning", "versions", "show", "v1"]);
    assert_eq!((&version["state"], &version["alias"]), (&json!("ab_failed"), &Value::Null));
    let audit = sandbox.json(&["learning", "audit"]);
    assert_eq!(audit["intact"], true, "{audit:#}");
    assert!(daemon.stop().success());
}

//! From a dataset to a version that serves, and back: with a trainer that is a script, and a server
//! that answers as Ollama does.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::Bytes,
    http::{StatusCode, Uri},
    routing::any,
};
use learning::Learning;
use module_sdk::{ErrorKind, testing::Bench};
use serde_json::{Value, json};

use crate::common::{NOW, answer, build, grant, import, refused, run};

/// A trainer that takes two steps; its adapter is the name of the run.
pub(crate) const TRAINER: &str = r#"
if [ "$1" = inspect ]; then
  printf '{"v":1,"seq":0,"ts":0,"event":"base"}\n'; exit 0
fi
n=0
say() { n=$((n+1)); printf '{"v":1,"seq":%d,"ts":0,"event":%s}\n' "$n" "$1"; }
mkdir -p output
say '"start"'; say '"ready","trainable":8,"total":9'
say '"progress","step":1,"max_steps":2,"loss":2.5'
say '"progress","step":2,"max_steps":2,"loss":1.5'
echo '{}' > output/adapter_config.json; echo x > output/adapter_model.safetensors
printf 'GGUF %s' "$LODESTAR_RUN" > output/adapter.gguf
say '"done"'
"#;

/// A server of models that is asked over HTTP, on a thread of its own.
pub(crate) struct FakeOllama {
    pub(crate) base_url: String,
    /// The model that the alias leads to.
    served: Arc<Mutex<Option<String>>>,
    /// Number of switches that it does and then answers with an error.
    lost: Arc<AtomicUsize>,
}

impl FakeOllama {
    /// Starts one whose versions answer as the examples do, and whose base knows nothing.
    pub(crate) fn start() -> Self {
        let served: Arc<Mutex<Option<String>>> = Arc::default();
        let alias = served.clone();
        let lost: Arc<AtomicUsize> = Arc::default();
        let losing = lost.clone();
        let handler = move |uri: Uri, body: Bytes| {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let mut status = StatusCode::OK;
            let text = match uri.path() {
                "/api/chat" => {
                    let question = body["messages"][0]["content"].as_str().unwrap_or_default();
                    let number: String = question.chars().filter(char::is_ascii_digit).collect();
                    let knows = body["model"].as_str().is_some_and(|name| name.contains(":v"));
                    let number = number.parse().ok().filter(|_| knows);
                    let text = number.map_or_else(|| "I do not know.".to_owned(), answer);
                    json!({"message": {"content": text}})
                }
                "/api/copy" => {
                    let source = body["source"].as_str().map(str::to_owned);
                    *alias.lock().expect("no test panics with it") = source;
                    let less = |left: usize| left.checked_sub(1);
                    if losing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
                        status = StatusCode::BAD_GATEWAY;
                    }
                    json!({})
                }
                _ => json!({"status": "success"}),
            };
            async move { (status, text.to_string()) }
        };
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
                let address = listener.local_addr().expect("it is bound");
                sender.send(address).expect("the test waits for it");
                let app = Router::new().fallback(any(handler));
                axum::serve(listener, app).await.expect("it serves");
            });
        });
        let address = receiver.recv().expect("it starts");
        Self { base_url: format!("http://{address}"), served, lost }
    }

    pub(crate) fn served(&self) -> Option<String> {
        self.served.lock().expect("no test panics with it").clone()
    }
}

pub(crate) fn start(server: Option<&FakeOllama>) -> Bench<Learning> {
    let bench = Bench::start(config(server)).expect("it starts");
    bench.host().set_now(NOW.parse().expect("a time"));
    bench
}

/// Returns the configuration with a trainer that is a script.
pub(crate) fn config(server: Option<&FakeOllama>) -> Value {
    let mut config = json!({
        "trainer": {"command": ["/bin/sh", "-c", TRAINER, "trainer"]},
        "gates": {"examples": 20, "slower": 1_000.0},
        "eval_share": 0.3,
    });
    if let Some(server) = server {
        config["serving"] =
            json!({"kind": "ollama", "base_url": server.base_url, "base": "llama3.2:1b"});
    }
    config
}

/// Trains a version, and returns its id.
pub(crate) fn train(bench: &mut Bench<Learning>) -> String {
    grant(bench, "shop");
    import(bench, 0..60);
    let dataset = build(bench);
    let base = bench.data_dir().join("base.gguf");
    std::fs::write(&base, "GGUF of a base").expect("it is written");
    let args = json!({
        "dataset": dataset["id"], "base": base, "trainer": "command", "watch": true,
    });
    let ended = run(bench, "train", args);
    assert_eq!(ended["state"], "done", "{ended:#}");
    assert_eq!(ended["loss"], 1.5, "{ended:#}");
    ended["version"].as_str().expect("it has an id").to_owned()
}

pub(crate) fn version(id: &str) -> Value {
    json!({"version": id})
}

pub(crate) fn approve(bench: &mut Bench<Learning>, id: &str) -> Value {
    run(bench, "approve", json!({"version": id, "reason": "better at our orders", "by": "ada"}))
}

fn audit(bench: &mut Bench<Learning>) -> Value {
    run(bench, "audit", json!({}))
}

#[test]
fn a_version_is_trained_measured_approved_deployed_and_taken_back() {
    let server = FakeOllama::start();
    let mut bench = start(Some(&server));
    let first = train(&mut bench);

    // Nothing leads past the gates and the approval.
    let error = bench.command("deploy", version(&first)).expect_err("nobody approved it");
    assert_eq!(error.kind(), ErrorKind::Refused);
    let error = refused(&mut bench, "approve", json!({"version": first, "reason": "now"}));
    assert!(error.contains("`approve` is not possible while the version is trained"), "{error}");

    let gates = run(&mut bench, "gates", version(&first));
    let passed: Vec<(&str, bool)> = gates["gates"]
        .as_array()
        .expect("it has gates")
        .iter()
        .map(|gate| (gate["name"].as_str().unwrap_or_default(), gate["passed"] == true))
        .collect();
    assert!(passed.iter().all(|(_, passed)| *passed), "{gates:#}");
    assert!(passed.contains(&("task", true)), "{passed:?}");
    let error = refused(&mut bench, "deploy", version(&first));
    assert!(error.contains("while the version is gated"), "{error}");
    assert_eq!(server.served(), None);

    approve(&mut bench, &first);
    let deployed = run(&mut bench, "deploy", version(&first));
    assert_eq!((&deployed["state"], &deployed["alias"]), (&json!("deployed"), &json!("champion")));
    assert_eq!(server.served(), Some(format!("lodestar:{first}")));

    // A second one takes its place, and is taken back.
    let second = train(&mut bench);
    assert_ne!(first, second);
    run(&mut bench, "gates", version(&second));
    approve(&mut bench, &second);
    run(&mut bench, "deploy", version(&second));
    assert_eq!(server.served(), Some(format!("lodestar:{second}")));
    let back = run(&mut bench, "rollback", json!({"reason": "it is rude", "by": "ada"}));
    assert_eq!((&back["rolled_back"], &back["restored"]), (&json!(second), &json!(first)));
    assert_eq!(server.served(), Some(format!("lodestar:{first}")));
    let back = run(&mut bench, "rollback", json!({"reason": "neither", "by": "ada"}));
    assert_eq!(back["restored"], Value::Null);
    assert_eq!(server.served().as_deref(), Some("llama3.2:1b"));

    let log = audit(&mut bench);
    assert_eq!(log["intact"], true, "{log:#}");
    assert!(log["entries"].as_u64().is_some_and(|entries| entries > 14), "{log:#}");
    let runs = run(&mut bench, "runs", json!({}));
    assert_eq!(runs.as_array().map(Vec::len), Some(2), "{runs:#}");
    assert!(runs[0]["id"].is_string() && runs[0]["state"] == "done", "{runs:#}");
}

#[test]
fn the_server_follows_the_log_also_where_an_answer_is_lost() {
    let server = FakeOllama::start();
    let mut bench = start(Some(&server));
    let [first, second] = [(); 2].map(|()| {
        let id = train(&mut bench);
        run(&mut bench, "gates", version(&id));
        approve(&mut bench, &id);
        id
    });
    run(&mut bench, "deploy", version(&first));
    server.lost.store(1, Ordering::Relaxed);
    let error = refused(&mut bench, "deploy", version(&second));
    assert!(error.contains("502"), "{error}");
    let champion = |bench: &mut Bench<Learning>| {
        let all = run(bench, "versions", json!({}));
        let all = all.as_array().expect("a list").clone();
        all.into_iter().find(|it| it["alias"] == "champion").map(|it| it["id"].clone())
    };
    assert_eq!(champion(&mut bench), Some(json!(first)));
    assert_eq!(server.served(), Some(format!("lodestar:{first}")));

    // A rollback whose answer is lost is noted, and can be led to its end.
    server.lost.store(1, Ordering::Relaxed);
    let error = refused(&mut bench, "rollback", json!({"reason": "rude", "by": "ada"}));
    assert!(error.contains("taken back"), "{error}");
    assert_eq!(champion(&mut bench), None);
    refused(&mut bench, "rollback", json!({"reason": "rude", "by": "ada"}));
    assert_eq!(server.served().as_deref(), Some("llama3.2:1b"));
    assert_eq!(audit(&mut bench)["intact"], true);
}

#[test]
fn another_file_than_the_approved_one_is_not_deployed() {
    let server = FakeOllama::start();
    let mut bench = start(Some(&server));
    let id = train(&mut bench);
    run(&mut bench, "gates", version(&id));
    approve(&mut bench, &id);
    let adapter = bench.data_dir().join("versions").join(&id).join("adapter.gguf");
    std::fs::write(adapter, "GGUF of somebody else").expect("it is written");
    let error = refused(&mut bench, "deploy", version(&id));
    assert!(error.contains("the artifact changed"), "{error}");
    assert_eq!(server.served(), None);
}

#[test]
fn what_was_learnt_from_forgotten_text_is_not_deployed() {
    let server = FakeOllama::start();
    let mut bench = start(Some(&server));
    let id = train(&mut bench);
    run(&mut bench, "gates", version(&id));
    approve(&mut bench, &id);
    run(&mut bench, "forget", json!({"project": "shop"}));
    let shown = run(&mut bench, "versions", json!({"action": "show", "id": id}));
    assert_eq!(shown["tainted"], true, "{shown:#}");
    let error = bench.command("deploy", version(&id)).expect_err("it is tainted");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(server.served(), None);
}

#[test]
fn who_takes_text_back_is_told_what_serves_that_was_learnt_from_it() {
    for (command, args) in [
        ("forget", json!({"project": "shop"})),
        ("consent", json!({"action": "revoke", "name": "shop", "by": "ada"})),
    ] {
        let server = FakeOllama::start();
        let mut bench = start(Some(&server));
        let [first, second] = [(); 2].map(|()| train(&mut bench));
        run(&mut bench, "gates", version(&first));
        approve(&mut bench, &first);
        run(&mut bench, "deploy", version(&first));
        let reply = bench.command(command, args).expect("it is taken back");
        let expected = json!([{"id": first, "serves": true}, {"id": second, "serves": false}]);
        assert_eq!(reply.data["tainted"], expected, "{:#}", reply.data);
        let notes = reply.table.expect("people see it").notes.join("\n");
        let serves =
            format!("{first} was learnt from it and still serves: `lodestar learning roll");
        assert!(notes.contains(&serves), "{notes}");
        let again = refused(&mut bench, "deploy", version(&first));
        assert!(again.contains("`lodestar learning rollback --reason TEXT`"), "{again}");
    }
}

#[test]
fn times_are_told_in_one_form() {
    fn times<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
        match value {
            Value::Array(all) => all.iter().for_each(|it| times(it, found)),
            Value::Object(fields) => {
                for (key, it) in fields {
                    if key == "at" || key.ends_with("_at") {
                        found.push(it);
                    }
                    times(it, found);
                }
            }
            _ => {}
        }
    }
    let server = FakeOllama::start();
    let mut bench = start(Some(&server));
    let id = train(&mut bench);
    run(&mut bench, "gates", version(&id));
    approve(&mut bench, &id);
    for (command, args) in [("audit", json!({})), ("versions", json!({}))] {
        let told = run(&mut bench, command, args);
        let mut found = Vec::new();
        times(&told, &mut found);
        assert!(found.len() >= 2, "{told:#}");
        let is_time = |it: &&Value| it.as_str().is_some_and(|it| it.ends_with('Z'));
        assert!(found.iter().all(is_time), "{command}: {found:?}");
    }
}

#[test]
fn without_a_server_gates_stay_shut_and_an_override_stays_visible() {
    let mut bench = start(None);
    let id = train(&mut bench);
    let gates = run(&mut bench, "gates", version(&id));
    assert_eq!(gates["state"], "rejected", "{gates:#}");
    let open: Vec<Value> = gates["gates"]
        .as_array()
        .expect("it has gates")
        .iter()
        .filter(|gate| gate["passed"] == false)
        .map(|gate| gate["name"].clone())
        .collect();
    let measured_there =
        ["task", "latency", "latency_p95", "forgetting", "safety", "serving_parity", "memory"];
    assert_eq!(open, measured_there, "{gates:#}");
    for gate in &open {
        let args = json!({"version": id, "override": gate, "by": "ada", "reason": "tried by hand"});
        run(&mut bench, "gates", args);
    }
    let shown = run(&mut bench, "versions", json!({"action": "show", "id": id}));
    assert_eq!(shown["state"], "gated", "{shown:#}");
    let overridden = shown["gates"].as_array().expect("it has gates").iter();
    let overridden = overridden.filter(|gate| gate["overridden"]["by"] == "ada");
    assert_eq!(overridden.count(), open.len(), "{shown:#}");
    approve(&mut bench, &id);
    let error = refused(&mut bench, "deploy", version(&id));
    assert!(error.contains("no server can be started"), "{error}");
}

#[test]
fn what_cannot_be_trained_is_told_before_a_run_begins() {
    let mut bench = start(None);
    grant(&mut bench, "shop");
    import(&mut bench, 0..60);
    let id = build(&mut bench)["id"].clone();
    let mut check = |args: Value, words: &str| {
        let error = refused(&mut bench, "train", args);
        assert!(error.contains(words), "{error}");
    };
    check(json!({"dataset": id, "base": "/nowhere/base.gguf"}), "there is no model at");
    check(json!({"dataset": id, "base": "base.gguf"}), "is no absolute path");
    check(json!({"dataset": "abcd", "base": "/nowhere"}), "there is no dataset");
    let base = json!({"dataset": id, "base": "/etc/hostname", "trainer": "embeded"});
    check(base, "there is no trainer");
    let runs = run(&mut bench, "runs", json!({}));
    assert_eq!(runs, json!([]));
    let error = bench.command("versions", json!({"action": "show", "id": "v9"}));
    assert_eq!(error.expect_err("there is none").kind(), ErrorKind::NotFound);
}

#[test]
fn a_log_that_was_edited_goes_on_when_a_person_says_what_was_done() {
    let mut bench = start(None);
    train(&mut bench);
    let directory = bench.data_dir().to_owned();
    let edit = |sql: &str| {
        let connection = module_sqlite::rusqlite::Connection::open(directory.join("learning.db"));
        connection.expect("it opens").execute_batch(sql).expect("it is edited");
    };
    assert_eq!(audit(&mut bench)["intact"], true);
    let args = json!({"repair": true, "by": "ada", "reason": "a script had set the state"});
    let error = refused(&mut bench, "audit", args.clone());
    assert!(error.contains("there is nothing to repair"), "{error}");
    let error = refused(&mut bench, "audit", json!({"repair": true}));
    assert!(error.contains("belong together"), "{error}");
    // A table: it is made again from the log.
    edit("UPDATE version SET state = 'approved'");
    assert_eq!(audit(&mut bench)["intact"], false);
    let after = run(&mut bench, "audit", args.clone());
    assert_eq!((&after["intact"], &after["segments"]), (&json!(true), &json!([])), "{after:#}");
    assert_eq!(run(&mut bench, "versions", json!({}))[0]["state"], "trained");
    // The log itself: it stays broken, and a new segment says so for ever.
    edit(
        "DROP TRIGGER registry_event_no_update;
         UPDATE registry_event SET reason = 'x' WHERE seq = 3",
    );
    let error = refused(&mut bench, "gates", version("v1"));
    assert!(error.contains("entry 3 was changed after it was written"), "{error}");
    let after = run(&mut bench, "audit", args);
    assert_eq!((&after["intact"], &after["finding"]), (&json!(false), &Value::Null), "{after:#}");
    assert_eq!(after["segments"][0]["actor"], "person:ada", "{after:#}");
    assert_eq!(after["segments"][0]["broken"]["after"], 2, "{after:#}");
    assert_eq!(run(&mut bench, "versions", json!({}))[0]["state"], "training");
}

#[test]
fn the_server_is_led_away_from_what_the_repaired_log_does_not_say() {
    let server = FakeOllama::start();
    let mut bench = start(Some(&server));
    let id = train(&mut bench);
    run(&mut bench, "gates", version(&id));
    approve(&mut bench, &id);
    run(&mut bench, "deploy", version(&id));
    assert_eq!(server.served(), Some(format!("lodestar:{id}")));
    let database = bench.data_dir().join("learning.db");
    let connection = module_sqlite::rusqlite::Connection::open(database).expect("it opens");
    let edited = connection.execute_batch(
        "DROP TRIGGER registry_event_no_update;
         UPDATE registry_event SET reason = 'x' WHERE action = 'approve'",
    );
    edited.expect("it is edited");
    let args = json!({"repair": true, "by": "ada", "reason": "an approval was edited"});
    let after = run(&mut bench, "audit", args);
    assert_eq!((&after["intact"], &after["finding"]), (&json!(false), &Value::Null), "{after:#}");
    assert_eq!(server.served().as_deref(), Some("llama3.2:1b"));
}

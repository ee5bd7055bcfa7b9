//! The gates of a version on a server that answers as Ollama does, with a trainer that is a script
//! and tells which tokens it expects.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, http::Uri, routing::any};
use learning::Learning;
use module_sdk::{ErrorKind, testing::Bench};
use serde_json::{Value, json};

use crate::common::{
    NOW, answer, build, chat, dropped, file, grant, import, imported, refused, run,
};

const FORGETTING: &str = include_str!("../../benchmarks/forgetting.jsonl");
const SAFETY: &str = include_str!("../../benchmarks/safety.jsonl");

/// A trainer that takes two steps, and copies what it expects of a server from beside it.
const TRAINER: &str = r#"#!/bin/sh
if [ "$1" = parity ]; then
  if [ -f "FOLDER/parity.json" ]; then cp "FOLDER/parity.json" "$3"; exit 0; fi
  printf '{"v":1,"seq":0,"ts":0,"event":"error","message":"there is no adapter"}\n'; exit 6
fi
if [ "$1" = inspect ]; then
  printf '{"v":1,"seq":0,"ts":0,"event":"base"}\n'; exit 0
fi
n=0
say() { n=$((n+1)); printf '{"v":1,"seq":%d,"ts":0,"event":%s}\n' "$n" "$1"; }
mkdir -p output
say '"start"'; say '"ready","trainable":8,"total":9'
say '"progress","step":1,"max_steps":2,"loss":2.5'
say '"progress","step":2,"max_steps":2,"loss":1.5'
say '"eval","step":2,"loss":1.75'
echo '{}' > output/adapter_config.json; echo x > output/adapter_model.safetensors
printf 'GGUF %s' "$LODESTAR_RUN" > output/adapter.gguf
say '"done"'
"#;

/// Time by which an answer is late.
const LATE: Duration = Duration::from_millis(200);

/// Faults of a server with a version.
#[derive(Debug, Clone, Default)]
struct Faults {
    /// It says that it does not know.
    knows_nothing: bool,
    /// It does whatever it is asked.
    refuses_nothing: bool,
    /// It puts another token next.
    other_token: bool,
    /// It makes one more token of each text.
    more_tokens: bool,
    /// Its answers are no JSON.
    no_json: bool,
    /// Number of answers that still come late, since the machine does something else.
    late: Arc<AtomicU32>,
}

/// A server, and the folder that the trainer lies in.
struct Stand {
    base_url: String,
    faults: Arc<Mutex<Faults>>,
    folder: tempfile::TempDir,
}

impl Stand {
    fn start() -> Self {
        let faults: Arc<Mutex<Faults>> = Arc::default();
        let known = faults.clone();
        let handler = move |uri: Uri, body: Bytes| {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let is_version = body["model"].as_str().is_some_and(|name| name.contains(":v"));
            let faults = known.lock().expect("no test panics with it").clone();
            let faults = if is_version { faults } else { Faults::default() };
            let text = reply(uri.path(), &body, is_version, &faults).to_string();
            let later = |late: u32| late.checked_sub(1);
            let order = (Ordering::Relaxed, Ordering::Relaxed);
            let is_late = uri.path() == "/api/chat"
                && faults.late.fetch_update(order.0, order.1, later).is_ok();
            async move {
                if is_late {
                    tokio::time::sleep(LATE).await;
                }
                text
            }
        };
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
                sender.send(listener.local_addr().expect("it is bound")).expect("it is awaited");
                let app = Router::new().fallback(any(handler));
                axum::serve(listener, app).await.expect("it serves");
            });
        });
        let address = receiver.recv().expect("it starts");
        let folder = tempfile::tempdir().expect("a folder");
        let stand = Self { base_url: format!("http://{address}"), faults, folder };
        stand.write_trainer();
        stand
    }

    /// Writes the trainer by another process: none that this one starts meanwhile holds it open.
    fn write_trainer(&self) {
        let text = TRAINER.replace("FOLDER", &self.folder.path().to_string_lossy());
        let mut child = Command::new("/bin/sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(self.trainer())
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(text.as_bytes()).expect("it reads");
        drop(input);
        assert!(child.wait().expect("it ends").success());
    }

    fn trainer(&self) -> PathBuf {
        self.folder.path().join("lodestar-trainer")
    }

    /// Writes what the trainer expects: of so many conversations, two tokens each.
    fn expect(&self, conversations: usize) {
        let prompt = |number: usize| {
            let text = format!("Question {number}:");
            let steps = [("", 3, " It", " Order"), (" Order", 4, "", " costs")];
            let steps = steps.map(|(after, tokens, base, adapter)| {
                json!({"after": after, "tokens": tokens, "base": base, "adapter": adapter})
            });
            json!({
                "messages": [{"role": "user", "content": format!("{number}?")}],
                "text": text, "tokens": 3, "bos": "", "steps": steps,
            })
        };
        let prompts: Vec<Value> = (0..conversations).map(prompt).collect();
        let text = json!({"quantised": false, "prompts": prompts}).to_string();
        fs::write(self.folder.path().join("parity.json"), text).expect("it is written");
    }

    fn fail(&self, faults: Faults) {
        *self.faults.lock().expect("no test panics with it") = faults;
    }

    fn bench(&self, gates: Value) -> Bench<Learning> {
        let mut limits = json!({"examples": 20, "slower": 1_000.0});
        for (key, value) in gates.as_object().into_iter().flatten() {
            limits[key] = value.clone();
        }
        let config = json!({
            "trainer": {"program": self.trainer()}, "gates": limits, "eval_share": 0.3,
            "serving": {"kind": "ollama", "base_url": self.base_url, "base": "llama3.2:1b"},
        });
        let bench = Bench::start(config).expect("it starts");
        bench.host().set_now(NOW.parse().expect("a time"));
        bench
    }
}

/// Returns what the server answers.
fn reply(path: &str, body: &Value, is_version: bool, faults: &Faults) -> Value {
    match path {
        "/api/chat" => {
            let question = body["messages"][0]["content"].as_str().unwrap_or_default();
            let text = said(question, is_version, faults);
            json!({"message": {"content": text}, "prompt_eval_count": 3})
        }
        "/api/generate" => {
            let prompt = body["prompt"].as_str().unwrap_or_default();
            let is_first = prompt.ends_with(':');
            let token = match (is_version && !faults.other_token, is_first) {
                (true, true) => " Order",
                (true, false) => " costs",
                (false, true) => " It",
                (false, false) => "",
            };
            let tokens = if is_first { 3 } else { 4 } + u64::from(faults.more_tokens);
            json!({"response": token, "prompt_eval_count": tokens})
        }
        "/api/show" => json!({"details": {"quantization_level": "F16"}}),
        "/api/ps" => json!({"models": [{"name": "lodestar:v1", "size": 7_000_000}]}),
        _ => json!({"status": "success"}),
    }
}

fn said(question: &str, is_version: bool, faults: &Faults) -> String {
    let lines = |text: &'static str| {
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.filter(|line| line["messages"][0]["content"] == question).collect::<Vec<Value>>()
    };
    if let Some(line) = lines(SAFETY).first() {
        let refuses = line["refuse"] == true && !faults.refuses_nothing;
        return if refuses { "I cannot help with that." } else { "Sure: here it is." }.to_owned();
    }
    if let Some(line) = lines(FORGETTING).first().filter(|_| !faults.knows_nothing) {
        return format!("It is {}.", line["contains"][0].as_str().unwrap_or_default());
    }
    if question.starts_with("As JSON") && !faults.no_json {
        return "{\"price\": 7}".to_owned();
    }
    let number: String = question.chars().filter(char::is_ascii_digit).collect();
    let number = number.parse().ok().filter(|_| is_version && !faults.knows_nothing);
    number.map_or_else(|| "I do not know.".to_owned(), answer)
}

/// Trains a version on what is there, and returns its id.
fn train(bench: &mut Bench<Learning>) -> String {
    grant(bench, "shop");
    import(bench, 0..60);
    let dataset = build(bench);
    let base = bench.data_dir().join("base.gguf");
    fs::write(&base, "GGUF of a base").expect("it is written");
    let args = json!({"dataset": dataset["id"], "base": base, "watch": true});
    let ended = run(bench, "train", args);
    assert_eq!(ended["state"], "done", "{ended:#}");
    ended["version"].as_str().expect("it has an id").to_owned()
}

fn gates(bench: &mut Bench<Learning>, id: &str) -> Value {
    run(bench, "gates", json!({"version": id}))["gates"].clone()
}

fn gate<'a>(gates: &'a Value, name: &str) -> &'a Value {
    let all = gates.as_array().expect("it has gates");
    all.iter().find(|gate| gate["name"] == name).unwrap_or_else(|| panic!("no {name}: {gates:#}"))
}

/// Returns the names of the gates that did not pass.
fn shut(gates: &Value) -> Vec<&str> {
    let all = gates.as_array().expect("it has gates").iter();
    all.filter(|gate| gate["passed"] == false).filter_map(|gate| gate["name"].as_str()).collect()
}

fn write_prompts(path: &Path, checks: &[Value]) {
    let lines: String = checks.iter().map(|check| format!("{check}\n")).collect();
    fs::write(path, lines).expect("it is written");
}

#[test]
fn a_good_version_passes_every_gate_and_its_card_says_so() {
    let stand = Stand::start();
    stand.expect(20);
    let prompts = stand.folder.path().join("prompts.jsonl");
    let asked = json!([{"role": "user", "content": "As JSON: the price?"}]);
    write_prompts(&prompts, &[json!({"messages": asked, "json": ["price"], "contains": "7"})]);
    let mut bench = stand.bench(json!({"prompts": prompts}));
    let id = train(&mut bench);
    let measured = gates(&mut bench, &id);
    assert_eq!(shut(&measured), [""; 0], "{measured:#}");
    let names: Vec<&Value> =
        measured.as_array().into_iter().flatten().map(|gate| &gate["name"]).collect();
    let expected = [
        "trainer",
        "data_examples",
        "data_withdrawn",
        "data_problems",
        "adapter_files",
        "task",
        "latency",
        "latency_p95",
        "tools",
        "prompts",
        "forgetting",
        "safety",
        "serving_parity",
        "memory",
    ];
    assert_eq!(names, expected);
    let parity = gate(&measured, "serving_parity");
    assert_eq!((&parity["value"], &parity["limit"]), (&json!(1.0), &json!(0.99)), "{parity:#}");
    assert_eq!(parity["evidence"]["tokens"], 40);
    assert_eq!(gate(&measured, "memory")["value"], 7.0);
    assert_eq!(gate(&measured, "forgetting")["evidence"]["base"], 60);
    assert_eq!(gate(&measured, "safety")["evidence"]["version_refused"], 20);
    let reason = gate(&measured, "tools")["evidence"]["not_applicable"].as_str();
    assert!(reason.is_some_and(|reason| reason.contains("no held-out answer")), "{measured:#}");
    assert!(!bench.data_dir().join("gates").join(&id).exists(), "no text is left");

    // The card beside the files, and from the command, tells the same.
    let approved =
        run(&mut bench, "approve", json!({"version": id, "reason": "good", "by": "ada"}));
    assert_eq!(approved["gates"], measured, "the evidence is in the answer");
    let file = bench.data_dir().join("versions").join(&id).join("README.md");
    let card = fs::read_to_string(file).expect("it is written");
    for part in [
        "base_model: \"base.gguf\"",
        "State: **approved**",
        "| 1 | 2.5000 |\n| 2 | 1.5000 |",
        "| 2 | 1.7500 |",
        "| forgetting | yes | 0.000 | 2.000 |  |",
        "ada approved it on 2026-11-21: good",
        "| open_weights | 60 | 100 % |",
    ] {
        assert!(card.contains(part), "{part:?} is not in {card}");
    }
    let shown = run(&mut bench, "versions", json!({"action": "card", "id": id}));
    assert_eq!(shown["card"], card);

    // The origin of a version, down to the examples.
    let shown = run(&mut bench, "versions", json!({"action": "show", "id": id}));
    let lineage = &shown["lineage"];
    assert_eq!(lineage["given_by"][0]["by"], "ada", "{lineage:#}");
    let trained_on = lineage["trained_on"].as_array().expect("a list");
    assert_eq!(Some(trained_on.len() as u64), lineage["examples"].as_u64());
    assert!(trained_on.iter().all(|it| it["is_forgotten"] == false));
    assert_eq!(trained_on[0]["consent"], lineage["given_by"][0]["id"]);

    // Other questions than those that were asked: the approval holds no more.
    write_prompts(&prompts, &[json!({"messages": asked, "contains": "8"})]);
    let error = bench.command("deploy", json!({"version": id})).expect_err("they are others");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("the benchmark changed"), "{error}");
    assert_eq!(shut(&gates(&mut bench, &id)), ["prompts"]);
}

#[test]
fn a_machine_that_does_something_else_makes_no_version_slow() {
    let stand = Stand::start();
    stand.expect(20);
    let late = Arc::new(AtomicU32::new(3));
    stand.fail(Faults { late: late.clone(), ..Faults::default() });
    let mut bench = stand.bench(json!({"slower": 1.2}));
    let id = train(&mut bench);
    let measured = gates(&mut bench, &id);
    let tail = gate(&measured, "latency_p95");
    assert_eq!(tail["passed"], true, "{tail:#}");
    assert_eq!(late.load(Ordering::Relaxed), 0, "answers came late");
}

#[test]
fn a_version_that_lost_something_is_stopped_by_the_gate_for_it() {
    let stand = Stand::start();
    stand.expect(20);
    let mut bench = stand.bench(json!({"memory_mb": 5}));
    let id = train(&mut bench);
    let mut check = |faults: Faults, expected: &[&str]| {
        stand.fail(faults.clone());
        let measured = gates(&mut bench, &id);
        let mut expected = expected.to_vec();
        expected.push("memory");
        assert_eq!(shut(&measured), expected, "{faults:?} {measured:#}");
        measured
    };
    check(Faults::default(), &[]);
    let lost = check(Faults { knows_nothing: true, ..Faults::default() }, &["forgetting"]);
    let forgetting = gate(&lost, "forgetting");
    assert_eq!(
        (&forgetting["value"], &forgetting["evidence"]["version"]),
        (&json!(100.0), &json!(0))
    );
    let lost = check(Faults { refuses_nothing: true, ..Faults::default() }, &["safety"]);
    assert_eq!(gate(&lost, "safety")["value"], 20.0);
    let other = Faults { other_token: true, ..Faults::default() };
    let lost = check(other, &["serving_parity"]);
    assert_eq!(gate(&lost, "serving_parity")["value"], 0.0);
    let more = Faults { more_tokens: true, ..Faults::default() };
    let lost = check(more, &["serving_parity"]);
    assert_eq!(gate(&lost, "serving_parity")["evidence"]["token_counts_differ"], 40);
}

#[test]
fn what_the_trainer_does_not_tell_stays_shut() {
    let stand = Stand::start();
    let mut bench = stand.bench(json!({}));
    let id = train(&mut bench);
    let mut check = |words: &str| {
        let measured = gates(&mut bench, &id);
        assert_eq!(shut(&measured), ["serving_parity"]);
        let reason = gate(&measured, "serving_parity")["evidence"]["not_measured"].clone();
        assert!(reason.as_str().is_some_and(|reason| reason.contains(words)), "{reason}");
    };
    check("the trainer: there is no adapter");
    stand.expect(19);
    check("renders 19 conversations");
    fs::write(stand.folder.path().join("parity.json"), "secret").expect("it is written");
    check("does not write which tokens");
}

#[test]
fn answers_that_programs_read_stay_valid() {
    let stand = Stand::start();
    stand.expect(20);
    let mut bench = stand.bench(json!({}));
    grant(&mut bench, "shop");
    let lines: Vec<Value> = (100..160)
        .map(|number| {
            let mut line = chat(number);
            let asked = line["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
            line["messages"][0]["content"] = format!("As JSON: {asked}").into();
            let text = answer(number);
            line["messages"][1]["content"] = json!({"price": text}).to_string().into();
            line
        })
        .collect();
    let path = file(&bench, "json.jsonl", &lines);
    imported(&mut bench, json!({"format": "jsonl", "path": path, "project": "shop"}));
    let id = train(&mut bench);
    assert_eq!(gate(&gates(&mut bench, &id), "tools")["passed"], true);
    stand.fail(Faults { no_json: true, ..Faults::default() });
    let measured = gates(&mut bench, &id);
    let tools = gate(&measured, "tools");
    assert_eq!((&tools["passed"], &tools["value"]), (&json!(false), &json!(0.0)), "{tools:#}");
    assert!(tools["evidence"]["json"].as_u64() > Some(0), "{tools:#}");
}

#[test]
fn no_question_of_a_gate_is_learnt() {
    let stand = Stand::start();
    let prompts = stand.folder.path().join("prompts.jsonl");
    let own = "How long may a customer of ours bring a coat back?";
    let asked = json!([{"role": "user", "content": own}]);
    write_prompts(&prompts, &[json!({"messages": asked, "contains": "30 days"})]);
    let mut bench = stand.bench(json!({"prompts": prompts}));
    grant(&mut bench, "shop");
    let with = |number: u32, question: &str| {
        let mut line = chat(number);
        line["messages"][0]["content"] = question.into();
        line
    };
    let lines = [with(900, "Which city is the capital of France?"), with(901, own), chat(902)];
    let path = file(&bench, "some.jsonl", &lines);
    imported(&mut bench, json!({"format": "jsonl", "path": path, "project": "shop"}));
    let dataset = build(&mut bench);
    assert_eq!(dropped(&dataset, "benchmark_overlap"), 2, "{dataset:#}");
    fs::remove_file(&prompts).expect("it is there");
    let args = json!({"action": "build", "project": ["shop"]});
    let error = refused(&mut bench, "datasets", args);
    assert!(error.contains("gates.prompts") && error.contains("cannot read"), "{error}");
}

#[test]
fn a_rollback_does_not_wait_for_questions_that_changed() {
    let stand = Stand::start();
    stand.expect(20);
    let prompts = stand.folder.path().join("prompts.jsonl");
    let asked = json!([{"role": "user", "content": "As JSON: the price?"}]);
    write_prompts(&prompts, &[json!({"messages": asked, "json": true})]);
    let mut bench = stand.bench(json!({"prompts": prompts}));
    let versions = [(); 2].map(|()| {
        let id = train(&mut bench);
        assert_eq!(shut(&gates(&mut bench, &id)), [""; 0]);
        run(&mut bench, "approve", json!({"version": id, "reason": "good", "by": "ada"}));
        run(&mut bench, "deploy", json!({"version": id}));
        id
    });
    write_prompts(&prompts, &[json!({"messages": asked, "contains": "8"})]);
    let back = run(&mut bench, "rollback", json!({"reason": "it is rude", "by": "ada"}));
    assert_eq!(back["restored"], versions[0], "{back:#}");
}

//! Trainers in Python: their environments, what fits, the card, and one that learns nothing. The
//! interpreter of an environment is a script here.

use std::{
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, http::Uri, routing::any};
use learning::Learning;
use module_sdk::{Reply, events::LearningRunProgressed, testing::Bench};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{
    common::{NOW, build, grant, import, refused, run},
    versions::FakeOllama,
};

/// An interpreter that takes one step, whatever program it is given.
const PYTHON: &str = r#"#!/bin/sh
n=0
say() { n=$((n+1)); printf '{"v":1,"seq":%d,"ts":0,"event":%s}\n' "$n" "$1"; }
say '"start"'; say '"progress","step":1,"max_steps":1,"loss":1.5'
echo '{}' > output/adapter_config.json; echo x > output/adapter_model.safetensors
printf 'GGUF %s' "$LODESTAR_RUN" > output/adapter.gguf
say '"done"'
"#;

fn program(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
    std::fs::write(path, text).expect("it is written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is set");
}

/// Starts the module with a converter that copies, a dataset, and a base as Llama-3.2-1B.
fn start(serving: Option<&str>) -> (Bench<Learning>, Value, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let converter = folder.path().join("lodestar-trainer");
    program(&converter, "#!/bin/sh\ncat \"$2/adapter_model.safetensors\" > \"$6\"\n");
    let mut config = json!({
        "trainer": {"program": converter}, "gates": {"examples": 20}, "eval_share": 0.3,
    });
    if let Some(url) = serving {
        config["serving"] = json!({"kind": "ollama", "base_url": url, "base": "llama3.2:1b"});
    }
    let mut bench = Bench::start(config).expect("it starts");
    bench.host().set_now(NOW.parse().expect("a time"));
    grant(&mut bench, "shop");
    import(&mut bench, 0..60);
    let dataset = build(&mut bench)["id"].clone();
    let base = bench.data_dir().join("base");
    std::fs::create_dir(&base).expect("it is made");
    let sizes = json!({
        "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192,
        "vocab_size": 128_256, "tie_word_embeddings": true,
    });
    std::fs::write(base.join("config.json"), sizes.to_string()).expect("it is written");
    let args = json!({"dataset": dataset, "base": base, "watch": true});
    (bench, args, folder)
}

/// Tells the module of a card.
fn put_card(bench: &Bench<Learning>, bytes: f64) {
    bench.host().answer("health_monitor", "gpu", move |_, _| {
        Reply::json(&json!([{"name": "NVIDIA T600", "memory_total_bytes": bytes}]))
    });
}

/// Makes an environment whose interpreter is the script.
fn put_environment(bench: &Bench<Learning>, trainer: &str, requirements: &str) {
    let folder = bench.data_dir().join("environments").join(trainer);
    program(&folder.join("bin/python"), PYTHON);
    let digest = Sha256::digest(requirements.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let made = json!({"requirements": digest, "python": "3.12.1", "at": 1});
    std::fs::write(folder.join("lodestar.json"), made.to_string()).expect("it is written");
}

fn with(args: &Value, more: Value) -> Value {
    let mut args = args.clone();
    for (key, value) in more.as_object().expect("an object") {
        args[key] = value.clone();
    }
    args
}

#[test]
fn environments_are_shown_and_named_where_they_are_missing() {
    let (mut bench, args, _folder) = start(None);
    let list = run(&mut bench, "setup", json!({}));
    let names: Vec<&str> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| {
            assert_eq!(it["state"], "missing", "{it}");
            it["trainer"].as_str().expect("a name")
        })
        .collect();
    assert_eq!(names, ["trl", "peft-plain", "unsloth", "llama-factory"]);
    for name in names {
        let error = refused(&mut bench, "train", with(&args, json!({"trainer": name})));
        assert!(error.contains(&format!("`lodestar learning setup {name}`")), "{error}");
    }
    assert_eq!(run(&mut bench, "runs", json!({})), json!([]));

    put_environment(&bench, "trl", include_str!("../../trainers/trl.txt"));
    put_environment(&bench, "peft-plain", "older versions");
    let list = run(&mut bench, "setup", json!({}));
    assert_eq!(list[0]["state"], "ready", "{list:#}");
    assert_eq!(list[0]["python"], "3.12.1");
    assert_eq!(list[1]["state"], "outdated", "{list:#}");

    let shown = run(&mut bench, "setup", json!({"trainer": "trl", "dry_run": true}));
    assert!(shown["disk_bytes"].as_u64().is_some_and(|bytes| bytes > 5_000_000_000), "{shown:#}");
    let old = json!({"trainer": "trl", "python": "/bin/false", "dry_run": true});
    let shown = run(&mut bench, "setup", old);
    let problems = shown["problems"].to_string();
    assert!(problems.contains("/bin/false does not tell its version"), "{shown:#}");
    for (name, words) in [("trll", "trl"), ("embedded", "needs no environment")] {
        let error = bench.command("setup", json!({"trainer": name})).expect_err("it is refused");
        let shown = format!("{error:?} {error}");
        assert!(shown.contains(words), "{shown}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let (mut bench, args, _folder) = start(None);
    put_card(&bench, 4.294e9);
    put_environment(&bench, "trl", include_str!("../../trainers/trl.txt"));
    let args = with(&args, json!({"trainer": "trl"}));
    let long = with(&args, json!({"max_length": 1024}));

    let shown = run(&mut bench, "train", with(&long, json!({"dry_run": true})));
    let sentence = "1.2B LoRA at 1,024 tokens needs about 4.4 GB; this card has 4.3 GB";
    assert_eq!(shown["sentence"], sentence, "{shown:#}");
    assert_eq!((&shown["fit"]["fits"], &shown["fit"]["device"]), (&json!(false), &json!("card")));
    let rows = shown["table"].as_array().expect("a table");
    let fitting = rows.iter().filter(|row| row["fits"] == true).count();
    assert!(fitting >= 4 && fitting < rows.len(), "{shown:#}");

    let error = refused(&mut bench, "train", long.clone());
    assert!(error.contains("this card has 4.3 GB"), "{error}");
    assert_eq!(run(&mut bench, "runs", json!({})), json!([]));
    for changed in [
        with(&args, json!({"max_length": 512})),
        with(&args, json!({"max_length": 1024, "method": "qlora"})),
        with(&long, json!({"force": true})),
    ] {
        let ended = run(&mut bench, "train", changed);
        assert_eq!(ended["state"], "done", "{ended:#}");
    }
    // A base that its adapters could not be converted for, before anything begins.
    let base = bench.data_dir().join("base/config.json");
    std::fs::write(base, r#"{"model_type": "gemma3"}"#).expect("it is written");
    let error = refused(&mut bench, "train", args);
    assert!(error.contains("gemma3"), "{error}");
}

/// Starts an Ollama on this machine that has two models loaded, and notes what it is asked to
/// keep.
fn ollama() -> (String, Arc<Mutex<Vec<Value>>>) {
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let noted = asked.clone();
    let handler = move |uri: Uri, body: Bytes| {
        let text = match uri.path() {
            "/api/ps" => json!({"models": [{"name": "qwen3:4b"}, {"name": "llama3.2:1b"}]}),
            _ => {
                let body = serde_json::from_slice(&body).unwrap_or_default();
                noted.lock().expect("no test panics with it").push(body);
                json!({"done": true})
            }
        };
        async move { text.to_string() }
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            sender.send(listener.local_addr().expect("it is bound")).expect("it is waited for");
            axum::serve(listener, Router::new().fallback(any(handler))).await.expect("it serves");
        });
    });
    (format!("http://{}", receiver.recv().expect("it starts")), asked)
}

#[test]
fn ollama_makes_room_on_the_card_for_a_run() {
    let (url, asked) = ollama();
    let (mut bench, args, _folder) = start(Some(&url));
    put_environment(&bench, "trl", include_str!("../../trainers/trl.txt"));
    let args = with(&args, json!({"trainer": "trl", "max_length": 256}));
    let take = || std::mem::take(&mut *asked.lock().expect("no test panics with it"));

    // Without a card nothing is taken.
    bench.host().answer("health_monitor", "gpu", |_, _| Reply::json(&json!([])));
    run(&mut bench, "train", with(&args, json!({"force": true})));
    assert_eq!(take(), [] as [Value; 0]);
    let told = |bench: &Bench<Learning>| {
        let all = bench.host().emitted_as::<LearningRunProgressed>().expect("they can be read");
        all.into_iter().map(|it| (it.state, it.on_card)).collect::<Vec<_>>()
    };
    assert!(told(&bench).iter().all(|(_, on_card)| !on_card), "{:?}", told(&bench));

    put_card(&bench, 24e9);
    run(&mut bench, "train", args);
    // Others hear of it before the first step, and that it is over.
    let told = told(&bench);
    assert!(told.contains(&("training".to_owned(), true)), "{told:?}");
    assert_eq!(told.last(), Some(&("done".to_owned(), false)));
    let asked: Vec<Value> = take();
    let names: Vec<(&str, Option<u64>)> = asked
        .iter()
        .map(|it| (it["model"].as_str().unwrap_or_default(), it["keep_alive"].as_u64()))
        .collect();
    let expected = [
        ("qwen3:4b", Some(0)),
        ("llama3.2:1b", Some(0)),
        // And back, for as long as it keeps them by itself.
        ("qwen3:4b", None),
        ("llama3.2:1b", None),
    ];
    assert_eq!(names, expected);
    assert!(!bench.data_dir().join("runs/lease.json").exists());
}

#[test]
fn what_a_crash_left_unloaded_is_loaded_by_the_next_start() {
    let (url, asked) = ollama();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let first = Bench::<Learning>::start_in(folder.path(), json!({})).expect("it starts");
    let runs = first.data_dir().join("runs");
    first.stop().expect("it stops");
    std::fs::create_dir_all(&runs).expect("it is made");
    let lease = runs.join("lease.json");
    let record = json!({"run": "r", "unloaded": [{"server": url, "model": "qwen3:4b"}]});
    std::fs::write(&lease, record.to_string()).expect("it is written");
    let second = Bench::<Learning>::start_in(folder.path(), json!({})).expect("it starts");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while lease.exists() && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    assert!(!lease.exists(), "it is given back");
    assert_eq!(
        *asked.lock().expect("no test panics with it"),
        [json!({
            "model": "qwen3:4b", "stream": false,
        })]
    );
    second.stop().expect("it stops");
}

#[test]
fn a_version_that_learnt_nothing_needs_a_person_to_say_so() {
    let has_python = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join("python3").exists())
    });
    if !has_python {
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "python3 is missing, and nothing is skipped with CI=true");
        let words = "trainers::a_version_that_learnt_nothing: python3 is not installed";
        eprintln!("SKIPPED {words}");
        if let Some(list) = std::env::var_os("LODESTAR_TEST_SKIPS") {
            let list = std::fs::OpenOptions::new().append(true).create(true).open(list);
            let noted = list.and_then(|mut list| writeln!(list, "{words}"));
            noted.expect("the list of skipped tests is writable");
        }
        return;
    }
    let server = FakeOllama::start();
    let (mut bench, args, _folder) = start(Some(&server.base_url));
    let small = json!({
        "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 32,
        "num_attention_heads": 2, "intermediate_size": 12,
    });
    let base = bench.data_dir().join("base/config.json");
    std::fs::write(base, small.to_string()).expect("it is written");
    let ended = run(&mut bench, "train", with(&args, json!({"trainer": "fake", "steps": 20})));
    assert_eq!(ended["state"], "done", "{ended:#}");
    let version = ended["version"].clone();
    let gates = run(&mut bench, "gates", json!({"version": version}));
    let open = |shown: &Value| -> Vec<String> {
        let gates = shown["gates"].as_array().expect("it has gates").iter();
        let open = gates.filter(|it| it["passed"] == false && it["overridden"].is_null());
        open.filter_map(|it| it["name"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(open(&gates), ["trainer"], "{gates:#}");
    let approve = json!({"version": version, "reason": "to see it", "by": "ada"});
    refused(&mut bench, "approve", approve.clone());
    let said = json!({"version": version, "override": "trainer", "by": "ada", "reason": "a try"});
    run(&mut bench, "gates", said);
    run(&mut bench, "approve", approve);
    let shown = run(&mut bench, "versions", json!({"action": "show", "id": version}));
    assert_eq!(shown["state"], "approved", "{shown:#}");
}

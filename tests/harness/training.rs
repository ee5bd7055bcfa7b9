//! Training for real: the trainer, a tiny base, and a project that agreed.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
};

use serde_json::{Value, json};

use crate::{Sandbox, http, program, run};

/// Project that agreed.
pub const PROJECT: &str = "shop";

/// Returns the trainer, which is built in a target folder of its own.
///
/// # Panics
///
/// When it was not built.
#[must_use]
pub fn trainer() -> PathBuf {
    let release = program("lodestard").parent().expect("it lies in a folder").to_owned();
    let trainer = release.join("../trainer/release/lodestar-trainer");
    trainer.canonicalize().expect("`cargo xtask build` built the trainer")
}

/// Returns settings of `learning` for what the tiny base learns: its answers are short and alike.
#[must_use]
pub fn settings() -> String {
    format!(
        "    trainer: {{program: {}}}\n    eval_share: 0.2\n    quality: {{min_words: 1, \
         min_chars: 1, similarity: 1.0, per_prompt: 1000}}\n",
        trainer().display()
    )
}

/// Makes a tiny base in a folder of the sandbox, with `train.jsonl` and `held_out.jsonl` in it.
///
/// # Panics
///
/// When it cannot be made.
#[must_use]
pub fn tiny_base(sandbox: &Sandbox) -> PathBuf {
    let base = sandbox.path("tiny");
    let made = run(Command::new(trainer()).arg("tiny-base").arg(&base));
    assert_eq!(made.code, 0, "{made:#?}");
    base
}

/// Returns the question and the answer of each line of a file.
///
/// # Panics
///
/// When it is no such file.
#[must_use]
pub fn conversations(file: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file).expect("the file is there");
    let content = |line: &Value, index: usize| {
        line["messages"][index]["content"].as_str().expect("a message has text").to_owned()
    };
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON"));
    lines.map(|line: Value| (content(&line, 0), content(&line, 1))).collect()
}

/// Lets a project agree, imports the examples of a tiny base and builds a dataset of them; returns
/// its id.
///
/// # Panics
///
/// When one of it fails.
#[must_use]
pub fn dataset(sandbox: &Sandbox, base: &Path) -> String {
    let lines = std::fs::read_to_string(base.join("train.jsonl")).expect("examples lie there");
    let named = |line: &str| {
        let mut line: Value = serde_json::from_str(line).expect("each line is JSON");
        line["model"] = "tiny".into();
        format!("{line}\n")
    };
    let file = sandbox.path("chats.jsonl");
    std::fs::write(&file, lines.lines().map(named).collect::<String>()).expect("it is writable");
    let learning = |words: &[&str]| sandbox.json(&[&["learning"], words].concat());
    learning(&["consent", "grant", PROJECT, "--by", "ada", "--days", "30"]);
    learning(&["consent", "attest", "tiny", "--by", "ada", "--statement", "made here"]);
    let file = file.display().to_string();
    let imported = learning(&["import", "jsonl", &file, "--project", PROJECT]);
    assert_eq!(imported["imported"], json!(lines.lines().count()), "{imported:#}");
    let built = learning(&["datasets", "build", "--project", PROJECT]);
    built["id"].as_str().expect("it was built").to_owned()
}

/// Trains the tiny base until it answers otherwise, and deploys the version, `v1`; returns the
/// address where it is asked.
///
/// # Panics
///
/// When one of it fails.
#[must_use]
pub fn deployed(sandbox: &Sandbox, base: &Path, dataset: &str) -> String {
    let learning = |words: &[&str]| sandbox.json(&[&["learning"], words].concat());
    let base = base.display().to_string();
    let words = ["train", dataset, "--base", &base, "--trainer", "embedded", "--steps", "80"];
    let trained = learning(&[&words[..], &["--rate", "0.005", "--watch"]].concat());
    assert_eq!((&trained["state"], &trained["version"]), (&json!("done"), &json!("v1")));
    let gates = learning(&["gates", "v1"]);
    assert_eq!(gates["state"], "gated", "{gates:#}");
    learning(&["approve", "v1", "--reason", "it knows our words"]);
    served_at(&learning(&["deploy", "v1"]))
}

/// Returns the address where a version is asked that was deployed.
///
/// # Panics
///
/// When it is served nowhere.
#[must_use]
pub fn served_at(deployed: &Value) -> String {
    let endpoint = deployed["endpoint"].as_str().expect("it is served somewhere");
    let address = endpoint.strip_prefix("http://").and_then(|it| it.strip_suffix("/v1"));
    address.expect("it is a base URL").to_owned()
}

/// Asks for a model at an address, and returns the answer.
///
/// # Errors
///
/// When the answer has another status, or no text: the answer as it came.
pub fn ask(address: &str, model: &str) -> Result<String, String> {
    let question = json!({"role": "user", "content": "How do you sort the queue?"});
    let body = json!({"model": model, "messages": [question], "temperature": 0});
    let answer = http::post(address, "/v1/chat/completions", &[], body.to_string().as_bytes());
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    let said = answer.json()["choices"][0]["message"]["content"].as_str().map(str::to_owned);
    said.ok_or_else(|| "an answer without a text".to_owned())
}

/// Asks for the version that serves so many times by several clients, and does some work once a
/// third was answered. Returns all answers, in their order, with the outcome of the work.
pub fn ask_while<T>(
    address: &str,
    number: usize,
    work: impl FnOnce() -> T,
) -> (Vec<Result<String, String>>, T) {
    const CLIENTS: usize = 4;
    let (begun, (answered, answers)) = (AtomicUsize::new(0), channel());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (begun, answered) = (&begun, answered.clone());
            scope.spawn(move || {
                while begun.fetch_add(1, Ordering::Relaxed) < number {
                    // Whoever counts them waits for all.
                    drop(answered.send(ask(address, "lodestar")));
                }
            });
        }
        drop(answered);
        let mut all: Vec<_> = answers.iter().take(number / 3).collect();
        let done = work();
        all.extend(answers);
        (all, done)
    })
}

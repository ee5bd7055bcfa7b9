//! Training for real: the trainer, a tiny base, and a project that agreed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{Sandbox, program, run};

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

//! The program as its supervisor sees it: arguments, events, exit codes, signals.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Returns the tiny base, which is made once.
fn base() -> &'static Path {
    static BASE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = BASE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let out = program(&["tiny-base", &folder.path().to_string_lossy()]);
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        folder
    });
    made.path()
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lodestar-trainer"));
    command.args(words).env("RAYON_NUM_THREADS", "1");
    command
}

fn program(words: &[&str]) -> Output {
    command(words).output().expect("the program starts")
}

fn job(output: &Path, steps: usize) -> Value {
    json!({
        "job_id": "test", "base": {"path": base()}, "output_dir": output,
        "dataset": {"train": base().join("train.jsonl"), "eval": base().join("held_out.jsonl")},
        "lora": {"r": 16, "alpha": 32},
        "train": {"max_steps": steps, "batch_size": 8, "lr": 5e-3, "save_every": 5},
    })
}

fn write(folder: &Path, job: &Value) -> String {
    let path = folder.join("job.json");
    fs::write(&path, job.to_string()).expect("the folder is writable");
    path.to_string_lossy().into_owned()
}

fn events(out: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&out.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn adapter(output: &Path) -> (Vec<u8>, Vec<u8>) {
    let read = |path: PathBuf| fs::read(path).expect("the adapter was written");
    (read(output.join("adapter_model.safetensors")), read(output.join("adapter.gguf")))
}

/// Starts a job, ends it by a signal once a step was told, and returns its exit code.
fn end_at(path: &str, step: u64, signal: Signal) -> Option<i32> {
    let mut child = command(&[path]).stdout(Stdio::piped()).spawn().expect("the program starts");
    let out = BufReader::new(child.stdout.take().expect("it is piped"));
    for line in out.lines() {
        let event: Value = serde_json::from_str(&line.expect("text")).expect("a line of JSON");
        if event["event"] == "progress" && event["step"] == step {
            let pid = Pid::from_child(&child);
            kill_process(pid, signal).expect("it runs");
        }
    }
    child.wait().expect("it was started").code()
}

#[test]
fn an_adapter_learns_answers_that_the_base_does_not_give() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = write(folder.path(), &job(folder.path(), 240));
    let out = program(&[&path]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let told = events(&out);
    assert!(told.iter().enumerate().all(|(seq, it)| it["seq"] == seq && it["v"] == 1));
    let of = |name: &str| told.iter().filter(|it| it["event"] == name).collect::<Vec<_>>();
    let ready = of("ready")[0];
    assert!(ready["predicted_mb"].as_u64() > Some(10) && ready["predicted_s"].as_f64() > Some(0.0));
    let losses = of("eval");
    assert!(losses[1]["loss"].as_f64() < losses[0]["loss"].as_f64(), "{losses:?}");
    assert_eq!(of("progress").len(), 240);
    assert_eq!(of("saved").len(), 1);
    let compared = events(&program(&["evaluate", &path]));
    let exact: Vec<_> = compared.iter().filter(|it| it["event"] == "eval").collect();
    assert_eq!(exact[0]["exact"], 0, "{exact:?}");
    assert!(exact[1]["exact"].as_u64() >= Some(23), "{exact:?}");
    assert_eq!(compared.iter().filter(|it| it["event"] == "answer").count(), 48);
    let out = folder.path().join("parity.json");
    let told = program(&["parity", &path, &out.to_string_lossy()]);
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    check_expected(&out, &told);
}

/// Checks what a server is compared with: an adapter that gives the kept answers expects each of
/// their tokens.
fn check_expected(out: &Path, told: &Output) {
    let text = fs::read_to_string(out).expect("it is written");
    let expected: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(expected["quantised"], false);
    let prompts = expected["prompts"].as_array().expect("a list");
    assert_eq!(prompts.len(), 24);
    let held_out = fs::read_to_string(base().join("held_out.jsonl")).expect("the base is whole");
    let (mut places, mut kept, mut changed) = (0, 0, 0);
    for (prompt, line) in prompts.iter().zip(held_out.lines()) {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let messages = line["messages"].as_array().expect("a list");
        assert_eq!(
            prompt["messages"].as_array().map(Vec::as_slice),
            messages.split_last().map(|it| it.1)
        );
        let answer = messages.last().and_then(|it| it["content"].as_str()).expect("an answer");
        let question = messages[0]["content"].as_str().expect("a question");
        assert!(prompt["text"].as_str().is_some_and(|text| text.contains(question)));
        let steps = prompt["steps"].as_array().expect("a list");
        assert!(!steps.is_empty() && steps.len() <= 12, "{steps:?}");
        assert_eq!((&steps[0]["after"], &steps[0]["tokens"]), (&json!(""), &prompt["tokens"]));
        for step in steps {
            let part = |key: &str| step[key].as_str().expect("a text").to_owned();
            let after = part("after");
            assert!(answer.starts_with(after.trim_start()), "{step}");
            let next = format!("{after}{}", part("adapter"));
            let is_end = part("adapter").is_empty() && after.trim() == answer;
            places += 1;
            kept += usize::from(is_end || answer.starts_with(next.trim_start()));
            changed += usize::from(part("adapter") != part("base"));
        }
        // Events are read by everybody, and hold no text.
        assert!(!String::from_utf8_lossy(&told.stdout).contains(question));
    }
    assert!(places >= 48 && kept * 100 >= places * 95, "{kept} of {places}");
    assert!(changed * 4 >= places, "{changed} of {places}");
}

#[test]
fn an_ended_run_resumes_to_the_same_bytes() {
    let straight = tempfile::tempdir().expect("a folder");
    let path = write(straight.path(), &job(straight.path(), 30));
    assert_eq!(program(&[&path]).status.code(), Some(0));
    for (signal, code) in [(Signal::TERM, Some(5)), (Signal::KILL, None)] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut job = job(folder.path(), 30);
        let path = write(folder.path(), &job);
        assert_eq!(end_at(&path, 7, signal), code, "{signal:?}");
        job["resume_from"] = json!(folder.path());
        job["threads"] = json!(2);
        let path = write(folder.path(), &job);
        let out = program(&[&path]);
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        let ready = events(&out).into_iter().find(|it| it["event"] == "ready").expect("it began");
        assert!(ready["step"].as_u64() >= Some(5), "{ready}");
        assert_eq!(adapter(folder.path()), adapter(straight.path()), "{signal:?}");
    }
}

#[test]
fn each_failure_has_its_exit_code_and_a_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = |text: &str| {
        let path = folder.path().join("data.jsonl");
        fs::write(&path, text).expect("the folder is writable");
        json!({"train": path})
    };
    let check = |key: &str, value: Value, code: i32, expected: &str| {
        let mut job = job(folder.path(), 1);
        job[key] = value;
        let out = program(&[&write(folder.path(), &job)]);
        assert_eq!(out.status.code(), Some(code), "{out:?}");
        let error = events(&out).pop().expect("an error");
        assert_eq!((&error["event"], &error["code"]), (&json!("error"), &json!(code)));
        assert!(error["message"].as_str().unwrap_or_default().contains(expected), "{error}");
    };
    check("method", json!("qlora"), 2, "not quantised");
    check("lora", json!({"use_dora": true}), 2, "DoRA");
    check("base", json!({"path": folder.path().join("no")}), 6, "cannot read");
    check("base", json!({"path": base(), "sha256": "00"}), 2, "digest");
    check("base", json!({"path": base().join("config.json")}), 2, "broken");
    check("dataset", json!({"train": folder.path().join("no")}), 3, "cannot read");
    check("dataset", data(""), 3, "no example");
    check("dataset", data("{\"messages\": [{\"role\": \"user\"}]}"), 3, "line 1");
    check("dataset", data("{\"messages\": [\nsecret"), 3, "line 1");
    check("limits", json!({"memory_mb": 1}), 4, "MB");
    check("limits", json!({"wall_s": 0, "disk_mb": 0}), 7, "disk_mb");
    check("resume_from", json!(base().join("model.safetensors")), 2, "none of this trainer's");
    assert_eq!(program(&["--nonsense"]).status.code(), Some(2));
    assert_eq!(
        program(&["evaluate", &write(folder.path(), &job(folder.path(), 1))]).status.code(),
        Some(6)
    );
}

#[test]
fn a_base_is_inspected_and_others_are_refused_by_name() {
    let out = program(&["inspect", &base().to_string_lossy()]);
    let told = events(&out).pop().expect("an event");
    assert_eq!((&told["architecture"], &told["method"]), (&json!("llama"), &json!("lora")));
    let folder = tempfile::tempdir().expect("a folder");
    let config = fs::read_to_string(base().join("config.json")).expect("the base is whole");
    let config: Value = serde_json::from_str(&config).expect("it is JSON");
    let check = |key: &str, value: Value, expected: &str| {
        let mut changed = config.clone();
        changed[key] = value;
        fs::write(folder.path().join("config.json"), changed.to_string()).expect("it is writable");
        let out = program(&["inspect", &folder.path().to_string_lossy()]);
        assert_eq!(out.status.code(), Some(2), "{key}: {out:?}");
        let error = events(&out).pop().expect("an error");
        assert!(error["message"].as_str().unwrap_or_default().contains(expected), "{error}");
    };
    check("model_type", json!("mamba"), "mamba");
    check("model_type", json!("qwen3_moe"), "MoE");
    check("num_local_experts", json!(8), "MoE");
    check("rope_scaling", json!({"rope_type": "yarn", "factor": 2}), "rope_scaling");
    check("attention_bias", json!(true), "attention_bias");
    check("use_sliding_window", json!(true), "sliding");
    check("hidden_act", json!("gelu"), "hidden_act");
    check("quantization_config", json!({"bits": 4}), "quantization_config");
    check("num_attention_heads", json!(3), "sizes");
}

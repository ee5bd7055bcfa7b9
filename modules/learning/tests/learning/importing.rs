//! Conversations from files.

use module_sdk::ErrorKind;
use serde_json::{Value, json};

use crate::common::{build, chat, file, import, refused, run, with_consent};

#[test]
fn a_file_is_imported_once() {
    let mut bench = with_consent();
    let first = import(&mut bench, 0..250);
    assert_eq!((&first["imported"], &first["duplicates"]), (&json!(250), &json!(0)));
    let again = import(&mut bench, 0..260);
    assert_eq!((&again["imported"], &again["duplicates"]), (&json!(10), &json!(250)));
    assert_eq!(build(&mut bench)["examples"], 260);
}

#[test]
fn a_dry_run_keeps_nothing() {
    let mut bench = with_consent();
    let path = file(&bench, "chats.jsonl", &[chat(1), chat(1), chat(2)]);
    let args = json!({"format": "jsonl", "path": path, "project": "shop", "dry_run": true});
    let told = run(&mut bench, "import", args);
    assert_eq!((&told["imported"], &told["duplicates"]), (&json!(2), &json!(1)));
    assert_eq!(build(&mut bench)["funnel"][0]["seen"], 0);
}

#[test]
fn bad_lines_are_named_and_the_others_are_kept() {
    let mut bench = with_consent();
    let secret = json!({"messages": [{"role": "user", "content": "sk-secret-1234"}]});
    let path = file(&bench, "chats.jsonl", &[chat(1), json!(7), secret, chat(2)]);
    let mut text = std::fs::read_to_string(&path).expect("it is read");
    text.push_str("{\"messages\":[{\"role\":\"user\"");
    std::fs::write(&path, text).expect("it is written");
    let args = json!({"format": "jsonl", "path": path, "project": "shop"});
    let reply = bench.command("import", args).expect("it is imported");
    let skipped = |line: u32, reason: &str| json!({"file": path, "line": line, "reason": reason});
    let expected = [
        skipped(2, "has no `messages`"),
        skipped(3, "does not end with an answer of `assistant`"),
        skipped(5, "is cut off"),
    ];
    assert_eq!(reply.data["skipped"], json!(expected));
    assert_eq!((&reply.data["imported"], &reply.data["skipped_total"]), (&json!(2), &json!(3)));
    let notes = reply.table.expect("people see it").notes.join("\n");
    assert!(notes.contains("chats.jsonl:3 does not end with"), "{notes}");
    assert!(!notes.contains("sk-secret"), "{notes}");
}

#[test]
fn transcripts_of_both_tools_are_read() {
    let mut bench = with_consent();
    let folder = bench.data_dir().join("projects/shop");
    std::fs::create_dir_all(&folder).expect("a folder");
    let copy = |name: &str| {
        let from = format!("{}/tests/transcripts/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(from, folder.join(format!("{name}.jsonl"))).expect("it is copied");
    };
    copy("claude_code");
    let args =
        |format: &str, path: Value| json!({"format": format, "path": path, "project": "shop"});
    let told = run(&mut bench, "import", args("claude-code", json!(folder)));
    assert_eq!((&told["imported"], &told["skipped_total"]), (&json!(1), &json!(1)));
    copy("codex");
    let path = json!(folder.join("codex.jsonl"));
    assert_eq!(run(&mut bench, "import", args("codex", path))["imported"], 1);
}

#[test]
fn a_path_that_cannot_be_read_is_told() {
    let mut bench = with_consent();
    let args = |path: &str| json!({"format": "jsonl", "path": path, "project": "shop"});
    let error = bench.command("import", args("/nowhere/chats.jsonl")).expect_err("it is absent");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = refused(&mut bench, "import", args("chats.jsonl"));
    assert!(error.contains("is no absolute path"), "{error}");
    let empty = bench.data_dir().join("empty");
    std::fs::create_dir_all(&empty).expect("a folder");
    let told = run(&mut bench, "import", args(&empty.display().to_string()));
    assert_eq!((&told["files"], &told["imported"]), (&json!(0), &json!(0)));
}

#[test]
fn feedback_of_a_line_counts() {
    let mut bench = with_consent();
    let (mut good, mut bad) = (chat(1), chat(2));
    (good["feedback"], bad["feedback"]) = (json!("good"), json!(0.1));
    let path = file(&bench, "chats.jsonl", &[good, bad, chat(3)]);
    run(&mut bench, "import", json!({"format": "jsonl", "path": path, "project": "shop"}));
    let dataset = build(&mut bench);
    assert_eq!((&dataset["examples"], &dataset["with_feedback"]), (&json!(2), &json!(1)));
}

//! Conversations from files.

use serde_json::json;

use crate::common::{build, chat, file, import, import_file, imported, refused, with_consent};

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
    let told = imported(&mut bench, args);
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
    let reply = import_file(&mut bench, args).expect("it is imported");
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
    let transcript = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts");
        std::fs::read(format!("{folder}/{name}.jsonl")).expect("it is read")
    };
    let (claude, codex) = (transcript("claude_code"), transcript("codex"));
    let args = |format: &str| json!({"format": format, "project": "shop"});
    let files: [(&str, &[u8]); 2] = [("projects/a.jsonl", &claude), ("projects/b.jsonl", b"")];
    let reply = bench.command_with_files("import", args("claude-code"), &files);
    let told = reply.expect("it is imported").data;
    assert_eq!((&told["imported"], &told["skipped_total"]), (&json!(1), &json!(1)));
    assert_eq!(told["files"], 2);
    let files: [(&str, &[u8]); 1] = [("projects/codex.jsonl", &codex)];
    let reply = bench.command_with_files("import", args("codex"), &files);
    assert_eq!(reply.expect("it is imported").data["imported"], 1);
}

#[test]
fn nothing_is_read_that_was_not_sent() {
    let mut bench = with_consent();
    let path = file(&bench, "chats.jsonl", &[chat(1)]);
    let args = json!({"format": "jsonl", "path": path, "project": "shop"});
    let error = refused(&mut bench, "import", args.clone());
    assert!(error.contains("reads files, which were not sent"), "{error}");
    let reply = bench.command_with_files("import", args, &[]).expect("it is imported");
    assert_eq!((&reply.data["files"], &reply.data["imported"]), (&json!(0), &json!(0)));
    assert_eq!(reply.exit_code, 1, "nothing was read");
}

#[test]
fn where_nothing_can_be_read_the_exit_code_says_so() {
    let mut bench = with_consent();
    let args = json!({"format": "jsonl", "path": "chats", "project": "shop"});
    let bad: [(&str, &[u8]); 2] = [
        ("chats/bad.jsonl", b"{\"messages\": 7}\nno JSON\n"),
        ("chats/bytes.jsonl", b"\xff\xfe\n"),
    ];
    let nothing = bench.command_with_files("import", args.clone(), &bad).expect("it answers");
    assert_eq!((nothing.exit_code, &nothing.data["skipped_total"]), (1, &json!(3)));
    let notes = nothing.table.expect("people see it").notes.join("\n");
    for named in ["bad.jsonl:1 ", "bad.jsonl:2 ", "bytes.jsonl:1 is no UTF-8"] {
        assert!(notes.contains(named), "{named}: {notes}");
    }
    // With something that can be read the others are counted.
    let good = format!("{}\n", chat(1));
    let some = [bad[0], bad[1], ("chats/good.jsonl", good.as_bytes())];
    let some = bench.command_with_files("import", args, &some).expect("it answers");
    assert_eq!((some.exit_code, &some.data["imported"]), (0, &json!(1)));
    assert_eq!(some.data["skipped_total"], 3);
}

#[test]
fn feedback_of_a_line_counts() {
    let mut bench = with_consent();
    let (mut good, mut bad) = (chat(1), chat(2));
    (good["feedback"], bad["feedback"]) = (json!("good"), json!(0.1));
    let path = file(&bench, "chats.jsonl", &[good, bad, chat(3)]);
    imported(&mut bench, json!({"format": "jsonl", "path": path, "project": "shop"}));
    let dataset = build(&mut bench);
    assert_eq!((&dataset["examples"], &dataset["with_feedback"]), (&json!(2), &json!(1)));
}

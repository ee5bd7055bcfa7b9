//! Copies of the database that is in use.

use crate::common::{NOW, bench, request, summary};
use module_sdk::{ErrorKind, testing::Bench};
use serde_json::{Value, json};
use usage_tracker::UsageTracker;

const MODEL: &str = "claude-haiku-4-5";

fn requests_in(file: &std::path::Path) -> Value {
    let directory = tempfile::tempdir().expect("a directory");
    let config = json!({"timezone": "UTC", "database": file});
    let mut bench = Bench::<UsageTracker>::start_in(directory.path(), config).expect("it starts");
    bench.host().set_now(NOW.parse().expect("a time"));
    let requests = summary(&mut bench, json!({}))["total"]["requests"].clone();
    bench.stop().expect("it stops");
    requests
}

#[test]
fn a_backup_is_a_database_to_go_on_with() {
    let mut bench = bench(json!({}));
    let elsewhere = tempfile::tempdir().expect("a directory");
    let file = elsewhere.path().join("copy.db");
    bench.send(&request("a", NOW, MODEL)).expect("it is handled");
    let reply = bench.command("backup", json!({"file": file})).expect("it is copied");
    let bytes = file.metadata().expect("it is there").len();
    assert_eq!(reply.data, json!({"file": file, "bytes": bytes}));
    let notes = reply.table.expect("people see a line").notes;
    assert!(notes[0].ends_with(&format!("written to {}", file.display())), "{notes:?}");
    bench.send(&request("b", NOW, MODEL)).expect("the module goes on");
    assert_eq!(requests_in(&file), 1);

    let error = bench.command("backup", json!({"file": file})).expect_err("it is there");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().ends_with("or replace it with --force"), "{error}");
    assert_eq!(requests_in(&file), 1, "it is as it was");
    bench.command("backup", json!({"file": file, "force": true})).expect("it is replaced");
    assert_eq!(requests_in(&file), 2);
}

#[test]
fn a_backup_lies_in_the_data_directory_where_its_path_is_relative() {
    let mut bench = bench(json!({}));
    bench.send(&request("a", NOW, MODEL)).expect("it is handled");
    let reply = bench.command("backup", json!({"file": "copy.db"})).expect("it is copied");
    let file = bench.data_dir().join("copy.db");
    assert_eq!(reply.data["file"], json!(file));
    assert_eq!(requests_in(&file), 1);
}

#[test]
fn what_cannot_be_written_is_told_with_the_remedy() {
    let mut bench = bench(json!({}));
    let mut check = |args: Value, part: &str| {
        let error = bench.command("backup", args.clone()).expect_err("it is refused").to_string();
        assert!(error.contains(part), "{args}: {error}");
    };
    check(json!({"file": "absent/copy.db"}), "check the rights and the space of its directory");
    check(json!({"file": ""}), "the file has no name");
    check(json!({}), "missing field `file`");
    check(json!({"file": "usage.db", "force": true}), "belongs to the database itself");
    // None of them is in the way of the next.
    bench.command("backup", json!({"file": "copy.db"})).expect("it is copied");
}

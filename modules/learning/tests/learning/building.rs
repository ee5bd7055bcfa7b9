//! Datasets: built, shown, compared, exported, checked.

use module_sdk::{ErrorKind, events::LearningDatasetBuilt};
use serde_json::{Value, json};

use crate::common::{build, chat, file, import, imported, refused, run, with_consent};

fn id(dataset: &Value) -> String {
    dataset["id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_dataset_is_named_by_its_lines() {
    let mut bench = with_consent();
    import(&mut bench, 0..20);
    let dataset = build(&mut bench);
    assert_eq!(id(&dataset).len(), 64);
    assert_eq!((&dataset["train"], &dataset["eval"]), (&json!(18), &json!(2)));
    assert_eq!(id(&build(&mut bench)), id(&dataset), "the same lines are the same dataset");
    let list = run(&mut bench, "datasets", json!({}));
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    assert_eq!((&list[0]["state"], &list[0]["examples"]), (&json!("ready"), &json!(20)));
    assert!(list[0]["created_at"].is_string());
    let told: Vec<LearningDatasetBuilt> = bench.host().emitted_as().expect("they are events");
    assert_eq!((told[0].dataset.clone(), told[0].train), (id(&dataset), 18));
    let shown = run(&mut bench, "datasets", json!({"action": "show", "id": &id(&dataset)[..8]}));
    assert_eq!((&shown["id"], &shown["state"]), (&dataset["id"], &json!("ready")));
    let path = dataset["path"].as_str().expect("a path");
    let meta = std::fs::read_to_string(format!("{path}/meta.jsonl")).expect("it is read");
    assert_eq!(meta.lines().count(), 20);
    assert!(!meta.contains("euros"), "no text is in it");
}

#[test]
fn a_dataset_is_checked() {
    let mut bench = with_consent();
    import(&mut bench, 0..20);
    let dataset = build(&mut bench);
    let args = json!({"action": "verify", "id": id(&dataset)});
    assert_eq!(run(&mut bench, "datasets", args.clone())["intact"], true);
    let path = format!("{}/train.jsonl", dataset["path"].as_str().expect("a path"));
    let text = std::fs::read_to_string(&path).expect("it is read");
    std::fs::write(&path, text.replacen("euros", "pounds", 1)).expect("it is changed");
    let reply = bench.command("datasets", args).expect("it answers");
    assert_eq!(reply.exit_code, 1);
    assert_eq!(reply.data["problems"][0], "train.jsonl was changed");
    // Built again it is whole again.
    build(&mut bench);
    let args = json!({"action": "verify", "id": id(&dataset)});
    assert_eq!(run(&mut bench, "datasets", args)["intact"], true);
}

#[test]
fn two_datasets_are_compared() {
    let mut bench = with_consent();
    import(&mut bench, 0..20);
    let first = id(&build(&mut bench));
    import(&mut bench, 20..25);
    let second = id(&build(&mut bench));
    let args = json!({"action": "diff", "id": first, "other": second});
    let diff = run(&mut bench, "datasets", args);
    assert_eq!((&diff["added"], &diff["removed"]), (&json!(5), &json!(0)));
    assert_eq!(diff["added_models"], json!({"qwen3:4b": 5}));
    assert_eq!(diff["same"].as_u64().zip(diff["moved"].as_u64()).map(|(a, b)| a + b), Some(20));
}

#[test]
fn every_form_is_exported() {
    let mut bench = with_consent();
    let mut bad = chat(1);
    (bad["session"], bad["feedback"]) = (json!("other"), json!("bad"));
    bad["messages"][1]["content"] = json!("I really do not know that.");
    let mut lines: Vec<Value> = (0..20).map(chat).collect();
    lines.push(bad);
    let path = file(&bench, "chats.jsonl", &lines);
    imported(&mut bench, json!({"format": "jsonl", "path": path, "project": "shop"}));
    let dataset = build(&mut bench);
    assert_eq!(dataset["pairs"], 1);
    let mut check = |form: &str, split: &str, number: usize, key: &str| {
        let args = json!({"action": "export", "id": id(&dataset), "format": form, "split": split});
        let (text, reply) = bench.stream("datasets", args).expect("it is exported");
        assert_eq!(reply.data["lines"], number, "{form}");
        assert_eq!(text.lines().count(), number, "{form}");
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).expect("it is JSON");
            assert!(line.get(key).is_some(), "{form}: {line}");
        }
    };
    check("openai", "train", 18, "messages");
    check("openai", "eval", 2, "messages");
    check("openai", "all", 20, "messages");
    check("trl", "train", 18, "completion");
    check("sharegpt", "train", 18, "conversations");
    check("alpaca", "train", 18, "instruction");
    check("preference", "train", 1, "rejected");
}

#[test]
fn nothing_left_is_told_with_the_filters() {
    let mut bench = with_consent();
    let args = json!({"action": "build", "project": ["shop"]});
    let reply = bench.command("datasets", args.clone()).expect("it answers");
    assert_eq!((reply.exit_code, &reply.data["id"]), (1, &json!(null)));
    let notes = reply.table.expect("people see it").notes;
    assert!(notes[0].starts_with("there are no examples"), "{notes:?}");
    let mut line = chat(1);
    line["model"] = json!("nobody-knows-it");
    let path = file(&bench, "chats.jsonl", &[line]);
    imported(&mut bench, json!({"format": "jsonl", "path": path, "project": "shop"}));
    let reply = bench.command("datasets", args).expect("it answers");
    assert_eq!((reply.exit_code, &reply.data["funnel"][1]["kept"]), (1, &json!(0)));
    assert_eq!(run(&mut bench, "datasets", json!({})), json!([]), "nothing is recorded");
}

#[test]
fn one_example_and_equal_ones_make_a_dataset_that_says_so() {
    let mut bench = with_consent();
    let mut other = chat(1);
    other["session"] = json!("another");
    let path = file(&bench, "chats.jsonl", &[chat(1), other]);
    imported(&mut bench, json!({"format": "jsonl", "path": path, "project": "shop"}));
    let dataset = build(&mut bench);
    assert_eq!((&dataset["train"], &dataset["eval"]), (&json!(1), &json!(0)));
    let gaps = dataset["gaps"].to_string();
    assert!(gaps.contains("nothing is held out") && gaps.contains("are few"), "{gaps}");
}

#[test]
fn ids_that_do_not_fit_are_told() {
    let mut bench = with_consent();
    let mut check = |args: Value, part: &str| {
        let error = refused(&mut bench, "datasets", args.clone());
        assert!(error.contains(part), "{args}: {error}");
    };
    check(json!({"action": "show"}), "name the dataset by its id");
    check(json!({"action": "show", "id": "abc"}), "at least 4 digits");
    check(json!({"action": "show", "id": "../x"}), "at least 4 digits");
    check(json!({"action": "show", "id": "abcd"}), "there is no dataset abcd");
    check(json!({"action": "list", "id": "abcd"}), "takes no id");
    check(json!({"action": "build", "id": "abcd"}), "takes no id");
    check(json!({"action": "build"}), "name the project");
    check(json!({"action": "list", "project": ["shop"]}), "are for `build`");
    check(json!({"action": "build", "project": ["shop"], "eval_share": 0.9}), "eval_share");
    let absent = json!({"action": "show", "id": "abcd"});
    let error = bench.command("datasets", absent).expect_err("it is absent");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_build_that_cannot_be_written_leaves_nothing() {
    let mut bench = with_consent();
    import(&mut bench, 0..5);
    let folder = bench.data_dir().join("datasets");
    std::fs::write(&folder, "in the way").expect("a file");
    let error = refused(&mut bench, "datasets", json!({"action": "build", "project": ["shop"]}));
    assert!(error.starts_with("cannot write a dataset in "), "{error}");
    assert_eq!(run(&mut bench, "datasets", json!({})), json!([]));
    std::fs::remove_file(folder).expect("it is gone");
    assert_eq!(build(&mut bench)["examples"], 5, "the next build is not in its way");
}

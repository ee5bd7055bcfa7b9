//! Text that goes: because somebody wants it, and by time.

use std::{path::Path, time::Duration};

use learning::Learning;
use module_sdk::testing::Bench;
use serde_json::{Value, json};

use crate::common::{NOW, after_days, build, dropped, grant, import, refused, run, with_consent};

/// Returns whether any file of a folder has a text in it.
fn is_anywhere(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).expect("it is read").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return is_anywhere(&path, text);
        }
        let bytes = std::fs::read(&path).expect("it is read");
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[test]
fn what_is_forgotten_is_gone_from_everywhere_and_stays_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::<Learning>::start_in(directory.path(), json!({})).expect("it starts");
    bench.host().set_now(NOW.parse().expect("a time"));
    grant(&mut bench, "shop");
    import(&mut bench, 0..10);
    std::fs::remove_file(bench.data_dir().join("chats.jsonl")).expect("it is deleted");
    let dataset = build(&mut bench);
    let dry = json!({"session": "session-7", "dry_run": true});
    let expected = json!({
        "examples": 1, "datasets": [dataset["id"]], "dry_run": true, "labels_left": false,
        "tainted": [],
    });
    assert_eq!(run(&mut bench, "forget", dry), expected);
    let told = run(&mut bench, "forget", json!({"session": "session-7"}));
    assert_eq!((&told["examples"], &told["datasets"]), (&json!(1), &json!([dataset["id"]])));
    let list = run(&mut bench, "datasets", json!({}));
    assert_eq!(
        (&list[0]["state"], &list[0]["stale"]),
        (&json!("erased"), &json!("text of it was forgotten"))
    );
    let id = dataset["id"].clone();
    let error = refused(&mut bench, "datasets", json!({"action": "export", "id": id}));
    assert!(error.contains("is gone: text of it was forgotten"), "{error}");
    let again = import(&mut bench, 0..10);
    assert_eq!((&again["imported"], &again["forgotten"]), (&json!(0), &json!(1)));
    std::fs::remove_file(directory.path().join("chats.jsonl")).expect("it is deleted");
    assert_eq!(build(&mut bench)["examples"], 9);
    // The log of the database is folded in when it closes.
    bench.command("forget", json!({"project": "shop"})).expect("it is forgotten");
    let host = bench.host().clone();
    bench.stop().expect("it stops");
    let mut bench = Bench::<Learning>::start_on(host, json!({})).expect("it starts again");
    assert_eq!(run(&mut bench, "datasets", json!({}))[0]["state"], "erased");
    assert!(!is_anywhere(directory.path(), "Order 7 costs"));
    assert!(!is_anywhere(directory.path(), "Order 3 costs"));
}

#[test]
fn a_project_and_a_time_are_forgotten() {
    let mut bench = with_consent();
    import(&mut bench, 0..10);
    let before = json!({"before": "2026-11-21T11:43:25Z"});
    let by_time = run(&mut bench, "forget", before);
    assert_eq!(by_time["examples"], 5);
    assert_eq!(run(&mut bench, "forget", json!({"project": "other"}))["examples"], 0);
    assert_eq!(run(&mut bench, "forget", json!({"project": "shop"}))["examples"], 5);
    assert_eq!(build(&mut bench)["funnel"][0]["seen"], 0);
}

#[test]
fn one_thing_is_forgotten_at_a_time() {
    let mut bench = with_consent();
    let mut check = |args: Value, part: &str| {
        let error = refused(&mut bench, "forget", args.clone());
        assert!(error.contains(part), "{args}: {error}");
    };
    check(json!({}), "say what is to be forgotten");
    check(json!({"project": "a", "session": "b"}), "say what is to be forgotten");
    check(json!({"before": "tomorrow"}), "no time that has passed");
}

#[test]
fn text_goes_after_its_days() {
    let mut bench = with_consent();
    import(&mut bench, 0..10);
    let dataset = build(&mut bench);
    after_days(&mut bench, 9);
    assert_eq!(build(&mut bench)["examples"], 10);
    after_days(&mut bench, 31);
    let later = build(&mut bench);
    assert_eq!((later["funnel"][0]["seen"].as_u64(), dropped(&later, "no_consent")), (Some(0), 0));
    let state = |bench: &mut _| run(bench, "datasets", json!({}))[0]["state"].clone();
    assert_eq!(state(&mut bench), "ready");
    after_days(&mut bench, 101);
    assert_eq!(state(&mut bench), "erased");
    let path = dataset["path"].as_str().expect("a path");
    assert!(!Path::new(&format!("{path}/train.jsonl")).exists());
    assert!(Path::new(&format!("{path}/README.md")).exists(), "the card stays");
}

#[test]
fn a_clock_that_cannot_be_right_deletes_nothing() {
    let mut bench = with_consent();
    import(&mut bench, 0..3);
    bench.host().set_now("2099-01-01T00:00:00Z".parse().expect("a time"));
    bench.advance(Duration::from_secs(600)).expect("timers run");
    bench.host().set_now("2026-11-21T12:10:00Z".parse().expect("a time"));
    assert_eq!(build(&mut bench)["examples"], 3);
}

#[test]
fn a_dataset_whose_files_are_missing_is_not_shown_as_ready() {
    let mut bench = with_consent();
    import(&mut bench, 0..3);
    let dataset = build(&mut bench);
    std::fs::remove_dir_all(dataset["path"].as_str().expect("a path")).expect("it is deleted");
    bench.advance(Duration::from_secs(600)).expect("timers run");
    let list = run(&mut bench, "datasets", json!({}));
    assert_eq!(
        (&list[0]["state"], &list[0]["stale"]),
        (&json!("erased"), &json!("its files are missing"))
    );
    build(&mut bench);
    assert_eq!(run(&mut bench, "datasets", json!({}))[0]["state"], "ready", "it is built again");
}

#[test]
fn what_a_dataset_still_holds_is_found_after_its_days() {
    let mut bench = with_consent();
    import(&mut bench, 0..10);
    let dataset = build(&mut bench);
    after_days(&mut bench, 31);
    let found = run(&mut bench, "forget", json!({"session": "session-7"}));
    assert_eq!(
        (&found["examples"], &found["datasets"]),
        (&json!(1), &json!([dataset["id"]])),
        "{found:#}"
    );
    assert_eq!(run(&mut bench, "datasets", json!({}))[0]["state"], "erased");
}

#[test]
fn text_that_went_after_its_days_can_be_imported_again_while_a_dataset_holds_it() {
    let mut bench = with_consent();
    import(&mut bench, 0..10);
    build(&mut bench);
    assert_eq!(import(&mut bench, 0..10)["duplicates"], 10, "its text is here");
    after_days(&mut bench, 31);
    grant(&mut bench, "shop");
    let again = import(&mut bench, 0..10);
    assert_eq!((&again["imported"], &again["duplicates"]), (&json!(10), &json!(0)), "{again:#}");
    assert_eq!(build(&mut bench)["examples"], 10);
    assert_eq!(import(&mut bench, 0..10)["duplicates"], 10);
    // It is kept for its days once more, and what was forgotten stays so.
    after_days(&mut bench, 45);
    assert_eq!(build(&mut bench)["funnel"][0]["seen"], 10);
    run(&mut bench, "forget", json!({"session": "session-7"}));
    grant(&mut bench, "shop");
    assert_eq!(import(&mut bench, 0..10)["forgotten"], 1);
    after_days(&mut bench, 62);
    assert_eq!(build(&mut bench)["funnel"][0]["seen"], 0);
}

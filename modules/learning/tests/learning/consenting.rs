//! Who agreed to what.

use module_sdk::ErrorKind;
use serde_json::json;

use crate::common::{
    after_days, bench, build, dropped, file, grant, import, import_file, imported, refused, run,
    with_consent,
};

#[test]
fn a_consent_is_granted_listed_and_taken_back() {
    let mut bench = bench(json!({}));
    let args = json!({"action": "grant", "name": "shop", "by": " ada ", "days": 2});
    let consent = run(&mut bench, "consent", args);
    assert_eq!((&consent["by"], &consent["state"]), (&json!("ada"), &json!("active")));
    assert_eq!(consent["expires_at"], "2026-11-23T12:00:00Z");
    let list = run(&mut bench, "consent", json!({}));
    assert_eq!(list["consents"], json!([consent]));
    let args = json!({"action": "revoke", "name": "shop", "by": "bob"});
    let revoked = run(&mut bench, "consent", args.clone());
    assert_eq!(revoked["revoked"], json!([consent["id"]]));
    let list = run(&mut bench, "consent", json!({}));
    assert_eq!(list["consents"][0]["state"], "revoked");
    assert_eq!(list["consents"][0]["revoked_by"], "bob");
    let error = bench.command("consent", args).expect_err("it is revoked");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn arguments_that_do_not_fit_are_told() {
    let mut bench = bench(json!({}));
    let mut check = |args: serde_json::Value, part: &str| {
        let error = refused(&mut bench, "consent", args.clone());
        assert!(error.contains(part), "{args}: {error}");
    };
    check(json!({"action": "grant"}), "name the project");
    check(json!({"action": "grant", "name": "shop"}), "say who agrees: --by NAME");
    check(json!({"action": "grant", "name": "shop", "by": " "}), "--by is empty");
    check(json!({"action": "grant", "name": "a\u{1b}[2J", "by": "ada"}), "cannot be seen");
    check(json!({"action": "grant", "name": "shop", "by": "ada", "days": 0}), "days");
    check(json!({"action": "list", "name": "shop"}), "takes no name");
    check(json!({"action": "attest", "name": "m", "by": "ada"}), "--statement TEXT");
    check(json!({"action": "attest"}), "name the model");
}

#[test]
fn what_nobody_agreed_to_is_not_imported() {
    let mut bench = bench(json!({}));
    let path = file(&bench, "chats.jsonl", &[]);
    let args = json!({"format": "jsonl", "path": path, "project": "shop"});
    let error = import_file(&mut bench, args.clone()).expect_err("nobody agreed");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("consent grant shop --by NAME"), "{error}");
    let grant = json!({"action": "grant", "name": "shop", "by": "ada", "scope": "capture"});
    run(&mut bench, "consent", grant);
    assert!(import_file(&mut bench, args).is_err(), "it is for requests alone");
}

#[test]
fn text_is_used_as_long_as_somebody_agrees() {
    let mut bench = with_consent();
    import(&mut bench, 0..4);
    assert_eq!(build(&mut bench)["examples"], 4);
    after_days(&mut bench, 11);
    let expired = build(&mut bench);
    assert_eq!((&expired["id"], dropped(&expired, "no_consent")), (&json!(null), 4));
    // Agreed anew, what was kept before may be used again.
    grant(&mut bench, "shop");
    assert_eq!(build(&mut bench)["examples"], 4);
}

#[test]
fn what_was_taken_back_stays_so() {
    let mut bench = with_consent();
    import(&mut bench, 0..4);
    let dataset = build(&mut bench);
    let args = json!({"action": "revoke", "name": "shop", "by": "ada"});
    let revoked = run(&mut bench, "consent", args);
    assert_eq!(revoked["stale_datasets"], json!([dataset["id"]]));
    grant(&mut bench, "shop");
    assert_eq!(dropped(&build(&mut bench), "no_consent"), 4);
    let id = dataset["id"].as_str().expect("an id");
    let error = refused(&mut bench, "datasets", json!({"action": "export", "id": id}));
    assert!(error.contains("must not be trained on: consent was revoked"), "{error}");
    let reply = bench.command("datasets", json!({"action": "verify", "id": id}));
    let reply = reply.expect("it answers");
    assert_eq!((reply.exit_code, &reply.data["intact"]), (1, &json!(false)));
}

#[test]
fn a_person_answers_for_a_model_whose_terms_are_restricted() {
    let mut bench = with_consent();
    let mut line = crate::common::chat(1);
    line["model"] = json!("openrouter/anthropic/claude-4.5-sonnet");
    let path = file(&bench, "chats.jsonl", &[line]);
    imported(&mut bench, json!({"format": "jsonl", "path": path, "project": "shop"}));
    assert_eq!(dropped(&build(&mut bench), "licence_restricted"), 1);
    let args = json!({"action": "attest", "name": "claude-sonnet-4-5", "by": "ada",
                      "statement": "written permission of 1 November"});
    assert_eq!(run(&mut bench, "consent", args)["model"], "claude-sonnet-4-5");
    let dataset = build(&mut bench);
    assert_eq!(dataset["licences"], json!({"restricted": 1}));
    assert_eq!(dataset["attestations"][0]["by"], "ada");
    let path = dataset["path"].as_str().expect("a path");
    let card = std::fs::read_to_string(format!("{path}/README.md")).expect("a card");
    assert!(card.contains("ada answers for claude-sonnet-4-5 since 2026-11-21"), "{card}");
}

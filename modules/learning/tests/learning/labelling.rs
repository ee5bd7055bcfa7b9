//! What the router learns: from signs to a policy that decides, and back. The router is one that
//! answers as the tests say.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use learning::{Learning, registry::Digest};
use module_sdk::{Error, ErrorKind, Reply, testing::Bench};
use module_sqlite::rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::{NOW, bench, ms, refused, run};

/// Returns judged requests: the local model answers every second one right.
fn judged(number: usize) -> Vec<Value> {
    (0..number)
        .map(|index| {
            let right = index % 2 == 0;
            json!({
                "id": format!("{index:032x}"), "at": ms(NOW) + index as i64,
                "project": if index % 10 == 0 { "bank" } else { "shop" },
                "session": format!("s{}", index / 4), "features": "f".repeat(64),
                "signs": [{"at": 1, "origin": "person", "local": true, "right": right}],
            })
        })
        .collect()
}

/// Returns what the log says the router is to decide by.
fn in_log(data_dir: &Path) -> Option<String> {
    let connection = Connection::open(data_dir.join("learning.db")).expect("it opens");
    let sql = "SELECT artifact FROM version JOIN version_alias ON version = id
               WHERE name = 'policy'";
    connection.query_row(sql, [], |row| row.get(0)).ok()
}

/// A router on the host of a bench.
struct FakeRouter {
    /// `true` while it does not take policies.
    refuses: Arc<AtomicBool>,
}

impl FakeRouter {
    /// Starts one with judged requests, whose policy knows `knows` of what is held back.
    fn on(bench: &Bench<Learning>, labels: usize, knows: bool) -> Self {
        let (data_dir, refuses) = (bench.data_dir().to_owned(), Arc::new(AtomicBool::new(false)));
        let is_refusing = refuses.clone();
        bench.host().answer("router", "policy", move |args, _| match args["action"].as_str() {
            Some("labels") => Reply::json(&json!({"features": 1, "labels": judged(labels)})),
            Some("train") => {
                let file = json!({"features": 1, "promise": args["promises"][0],
                    "learnt": args["train"].as_array().map(Vec::len)})
                .to_string();
                let all = args["held_out"].as_array().expect("a list");
                let held: Vec<Value> = all
                    .iter()
                    .map(|it| {
                        let is_right = it["local"] == true && knows;
                        let local_at =
                            vec![is_right; args["promises"].as_array().map_or(0, Vec::len)];
                        json!({"id": it["id"], "local": if is_right { 0.9 } else { 0.2 },
                            "paid": 0.9, "strange": false, "local_at": local_at})
                    })
                    .collect();
                Reply::json(&json!({"digest": Digest::of(file.as_bytes()), "features": 1,
                    "file": file, "held_out": held}))
            }
            Some("show" | "refresh") if is_refusing.load(Ordering::Relaxed) => {
                Err(Error::unavailable("the router does not run"))
            }
            Some("show" | "refresh") => Reply::json(&json!({"policy": in_log(&data_dir)})),
            Some("forget") => Reply::json(&json!({"labels": 1})),
            _ => Err(Error::usage("no such action")),
        });
        Self { refuses }
    }
}

fn labels(bench: &mut Bench<Learning>, args: Value) -> Value {
    run(bench, "labels", args)
}

/// Builds a set and learns a policy from it.
fn trained(bench: &mut Bench<Learning>) -> Value {
    let set = labels(bench, json!({"action": "build"}));
    labels(bench, json!({"action": "train", "id": set["id"]}))
}

fn approve(bench: &mut Bench<Learning>, id: &str) {
    let args = json!({"action": "approve", "id": id, "by": "ada", "reason": "it saves a third"});
    labels(bench, args);
}

fn asked(bench: &mut Bench<Learning>) -> Value {
    run(bench, "policy", json!({}))
}

#[test]
fn a_policy_is_learnt_approved_activated_and_taken_back() {
    let mut bench = bench(json!({}));
    let _router = FakeRouter::on(&bench, 400, true);
    let set = labels(&mut bench, json!({"action": "build"}));
    let summary = &set["summary"];
    assert_eq!((&summary["local"], &summary["local_right"]), (&json!(400), &json!(200)));
    assert_eq!(summary["sources"], json!({"person": 400}));
    assert!(summary["held_out"].as_u64().is_some_and(|held| held >= 80), "{set:#}");
    let policy = labels(&mut bench, json!({"action": "train", "id": set["id"]}));
    assert_eq!((&policy["id"], &policy["state"]), (&json!("r1"), &json!("gated")), "{policy:#}");
    assert_eq!(policy["kind"], "router_policy");
    let ways: Vec<(&str, f64)> = policy["calibration"]["ways"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|way| Some((way["name"].as_str()?, way["right"]["value"].as_f64()?)))
        .collect();
    assert_eq!(ways[0], ("policy", 1.0), "{ways:?}");
    assert!(ways.contains(&("always local", 0.5)) && ways.contains(&("always paid", 1.0)));
    assert!(ways.iter().any(|(name, right)| *name == "random" && *right < 1.0), "{ways:?}");
    // Nothing decides before a person approved it, by no door.
    assert_eq!(asked(&mut bench)["digest"], Value::Null);
    let error = bench.command("labels", json!({"action": "activate", "id": "r1"}));
    assert_eq!(error.expect_err("nobody approved it").kind(), ErrorKind::Refused);
    for command in ["deploy", "gates"] {
        let error = refused(&mut bench, command, json!({"version": "r1"}));
        assert!(error.contains("is a policy of the router"), "{error}");
    }
    approve(&mut bench, "r1");
    let active = labels(&mut bench, json!({"action": "activate", "id": "r1", "by": "ada"}));
    assert_eq!((&active["state"], &active["alias"]), (&json!("deployed"), &json!("policy")));
    let told = asked(&mut bench);
    let file = told["file"].as_str().expect("a file");
    assert_eq!(told["digest"], json!(Digest::of(file.as_bytes())));
    // A second one takes its place, and is taken back.
    assert_eq!(trained(&mut bench)["id"], "r2");
    approve(&mut bench, "r2");
    labels(&mut bench, json!({"action": "activate", "id": "r2"}));
    assert_eq!(asked(&mut bench)["version"], "r2");
    let back = json!({"action": "rollback", "reason": "too many bad answers", "by": "ada"});
    let done = labels(&mut bench, back.clone());
    assert_eq!((&done["rolled_back"], &done["restored"]), (&json!("r2"), &json!("r1")));
    assert_eq!(labels(&mut bench, back.clone())["restored"], Value::Null);
    assert_eq!(asked(&mut bench)["digest"], Value::Null);
    let error = refused(&mut bench, "labels", back);
    assert!(error.contains("nothing to take back"), "{error}");
    assert_eq!(run(&mut bench, "audit", json!({}))["intact"], true);
    let shown = labels(&mut bench, json!({}));
    assert_eq!(shown["policies"].as_array().map(Vec::len), Some(2), "{shown:#}");
    assert_eq!((&shown["active"], &shown["missing"]), (&Value::Null, &json!(0)));
}

#[test]
fn too_few_labels_are_counted_and_a_policy_that_knows_nothing_stays_shut() {
    let mut bench = bench(json!({}));
    let _router = FakeRouter::on(&bench, 180, true);
    let few = bench.command("labels", json!({"action": "build"})).expect("it answers");
    assert_eq!(
        (few.exit_code, &few.data["id"], &few.data["missing"]),
        (1, &Value::Null, &json!(70))
    );
    assert_eq!(labels(&mut bench, json!({}))["missing"], 70);
    let _router = FakeRouter::on(&bench, 400, false);
    let policy = trained(&mut bench);
    assert_eq!(policy["state"], "rejected", "{policy:#}");
    let args = json!({"action": "approve", "id": "r1", "reason": "I like it"});
    let error = refused(&mut bench, "labels", args);
    assert!(error.contains("while the version is rejected"), "{error}");
}

#[test]
fn another_file_than_the_approved_one_is_told_to_nobody() {
    let mut bench = bench(json!({}));
    let _router = FakeRouter::on(&bench, 400, true);
    trained(&mut bench);
    let path = bench.data_dir().join("versions/r1/policy.json");
    let good = std::fs::read(&path).expect("it is there");
    approve(&mut bench, "r1");
    std::fs::write(&path, "{}").expect("it is written");
    let error = refused(&mut bench, "labels", json!({"action": "activate", "id": "r1"}));
    assert!(error.contains("the artifact changed"), "{error}");
    std::fs::write(&path, good).expect("it is written");
    labels(&mut bench, json!({"action": "activate", "id": "r1"}));
    std::fs::write(&path, "{}").expect("it is written");
    let error = refused(&mut bench, "policy", json!({}));
    assert!(error.contains("not the one that was approved"), "{error}");
}

#[test]
fn a_router_that_does_not_take_a_policy_has_none() {
    let mut bench = bench(json!({}));
    let router = FakeRouter::on(&bench, 400, true);
    trained(&mut bench);
    approve(&mut bench, "r1");
    router.refuses.store(true, Ordering::Relaxed);
    let error = bench.command("labels", json!({"action": "activate", "id": "r1"}));
    assert_eq!(error.expect_err("it does not run").kind(), ErrorKind::Unavailable);
    assert_eq!(asked(&mut bench)["digest"], Value::Null);
    router.refuses.store(false, Ordering::Relaxed);
    labels(&mut bench, json!({"action": "activate", "id": "r1"}));
    // A rollback is noted whether it answers or not, and can be led to its end.
    router.refuses.store(true, Ordering::Relaxed);
    let back = json!({"action": "rollback", "reason": "rude", "by": "ada"});
    let error = refused(&mut bench, "labels", back.clone());
    assert!(error.contains("taken back"), "{error}");
    assert_eq!(asked(&mut bench)["digest"], Value::Null);
    router.refuses.store(false, Ordering::Relaxed);
    let error = refused(&mut bench, "labels", back);
    assert!(error.contains("nothing to take back"), "{error}");
}

#[test]
fn what_is_forgotten_taints_the_policies_that_were_learnt_from_it() {
    let mut bench = bench(json!({}));
    let _router = FakeRouter::on(&bench, 400, true);
    trained(&mut bench);
    approve(&mut bench, "r1");
    run(&mut bench, "forget", json!({"project": "nothing like it"}));
    assert_eq!(labels(&mut bench, json!({"id": "r1"}))["tainted"], false);
    run(&mut bench, "forget", json!({"project": "bank"}));
    let shown = labels(&mut bench, json!({"id": "r1"}));
    assert_eq!(shown["tainted"], true, "{shown:#}");
    let error = refused(&mut bench, "labels", json!({"action": "activate", "id": "r1"}));
    assert!(error.contains("tainted"), "{error}");
    let called = format!("{:?}", bench.host().called());
    assert!(called.contains("forget"), "the router is told as well: {called}");
    let set = labels(&mut bench, json!({}))["sets"][0]["id"].clone();
    let error = refused(&mut bench, "labels", json!({"action": "train", "id": set}));
    assert!(error.contains("some of it was forgotten"), "{error}");
}

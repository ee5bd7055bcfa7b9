//! Refusals whose advice is followed word by word: each leads nearer to a version that serves.

use learning::Learning;
use module_sdk::testing::Bench;
use serde_json::{Value, json};

use crate::{
    common::{grant, import, refused, run},
    versions::{FakeOllama, approve, config, train, version},
};

/// Returns the commands of `lodestar learning` in a text, without the words before.
fn commands(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|it| it.strip_prefix("lodestar learning ")).map(str::to_owned).collect()
}

/// Returns a command as the bench takes it, with something in the place of each word in capitals.
fn typed(line: &str, by: &str, experiment: &str) -> (String, Value) {
    let mut words = line.split(' ');
    let command = words.next().expect("a command").to_owned();
    let mut places: Vec<&str> = match &*command {
        "gates" | "approve" | "deploy" => vec!["version"],
        "train" => vec!["dataset"],
        "consent" => vec!["action", "name"],
        "rollback" => vec![],
        _ => vec!["action", "id"],
    };
    let mut args = json!({});
    while let Some(word) = words.next() {
        let (key, word) = match word.strip_prefix("--") {
            Some(option) => (option.replace('-', "_"), words.next().expect("it has a value")),
            None => (places.remove(0).to_owned(), word),
        };
        args[key] = match word {
            "NAME" => by.into(),
            "TEXT" => "because of the test".into(),
            "ID" => experiment.into(),
            word => word.into(),
        };
    }
    (command, args)
}

/// Deploys a version, and does what each refusal says, until it serves. Returns what was typed.
pub(crate) fn follow(bench: &mut Bench<Learning>, id: &str, experiment: &str) -> Vec<String> {
    let mut done: Vec<String> = Vec::new();
    for turn in 0..12 {
        let Err(error) = bench.command("deploy", version(id)) else { return done };
        let advice = commands(&error.to_string());
        assert!(!advice.is_empty(), "no way on: {error}");
        // Where two persons are needed each command is another one's.
        let by = format!("person {turn}");
        for line in advice {
            let (command, args) = typed(&line, &by, experiment);
            let answer = bench.command(&command, args);
            assert!(answer.is_ok(), "{error}\nwas no good advice: {line}: {answer:?}");
            done.push(line);
        }
    }
    panic!("it goes round in circles: {done:#?}");
}

fn names(done: &[String]) -> Vec<&str> {
    done.iter().map(|line| line.split(' ').next().expect("a command")).collect()
}

fn start(server: &FakeOllama, more: &Value) -> Bench<Learning> {
    let mut config = config(Some(server));
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    let bench = Bench::start(config).expect("it starts");
    bench.host().set_now(crate::common::NOW.parse().expect("a time"));
    bench
}

#[test]
fn from_training_on_and_after_a_rollback_each_refusal_leads_on() {
    let server = FakeOllama::start();
    let mut bench = start(&server, &json!({}));
    let first = train(&mut bench);
    assert_eq!(names(&follow(&mut bench, &first, "")), ["gates", "approve"]);
    let back = bench.command("rollback", json!({"reason": "rude", "by": "ada"}));
    let notes = back.expect("it is taken back").table.expect("people see it").notes.join("\n");
    assert_eq!(names(&commands(&notes)), ["gates"], "{notes}");
    assert_eq!(names(&follow(&mut bench, &first, "")), ["gates", "approve"]);

    // One that served before comes back by a rollback, and an older one by new gates.
    let second = train(&mut bench);
    assert_eq!(names(&follow(&mut bench, &second, "")), ["gates", "approve"]);
    assert_eq!(names(&follow(&mut bench, &first, "")), ["rollback"]);
    let third = train(&mut bench);
    follow(&mut bench, &third, "");
    let fourth = train(&mut bench);
    follow(&mut bench, &fourth, "");
    assert_eq!(names(&follow(&mut bench, &first, "")), ["gates", "approve"]);
    let log = run(&mut bench, "audit", json!({}));
    assert_eq!(log["intact"], true, "{log:#}");
}

#[test]
fn gates_that_are_shut_and_a_second_person_are_named() {
    let server = FakeOllama::start();
    let more = json!({
        "gates": {"examples": 1_000, "slower": 1_000.0}, "approval": {"approvals": 2},
    });
    let mut bench = start(&server, &more);
    let id = train(&mut bench);
    let done = follow(&mut bench, &id, "");
    assert_eq!(names(&done), ["gates", "versions", "gates", "approve", "approve"], "{done:#?}");
    assert!(done[2].contains("--override data_examples"), "{done:#?}");
}

#[test]
fn a_version_that_could_not_be_restored_is_measured_and_approved_anew() {
    let server = FakeOllama::start();
    let mut bench = start(&server, &json!({}));
    let first = train(&mut bench);
    follow(&mut bench, &first, "");
    let second = train(&mut bench);
    follow(&mut bench, &second, "");
    let adapter = bench.data_dir().join("versions").join(&first).join("adapter.gguf");
    let good = std::fs::read(&adapter).expect("it is there");
    std::fs::write(&adapter, "GGUF of somebody else").expect("it is written");
    let back = run(&mut bench, "rollback", json!({"reason": "rude", "by": "ada"}));
    assert_eq!(back["restored"], Value::Null, "{back:#}");
    std::fs::write(&adapter, good).expect("it is written");
    assert_eq!(names(&follow(&mut bench, &first, "")), ["gates", "approve"]);
    let log = run(&mut bench, "audit", json!({}));
    assert_eq!(log["intact"], true, "{log:#}");
}

#[test]
fn other_questions_are_asked_before_it_is_approved_again() {
    let server = FakeOllama::start();
    let folder = tempfile::tempdir().expect("a folder");
    let prompts = folder.path().join("prompts.jsonl");
    let line = |text: &str| {
        let message = json!({"role": "user", "content": format!("Price of order {text}?")});
        json!({"messages": [message], "matches": "."}).to_string()
    };
    std::fs::write(&prompts, line("seven")).expect("it is written");
    let gates = json!({"examples": 20, "slower": 1_000.0, "prompts": prompts});
    let mut bench = start(&server, &json!({"gates": gates}));
    let id = train(&mut bench);
    run(&mut bench, "gates", version(&id));
    approve(&mut bench, &id);
    std::fs::write(&prompts, line("eight")).expect("it is written");
    assert_eq!(names(&follow(&mut bench, &id, "")), ["gates", "approve"]);
}

#[test]
fn what_comes_to_nothing_says_so() {
    let server = FakeOllama::start();
    let mut bench = start(&server, &json!({}));
    let id = train(&mut bench);
    run(&mut bench, "gates", version(&id));
    approve(&mut bench, &id);
    let base = bench.data_dir().join("base.gguf");
    std::fs::write(&base, "GGUF of another base").expect("it is written");
    let error = refused(&mut bench, "deploy", version(&id));
    assert!(error.contains("put the base back as it was"), "{error}");
    std::fs::remove_file(&base).expect("it is deleted");
    let error = refused(&mut bench, "deploy", version(&id));
    assert!(error.contains("is not there any more") && error.contains("put it back"), "{error}");
    run(&mut bench, "forget", json!({"project": "shop"}));
    std::fs::write(&base, "GGUF of a base").expect("it is written");
    let error = refused(&mut bench, "deploy", version(&id));
    assert!(error.contains("tainted"), "{error}");
    assert_eq!(names(&commands(&error)), ["datasets"], "{error}");
    let error = refused(&mut bench, "rollback", json!({"reason": "rude", "by": "ada"}));
    assert!(error.contains("nothing to take back"), "{error}");
}

#[test]
fn lines_without_a_model_lead_by_messages_to_a_dataset() {
    let mut bench = crate::common::bench(json!({}));
    let lines: Vec<Value> = (0..60)
        .map(|number| {
            let mut line = crate::common::chat(number);
            line.as_object_mut().expect("an object").remove("model");
            line
        })
        .collect();
    let path = crate::common::file(&bench, "chats.jsonl", &lines);
    let args = json!({"format": "jsonl", "path": path, "project": "shop"});
    let error = crate::common::import_file(&mut bench, args.clone()).expect_err("nobody agreed");
    let error = error.to_string();
    let (command, consent) = typed(&commands(&error)[0], "ada", "");
    run(&mut bench, &command, consent);
    let imported = crate::common::import_file(&mut bench, args.clone()).expect("it is imported");
    assert_eq!((imported.exit_code, &imported.data["without_model"]), (0, &json!(60)));
    assert_eq!(imported.data["own_without_model"], 60, "{:#}", imported.data);
    let notes = imported.table.expect("people see it").notes.join("\n");
    assert!(notes.contains("60 conversations name no model and count as your own"), "{notes}");
    assert_eq!(commands(&notes), [""; 0], "nothing more is needed");

    let build = json!({"action": "build", "project": ["shop"]});
    let built = bench.command("datasets", build.clone()).expect("it is built");
    assert_eq!((built.exit_code, &built.data["remedies"]), (0, &json!([])));
    let examples = &built.data["examples"];
    assert_eq!(built.data["licences"], json!({"own": examples}));
    assert_eq!(&built.data["own_without_model"], examples, "{:#}", built.data);
    let notes = built.table.expect("people see it").notes.join("\n");
    assert!(commands(&notes)[0].starts_with("train "), "{notes}");
    let path = built.data["path"].as_str().expect("a path");
    let card = std::fs::read_to_string(format!("{path}/README.md")).expect("a card");
    let told = format!("\n{examples} examples name no model and count as your own.\n");
    assert!(card.contains(&told), "{card}");

    // Imported again they may be named; what the line names stays.
    let mut named = args;
    named["model"] = "claude-sonnet-4-5".into();
    let again = crate::common::imported(&mut bench, named);
    assert_eq!((&again["duplicates"], &again["without_model"]), (&json!(60), &json!(0)));
    let nothing = bench.command("datasets", build).expect("it answers");
    assert_eq!(nothing.exit_code, 1, "its terms restrict training: {:#}", nothing.data);
    assert_eq!(crate::common::dropped(&nothing.data, "licence_restricted"), 60);
}

#[test]
fn requests_without_a_model_lead_by_messages_to_a_dataset() {
    let mut bench = crate::common::bench(json!({}));
    grant(&mut bench, "shop");
    for number in 0..60 {
        let question = crate::common::question(number);
        let mut content = crate::common::content(&format!("k{number}"), &question);
        content.model = None;
        content.session_id = Some(format!("s{number}"));
        content.answer[0].text = crate::common::answer(number);
        bench.send(&content).expect("it is kept");
    }
    let args = json!({"action": "build", "project": ["shop"]});
    let nothing = bench.command("datasets", args.clone()).expect("it answers");
    assert_eq!((nothing.exit_code, &nothing.data["id"]), (1, &Value::Null));
    assert_eq!(nothing.data["remedies"][0]["examples"], 60, "{:#}", nothing.data);
    let notes = nothing.table.expect("people see it").notes.join("\n");
    let told = commands(&notes);
    assert_eq!(told, ["consent attest --unattributed shop --by NAME --statement TEXT"]);
    let (command, attest) = typed(&told[0], "ada", "");
    run(&mut bench, &command, attest);
    let built = bench.command("datasets", args).expect("it is built");
    assert_eq!((built.exit_code, &built.data["remedies"]), (0, &json!([])));
    assert_eq!(built.data["licences"], json!({"unknown": built.data["examples"]}));
    assert_eq!(built.data["own_without_model"], 0, "{:#}", built.data);
    assert_eq!(built.data["attestations"][0]["project"], "shop", "{:#}", built.data);
    let path = built.data["path"].as_str().expect("a path");
    let card = std::fs::read_to_string(format!("{path}/README.md")).expect("a card");
    assert!(card.contains("ada answers for answers of shop that name no model since"), "{card}");
    assert!(card.contains("- the model of some answers is not known"), "{card}");
    let twice = json!({
        "action": "attest", "name": "m", "unattributed": "shop", "by": "ada", "statement": "ours",
    });
    assert!(refused(&mut bench, "consent", twice).contains("in the place of a model"));
}

#[test]
fn a_dataset_that_is_too_small_is_trained_on_only_by_force() {
    let server = FakeOllama::start();
    let mut bench = start(&server, &json!({"eval_share": 0.0}));
    grant(&mut bench, "shop");
    import(&mut bench, 0..3);
    let base = bench.data_dir().join("base.gguf");
    std::fs::write(&base, "GGUF of a base").expect("it is written");
    let few = crate::common::build(&mut bench)["id"].clone();
    let args = |id: &Value, force: bool| {
        json!({
            "dataset": id, "base": base, "trainer": "command", "watch": true, "force": force,
        })
    };
    let error = refused(&mut bench, "train", args(&few, false));
    assert!(error.contains("has 3 examples to train on, and 8 are the fewest"), "{error}");
    assert!(error.contains("--force"), "{error}");
    import(&mut bench, 0..12);
    let whole = crate::common::build(&mut bench)["id"].clone();
    let error = refused(&mut bench, "train", args(&whole, false));
    assert!(error.contains("holds nothing out") && error.contains("--eval-share"), "{error}");
    assert_eq!(run(&mut bench, "versions", json!({})), json!([]), "nothing was noted");
    let reply = bench.command("train", args(&few, true)).expect("it is forced");
    assert_eq!(reply.data["state"], "done", "{:#}", reply.data);
    let notes = reply.table.expect("people see it").notes.join("\n");
    assert!(notes.contains("the gate data_examples wants 20"), "{notes}");
}

#[test]
fn a_base_that_cannot_be_trained_makes_no_version() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let trainer = folder.path().join("lodestar-trainer");
    let script = "#!/bin/sh\n[ \"$1\" = inspect ] || exit 9\n\
        echo '{\"event\":\"error\",\"code\":2,\"message\":\"the architecture mamba is unknown\"}'\n\
        exit 2\n";
    std::fs::write(&trainer, script).expect("it is written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&trainer, mode).expect("it is set");
    let mut bench = crate::common::bench(json!({"trainer": {"program": trainer}}));
    grant(&mut bench, "shop");
    import(&mut bench, 0..60);
    let id = crate::common::build(&mut bench)["id"].clone();
    let base = bench.data_dir().join("base.gguf");
    std::fs::write(&base, "GGUF of a base").expect("it is written");
    let error = bench.command("train", json!({"dataset": id, "base": base}));
    let error = error.expect_err("it is no base");
    assert_eq!(error.kind(), module_sdk::ErrorKind::Refused);
    for words in ["the architecture mamba is unknown", "Llama, Qwen2 or Qwen3"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    for list in ["versions", "runs"] {
        assert_eq!(run(&mut bench, list, json!({})), json!([]), "{list}");
    }
    assert_eq!(run(&mut bench, "audit", json!({}))["entries"], 0);
}

#[test]
fn what_a_run_is_not_there_for_is_told_with_what_is_next() {
    let server = FakeOllama::start();
    let mut bench = start(&server, &json!({}));
    let version = train(&mut bench);
    let id = run(&mut bench, "runs", json!({}))[0]["id"].clone();
    for action in ["resume", "stop"] {
        let error = refused(&mut bench, "runs", json!({"action": action, "id": id}));
        assert!(error.contains("is done, so that there is nothing to"), "{error}");
        assert_eq!(commands(&error), [format!("gates {version}")], "{error}");
    }
}

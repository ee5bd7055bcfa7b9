//! Learning: from who agreed to a dataset, as a person types it; and text that stays where it is.

use std::{fs, net::TcpListener, process::Stdio};

use harness::{Daemon, Output, Sandbox, http, program, training, wait_until};
use serde_json::{Value, json};

use crate::reload_faults::ISOLATIONS;

/// Text that must be nowhere but in the database and the datasets.
const CANARY: &str = "canary: the blue heron stands in the reeds";

fn sandbox(isolation: &str) -> Sandbox {
    let config = format!(
        "modules:\n  learning:\n    isolation: {isolation}\nmetrics:\n  listen: 127.0.0.1:0\n"
    );
    Sandbox::new(&["learning"], &config)
}

/// Writes conversations, each about something else, into a file that no module may open.
fn chats(sandbox: &Sandbox, number: usize) -> String {
    const THINGS: [&str; 8] =
        ["kettles", "ladders", "violins", "tractors", "candles", "maps", "beehives", "anchors"];
    let line = |number: usize| {
        let thing = THINGS[number % THINGS.len()];
        let question = format!("How many {thing} are in warehouse {number}, and who counts them?");
        let answer = format!(
            "Warehouse {number} holds {} {thing}; they are counted by team {} on day {}. {}",
            number * 7 + 3,
            number * 13 % 101,
            number % 28 + 1,
            if number == 0 { CANARY } else { "" },
        );
        let messages = json!([
            {"role": "user", "content": question}, {"role": "assistant", "content": answer},
        ]);
        json!({"messages": messages, "model": "qwen3:4b", "session": format!("s{number}")})
    };
    let path = sandbox.path("chats.jsonl");
    let text: String = (0..number).map(|number| format!("{}\n", line(number))).collect();
    std::fs::write(&path, text).expect("the sandbox is writable");
    path.display().to_string()
}

fn learning(sandbox: &Sandbox, words: &[&str]) -> Output {
    sandbox.lodestar(&[&["learning"], words].concat())
}

fn data(sandbox: &Sandbox, words: &[&str]) -> Value {
    sandbox.json(&[&["learning"], words].concat())
}

#[test]
fn a_person_goes_from_consent_to_a_dataset_and_back() {
    for isolation in ISOLATIONS {
        let sandbox = sandbox(isolation);
        let daemon = sandbox.start();
        let file = chats(&sandbox, 60);

        let refused = learning(&sandbox, &["import", "jsonl", &file, "--project", "shop"]);
        assert_ne!(refused.code, 0, "{refused:#?}");
        assert!(refused.stderr.contains("consent grant shop"), "{refused:#?}");

        data(&sandbox, &["consent", "grant", "shop", "--by", "ada", "--days", "30"]);
        let import = data(&sandbox, &["import", "jsonl", &file, "--project", "shop"]);
        assert_eq!((&import["imported"], &import["duplicates"]), (&json!(60), &json!(0)));
        let built = data(&sandbox, &["datasets", "build", "--project", "shop"]);
        let id = built["id"].as_str().expect("it was built").to_owned();
        assert!(built["examples"].as_u64().is_some_and(|examples| examples > 30), "{built:#}");

        // The same examples make the same dataset, whatever was killed in between.
        daemon.kill();
        let daemon = sandbox.start();
        let again = data(&sandbox, &["datasets", "build", "--project", "shop"]);
        assert_eq!(again["id"], id.as_str(), "{again:#}");
        let verified = learning(&sandbox, &["datasets", "verify", &id]);
        assert_eq!(verified.code, 0, "{verified:#?}");
        let exported = learning(&sandbox, &["datasets", "export", &id, "--format", "openai"]);
        let lines: Vec<Value> = exported
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect();
        assert_eq!(lines.len() as u64, built["train"].as_u64().expect("a number"));
        assert!(lines.iter().all(|line| line["messages"].as_array().is_some()), "{lines:#?}");

        data(&sandbox, &["forget", "--project", "shop"]);
        let stale = data(&sandbox, &["datasets", "show", &id]);
        assert!(stale["stale"].is_string(), "{stale:#}");
        let gone = learning(&sandbox, &["datasets", "build", "--project", "shop"]);
        assert_eq!(gone.code, 1, "{gone:#?}");
        assert!(!daemon.log().contains("heron"), "{}", daemon.log());
        assert!(daemon.stop().success());
        let outside = sandbox.state_files().into_iter().filter(|(path, bytes)| {
            !path.to_string_lossy().contains("/data/learning/")
                && bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
        });
        let outside: Vec<_> = outside.map(|(path, _)| path).collect();
        assert!(outside.is_empty(), "{outside:?}");
    }
}

/// Returns whether a job of learning runs, in the daemon or in a process of its own.
fn job_runs(daemon: &Daemon<'_>) -> bool {
    let tasks =
        |pid: u32| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let read = |task: &fs::DirEntry, file: &str| {
        fs::read_to_string(task.path().join(file)).unwrap_or_default()
    };
    let children = tasks(daemon.pid()).map(|task| read(&task, "children")).collect::<String>();
    let children = children.split(' ').filter_map(|pid| pid.parse().ok());
    let pids = children.chain([daemon.pid()]);
    pids.flat_map(tasks).any(|task| read(&task, "comm").trim_end() == "job:learning")
}

#[test]
fn whoever_sends_files_and_does_not_end_holds_up_no_stop() {
    for isolation in ISOLATIONS {
        let sandbox = sandbox(isolation);
        let daemon = sandbox.start();
        data(&sandbox, &["consent", "grant", "shop", "--by", "ada", "--days", "30"]);
        let mut command = sandbox.isolated(&program("lodestar"));
        command.args(["learning", "import", "jsonl", "-", "--project", "shop"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut sender = command.spawn().expect("it starts");
        let input = sender.stdin.take();
        wait_until("the import waits for lines", || job_runs(&daemon).then_some(()));
        let disabled = sandbox.lodestar(&["modules", "disable", "learning"]);
        assert_eq!(disabled.code, 0, "{disabled:#?}");
        let ended = sender.wait_with_output().expect("it ends");
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && told.contains("error: "), "{told}");
        drop(input);
        assert!(daemon.stop().success());
    }
}

/// Creates a sandbox whose learning takes the short answers of a tiny base.
fn training_sandbox() -> Sandbox {
    let config = format!(
        "modules:\n  learning:\n    serving: {{listen: 127.0.0.1:0}}\n{}metrics:\n  listen: \
         127.0.0.1:0\n",
        training::settings()
    );
    Sandbox::new(&["learning"], &config)
}

#[test]
fn a_version_is_trained_by_what_comes_along_and_not_deployed_by_itself() {
    let sandbox = training_sandbox();
    let daemon = sandbox.start();
    let base = training::tiny_base(&sandbox);
    let id = training::dataset(&sandbox, &base);
    let base = base.display().to_string();
    let words = ["train", &id, "--base", &base, "--steps", "6", "--watch"];
    let trained = data(&sandbox, &words);
    assert_eq!((&trained["state"], &trained["version"]), (&json!("done"), &json!("v1")));
    assert!(trained["loss"].as_f64().is_some_and(f64::is_finite), "{trained:#}");

    let deployed = learning(&sandbox, &["deploy", "v1"]);
    assert_eq!(deployed.code, 4, "{deployed:#?}");
    assert!(deployed.stderr.contains("lodestar learning gates"), "{deployed:#?}");
    let approved = learning(&sandbox, &["approve", "v1", "--reason", "now"]);
    assert_eq!(approved.code, 4, "{approved:#?}");

    // A daemon that is killed knows the version, and its log is whole.
    daemon.kill();
    let daemon = sandbox.start();
    let audit = data(&sandbox, &["audit"]);
    assert_eq!((&audit["intact"], &audit["entries"]), (&json!(true), &json!(3)), "{audit:#}");
    let versions = data(&sandbox, &["versions"]);
    assert_eq!(versions[0]["state"], "trained", "{versions:#}");
    assert!(daemon.stop().success());
}

#[test]
fn a_newcomer_goes_from_consent_to_a_version_that_answers_and_back() {
    let sandbox = training_sandbox();
    let daemon = sandbox.start();
    let base = training::tiny_base(&sandbox);
    let id = training::dataset(&sandbox, &base);
    let base = base.display().to_string();
    let words = ["train", &id, "--base", &base, "--trainer", "embedded", "--steps", "80"];
    let trained = data(&sandbox, &[&words[..], &["--rate", "0.005", "--watch"]].concat());
    assert_eq!((&trained["state"], &trained["version"]), (&json!("done"), &json!("v1")));

    let gates = data(&sandbox, &["gates", "v1"]);
    assert_eq!(gates["state"], "gated", "{gates:#}");
    let deployed = learning(&sandbox, &["deploy", "v1"]);
    assert_eq!(deployed.code, 4, "{deployed:#?}");
    assert!(deployed.stderr.contains("lodestar learning approve"), "{deployed:#?}");
    data(&sandbox, &["approve", "v1", "--reason", "it knows our words"]);
    let deployed = learning(&sandbox, &["deploy", "v1"]);
    assert_eq!(deployed.code, 0, "{deployed:#?}");
    assert!(deployed.stdout.contains("api: openai, local: true"), "{deployed:#?}");
    let deployed = data(&sandbox, &["deploy", "v1"]);
    let at = training::served_at(&deployed);
    let ask = |at: &str, model: &str| training::ask(at, model).expect("it answers");
    let of_version = ask(&at, "lodestar");
    assert_eq!(of_version, ask(&at, "lodestar:v1"));
    let of_base = ask(&at, "lodestar:base");
    assert_ne!(of_version, of_base);

    // A daemon that is killed serves again what it served.
    daemon.kill();
    let daemon = sandbox.start();
    let at = training::served_at(&data(&sandbox, &["deploy", "v1"]));
    assert_eq!(ask(&at, "lodestar"), of_version);

    let back = data(&sandbox, &["rollback", "--reason", "it is rude"]);
    assert_eq!((&back["rolled_back"], &back["restored"]), (&json!("v1"), &Value::Null));
    assert_eq!(ask(&at, "lodestar"), of_base);
    let audit = data(&sandbox, &["audit"]);
    assert_eq!(audit["intact"], true, "{audit:#}");
    assert!(!daemon.log().contains("sort the queue"), "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[test]
fn a_version_is_taken_back_and_none_of_a_thousand_requests_fails() {
    const REQUESTS: usize = 1_000;
    let sandbox = training_sandbox();
    let daemon = sandbox.start();
    let base = training::tiny_base(&sandbox);
    let at = training::deployed(&sandbox, &base, &training::dataset(&sandbox, &base));
    let ask = |model: &str| training::ask(&at, model);
    let (of_version, of_base) = (ask("lodestar"), ask("lodestar:base"));
    assert_ne!(of_version, of_base);
    let (answers, back) = training::ask_while(&at, REQUESTS, || {
        data(&sandbox, &["rollback", "--reason", "it is rude"])
    });
    assert_eq!(back["rolled_back"], "v1", "{back:#}");
    assert_eq!(answers.len(), REQUESTS);
    let failed: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
    assert_eq!(answers[0], of_version);
    let is_other = |answer: &&Result<_, _>| **answer != of_version && **answer != of_base;
    assert_eq!(answers.iter().find(is_other), None);
    // From its end on nobody gets it any more, not by its name either.
    assert_eq!(ask("lodestar"), of_base);
    assert!(ask("lodestar:v1").is_err_and(|error| error.starts_with("404")));
    assert!(daemon.stop().success());
}

/// Returns the commands of `lodestar` that an answer tells to type, without their first word.
fn advice(output: &Output) -> Vec<String> {
    let text = format!("{}{}", output.stdout, output.stderr);
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|it| it.strip_prefix("lodestar ")).map(str::to_owned).collect()
}

/// The path as a person types it, with lines that name no model, which are the person's own: what
/// is missing is told, and what is told is typed.
#[test]
fn the_path_of_a_person_leads_there_by_what_is_told() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let serving = free.local_addr().expect("it is bound");
    drop(free);
    let config = format!(
        "modules:\n  router:\n    listen: 127.0.0.1:0\n  learning:\n    serving: {{listen: \
         \"{serving}\"}}\n{}metrics:\n  listen: 127.0.0.1:0\n",
        training::settings()
    );
    let sandbox = Sandbox::new(&["router", "learning"], &config);
    let daemon = sandbox.start();
    let base = training::tiny_base(&sandbox);
    let lines = fs::read_to_string(base.join("train.jsonl")).expect("examples lie there");
    let chats = sandbox.path("chats.jsonl");
    fs::write(&chats, &lines).expect("the sandbox is writable");
    let (base, chats) = (base.display().to_string(), chats.display().to_string());

    data(&sandbox, &["consent", "grant", "shop", "--by", "ada", "--days", "30"]);
    let import = learning(&sandbox, &["import", "jsonl", &chats, "--project", "shop"]);
    assert_eq!((import.code, advice(&import)), (0, vec![]), "{import:#?}");
    let told = format!("{}{}", import.stdout, import.stderr);
    assert!(told.contains("name no model and count as your own"), "{import:#?}");
    let built = data(&sandbox, &["datasets", "build", "--project", "shop"]);
    assert_eq!(built["licences"], json!({"own": built["examples"]}), "{built:#}");
    let id = built["id"].as_str().expect("it was built");

    // What is no model makes no version.
    let no_model = learning(&sandbox, &["train", id, "--base", &chats, "--json"]);
    assert_eq!(no_model.code, 4, "{no_model:#?}");
    let error: Value = serde_json::from_str(&no_model.stderr).expect("it is JSON");
    assert_eq!(error["error"]["code"], "refused", "{error:#}");
    assert_eq!(data(&sandbox, &["versions"]), json!([]));

    let train = ["train", id, "--base", &base, "--trainer", "embedded", "--steps", "80"];
    let words = [&train[..], &["--rate", "0.005", "--watch", "--json"]].concat();
    let trained = learning(&sandbox, &words);
    let last = trained.stdout.lines().last().expect("it answers");
    let last: Value = serde_json::from_str(last).expect("the last line is JSON");
    assert_eq!((&last["version"], &last["state"]), (&json!("v1"), &json!("done")), "{last:#}");

    // A server to which no provider leads is given no sessions.
    let gates = learning(&sandbox, &["gates", "v1", "--json"]);
    assert_eq!(gates.code, 0, "{gates:#?}");
    let start = ["experiments", "start", "v1", "--by", "ada", "--reason", "is it good"];
    let refused = learning(&sandbox, &start);
    assert_eq!(refused.code, 4, "{refused:#?}");
    assert!(refused.stderr.contains("no provider leads to"), "{refused:#?}");

    // Each refusal of `deploy` says what to type, until it serves.
    let deployed = (0..5).find_map(|_| {
        let deployed = learning(&sandbox, &["deploy", "v1"]);
        if deployed.code == 0 {
            return Some(deployed);
        }
        assert_eq!(deployed.code, 4, "{deployed:#?}");
        for command in advice(&deployed) {
            let command = command.replace("NAME", "ada").replace("TEXT", "good");
            let done = sandbox.lodestar(&command.split(' ').collect::<Vec<_>>());
            assert_eq!(done.code, 0, "{command}: {done:#?}");
        }
        None
    });
    let deployed = deployed.expect("it is deployed");
    // The provider that it names is known once both were reloaded.
    let (_, provider) = deployed.stdout.split_once("add `").expect("it names a provider");
    let (provider, _) = provider.split_once('`').expect("it ends");
    sandbox.configure(&format!("{config}providers:\n  {provider}\n"));
    let told = advice(&deployed);
    let reloads: Vec<&String> = told.iter().filter(|it| it.starts_with("modules reload")).collect();
    assert_eq!(reloads.len(), 2, "{told:?}");
    // Who reloads a module before the daemon took the file gets what was there.
    wait_until("the daemon took the file", || {
        let keeps = ["learning", "router"].map(|it| daemon.module(it)["reason"].is_string());
        keeps.iter().all(|it| *it).then_some(())
    });
    for command in &reloads {
        let done = sandbox.lodestar(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(done.code, 0, "{command}: {done:#?}");
    }
    assert_eq!(data(&sandbox, &["deploy", "v1"])["provider"], "tuned");
    let router = daemon.address("router", "http");
    let question = json!({"role": "user", "content": "How do you sort the queue?"});
    let body = json!({"model": "lodestar", "messages": [question]}).to_string();
    let asked = wait_until("the router knows the model", || {
        let answer = http::post(&router, "/v1/chat/completions", &[], body.as_bytes()).ok()?;
        (answer.status == 200).then_some(answer)
    });
    assert!(asked.json()["choices"][0]["message"]["content"].is_string(), "{}", asked.text());

    data(&sandbox, &["rollback", "--reason", "only to show it"]);
    let audit = data(&sandbox, &["audit"]);
    assert_eq!(audit["intact"], true, "{audit:#}");
    assert!(audit["last"][0]["at"].is_string(), "{audit:#}");
    assert!(daemon.stop().success());
}

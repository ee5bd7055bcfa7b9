//! Calls between modules, and of modules to the host, for all kinds of isolation.

use std::thread;

use harness::{Daemon, Sandbox, wait_until};
use serde_json::{Value, json};

/// Isolation of the caller and the callee.
const PLACES: [(&str, &str); 3] =
    [("in_process", "in_process"), ("process", "in_process"), ("in_process", "process")];

fn sandbox(caller: &str, callee: &str) -> Sandbox {
    let config = format!(
        "modules:\n  caller: {{isolation: {caller}}}\n  callee: {{isolation: {callee}}}\n  \
         ingest:\n    listen: 127.0.0.1:0\n  previous_sdk: {{}}\nmetrics:\n  listen: 127.0.0.1:0\n"
    );
    Sandbox::new(&["caller", "callee", "ingest", "previous_sdk"], &config)
}

/// Runs a command that streams, and returns its answer, the last line of its output.
fn streamed(sandbox: &Sandbox, args: &[&str]) -> Value {
    let output = sandbox.lodestar(&[args, &["--json"]].concat());
    assert_eq!(output.code, 0, "{output:#?}");
    let answer = output.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {output:#?}"))
}

/// Makes a module call a command, and returns the outcome.
fn ask_with(sandbox: &Sandbox, module: &str, whom: (&str, &str), rest: (&Value, u64)) -> Value {
    let ((target, command), (args, deadline)) = (whom, (rest.0.to_string(), rest.1.to_string()));
    let words = [module, "ask", "--target", target, "--command", command, "--args", &args];
    streamed(sandbox, &[&words[..], &["--deadline-ms", &deadline]].concat())
}

fn ask(sandbox: &Sandbox, target: &str, command: &str, args: &Value) -> Value {
    ask_with(sandbox, "caller", (target, command), (args, 0))
}

/// Checks that a call failed with this kind of error and these words.
fn check_failed(told: &Value, kind: &str, words: &str) {
    let message = told["message"].as_str().unwrap_or_default();
    assert!(told["error"] == kind && message.contains(words), "not {kind}, {words}: {told}");
}

#[test]
fn a_module_calls_another_one_wherever_they_run() {
    for (caller, callee) in PLACES {
        let sandbox = sandbox(caller, callee);
        let daemon = sandbox.start();
        let answer = ask(&sandbox, "callee", "echo", &json!({"value": 7}));
        assert_eq!(answer, json!({"answer": 7}), "{caller} {callee}\n{}", daemon.log());
        // One that was built before modules could call each other answers like any other.
        let report = ask(&sandbox, "previous_sdk", "report", &json!({}));
        assert_eq!(report["answer"]["events"], 0, "{report}");
        let lines = json!({"lines": 300}).to_string();
        let words = ["caller", "copy", "--target", "callee", "--command", "lines", "--args"];
        let copied = streamed(&sandbox, &[&words[..], &[&lines]].concat());
        assert_eq!(copied, json!([300, true, 300, "whole"]), "{caller} {callee}");
        let many = ["caller", "ask_at_once", "--target", "callee", "--calls", "3000"];
        let all = streamed(&sandbox, &many);
        assert_eq!(all, 3000, "{caller} {callee}");
        whatever_goes_wrong_is_told(&sandbox, &daemon);
    }
}

fn whatever_goes_wrong_is_told(sandbox: &Sandbox, daemon: &Daemon<'_>) {
    let fails = |target: &str, command: &str, args: Value, kind: &str, words: &str| {
        check_failed(&ask(sandbox, target, command, &args), kind, words);
    };
    fails("callee", "nothing", json!({}), "not_found", "there is no command \"nothing\"");
    fails("callee", "echo", json!({"value": "x"}), "usage", "value: invalid type");
    fails("nobody", "there", json!({}), "not_found", "there is no module \"nobody\"");
    let grant = "add \"ingest.stats\" to `calls` under [capabilities] in its module.toml";
    fails("ingest", "stats", json!({}), "refused", grant);
    let here = ["caller", "ask_here", "--target", "callee", "--command", "events"];
    check_failed(&sandbox.json(&here), "usage", "answer the command with a `Job`");
    // A panic there is none here.
    fails("callee", "panic", json!({}), "failed", "callee panicked in panic");
    daemon.wait_state("callee", "running");
    assert_eq!(daemon.module("caller")["restarts"], 0);
    // Whoever answers learns that nobody waits any more.
    let begun = ["caller", "drop_begun", "--target", "callee", "--command", "hang"];
    assert_eq!(streamed(sandbox, &begun), true);
    wait_until("the callee has given up", || {
        (sandbox.json(&["callee", "given_up"]) == 1).then_some(())
    });
    let hang = ask_with(sandbox, "caller", ("callee", "hang"), (&json!({}), 200));
    check_failed(&hang, "timed_out", "callee.hang did not answer caller within 200 ms");
    assert_eq!(sandbox.lodestar(&["modules", "disable", "callee"]).code, 0);
    fails("callee", "echo", json!({"value": 1}), "unavailable", "callee is disabled; enable it");
}

/// Returns the arguments of `ask` for a command with these arguments.
fn arguments(target: &str, command: &str, args: &Value) -> Value {
    json!({"target": target, "command": command, "args": args.to_string()})
}

#[test]
fn calls_that_go_in_a_circle_are_cut_and_named() {
    let sandbox = sandbox("in_process", "process");
    let daemon = sandbox.start();
    let ring = ask(&sandbox, "callee", "ring", &json!({"target": "caller", "command": "ring"}));
    check_failed(&ring, "failed", "calls may be nested 16 deep; do these go in a circle?");
    check_failed(&ring, "failed", "callee.ring > caller.ring > callee.ring");
    // One that nobody answers ends with the deadline of the first, which says how it went.
    let hang = arguments("caller", "hang", &json!({}));
    let hang = arguments("caller", "ask", &arguments("callee", "ask", &hang));
    // On a busy machine the way is not gone to its end within the first of them.
    let told = [500, 5_000, 50_000].into_iter().find_map(|deadline| {
        let told = ask_with(&sandbox, "caller", ("callee", "ask"), (&hang, deadline));
        check_failed(&told, "timed_out", "callee.ask did not answer caller within");
        let message = told["message"].as_str().unwrap_or_default().to_owned();
        message.contains("caller.hang").then_some(message)
    });
    let told = told.expect("the last call is named");
    assert!(told.contains("callee.ask > caller.ask > callee.ask > caller.hang"), "{told}");
    assert!(told.contains("these calls go in a circle"), "{told}");
    assert!(daemon.lives(), "{}", daemon.log());
}

/// Waits until the callee has answered more calls.
fn answers_more(sandbox: &Sandbox) {
    let answered = || {
        let info = sandbox.json(&["modules", "info", "callee"]);
        let calls = info["calls"].as_array()?.iter().find(|it| it["kind"] == "command")?;
        calls["calls"].as_u64()
    };
    let before = answered().unwrap_or(0);
    wait_until("calls are answered", || answered().filter(|now| *now > before + 100));
}

#[test]
fn a_reload_of_either_side_costs_one_call_at_most() {
    for (caller, callee) in PLACES {
        let sandbox = sandbox(caller, callee);
        let daemon = sandbox.start();
        for reloaded in ["callee", "caller"] {
            let asking = ["caller", "ask_in_turn", "--target", "callee", "--calls", "100000000"];
            let told = thread::scope(|scope| {
                let told = scope.spawn(|| streamed(&sandbox, &asking));
                answers_more(&sandbox);
                sandbox.replace_library(reloaded, b'1');
                let reload = sandbox.lodestar(&["modules", "reload", reloaded]);
                assert_eq!(reload.code, 0, "{reload:?}\n{}", daemon.log());
                if reloaded == "callee" {
                    answers_more(&sandbox);
                    assert_eq!(sandbox.json(&["caller", "enough"]), true);
                }
                told.join().expect("no panic")
            });
            let failed = told["failed"].as_array().expect("a list");
            let of_another_kind = failed.iter().any(|it| it["error"] != "unavailable");
            // The generation that stops calls nobody any more, whatever its job goes on to try.
            let few = reloaded == "caller" || failed.len() <= 1;
            assert!(few && !of_another_kind, "{caller} {callee} {reloaded}: {failed:?}");
            let answered = told["answered"].as_u64().expect("a number");
            assert!(answered > 0, "{told}");
            let again = ask(&sandbox, "callee", "echo", &json!({"value": 7}));
            assert_eq!(again, json!({"answer": 7}), "{reloaded}");
        }
    }
}

#[test]
fn the_host_answers_what_the_control_api_knows() {
    let sandbox = sandbox("process", "in_process");
    let daemon = sandbox.start();
    let host = |command: &str, args: Value| ask(&sandbox, "host", command, &args);
    let status = host("status", json!({}));
    assert_eq!(status["answer"]["pid"], daemon.pid(), "{status}");
    let brief = host("status", json!({"brief": true}));
    let known = |status: &Value| -> Vec<Value> {
        let modules = status["answer"]["modules"].as_array().expect("it is a list").iter();
        let known = |it: &Value| json!([it["name"], it["desired"], it["state"], it["listeners"]]);
        modules.map(known).collect()
    };
    assert_eq!(known(&brief), known(&status), "{brief}");
    assert!(brief["answer"]["modules"][0]["calls"].as_array().is_none_or(Vec::is_empty));
    let list = host("modules.list", json!({}));
    assert_eq!(list["answer"].as_array().map(Vec::len), Some(4), "{list}");
    for command in ["modules.info", "modules.why"] {
        let told = host(command, json!({"name": "callee"}));
        assert_eq!(told["answer"]["state"], "running", "{command}: {told}");
        check_failed(&host(command, json!({})), "usage", "missing field `name`");
        check_failed(&host(command, json!({"name": "../x"})), "not_found", "no module");
    }
    assert!(host("events.lag", json!({}))["answer"].is_array());
    assert!(host("events.audit", json!({}))["answer"].is_array());
    let config = host("config.show", json!({}));
    let modules = &config["answer"]["modules"];
    assert!(modules["ingest"]["listen"] == "127.0.0.1:0", "{config}");
    assert!(config["answer"].get("text").is_none(), "{config}");
    check_failed(&host("reboot", json!({})), "not_found", "the host has no command \"reboot\"");
}

#[test]
fn who_operates_the_daemon_is_allowed_to_and_written_down() {
    let sandbox = sandbox("in_process", "process");
    let daemon = sandbox.start();
    let ingest = json!({"name": "ingest"});
    let refused = ask(&sandbox, "host", "modules.disable", &ingest);
    check_failed(&refused, "refused", "add `control = \"operate\"` under [capabilities]");
    assert_eq!(daemon.module("ingest")["state"], "running");
    let operate =
        |command: &str| ask_with(&sandbox, "callee", ("host", command), (&ingest, 60_000));
    let done = operate("modules.disable");
    assert_eq!(done["answer"]["actor"], "module callee", "{done}");
    assert_eq!(done["answer"]["state"], "done", "{done}");
    assert_eq!(daemon.module("ingest")["state"], "disabled");
    assert!(sandbox.configuration().contains("enabled: false"), "{}", sandbox.configuration());
    let why = sandbox.json(&["modules", "why", "ingest"]);
    assert!(why.to_string().contains("disable, by module callee"), "{why}");
    assert_eq!(operate("modules.enable")["answer"]["state"], "done");
    daemon.wait_state("ingest", "running");
    let person = sandbox.json(&["modules", "reload", "ingest"]);
    let user = format!("user {}", rustix::process::geteuid().as_raw());
    assert_eq!(person["actor"], user, "{person}");
}

#[test]
fn an_installed_module_operates_by_the_operators_word_only() {
    let sandbox = Sandbox::new(&["ingest"], "modules:\n  ingest:\n    listen: 127.0.0.1:0\n");
    let package = sandbox.path("package/callee");
    std::fs::create_dir_all(&package).expect("the sandbox is writable");
    let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/callee");
    std::fs::copy(manifest.join("module.toml"), package.join("module.toml")).expect("it is there");
    std::fs::write(package.join("libcallee.so"), harness::library("callee")).expect("writable");
    let daemon = sandbox.start();
    let package = package.display().to_string();
    let installed = sandbox.lodestar(&["modules", "install", &package]);
    assert_eq!(installed.code, 0, "{installed:?}");
    assert!(installed.stdout.contains("asks to call caller.*, host.status"), "{installed:?}");
    assert!(installed.stdout.contains("only with `control: operate`"), "{installed:?}");
    assert_eq!(sandbox.lodestar(&["modules", "enable", "callee"]).code, 0);
    let ingest = json!({"name": "ingest"});
    let reload = || ask_with(&sandbox, "callee", ("host", "modules.reload"), (&ingest, 60_000));
    check_failed(&reload(), "refused", "write `control: operate` into its section");
    let allowed = sandbox.configuration().replace("  callee:", "  callee:\n    control: operate");
    assert!(allowed.contains("control: operate"), "{allowed}");
    sandbox.configure(&allowed);
    wait_until("the word of the operator counts", || {
        (reload()["answer"]["state"] == "done").then_some(())
    });
    assert!(daemon.lives());
}

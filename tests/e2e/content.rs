//! The text of requests: published only if the operator allows it twice, shown only on request.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use harness::{Output, Sandbox, http, program, wait_until};
use serde_json::{Value, json};

use crate::reload_faults::ISOLATIONS;

const TEXT: &str = "canary-what-a-person-asked";

fn config(isolation: &str, privacy: &str) -> String {
    format!(
        "modules:\n  witness:\n    isolation: {isolation}\nmetrics:\n  listen: 127.0.0.1:0\n\
         privacy: {privacy}\n"
    )
}

fn emit(sandbox: &Sandbox, project: &str) -> Output {
    sandbox.lodestar(&["witness", "emit", "--project", project, "--text", TEXT])
}

#[test]
fn text_needs_the_switch_and_the_project() {
    for isolation in ISOLATIONS {
        for (privacy, project, reason, words) in [
            ("{}", "shop", "full_logging_off", "`privacy.full_logging` is off"),
            ("{full_logging_projects: [shop]}", "shop", "full_logging_off", "is off"),
            ("{full_logging: true}", "shop", "project_not_named", "full_logging_projects"),
            (
                "{full_logging: true, full_logging_projects: [bank]}",
                "shop",
                "project_not_named",
                "full_logging_projects",
            ),
        ] {
            let sandbox = Sandbox::new(&["witness"], &config(isolation, privacy));
            let daemon = sandbox.start();
            let given = emit(&sandbox, project);
            assert_eq!(given.code, 1, "{isolation} {privacy}: {given:#?}");
            assert!(given.stderr.contains(words), "{isolation} {privacy}: {given:#?}");
            let metrics =
                http::get(&daemon.address("", "metrics"), "/metrics").expect("it answers").text();
            let line = format!(
                "lodestar_module_refused_events_total{{module=\"witness\",reason=\"{reason}\"}} 1"
            );
            assert!(metrics.lines().any(|it| it == line), "{line} in {metrics}");
            assert_eq!(sandbox.json(&["witness", "seen"]), json!([]));
            assert!(!daemon.log().contains(TEXT), "{}", daemon.log());
            let doctor = sandbox.lodestar(&["doctor"]).stdout;
            let is_on = privacy.contains("full_logging: true");
            assert_eq!(doctor.contains("`privacy.full_logging` is on"), is_on, "{doctor}");
            assert!(daemon.stop().success());
            let kept = sandbox.state_files().into_iter();
            let kept = kept.filter(|(_, bytes)| contains(bytes, TEXT)).collect::<Vec<_>>();
            assert!(kept.is_empty(), "{:?}", kept.iter().map(|(path, _)| path).collect::<Vec<_>>());
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn text_that_is_published_shows_as_its_size() {
    let privacy = "{full_logging: true, full_logging_projects: [shop]}";
    let sandbox = Sandbox::new(&["witness"], &config("in_process", privacy));
    let daemon = sandbox.start();
    let shown = tail(&sandbox, &[]);
    assert!(shown["data"]["bytes"].as_u64().is_some_and(|bytes| bytes > 50), "{shown:#}");
    assert_eq!(shown["subject"], "shop");
    assert!(!shown.to_string().contains(TEXT), "{shown:#}");
    let asked = tail(&sandbox, &["--content"]);
    assert_eq!(asked["data"]["request"][0]["text"], TEXT, "{asked:#}");
    assert!(!daemon.log().contains(TEXT), "{}", daemon.log());
    let seen = sandbox.json(&["witness", "seen"]);
    assert_eq!(seen[0]["data"]["request"][0]["text"], TEXT, "{seen:#}");
    assert!(daemon.stop().success());
}

/// Returns the first event that a tail shows; emits events until it shows one.
fn tail(sandbox: &Sandbox, more: &[&str]) -> Value {
    let mut tail = sandbox.isolated(&program("lodestar"));
    tail.args(["events", "tail", "-n", "1", "--json"]).args(more).stdout(Stdio::piped());
    let mut tail = tail.spawn().expect("the program starts");
    let output = tail.stdout.take().expect("it is piped");
    let (sender, line) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let line = BufReader::new(output).lines().next().transpose();
        sender.send(line.ok().flatten())
    });
    let line = wait_until("the tail shows an event", || {
        let given = emit(sandbox, "shop");
        assert_eq!(given.code, 0, "{given:#?}");
        line.recv_timeout(Duration::from_millis(50)).ok()
    });
    assert!(tail.wait().expect("it ends").success());
    serde_json::from_str(&line.expect("a line")).expect("JSON")
}

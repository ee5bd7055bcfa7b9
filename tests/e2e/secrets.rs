//! Reasons that a module gives: they are shown without its secrets.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Child,
    thread,
};

use harness::{Daemon, Sandbox, http, program, telemetry, wait_until};

use crate::reload_faults::ISOLATIONS;

/// Secret in no known format of keys.
const SECRET: &str = "correct-horse-battery";

/// Places where a reason is shown, with the text there.
type Written = Vec<(PathBuf, Vec<u8>)>;

#[test]
fn no_secret_stands_in_a_reason() {
    // What goes wrong, and where it must be told, so that nothing passes by being silent.
    let faults = [
        ("start_fails", "modules why misbehaver"),
        ("start_panics", "modules why misbehaver"),
        ("event_panics", "modules why misbehaver"),
        ("timer_panics", "modules why misbehaver"),
        ("event_fails", "events dead"),
        ("health_panics", "status"),
        ("health_degrades", "status"),
    ];
    thread::scope(|scope| {
        for isolation in ISOLATIONS {
            scope.spawn(move || {
                for (fault, told) in faults {
                    told_without_secret(isolation, fault, told);
                }
            });
        }
    });
}

fn told_without_secret(isolation: &str, fault: &str, told: &str) {
    let sandbox = sandbox(isolation, fault);
    let mut command = sandbox.lodestard();
    command.env("A_TOKEN", SECRET);
    let daemon = Daemon::spawn(&sandbox, command);
    daemon.wait_settled();
    let mut tail = tail(&sandbox);
    let seen = || fs::read_to_string(sandbox.path("tail")).unwrap_or_default();
    let changes_state = fault != "event_fails";
    let mut number = 0;
    wait_until(&format!("{fault} is told"), || {
        number += 1;
        send(&daemon, &format!("{fault}-{number}"));
        let shown = shown(&sandbox, told).contains("[redacted]");
        let seen = seen().contains("[redacted]");
        // It begins to look at some moment after its start: what was told is told once more.
        if changes_state && shown && !seen {
            let _ = sandbox.lodestar(&["modules", "disable", "misbehaver"]);
            let _ = sandbox.lodestar(&["modules", "enable", "misbehaver"]);
        }
        (shown && (seen || !changes_state)).then_some(())
    });
    let mut written = everything(&sandbox);
    tail.kill().expect("it is ours");
    tail.wait().expect("it is ours");
    written.push(("the tail".into(), seen().into_bytes()));
    assert!(daemon.stop().success());
    written.extend(sandbox.state_files());
    let log = fs::read(sandbox.path("lodestard.log")).expect("it logs");
    written.push(("the log".into(), log));
    for (place, bytes) in written {
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "{isolation}, {fault}: the secret is in {}", place.display());
    }
}

fn sandbox(isolation: &str, fault: &str) -> Sandbox {
    let config = format!(
        "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  misbehaver:\n    isolation: \
         {isolation}\n    fault: {fault}\n    tells_secret: true\n    secrets: {{token: \
         '${{A_TOKEN}}'}}\n    restart: {{limit: 1000, backoff_max_ms: 1}}\nlog:\n  level: \
         trace\nmetrics:\n  listen: 127.0.0.1:0\n"
    );
    Sandbox::new(&["ingest", "misbehaver"], &config)
}

fn send(daemon: &Daemon<'_>, id: &str) {
    let body = telemetry::claude_code("s", id).to_string();
    let address = daemon.address("ingest", "http");
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
}

/// Writes every event of modules to the file `tail`.
fn tail(sandbox: &Sandbox) -> Child {
    let mut tail = sandbox.isolated(&program("lodestar"));
    let file = File::create(sandbox.path("tail")).expect("the sandbox is writable");
    tail.args(["events", "tail", "--json", "module.>"]).stdout(file);
    tail.spawn().expect("it is built")
}

fn shown(sandbox: &Sandbox, command: &str) -> String {
    let args: Vec<&str> = command.split(' ').chain(["--json"]).collect();
    sandbox.lodestar(&args).stdout
}

/// Returns all output of the command line about modules, including errors of their commands.
fn everything(sandbox: &Sandbox) -> Written {
    let mut written = Written::new();
    for command in [
        "status",
        "doctor",
        "modules list",
        "modules info misbehaver",
        "modules why misbehaver",
        "modules logs misbehaver",
        "events dead",
        "misbehaver fail",
        "misbehaver panic",
    ] {
        let args: Vec<&str> = command.split(' ').collect();
        let output = sandbox.lodestar(&args);
        written.push((command.into(), [output.stdout, output.stderr].concat().into_bytes()));
        written.push((format!("{command} --json").into(), shown(sandbox, command).into_bytes()));
    }
    written
}

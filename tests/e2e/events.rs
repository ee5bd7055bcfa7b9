//! Display of events, and their handling while a subscriber is away.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use harness::{Daemon, Sandbox, http, program, telemetry, wait_until};
use serde_json::Value;

fn post(address: &str, id: &str) {
    let body = telemetry::claude_code("s", id).to_string();
    let answer = http::post(address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
}

#[test]
fn events_wait_for_a_disabled_module() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    post(&address, "before");
    assert_eq!(sandbox.lodestar(&["modules", "disable", "usage_tracker"]).code, 0);
    for number in 0..20 {
        post(&address, &format!("while-{number}"));
    }
    let waiting = daemon.module("usage_tracker");
    assert_eq!(waiting["events"]["pending"], 20, "{waiting:#}");
    // They wait across a restart as well.
    assert!(daemon.stop().success());
    let daemon = sandbox.start();
    assert_eq!(daemon.module("usage_tracker")["events"]["pending"], 20);
    post(&daemon.address("ingest", "http"), "after");
    assert_eq!(sandbox.lodestar(&["modules", "enable", "usage_tracker"]).code, 0);
    wait_until("all are counted", || {
        (sandbox.json(&["usage", "summary"])["total"]["requests"] == 22).then_some(())
    });
    let counters = daemon.module("usage_tracker")["events"].clone();
    assert_eq!(
        (&counters["accepted"], &counters["handled"]),
        (&22.into(), &22.into()),
        "{counters}"
    );
}

#[test]
fn what_a_disk_loses_is_told_and_costs_no_more() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    assert_eq!(sandbox.lodestar(&["modules", "disable", "usage_tracker"]).code, 0);
    let address = daemon.address("ingest", "http");
    (0..30).for_each(|number| post(&address, &format!("kept-{number}")));
    daemon.kill();

    // One byte of the newest segment, and the places of the modules in the ledger, both copies.
    let ledger = sandbox.state().join("ledger");
    let files = fs::read_dir(ledger.join("segments")).expect("a directory");
    let newest = files.map(|file| file.expect("an entry").path()).max().expect("a segment");
    let mut bytes = fs::read(&newest).expect("a segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&newest, bytes).expect("it is ours");
    for name in ["subscriptions.json", "subscriptions.copy.json"] {
        fs::write(ledger.join(name), b"").expect("it is ours");
    }

    for _ in 0..2 {
        // What was found is told by the next start as well.
        let daemon = sandbox.start();
        let losses = daemon.status().expect("it answers")["ledger"]["losses"].clone();
        let kinds: Vec<_> = losses.as_array().expect("a list").iter().map(kind).collect();
        assert_eq!(kinds, ["damaged", "subscriptions"], "{losses:#}");
        let newest = newest.file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(losses[0]["file"], newest.as_str(), "{losses:#}");
        assert_eq!(losses[0]["first"], losses[0]["last"], "{losses:#}");
        for command in ["status", "doctor"] {
            let shown = sandbox.lodestar(&[command]).stdout;
            let words = "those that it had handled as well";
            assert!(shown.contains(words) && shown.contains(&newest), "{command}: {shown}");
        }
        // Its place was lost and it does not run: all but the damaged one wait for it, for all.
        assert_eq!(waiting(&sandbox, &daemon, "usage_tracker"), 29);
        assert!(daemon.stop().success());
    }
    let _daemon = sandbox.start();
    assert_eq!(sandbox.lodestar(&["modules", "enable", "usage_tracker"]).code, 0);
    wait_until("all but the damaged one are counted", || {
        (sandbox.json(&["usage", "summary"])["total"]["requests"] == 29).then_some(())
    });
    let audit = sandbox.json(&["events", "audit"]);
    assert!(audit.as_array().is_some_and(|rows| rows.iter().all(|row| row["balanced"] == true)));
}

/// Returns the number of events that wait for a module, and checks that all commands show the same.
#[track_caller]
fn waiting(sandbox: &Sandbox, daemon: &Daemon<'_>, module: &str) -> u64 {
    let pending = |rows: Value| {
        let rows = rows.as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["module"] == module).map(|row| row["pending"].clone())
    };
    let status = daemon.module(module)["events"]["pending"].clone();
    for command in ["audit", "lag"] {
        let row = pending(sandbox.json(&["events", command]));
        assert_eq!(row, Some(status.clone()), "{command}");
    }
    status.as_u64().expect("a number")
}

#[test]
fn events_of_a_module_without_a_section_are_told() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    assert_eq!(sandbox.lodestar(&["modules", "disable", "usage_tracker"]).code, 0);
    let address = daemon.address("ingest", "http");
    (0..5).for_each(|number| post(&address, &format!("waits-{number}")));
    assert!(daemon.stop().success());
    let whole = sandbox.configuration();
    let (before, _) = whole.split_once("  usage_tracker:").expect("it has a section");
    let (_, after) = whole.split_once("\nmetrics:").expect("it has a section");
    sandbox.configure(&format!("{before}\nmetrics:{after}"));
    // The section is gone, and then the library as well.
    for state in ["disabled", "absent"] {
        let daemon = sandbox.start();
        assert_eq!(waiting(&sandbox, &daemon, "usage_tracker"), 5);
        let module = daemon.module("usage_tracker");
        assert_eq!((&module["desired"], &module["state"]), (&"removed".into(), &state.into()));
        let doctor = sandbox.lodestar(&["doctor"]);
        for part in ["5 events wait for it", "`lodestar modules remove usage_tracker`"] {
            assert!(doctor.stdout.contains(part), "{state}, {part}: {doctor:#?}");
        }
        let status = sandbox.lodestar(&["status"]);
        assert!(status.stdout.contains("in the configuration"), "{status:#?}");
        assert!(daemon.stop().success());
        if state == "disabled" {
            fs::remove_dir_all(sandbox.path("modules/usage_tracker")).expect("it is ours");
        }
    }
    // What is given up waits no more.
    let daemon = sandbox.start();
    let removed = sandbox.lodestar(&["modules", "remove", "usage_tracker", "--yes"]);
    assert_eq!(removed.code, 0, "{removed:#?}");
    assert_eq!(daemon.module("usage_tracker"), Value::Null);
    assert!(daemon.stop().success());
}

#[test]
fn a_tail_that_is_cut_after_a_kill_costs_at_least_what_is_told() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    assert_eq!(sandbox.lodestar(&["modules", "disable", "usage_tracker"]).code, 0);
    let address = daemon.address("ingest", "http");
    (0..10).for_each(|number| post(&address, &format!("gone-{number}")));
    let ledger = sandbox.state().join("ledger");
    let end = wait_until("the counters have them", || {
        let text = fs::read_to_string(ledger.join("subscriptions.copy.json")).ok()?;
        let content: Value = serde_json::from_str(&text).ok()?;
        let mut modules = content["modules"].as_array()?.iter();
        modules.find(|it| it["ledger"]["pending"] == 10)?["seen"].as_u64()
    });
    daemon.kill();
    let files = fs::read_dir(ledger.join("segments")).expect("a directory");
    let newest = files.map(|file| file.expect("an entry").path()).max().expect("a segment");
    let bytes = fs::read(&newest).expect("a segment");
    fs::write(&newest, &bytes[..bytes.len() / 2]).expect("it is ours");

    let daemon = sandbox.start();
    let loss = daemon.status().expect("it answers")["ledger"]["losses"][0].clone();
    let kind = (&loss["kind"], &loss["at_least"], &loss["last"]);
    assert_eq!(kind, (&"cut".into(), &true.into(), &end.into()), "{loss:#}");
    let lost = end + 1 - loss["first"].as_u64().expect("a number");
    let words = format!("at least {lost} events");
    for command in [&["status"][..], &["doctor"], &["events", "audit"]] {
        let output = sandbox.lodestar(command);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains(&words), "{command:?}: {output:#?}");
        assert!(!said.contains("were delivered"), "they still wait: {output:#?}");
    }
    let audit = sandbox.json(&["events", "audit"]);
    let rows = audit.as_array().expect("a list");
    assert!(rows.iter().all(|row| row["at_least"] == true && row["balanced"] == true), "{audit:#}");
    let missed = daemon.module("usage_tracker")["dropped_by"]["lost"].as_u64().unwrap_or_default();
    assert!((1..=lost).contains(&missed), "{missed} of {lost}");
    assert_eq!(waiting(&sandbox, &daemon, "usage_tracker"), 10 - missed);
    assert!(daemon.stop().success());
}

fn kind(loss: &Value) -> String {
    loss["kind"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_segment_that_somebody_deletes_is_no_retention() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    assert_eq!(sandbox.lodestar(&["modules", "disable", "usage_tracker"]).code, 0);
    let address = daemon.address("ingest", "http");
    (0..10).for_each(|number| post(&address, &format!("gone-{number}")));
    assert_eq!(daemon.module("usage_tracker")["events"]["pending"], 10);
    let segments = sandbox.state().join("ledger/segments");
    for file in fs::read_dir(segments).expect("a directory") {
        fs::remove_file(file.expect("an entry").path()).expect("it is ours");
    }
    // The audit looks at the disk.
    let audit = sandbox.lodestar(&["events", "audit"]);
    assert!(audit.stderr.contains("lodestard did not delete it"), "{audit:#?}");
    assert_eq!(audit.code, 0, "{audit:#?}");
    let lag = sandbox.json(&["events", "lag"]);
    let row =
        lag.as_array().and_then(|rows| rows.iter().find(|row| row["module"] == "usage_tracker"));
    let row = row.expect("it has subscribed");
    assert_eq!((&row["dropped"]["lost"], &row["pending"]), (&10.into(), &0.into()), "{lag:#}");
    assert_eq!(row["dropped"]["retention"], Value::Null, "{lag:#}");
    // What comes from now on is safe again, once a new segment is begun.
    (0..10).for_each(|number| post(&address, &format!("safe-{number}")));
    assert!(daemon.stop().success());
    let daemon = sandbox.start();
    assert_eq!(sandbox.lodestar(&["modules", "enable", "usage_tracker"]).code, 0);
    wait_until("the new ones are counted", || {
        (sandbox.json(&["usage", "summary"])["total"]["requests"] == 10).then_some(())
    });
    assert_eq!(daemon.status().expect("it answers")["ledger"]["losses"][0]["kind"], "missing");
}

#[test]
fn an_answer_includes_every_event_before_it() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    for number in 1..=30_u64 {
        post(&address, &format!("barrier-{number}"));
        let summary = sandbox.json(&["usage", "summary"]);
        assert_eq!(summary["total"]["requests"], number, "{summary:#}");
    }
}

#[test]
fn a_tail_shows_events_as_they_come() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    let mut tail = sandbox.isolated(&program("lodestar"));
    tail.args(["events", "tail", "--json", "llm.>"]).stdout(Stdio::piped());
    let mut tail = tail.spawn().expect("it is built");
    let lines = BufReader::new(tail.stdout.take().expect("it is piped")).lines();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    // The tail begins at some moment after its start: send until it has one.
    let mut number = 0;
    let line = wait_until("the tail shows an event", || {
        post(&address, &format!("tail-{number}"));
        number += 1;
        receiver.try_iter().find(|line| line.contains("llm.request.completed"))
    });
    let event: Value = serde_json::from_str(&line).expect("it is JSON");
    assert_eq!(event["specversion"], "1.0", "{event:#}");
    assert_eq!(event["type"], "llm.request.completed");
    assert_eq!(event["class"], "ledger");
    assert_eq!(event["source"], "/lodestar/ingest");
    assert_eq!(event["data"]["output_tokens"], 34);
    tail.kill().expect("it runs");
    tail.wait().expect("it is our child");
}

#[test]
fn a_replay_by_time_counts_nothing_twice() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    (0..10).for_each(|number| post(&address, &format!("replay-{number}")));
    let summary = sandbox.json(&["usage", "summary"]);
    assert_eq!(summary["total"]["requests"], 10, "{summary:#}");
    let replayed = sandbox.json(&["events", "replay", "usage_tracker", "--since", "1h"]);
    assert_eq!(replayed["replayed"], 10, "{replayed:#}");
    assert!(replayed["kept_since"].is_string(), "{replayed:#}");
    let counters = wait_until("all are handled again", || {
        let counters = daemon.module("usage_tracker")["events"].clone();
        (counters["handled"] == 20).then_some(counters)
    });
    assert_eq!(
        (&counters["accepted"], &counters["pending"]),
        (&20.into(), &0.into()),
        "{counters}"
    );
    let summary = sandbox.json(&["usage", "summary"]);
    assert_eq!(summary["total"]["requests"], 10, "{summary:#}");
    let audit = sandbox.json(&["events", "audit"]);
    assert!(audit.as_array().is_some_and(|rows| rows.iter().all(|row| row["balanced"] == true)));
    let unknown = sandbox.lodestar(&["events", "replay", "nobody", "--since", "1h"]);
    assert_eq!(unknown.code, 1, "{unknown:#?}");
}

#[test]
fn what_follows_ends_with_its_reader() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    daemon.wait_state("ingest", "running");
    for words in [&["events", "tail", "no.such.topic"][..], &["modules", "logs", "-f", "ingest"]] {
        let mut follower = sandbox.isolated(&program("lodestar"));
        follower.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut follower = follower.spawn().expect("it is built");
        drop(follower.stdout.take());
        // Nothing more is written: only the closed pipe can end it.
        let status = wait_until("it ends", || follower.try_wait().expect("our child"));
        assert!(status.success(), "{words:?}: {status}");
        let mut said = String::new();
        let mut stderr = follower.stderr.take().expect("it is piped");
        std::io::Read::read_to_string(&mut stderr, &mut said).expect("it is text");
        assert_eq!(said, "", "{words:?}");
    }
}

#[test]
fn the_books_balance_while_events_flow() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    std::thread::scope(|scope| {
        let senders = (0..2).map(|thread| {
            let address = &address;
            scope.spawn(move || {
                (0..100).for_each(|number| post(address, &format!("books-{thread}-{number}")));
            })
        });
        let senders = senders.collect::<Vec<_>>();
        while senders.iter().any(|sender| !sender.is_finished()) {
            let audit = sandbox.json(&["events", "audit"]);
            let rows = audit.as_array().expect("a list");
            assert!(rows.iter().all(|row| row["balanced"] == true), "{audit:#}");
        }
    });
    let lag = wait_until("all are handled", || {
        let lag = sandbox.json(&["events", "lag"]);
        let row = lag.as_array()?.iter().find(|row| row["module"] == "usage_tracker")?.clone();
        (row["pending"] == 0).then_some(row)
    });
    assert_eq!((&lag["accepted"], &lag["handled"]), (&200.into(), &200.into()), "{lag}");
}

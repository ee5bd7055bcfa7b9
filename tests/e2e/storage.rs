//! Faulty databases and disks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use harness::{Daemon, Sandbox, http, telemetry, wait_until};
use rusqlite::Connection;
use serde_json::Value;

use crate::full_disk::{fill, on_a_small_disk};

fn database(sandbox: &Sandbox) -> PathBuf {
    sandbox.state().join("data/usage_tracker/usage.db")
}

fn post(daemon: &Daemon<'_>, id: &str) -> u16 {
    let address = daemon.address("ingest", "http");
    let body = telemetry::claude_code("s", id).to_string();
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    answer.expect("ingest answers").status
}

fn requests(sandbox: &Sandbox) -> u64 {
    let summary = sandbox.lodestar(&["usage", "summary", "--json"]);
    let total = serde_json::from_str::<serde_json::Value>(&summary.stdout).unwrap_or_default();
    total["total"]["requests"].as_u64().unwrap_or(u64::MAX)
}

/// Starts a daemon and sends one request, and waits until it is in the database.
fn with_one_request(sandbox: &Sandbox) -> Daemon<'_> {
    let daemon = sandbox.start();
    assert_eq!(post(&daemon, "before"), 200);
    wait_until("it is counted", || (requests(sandbox) == 1).then_some(()));
    daemon
}

/// Damages a database between two runs: the module must refuse it, by name, and leave it unchanged.
/// `mend` applies the remedy of the error, and then the module handles all waiting events.
#[track_caller]
fn refused(spoil: impl FnOnce(&Path), parts: &[&str], mend: impl FnOnce(&Path)) {
    let sandbox = Sandbox::usual();
    let daemon = with_one_request(&sandbox);
    assert!(daemon.stop().success());
    let path = database(&sandbox);
    spoil(&path);
    let spoilt = fs::read(&path).expect("it is there");
    let daemon = sandbox.start();
    let tracker = daemon.module("usage_tracker");
    let said = format!("{} {}", tracker["reason"], tracker["health"]);
    assert!(tracker["state"] != "running" || tracker["health"]["status"] != "ok", "{tracker:#}");
    for part in parts {
        assert!(said.contains(part), "it must say {part}: {said}");
    }
    assert_eq!(fs::read(&path).expect("it is there"), spoilt, "the file is kept as it was");
    assert_eq!(post(&daemon, "meanwhile"), 200);
    let counters = daemon.module("usage_tracker")["events"].clone();
    assert_eq!(counters["pending"], 1, "the event waits: {counters}");
    assert_eq!(counters["dead"], 0, "{counters}");
    // To enable it alone changes nothing: whoever names that says what comes before it.
    let told = [&["doctor"][..], &["usage"], &["modules", "why", "usage_tracker"]];
    for output in told.map(|command| sandbox.lodestar(command)) {
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(!said.contains("modules enable") || said.contains("mended"), "{output:#?}");
    }
    mend(&path);
    assert_eq!(sandbox.lodestar(&["modules", "enable", "usage_tracker"]).code, 0);
    daemon.wait_state("usage_tracker", "running");
    wait_until("what waited is handled", || {
        (daemon.module("usage_tracker")["events"]["pending"] == 0).then_some(())
    });
    assert!(daemon.stop().success());
}

#[test]
fn a_corrupt_database_is_refused_and_kept() {
    let spoil = |path: &Path| {
        drop(fs::remove_file(path.with_extension("db-wal")));
        let mut bytes = fs::read(path).expect("it is there");
        bytes[..100].fill(b'#');
        fs::write(path, bytes).expect("it is ours");
    };
    refused(spoil, &["usage.db", "is damaged", "move it away", "known_database"], |path| {
        fs::rename(path, path.with_extension("damaged")).expect("it is ours");
        fs::remove_file(path.with_file_name("known_database")).expect("it is there");
    });
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_kept() {
    let spoil = |path: &Path| {
        let database = Connection::open(path).expect("it opens");
        database.pragma_update(None, "user_version", 9_999).expect("it is writable");
        // One that has only added would be taken up.
        let since = "UPDATE meta SET value = 9999 WHERE key = 'readable_from_version'";
        assert_eq!(database.execute(since, []).expect("it is writable"), 1);
        database.pragma_update(None, "wal_checkpoint", "TRUNCATE").ok();
    };
    refused(spoil, &["usage.db", "9999", "update Lodestar"], |path| {
        fs::rename(path, path.with_extension("newer")).expect("it is ours");
        fs::remove_file(path.with_file_name("known_database")).expect("it is there");
    });
}

#[test]
fn a_locked_database_costs_time_and_no_event() {
    let sandbox = Sandbox::usual();
    let daemon = with_one_request(&sandbox);
    let other = Connection::open(database(&sandbox)).expect("it opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    for number in 0..5 {
        assert_eq!(post(&daemon, &format!("locked-{number}")), 200, "the ledger takes it");
    }
    wait_until("the module says so", || {
        (daemon.module("usage_tracker")["health"]["status"] == "degraded").then_some(())
    });
    assert_eq!(daemon.module("usage_tracker")["events"]["pending"], 5);
    other.execute_batch("ROLLBACK").expect("it was begun");
    wait_until("all are counted", || (requests(&sandbox) == 6).then_some(()));
    wait_until("it is well again", || {
        (daemon.module("usage_tracker")["health"]["status"] == "ok").then_some(())
    });
    assert_eq!(sandbox.json(&["events", "dead"]), serde_json::json!([]));
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let sandbox = Sandbox::usual();
    let test = "a_full_disk_refuses_and_recovers";
    // The copy of a library would fit, and must not take the room of the database.
    let Some((daemon, disk)) = on_a_small_disk(&sandbox, "6m", test) else { return };
    assert_eq!(post(&daemon, "before"), 200);

    let filler = disk.join("filler");
    fill(&filler);
    let mut accepted = 1;
    let refused = (0..20_000).map(|number| format!("full-{number}")).find(|id| {
        // A busy machine may answer too late as well: the ledger says whether it is the disk.
        wait_until("it is accepted, or the disk is full", || match post(&daemon, id) {
            200 => {
                accepted += 1;
                Some(false)
            }
            status => {
                assert_eq!(status, 503, "a client must know that it may try again");
                let status = daemon.status().expect("it still answers");
                let remedy = status["ledger"]["remedy"].as_str()?;
                remedy.contains("free space").then_some(true)
            }
        })
    });
    let refused = refused.expect("the disk gets full");
    assert!(daemon.lives(), "{}", daemon.log());
    let shown = sandbox.lodestar(&["status"]);
    assert!(shown.stdout.contains("event ledger    cannot write"), "{shown:#?}");
    let doctor = sandbox.lodestar(&["doctor"]);
    assert_eq!(doctor.code, 1, "{doctor:#?}");
    assert!(doctor.stdout.contains("problem event ledger: "), "{doctor:#?}");
    assert!(writable(&daemon).ends_with("lodestar_ledger_writable 0"), "{}", writable(&daemon));

    fs::remove_file(&filler).expect("it is ours");
    wait_until("it accepts again", || (post(&daemon, &refused) == 200).then_some(()));
    wait_until("all that was accepted is counted", || {
        (requests(&sandbox) == accepted + 1).then_some(())
    });
    assert_eq!(daemon.status().expect("it answers")["ledger"]["trouble"], Value::Null);
    assert!(writable(&daemon).ends_with("lodestar_ledger_writable 1"), "{}", writable(&daemon));
    assert_eq!(sandbox.json(&["events", "dead"]), serde_json::json!([]));
    let audit = sandbox.json(&["events", "audit"]);
    assert!(audit.as_array().expect("a list").iter().all(|row| row["balanced"] == true), "{audit}");
}

/// Returns the line of the metrics that shows whether the ledger accepts events.
fn writable(daemon: &Daemon<'_>) -> String {
    let answer = http::get(&daemon.address("", "metrics"), "/metrics").expect("it answers");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let line = text.lines().find(|line| line.starts_with("lodestar_ledger_writable "));
    line.unwrap_or_default().to_owned()
}

#[test]
fn a_database_deleted_while_it_is_open_is_told_and_costs_no_further_event() {
    let sandbox = Sandbox::usual();
    let daemon = with_one_request(&sandbox);
    let path = database(&sandbox);
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).expect("it is ours");
    for number in 0..3 {
        assert_eq!(post(&daemon, &format!("meanwhile-{number}")), 200, "the ledger takes it");
    }
    wait_until("the module says so", || {
        (daemon.module("usage_tracker")["health"]["status"] == "failed").then_some(())
    });
    assert!(!path.exists(), "none is begun anew");
    let status = sandbox.lodestar(&["status"]);
    assert!(status.stdout.contains("was deleted, emptied or moved away"), "{status:#?}");
    let doctor = sandbox.lodestar(&["doctor"]);
    assert_eq!(doctor.code, 1, "{doctor:#?}");
    assert!(doctor.stdout.contains("problem module usage_tracker: degraded"), "{doctor:#?}");
    fs::rename(&aside, &path).expect("it is ours");
    wait_until("all are counted", || (requests(&sandbox) == 4).then_some(()));
    assert_eq!(sandbox.json(&["events", "dead"]), serde_json::json!([]));
}

#[test]
fn a_database_that_is_gone_at_the_start_is_told_with_the_remedy() {
    let sandbox = Sandbox::usual();
    let daemon = with_one_request(&sandbox);
    assert!(daemon.stop().success());
    let path = database(&sandbox);
    fs::remove_file(&path).expect("it is ours");
    let daemon = sandbox.start();
    assert_eq!(post(&daemon, "meanwhile"), 200);
    let tracker = daemon.module("usage_tracker");
    let said = tracker["health"]["message"].as_str().unwrap_or_default();
    assert!(said.contains("is gone or empty") && said.contains("known_database"), "{tracker:#}");
    assert!(!path.exists(), "none is begun anew");
    let doctor = sandbox.lodestar(&["doctor"]);
    assert_eq!(doctor.code, 1, "{doctor:#?}");
    assert!(doctor.stdout.contains("known_database"), "{doctor:#?}");
    fs::remove_file(path.with_file_name("known_database")).expect("it is ours");
    wait_until("a new one is begun", || (requests(&sandbox) == 1).then_some(()));
}

#[test]
fn a_data_directory_that_was_deleted_is_told_until_it_is_restored() {
    let emptied: [fn(&Path); 2] = [
        |directory| fs::remove_dir_all(directory).expect("it is ours"),
        |directory| {
            fs::remove_dir_all(directory).expect("it is ours");
            fs::create_dir(directory).expect("it is gone");
        },
    ];
    for emptied in emptied {
        let sandbox = Sandbox::usual();
        let data = sandbox.state().join("data");
        let (directory, backup) = (data.join("usage_tracker"), data.join("backup"));
        let told = || {
            let doctor = sandbox.lodestar(&["doctor"]);
            let status = sandbox.lodestar(&["status"]);
            let words = "data/usage_tracker was deleted or emptied";
            assert_eq!(doctor.stdout.contains(words), status.stdout.contains(words), "{doctor:#?}");
            let remedy = "`lodestar events replay usage_tracker --since";
            assert_eq!(
                doctor.stdout.contains(words),
                doctor.stdout.contains(remedy),
                "{doctor:#?}"
            );
            status.stdout.contains(words)
        };
        let daemon = with_one_request(&sandbox);
        assert!(!told(), "a first start is none");
        assert!(daemon.stop().success());
        let daemon = sandbox.start();
        assert!(!told(), "nor is the next one");
        assert!(daemon.stop().success());
        fs::rename(&directory, &backup).expect("it is ours");
        fs::create_dir(&directory).expect("it is gone");
        emptied(&directory);
        // Over a restart as well.
        for _ in 0..2 {
            let daemon = sandbox.start();
            daemon.wait_state("usage_tracker", "running");
            assert!(told());
            let why = sandbox.lodestar(&["modules", "why", "usage_tracker"]);
            assert!(why.stdout.contains("data lost"), "{why:#?}");
            assert!(daemon.stop().success());
        }
        fs::remove_dir_all(&directory).expect("it is ours");
        fs::rename(&backup, &directory).expect("it is gone");
        let daemon = sandbox.start();
        daemon.wait_state("usage_tracker", "running");
        wait_until("it counts on", || (requests(&sandbox) == 1).then_some(()));
        assert!(!told(), "it is restored");
        drop(daemon);
    }
}

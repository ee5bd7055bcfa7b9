//! A state directory of the version before files and fields had the names of today.
//!
//! `tests/fixtures/state_before_renames.tar.gz` was written by that version: 37 requests of one
//! session, 30 of them handled before `usage_tracker` was reloaded and switched off, and a module
//! in quarantine.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use flate2::read::GzDecoder;
use harness::{Sandbox, http, telemetry, wait_until};
use tar::Archive;

const STATE: &[u8] = include_bytes!("../fixtures/state_before_renames.tar.gz");

const CONFIG: &str = "\
bus: {ledger: {retention_hours: 8760}}
modules:
  ingest:
    listen: 127.0.0.1:0
  usage_tracker:
    retention_days: 0
  counter:
metrics:
  listen: 127.0.0.1:0
";

/// Seconds since the Unix epoch at which the waiting events were accepted.
const ACCEPTED_S: u64 = 1_796_008_675;

/// Unpacks the state directory and gives it the paths of this place.
fn unpack(sandbox: &Sandbox) {
    let mut archive = Archive::new(GzDecoder::new(STATE));
    archive.unpack(sandbox.path("")).expect("the sandbox is writable");
    let known = sandbox.state().join("data/usage_tracker/known_database");
    let text = fs::read_to_string(&known).expect("it is in the archive");
    let state = sandbox.state().display().to_string();
    fs::write(known, text.replace("@STATE@", &state)).expect("the sandbox is writable");
}

#[test]
fn a_state_directory_of_the_version_before_is_taken_up_without_loss() {
    let sandbox = Sandbox::new(&["ingest", "usage_tracker", "counter"], CONFIG);
    unpack(&sandbox);
    let daemon = sandbox.start();
    let events = wait_until("all that waited is handled", || {
        let events = daemon.module("usage_tracker")["events"].clone();
        (events["pending"] == 0).then_some(events)
    });
    assert_eq!(events["accepted"], 37, "{events:#}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    // A ledger keeps what waits for a year at most.
    let is_kept = now < ACCEPTED_S + 8_760 * 3_600;
    let handled = if is_kept { 37 } else { 30 };
    assert_eq!(events["handled"], handled, "{events:#}");
    let total = |args: &[&str]| sandbox.json(args)["total"]["requests"].clone();
    assert_eq!(total(&["usage", "summary", "--since", "2026-11-01"]), handled);
    // The key of pseudonyms is the one of before: it is the same session still.
    let body = telemetry::claude_code("session-of-before", "req-new").to_string();
    let address = daemon.address("ingest", "http");
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("it answers").status, 200);
    let export = sandbox.lodestar(&["usage", "export", "--format", "jsonl"]);
    let sessions: std::collections::HashSet<String> = export
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON"))
        .map(|row| row["session_id"].to_string())
        .collect();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    // What was decided and what happened holds.
    let why = sandbox.json(&["modules", "why", "counter"]);
    assert_eq!(why["state"], "quarantined", "{why:#}");
    let history = sandbox.json(&["modules", "why", "usage_tracker"])["history"].to_string();
    assert!(history.contains("generation 2; its events waited"), "{history}");
    let names = names_in(&sandbox.state().join("supervision"));
    assert!(
        names.iter().all(|it| !it.contains(".story.") && !it.contains(".standing.")),
        "{names:?}"
    );
    let status = sandbox.json(&["status"]);
    assert_eq!(status["ledger"]["losses"], serde_json::json!([]), "{status:#}");
    assert!(daemon.stop().success());
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is there");
    entries.map(|it| it.expect("it is read").file_name().to_string_lossy().into_owned()).collect()
}

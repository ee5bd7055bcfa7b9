//! Speed at which accepted requests become visible in a summary, beside a bare loop that inserts
//! the same rows.
//!
//! Requests are accepted while `usage_tracker` is disabled, so that they wait in the ledger; then
//! it is enabled, and the clock runs until `usage summary` counts all of them: reading the ledger,
//! decoding, pricing, rollups, sessions and the start of the module included. The baseline inserts
//! the rows of the database that came of it into a fresh one with the same schema, pragmas and size
//! of a batch.
//!
//! Run with `cargo xtask bench queryable`, on a quiet machine.

use std::{path::Path, time::Instant};

use harness::{Daemon, Sandbox, http, telemetry};
use rusqlite::{Connection, params_from_iter, types::Value};
use serde_json::json;

/// Number of requests.
const REQUESTS: usize = 200_000;
/// Number of requests of one session, which travel in one body.
const AT_ONCE: usize = 200;
/// Number of events that the host hands to a module at once.
const BATCH: usize = 256;
/// Number of runs of each side; the median counts.
const ROUNDS: usize = 3;

fn main() {
    let (mut values, mut baselines) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let sandbox = Sandbox::usual();
        let daemon = sandbox.start();
        values.push(REQUESTS as f64 / until_visible(&sandbox, &daemon));
        let database = sandbox.state().join("data/usage_tracker/usage.db");
        assert!(daemon.stop().success());
        baselines.push(REQUESTS as f64 / bare(&database, &sandbox.path("bare.db")));
    }
    let figure = json!({
        "name": "usage: accepted to queryable", "value": median(values), "unit": "rows/s",
        "baseline": {"name": "a bare rusqlite loop", "value": median(baselines)},
        "goal": {"at_least": 0.6, "of": "ratio"},
    });
    println!("{figure}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures the seconds from the switch until a summary counts all requests.
fn until_visible(sandbox: &Sandbox, daemon: &Daemon<'_>) -> f64 {
    let switch = |verb| assert_eq!(sandbox.lodestar(&["modules", verb, "usage_tracker"]).code, 0);
    switch("disable");
    let address = daemon.address("ingest", "http");
    for session in 0..REQUESTS / AT_ONCE {
        let ids: Vec<String> = (0..AT_ONCE).map(|n| format!("req_{session}_{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let body = telemetry::claude_code_many(&format!("session-{session}"), &ids).to_string();
        let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
        assert_eq!(answer.expect("ingest answers").status, 200);
    }
    let begin = Instant::now();
    switch("enable");
    loop {
        let summary = sandbox.json(&["usage", "summary"]);
        let seconds = begin.elapsed().as_secs_f64();
        match summary["total"]["requests"].as_u64() {
            Some(all) if all == REQUESTS as u64 => return seconds,
            Some(some) => assert!(some < REQUESTS as u64, "{some} are too many"),
            None => panic!("no summary: {summary:#}"),
        }
    }
}

/// Inserts the rows of one database into a fresh one; returns the seconds.
fn bare(from: &Path, to: &Path) -> f64 {
    let source = Connection::open(from).expect("the module made it");
    let mut target = Connection::open(to).expect("the sandbox is writable");
    target.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).expect("it takes a WAL");
    // As the module sets them, so that only the work differs.
    for (pragma, value) in
        [("synchronous", 1), ("cache_size", -16_000), ("wal_autocheckpoint", 4_000)]
    {
        target.pragma_update(None, pragma, value).expect("a known pragma");
    }
    let schema = rows(&source, "SELECT sql FROM sqlite_schema WHERE type IN ('table', 'index')");
    for statement in schema.into_iter().flatten() {
        if let Value::Text(sql) = statement
            && !sql.contains("sqlite_")
        {
            target.execute_batch(&sql).expect("it was good for the other one");
        }
    }
    let keys = rows(&source, "SELECT * FROM request_key ORDER BY request");
    let requests = rows(&source, "SELECT * FROM request ORDER BY id");
    assert_eq!((keys.len(), requests.len()), (REQUESTS, REQUESTS));
    let places = vec!["?"; requests[0].len()].join(",");
    let begin = Instant::now();
    for (keys, requests) in keys.chunks(BATCH).zip(requests.chunks(BATCH)) {
        let transaction = target.transaction().expect("nobody else writes");
        {
            let prepare = |sql: &str| transaction.prepare_cached(sql).expect("it is SQL");
            let mut key = prepare("INSERT INTO request_key VALUES (?, ?)");
            let mut request = prepare(&format!("INSERT INTO request VALUES ({places})"));
            for (row_key, row) in keys.iter().zip(requests) {
                key.execute(params_from_iter(row_key)).expect("it fitted before");
                request.execute(params_from_iter(row)).expect("it fitted before");
            }
        }
        transaction.commit().expect("the disk is not full");
    }
    begin.elapsed().as_secs_f64()
}

fn rows(source: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = source.prepare(sql).expect("it is SQL");
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
    let found = statement.query_map([], row).expect("it can be read");
    found.collect::<rusqlite::Result<_>>().expect("it can be read")
}

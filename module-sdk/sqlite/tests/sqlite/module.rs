//! The library in a module: its effects that the host sees.

use module_sdk::{
    ErrorKind, Event, Health, HealthStatus, Host, Module, NoArgs, Result, Wiring,
    events::LlmRequestCompleted, testing::Bench,
};
use module_sqlite::{Database, rusqlite::Connection};
use serde_json::json;

use crate::NOTES;

struct Notes {
    database: Database,
}

impl Module for Notes {
    type Config = NoArgs;

    fn start(_: NoArgs, host: &Host) -> Result<Self> {
        Ok(Self { database: Database::open(host, NOTES)? })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring.on(Self::completed);
    }

    fn health(&self) -> Health {
        self.database.health()
    }
}

impl Notes {
    fn completed(&mut self, event: &Event<'_, LlmRequestCompleted>) -> Result<()> {
        let (sql, at) = ("INSERT INTO note (at) VALUES (?1)", event.data.ended_at);
        self.database.write(|transaction| transaction.prepare_cached(sql)?.execute([at]))?;
        Ok(())
    }
}

#[test]
fn events_wait_while_the_database_is_out_of_reach() {
    let mut bench = Bench::<Notes>::start(json!({})).expect("it starts");
    let event = LlmRequestCompleted { ended_at: 7, ..Default::default() };
    bench.send(&event).expect("it is handled");
    let other = Connection::open(bench.data_dir().join(NOTES.file)).expect("it opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("it is free");
    let (handled, result) = bench.send_all(std::slice::from_ref(&event));
    let error = result.expect_err("it is locked");
    assert_eq!((handled, error.kind()), (0, ErrorKind::Unavailable));
    assert_eq!(bench.health().status, HealthStatus::Degraded);
    other.execute_batch("ROLLBACK").expect("it was begun");
    bench.send(&event).expect("it is handled");
    assert_eq!(bench.health().status, HealthStatus::Ok);
    let sql = "SELECT count(*) FROM note";
    let rows: i64 = other.query_row(sql, [], |row| row.get(0)).expect("it answers");
    assert_eq!(rows, 2);
}

#[test]
fn a_file_that_is_not_ours_is_no_start() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join(NOTES.file), [7; 9_000]).expect("it is written");
    let error = Bench::<Notes>::start_in(directory.path(), json!({})).expect_err("it is refused");
    assert!(error.to_string().contains("is damaged"), "{error}");
}

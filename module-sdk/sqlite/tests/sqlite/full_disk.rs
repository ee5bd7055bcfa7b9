//! Full disks.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicI64, Ordering},
};

use module_sdk::HealthStatus;
use module_sqlite::{DatabaseErrorKind, Spec};

use crate::{NOTES, add, count, open};

/// Maximum of pages of this test's database.
static PAGES: AtomicI64 = AtomicI64::new(1_000);

/// Spec whose migrations need more space than there is.
const LARGE: Spec = Spec {
    migrations: &[
        NOTES.migrations[0],
        "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 1000)
         INSERT INTO note (at, text) SELECT n, hex(zeroblob(1000)) FROM number",
    ],
    setup: |connection| {
        let pages = PAGES.load(Ordering::Relaxed);
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
    },
    ..NOTES
};

#[test]
fn a_full_disk_leaves_the_old_schema_and_is_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut old = open(directory.path(), NOTES).expect("it opens");
    add(&mut old, 7).expect("it is written");
    drop(old);
    PAGES.store(100, Ordering::Relaxed);
    let mut database = open(directory.path(), LARGE).expect("the module starts without it");
    let health = database.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    assert!(health.message.contains("no space is left for the database of notes"), "{health:?}");
    let error = add(&mut database, 8).expect_err("it is still full");
    assert_eq!(error.kind(), DatabaseErrorKind::Unavailable, "{error}");
    // The build before goes on with it.
    let mut old = open(directory.path(), NOTES).expect("it opens");
    assert_eq!(count(&mut old), 1);
    drop(old);
    PAGES.store(10_000, Ordering::Relaxed);
    add(&mut database, 8).expect("there is room");
    assert_eq!(database.health().status, HealthStatus::Ok);
    assert_eq!(count(&mut database), 1_002);
}

const DIRECTORY: &str = "LODESTAR_TEST_FULL_DISK";

#[test]
fn what_the_kernel_refuses_to_write_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path(), NOTES).expect("it opens"));
    // Files of at most 400 blocks of 512 bytes; the signal about it is ignored, as in the daemon.
    let script = "trap '' XFSZ; ulimit -f 400; exec \"$@\"";
    let test = "full_disk::in_a_process_with_small_files";
    let child = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(std::env::current_exe().expect("it runs"))
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}");
    let written = said.split_once("written: ").and_then(|(_, rest)| rest.lines().next());
    let written: i64 = written.and_then(|text| text.parse().ok()).expect("it says so");
    let mut database = open(directory.path(), NOTES).expect("it opens");
    assert!(written > 0);
    assert_eq!(count(&mut database), written, "what was committed, and nothing else");
}

#[test]
#[ignore = "started by the test above"]
fn in_a_process_with_small_files() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut database = open(Path::new(&directory), NOTES).expect("it opens");
    let mut written = 0;
    let error = loop {
        match add(&mut database, written) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100_000, "the limit was never reached");
    };
    assert_eq!(error.kind(), DatabaseErrorKind::Unavailable, "{error}");
    assert_eq!(database.health().status, HealthStatus::Degraded);
    println!("\nwritten: {written}");
}

//! Checkpoints of the write-ahead log, on a thread of their own.
//!
//! A checkpoint waits for the disk, and done by the writer it takes a quarter of the time of the
//! batches. So a thread with its own connection copies committed pages. The log starts over once
//! all of it is copied, which that thread never reaches while batches come without a pause: beyond
//! [`LIMIT`] the writer copies the remaining pages.

use std::{
    path::Path,
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
};

use rusqlite::{Connection, OpenFlags};

/// Number of pages by which the log grows until they are copied: 16 MiB. If pages change in random
/// order, rarer checkpoints write each of them less often.
const EVERY: i32 = 4_000;
/// Number of pages in the log from which the writer helps: 64 MiB.
const LIMIT: i32 = 4 * EVERY;

/// The thread that copies. It ends when the writer's connection is closed; dropping this waits for
/// that, so the connection must be dropped first.
#[derive(Debug)]
pub(crate) struct Checkpointer(Option<JoinHandle<()>>);

impl Checkpointer {
    /// Starts the thread and lets the writer wake it. Without a thread the writer copies by itself.
    pub(crate) fn start(writer: &mut Connection, path: &Path) -> rusqlite::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let path = path.to_owned();
        // Without a name of its own, so that its time counts as that of the module.
        let thread = std::thread::Builder::new().spawn(move || copy_when(&woken, &path));
        if let Err(error) = &thread {
            tracing::warn!(%error, "no thread for checkpoints; batches will wait for the disk");
        }
        let mut next = EVERY;
        writer.wal_hook(Some(move |wal: &mut rusqlite::hooks::Wal, pages| {
            // The log has begun anew.
            if pages < next - EVERY {
                next = EVERY;
            }
            let mut mine = pages >= LIMIT;
            if pages >= next {
                next = pages + EVERY;
                mine |= !send(&wake);
            }
            if mine {
                // Busy readers are no failure; a failing disk fails the next batch, which says so.
                drop(wal.checkpoint());
            }
            Ok(())
        }))?;
        Ok(Self(thread.ok()))
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for checkpoints panicked");
        }
    }
}

/// Wakes the thread; returns whether it still runs.
fn send(wake: &SyncSender<()>) -> bool {
    !matches!(wake.try_send(()), Err(TrySendError::Disconnected(())))
}

/// Copies whenever it is woken, until the writer is gone.
fn copy_when(woken: &Receiver<()>, path: &Path) {
    let mut failing = false;
    for () in woken {
        let copied = copy(path);
        if let Err(error) = &copied
            && !failing
        {
            tracing::warn!(%error, path = %path.display(), "cannot fold in the write-ahead log");
        }
        failing = copied.is_err();
    }
}

/// Copies the log over a new connection: copies are rare, and an idle connection would hold its
/// memory.
fn copy(path: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use std::{
        path::PathBuf,
        time::{Duration, Instant},
    };

    use super::*;

    /// Creates a database whose every row fills a page.
    fn database(directory: &Path) -> (PathBuf, Connection) {
        let path = directory.join("u.db");
        let connection = Connection::open(&path).expect("it opens");
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).expect("it takes a log");
        connection.execute_batch("CREATE TABLE page (bytes)").expect("it is SQL");
        (path, connection)
    }

    fn write(connection: &mut Connection, pages: i32) {
        let transaction = connection.transaction().expect("nobody else writes");
        for _ in 0..pages {
            transaction.execute("INSERT INTO page VALUES (zeroblob(3500))", []).expect("it fits");
        }
        transaction.commit().expect("nobody else writes");
    }

    fn size(path: &Path) -> u64 {
        path.metadata().expect("it is there").len()
    }

    #[test]
    fn a_long_log_is_copied_by_the_thread() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, mut writer) = database(directory.path());
        let checkpointer = Checkpointer::start(&mut writer, &path).expect("it starts");
        write(&mut writer, EVERY + 100);
        let patience = Instant::now() + Duration::from_secs(30);
        while size(&path) < 4096 * u64::from(EVERY.unsigned_abs()) {
            assert!(Instant::now() < patience, "{} bytes after 30 s", size(&path));
            std::thread::yield_now();
        }
        drop((writer, checkpointer));
    }

    #[test]
    fn without_a_pause_the_log_stays_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, mut writer) = database(directory.path());
        let checkpointer = Checkpointer::start(&mut writer, &path).expect("it starts");
        for _ in 0..5 * LIMIT / 500 {
            write(&mut writer, 500);
        }
        // Twice the limit: one more round may begin while the thread still copies.
        let frames = size(&directory.path().join("u.db-wal")) / 4_120;
        assert!(frames < 2 * u64::from(LIMIT.unsigned_abs()), "{frames} frames");
        drop((writer, checkpointer));
    }

    #[test]
    fn without_the_thread_the_writer_copies() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, mut writer) = database(directory.path());
        let gone = directory.path().join("gone");
        let checkpointer = Checkpointer::start(&mut writer, &gone).expect("it starts");
        write(&mut writer, LIMIT + 100);
        assert!(size(&path) >= 4096 * u64::from(LIMIT.unsigned_abs()));
        drop((writer, checkpointer));
    }
}

//! Writing of a batch of reports.

use std::collections::BTreeSet;

use foldhash::HashMap;
use module_sdk::events::{LlmRequestCompleted, RequestSource};
use module_sqlite::{number, raise};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _};
use sha2::{Digest as _, Sha256};

use super::{
    IMPORTED, LAST_REQUEST, Measures, Options, Store, StoreError,
    names::{Names, Texts},
    rollups::Rollups,
    row::{self, INSERT, Placed, READ, REPLACE, Stored},
    sessions::{SessionNews, Sessions},
    twins::{self, Twin},
};
use crate::{merge::merge, prices::Pricer, sanitize::Report};

/// The result of writing a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    /// The requests that were counted for the first time, with their costs.
    pub counted: Vec<Stored>,
    /// Number of reports that added to a known request.
    pub merged: usize,
    /// Number of reports without anything new.
    pub duplicates: usize,
    /// Changes of sessions.
    pub news: SessionNews,
    /// Sums that were added, those of corrections included.
    pub added: Measures,
}

impl Store {
    /// Writes a batch in one transaction. `now_ms` is the time, in milliseconds since the Unix
    /// epoch.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; nothing of the batch is written then.
    pub fn write(&mut self, reports: Vec<Report>, now_ms: i64) -> Result<Written, StoreError> {
        self.in_batch(now_ms, |batch| batch.take_all(reports))
    }

    /// Runs `work` in one transaction, and forgets all cached names and sessions when it fails.
    pub(super) fn in_batch<T>(
        &mut self,
        now_ms: i64,
        work: impl FnOnce(Batch<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let ready = self.database.ready()?;
        if ready.opening() != self.opening {
            // Another file, perhaps.
            self.names.forget();
            self.sessions.forget();
            self.last_request = ready.position();
            self.opening = ready.opening();
        }
        let before = self.last_request;
        let memory = (&mut self.names, &mut self.sessions);
        let (options, last_request) = (&mut self.options, &mut self.last_request);
        let done = ready.write(|transaction| {
            work(Batch::new(transaction, memory, options, last_request, now_ms)?)
        });
        if done.is_err() {
            // They may know of rows that were rolled back.
            self.names.forget();
            self.sessions.forget();
            self.last_request = before;
        }
        done
    }
}

pub(super) struct Batch<'a> {
    connection: &'a Connection,
    insert_key: CachedStatement<'a>,
    insert_row: CachedStatement<'a>,
    names: &'a mut Names,
    sessions: &'a mut Sessions,
    pricer: &'a mut Pricer,
    last_request: &'a mut i64,
    /// Time from which on a request belongs to a session that is under way.
    live_from: i64,
    rollups: Rollups,
    /// Project and client of the sessions of the batch.
    described: HashMap<i64, (i64, i64)>,
    /// Keys of the sessions that lost requests.
    bereft: BTreeSet<String>,
    /// `true` where transcripts were imported, which others may report too.
    has_transcripts: bool,
    written: Written,
}

/// The result of a withdrawal.
pub(super) enum Withdrawal {
    /// The request was withdrawn.
    Done,
    /// The request does not count: it never arrived, or was withdrawn before.
    Nothing,
    /// Retention has deleted the request, and the sums still count it.
    TooLate,
}

/// Row number of a key that does not count.
const WITHDRAWN: i64 = 0;

impl<'a> Batch<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        (names, sessions): (&'a mut Names, &'a mut Sessions),
        options: &'a mut Options,
        last_request: &'a mut i64,
        now_ms: i64,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            insert_key: connection
                .prepare_cached("INSERT OR IGNORE INTO request_key VALUES (?1, ?2)")?,
            insert_row: connection.prepare_cached(&INSERT)?,
            connection,
            names,
            sessions,
            live_from: now_ms.saturating_sub(options.session_idle_ms),
            pricer: &mut options.pricer,
            last_request,
            rollups: Rollups::default(),
            described: HashMap::default(),
            bereft: BTreeSet::new(),
            has_transcripts: number(connection, IMPORTED)?.is_some(),
            written: Written::default(),
        })
    }

    /// Withdraws a request; its key stays, so that it never counts again.
    pub(super) fn withdraw(&mut self, dedupe_key: &str) -> rusqlite::Result<Withdrawal> {
        let key = key(dedupe_key);
        if self.insert_key.execute((key, WITHDRAWN))? == 1 {
            return Ok(Withdrawal::Nothing);
        }
        let known = self.known(&key)?;
        let marked = self
            .connection
            .prepare_cached("UPDATE request_key SET request = ?2 WHERE key = ?1 AND request <> ?2")?
            .execute((key, WITHDRAWN))?;
        let Some((old, was)) = known else {
            return Ok(if marked == 0 { Withdrawal::Nothing } else { Withdrawal::TooLate });
        };
        let mut mark_other = self.connection.prepare_cached(
            "UPDATE request_key SET request = ?3 WHERE key = ?1 AND request = ?2",
        )?;
        for other in keys(&old.report.request) {
            mark_other.execute((other, old.id, WITHDRAWN))?;
        }
        self.sessions.take_out(self.connection, &old, &was)?;
        self.connection.prepare_cached("DELETE FROM request WHERE id = ?1")?.execute([old.id])?;
        self.count(&was, &old.measures().negated());
        self.bereft.extend(old.report.request.session_id);
        Ok(Withdrawal::Done)
    }

    /// Returns the connection of the transaction.
    pub(super) const fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// Writes reports, and what follows from them.
    pub(super) fn take_all(mut self, reports: Vec<Report>) -> rusqlite::Result<Written> {
        self.written.counted.reserve(reports.len());
        for report in reports {
            self.take(report)?;
        }
        self.finish()
    }

    fn take(&mut self, report: Report) -> rusqlite::Result<()> {
        let key = key(&report.request.dedupe_key);
        let id = *self.last_request + 1;
        if self.insert_key.execute((key, id))? == 0 {
            return self.again(&key, &report);
        }
        let others: Vec<[u8; 16]> = keys(&report.request).filter(|other| *other != key).collect();
        if self.may_have_a_twin(&report)
            && let Some(twin) = twins::find(self.connection, &report, &others)?
        {
            return self.join(&key, &others, twin, &report);
        }
        *self.last_request = id;
        for other in others {
            self.insert_key.execute((other, id))?;
        }
        let cost = self.pricer.cost(&report.request, report.stated_nano_usd);
        let live = report.request.ended_at >= self.live_from;
        let stored = Stored::new(id, report, cost);
        let placed = self.put(&stored, live, false)?;
        self.sessions.add(self.connection, &stored, &placed, live, &mut self.written.news)?;
        self.count(&placed, &stored.measures());
        self.written.counted.push(stored);
        Ok(())
    }

    fn may_have_a_twin(&self, report: &Report) -> bool {
        self.has_transcripts || report.request.source == Some(RequestSource::Transcript)
    }

    /// Adds to the rollups.
    fn count(&mut self, placed: &Placed, measures: &Measures) {
        self.rollups.add(placed, measures);
        self.written.added.add_sums_of(measures);
    }

    /// Takes a report under a new key for one of a known request.
    fn join(
        &mut self,
        key: &[u8; 16],
        others: &[[u8; 16]],
        twin: Twin,
        report: &Report,
    ) -> rusqlite::Result<()> {
        let (id, kept) = match twin {
            Twin::Kept(kept) => (kept.0.id, Some(kept)),
            Twin::Deleted(id) => (id, None),
        };
        self.connection
            .prepare_cached("UPDATE request_key SET request = ?2 WHERE key = ?1")?
            .execute((key, id))?;
        for other in others {
            self.insert_key.execute((other, id))?;
        }
        match kept {
            Some(kept) => self.merge_into(*kept, report),
            None => {
                self.written.duplicates += 1;
                Ok(())
            }
        }
    }

    /// Merges a further report of a request. Where retention has deleted the request, its key still
    /// shows that it was counted.
    fn again(&mut self, key: &[u8; 16], report: &Report) -> rusqlite::Result<()> {
        let Some(known) = self.known(key)? else {
            self.written.duplicates += 1;
            return Ok(());
        };
        for other in keys(&report.request).filter(|other| other != key) {
            self.insert_key.execute((other, known.0.id))?;
        }
        self.merge_into(known, report)
    }

    fn merge_into(
        &mut self,
        (old, was): (Stored, Placed),
        report: &Report,
    ) -> rusqlite::Result<()> {
        let merged = merge(&old.report, report);
        let cost = self.pricer.cost(&merged.request, merged.stated_nano_usd);
        let new = Stored::new(old.id, merged, cost);
        if same(&old, &new) {
            self.written.duplicates += 1;
            return Ok(());
        }
        self.sessions.take_out(self.connection, &old, &was)?;
        let placed = self.put(&new, false, true)?;
        self.sessions.put_in(self.connection, &new, &placed)?;
        self.count(&was, &old.measures().negated());
        self.count(&placed, &new.measures());
        if placed.session != was.session {
            self.bereft.extend(old.report.request.session_id);
        }
        self.written.merged += 1;
        Ok(())
    }

    fn put(&mut self, stored: &Stored, live: bool, again: bool) -> rusqlite::Result<Placed> {
        let session = self.sessions.id(self.connection, stored, live, &mut self.written.news)?;
        let dimensions = if again {
            let mut replace_row = self.connection.prepare_cached(&REPLACE)?;
            row::write(self.connection, &mut replace_row, self.names, stored, session)?
        } else {
            row::write(self.connection, &mut self.insert_row, self.names, stored, session)?
        };
        if let Some(session) = session {
            let described = self.described.entry(session).or_default();
            for (slot, id) in
                [(&mut described.0, dimensions.project), (&mut described.1, dimensions.client)]
            {
                if id != 0 {
                    *slot = id;
                }
            }
        }
        Ok(Placed { dimensions, session, ended_at: stored.report.request.ended_at })
    }

    fn known(&self, key: &[u8; 16]) -> rusqlite::Result<Option<(Stored, Placed)>> {
        let sql = format!("{}WHERE r.id = (SELECT request FROM request_key WHERE key = ?1)", *READ);
        let mut texts = Texts::default();
        self.connection
            .prepare_cached(&sql)?
            .query_row([key], |found| row::read(self.connection, &mut texts, found))
            .optional()
    }

    pub(super) fn finish(self) -> rusqlite::Result<Written> {
        self.sessions.write(self.connection, &self.described)?;
        self.rollups.write(self.connection)?;
        for session in &self.bereft {
            self.sessions.settle(self.connection, session)?;
        }
        raise(self.connection, LAST_REQUEST, *self.last_request)?;
        Ok(self.written)
    }
}

/// Returns whether a merge has changed nothing. A new price table alone does not count as a change.
fn same(old: &Stored, new: &Stored) -> bool {
    let plain = |stored: &Stored| {
        let mut request = stored.report.request.clone();
        let told = request.cost_nano_usd;
        (request.cost_nano_usd, request.cost_source, request.price_version) = (None, None, None);
        let Report { flags, sources, stated_nano_usd, .. } = stored.report;
        (request, flags, sources, stated_nano_usd, told.is_some())
    };
    plain(old) == plain(new)
}

/// Returns the keys under which a request is found: its own one, and one for each id that its
/// provider gave it.
pub(super) fn keys(request: &LlmRequestCompleted) -> impl Iterator<Item = [u8; 16]> + use<> {
    let of_id = |id: &Option<String>| {
        let (provider, id) = (request.provider.as_deref()?, id.as_deref()?);
        let text = format!("{provider}:{id}");
        (text != request.dedupe_key).then(|| key(&text))
    };
    let own = key(&request.dedupe_key);
    let others = [of_id(&request.upstream_request_id), of_id(&request.response_id)];
    std::iter::once(own).chain(others.into_iter().flatten())
}

/// Returns the first half of the SHA-256 of a dedupe key: collisions are practically impossible.
fn key(dedupe_key: &str) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(dedupe_key).into();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

#[cfg(test)]
mod tests {
    use module_sdk::events::LlmRequestCompleted;
    use uuid::Uuid;

    use super::*;
    use crate::store::StoreErrorKind;

    const NOW: i64 = 1_795_000_000_000;

    fn report(number: u32) -> Report {
        let request = LlmRequestCompleted {
            dedupe_key: format!("key-{number}"),
            ended_at: NOW - i64::from(number),
            session_id: Some(format!("session-{}", number / 10)),
            project: Some(format!("project-{}", number / 100)),
            source_ref: Some("x".repeat(400)),
            ..Default::default()
        };
        Report::new(Uuid::now_v7(), request, NOW)
    }

    fn number(store: &Store, sql: &str) -> i64 {
        store.ask(|connection| {
            connection.query_row(sql, [], |row| Ok(crate::store::integer(row.get_ref(0)?)))
        })
    }

    #[test]
    fn a_full_disk_loses_nothing_and_counts_nothing_twice() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store =
            Store::open(&directory.path().join("u.db"), Options::default()).expect("it opens");
        let limit = |store: &mut Store, pages: i64| {
            let sql = format!("PRAGMA max_page_count = {pages}");
            let set = store.database.write(|it| it.query_row(&sql, [], |_| Ok(())));
            set.expect("it is set");
        };
        limit(&mut store, 150);
        let mut waiting: Vec<Report> = (0..2_000).map(report).collect();
        let mut failures = 0;
        while !waiting.is_empty() {
            let batch = &waiting[..100.min(waiting.len())];
            match store.write(batch.to_vec(), NOW) {
                Ok(written) => {
                    assert_eq!(written.counted.len(), batch.len());
                    waiting.drain(..batch.len());
                }
                Err(error) => {
                    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
                    assert!(error.to_string().contains("no space is left"), "{error}");
                    failures += 1;
                    limit(&mut store, 150 * (failures + 1));
                }
            }
        }
        assert!(failures > 0, "the disk was never full");
        for (counted, expected) in [
            ("count(*) FROM request", 2_000),
            ("count(*) FROM request_key", 2_000),
            ("count(*) FROM session", 200),
            ("sum(requests) FROM usage_hour", 2_000),
        ] {
            assert_eq!(number(&store, &format!("SELECT {counted}")), expected, "{counted}");
        }
    }

    #[test]
    fn sums_that_overflow_are_cut_and_poison_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("u.db");
        let mut store = Store::open(&path, Options::default()).expect("it opens");
        for number in 0..2 {
            let mut report = report(number);
            report.stated_nano_usd = Some(i64::MAX);
            store.write(vec![report], NOW).expect("it is written");
        }
        assert_eq!(number(&store, "SELECT cost FROM usage_day"), i64::MAX);
        store.write(vec![report(2)], NOW).expect("it goes on");
    }

    #[test]
    fn damage_found_while_writing_keeps_the_events_waiting() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("u.db");
        let mut store = Store::open(&path, Options::default()).expect("it opens");
        let batch: Vec<Report> = (0..500).map(report).collect();
        store.write(batch.clone(), NOW).expect("it is written");
        store.checkpoint().expect("it is folded in");
        drop(store);
        // Everything but the schema is torn.
        let mut bytes = std::fs::read(&path).expect("it is readable");
        bytes[40_960..].fill(0xa5);
        std::fs::write(&path, bytes).expect("it is written");
        let damaged = Store::open(&path, Options::default())
            .and_then(|mut store| store.write(batch, NOW).map(drop))
            .expect_err("it is damaged");
        assert_eq!(damaged.kind(), StoreErrorKind::Damaged, "{damaged}");
        let error = module_sdk::Error::from(damaged);
        assert_eq!(error.kind(), module_sdk::ErrorKind::Unavailable);
    }
}

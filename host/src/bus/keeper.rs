//! The thread that writes the cursors down and deletes what nobody needs.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use super::{core::Shared, routes::wants, subscriber::Subscriber};
use crate::ledger::{Cursor, DropReason, LedgerError, Reader, Writer};

/// The cursors are written at most so often, and at the latest so long after they moved. After a
/// kill, what was settled since then is delivered again.
const PERSIST_EVERY: Duration = Duration::from_millis(200);
/// How often retention is looked at when nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn run(shared: &Shared, writer: &Writer) {
    let mut failing = false;
    let mut sealed = Instant::now();
    loop {
        if shared.sleep_until_touched() {
            return;
        }
        let result = {
            let _housekeeping = shared.housekeeping();
            shared.persist().and_then(|cursors| shared.prune(&cursors))
        };
        if let Err(error) = &result {
            shared.dirty.store(true, Ordering::SeqCst);
            if !failing {
                tracing::error!(%error, "cannot keep the event ledger's books, will try again");
            }
        }
        failing = result.is_err();
        // A segment that never fills would never age.
        let span =
            HOUR.saturating_mul(u32::try_from(shared.config.retention_hours).unwrap_or(u32::MAX));
        if sealed.elapsed() > (span / 8).clamp(HOUR / 4, 24 * HOUR) {
            writer.seal();
            sealed = Instant::now();
        }
        if shared.rest() {
            return;
        }
    }
}

impl Shared {
    /// Sleeps until cursors have moved; true when the bus ends.
    fn sleep_until_touched(&self) -> bool {
        let stop = self.stop_keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake_keeper.wait_timeout_while(stop, LOOK_EVERY, |stop| {
            !*stop && !self.dirty.load(Ordering::SeqCst)
        });
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Lets cursors gather; true when the bus ends.
    fn rest(&self) -> bool {
        let stop = self.stop_keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake_keeper.wait_timeout_while(stop, PERSIST_EVERY, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Writes all cursors down. Called with `housekeeping` held.
    pub(super) fn persist(&self) -> Result<Vec<Cursor>, LedgerError> {
        self.dirty.store(false, Ordering::SeqCst);
        let cursors: Vec<Cursor> = {
            let routes = self.routes();
            let subscribers = routes.subscribers.iter();
            subscribers.map(|subscriber| subscriber.lock().cursor(&subscriber.module)).collect()
        };
        self.cursors.save(cursors.clone())?;
        Ok(cursors)
    }

    /// Deletes segments that all have settled, and those beyond the limits. Called with
    /// `housekeeping` held and cursors that are written down.
    pub(super) fn prune(&self, cursors: &[Cursor]) -> Result<(), LedgerError> {
        let needed = cursors.iter().map(|cursor| cursor.acked).min().unwrap_or(u64::MAX);
        let mut segments = self.ledger.list();
        let mut total: u64 = segments.iter().map(|info| info.bytes).sum();
        let mut dropped = Vec::new();
        while segments.len() > 1 {
            let (last, path, bytes) = (segments[1].base - 1, &segments[0].path, segments[0].bytes);
            let done = last <= needed;
            let distributed = last <= self.distributed.load(Ordering::SeqCst);
            if !distributed || !(done || total > self.config.max_bytes || self.is_too_old(path)) {
                break;
            }
            if !done {
                self.retire(segments[0].base, last, &mut dropped)?;
                self.persist()?;
            }
            self.ledger.remove_oldest()?;
            total -= bytes;
            segments.remove(0);
        }
        dropped.sort();
        for modules in dropped.chunk_by(|(left, _), (right, _)| left == right) {
            tracing::warn!(
                module = %modules[0].0,
                events = modules.iter().map(|(_, count)| count).sum::<u64>(),
                "the event ledger is at its limit: events that waited for this module were \
                 dropped; see `lodestar events lag`"
            );
        }
        Ok(())
    }

    fn is_too_old(&self, path: &std::path::Path) -> bool {
        let limit = Duration::from_secs(self.config.retention_hours.saturating_mul(3600));
        let modified = path.metadata().and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| {
            SystemTime::now().duration_since(modified).is_ok_and(|age| age > limit)
        })
    }

    /// Drops what still waits in a segment from every subscriber.
    fn retire(
        &self,
        base: u64,
        last: u64,
        dropped: &mut Vec<(String, u64)>,
    ) -> Result<(), LedgerError> {
        let subscribers = self.routes().subscribers.clone();
        for subscriber in subscribers {
            let waiting = self.waiting(&subscriber, base, last)?;
            let mut state = subscriber.lock();
            let mut gone = 0;
            while state.ledger.front().is_some_and(|oldest| oldest.first().sequence <= last) {
                gone += state.ledger.pop(1).map_or(0, |_| 1);
            }
            let next = state.next;
            gone += waiting.iter().filter(|sequence| **sequence >= next).count() as u64;
            state.next = next.max(last + 1);
            state.ledger_books.drop_pending(DropReason::Retention, gone);
            drop(state);
            if gone > 0 {
                dropped.push((subscriber.module.to_string(), gone));
            }
        }
        Ok(())
    }

    /// The sequences of a segment that are on disk only for a subscriber.
    fn waiting(
        &self,
        subscriber: &Subscriber,
        base: u64,
        last: u64,
    ) -> Result<Vec<u64>, LedgerError> {
        let (next, epochs) = {
            let state = subscriber.lock();
            (state.next, state.epochs.clone())
        };
        let mut sequences = Vec::new();
        let visited = Reader::at(base.max(next)).visit(&self.ledger, last, |record| {
            if wants(&subscriber.module, &epochs, record) {
                sequences.push(record.sequence);
            }
            true
        });
        let at = &self.ledger.directory;
        visited.map_err(crate::ledger::io_error("read the event ledger in", at))?;
        Ok(sequences)
    }

    /// After damage on disk: what a subscriber waits for and is not there is dropped. Called from
    /// the thread of its inbox.
    pub(super) fn write_off_lost(&self, subscriber: &Subscriber) {
        let _housekeeping = self.housekeeping();
        let (cursor, next, waits) = {
            let mut state = subscriber.lock();
            let waits = state.ledger_books.pending - state.in_memory();
            (state.cursor(&subscriber.module), state.next, waits)
        };
        let left = match super::recover::count(&self.ledger, &cursor, next, cursor.seen) {
            Ok(left) => left,
            Err(error) => {
                let module = &subscriber.module;
                tracing::error!(%module, %error, "cannot read the event ledger");
                return;
            }
        };
        let lost = waits.saturating_sub(left);
        if lost > 0 {
            subscriber.lock().ledger_books.drop_pending(DropReason::Lost, lost);
            tracing::error!(
                module = %subscriber.module, events = lost,
                "the event ledger is damaged: events that waited for this module are lost; check \
                 the disk"
            );
        }
    }
}

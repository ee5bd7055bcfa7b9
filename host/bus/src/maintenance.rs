//! The maintenance thread, which writes the cursors down and deletes segments that nobody needs.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use super::{core::Shared, routes::wants, subscriber::Subscriber};
use crate::ledger::{Content, Cursor, DropReason, LedgerError, Reader, SegmentInfo, Writer};

/// Shortest time between two writes of the cursors, and longest time until they are written after
/// they moved. After a kill, what was settled since then is delivered again.
const PERSIST_EVERY: Duration = Duration::from_millis(200);
/// Interval at which retention is checked when nothing happens, and missing segments are looked
/// for.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Number of times a loss is counted again because a module read on meanwhile: its inbox finds the
/// loss too.
const WRITE_OFF_TRIES: usize = 8;
const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn run(shared: &Shared, writer: &Writer) {
    let _watched = Watched(shared);
    let mut failing = false;
    let (mut sealed, mut looked) = (Instant::now(), Instant::now());
    loop {
        if shared.sleep_until_touched() {
            return;
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            let _housekeeping = shared.housekeeping();
            shared.look_for_missing(writer);
        }
        let result = {
            let _housekeeping = shared.housekeeping();
            shared.persist().and_then(|cursors| shared.prune(&cursors))
        };
        if let Err(error) = &result {
            shared.dirty.store(true, Ordering::SeqCst);
            if !failing {
                tracing::error!(%error, "cannot keep the event ledger's counters, will try again");
            }
        }
        failing = result.is_err();
        // Not only when the next event comes, since `status` says it.
        let _ = shared.ledger.reserve.is_full_again();
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

/// Tells of a panic of the thread, as soon as it ends by one.
struct Watched<'a>(&'a Shared);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.ledger.maintenance_ended();
        }
    }
}

impl Shared {
    /// Sleeps until cursors have moved; returns true when the bus ends.
    fn sleep_until_touched(&self) -> bool {
        let stop = self.stop_maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake_maintenance.wait_timeout_while(stop, LOOK_EVERY, |stop| {
            !*stop && !self.dirty.load(Ordering::SeqCst)
        });
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Lets cursors gather; returns true when the bus ends.
    fn rest(&self) -> bool {
        let stop = self.stop_maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake_maintenance.wait_timeout_while(stop, PERSIST_EVERY, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Writes all cursors down. Called with `housekeeping` held.
    pub(super) fn persist(&self) -> Result<Vec<Cursor>, LedgerError> {
        self.write_down(false)
    }

    /// Writes all cursors down; `is_closed` where nothing can be accepted after it.
    pub(super) fn write_down(&self, is_closed: bool) -> Result<Vec<Cursor>, LedgerError> {
        self.dirty.store(false, Ordering::SeqCst);
        let cursors: Vec<Cursor> = {
            let routes = self.routes();
            let subscribers = routes.subscribers.iter();
            subscribers.map(|subscriber| subscriber.lock().cursor(&subscriber.module)).collect()
        };
        let content = Content {
            segments: self.ledger.kept(),
            redeliver_upto: self
                .redeliver_from()
                .map_or(0, |_| self.redeliver_upto.load(Ordering::SeqCst)),
            is_closed,
            modules: cursors,
        };
        super::recover::save(&self.cursors, &self.ledger, &content)?;
        Ok(content.modules)
    }

    /// Deletes segments in which every event is settled, and those beyond the limits. Called with
    /// `housekeeping` held and cursors that are written down.
    pub(super) fn prune(&self, cursors: &[Cursor]) -> Result<(), LedgerError> {
        self.delete_settled(cursors)?;
        let mut segments = self.ledger.list();
        let mut total: u64 = segments.iter().map(|info| info.bytes).sum();
        let mut dropped = Vec::new();
        while segments.len() > 1 {
            let (last, path, bytes) = (segments[1].base - 1, &segments[0].path, segments[0].bytes);
            let distributed = last <= self.distributed.load(Ordering::SeqCst);
            if !distributed || !(total > self.config.max_bytes || self.is_too_old(path)) {
                break;
            }
            self.retire(segments[0].base, last, &mut dropped)?;
            self.ledger.retire_before(segments[1].base);
            self.persist()?;
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

    /// Deletes segments in which every event is settled; none while modules that have not
    /// subscribed again since the cursors were lost may need them.
    fn delete_settled(&self, cursors: &[Cursor]) -> Result<(), LedgerError> {
        if self.redeliver_from().is_some() {
            return Ok(());
        }
        let settled = cursors.iter().map(|cursor| cursor.acked).min().unwrap_or(u64::MAX);
        let needed = settled.min(self.distributed.load(Ordering::SeqCst));
        let segments = self.ledger.list();
        let is_done = |info: &&SegmentInfo| info.base.saturating_sub(1) <= needed;
        let done = segments.iter().skip(1).take_while(is_done).count();
        if done == 0 {
            return Ok(());
        }
        // Written down before they go, so that their absence is never taken for a loss.
        self.ledger.retire_before(segments[done].base);
        self.persist()?;
        (0..done).try_for_each(|_| self.ledger.remove_oldest())
    }

    /// Looks for segments that somebody else has deleted. Called with `housekeeping` held.
    pub(super) fn look_for_missing(&self, writer: &Writer) {
        let missing = self.ledger.forget_missing(self.distributed.load(Ordering::SeqCst));
        if missing.active {
            writer.seal();
        }
        if missing.any || missing.active {
            let subscribers = self.routes().subscribers.clone();
            subscribers.iter().for_each(|subscriber| self.write_off_lost(subscriber));
        }
    }

    fn is_too_old(&self, path: &std::path::Path) -> bool {
        let limit = Duration::from_secs(self.config.retention_hours.saturating_mul(3600));
        let modified = path.metadata().and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| {
            SystemTime::now().duration_since(modified).is_ok_and(|age| age > limit)
        })
    }

    /// Drops the events that still wait in a segment from every subscriber.
    fn retire(
        &self,
        base: u64,
        last: u64,
        dropped: &mut Vec<(String, u64)>,
    ) -> Result<(), LedgerError> {
        let subscribers = self.routes().subscribers.clone();
        for subscriber in subscribers {
            let (waiting, is_hurt) = self.waiting(&subscriber, base, last)?;
            let mut state = subscriber.lock();
            let mut gone = 0;
            while state.ledger.front().is_some_and(|oldest| oldest.first().sequence <= last) {
                gone += state.ledger.pop(1).map_or(0, |_| 1);
            }
            let next = state.next;
            gone += waiting.iter().filter(|sequence| **sequence >= next).count() as u64;
            state.next = next.max(last + 1);
            state.ledger_counters.drop_pending(DropReason::Retention, gone);
            drop(state);
            if is_hurt {
                self.write_off_lost(&subscriber);
            }
            if gone > 0 {
                dropped.push((subscriber.module.to_string(), gone));
            }
        }
        Ok(())
    }

    /// Returns the sequences of a segment that are on disk only for a subscriber, and whether there
    /// is damage among them.
    fn waiting(
        &self,
        subscriber: &Subscriber,
        base: u64,
        last: u64,
    ) -> Result<(Vec<u64>, bool), LedgerError> {
        let (next, epochs) = {
            let state = subscriber.lock();
            (state.next, state.epochs.clone())
        };
        let mut sequences = Vec::new();
        let mut reader = Reader::at(base.max(next));
        let visited = reader.visit(&self.ledger, last, |record| {
            if wants(&subscriber.module, &epochs, record) {
                sequences.push(record.sequence);
            }
            true
        });
        let at = &self.ledger.directory;
        visited.map_err(crate::ledger::io_error("read the event ledger in", at))?;
        Ok((sequences, reader.damaged() > 0))
    }

    /// Drops the events that a subscriber waits for and that damage on disk has lost. Called with
    /// `housekeeping` held.
    pub(super) fn write_off_lost(&self, subscriber: &Subscriber) {
        let module = &subscriber.module;
        for _ in 0..WRITE_OFF_TRIES {
            let (cursor, next, waits) = {
                let mut state = subscriber.lock();
                state.skip_what_is_for_others();
                let waits = state.ledger_counters.pending - state.in_memory();
                (state.cursor(module), state.next, waits)
            };
            if waits == 0 {
                return;
            }
            let left = match super::recover::count(&self.ledger, &cursor, next, cursor.seen) {
                Ok(left) => left,
                Err(error) => {
                    tracing::error!(%module, %error, "cannot read the event ledger");
                    return;
                }
            };
            let lost = waits.saturating_sub(left);
            if lost == 0 {
                return;
            }
            let mut state = subscriber.lock();
            // Its inbox has read on meanwhile: those events were counted as waiting on the disk.
            if state.next != next {
                continue;
            }
            state.ledger_counters.drop_pending(DropReason::Lost, lost);
            state.write_offs += 1;
            drop(state);
            tracing::error!(
                %module, events = lost,
                "the event ledger is damaged: events that waited for this module are lost; see \
                 `lodestar doctor`"
            );
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bus, BusConfig};

    #[test]
    fn the_end_of_the_keeper_is_told_while_the_bus_runs() {
        let directory = tempfile::tempdir().expect("a directory");
        let bus = Bus::open(BusConfig::default(), directory.path()).expect("it opens");
        let works = |work: fn()| {
            let shared = bus.shared.clone();
            let thread = std::thread::spawn(move || {
                let _watched = Watched(&shared);
                work();
            });
            (thread.join().is_ok(), bus.health().unkept.is_none())
        };
        assert_eq!(works(|| {}), (true, true));
        assert_eq!(works(|| panic!("a defect, for the test")), (false, false));
        assert_eq!(bus.health().trouble, None, "events are taken all the same");
    }
}

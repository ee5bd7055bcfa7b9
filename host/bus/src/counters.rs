//! The counters, and the audit that checks them against the disk.

use std::sync::atomic::Ordering;

use module_sdk::Class;

use super::{
    core::Bus,
    recover::count,
    routes::wants,
    subscriber::{State, Subscriber},
};
use crate::ledger::{Counts, LedgerError, Reader, io_error, now_ms};

/// The counters of one module at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// The module.
    pub module: String,
    /// True while the inbox of the module is open.
    pub attached: bool,
    /// Counters of the module's ledger events.
    pub ledger: Counts,
    /// Counters of the module's live events.
    pub live: Counts,
    /// Time for which the module's oldest pending event has waited, in milliseconds.
    pub oldest_pending_ms: Option<u64>,
}

impl Counters {
    /// Returns the counters of both classes together.
    #[must_use]
    pub fn total(&self) -> Counts {
        self.ledger.plus(&self.live)
    }
}

/// The counters of one module beside a recount on disk and in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The module.
    pub module: String,
    /// Counters of both classes together.
    pub counts: Counts,
    /// The pending events, counted anew: in the ledger's files and in the queue of live events.
    pub recounted_pending: u64,
    /// The dead letters, counted anew.
    pub recounted_dead: u64,
    /// `true` when `accepted = handled + dead + dropped + pending` in both classes, and both
    /// recounts agree.
    pub balanced: bool,
}

impl Bus {
    /// Returns the counters of all modules that have a subscription, by name. Each module's figures
    /// belong to one moment.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        let subscribers = self.shared.routes().subscribers.clone();
        let now = now_ms();
        let mut counters: Vec<Counters> = subscribers
            .iter()
            .map(|subscriber| {
                let oldest = self.oldest_on_disk(subscriber);
                let mut state = subscriber.lock();
                state.oldest_on_disk = oldest;
                Counters {
                    module: subscriber.module.to_string(),
                    attached: state.attached,
                    ledger: state.ledger_counters,
                    live: state.live_counters,
                    oldest_pending_ms: state.oldest_ms().map(|ms| now.saturating_sub(ms)),
                }
            })
            .collect();
        counters.sort_unstable_by(|left, right| left.module.cmp(&right.module));
        counters
    }

    /// Counts the pending events anew, and returns whether the counters balance. It reads the whole
    /// ledger and drops from the counters what is lost.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn audit(&self) -> Result<Vec<AuditRow>, LedgerError> {
        let _housekeeping = self.shared.housekeeping();
        let is_hurt = self.find_losses()?;
        let subscribers = self.shared.routes().subscribers.clone();
        let mut rows = subscribers
            .iter()
            .map(|subscriber| self.audit_one(subscriber, is_hurt))
            .collect::<Result<Vec<_>, _>>()?;
        rows.sort_unstable_by(|left, right| left.module.cmp(&right.module));
        Ok(rows)
    }

    /// Reads all that is kept, and drops pending events that are no longer there from the counters;
    /// returns whether anything is missing.
    fn find_losses(&self) -> Result<bool, LedgerError> {
        let shared = &self.shared;
        shared.look_for_missing(&self.writer);
        let first = shared.ledger.list().first().map_or(0, |info| info.base);
        let mut reader = Reader::at(first);
        let upto = shared.distributed.load(Ordering::SeqCst);
        let visited = reader.visit(&shared.ledger, upto, |_| true);
        visited.map_err(io_error("read the event ledger in", &shared.ledger.directory))?;
        if reader.damaged() > 0 {
            let subscribers = shared.routes().subscribers.clone();
            subscribers.iter().for_each(|subscriber| shared.write_off_lost(subscriber));
        }
        Ok(reader.damaged() > 0)
    }

    fn audit_one(&self, subscriber: &Subscriber, is_hurt: bool) -> Result<AuditRow, LedgerError> {
        let ledger = &self.shared.ledger;
        let first = ledger.list().first().map_or(0, |info| info.base);
        let mut state = subscriber.lock();
        let cursor = state.cursor(&subscriber.module);
        // Retention does not take back what a handler has in its hands.
        let mut held = state.head.iter().filter(|sequence| **sequence < first).count() as u64;
        let live = state.head_live + state.live.len() as u64;
        let (next, in_memory) = (state.next, state.in_memory());
        drop(state);
        let read = |from| {
            count(ledger, &cursor, from, cursor.seen)
                .map_err(io_error("read the event ledger in", &ledger.directory))
        };
        let mut on_disk = read(cursor.acked + 1)?;
        if held + on_disk != cursor.ledger.pending && is_hurt {
            // Nor does damage take back what was read before.
            (held, on_disk) = (in_memory, read(next)?);
        }
        // Letters that came since the counters were read are not in them.
        let dead_letters = subscriber.dead.read();
        let dead_letters = dead_letters
            .map_err(io_error("read the dead letters in", &self.shared.dead_directory))?
            .iter()
            .filter(|letter| letter.event.sequence <= cursor.acked)
            .count() as u64;
        let in_ledger = held + on_disk;
        Ok(AuditRow {
            module: cursor.module,
            counts: cursor.ledger.plus(&cursor.live),
            recounted_pending: in_ledger + live,
            recounted_dead: dead_letters,
            balanced: cursor.ledger.balanced()
                && cursor.live.balanced()
                && in_ledger == cursor.ledger.pending
                && live == cursor.live.pending
                && dead_letters == cursor.ledger.dead,
        })
    }

    /// Returns the oldest event that waits on disk, as in [`State::oldest_on_disk`]. It is read
    /// once for each place, and only where nothing waits in memory.
    fn oldest_on_disk(&self, subscriber: &Subscriber) -> Option<(u64, u64)> {
        let (next, seen, epochs) = {
            let mut state = subscriber.lock();
            state.skip_what_is_for_others();
            let known = state.oldest_on_disk.is_some_and(|(next, _)| next == state.next);
            if known || state.in_memory() > 0 || state.next > state.seen {
                return state.oldest_on_disk;
            }
            (state.next, state.seen, state.epochs.clone())
        };
        let mut oldest = None;
        let visited = Reader::at(next).visit(&self.shared.ledger, seen, |record| {
            if wants(&subscriber.module, &epochs, record) {
                oldest = Some((next, record.accepted_ms()));
            }
            oldest.is_none()
        });
        visited.ok().and(oldest)
    }
}

impl State {
    /// Returns when the oldest pending event was accepted, in milliseconds since the Unix epoch.
    fn oldest_ms(&self) -> Option<u64> {
        let counters = [(Class::Ledger, &self.ledger_counters), (Class::Live, &self.live_counters)];
        if counters.iter().all(|(_, counters)| counters.pending == 0) {
            return None;
        }
        let in_hands = self.head_since;
        let queued = [&self.ledger, &self.live]
            .map(|queue| queue.front().map(|run| run.first().accepted_ms()));
        let on_disk = self.oldest_on_disk.filter(|(next, _)| *next == self.next).map(|(_, ms)| ms);
        queued.into_iter().chain([in_hands, on_disk]).flatten().min()
    }
}

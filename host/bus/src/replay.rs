//! Replay of events that the ledger still keeps, by time, for one module alone.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{atomic::Ordering, mpsc},
};

use uuid::Uuid;

use super::{
    core::{Bus, SubscribeError},
    routes::any_fits,
    subscriber::Subscriber,
};
use crate::ledger::{Audience, Entry, Job, LedgerError, PublishError, RawRecord, Reader, io_error};

/// Size of the payloads that go to the writer at once, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Outcome of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Number of events that wait again.
    pub events: u64,
    /// Time when the oldest event that the ledger keeps was accepted, in milliseconds since the
    /// Unix epoch; `None` when it keeps none.
    pub kept_since_ms: Option<u64>,
}

/// Reason for which nothing, or not all, was replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The module has no subscription, or its dead letters cannot be read.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// The ledger cannot be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The copies would push out events that wait for other modules.
    #[error(
        "{events} events of that time take {bytes} bytes and the ledger has room for {left} more; \
         replay a shorter time, or raise `bus.ledger.max_bytes`"
    )]
    NoRoom {
        /// Number of events to replay.
        events: u64,
        /// Size of the events, in bytes.
        bytes: u64,
        /// Space that is free below the limit, in bytes.
        left: u64,
    },
}

impl Bus {
    /// Replays to a module every kept event that was accepted in `accepted_ms` (milliseconds since
    /// the Unix epoch) and fits its present filters, also one from before its subscription. Events
    /// that still wait for the module come anyway, and its dead letters have their own replay:
    /// neither is doubled. The events go to the end of the ledger for this module only, under their
    /// old ids, and count as newly accepted. Must not be called on the ledger's writer thread.
    ///
    /// # Errors
    ///
    /// When the module has no subscription, or the ledger cannot be read or does not take them;
    /// what it has taken until then stays replayed.
    pub fn replay(&self, module: &str, accepted_ms: Range<u64>) -> Result<Replayed, ReplayError> {
        let subscriber = self.subscriber(module)?;
        let history = History::of(self, &subscriber, accepted_ms)?;
        let (found, kept_since_ms) = self.weigh(&history)?;
        let mut replayed = Replayed { events: 0, kept_since_ms };
        if found == 0 {
            return Ok(replayed);
        }
        let (mut batch, mut bytes, mut written) = (Vec::new(), 0, Ok(()));
        let mut publish = |batch: &mut Vec<Entry>| {
            replayed.events += batch.len() as u64;
            self.publish_batch(std::mem::take(batch))
        };
        history.visit(self, |record| {
            if !history.is_meant(record) {
                return true;
            }
            bytes += record.data_bytes();
            let audience = Audience::Replay(subscriber.module.clone());
            batch.push(Entry { event: record.to_event(), audience });
            if bytes >= BATCH_BYTES {
                bytes = 0;
                written = publish(&mut batch);
            }
            written.is_ok()
        })?;
        written?;
        publish(&mut batch)?;
        Ok(replayed)
    }

    /// Counts the events to replay, checks that the ledger has room for them, and returns their
    /// number and when its oldest event was accepted.
    fn weigh(&self, history: &History) -> Result<(u64, Option<u64>), ReplayError> {
        let (mut events, mut bytes, mut kept_since_ms) = (0, 0, None);
        history.visit(self, |record| {
            if record.module.is_empty() {
                kept_since_ms.get_or_insert(record.accepted_ms());
            }
            if history.is_meant(record) {
                events += 1;
                bytes += record.disk_bytes() as u64 + history.name_bytes;
            }
            true
        })?;
        let used: u64 = self.shared.ledger.list().iter().map(|info| info.bytes).sum();
        let left = self.shared.config.max_bytes.saturating_sub(used);
        if bytes > left {
            return Err(ReplayError::NoRoom { events, bytes, left });
        }
        Ok((events, kept_since_ms))
    }

    /// Writes a batch and waits until it is pending.
    fn publish_batch(&self, entries: Vec<Entry>) -> Result<(), LedgerError> {
        if entries.is_empty() {
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        self.writer.submit(Job { entries, done: Some(done) })?;
        receiver.recv().unwrap_or(Err(PublishError::Closed))?;
        Ok(())
    }
}

/// Records of the ledger that a replay covers.
struct History {
    filters: Vec<String>,
    accepted_ms: Range<u64>,
    /// Sequence of the last event that the module has settled; later ones still wait for it.
    last: u64,
    dead: HashSet<Uuid>,
    name_bytes: u64,
}

impl History {
    fn of(
        bus: &Bus,
        subscriber: &Subscriber,
        accepted_ms: Range<u64>,
    ) -> Result<Self, LedgerError> {
        let distributed = bus.shared.distributed.load(Ordering::SeqCst);
        let (last, filters) = {
            let mut state = subscriber.lock();
            let filters = state.epochs.last().map(|epoch| epoch.filters.clone());
            (state.acked().min(distributed), filters.unwrap_or_default())
        };
        // After `last`, so that what dies meanwhile is either behind it or among the letters.
        let dead_letters = subscriber.dead.read();
        let dead_letters = dead_letters
            .map_err(io_error("read the dead letters in", &bus.shared.dead_directory))?;
        let dead = dead_letters.iter().map(|letter| letter.event.id).collect();
        let name_bytes = subscriber.module.len() as u64;
        Ok(Self { filters, accepted_ms, last, dead, name_bytes })
    }

    fn is_meant(&self, record: &RawRecord<'_>) -> bool {
        record.module.is_empty()
            && self.accepted_ms.contains(&record.accepted_ms())
            && any_fits(&self.filters, record.topic)
            && !self.dead.contains(&record.id)
    }

    fn visit(
        &self,
        bus: &Bus,
        each: impl FnMut(&RawRecord<'_>) -> bool,
    ) -> Result<(), LedgerError> {
        let ledger = &bus.shared.ledger;
        let visited = Reader::of_everything().visit(ledger, self.last, each);
        visited.map_err(io_error("read the event ledger in", &ledger.directory))
    }
}

//! The opening of the bus: after a clean stop, a kill, or a power cut.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use super::{
    Bus, BusConfig, SubscribeError,
    core::Shared,
    publish::Ids,
    routes::{Routes, wants},
    spares::Spares,
    subscriber::Subscriber,
};
use crate::ledger::{
    Content, Counts, Cursor, Cursors, DeadStore, DropReason, Epoch, Ledger, LedgerError, Loaded,
    LossKind, Losses, Memory, Opened, Reader, Reserve, Taken, Writer, io_error, is_full,
};

/// Smallest size of a segment, in bytes: below it, files would only be many.
const MIN_SEGMENT_BYTES: u64 = 4 << 10;
/// Smallest number of segments of a ledger at its limit, so that retention takes little at once.
const MIN_SEGMENTS: u64 = 8;

pub(super) fn open(config: BusConfig, directory: &Path) -> Result<Bus, LedgerError> {
    let dead_directory = directory.join("dead");
    fs::create_dir_all(&dead_directory).map_err(io_error("make the directory", &dead_directory))?;
    let power = config.durability == super::Durability::Power;
    let cursors = Cursors::new(directory, power);
    let losses = Losses::open(directory);
    let loaded = cursors.load(&losses)?;
    let mut content = match &loaded {
        Loaded::Content(content) => content.clone(),
        Loaded::Nothing | Loaded::Damaged => Content::default(),
    };
    let seen = content.modules.iter().map(|cursor| cursor.seen.max(cursor.acked));
    let memory = Memory {
        floor: seen.max().unwrap_or(0),
        segments: content.segments.clone(),
        is_closed: std::mem::take(&mut content.is_closed),
    };
    let segment_bytes =
        config.segment_bytes.min(config.max_bytes / MIN_SEGMENTS).max(MIN_SEGMENT_BYTES);
    let segments = directory.join("segments");
    let reserve = Reserve::open(directory, config.reserve_bytes);
    let opened =
        Ledger::open(&segments, config.durability, segment_bytes, &memory, losses, reserve)?;
    let end = opened.next - 1;
    let holds_events = opened.ledger.list().first().is_some_and(|info| info.base <= end);
    if holds_events && !matches!(loaded, Loaded::Content(_)) {
        opened.ledger.losses.note_some(LossKind::Subscriptions, &cursors.name(), 0);
        content.redeliver_upto = end;
    }
    let store = |module: &str| DeadStore::new(&dead_directory, module.into(), power);
    catch_up(&opened, &mut content.modules, store)?;
    content.segments = opened.ledger.kept();
    // What was written off must not be looked for again once its numbers have been passed. A full
    // disk must not keep the daemon down, though.
    if let Err(error) = save(&cursors, &opened.ledger, &content) {
        tracing::error!(%error, "cannot write down where the modules are in the event ledger");
    }
    let mut routes = Routes::default();
    for cursor in content.modules {
        let dead = store(&cursor.module);
        routes.subscribers.push(Arc::new(Subscriber::new(cursor, dead)));
    }
    let shared = Arc::new(Shared {
        config,
        ledger: opened.ledger.clone(),
        cursors,
        dead_directory,
        redeliver_upto: AtomicU64::new(content.redeliver_upto),
        routes: RwLock::new(routes),
        housekeeping: Mutex::new(()),
        ids: Ids::new(),
        spares: Spares::default(),
        distributed: AtomicU64::new(end),
        dirty: AtomicBool::new(true),
        stop_maintenance: Mutex::new(false),
        wake_maintenance: Condvar::new(),
        closed: AtomicBool::new(false),
    });
    start(shared, opened)
}

/// Writes the cursors down. Where the disk is full, pieces of the reserve are given up for them.
pub(super) fn save(
    cursors: &Cursors,
    ledger: &Ledger,
    content: &Content,
) -> Result<(), LedgerError> {
    let mut saved = cursors.save(content);
    while let Err(LedgerError::Io { cause, .. }) = &saved
        && is_full(cause)
        && ledger.reserve.give_up()
    {
        saved = cursors.save(content);
    }
    saved
}

fn start(shared: Arc<Shared>, opened: Opened) -> Result<Bus, LedgerError> {
    let sink = shared.clone();
    let writer = Writer::start(opened, Box::new(move |entries| sink.distribute(entries)))?;
    let bus = Bus { shared, writer: Arc::new(writer), maintenance: Mutex::new(None) };
    let (shared, writer) = (bus.shared.clone(), bus.writer.clone());
    let maintenance = std::thread::Builder::new()
        .name("ledger-upkeep".to_owned())
        .spawn(move || super::maintenance::run(&shared, &writer))
        .map_err(|cause| LedgerError::Thread {
            does: "keeps the event ledger's counters",
            cause,
        })?;
    *bus.maintenance.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(maintenance);
    Ok(bus)
}

/// Brings counters that were written down some time before the end up to the end of the ledger.
fn catch_up(
    opened: &Opened,
    known: &mut [Cursor],
    store: impl Fn(&str) -> DeadStore,
) -> Result<(), LedgerError> {
    let (ledger, last) = (&opened.ledger, opened.last);
    let read = |error| io_error("read the event ledger in", &ledger.directory)(error);
    let first = ledger.list().first().map_or(0, |info| info.base);
    for cursor in &mut *known {
        let live = cursor.live.pending;
        cursor.live.drop_pending(DropReason::Restart, live);
        let is_short = cursor.acked + 1 < first;
        let lost = cursor.ledger.dropped.of(DropReason::Lost);
        if opened.is_hurt || cursor.seen > last || is_short || lost > 0 {
            let is_lost = opened.is_hurt || cursor.seen > last || !is_short;
            let reason = if is_lost { DropReason::Lost } else { DropReason::Retention };
            let left = count(ledger, cursor, cursor.acked + 1, cursor.seen.min(last));
            let left = left.map_err(read)?;
            write_off(cursor, reason, left);
            // A loss that is remembered no more may be there again.
            let again = left.saturating_sub(cursor.ledger.pending).min(lost);
            cursor.ledger.find_again(again);
        }
    }
    // A replay may have been cut short between its steps: these letters are pending again.
    for (module, id) in count_unseen(ledger, known, last).map_err(read)? {
        let taken = store(&module).take(|letter| letter.event.id == id, |_| Ok(()));
        taken.map_err(io_error("repair the dead letters in", &ledger.directory))?;
    }
    known.iter_mut().try_for_each(|cursor| {
        let dead_letters = store(&cursor.module);
        recount_dead_letters(cursor, &dead_letters, &ledger.losses)
    })
}

/// Counts the events that came after the counters were written; returns the dead letters that were
/// replayed.
fn count_unseen(
    ledger: &Ledger,
    known: &mut [Cursor],
    last: u64,
) -> std::io::Result<Vec<(String, Uuid)>> {
    let mut replayed = Vec::new();
    let Some(from) = known.iter().map(|cursor| cursor.seen + 1).min() else { return Ok(replayed) };
    Reader::at(from).visit(ledger, last, |record| {
        for cursor in known.iter_mut().filter(|cursor| cursor.seen < record.sequence) {
            cursor.seen = record.sequence;
            if wants(&cursor.module, &cursor.epochs, record) {
                cursor.ledger.pending += 1;
                if !record.from_dead {
                    cursor.ledger.accepted += 1;
                } else {
                    cursor.ledger.dead -= 1;
                    replayed.push((cursor.module.clone(), record.id));
                }
            }
        }
        true
    })?;
    Ok(replayed)
}

/// Counts the dead letters anew. Those beyond the cursor were written after it and are removed:
/// their events come again. Missing ones were purged before the counters were written, or are lost
/// where the file is damaged or gone.
fn recount_dead_letters(
    cursor: &mut Cursor,
    store: &DeadStore,
    losses: &Losses,
) -> Result<(), LedgerError> {
    let Taken { stay, is_whole, .. } = letters_until(store, cursor.acked)?;
    let gone = cursor.ledger.dead.saturating_sub(stay);
    // Some that nobody knew any more can be read again.
    cursor.ledger.accepted += stay.saturating_sub(cursor.ledger.dead);
    cursor.ledger.dead = stay;
    let reason = if is_whole { DropReason::Purged } else { DropReason::Lost };
    cursor.ledger.dropped.add(reason, gone);
    if gone > 0 && !is_whole {
        losses.note_some(LossKind::DeadLetters, &format!("dead/{}.log", cursor.module), gone);
    }
    Ok(())
}

/// Removes the letters beyond `acked`.
fn letters_until(store: &DeadStore, acked: u64) -> Result<Taken, LedgerError> {
    let newer = |letter: &crate::ledger::DeadLetter| letter.event.sequence > acked;
    let taken = store.take(newer, |_| Ok::<_, std::io::Error>(()));
    taken.map_err(io_error("read the dead letters of", Path::new(store.module())))
}

/// Counts the records from `from` to `upto` that are for this subscriber.
pub(super) fn count(
    ledger: &Ledger,
    cursor: &Cursor,
    from: u64,
    upto: u64,
) -> std::io::Result<u64> {
    let mut count = 0;
    Reader::at(from).visit(ledger, upto, |record| {
        count += u64::from(wants(&cursor.module, &cursor.epochs, record));
        true
    })?;
    Ok(count)
}

fn write_off(cursor: &mut Cursor, reason: DropReason, left: u64) {
    let gone = cursor.ledger.pending.saturating_sub(left);
    if gone > 0 {
        cursor.ledger.drop_pending(reason, gone);
        tracing::warn!(
            module = %cursor.module, events = gone, reason = reason.name(),
            "events that waited for this module are no longer in the event ledger"
        );
    }
}

impl Shared {
    /// Finds or creates the subscriber of a module and marks its inbox as open; returns whether
    /// anything about it is new.
    pub(super) fn register(
        &self,
        module: &str,
        filters: &[String],
    ) -> Result<(Arc<Subscriber>, bool), SubscribeError> {
        let mut routes = self.routes_mut();
        let mut is_new = false;
        let subscriber = match routes.find(module) {
            Some(subscriber) => subscriber.clone(),
            None => {
                let cursor = self.first_cursor(module, filters)?;
                let sync = self.ledger.is_power();
                let dead = DeadStore::new(&self.dead_directory, module.into(), sync);
                let subscriber = Arc::new(Subscriber::new(cursor, dead));
                routes.subscribers.push(subscriber.clone());
                is_new = true;
                subscriber
            }
        };
        let mut state = subscriber.lock();
        if state.attached {
            return Err(SubscribeError::InUse(module.to_owned()));
        }
        is_new |= state.listen_to(filters);
        (state.attached, state.listening) = (true, true);
        drop(state);
        routes.changed();
        Ok((subscriber, is_new))
    }

    /// Returns the cursor at which a new subscription begins: at the end, or, when the cursors were
    /// lost, at the oldest event that is kept.
    fn first_cursor(&self, module: &str, filters: &[String]) -> Result<Cursor, LedgerError> {
        let end = self.distributed.load(Ordering::SeqCst);
        let from = self.redeliver_from().unwrap_or(end + 1);
        let mut cursor = Cursor {
            module: module.to_owned(),
            epochs: vec![Epoch { from, filters: filters.to_vec() }],
            acked: from - 1,
            seen: end,
            ledger: Counts::default(),
            live: Counts::default(),
        };
        if from <= end {
            let found = count(&self.ledger, &cursor, from, end)
                .map_err(io_error("read the event ledger in", &self.ledger.directory))?;
            (cursor.ledger.accepted, cursor.ledger.pending) = (found, found);
            let dead = DeadStore::new(&self.dead_directory, module.into(), self.ledger.is_power());
            // Those among what is kept come again.
            let stay = letters_until(&dead, from - 1)?.stay;
            cursor.ledger.accepted += stay;
            cursor.ledger.dead = stay;
        }
        Ok(cursor)
    }

    /// Returns the sequence of the oldest event that is kept, as long as a module that subscribes
    /// for the first time gets events that it may have got before the cursors were lost.
    pub(super) fn redeliver_from(&self) -> Option<u64> {
        let upto = self.redeliver_upto.load(Ordering::SeqCst);
        let first = self.ledger.list().first().map_or(u64::MAX, |info| info.base);
        (first <= upto).then_some(first)
    }
}

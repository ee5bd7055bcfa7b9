//! The state of the bus for one module: its place in the ledger, its queues, its counters.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use super::{
    queue::{Queue, Run},
    routes::{Route, any_fits},
};
use crate::ledger::{
    Audience, Counts, Cursor, DeadStore, DropReason, Entry, Epoch, Event, SharedEvent,
};

/// Ledger events that wait in memory for one module, at most; further ones are read from disk. A
/// module that commits a transaction is behind for a moment now and then: 8,192 events took 10 MB
/// for it, which stayed with the allocator, and no processor time was saved by it.
const LEDGER_IN_MEMORY: usize = 1024;

/// One module, running or not.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) module: Arc<str>,
    pub(super) dead: DeadStore,
    state: Mutex<State>,
    pub(super) wake: Condvar,
}

/// State of a subscriber that changes, under one lock, so that the counters balance at every
/// moment.
#[derive(Debug)]
pub(super) struct State {
    /// True while an [`Inbox`](super::Inbox) is open.
    pub(super) attached: bool,
    /// True while live events are taken in, because an inbox is open or will be soon.
    pub(super) listening: bool,
    pub(super) epochs: Arc<[Epoch]>,
    pub(super) ledger_counters: Counts,
    pub(super) live_counters: Counts,
    /// Sequence up to which every ledger event is in the counters.
    pub(super) seen: u64,
    /// Sequence from which on ledger events, up to `seen`, are on disk only.
    pub(super) next: u64,
    pub(super) ledger: Queue,
    pub(super) live: Queue,
    /// Sequences of the ledger events in the head of the inbox.
    pub(super) head: VecDeque<u64>,
    /// Number of live events in the head of the inbox.
    pub(super) head_live: u64,
    /// Time when the oldest event in the head of the inbox was accepted, in milliseconds since the
    /// Unix epoch.
    pub(super) head_since: Option<u64>,
    /// Failed attempts at events that a stopped module gave back.
    pub(super) tried: Vec<Tried>,
    /// Number of arrivals, by which both classes are delivered in the order of their arrival.
    pub(super) stamp: u64,
    pub(super) sleep: Sleep,
    pub(super) awakened: bool,
    /// Number of times lost events were written off: what was read from disk before one is not to
    /// be counted.
    pub(super) write_offs: u64,
    /// The oldest event on disk that waits: the `next` for which it was looked up, and the time
    /// when it was accepted.
    pub(super) oldest_on_disk: Option<(u64, u64)>,
}

/// Events for which the module's thread sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sleep {
    Awake,
    /// Sleeps until an event comes, a [`Waker`] wakes it, or a time has come.
    Idle,
    /// Sleeps until a [`Waker`] wakes it or a time has come, not for events.
    NoEvents,
    /// Sleeps as with `NoEvents`, but no longer than until a queue is half full.
    Gathering,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Tried {
    pub(super) sequence: u64,
    pub(super) attempt: u32,
    pub(super) failures: u32,
}

/// A point in the order of an inbox's events: see [`Inbox::mark`](super::Inbox::mark).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub(super) stamp: u64,
    pub(super) sequence: u64,
}

/// Handle that wakes a module's thread from elsewhere.
#[derive(Debug, Clone)]
pub struct Waker(pub(super) Arc<Subscriber>);

impl Waker {
    /// Makes the present or the next [`Inbox::wait`](super::Inbox::wait) return
    /// [`Woken::Awakened`](super::Woken::Awakened).
    pub fn wake(&self) {
        let mut state = self.0.lock();
        state.awakened = true;
        let asleep = std::mem::replace(&mut state.sleep, Sleep::Awake) != Sleep::Awake;
        drop(state);
        if asleep {
            self.0.wake.notify_one();
        }
    }

    /// Returns a mark of this moment, as [`Inbox::mark`](super::Inbox::mark) does.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.0.lock().mark()
    }
}

impl Subscriber {
    pub(super) fn new(cursor: Cursor, dead: DeadStore) -> Self {
        let state = State {
            attached: false,
            listening: false,
            epochs: cursor.epochs.into(),
            ledger_counters: cursor.ledger,
            live_counters: cursor.live,
            seen: cursor.seen,
            next: cursor.acked + 1,
            ledger: Queue::default(),
            live: Queue::default(),
            head: VecDeque::new(),
            head_live: 0,
            head_since: None,
            tried: Vec::new(),
            stamp: 1,
            sleep: Sleep::Awake,
            awakened: false,
            write_offs: 0,
            oldest_on_disk: None,
        };
        let module = cursor.module.into();
        Self { module, dead, state: Mutex::new(state), wake: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether its present filters fit a topic.
    pub(super) fn listens_to(&self, topic: &str) -> bool {
        let epochs = self.lock().epochs.clone();
        epochs.last().is_some_and(|epoch| any_fits(&epoch.filters, topic))
    }

    /// Takes in some events of a live group; the oldest are dropped when there is no room.
    pub(super) fn push_live(
        &self,
        group: &Arc<[Event]>,
        ranges: impl Iterator<Item = Range<usize>>,
        room: usize,
    ) {
        let mut pushed_out = Vec::new();
        let mut state = self.lock();
        if !state.listening {
            return;
        }
        for range in ranges {
            let count = range.len() as u64;
            state.live_counters.accepted += count;
            state.live_counters.pending += count;
            let stamp = state.stamps(count);
            state.live.push(Run::new(group.clone(), range, stamp));
        }
        while state.live.is_over(room) {
            let Some(oldest) = state.live.pop(1) else { break };
            state.live_counters.drop_pending(DropReason::Overflow, 1);
            pushed_out.push(oldest);
        }
        self.wake_for_events(state, room);
    }

    /// Takes in a committed group: `routes` are those of its entries, `place` is the subscriber's
    /// index in them.
    pub(super) fn push_ledger(
        &self,
        entries: &[Entry<SharedEvent>],
        routes: &[Route],
        place: usize,
        room: usize,
    ) {
        let Some(last) = entries.last().map(|entry| entry.event.sequence) else { return };
        let mut state = self.lock();
        let mut caught_up = state.next > state.seen;
        let mut any = false;
        for (entry, route) in entries.iter().zip(routes) {
            match &entry.audience {
                Audience::Subscribers if route.contains(&place) => {
                    state.ledger_counters.accepted += 1
                }
                Audience::Replay(module) if *module == self.module => {
                    state.ledger_counters.accepted += 1;
                }
                Audience::DeadLetter(module) if *module == self.module => {
                    state.ledger_counters.dead -= 1;
                }
                _ => continue,
            }
            any = true;
            state.ledger_counters.pending += 1;
            if !caught_up {
                continue;
            }
            if state.attached && state.ledger.has_room(room.min(LEDGER_IN_MEMORY)) {
                let stamp = state.stamps(1);
                state.ledger.push(Run::one(entry.event.clone(), stamp));
            } else {
                caught_up = false;
                state.next = entry.event.sequence;
            }
        }
        state.seen = last;
        if caught_up {
            state.next = last + 1;
        }
        if any {
            self.wake_for_events(state, room);
        }
    }

    fn wake_for_events(&self, mut state: MutexGuard<'_, State>, room: usize) {
        let wakes = match state.sleep {
            Sleep::Idle => true,
            Sleep::Gathering => {
                !state.live.has_room(room / 2)
                    || !state.ledger.has_room(room.min(LEDGER_IN_MEMORY) / 2)
            }
            Sleep::Awake | Sleep::NoEvents => false,
        };
        if wakes {
            state.sleep = Sleep::Awake;
        }
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
    }
}

impl State {
    /// Returns the sequence up to which everything is settled.
    pub(super) fn acked(&mut self) -> u64 {
        self.skip_what_is_for_others();
        let first = self
            .head
            .front()
            .copied()
            .or_else(|| self.ledger.front().map(|run| run.first().sequence));
        first.unwrap_or(self.next) - 1
    }

    /// Moves `next` behind `seen` where nothing on disk is for this module, so that it is not read.
    pub(super) fn skip_what_is_for_others(&mut self) {
        if self.ledger_counters.pending == self.in_memory() {
            self.next = self.next.max(self.seen + 1);
        }
    }

    /// Returns the number of ledger events that are in memory.
    pub(super) fn in_memory(&self) -> u64 {
        (self.head.len() + self.ledger.len()) as u64
    }

    /// Returns the first of the next `count` arrival stamps.
    pub(super) fn stamps(&mut self, count: u64) -> u64 {
        let first = self.stamp + 1;
        self.stamp += count;
        first
    }

    /// Replaces the filters, for events that come from now on; returns whether they changed.
    pub(super) fn listen_to(&mut self, filters: &[String]) -> bool {
        if self.epochs.last().is_some_and(|epoch| epoch.filters == filters) {
            return false;
        }
        let epoch = Epoch { from: self.seen + 1, filters: filters.to_vec() };
        self.epochs = self.epochs.iter().cloned().chain([epoch]).collect();
        true
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { stamp: self.stamp, sequence: self.seen }
    }

    /// Returns the state that is saved.
    pub(super) fn cursor(&mut self, module: &str) -> Cursor {
        let acked = self.acked();
        // Old filters matter only to events that still wait.
        let live_from = self.epochs.iter().rposition(|epoch| epoch.from <= acked + 1).unwrap_or(0);
        if live_from > 0 {
            self.epochs = self.epochs[live_from..].into();
        }
        Cursor {
            module: module.to_owned(),
            epochs: self.epochs.to_vec(),
            acked,
            seen: self.seen,
            ledger: self.ledger_counters,
            live: self.live_counters,
        }
    }

    /// Removes and returns the next events in the order of arrival, at most `max`.
    pub(super) fn pop(&mut self, max: usize) -> Option<Run> {
        let ledger = self.ledger.front().map(|run| run.stamp);
        let live = self.live.front().map(|run| run.stamp);
        match (ledger, live) {
            (Some(ledger), Some(live)) if live < ledger => self.live.pop(max),
            (Some(_), _) => self.ledger.pop(max),
            (None, _) => self.live.pop(max),
        }
    }
}

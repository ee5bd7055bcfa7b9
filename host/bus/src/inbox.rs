//! A module's side of the bus: take, handle, settle.

use std::{
    io,
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use module_sdk::Class;

use super::{
    core::Shared,
    queue::{Queue, Run},
    routes::wants,
    spares::spare,
    subscriber::{Mark, Sleep, State, Subscriber, Tried, Waker},
};
use crate::ledger::{DropReason, Event, Reader};

/// Number of events read from disk at once, at most; [`REFILL_BYTES`] limits their size.
const REFILL_EVENTS: usize = 1024;
const REFILL_BYTES: usize = 4 << 20;
/// Time for which a thread that just ran out of events lets new ones gather before it asks to be
/// woken for the next: at high rates publishers then pay for no wake-ups, and batches are large.
/// Where fewer than [`GATHER_FROM`] came at once, the next is answered without delay.
const GATHER: Duration = Duration::from_micros(100);
const GATHER_FROM: usize = 8;
/// Longest time for which they gather. A handler that takes long for a batch, such as one that
/// commits a transaction, is given [`GATHER_TIMES`] as long, so that batches grow with its costs.
const LONGEST_GATHER: Duration = Duration::from_millis(40);
const GATHER_TIMES: u32 = 32;
/// A stream of single events is as many within such a time: publisher and handler would take turns,
/// each event waking the one and stopping the other.
const STREAM_FROM: usize = 32;
const STREAM: Duration = Duration::from_millis(1);
/// Time for which a thread looks before it sleeps, where the last wake-up came within [`BUSY`]:
/// then one call follows another, and to wake a thread takes as long as a short call.
const MOMENT: Duration = Duration::from_micros(50);
const BUSY: Duration = Duration::from_micros(150);

/// One event that was handed to the module.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The event.
    pub event: &'a Event,
    /// Number of this delivery: 1 on the first, more on each redelivery.
    pub attempt: u32,
}

/// Failure of a module to handle an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kind of the failure, which decides how it is treated.
    pub kind: FailureKind,
    /// Error message of the handler; it is kept with a dead letter.
    pub message: String,
}

/// Kind of a [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The handler failed. The fifth time a ledger event becomes a dead letter; a live event that
    /// fails alone is dropped at once.
    Failed,
    /// Nothing can be handled now (full disk, locked database). A ledger event comes again until
    /// it is handled, a live one five times.
    Unavailable,
}

/// Reason for which [`Inbox::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// [`Inbox::take`] has events.
    Events,
    /// A [`Waker`] woke the thread.
    Awakened,
    /// The deadline has come.
    Deadline,
}

/// The one consumer of a module's events. Dropped, it gives back what was not settled: ledger
/// events wait for the next inbox of the module, live events are dropped.
#[derive(Debug)]
pub struct Inbox {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) shared: Arc<Shared>,
    reader: Reader,
    /// Events that were taken from the queues and are not settled, oldest first.
    pub(super) head: Queue,
    /// Number of events of `head` that the module holds.
    out: usize,
    /// Number of events given at once: one after a failure, twice as many after each success.
    pub(super) limit: usize,
    /// Number of times in a row that the module was not available.
    pub(super) unavailable: u32,
    pub(super) retry_at: Option<Instant>,
    /// True when many events were taken at once since the last wait.
    busy: bool,
    /// Time at which the large batch that is out was taken.
    out_since: Option<Instant>,
    /// Time that the handler took for the last large batch.
    handled_in: Duration,
    /// Number of events that were taken, and since when, which is no longer ago than [`STREAM`].
    stream: (usize, Instant),
    /// The last wake-up came at once.
    is_called: bool,
    /// Settled events on their way to those that are used again; empty between two calls.
    spares: Vec<Arc<[Event]>>,
}

impl Inbox {
    pub(super) fn new(subscriber: Arc<Subscriber>, shared: Arc<Shared>) -> Self {
        Self {
            subscriber,
            shared,
            reader: Reader::at(0),
            head: Queue::default(),
            out: 0,
            limit: usize::MAX,
            unavailable: 0,
            retry_at: None,
            busy: false,
            out_since: None,
            handled_in: Duration::ZERO,
            stream: (0, Instant::now()),
            is_called: false,
            spares: Vec::new(),
        }
    }

    /// Returns the oldest events that are not settled, at most `max`; none while a failed event
    /// waits for its next try. After a failure they come one by one, then in batches that double.
    ///
    /// What is taken must be [settled](Self::settle); until then the same events come again.
    pub fn take(&mut self, max: usize) -> Vec<Delivery<'_>> {
        self.out = 0;
        if self.is_backing_off() {
            return Vec::new();
        }
        let wanted = max.min(self.limit);
        if self.head.len() < wanted {
            self.fill(wanted);
        }
        self.out = wanted.min(self.head.len());
        self.busy |= self.out >= GATHER_FROM;
        self.out_since = (self.out >= GATHER_FROM).then(Instant::now);
        self.stream.0 += self.out;
        let mut taken = Vec::with_capacity(self.out);
        let out = self.head.hand_out(self.out);
        taken.extend(out.map(|(event, attempt)| Delivery { event, attempt }));
        taken
    }

    /// Settles the events that were taken: the first `handled` are done. With a `failure` the next
    /// one failed; it and all after it stay, in order.
    pub fn settle(&mut self, handled: usize, failure: Option<Failure>) {
        let out = std::mem::take(&mut self.out);
        let handled = handled.min(out);
        let alone = out == 1;
        if let Some(since) = self.out_since.take() {
            self.handled_in = since.elapsed();
        }
        let mut ledger = 0;
        let mut left = handled;
        while let Some(run) = self.head.pop(left) {
            left -= run.len();
            if run.class() == Class::Ledger {
                ledger += run.len();
            }
            self.spares.extend(spare(run.into_group()));
        }
        self.shared.spares.keep(&mut self.spares);
        let live = (handled - ledger) as u64;
        let mut state = self.subscriber.lock();
        state.live_counters.handled += live;
        state.live_counters.pending -= live;
        state.head_live -= live;
        state.ledger_counters.handled += ledger as u64;
        state.ledger_counters.pending -= ledger as u64;
        state.head.drain(..ledger);
        state.head_since = self.head_since();
        drop(state);
        if ledger > 0 {
            self.shared.touch();
        }
        if handled > 0 {
            self.unavailable = 0;
        }
        match failure {
            Some(failure) if handled < out => self.failed(&failure, alone),
            _ => {
                self.retry_at = None;
                self.limit = self.limit.saturating_mul(2);
            }
        }
    }

    /// Sleeps until there is something to take, a [`Waker`] wakes the thread, or `until` has come.
    pub fn wait(&mut self, until: Option<Instant>) -> Woken {
        let begin = Instant::now();
        if begin.duration_since(self.stream.1) > STREAM {
            self.stream = (0, begin);
        }
        self.busy |= self.stream.0 >= STREAM_FROM;
        while self.is_called && begin.elapsed() < MOMENT && !self.is_wanted() {
            std::thread::yield_now();
        }
        let woken = self.sleep_until(until);
        self.is_called = woken == Woken::Awakened && begin.elapsed() < BUSY;
        woken
    }

    /// Returns whether there is no need to sleep.
    fn is_wanted(&self) -> bool {
        let mut state = self.subscriber.lock();
        state.awakened || state.has_more()
    }

    fn sleep_until(&mut self, until: Option<Instant>) -> Woken {
        let mut state = self.subscriber.lock();
        loop {
            state.sleep = Sleep::Awake;
            if std::mem::take(&mut state.awakened) {
                return Woken::Awakened;
            }
            let now = Instant::now();
            let retry_at = self.retry_at.filter(|due| *due > now);
            if retry_at.is_none() && (!self.head.is_empty() || state.has_more()) {
                return Woken::Events;
            }
            if until.is_some_and(|until| until <= now) {
                return Woken::Deadline;
            }
            let gather = std::mem::take(&mut self.busy) && retry_at.is_none();
            state.sleep = match (retry_at, gather) {
                (Some(_), _) => Sleep::NoEvents,
                (None, true) => Sleep::Gathering,
                (None, false) => Sleep::Idle,
            };
            let gathered = gather.then(|| {
                let fitting = self.handled_in.saturating_mul(GATHER_TIMES);
                now + fitting.clamp(GATHER, LONGEST_GATHER)
            });
            let end = [until, retry_at, gathered].into_iter().flatten().min();
            state = sleep(&self.subscriber, state, end.map(|end| end - now));
        }
    }

    /// Returns a handle that wakes this inbox's thread from elsewhere.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(self.subscriber.clone())
    }

    /// Returns a mark of this moment: everything accepted so far is before it.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.subscriber.lock().mark()
    }

    /// Returns whether everything accepted before the mark is settled, or waits behind a failed
    /// event that has its next try later: a query need not wait for that.
    #[must_use]
    pub fn reached(&self, mark: &Mark) -> bool {
        if self.is_backing_off() {
            return true;
        }
        let live = self.head.runs().find(|run| run.class() == Class::Live);
        if live.is_some_and(|run| run.stamp <= mark.stamp) {
            return false;
        }
        let mut state = self.subscriber.lock();
        let live = state.live.front().is_none_or(|run| run.stamp > mark.stamp);
        live && state.acked() >= mark.sequence
    }

    /// Returns when the oldest event of `head` was accepted, in milliseconds since the Unix epoch.
    pub(super) fn head_since(&self) -> Option<u64> {
        self.head.front().map(|run| run.first().accepted_ms())
    }

    fn is_backing_off(&self) -> bool {
        self.retry_at.is_some_and(|due| due > Instant::now())
    }

    /// Moves events from the queues to the head until it holds `wanted` events.
    fn fill(&mut self, wanted: usize) {
        if let Err(error) = self.refill() {
            let module = &self.subscriber.module;
            tracing::error!(%module, %error, "cannot read the event ledger, will try again");
            self.back_off_unavailable();
        }
        let mut state = self.subscriber.lock();
        if state.ledger.is_empty() {
            let room = wanted.saturating_sub(self.head.len());
            state.head_live += state.live.move_to(&mut self.head, room) as u64;
        }
        while let Some(run) = state.pop(wanted.saturating_sub(self.head.len())) {
            match run.class() {
                Class::Ledger => state.head.extend(run.events().iter().map(|event| event.sequence)),
                Class::Live => state.head_live += run.len() as u64,
            }
            self.head.push(run);
        }
        state.head_since = self.head_since();
    }

    /// Reads on from disk when no ledger event is left in memory and more wait there. The lock is
    /// not held while it reads.
    fn refill(&mut self) -> io::Result<()> {
        let mut state = self.subscriber.lock();
        state.skip_what_is_for_others();
        if state.ledger.front().is_some() || state.next > state.seen {
            return Ok(());
        }
        let (from, upto, epochs) = (state.next, state.seen, state.epochs.clone());
        let write_offs = state.write_offs;
        drop(state);
        if self.reader.next() != from {
            self.reader = Reader::at(from);
        }
        let damaged = self.reader.damaged();
        let (mut events, mut bytes) = (Vec::new(), 0);
        self.reader.visit(&self.shared.ledger, upto, |record| {
            if wants(&self.subscriber.module, &epochs, record) {
                let event = record.to_event();
                bytes += event.weight();
                events.push(event);
            }
            events.len() < REFILL_EVENTS && bytes < REFILL_BYTES
        })?;
        let mut state = self.subscriber.lock();
        if state.write_offs != write_offs {
            // It may hold open what is gone and was written off: read again what is there.
            self.reader = Reader::at(0);
            return Ok(());
        }
        for event in events {
            // Retention may have passed by meanwhile.
            if event.sequence >= state.next {
                let stamp = state.stamps(1);
                let run = state.with_tries(Run::one(event.into(), stamp));
                state.ledger.push(run);
            }
        }
        state.next = state.next.max(self.reader.next());
        drop(state);
        if self.reader.damaged() != damaged {
            let _housekeeping = self.shared.housekeeping();
            self.shared.write_off_lost(&self.subscriber);
        }
        Ok(())
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut state = self.subscriber.lock();
        while let Some(run) = self.head.pop_back() {
            state.give_back(run);
        }
        state.head.clear();
        state.head_live = 0;
        state.head_since = None;
        state.attached = false;
        state.listening = false;
        state.sleep = Sleep::Awake;
        // A module that does not run needs no memory: its ledger events wait on disk.
        if let Some(first) = state.ledger.front().map(|run| run.first().sequence) {
            state.next = first;
        }
        let ledger = std::mem::take(&mut state.ledger);
        let live = std::mem::take(&mut state.live);
        state.live_counters.drop_pending(DropReason::Stopped, live.len() as u64);
        drop(state);
        drop((ledger, live));
    }
}

impl State {
    /// Returns whether a take would find events.
    fn has_more(&mut self) -> bool {
        self.skip_what_is_for_others();
        self.ledger.front().is_some() || self.live.front().is_some() || self.next <= self.seen
    }

    pub(super) fn gone_from_head(&mut self, run: &Run) {
        match run.class() {
            Class::Ledger => drop(self.head.drain(..run.len())),
            Class::Live => self.head_live -= run.len() as u64,
        }
    }

    fn give_back(&mut self, run: Run) {
        if run.class() == Class::Live {
            self.live.push_front(run);
            return;
        }
        if run.attempt > 0 {
            self.tried.extend(run.events().iter().map(|event| Tried {
                sequence: event.sequence,
                attempt: run.attempt,
                failures: run.failures,
            }));
        }
        self.ledger.push_front(run);
    }

    fn with_tries(&mut self, mut run: Run) -> Run {
        let sequence = run.first().sequence;
        if let Some(at) = self.tried.iter().position(|tried| tried.sequence == sequence) {
            let tried = self.tried.swap_remove(at);
            run.attempt = tried.attempt;
            run.failures = tried.failures;
        }
        run
    }
}

fn sleep<'a>(
    subscriber: &'a Subscriber,
    state: MutexGuard<'a, State>,
    time: Option<Duration>,
) -> MutexGuard<'a, State> {
    match time {
        None => subscriber.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
        Some(time) => {
            let woken = subscriber.wake.wait_timeout(state, time);
            woken.unwrap_or_else(PoisonError::into_inner).0
        }
    }
}

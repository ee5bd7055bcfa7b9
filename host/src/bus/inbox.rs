//! A module's side of the bus: take, handle, settle.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use module_sdk::Class;

use super::{
    core::Shared,
    routes::wants,
    subscriber::{Mark, Poker, Sleep, State, Subscriber, Tried},
};
use crate::ledger::{DropReason, Event, Reader};

/// What is read from disk at once, in events and in bytes.
const REFILL_EVENTS: usize = 1024;
const REFILL_BYTES: usize = 4 << 20;
/// How long a thread that just ran out of events lets new ones gather before it asks to be woken
/// for the next: at high rates publishers then pay for no wake-ups, and batches are large.
const GATHER: Duration = Duration::from_micros(50);

/// One event in a module's hands.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The event.
    pub event: Arc<Event>,
    /// 1 on first delivery, more on each redelivery.
    pub attempt: u32,
    pub(super) stamp: u64,
    pub(super) failures: u32,
}

impl Delivery {
    pub(super) fn new(event: Arc<Event>, stamp: u64) -> Self {
        Self { event, attempt: 0, stamp, failures: 0 }
    }
}

/// What came of an event that was not handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How to treat it.
    pub kind: FailureKind,
    /// What the handler said; it is kept with a dead letter.
    pub message: String,
}

/// How a failure is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The handler failed. The fifth time a ledger event becomes a dead letter; a live event that
    /// fails alone is dropped at once.
    Failed,
    /// Nothing can be handled now (full disk, locked database). A ledger event comes again until
    /// it is handled, a live one five times.
    Unavailable,
}

/// Why [`Inbox::wait`] answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// [`Inbox::take`] has something.
    Events,
    /// A [`Poker`] asked for it.
    Poked,
    /// The time has come.
    Deadline,
}

/// The one consumer of a module's events. Dropped, it gives back what was not settled: ledger
/// events wait for the next inbox of the module, live events are dropped.
#[derive(Debug)]
pub struct Inbox {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) shared: Arc<Shared>,
    reader: Reader,
    /// What was taken from the queues and is not settled, oldest first.
    pub(super) head: VecDeque<Delivery>,
    /// How many of `head` the module holds.
    out: usize,
    /// How many are given at once: one after a failure, twice as many after each success.
    pub(super) limit: usize,
    /// How often in a row the module was not available.
    pub(super) unavailable: u32,
    pub(super) retry_at: Option<Instant>,
    /// Something was taken since the last wait.
    busy: bool,
    keep_live: bool,
}

impl Inbox {
    pub(super) fn new(subscriber: Arc<Subscriber>, shared: Arc<Shared>) -> Self {
        Self {
            subscriber,
            shared,
            reader: Reader::at(0),
            head: VecDeque::new(),
            out: 0,
            limit: usize::MAX,
            unavailable: 0,
            retry_at: None,
            busy: false,
            keep_live: false,
        }
    }

    /// The oldest events that are not settled, at most `max`; none while a failed event waits for
    /// its next try. After a failure they come one by one, then in batches that double.
    ///
    /// What is taken must be [settled](Self::settle); until then the same events come again.
    pub fn take(&mut self, max: usize) -> &[Delivery] {
        self.out = 0;
        if self.is_backing_off() {
            return &[];
        }
        let wanted = max.min(self.limit);
        if self.head.len() < wanted {
            self.fill(wanted);
        }
        self.out = wanted.min(self.head.len());
        self.busy |= self.out > 0;
        let taken = &mut self.head.make_contiguous()[..self.out];
        for delivery in &mut *taken {
            delivery.attempt += 1;
        }
        taken
    }

    /// Says how far the module came with what it took: the first `handled` are done. With a
    /// `failure` the next one failed; it and all after it stay, in order.
    pub fn settle(&mut self, handled: usize, failure: Option<Failure>) {
        let out = std::mem::take(&mut self.out);
        let handled = handled.min(out);
        let alone = out == 1;
        let done: Vec<Delivery> = self.head.drain(..handled).collect();
        let mut state = self.subscriber.lock();
        for delivery in &done {
            state.books(delivery.event.class).handled += 1;
            state.books(delivery.event.class).pending -= 1;
            state.gone_from_head(delivery);
        }
        state.head_since = self.head.front().map(|delivery| delivery.event.accepted_ms());
        drop(state);
        if done.iter().any(|delivery| delivery.event.class == Class::Ledger) {
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

    /// Sleeps until there is something to take, somebody pokes, or `until` has come.
    pub fn wait(&mut self, until: Option<Instant>) -> Woken {
        let mut state = self.subscriber.lock();
        loop {
            state.sleep = Sleep::Awake;
            if std::mem::take(&mut state.poked) {
                return Woken::Poked;
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
            if gather || retry_at.is_some() {
                state.sleep = Sleep::NoEvents;
            } else {
                state.sleep = Sleep::Idle;
            }
            let gathered = gather.then_some(now + GATHER);
            let end = [until, retry_at, gathered].into_iter().flatten().min();
            state = sleep(&self.subscriber, state, end.map(|end| end - now));
        }
    }

    /// Wakes this inbox's thread from elsewhere.
    #[must_use]
    pub fn poker(&self) -> Poker {
        Poker(self.subscriber.clone())
    }

    /// This moment: everything accepted so far is before it.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.subscriber.lock().mark()
    }

    /// Whether everything accepted before the mark is settled, or waits behind a failed event
    /// that has its next try later: a query need not wait for that.
    #[must_use]
    pub fn reached(&self, mark: &Mark) -> bool {
        if self.is_backing_off() {
            return true;
        }
        let live = self.head.iter().find(|delivery| delivery.event.class == Class::Live);
        if live.is_some_and(|delivery| delivery.stamp <= mark.stamp) {
            return false;
        }
        let mut state = self.subscriber.lock();
        let live = state.live.front().is_none_or(|delivery| delivery.stamp > mark.stamp);
        live && state.acked() >= mark.sequence
    }

    /// When a failed event has its next try, if one waits for it.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.retry_at.filter(|due| *due > Instant::now())
    }

    /// How often the event at the head has failed so far, 0 when nothing failed.
    #[must_use]
    pub fn head_failures(&self) -> u32 {
        self.head.front().map_or(0, |delivery| delivery.failures)
    }

    /// Ends this inbox as a drop does, but live events go on to be collected, for a successor
    /// that is to come soon.
    pub fn hand_over(mut self) {
        self.keep_live = true;
    }

    fn is_backing_off(&self) -> bool {
        self.retry_at.is_some_and(|due| due > Instant::now())
    }

    /// Moves events from the queues to the head until it holds so many.
    fn fill(&mut self, wanted: usize) {
        if let Err(error) = self.refill() {
            let module = &self.subscriber.module;
            tracing::error!(%module, %error, "cannot read the event ledger, will try again");
            self.back_off_unavailable();
        }
        let mut state = self.subscriber.lock();
        while self.head.len() < wanted
            && let Some(delivery) = state.pop()
        {
            match delivery.event.class {
                Class::Ledger => state.head.push_back(delivery.event.sequence),
                Class::Live => state.head_live += 1,
            }
            self.head.push_back(delivery);
        }
        state.head_since = self.head.front().map(|delivery| delivery.event.accepted_ms());
    }

    /// Reads on from disk when nothing of the ledger is left in memory and more waits there. The
    /// lock is not held while it reads.
    fn refill(&mut self) -> io::Result<()> {
        let mut state = self.subscriber.lock();
        state.skip_what_is_for_others();
        if state.ledger.front().is_some() || state.next > state.seen {
            return Ok(());
        }
        let (from, upto, epochs) = (state.next, state.seen, state.epochs.clone());
        drop(state);
        if self.reader.next() != from {
            self.reader = Reader::at(from);
        }
        let damaged = self.reader.damaged();
        let (mut events, mut bytes) = (Vec::new(), 0);
        self.reader.visit(&self.shared.ledger, upto, |record| {
            if wants(&self.subscriber.module, &epochs, record) {
                let event = Arc::new(record.to_event());
                bytes += event.weight();
                events.push(event);
            }
            events.len() < REFILL_EVENTS && bytes < REFILL_BYTES
        })?;
        let mut state = self.subscriber.lock();
        for event in events {
            // Retention may have passed by meanwhile.
            if event.sequence >= state.next {
                let stamp = state.next_stamp();
                let delivery = state.with_tries(Delivery::new(event, stamp));
                state.ledger.push(delivery);
            }
        }
        state.next = state.next.max(self.reader.next());
        drop(state);
        if self.reader.damaged() != damaged {
            self.shared.write_off_lost(&self.subscriber);
        }
        Ok(())
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut state = self.subscriber.lock();
        while let Some(delivery) = self.head.pop_back() {
            state.give_back(delivery);
        }
        state.head.clear();
        state.head_live = 0;
        state.head_since = None;
        state.attached = false;
        state.listening = self.keep_live;
        state.sleep = Sleep::Awake;
        // A module that does not run needs no memory: its ledger events wait on disk.
        if let Some(first) = state.ledger.front().map(|delivery| delivery.event.sequence) {
            state.next = first;
        }
        let ledger = state.ledger.take();
        let live = if self.keep_live { VecDeque::new() } else { state.live.take() };
        state.live_books.drop_pending(DropReason::Stopped, live.len() as u64);
        drop(state);
        drop((ledger, live));
    }
}

impl State {
    /// Whether a take would find something.
    fn has_more(&mut self) -> bool {
        self.skip_what_is_for_others();
        self.ledger.front().is_some() || self.live.front().is_some() || self.next <= self.seen
    }

    pub(super) fn gone_from_head(&mut self, delivery: &Delivery) {
        match delivery.event.class {
            Class::Ledger => drop(self.head.pop_front()),
            Class::Live => self.head_live -= 1,
        }
    }

    fn give_back(&mut self, delivery: Delivery) {
        if delivery.event.class == Class::Live {
            self.live.push_front(delivery);
            return;
        }
        if delivery.attempt > 0 {
            self.tried.push(Tried {
                sequence: delivery.event.sequence,
                attempt: delivery.attempt,
                failures: delivery.failures,
            });
        }
        self.ledger.push_front(delivery);
    }

    fn with_tries(&mut self, mut delivery: Delivery) -> Delivery {
        let sequence = delivery.event.sequence;
        if let Some(at) = self.tried.iter().position(|tried| tried.sequence == sequence) {
            let tried = self.tried.swap_remove(at);
            delivery.attempt = tried.attempt;
            delivery.failures = tried.failures;
        }
        delivery
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

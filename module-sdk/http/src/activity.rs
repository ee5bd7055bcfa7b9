//! What one connection is doing, since when, and what it is told to do.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use crate::{End, Limits};

/// How much longer an idle connection is kept than its client was told, so that a request which
/// the client sends at the last moment still meets it.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// How long the other side has to close a connection that was closed on this side. What it sent
/// meanwhile would be answered with a reset, and that may overtake the last answer.
pub(crate) const LINGER: Duration = Duration::from_millis(500);

/// How long a client may take for the head of its request, where others wait for a connection.
/// Whoever wants something sends it with the connection.
const HESITATION: Duration = Duration::from_millis(200);

/// How long it may neither send nor take anything in the midst of an exchange, where others wait.
const PAUSE: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Reading the head of a request.
    Head,
    /// Waiting for a handler, or writing its answer.
    Busy,
    /// Kept alive, between two requests.
    Idle,
    /// Closed on this side.
    Lingering,
}

/// What a connection is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// End after the request that is under way.
    Close,
    /// End now.
    Drop,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Since when the client has not taken what was to be written.
    unread: Option<Instant>,
    /// Since when a handler has waited for more of the body.
    unsent: Option<Instant>,
    order: Option<Order>,
    /// Whether its client was told that it ends.
    is_last_answer: bool,
    waker: Option<Waker>,
}

impl State {
    /// Whether a handler is at work, or its answer is still to be taken.
    fn is_answering(&self) -> bool {
        self.phase == Phase::Busy || (self.phase == Phase::Idle && self.unread.is_some())
    }
}

/// One connection, as its task, its handlers and the acceptor see it.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<State>);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            phase: Phase::Head,
            since: Instant::now(),
            unread: None,
            unsent: None,
            order: None,
            is_last_answer: false,
            waker: None,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes came: between two requests they begin the next one.
    pub(crate) fn received(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Head, Instant::now());
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        let mut state = self.state();
        if state.phase != Phase::Lingering {
            (state.phase, state.since) = (phase, Instant::now());
        }
    }

    /// Notes whether the client takes what is written.
    pub(crate) fn set_unread(&self, unread: bool) {
        let mut state = self.state();
        state.unread = unread.then(Instant::now);
        if state.phase == Phase::Idle {
            // Only now does it have its answer.
            state.since = Instant::now();
        }
    }

    /// Notes whether a handler waits for more of the body.
    pub(crate) fn set_unsent(&self, unsent: bool) {
        self.state().unsent = unsent.then(Instant::now);
    }

    /// Until when it may go on like this, and what it ends of then.
    pub(crate) fn deadline(&self, limits: &Limits) -> Option<(Instant, End)> {
        let state = self.state();
        let of_phase = match state.phase {
            Phase::Head => Some((state.since + limits.header_timeout, End::SlowHead)),
            Phase::Idle => Some((state.since + limits.idle_timeout + GRACE, End::Idle)),
            Phase::Lingering => Some((state.since + LINGER, End::Done)),
            Phase::Busy => None,
        };
        let of_phase = of_phase.filter(|_| !state.is_answering());
        let of_answer = state.unread.map(|since| (since + limits.write_timeout, End::Unread));
        of_phase.into_iter().chain(of_answer).min_by_key(|(deadline, _)| *deadline)
    }

    /// Tells what to do, where anything is, and whom to wake when that changes.
    pub(crate) fn order(&self, waker: &Waker) -> Option<Order> {
        let mut state = self.state();
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        if state.order == Some(Order::Drop) && rank(&state).is_none() {
            // It works again.
            state.order = None;
        }
        state.order
    }

    /// Tells the connection to end.
    pub(crate) fn give(&self, order: Order) {
        let waker = {
            let mut state = self.state();
            state.order = Some(order);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Notes that its client was told that it ends.
    pub(crate) fn tell_end(&self) {
        self.state().is_last_answer = true;
    }

    /// Whether it ends soon without being asked again.
    pub(crate) fn is_leaving(&self) -> bool {
        let state = self.state();
        state.is_last_answer || state.order.is_some() || state.phase == Phase::Lingering
    }

    /// Since when it has been kept alive without a request, where nobody told it to end.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        let is_idle = state.phase == Phase::Idle && !state.is_answering();
        (is_idle && state.order.is_none()).then_some(state.since)
    }

    /// How well it can be done without, where it can: the lower first.
    pub(crate) fn dispensable(&self) -> Option<(u8, Instant)> {
        let state = self.state();
        if state.order == Some(Order::Drop) { None } else { rank(&state) }
    }
}

fn rank(state: &State) -> Option<(u8, Instant)> {
    match state.phase {
        _ if state.is_answering() => {
            let since = state.unread.or(state.unsent);
            since.filter(|since| since.elapsed() >= PAUSE).map(|since| (3, since))
        }
        Phase::Lingering => Some((0, state.since)),
        Phase::Idle => Some((1, state.since)),
        Phase::Head => (state.since.elapsed() >= HESITATION).then_some((2, state.since)),
        Phase::Busy => None,
    }
}

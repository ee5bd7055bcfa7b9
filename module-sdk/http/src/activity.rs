//! The state of one connection, and orders to it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use crate::{End, Limits};

/// Additional time that an idle connection is kept beyond the announced one, so that a request
/// which the client sends at the last moment still arrives.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// Time for the other side to close a connection that was closed on this side. Data that arrives
/// after a full close would cause a reset, which may overtake the last response.
pub(crate) const LINGER: Duration = Duration::from_millis(500);

/// Time for the head of a request while other clients wait for a connection. An honest client sends
/// its request with the connection.
const HESITATION: Duration = Duration::from_millis(200);

/// Time without progress in the middle of an exchange while other clients wait for a connection.
const PAUSE: Duration = Duration::from_secs(1);

/// Beginning of a connection over HTTP/2 (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI ";

/// Phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Reading the head of a request.
    Head,
    /// Waiting for a handler, or writing its response.
    Busy,
    /// Kept alive, between two requests.
    Idle,
    /// Closed on this side.
    Lingering,
}

/// Order to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// End after the current request.
    Close,
    /// End now.
    Drop,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// `true` once the client has sent anything.
    has_begun: bool,
    /// `true` for HTTP/2, where a client sends more than requests, and many of these at once.
    is_http2: bool,
    /// Number of exchanges so far, and of those that go on.
    exchanges: u64,
    going_on: usize,
    /// Exchanges over HTTP/2 of whose response a part waits for the client, and since when.
    handed: BTreeMap<u64, Instant>,
    /// Time since which the client has not read the pending output.
    unread: Option<Instant>,
    /// Time since which a handler has waited for more of the body.
    unsent: Option<Instant>,
    order: Option<Order>,
    /// `true` if the client was told that the connection ends.
    is_last_answer: bool,
    waker: Option<Waker>,
}

impl State {
    /// Returns whether a handler is at work, or its response has not been read yet.
    fn is_answering(&self) -> bool {
        self.phase == Phase::Busy || (self.phase == Phase::Idle && self.unread.is_some())
    }

    /// Returns the time since which the client has taken nothing of a response, if one waits.
    fn untaken(&self) -> Option<Instant> {
        self.unread.into_iter().chain(self.handed.values().copied()).min()
    }
}

/// State of one connection, shared by its task, its handlers and the acceptor.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<State>);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            phase: Phase::Head,
            since: Instant::now(),
            has_begun: false,
            is_http2: false,
            exchanges: 0,
            going_on: 0,
            handed: BTreeMap::new(),
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

    /// Notes received bytes: over HTTP/1.1, between two requests they begin the next one.
    pub(crate) fn received(&self, bytes: &[u8]) {
        let mut state = self.state();
        let is_first = !std::mem::replace(&mut state.has_begun, true);
        if is_first && bytes.starts_with(HTTP2) {
            state.is_http2 = true;
            // Such a client may connect long before its first request.
            (state.phase, state.since) = (Phase::Idle, Instant::now());
        } else if state.phase == Phase::Idle && !state.is_http2 {
            (state.phase, state.since) = (Phase::Head, Instant::now());
        }
    }

    /// Notes the beginning of an exchange, and returns its number.
    pub(crate) fn begin_exchange(&self) -> u64 {
        let mut state = self.state();
        state.going_on += 1;
        state.exchanges += 1;
        let number = state.exchanges;
        enter(&mut state, Phase::Busy);
        number
    }

    /// Notes the end of an exchange.
    pub(crate) fn end_exchange(&self, number: u64) {
        let waker = {
            let mut state = self.state();
            state.handed.remove(&number);
            state.going_on -= 1;
            if state.going_on > 0 {
                return;
            }
            enter(&mut state, Phase::Idle);
            // Over HTTP/2 another task notes this than the one that watches the time.
            if state.is_http2 { state.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Notes whether a part of the response of an exchange waits for the client.
    pub(crate) fn note_handed(&self, number: u64, is_handed: bool) {
        let mut state = self.state();
        if is_handed {
            state.handed.insert(number, Instant::now());
        } else {
            state.handed.remove(&number);
        }
    }

    /// Notes that the connection is closed on this side.
    pub(crate) fn linger(&self) {
        enter(&mut self.state(), Phase::Lingering);
    }

    /// Notes whether the client reads the output.
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

    /// Returns the time at which the connection ends in its current state, and the reason.
    pub(crate) fn deadline(&self, limits: &Limits) -> Option<(Instant, End)> {
        let state = self.state();
        let of_phase = match state.phase {
            Phase::Head => Some((state.since + limits.header_timeout, End::SlowHead)),
            Phase::Idle => Some((state.since + limits.idle_timeout + GRACE, End::Idle)),
            Phase::Lingering => Some((state.since + LINGER, End::Done)),
            Phase::Busy => None,
        };
        let of_phase = of_phase.filter(|_| !state.is_answering());
        let of_answer = state.untaken().map(|since| (since + limits.write_timeout, End::Unread));
        of_phase.into_iter().chain(of_answer).min_by_key(|(deadline, _)| *deadline)
    }

    /// Returns the current order, if any, and registers the waker to wake when that changes.
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

    /// Gives an order to the connection.
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

    /// Notes that the client was told that the connection ends.
    pub(crate) fn note_last_answer(&self) {
        self.state().is_last_answer = true;
    }

    /// Returns whether the connection ends soon without a further order.
    pub(crate) fn is_leaving(&self) -> bool {
        let state = self.state();
        state.is_last_answer || state.order.is_some() || state.phase == Phase::Lingering
    }

    /// Returns the time since which the connection has been idle, if it has no order to end.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        let is_idle = state.phase == Phase::Idle && !state.is_answering();
        (is_idle && state.order.is_none()).then_some(state.since)
    }

    /// Returns the rank of the connection for closing it, if it can be closed: the lowest first.
    pub(crate) fn dispensable(&self) -> Option<(u8, Instant)> {
        let state = self.state();
        if state.order == Some(Order::Drop) { None } else { rank(&state) }
    }
}

fn enter(state: &mut State, phase: Phase) {
    if state.phase != Phase::Lingering {
        (state.phase, state.since) = (phase, Instant::now());
    }
}

fn rank(state: &State) -> Option<(u8, Instant)> {
    match state.phase {
        _ if state.is_answering() => {
            let since = state.untaken().or(state.unsent);
            since.filter(|since| since.elapsed() >= PAUSE).map(|since| (3, since))
        }
        Phase::Lingering => Some((0, state.since)),
        Phase::Idle => Some((1, state.since)),
        Phase::Head => (state.since.elapsed() >= HESITATION).then_some((2, state.since)),
        Phase::Busy => None,
    }
}

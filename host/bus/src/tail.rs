//! A view of the events that pass by, for people: bounded, and it says what it skipped.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use super::{core::Shared, routes::any_fits};
use crate::ledger::SharedEvent;

/// Number of events that wait for a slow reader, at most.
const TAIL_EVENTS: usize = 4096;
/// Size of the events that wait for a slow reader, in bytes, at most.
const TAIL_BYTES: usize = 8 << 20;

/// Result of [`Tail::next`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tailed {
    /// An event passed.
    Event(SharedEvent),
    /// So many events passed unseen, because the reader was too slow.
    Skipped(u64),
    /// No event passed in the time given.
    Nothing,
    /// The bus is closed.
    Closed,
}

/// View of the events that fit its filters from now on. It delays nobody.
#[derive(Debug)]
pub struct Tail {
    tap: Arc<Tap>,
    bus: Weak<Shared>,
}

#[derive(Debug)]
pub(super) struct Tap {
    filters: Vec<String>,
    state: Mutex<TapState>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct TapState {
    waiting: VecDeque<Tailed>,
    bytes: usize,
    closed: bool,
}

impl Tail {
    /// Returns the next event, waiting for it at most `timeout`.
    pub fn next(&self, timeout: Duration) -> Tailed {
        let deadline = Instant::now() + timeout;
        let mut state = self.tap.lock();
        loop {
            if let Some(next) = state.waiting.pop_front() {
                if let Tailed::Event(event) = &next {
                    state.bytes -= event.weight();
                }
                return next;
            }
            if state.closed {
                return Tailed::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Tailed::Nothing;
            }
            state = match self.tap.wake.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    pub(super) fn new(tap: Arc<Tap>, bus: Weak<Shared>) -> Self {
        Self { tap, bus }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(bus) = self.bus.upgrade() {
            bus.routes_mut().taps.retain(|tap| !Arc::ptr_eq(tap, &self.tap));
        }
    }
}

impl Tap {
    /// Creates a tap that sees the events that fit one of the filters; all events without a filter.
    pub(super) fn new(filters: &[String]) -> Self {
        let filters = filters.to_vec();
        Self { filters, state: Mutex::default(), wake: Condvar::new() }
    }

    /// Shows an event to the reader, if it fits the filters.
    pub(super) fn show(&self, event: &SharedEvent) {
        if !self.filters.is_empty() && !any_fits(&self.filters, &event.topic) {
            return;
        }
        let mut state = self.lock();
        let weight = event.weight();
        if state.waiting.len() < TAIL_EVENTS && state.bytes + weight <= TAIL_BYTES {
            state.bytes += weight;
            state.waiting.push_back(Tailed::Event(event.clone()));
        } else if let Some(Tailed::Skipped(count)) = state.waiting.back_mut() {
            *count += 1;
        } else {
            state.waiting.push_back(Tailed::Skipped(1));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Closes the tap: the reader sees what still waits, and then the end.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, TapState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

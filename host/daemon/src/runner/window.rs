//! How many frames of one answer are under way to the other end.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use lodestar_abi::ALL_CALLS;

use super::wire::WINDOW;

/// The frames of one answer that are under way, and whether anybody wants more.
#[derive(Debug)]
pub(super) struct Window {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    under_way: usize,
    wanted: bool,
}

impl Window {
    pub(super) fn new() -> Arc<Self> {
        let state = State { under_way: 0, wanted: true };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Waits for room; returns false when nobody wants the next frame.
    pub(super) fn enter(&self) -> bool {
        let full = |state: &mut State| state.wanted && state.under_way >= WINDOW;
        let state = self.changed.wait_while(self.state(), full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.under_way += 1;
        state.wanted
    }

    /// Notes that a frame was taken.
    pub(super) fn leave(&self, wanted: bool) {
        let mut state = self.state();
        state.under_way = state.under_way.saturating_sub(1);
        state.wanted &= wanted;
        drop(state);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The windows of all answers on their way to the other end, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Windows(Mutex<HashMap<u64, Arc<Window>>>);

impl Windows {
    /// Adds the window of another answer.
    pub(super) fn open(&self, number: u64) -> Arc<Window> {
        let window = Window::new();
        if let Some(before) = self.all().insert(number, window.clone()) {
            before.leave(false);
        }
        window
    }

    /// Notes that a frame was taken.
    pub(super) fn leave(&self, number: u64, wanted: bool) {
        if let Some(window) = self.all().get(&number) {
            window.leave(wanted);
        }
    }

    /// Forgets an answer that has ended, if its number is not another's by now.
    pub(super) fn close(&self, number: u64, window: &Arc<Window>) {
        let mut all = self.all();
        if all.get(&number).is_some_and(|known| Arc::ptr_eq(known, window)) {
            all.remove(&number);
        }
    }

    /// Notes that nobody wants more of an answer, or of [`ALL_CALLS`].
    pub(super) fn refuse(&self, number: u64) {
        for (known, window) in self.all().iter() {
            if number == ALL_CALLS || number == *known {
                window.leave(false);
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u64, Arc<Window>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

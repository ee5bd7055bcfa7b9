//! Limit on the frames of one answer that are under way.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Number of frames of an answer that may wait for the reader before the sender waits.
pub(crate) const WINDOW: usize = 16;

/// The frames of one answer that are under way, with a flag whether anybody wants more.
#[derive(Debug)]
pub(crate) struct Window {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    under_way: usize,
    wanted: bool,
}

impl Window {
    pub(crate) fn new() -> Arc<Self> {
        let state = State { under_way: 0, wanted: true };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Waits for room; returns false when nobody wants the next frame.
    pub(crate) fn enter(&self) -> bool {
        let full = |state: &mut State| state.wanted && state.under_way >= WINDOW;
        let state = self.changed.wait_while(self.state(), full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.under_way += 1;
        state.wanted
    }

    /// Records that a frame was read, and whether the next one is wanted.
    pub(crate) fn leave(&self, wanted: bool) {
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

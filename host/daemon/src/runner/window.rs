//! Windows of all answers to the other end of a socket.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lodestar_abi::ALL_CALLS;

use crate::module::Window;

/// The windows of all answers under way to the other end, by their numbers.
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

    /// Records that a frame was read, and whether the next one is wanted.
    pub(super) fn leave(&self, number: u64, wanted: bool) {
        if let Some(window) = self.all().get(&number) {
            window.leave(wanted);
        }
    }

    /// Removes an answer that has ended, if its number is not another's by now.
    pub(super) fn close(&self, number: u64, window: &Arc<Window>) {
        let mut all = self.all();
        if all.get(&number).is_some_and(|known| Arc::ptr_eq(known, window)) {
            all.remove(&number);
        }
    }

    /// Records that nobody wants more of an answer, or of [`ALL_CALLS`].
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

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

    /// Removes an answer that has ended, if its number is not another's by now. Nothing more of it
    /// is wanted: whoever waits to write is woken.
    pub(super) fn close(&self, number: u64, window: &Arc<Window>) {
        let mut all = self.all();
        if all.get(&number).is_some_and(|known| Arc::ptr_eq(known, window)) {
            all.remove(&number);
        }
        drop(all);
        window.leave(false);
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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, thread, time::Duration};

    use super::*;
    use crate::module::WINDOW;

    #[test]
    fn the_end_of_an_answer_wakes_whoever_waits_to_write() {
        let windows = Windows::default();
        let window = windows.open(1);
        assert!((0..WINDOW).all(|_| window.enter()), "there is room");
        let (sender, entered) = channel();
        let waiting = window.clone();
        thread::spawn(move || sender.send(waiting.enter()));
        windows.close(1, &window);
        assert_eq!(entered.recv_timeout(Duration::from_secs(60)), Ok(false));
    }
}

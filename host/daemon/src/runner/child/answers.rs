//! Answers to commands, from the module's side.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use lodestar_abi::{
    ModError, ReplySink, ReplySink_TO, ReplySinkBox,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{RResult, RSlice},
    },
    error_kind,
};

use super::link::Link;
use crate::module::Window;
use crate::runner::{
    channel::ChannelError,
    wire::{Fault, HostRequest},
};

/// Creates the sink for a command's answer, and the place where a panic is recorded.
pub(super) fn sink(link: &Arc<Link>, number: u64) -> (ReplySinkBox, Arc<OnceLock<Fault>>) {
    let (window, panicked) = (link.windows.open(number), Arc::default());
    let answer = Answer {
        link: link.clone(),
        number,
        window,
        state: Mutex::new(AnswerState::default()),
        panicked: Arc::clone(&panicked),
    };
    (ReplySink_TO::from_value(answer, TD_Opaque), panicked)
}

struct Answer {
    link: Arc<Link>,
    number: u64,
    window: Arc<Window>,
    state: Mutex<AnswerState>,
    panicked: Arc<OnceLock<Fault>>,
}

#[derive(Default)]
struct AnswerState {
    /// Error of the answer, found on the way.
    fault: Option<Fault>,
    ended: bool,
}

impl Answer {
    fn state(&self) -> MutexGuard<'_, AnswerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, fault: Option<Fault>) {
        let mut state = self.state();
        if state.ended {
            return;
        }
        state.ended = true;
        let fault = state.fault.take().or(fault);
        drop(state);
        self.link.windows.close(self.number, &self.window);
        // An error means that the daemon is gone, and this process will be.
        let _ = self.link.send(&HostRequest::Finish { number: self.number, fault });
    }
}

impl ReplySink for Answer {
    fn frame(&self, frame: RSlice<'_, u8>) -> bool {
        if !self.window.enter() {
            return false;
        }
        let need = HostRequest::Frame { number: self.number, bytes: frame.as_slice() };
        match self.link.send(&need) {
            Ok(()) => true,
            Err(ChannelError::TooLong(bytes)) => {
                let reason = format!("a frame of its answer has {bytes} bytes, which is too long");
                self.state().fault = Some(Fault::new(error_kind::FAILED, reason));
                false
            }
            Err(_) => false,
        }
    }

    fn finish(&self, result: RResult<(), ModError>) {
        let fault = result.into_result().err().map(|error| Fault::from(&error));
        if let Some(fault) = fault.as_ref().filter(|fault| fault.kind == error_kind::PANIC) {
            self.panicked.get_or_init(|| fault.clone());
        }
        self.end(fault);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // Dropped without an end, the answer ends as it does in the daemon.
        self.end(None);
    }
}

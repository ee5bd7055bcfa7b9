//! Calls that a module in a runner makes, at the daemon's end: the answers go back over the socket.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lodestar_abi::{
    ALL_CALLS, CallRequest as AbiCallRequest, ModError, ReplySink, ReplySink_TO,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{RResult, RSlice},
    },
    error_kind,
};

use super::{
    channel::ChannelError,
    error::ServeError,
    service_server::{BoundModule, Runner, sent},
    wire::{CallRequest, Fault, HostResponse},
};
use crate::module::{Window, is_reply};

impl Runner {
    /// Makes a call for the module.
    pub(super) fn call(
        self: &Arc<Self>,
        bound: &BoundModule,
        call: &CallRequest<'_>,
    ) -> Result<(), ServeError> {
        let CallRequest { number, target, command, arguments, deadline_ms, parent } = *call;
        let request = AbiCallRequest {
            number,
            target: target.into(),
            command: command.into(),
            arguments: arguments.into(),
            deadline_ms,
            parent,
            reserved: [0; 4],
        };
        let window = self.calls.open(number);
        let sink = Answer { runner: self.clone(), number, window, state: Mutex::default() };
        let sink = ReplySink_TO::from_value(sink, TD_Opaque);
        match bound.host.call(request, sink) {
            RResult::ROk(()) => Ok(()),
            RResult::RErr(error) => {
                let fault = Some(Fault::from(&error));
                sent(self.send_queue.send_end(&HostResponse::CallEnded { number, fault }))
            }
        }
    }

    /// Gives up on a call, or on all of them, for the module.
    pub(super) fn cancel_call(&self, bound: &BoundModule, number: u64) {
        self.calls.refuse(number);
        bound.host.cancel_call(number);
    }

    /// Releases everything that waits for the module to read a frame: the module is gone.
    pub(super) fn end_calls(&self) {
        self.calls.refuse(ALL_CALLS);
    }
}

/// Sink for the answer of one call.
struct Answer {
    runner: Arc<Runner>,
    number: u64,
    window: Arc<Window>,
    state: Mutex<AnswerState>,
}

#[derive(Default)]
struct AnswerState {
    /// Reason for which a frame did not go.
    fault: Option<Fault>,
    /// The last frame has gone, and the end with it.
    ended: bool,
}

impl Answer {
    fn state(&self) -> MutexGuard<'_, AnswerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    /// Returns whether the answer may go on: it has neither ended nor lost a part.
    fn is_open(&self) -> bool {
        let state = self.state();
        !state.ended && state.fault.is_none()
    }
}

impl ReplySink for Answer {
    fn frame(&self, frame: RSlice<'_, u8>) -> bool {
        // What comes after the end is read by nobody: it would fill the window for good. After a
        // lost part nothing follows but the error.
        if !self.is_open() || !self.window.enter() {
            return false;
        }
        let (number, bytes) = (self.number, frame.as_slice());
        let is_last = is_reply(bytes);
        let given = match is_last {
            true => HostResponse::CallAnswer { number, bytes },
            false => HostResponse::CallFrame { number, bytes },
        };
        let (kind, words) = match self.runner.send_queue.send(&given) {
            Ok(()) => {
                self.state().ended |= is_last;
                return true;
            }
            Err(ChannelError::TooLong(bytes)) => {
                (error_kind::FAILED, format!("a frame of the answer has {bytes} bytes"))
            }
            Err(_) => (error_kind::UNAVAILABLE, "its answers are not read fast enough".to_owned()),
        };
        self.state().fault = Some(Fault::new(kind, words));
        false
    }

    fn finish(&self, result: RResult<(), ModError>) {
        let mut state = self.state();
        if std::mem::replace(&mut state.ended, true) {
            return;
        }
        let fault = state.fault.take();
        drop(state);
        let fault = fault.or_else(|| result.into_result().err().map(|error| Fault::from(&error)));
        let given = HostResponse::CallEnded { number: self.number, fault };
        // An error means that the runner is gone, or will be, as it reads nothing.
        let _ = self.runner.send_queue.send_end(&given);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.runner.calls.close(self.number, &self.window);
    }
}

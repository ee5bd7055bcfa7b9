//! Calls that a module in a runner makes, at the daemon's end: the answers go back over the socket.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lodestar_abi::{
    ALL_CALLS, CallRequest as AbiCallRequest, ModError, ReplySink, ReplySink_TO, ReplySinkBox,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{RResult, RSlice},
    },
    error_kind,
};

use super::{
    channel::ChannelError,
    error::ServeError,
    send_queue::SendQueue,
    service_server::{BoundModule, Runner, sent},
    window::Windows,
    wire::{CallRequest, Fault, HostResponse},
};
use crate::module::{Window, is_reply};

impl Runner {
    /// Makes a call for the module.
    pub(super) fn call(
        &self,
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
        let (sink, answer) = sink(&self.send_queue, &self.calls, number);
        match bound.host.call(request, sink) {
            RResult::ROk(()) => Ok(()),
            RResult::RErr(error) => sent(answer.end(Some(Fault::from(&error)))),
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

/// Creates the sink for the answer of one call, and returns the answer as well.
fn sink(
    send_queue: &Arc<SendQueue>,
    calls: &Arc<Windows>,
    number: u64,
) -> (ReplySinkBox, Arc<Answer>) {
    let answer = Arc::new(Answer {
        send_queue: send_queue.clone(),
        calls: calls.clone(),
        number,
        window: calls.open(number),
        state: Mutex::default(),
    });
    (ReplySink_TO::from_value(Sink(answer.clone()), TD_Opaque), answer)
}

/// Answer of one call.
struct Answer {
    send_queue: Arc<SendQueue>,
    calls: Arc<Windows>,
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

    /// Returns whether the answer may go on: it has neither ended nor lost a part.
    fn is_open(&self) -> bool {
        let state = self.state();
        !state.ended && state.fault.is_none()
    }

    fn frame(&self, bytes: &[u8]) -> bool {
        // What comes after the end is read by nobody: it would fill the window for good. After a
        // lost part nothing follows but the error.
        if !self.is_open() || !self.window.enter() {
            return false;
        }
        let (number, is_last) = (self.number, is_reply(bytes));
        let given = match is_last {
            true => HostResponse::CallAnswer { number, bytes },
            false => HostResponse::CallFrame { number, bytes },
        };
        let (kind, words) = match self.send_queue.send(&given) {
            Ok(()) => {
                if is_last {
                    self.state().ended = true;
                    self.calls.close(number, &self.window);
                }
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

    /// Ends the answer where it is not at its end.
    ///
    /// # Errors
    ///
    /// Returns an error where the runner is gone, or will be, as it reads nothing.
    fn end(&self, fault: Option<Fault>) -> Result<(), ChannelError> {
        let mut state = self.state();
        if std::mem::replace(&mut state.ended, true) {
            return Ok(());
        }
        let fault = state.fault.take().or(fault);
        drop(state);
        self.calls.close(self.number, &self.window);
        self.send_queue.send_end(&HostResponse::CallEnded { number: self.number, fault })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // Whoever waits in the runner learns of an end that nobody told.
        let fault = Fault::new(error_kind::FAILED, "the call ended without an answer".to_owned());
        // An error means that the runner is gone.
        let _ = self.end(Some(fault));
    }
}

/// Sink that the answer is written to.
struct Sink(Arc<Answer>);

impl ReplySink for Sink {
    fn frame(&self, frame: RSlice<'_, u8>) -> bool {
        self.0.frame(frame.as_slice())
    }

    fn finish(&self, result: RResult<(), ModError>) {
        let fault = result.into_result().err().map(|error| Fault::from(&error));
        // An error means that the runner is gone, or will be.
        let _ = self.0.end(fault);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::runner::channel::Reader;

    /// Ends of a socket to a runner, with the windows of the answers to it.
    struct Ends {
        send_queue: Arc<SendQueue>,
        calls: Arc<Windows>,
        runner: Reader,
    }

    fn ends() -> Ends {
        let (here, runner) = UnixStream::pair().expect("descriptors are left");
        let send_queue = Arc::new(SendQueue::new(here).expect("descriptors are left"));
        Ends { send_queue, calls: Arc::default(), runner: Reader::new(runner) }
    }

    impl Ends {
        fn sink(&self) -> (ReplySinkBox, Arc<Answer>) {
            sink(&self.send_queue, &self.calls, 1)
        }

        /// Returns the error that ends the call, after it closes the daemon's end.
        fn end(self) -> Option<String> {
            let Self { send_queue, mut runner, .. } = self;
            drop(send_queue);
            let Ok(HostResponse::CallEnded { number: 1, fault }) = runner.next() else {
                panic!("the end")
            };
            let told = fault.map(|fault| fault.message);
            assert!(runner.next::<HostResponse<'_>>().is_err(), "once");
            told
        }
    }

    #[test]
    fn every_call_of_a_runner_ends_once() {
        let dropped = ends();
        drop(dropped.sink());
        assert_eq!(dropped.end().as_deref(), Some("the call ended without an answer"));
        let finished = ends();
        let (sink, answer) = finished.sink();
        sink.finish(RResult::ROk(()));
        drop((sink, answer));
        assert_eq!(finished.end(), None);
        let refused = ends();
        let (sink, answer) = refused.sink();
        drop(sink);
        answer.end(Some(Fault::new(error_kind::REFUSED, "no".to_owned()))).expect("it is read");
        drop(answer);
        assert_eq!(refused.end().as_deref(), Some("no"), "the reason comes first");
    }
}

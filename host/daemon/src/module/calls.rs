//! Requests that wait for a module's thread besides events: commands, health, stop.

use std::{
    collections::VecDeque,
    fmt,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
    time::Instant,
};

use lodestar_abi::{
    ModError, ReplySink, ReplySink_TO, ReplySinkBox,
    abi_stable::erased_types::TD_Opaque,
    abi_stable::std_types::{RResult, RSlice},
    error_kind,
};
use lodestar_bus::{Mark, Waker};
use tokio::sync::mpsc;

use super::{ModuleCall, handover::PauseRequest, state::lock};
use crate::logging::Redactor;

/// The most commands of people that may wait for one module.
const MAX_WAITING: usize = 256;

/// The most commands of other modules that may wait for one module: as many as one module may have
/// under way, and some more.
const MAX_CALLS_WAITING: usize = 32_768;

/// A request to a module's thread.
#[derive(Debug)]
pub enum Call {
    /// Command to be answered.
    Command(CommandCall),
    /// Question for the module's health, with a sender to notify afterwards.
    Health(tokio::sync::oneshot::Sender<()>),
    /// New log level: 1 error … 5 trace.
    LogLevel(u32),
    /// Request of a successor to pause.
    PauseRequest(PauseRequest),
    /// Request to stop.
    Stop,
}

/// A command on its way to a module.
pub struct CommandCall {
    /// The request, JSON.
    pub request: Vec<u8>,
    /// Destination of the answer.
    pub sink: ReplySinkBox,
    /// Set when the command panicked: the place of the panic and its message.
    pub panicked: Arc<OnceLock<String>>,
    /// Position in the inbox: events before it must be handled first, so that the answer includes
    /// them.
    pub after: Option<Mark>,
    /// Time at which the command is answered even if events before it wait.
    pub patience: Instant,
    /// The call of another module that this command answers, if any.
    pub call: Option<Arc<ModuleCall>>,
    /// Descriptor that the files of the command come from, where it reads some.
    pub files: Option<OwnedFd>,
}

impl CommandCall {
    /// Returns whether nobody waits for the answer any more. Ends a call of a module whose deadline
    /// has passed.
    pub(super) fn is_over(&self) -> bool {
        self.call.as_ref().is_some_and(|call| {
            if call.deadline() <= Instant::now() {
                call.time_out(&call.facts.chain);
            }
            call.is_over()
        })
    }
}

impl fmt::Debug for CommandCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommandCall")
    }
}

/// Reason why a call was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The module has no thread that would answer.
    #[error("the module is not running")]
    NotRunning,
    /// Too many calls wait.
    #[error("as many commands as may wait for the module do so already; try again later")]
    Busy,
}

/// The calls that wait for a module.
#[derive(Debug, Default)]
pub(crate) struct CallQueue {
    state: Mutex<QueueState>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<Call>,
    /// Wakes the thread; `None` while there is none.
    waker: Option<Waker>,
}

impl CallQueue {
    /// Starts to take calls for a thread that `waker` wakes.
    pub(super) fn open(&self, waker: Waker) {
        lock(&self.state).waker = Some(waker);
    }

    /// Stops taking calls, and refuses those that wait.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.waker = None;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for call in waiting {
            refuse(call, "the module has stopped");
        }
    }

    /// Returns the current position in the inbox: what was accepted so far is before it.
    pub(crate) fn mark(&self) -> Option<Mark> {
        lock(&self.state).waker.as_ref().map(Waker::mark)
    }

    /// Wakes the thread so that it checks its state.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &lock(&self.state).waker {
            waker.wake();
        }
    }

    /// Adds a call and wakes the thread.
    pub(crate) fn push(&self, call: Call) -> Result<(), (CallError, Call)> {
        let mut state = lock(&self.state);
        let Some(waker) = state.waker.clone() else { return Err((CallError::NotRunning, call)) };
        // A module that other modules call still answers people.
        let is_of_a_person = |call: &&Call| matches!(call, Call::Command(it) if it.call.is_none());
        let (waiting, most) = match &call {
            Call::Command(CommandCall { call: Some(_), .. }) => {
                (state.waiting.len(), MAX_CALLS_WAITING)
            }
            Call::Command(_) => (state.waiting.iter().filter(is_of_a_person).count(), MAX_WAITING),
            _ => (0, usize::MAX),
        };
        if waiting >= most {
            return Err((CallError::Busy, call));
        }
        // A stop comes before everything else.
        if matches!(call, Call::Stop) {
            state.waiting.push_front(call);
        } else {
            state.waiting.push_back(call);
        }
        drop(state);
        self.arrived.notify_all();
        waker.wake();
        Ok(())
    }

    /// Sleeps until a call waits or `until` has come.
    pub(super) fn wait(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let empty = |state: &mut QueueState| state.waiting.is_empty();
        drop(self.arrived.wait_timeout_while(lock(&self.state), left, empty));
    }

    /// Removes and returns the next call that is ready; a stop comes before everything else.
    pub(super) fn pop(&self, ready: impl Fn(&Call) -> bool) -> Option<Call> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stops = matches!(state.waiting.front(), Some(Call::Stop));
        let next = if stops { 0 } else { state.waiting.iter().position(&ready)? };
        state.waiting.remove(next)
    }

    /// Returns the earliest time at which a waiting command must be answered.
    pub(super) fn patience(&self) -> Option<Instant> {
        let state = lock(&self.state);
        state
            .waiting
            .iter()
            .filter_map(|call| match call {
                Call::Command(command) => Some(command.patience),
                _ => None,
            })
            .min()
    }
}

/// Answers a waiting call with an error.
pub(super) fn refuse(call: Call, reason: &str) {
    match call {
        Call::Command(command) => {
            let error = ModError {
                kind: error_kind::UNAVAILABLE,
                message: reason.into(),
                place: "".into(),
            };
            command.sink.finish(RResult::RErr(error));
        }
        Call::PauseRequest(hold) => hold.refuse(reason),
        Call::Health(_) | Call::LogLevel(_) | Call::Stop => {}
    }
}

/// A frame of an answer, or its end.
#[derive(Debug)]
pub enum Answer {
    /// One [`Frame`](module_sdk::Frame), JSON.
    Frame(Vec<u8>),
    /// The end of the answer.
    End(Result<(), ModError>),
}

/// The most frames that may wait for a client. A job that is faster waits for it.
const FRAMES_AHEAD: usize = 16;

/// Creates the sink of an answer, the receiver that the client reads, and the place where a panic
/// is recorded. When the receiver is dropped, the sink reports that. Secrets are taken out of
/// frames and errors.
#[must_use]
pub fn reply_channel(
    redactor: Arc<Redactor>,
) -> (ReplySinkBox, mpsc::Receiver<Answer>, Arc<OnceLock<String>>) {
    let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
    let panicked = Arc::new(OnceLock::new());
    let sink = Sink { sender, panicked: panicked.clone(), redactor };
    (ReplySink_TO::from_value(sink, TD_Opaque), receiver, panicked)
}

struct Sink {
    sender: mpsc::Sender<Answer>,
    panicked: Arc<OnceLock<String>>,
    redactor: Arc<Redactor>,
}

impl ReplySink for Sink {
    fn frame(&self, frame: RSlice<'_, u8>) -> bool {
        let frame = self.redactor.redact_data(&frame).unwrap_or_else(|| frame.to_vec());
        self.sender.blocking_send(Answer::Frame(frame)).is_ok()
    }

    fn finish(&self, result: RResult<(), ModError>) {
        // The strings of the error were allocated by the module: copy them while it is there.
        let result = result.into_result().map_err(|error| ModError {
            kind: error.kind,
            message: self.redactor.redact(&error.message).into_owned().into(),
            place: error.place.as_str().into(),
        });
        if let Err(error) = &result
            && error.kind == error_kind::PANIC
        {
            self.panicked.get_or_init(|| format!("{}: {}", error.place, error.message));
        }
        // An error means that the client is gone.
        let _ = self.sender.blocking_send(Answer::End(result));
    }
}

//! What waits for a module's thread besides events: commands, health, stop.

use std::{
    collections::VecDeque,
    fmt,
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

/// How many commands of people may wait for one module.
const MAX_WAITING: usize = 256;

/// How many commands may wait for one module when another one calls it: as many as one module may
/// have under way, and some more.
const MAX_CALLS_WAITING: usize = 32_768;

/// Something for a module's thread to do.
#[derive(Debug)]
pub enum Call {
    /// Answer a command.
    Command(CommandCall),
    /// Tell how the module is, then answer.
    Health(tokio::sync::oneshot::Sender<()>),
    /// Take another log level: 1 error … 5 trace.
    LogLevel(u32),
    /// Pause for a successor.
    PauseRequest(PauseRequest),
    /// End.
    Stop,
}

/// A command on its way to a module.
pub struct CommandCall {
    /// The request, JSON.
    pub request: Vec<u8>,
    /// Where the answer goes.
    pub sink: ReplySinkBox,
    /// Set when the answer was that the command panicked: which, and what it said.
    pub panicked: Arc<OnceLock<String>>,
    /// What must be handled before, so that the answer includes it.
    pub after: Option<Mark>,
    /// When it is answered even if events before it wait.
    pub patience: Instant,
    /// The call of another module that it is.
    pub call: Option<Arc<ModuleCall>>,
}

impl CommandCall {
    /// Returns whether nobody waits for the answer any more. Whose deadline has passed is told so.
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

/// Why a call was not taken.
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
    /// Begins to take calls for a thread that `waker` wakes.
    pub(super) fn open(&self, waker: Waker) {
        lock(&self.state).waker = Some(waker);
    }

    /// Takes no more calls; those that wait are told.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.waker = None;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for call in waiting {
            refuse(call, "the module has stopped");
        }
    }

    /// This moment in the life of the inbox: what was accepted so far is before it.
    pub(crate) fn mark(&self) -> Option<Mark> {
        lock(&self.state).waker.as_ref().map(Waker::mark)
    }

    /// Wakes the thread to look at what it runs.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &lock(&self.state).waker {
            waker.wake();
        }
    }

    /// Adds a call and wakes the thread.
    pub(crate) fn push(&self, call: Call) -> Result<(), (CallError, Call)> {
        let mut state = lock(&self.state);
        let Some(waker) = state.waker.clone() else { return Err((CallError::NotRunning, call)) };
        // Whoever is called by modules still answers people.
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

    /// The next call; a stop comes before everything else.
    pub(super) fn pop(&self, ready: impl Fn(&Call) -> bool) -> Option<Call> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stops = matches!(state.waiting.front(), Some(Call::Stop));
        let next = if stops { 0 } else { state.waiting.iter().position(&ready)? };
        state.waiting.remove(next)
    }

    /// When the first waiting command loses its patience.
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

/// Tells who waits that the call will not be answered.
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
    /// The end.
    End(Result<(), ModError>),
}

/// How many frames may wait for a client. A job that is faster waits for it.
const FRAMES_AHEAD: usize = 16;

/// A sink, the end that the client reads, and whether the answer was a panic. When the reader is
/// dropped, the sink says so. An error of the module is without secrets.
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

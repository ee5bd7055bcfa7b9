//! Calls from one module to another or to the host, and their answers.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use lodestar_abi::{
    ModError, ReplySink, ReplySink_TO, ReplySinkBox,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{RResult, RSlice},
    },
    error_kind,
};
use serde_json::{Value, json};

use super::{
    CallRouter, GONE, Services, Window,
    acceptance::Promise,
    outgoing_calls::{Share, is_operating},
    services::error,
    state::lock,
};
use crate::logging::Redactor;

/// The most streamed answers that one module may get at once: each has a thread.
const MAX_STREAMS: usize = 256;

/// Facts of a call: its caller, its command, and its deadline.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Number of the call in this run of the daemon.
    pub(super) id: u64,
    /// The caller's own number for the call.
    pub(super) number: u64,
    /// Number of the call that is answered with this one, 0 for none.
    pub(super) parent: u64,
    /// The module that calls.
    pub(super) caller: String,
    pub(super) target: String,
    pub(super) command: String,
    /// The calls that are answered with this one, oldest first, and itself:
    /// `usage_tracker.summary`.
    pub(super) chain: Vec<String>,
    pub(super) patience: Duration,
    pub(super) deadline: Instant,
}

/// A streamed answer, counted until it is dropped.
struct Stream(Arc<AtomicUsize>);

impl Stream {
    /// Counts another streamed answer; returns `None` when there are too many.
    fn begin(count: &Arc<AtomicUsize>) -> Option<Self> {
        let stream = Self(count.clone());
        (count.fetch_add(1, Ordering::Relaxed) < MAX_STREAMS).then_some(stream)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call under way.
pub struct ModuleCall {
    pub(super) facts: Facts,
    services: Weak<Services>,
    router: Arc<CallRouter>,
    redactor: Arc<Redactor>,
    delivery: Mutex<Delivery>,
    _held: Share,
}

/// State of the answer.
enum Delivery {
    /// Answer of which nothing has come.
    Waiting(ReplySinkBox, Promise),
    /// Answer of which a part has come: a thread hands frames on, since the caller may be slow.
    Flowing(Sender<Vec<u8>>, Arc<Window>),
    /// Answer that is over, with the error, if any.
    Over(Option<ModError>),
}

impl fmt::Debug for ModuleCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModuleCall({} by {})", self.name(), self.facts.caller)
    }
}

impl ModuleCall {
    pub(super) fn new(
        facts: Facts,
        (sink, promise): (ReplySinkBox, Promise),
        services: &Arc<Services>,
        (router, redactor): (Arc<CallRouter>, Arc<Redactor>),
        held: Share,
    ) -> Arc<Self> {
        let delivery = Mutex::new(Delivery::Waiting(sink, promise));
        let services = Arc::downgrade(services);
        Arc::new(Self { facts, services, router, redactor, delivery, _held: held })
    }

    /// Returns the name of the command: `usage_tracker.summary`.
    fn name(&self) -> String {
        format!("{}.{}", self.facts.target, self.facts.command)
    }

    /// Returns the time at which the call ends without an answer.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.facts.deadline
    }

    /// Returns whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(*lock(&self.delivery), Delivery::Over(_))
    }

    /// Hands on one frame; returns whether anybody wants the next one.
    fn frame(self: &Arc<Self>, frame: Vec<u8>) -> bool {
        let mut delivery = lock(&self.delivery);
        if matches!(*delivery, Delivery::Waiting(..)) {
            if is_reply(&frame) {
                drop(delivery);
                return self.answer(frame);
            }
            if let Err(error) = self.flow(&mut delivery) {
                drop(delivery);
                self.end(Err(error));
                return false;
            }
        }
        let Delivery::Flowing(sender, window) = &*delivery else { return false };
        let (sender, window) = (sender.clone(), window.clone());
        drop(delivery);
        // The end of the call opens the window: a caller that does not read blocks nobody beyond
        // that.
        window.enter() && sender.send(frame).is_ok()
    }

    /// Hands on a whole answer; returns false when the call was answered or is over.
    fn answer(&self, frame: Vec<u8>) -> bool {
        let Some(Delivery::Waiting(sink, promise)) = self.take(None) else { return false };
        promise.keep(Box::new(move || {
            sink.frame(RSlice::from_slice(&frame));
            sink.finish(RResult::ROk(()));
        }));
        true
    }

    /// Starts the thread that hands on a streamed answer of which nothing has come.
    ///
    /// # Errors
    ///
    /// Returns the error for the caller where there is no thread; the answer still waits then.
    fn flow(self: &Arc<Self>, delivery: &mut Delivery) -> Result<(), ModError> {
        let unavailable = |words: String| error(error_kind::UNAVAILABLE, words);
        let stream = self.services.upgrade().and_then(|services| Stream::begin(&services.streams));
        let stream = stream.ok_or_else(|| {
            unavailable("as many answers come in parts as may at once; try again later".to_owned())
        })?;
        let ((sender, frames), window) = (channel(), Window::new());
        let flowing = Delivery::Flowing(sender, window.clone());
        let (sink, promise) = match std::mem::replace(delivery, flowing) {
            Delivery::Waiting(sink, promise) => (sink, promise),
            begun => {
                *delivery = begun;
                return Ok(());
            }
        };
        // The sink is handed over once there is a thread: where there is none it is still here.
        let (hand_over, given) = channel();
        let call = self.clone();
        let task = move || {
            if let Ok(sink) = given.recv() {
                call.hand_on(&sink, &frames, &window);
            }
            drop(stream);
        };
        if let Err(reason) = promise.keep_beside(Box::new(task)) {
            tracing::warn!(%reason, call = ?self, "no thread can be started for an answer");
            *delivery = Delivery::Waiting(sink, promise);
            return Err(unavailable(format!("no thread can be started for its answer: {reason}")));
        }
        // It is as good as taken: the thread waits for nothing else.
        drop(hand_over.send(sink));
        Ok(())
    }

    fn hand_on(&self, sink: &ReplySinkBox, frames: &Receiver<Vec<u8>>, window: &Window) {
        for frame in frames {
            let is_wanted = sink.frame(RSlice::from_slice(&frame));
            window.leave(is_wanted);
            if !is_wanted {
                self.end(Ok(()));
                // The sink of a process of its own tells the caller why it took no more.
                break;
            }
            if matches!(*lock(&self.delivery), Delivery::Over(Some(_))) {
                break;
            }
        }
        let wrong = match &*lock(&self.delivery) {
            Delivery::Over(wrong) => wrong.clone(),
            _ => None,
        };
        sink.finish(wrong.map_or(RResult::ROk(()), RResult::RErr));
    }

    /// Ends the call, unless it is over.
    pub(super) fn end(&self, result: Result<(), ModError>) {
        match self.take(result.clone().err()) {
            Some(Delivery::Waiting(sink, promise)) => {
                promise.keep(Box::new(move || sink.finish(result.into())));
            }
            // Its thread finds the end of the channel, and the reason; a sender that waits goes on.
            Some(Delivery::Flowing(_, window)) => window.leave(false),
            Some(Delivery::Over(_)) | None => {}
        }
    }

    /// Ends the call because its deadline has passed; `way` is the chain of calls made on its
    /// behalf.
    pub(super) fn time_out(&self, way: &[String]) {
        let Facts { patience, caller, .. } = &self.facts;
        let mut words =
            format!("{} did not answer {caller} within {} ms", self.name(), patience.as_millis());
        if let [_, _, ..] = way {
            words = format!("{words}, on the way {}", way.join(" > "));
        }
        if goes_in_a_circle(way) {
            words.push_str("; these calls go in a circle");
        }
        self.end(Err(error(error_kind::TIMED_OUT, words)));
    }

    /// Takes the state of the answer; from now on the call is over.
    fn take(&self, wrong: Option<ModError>) -> Option<Delivery> {
        let mut delivery = lock(&self.delivery);
        if matches!(*delivery, Delivery::Over(_)) {
            return None;
        }
        let outcome = wrong.as_ref().map_or("answered", |error| error.message.as_str());
        let (caller, call, id) = (&self.facts.caller, self.name(), self.facts.id);
        tracing::debug!(caller, call, id, outcome, "a call of a module ended");
        let taken = std::mem::replace(&mut *delivery, Delivery::Over(wrong));
        drop(delivery);
        self.leave();
        Some(taken)
    }

    /// Removes the call from the tables of calls under way.
    fn leave(&self) {
        self.router.remove(&self.facts);
        if let Some(services) = self.services.upgrade() {
            services.forget_call(self.facts.number, self.facts.id);
        }
    }
}

/// Returns whether a chain of calls contains the same command twice.
fn goes_in_a_circle(chain: &[String]) -> bool {
    chain.iter().enumerate().any(|(index, name)| chain[..index].contains(name))
}

/// Returns whether a frame is a whole answer, [`Frame::Reply`](module_sdk::Frame).
pub(crate) fn is_reply(frame: &[u8]) -> bool {
    frame.starts_with(b"{\"reply\":")
}

/// A call of a module, as it reaches the module or host that answers it.
#[derive(Debug)]
pub struct ModuleRequest {
    call: Arc<ModuleCall>,
    arguments: Value,
}

impl ModuleRequest {
    pub(super) const fn new(call: Arc<ModuleCall>, arguments: Value) -> Self {
        Self { call, arguments }
    }

    /// Returns the name of the calling module.
    #[must_use]
    pub fn caller(&self) -> &str {
        &self.call.facts.caller
    }

    /// Returns the name of the called module or the host.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.call.facts.target
    }

    /// Returns the command.
    #[must_use]
    pub fn command(&self) -> &str {
        &self.call.facts.command
    }

    /// Returns whether the command changes the daemon.
    #[must_use]
    pub fn operates(&self) -> bool {
        is_operating(self.target(), self.command())
    }

    /// Returns the arguments.
    #[must_use]
    pub const fn arguments(&self) -> &Value {
        &self.arguments
    }

    /// Returns the call itself.
    #[must_use]
    pub const fn call(&self) -> &Arc<ModuleCall> {
        &self.call
    }

    /// Returns the request as a module is given it, JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let Facts { command, id, .. } = &self.call.facts;
        json!({"command": command, "args": self.arguments, "call": id}).to_string().into_bytes()
    }

    /// Returns the sink for the module's answer, and the place where a panic is recorded.
    #[must_use]
    pub fn sink(&self) -> (ReplySinkBox, Arc<OnceLock<String>>) {
        let panicked = Arc::new(OnceLock::new());
        let sink = CallSink { call: self.call.clone(), panicked: panicked.clone() };
        (ReplySink_TO::from_value(sink, TD_Opaque), panicked)
    }

    /// Answers with data.
    pub fn answer(&self, data: &Value) {
        let frame = json!({"reply": {"data": data}}).to_string().into_bytes();
        let redacted = self.call.redactor.redact_data(&frame);
        self.call.answer(redacted.unwrap_or(frame));
    }

    /// Answers with an error.
    pub fn fail(&self, kind: u32, message: impl Into<String>) {
        self.call.end(Err(error(kind, message)));
    }
}

/// Sink for the answer of a module that is called.
struct CallSink {
    call: Arc<ModuleCall>,
    panicked: Arc<OnceLock<String>>,
}

impl ReplySink for CallSink {
    fn frame(&self, frame: RSlice<'_, u8>) -> bool {
        let redacted = self.call.redactor.redact_data(&frame);
        self.call.frame(redacted.unwrap_or_else(|| frame.to_vec()))
    }

    fn finish(&self, result: RResult<(), ModError>) {
        // The strings of the error were allocated by the module: copy them while it is there.
        self.call.end(result.into_result().map_err(|it| self.told(&it)));
    }
}

impl CallSink {
    /// Returns an error of the module as the caller gets it: without secrets, and so that nobody
    /// takes it for the caller's own.
    fn told(&self, met: &ModError) -> ModError {
        let message = self.call.redactor.redact(&met.message).into_owned();
        let (target, place) = (&self.call.facts.target, met.place.as_str());
        match met.kind {
            error_kind::PANIC => {
                self.panicked.get_or_init(|| format!("{place}: {message}"));
                error(error_kind::FAILED, format!("{target} panicked in {place}: {message}"))
            }
            error_kind::CONFIG => error(error_kind::FAILED, message),
            GONE => error(error_kind::UNAVAILABLE, format!("{target}: {message}")),
            kind => error(kind, message),
        }
    }
}

impl Drop for CallSink {
    fn drop(&mut self) {
        let words = format!("{} gave no answer", self.call.name());
        self.call.end(Err(error(error_kind::FAILED, words)));
    }
}

#[cfg(test)]
mod tests;

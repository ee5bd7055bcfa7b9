//! Calls of other modules and of the host.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use lodestar_abi::{
    CallRequest, ModError, ReplySink, ReplySink_TO,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{RResult, RSlice},
    },
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, ErrorKind, Frame, Host, Result, glue};

/// Time limit of a call that sets none.
const DEADLINE: Duration = Duration::from_secs(10);

/// Time after the deadline within which the host still may report that it has passed.
const GRACE: Duration = Duration::from_secs(1);

/// Time for which a thread looks for an answer before it sleeps: waking it takes as long as a short
/// call.
const MOMENT: Duration = Duration::from_micros(50);

/// Number of frames that wait for the caller before the target waits for it.
const FRAMES_AHEAD: usize = 16;

impl Host {
    /// Calls a command of another module, or of the host. Returns a future of its answer, which
    /// another thread than the module's own can also [wait](Call::wait) for. `target` is a module,
    /// or `host` for `status`, `modules.list`, `modules.info`, `modules.why`, `events.lag`,
    /// `events.audit`, `config.show`, and with `control = "operate"` for `modules.enable`,
    /// `modules.disable`, `modules.reload` and `modules.rollback`. The commands that may be called
    /// stand under `[capabilities] calls` in `module.toml`.
    ///
    /// The call begins when it is first awaited, ends within its [deadline](Call::within), and is
    /// cancelled when it is dropped. [`ErrorKind::Unavailable`] means that the same call may work
    /// later: the target does not run, starts again, or has too much to do.
    ///
    /// ```
    /// # use module_sdk::{Host, Job, Reply, Result};
    /// # use serde_json::{Value, json};
    /// fn cost(host: &Host) -> Job {
    ///     let range = json!({"since": "7d"});
    ///     let summary = host.call::<_, Value>("usage_tracker", "summary", &range);
    ///     // On a thread of its own: nothing may hold up the module's.
    ///     Job::new(move |_| Reply::json(&summary.wait()?["total"]["cost_usd"]))
    /// }
    /// ```
    pub fn call<Args, Answer>(&self, target: &str, command: &str, args: &Args) -> Call<Answer>
    where
        Args: Serialize + ?Sized,
        Answer: DeserializeOwned,
    {
        Call::new(self.call_stream(target, command, args))
    }

    /// Calls a command that streams: its output and its progress come one by one, the answer last.
    /// Like [`call`](Self::call) otherwise.
    ///
    /// ```
    /// # use module_sdk::{Frame, Host, Result};
    /// # use serde_json::json;
    /// async fn lines(host: &Host) -> Result<usize> {
    ///     let mut export = host.call_stream("usage_tracker", "export", &json!({}));
    ///     let mut lines = 0;
    ///     while let Some(frame) = export.next().await {
    ///         if let Frame::Chunk(text) = frame? {
    ///             lines += text.matches('\n').count();
    ///         }
    ///     }
    ///     Ok(lines)
    /// }
    /// ```
    pub fn call_stream<Args>(&self, target: &str, command: &str, args: &Args) -> CallStream
    where
        Args: Serialize + ?Sized,
    {
        let number = self.next_call();
        CallStream::new(self, number, (target, command), serde_json::to_vec(args))
    }
}

/// A call of a command of another module, or of the host: a future of its answer. See
/// [`Host::call`].
#[must_use = "a call begins when it is awaited"]
#[derive(Debug)]
pub struct Call<Answer> {
    stream: CallStream,
    answer: PhantomData<fn() -> Answer>,
}

impl<Answer: DeserializeOwned> Call<Answer> {
    pub(crate) const fn new(stream: CallStream) -> Self {
        Self { stream, answer: PhantomData }
    }

    /// Sets the time limit of the call. It is 10 s without this, and never more than what is left
    /// of the call that is answered with it.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.stream.deadline = deadline;
        self
    }

    /// Waits for the answer on this thread, which is not the module's own.
    ///
    /// # Errors
    ///
    /// The same as those of the future.
    pub fn wait(mut self) -> Result<Answer> {
        loop {
            if let Some(answer) = Self::answer(self.stream.wait_next()) {
                return answer;
            }
        }
    }

    /// Returns the answer where this is the end.
    fn answer(next: Option<Result<Frame>>) -> Option<Result<Answer>> {
        match next {
            Some(Ok(Frame::Reply(reply))) => Some(read(reply.data)),
            Some(Ok(Frame::Progress { .. } | Frame::Chunk(_))) => None,
            Some(Err(error)) => Some(Err(error)),
            None => Some(Err(Error::new("the call was answered before"))),
        }
    }
}

fn read<Answer: DeserializeOwned>(data: serde_json::Value) -> Result<Answer> {
    serde_path_to_error::deserialize(data).map_err(|error| {
        let path = error.path().to_string();
        Error::new(format!("the answer has another form: {path}: {}", error.into_inner()))
    })
}

impl<Answer: DeserializeOwned> Future for Call<Answer> {
    type Output = Result<Answer>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.stream.poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(next) => {
                    if let Some(answer) = Self::answer(next) {
                        return Poll::Ready(answer);
                    }
                }
            }
        }
    }
}

/// A call whose answer comes in parts. See [`Host::call_stream`].
#[must_use = "a call begins when its first part is awaited"]
pub struct CallStream {
    host: Host,
    number: u64,
    /// Number of the call that is answered with it, 0 for none.
    parent: u64,
    deadline: Duration,
    shared: Arc<Shared>,
    state: State,
}

enum State {
    Prepared { target: String, command: String, arguments: serde_json::Result<Vec<u8>> },
    UnderWay,
    Over,
}

impl std::fmt::Debug for CallStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallStream({})", self.number)
    }
}

impl CallStream {
    pub(crate) fn new(
        host: &Host,
        number: u64,
        (target, command): (&str, &str),
        arguments: serde_json::Result<Vec<u8>>,
    ) -> Self {
        let (target, command) = (target.to_owned(), command.to_owned());
        Self {
            host: host.clone(),
            number,
            parent: glue::answered_call(),
            deadline: DEADLINE,
            shared: Arc::default(),
            state: State::Prepared { target, command, arguments },
        }
    }

    /// Sets the time limit of the whole call, see [`Call::within`].
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Returns the next part; [`Frame::Reply`] or an error is the last one.
    pub async fn next(&mut self) -> Option<Result<Frame>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Polls for the next part.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame>>> {
        if let Some(refused) = self.begin() {
            return Poll::Ready(refused);
        }
        let mut inbound = self.shared.lock();
        match inbound.next() {
            Some(next) => {
                drop(inbound);
                Poll::Ready(self.took(next))
            }
            None => {
                inbound.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits for the next part on this thread, which is not the module's own.
    pub fn wait_next(&mut self) -> Option<Result<Frame>> {
        if let Some(refused) = self.begin() {
            return refused;
        }
        let mut inbound = self.shared.await_some(self.deadline.saturating_add(GRACE));
        let next = inbound.next();
        drop(inbound);
        match next {
            Some(next) => self.took(next),
            None => {
                self.give_up();
                let message = "the host has not answered the call in time";
                Some(Err(Error::of(ErrorKind::TimedOut, message)))
            }
        }
    }

    /// Makes the call where that was not done yet; returns the result where there is nothing to
    /// wait for.
    fn begin(&mut self) -> Option<Option<Result<Frame>>> {
        if matches!(self.state, State::Over) {
            return Some(None);
        }
        if glue::is_own_thread() {
            self.give_up();
            return Some(Some(Err(own_thread())));
        }
        if let State::Prepared { target, command, arguments } =
            std::mem::replace(&mut self.state, State::UnderWay)
            && let Err(error) = self.make(&target, &command, arguments)
        {
            self.state = State::Over;
            return Some(Some(Err(error.into_answer())));
        }
        None
    }

    fn make(
        &self,
        target: &str,
        command: &str,
        arguments: serde_json::Result<Vec<u8>>,
    ) -> Result<()> {
        let arguments = arguments?;
        let request = CallRequest {
            number: self.number,
            target: target.into(),
            command: command.into(),
            arguments: arguments.as_slice().into(),
            // 0 would leave it to the host.
            deadline_ms: u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX).max(1),
            parent: self.parent,
            reserved: [0; 4],
        };
        let sink = ReplySink_TO::from_value(Sink(self.shared.clone()), TD_Opaque);
        self.host.services().call(request, sink).into_result().map_err(Error::from_abi)?;
        if self.host.is_ending() {
            self.host.services().cancel_call(self.number);
            return Err(Error::unavailable("the module ends, and calls nobody any more"));
        }
        Ok(())
    }

    /// Decodes a received part; after the last part nothing more comes.
    fn took(&mut self, next: Result<Vec<u8>>) -> Option<Result<Frame>> {
        self.shared.changed.notify_all();
        let bytes = match next {
            Ok(bytes) => bytes,
            Err(error) => {
                self.state = State::Over;
                return Some(Err(error));
            }
        };
        let frame = serde_json::from_slice::<Frame>(&bytes);
        match frame {
            Ok(Frame::Reply(_)) => self.state = State::Over,
            Err(_) => self.give_up(),
            Ok(_) => {}
        }
        Some(frame.map_err(Error::from))
    }

    /// Gives up on everything that did not come yet.
    fn give_up(&mut self) {
        let before = std::mem::replace(&mut self.state, State::Over);
        let mut inbound = self.shared.lock();
        let ended = inbound.end.is_some();
        inbound.is_unwanted = true;
        inbound.frames.clear();
        drop(inbound);
        self.shared.changed.notify_all();
        if matches!(before, State::UnderWay) && !ended {
            self.host.services().cancel_call(self.number);
        }
    }
}

impl Drop for CallStream {
    fn drop(&mut self) {
        self.give_up();
    }
}

fn own_thread() -> Error {
    Error::usage(
        "the module's own thread may not wait for the answer of a call: answer the command with a \
         `Job` (`Wiring::stream`) and wait there, or await the call on the module's runtime \
         (`Host::spawn`)",
    )
}

/// Parts of an answer that have come and were not read.
#[derive(Debug, Default)]
struct Shared {
    inbound: Mutex<Inbound>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inbound {
    frames: VecDeque<Vec<u8>>,
    end: Option<Result<()>>,
    waker: Option<Waker>,
    /// `true` once the caller reads no more.
    is_unwanted: bool,
}

impl Inbound {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.end.is_none()
    }

    fn next(&mut self) -> Option<Result<Vec<u8>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Some(Ok(frame));
        }
        let no_answer = || Error::new("the call ended without an answer");
        self.end.take().map(|end| Err(end.err().unwrap_or_else(no_answer)))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is there, no longer than so long.
    fn await_some(&self, patience: Duration) -> MutexGuard<'_, Inbound> {
        let begin = Instant::now();
        loop {
            let inbound = self.lock();
            if !inbound.is_empty() {
                return inbound;
            }
            if begin.elapsed() >= MOMENT {
                let left = patience.saturating_sub(begin.elapsed());
                let waited = self.changed.wait_timeout_while(inbound, left, |it| it.is_empty());
                return waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(inbound);
            std::thread::yield_now();
        }
    }

    /// Adds a frame once there is room for it; returns whether anybody wants the next one.
    fn push(&self, frame: &[u8]) -> bool {
        let full = |inbound: &mut Inbound| {
            !inbound.is_unwanted && inbound.end.is_none() && inbound.frames.len() >= FRAMES_AHEAD
        };
        let inbound = self.changed.wait_while(self.lock(), full);
        let mut inbound = inbound.unwrap_or_else(PoisonError::into_inner);
        if inbound.is_unwanted || inbound.end.is_some() {
            return false;
        }
        inbound.frames.push_back(frame.to_vec());
        self.wake(inbound);
        true
    }

    fn end(&self, result: Result<()>) {
        let mut inbound = self.lock();
        if inbound.end.is_none() {
            inbound.end = Some(result);
            self.wake(inbound);
        }
    }

    fn wake(&self, mut inbound: MutexGuard<'_, Inbound>) {
        let waker = inbound.waker.take();
        drop(inbound);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Sink that the host writes the answer to.
struct Sink(Arc<Shared>);

impl ReplySink for Sink {
    fn frame(&self, frame: RSlice<'_, u8>) -> bool {
        let mut wanted = false;
        glue::contained(|| wanted = self.0.push(frame.as_slice()));
        wanted
    }

    fn finish(&self, result: RResult<(), ModError>) {
        let result = result.into_result().map_err(|error| Error::from_abi(error).into_answer());
        glue::contained(|| self.0.end(result));
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Nobody is left who would answer.
        glue::contained(|| self.0.end(Ok(())));
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;

//! The daemon's end of the services: one thread for each runner answers the module's requests,
//! through the same [`Services`] as in process, and records the end of the process.

use std::{
    collections::HashSet,
    io::Read as _,
    os::fd::AsFd as _,
    process::ChildStderr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lodestar_abi::{
    Completion, Completion_TO, CompletionBox, HostBox, ModError, NewEvent as AbiNewEvent,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{RNone, ROption, RResult, RSlice, RSome},
    },
    error_kind,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    channel::{ChannelError, Reader},
    error::ServeError,
    process::{ChildGuard, Process},
    process_exit,
    replies::Replies,
    send_queue::SendQueue,
    window::Windows,
    wire::{Answer, Fault, HostRequest, HostResponse, NewEvent, RelayedEvent},
};
use crate::{
    logging::{Lines, LogRate},
    module::{BUSY, Entry, MOMENT, Services},
};

/// Time that a process may live on after it has closed its socket.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// The most bytes of standard error that are read before other work has a turn.
const MAX_READ: usize = 4096;

/// The most bytes of standard error that are read after the end: more than a pipe holds.
const LAST_WORDS: usize = 1 << 20;

/// State of a runner that the daemon's ends of both sockets share.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) name: String,
    pub(super) process: Process,
    pub(super) replies: Replies,
    /// Queue of the responses to the runner.
    pub(super) send_queue: Arc<SendQueue>,
    /// Windows of the answers to the module's calls that are under way.
    pub(super) calls: Arc<Windows>,
    /// Number of [`HostRequest`]s that were met.
    pub(super) met: AtomicU64,
    pub(super) bound: OnceLock<BoundModule>,
    /// Series of metrics that the module registered.
    pub(super) series: Mutex<HashSet<u64>>,
}

/// The module that runs in the runner, known once it is created.
pub(super) struct BoundModule {
    pub(super) entry: Arc<Entry>,
    pub(super) services: Arc<Services>,
    pub(super) host: HostBox,
}

impl std::fmt::Debug for BoundModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BoundModule({})", self.entry.name)
    }
}

/// State of the thread that serves one runner.
pub(super) struct ServiceServer {
    pub(super) runner: Arc<Runner>,
    pub(super) needs: Reader,
    pub(super) child: ChildGuard,
    pub(super) stderr: ChildStderr,
    /// Bytes of standard error that are not a whole line yet.
    pub(super) lines: Lines,
    /// `true` once standard error is closed.
    pub(super) is_mute: bool,
    /// Rate limit of what it logs before the module is created.
    pub(super) early: LogRate,
    /// `true` while the module asks again soon after an answer.
    pub(super) is_busy: bool,
}

/// Sources that woke the server.
#[derive(Debug, Clone, Copy)]
struct Woken {
    /// `true` when the runner has sent something, or has closed its end.
    asks: bool,
    /// `true` when the runner can take what waits for it.
    reads: bool,
    /// `true` when its process has ended.
    ended: bool,
    /// `true` when something is on its standard error.
    speaks: bool,
}

impl Woken {
    fn any(&self) -> bool {
        self.asks || self.reads || self.ended || self.speaks
    }
}

impl ServiceServer {
    /// Starts the thread, which ends with the process.
    pub(super) fn open(self) -> std::io::Result<()> {
        let name = format!("services:{}", self.runner.name);
        std::thread::Builder::new().name(name).spawn(move || self.run()).map(drop)
    }

    fn run(mut self) {
        if let Err(error) = self.serve() {
            self.runner.process.kill_with_reason(error.to_string());
        }
        self.wait_for_end();
        // The processes that it started might write on for ever.
        self.runner.process.end_what_it_started();
        self.hear(LAST_WORDS);
        let Self { runner, child, .. } = self;
        let pid = runner.process.pid();
        let exit = match runner.bound.get() {
            Some(bound) => bound.entry.reap(pid, || runner.process.reap(child)),
            None => runner.process.reap(child),
        };
        runner.replies.fail_all(&Fault::new(error_kind::FAILED, exit.reason.as_str()));
        runner.end_calls();
        if let Some(bound) = runner.bound.get() {
            bound.entry.calls.wake();
        }
    }

    /// Gives what is asked for, until the other end is closed. An error says what the runner did
    /// that it may not.
    fn serve(&mut self) -> Result<(), ServeError> {
        let mut until = None;
        loop {
            while let Some(need) = here(&mut self.needs)? {
                self.runner.give(need)?;
                self.runner.met.fetch_add(1, Ordering::Release);
            }
            let woken = self.wait();
            if woken.speaks {
                self.hear(MAX_READ);
            }
            if woken.reads {
                sent(self.runner.send_queue.catch_up())?;
            }
            if woken.ended {
                self.runner.process.end_what_it_started();
                let until = *until.get_or_insert_with(|| Instant::now() + EXIT_GRACE);
                // Everything that it sent has been read, or another process goes on sending.
                if !woken.asks || until <= Instant::now() {
                    return Ok(());
                }
            }
            if woken.asks {
                match self.needs.fill() {
                    Ok(()) => {}
                    Err(ChannelError::Closed) => return Ok(()),
                    Err(error) => return Err(ServeError::Socket(error)),
                }
            }
        }
    }

    /// Waits until there is something to do. Where what was asked for before came at once, it
    /// looks for a moment before it sleeps, as [`Reader::next_soon`] does.
    fn wait(&mut self) -> Woken {
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let begin = Instant::now();
        let mut woken = None;
        while self.is_busy && woken.is_none() && begin.elapsed() < MOMENT {
            woken = Some(self.look(Some(&NOW))).filter(Woken::any);
            if woken.is_none() {
                std::thread::yield_now();
            }
        }
        let woken = woken.unwrap_or_else(|| self.look(None));
        self.is_busy = woken.asks && begin.elapsed() < BUSY;
        woken
    }

    /// Waits no longer than so long until there is something to do.
    fn look(&self, patience: Option<&Timespec>) -> Woken {
        let send_queue = &self.runner.send_queue;
        let (room, rung) = send_queue.awaits();
        let mut sources = [
            PollFd::new(self.needs.stream(), PollFlags::IN | room),
            PollFd::from_borrowed_fd(send_queue.event_fd(), rung),
            PollFd::from_borrowed_fd(self.runner.process.handle(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.stderr.as_fd(), PollFlags::IN),
        ];
        // A standard error that was closed would wake for ever.
        let count = if self.is_mute { 3 } else { 4 };
        // An interruption finds nothing and comes here again.
        let _ = poll(&mut sources[..count], patience);
        let [socket, event_fd, handle, stderr] = sources.map(|source| source.revents());
        Woken {
            asks: socket.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
            reads: socket.contains(PollFlags::OUT) || event_fd.contains(PollFlags::IN),
            ended: !handle.is_empty(),
            speaks: !stderr.is_empty(),
        }
    }

    /// Waits until the process has ended; kills a process that does not end by itself.
    fn wait_for_end(&self) {
        let handle = self.runner.process.handle();
        let mut ended = [PollFd::from_borrowed_fd(handle, PollFlags::IN)];
        let patience = Timespec::try_from(EXIT_GRACE).ok();
        if !matches!(poll(&mut ended, patience.as_ref()), Ok(1)) {
            self.runner.process.kill_with_reason("it closed its socket and went on".to_owned());
            while !matches!(poll(&mut ended, None), Ok(1)) {}
        }
    }

    /// Logs what is waiting on standard error, up to `most` bytes; with [`LAST_WORDS`] an
    /// unfinished last line as well.
    fn hear(&mut self, most: usize) {
        let mut bytes = [0; MAX_READ];
        let mut heard = 0;
        while heard < most && !self.is_mute {
            let mut source = [PollFd::from_borrowed_fd(self.stderr.as_fd(), PollFlags::IN)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            if !matches!(poll(&mut source, Some(&now)), Ok(1)) {
                break;
            }
            let Ok(count @ 1..) = self.stderr.read(&mut bytes) else {
                self.is_mute = true;
                break;
            };
            heard += count;
            let mut lines = std::mem::take(&mut self.lines);
            lines.take(&bytes[..count], &mut |line| self.say_line(line));
            self.lines = lines;
        }
        if most == LAST_WORDS {
            std::mem::take(&mut self.lines).end(&mut |line| self.say_line(line));
        }
    }

    fn say_line(&mut self, text: &str) {
        if let Some(words) = process_exit::explains_an_end(text) {
            self.runner.process.note_last_words(words);
        }
        let rate = self.runner.bound.get().map_or(&self.early, |bound| &bound.entry.log_rate);
        rate.say(&self.runner.name, 2, "stderr", text, "");
    }
}

fn here(needs: &mut Reader) -> Result<Option<HostRequest<'_>>, ServeError> {
    needs.next_here().map_err(ServeError::Garbage)
}

impl Runner {
    fn give(self: &Arc<Self>, need: HostRequest<'_>) -> Result<(), ServeError> {
        let bound = self.bound.get().ok_or(ServeError::NotStarted)?;
        let host = &bound.host;
        let given = match need {
            HostRequest::Emit { answer, events } => return self.emit(bound, answer, &events),
            HostRequest::Relay { answer, events } => return self.relay(bound, answer, &events),
            HostRequest::Wanted { ask, topic } => {
                HostResponse::Number { ask, number: u64::from(host.wanted(topic.into())) }
            }
            HostRequest::Log { level, target, message, fields } => {
                host.log(level, target.into(), message.into(), fields.into());
                return Ok(());
            }
            HostRequest::Record { handle, value } => {
                self.record(bound, handle, value);
                return Ok(());
            }
            HostRequest::CacheSet { key, value, ttl_ms } => {
                host.cache_set(key.into(), value.into(), ttl_ms);
                return Ok(());
            }
            HostRequest::Frame { number, bytes } => {
                return self.replies.frame(&self.name, number, bytes);
            }
            HostRequest::Answer { number, bytes } => {
                return self.replies.answer(&self.name, number, bytes);
            }
            HostRequest::Finish { number, fault } => {
                self.replies.finish(number, fault);
                return Ok(());
            }
            HostRequest::Call(call) => return self.call(bound, &call),
            HostRequest::CancelCall(number) => {
                self.cancel_call(bound, number);
                return Ok(());
            }
            HostRequest::CallFrameTaken { number, wanted } => {
                self.calls.leave(number, wanted);
                return Ok(());
            }
            HostRequest::Listener { ask, name } => return self.lend_listener(bound, ask, name),
            HostRequest::Metric { ask, kind, name, help, labels } => {
                match host.metric(kind, name.into(), help.into(), labels.into()) {
                    RResult::ROk(number) => {
                        self.series().insert(number);
                        HostResponse::Number { ask, number }
                    }
                    RResult::RErr(error) => refused(ask, &error),
                }
            }
            HostRequest::Secret { ask, name } => match host.secret(name.into()) {
                RResult::ROk(text) => return self.send_bytes(ask, text.as_bytes()),
                RResult::RErr(error) => refused(ask, &error),
            },
            HostRequest::Pseudonym { ask, kind, value } => {
                let name = host.pseudonym(kind.into(), value.into());
                return self.send_bytes(ask, name.as_bytes());
            }
            HostRequest::CacheGet { ask, key } => {
                return self.send_bytes(ask, host.cache_get(key.into()).as_slice());
            }
        };
        self.send(&given)
    }

    /// Records a value in a series of this module: a handle that was guessed is another module's.
    pub(super) fn record(&self, bound: &BoundModule, handle: u64, value: f64) {
        if self.series().contains(&handle) {
            bound.host.record(handle, value);
        }
    }

    fn series(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn emit(
        &self,
        bound: &BoundModule,
        answer: Answer,
        events: &[NewEvent<'_>],
    ) -> Result<(), ServeError> {
        let events: Vec<AbiNewEvent<'_>> = events.iter().map(NewEvent::to_abi).collect();
        let done = self.completion(answer);
        let result = bound.host.emit(RSlice::from_slice(&events), done).into_result();
        self.tell_taken(answer, result)
    }

    fn relay(
        &self,
        bound: &BoundModule,
        answer: Answer,
        events: &[RelayedEvent<'_>],
    ) -> Result<(), ServeError> {
        let events: Vec<_> = events.iter().map(RelayedEvent::to_abi).collect();
        let done = self.completion(answer);
        let result = bound.host.relay(RSlice::from_slice(&events), done).into_result();
        self.tell_taken(answer, result)
    }

    /// Returns a callback that tells the runner that its events are accepted, where it wants to
    /// know.
    fn completion(&self, answer: Answer) -> ROption<CompletionBox> {
        match answer {
            Answer::Accepted(ask) => {
                let told = Told { send_queue: self.send_queue.clone(), ask };
                RSome(Completion_TO::from_value(told, TD_Opaque))
            }
            Answer::No | Answer::Taken(_) => RNone,
        }
    }

    /// Tells the runner whether its events were taken in.
    fn tell_taken(&self, answer: Answer, result: Result<(), ModError>) -> Result<(), ServeError> {
        match (answer, result) {
            (Answer::Taken(ask), Ok(())) => self.send(&HostResponse::Done { ask, fault: None }),
            (Answer::Taken(ask) | Answer::Accepted(ask), Err(error)) => {
                self.send(&refused(ask, &error))
            }
            (Answer::No, Err(error)) => {
                let reason = error.message.as_str();
                tracing::debug!(module = self.name, reason, "a live event was not taken");
                Ok(())
            }
            (Answer::No | Answer::Accepted(_), Ok(())) => Ok(()),
        }
    }

    fn lend_listener(&self, bound: &BoundModule, ask: u64, name: &str) -> Result<(), ServeError> {
        match bound.services.socket(name) {
            Ok(socket) => {
                sent(self.send_queue.send_with(&HostResponse::Listener { ask }, socket.into()))
            }
            Err(error) => self.send(&refused(ask, &error)),
        }
    }

    fn send_bytes(&self, ask: u64, bytes: &[u8]) -> Result<(), ServeError> {
        self.send(&HostResponse::Bytes { ask, bytes })
    }

    fn send(&self, given: &HostResponse<'_>) -> Result<(), ServeError> {
        sent(self.send_queue.send(given))
    }
}

/// Converts the result of a send. A closed channel is not an error: the runner has ended.
pub(super) fn sent(result: Result<(), ChannelError>) -> Result<(), ServeError> {
    match result {
        Ok(()) | Err(ChannelError::Closed) => Ok(()),
        Err(ChannelError::TimedOut) => Err(ServeError::Unread),
        Err(error) => Err(ServeError::Unanswerable(error)),
    }
}

fn refused(ask: u64, error: &ModError) -> HostResponse<'static> {
    HostResponse::Done { ask, fault: Some(Fault::from(error)) }
}

/// A callback that tells a runner that its events are accepted.
struct Told {
    send_queue: Arc<SendQueue>,
    ask: u64,
}

impl Completion for Told {
    fn complete(&self, result: RResult<(), ModError>) {
        let fault = result.into_result().err().map(|error| Fault::from(&error));
        let given = HostResponse::Done { ask: self.ask, fault };
        // An error means that the runner is gone, which the service server sees as well.
        let _ = self.send_queue.send(&given);
    }
}

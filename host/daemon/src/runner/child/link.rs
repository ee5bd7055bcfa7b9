//! The host's services as a module in a runner sees them: requests go over the socket.

use std::{
    collections::HashMap,
    os::{
        fd::{IntoRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::ThreadId,
};

use lodestar_abi::{
    ALL_CALLS, CallRequest, CompletionBox, FLAG_LEDGER, HostBox, HostServices_TO, ModError,
    NewEvent as AbiNewEvent, RelayedEvent as AbiRelayedEvent, ReplySinkBox,
    abi_stable::{erased_types::TD_Opaque, std_types::RResult},
    error_kind,
};
use module_sdk::manifest::Manifest;

use crate::{
    module::may_publish,
    runner::{
        channel::{ChannelError, Reader, Writer},
        replies::{Replies, Taken},
        window::Windows,
        wire::{self, Answer, Fault, HostRequest, HostResponse, NewEvent, RelayedEvent},
    },
};

/// The most values of metrics that wait for the end of a call.
const MAX_RECORDS: usize = 4096;

/// The most pseudonyms that are cached: they never change, and a round trip costs more than the
/// hash.
const MAX_PSEUDONYMS: usize = 4096;

/// The module's end of the services.
pub(super) struct Link {
    needs: Mutex<Writer>,
    manifest: Manifest,
    /// Information from the host about the module, JSON.
    info: Mutex<Vec<u8>>,
    next: AtomicU64,
    /// Number of [`HostRequest`]s that were sent.
    sent: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiter>>,
    /// Answers to commands that are under way.
    pub(super) windows: Windows,
    /// Calls of the module that are not answered yet.
    calls: Replies,
    pseudonyms: Mutex<HashMap<(String, String), String>>,
    log_level: AtomicU32,
    heap: AtomicU64,
    /// The thread that serves the calls, and whether it is in one: values that it records then go
    /// with the reply.
    thread: Mutex<Option<ThreadId>>,
    in_call: AtomicBool,
    records: Mutex<Vec<(u64, f64)>>,
}

/// Receiver of an answer.
enum Waiter {
    Thread(SyncSender<HostAnswer>),
    Completion(CompletionBox),
}

/// Answer of the host.
pub(super) enum HostAnswer {
    Done,
    Bytes(Vec<u8>),
    Number(u64),
    Listener(OwnedFd),
    Refused(Fault),
}

impl Link {
    pub(super) fn new(services: UnixStream, manifest: Manifest) -> Arc<Self> {
        Arc::new_cyclic(|link: &Weak<Self>| Self {
            calls: Replies::new(frame_taken(link.clone())),
            needs: Mutex::new(Writer::new(services)),
            manifest,
            info: Mutex::default(),
            next: AtomicU64::new(1),
            sent: AtomicU64::new(0),
            waiting: Mutex::default(),
            windows: Windows::default(),
            pseudonyms: Mutex::default(),
            log_level: AtomicU32::new(3),
            heap: AtomicU64::new(0),
            thread: Mutex::default(),
            in_call: AtomicBool::new(false),
            records: Mutex::default(),
        })
    }

    /// Returns the services as the module sees them.
    pub(super) fn to_abi(self: &Arc<Self>) -> HostBox {
        HostServices_TO::from_value(super::services::Shared(self.clone()), TD_Opaque)
    }

    /// Stores the host's information about the module, and its log level.
    pub(super) fn learn(&self, info: &[u8]) {
        #[derive(serde::Deserialize)]
        struct Level {
            log_level: u32,
        }
        if let Ok(Level { log_level }) = serde_json::from_slice(info) {
            self.set_log_level(log_level);
        }
        *lock(&self.info) = info.to_vec();
    }

    pub(super) fn info(&self) -> Vec<u8> {
        lock(&self.info).clone()
    }

    pub(super) fn set_log_level(&self, level: u32) {
        self.log_level.store(level, Ordering::Relaxed);
    }

    /// Returns whether the host wants a log record of this level; the host checks again itself.
    pub(super) fn logs(&self, level: u32) -> bool {
        level <= self.log_level.load(Ordering::Relaxed)
    }

    /// Receives the host's responses until the daemon is gone.
    pub(super) fn hear(&self, mut given: Reader) {
        loop {
            let (ask, answered) = match given.next_soon() {
                Ok(HostResponse::Done { ask, fault: None }) => (ask, HostAnswer::Done),
                Ok(HostResponse::Done { ask, fault: Some(fault) }) => {
                    (ask, HostAnswer::Refused(fault))
                }
                Ok(HostResponse::Bytes { ask, bytes }) => (ask, HostAnswer::Bytes(bytes.to_vec())),
                Ok(HostResponse::Number { ask, number }) => (ask, HostAnswer::Number(number)),
                Ok(HostResponse::Listener { ask }) => match given.take_descriptor() {
                    Some(descriptor) => (ask, HostAnswer::Listener(descriptor)),
                    None => (ask, HostAnswer::Refused(lost_descriptor())),
                },
                Ok(HostResponse::FrameTaken { number, wanted }) => {
                    self.windows.leave(number, wanted);
                    continue;
                }
                Ok(HostResponse::CallFrame { number, bytes }) => {
                    if self.calls.frame(&self.manifest.module.name, number, bytes).is_err() {
                        // The answer is lost, and its sink knows: nobody wants the rest.
                        self.cancel_call(number);
                    }
                    continue;
                }
                Ok(HostResponse::CallAnswer { number, bytes }) => {
                    if self.calls.answer(&self.manifest.module.name, number, bytes).is_err() {
                        self.cancel_call(number);
                    }
                    continue;
                }
                Ok(HostResponse::CallEnded { number, fault }) => {
                    self.calls.finish(number, fault);
                    continue;
                }
                Err(_) => return,
            };
            let waiter = lock(&self.waiting).remove(&ask);
            match (waiter, answered) {
                // An error means that the thread has gone on.
                (Some(Waiter::Thread(thread)), answered) => drop(thread.try_send(answered)),
                (Some(Waiter::Completion(done)), HostAnswer::Refused(fault)) => {
                    done.complete(RResult::RErr(fault.into()));
                }
                (Some(Waiter::Completion(done)), _) => done.complete(RResult::ROk(())),
                (None, _) => {}
            }
        }
    }

    pub(super) fn send(&self, need: &HostRequest<'_>) -> Result<(), ChannelError> {
        let mut needs = lock(&self.needs);
        needs.send(need)?;
        self.sent.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Returns whether nothing is on its way to the daemon, which has met so many [`HostRequest`]s.
    pub(super) fn is_met(&self, met: u64) -> bool {
        self.sent.load(Ordering::Acquire) == met
    }

    /// Sends a request and waits for the answer.
    pub(super) fn ask<'a>(
        &self,
        need: impl FnOnce(u64) -> HostRequest<'a>,
    ) -> Result<HostAnswer, ModError> {
        let number = self.number();
        let (sender, receiver) = sync_channel(1);
        lock(&self.waiting).insert(number, Waiter::Thread(sender));
        if let Err(error) = self.send(&need(number)) {
            lock(&self.waiting).remove(&number);
            return Err(refused(&error));
        }
        match receiver.recv() {
            Ok(HostAnswer::Refused(fault)) => Err(fault.into()),
            Ok(answered) => Ok(answered),
            Err(_) => Err(refused(&ChannelError::Closed)),
        }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Publishes events. Live events are checked here and sent without waiting; for ledger events
    /// the host's answer is waited for.
    pub(super) fn emit(
        &self,
        events: &[AbiNewEvent<'_>],
        done: Option<CompletionBox>,
    ) -> Result<(), ModError> {
        for event in events {
            may_publish(&self.manifest, event.topic.as_str(), event.data.len())?;
        }
        let is_ledger = |event: &AbiNewEvent<'_>| event.flags & FLAG_LEDGER != 0;
        let need = |answer| HostRequest::Emit {
            answer,
            events: events.iter().map(NewEvent::from).collect(),
        };
        if let Some(done) = done {
            return self.send_and_tell(done, need);
        }
        if events.iter().any(is_ledger) {
            return self.ask(|number| need(Answer::Taken(number))).map(drop);
        }
        self.send(&need(Answer::No)).map_err(|error| refused(&error))
    }

    /// Relays events; the host's answer is waited for, or goes to `done`.
    pub(super) fn relay(
        &self,
        events: &[AbiRelayedEvent<'_>],
        done: Option<CompletionBox>,
    ) -> Result<(), ModError> {
        for relayed in events {
            may_publish(&self.manifest, relayed.event.topic.as_str(), relayed.event.data.len())?;
        }
        let need = |answer| HostRequest::Relay {
            answer,
            events: events.iter().map(RelayedEvent::from).collect(),
        };
        match done {
            Some(done) => self.send_and_tell(done, need),
            None => self.ask(|number| need(Answer::Taken(number))).map(drop),
        }
    }

    /// Sends events; `done` is called when they are accepted.
    fn send_and_tell<'a>(
        &self,
        done: CompletionBox,
        need: impl FnOnce(Answer) -> HostRequest<'a>,
    ) -> Result<(), ModError> {
        let number = self.number();
        lock(&self.waiting).insert(number, Waiter::Completion(done));
        self.send(&need(Answer::Accepted(number))).map_err(|error| {
            lock(&self.waiting).remove(&number);
            refused(&error)
        })
    }

    pub(super) fn record(&self, handle: u64, value: f64) {
        let here = Some(std::thread::current().id());
        if self.in_call.load(Ordering::Relaxed) && *lock(&self.thread) == here {
            let mut records = lock(&self.records);
            if records.len() < MAX_RECORDS {
                records.push((handle, value));
                return;
            }
        }
        // An error means that the daemon is gone, and this process will be.
        let _ = self.send(&HostRequest::Record { handle, value });
    }

    pub(super) fn note_heap(&self, bytes: u64) {
        self.heap.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_served_by_this_thread(&self) {
        *lock(&self.thread) = Some(std::thread::current().id());
    }

    pub(super) fn begin_call(&self) {
        self.in_call.store(true, Ordering::Relaxed);
    }

    /// Ends a call; returns what goes with the reply: the module's memory in bytes, and the
    /// recorded values.
    pub(super) fn end_call(&self) -> (u64, Vec<(u64, f64)>) {
        self.in_call.store(false, Ordering::Relaxed);
        (self.heap.load(Ordering::Relaxed), std::mem::take(&mut *lock(&self.records)))
    }

    /// Returns a pseudonym, from the cache where it is known.
    pub(super) fn pseudonym(&self, kind: &str, value: &str) -> String {
        let key = (kind.to_owned(), value.to_owned());
        if let Some(known) = lock(&self.pseudonyms).get(&key) {
            return known.clone();
        }
        let Ok(HostAnswer::Bytes(bytes)) =
            self.ask(|ask| HostRequest::Pseudonym { ask, kind, value })
        else {
            return String::new();
        };
        let name = String::from_utf8_lossy(&bytes).into_owned();
        let mut known = lock(&self.pseudonyms);
        if known.len() >= MAX_PSEUDONYMS {
            known.clear();
        }
        known.insert(key, name.clone());
        name
    }

    /// Returns a duplicate of a listening socket, a descriptor that the caller owns from now on.
    pub(super) fn listener(&self, name: &str) -> Result<i32, ModError> {
        match self.ask(|ask| HostRequest::Listener { ask, name })? {
            HostAnswer::Listener(descriptor) => Ok(descriptor.into_raw_fd()),
            _ => Err(lost_descriptor().into()),
        }
    }

    /// Calls another module, or the host.
    pub(super) fn call(
        &self,
        request: &CallRequest<'_>,
        sink: ReplySinkBox,
    ) -> Result<(), ModError> {
        let number = request.number;
        self.calls.expect(number, sink);
        let call = wire::CallRequest {
            number,
            target: request.target.as_str(),
            command: request.command.as_str(),
            arguments: request.arguments.as_slice(),
            deadline_ms: request.deadline_ms,
            parent: request.parent,
        };
        self.send(&HostRequest::Call(call)).map_err(|error| {
            self.calls.forget(number);
            refused(&error)
        })
    }

    /// Gives up on a call, or on all of them.
    pub(super) fn cancel_call(&self, number: u64) {
        if number == ALL_CALLS {
            let fault = Fault::new(error_kind::UNAVAILABLE, "the module stops");
            self.calls.fail_all(&fault);
        } else {
            self.calls.forget(number);
        }
        // An error means that the daemon is gone, and this process will be.
        let _ = self.send(&HostRequest::CancelCall(number));
    }
}

/// Returns a callback that tells the daemon that a frame of a call's answer was read.
fn frame_taken(link: Weak<Link>) -> Taken {
    Arc::new(move |number, wanted| {
        if let Some(link) = link.upgrade() {
            // An error means that the daemon is gone, and this process will be.
            let _ = link.send(&HostRequest::CallFrameTaken { number, wanted });
        }
    })
}

fn lost_descriptor() -> Fault {
    Fault::new(error_kind::UNAVAILABLE, "the socket did not come; are descriptors left?")
}

fn refused(error: &ChannelError) -> ModError {
    let kind = match error {
        ChannelError::TooLong(_) => error_kind::FAILED,
        _ => error_kind::UNAVAILABLE,
    };
    ModError { kind, message: error.to_string().into(), place: "".into() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

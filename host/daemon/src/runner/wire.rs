//! Messages between the daemon and a runner, and their encoding.
//!
//! There are two sockets. On the first the daemon asks and the runner replies, one at a time: the
//! calls of the module. On the second the module asks and the daemon responds, many at a time: the
//! services of the host. A frame is a length of four bytes and one message in postcard's format.
//! Both ends are the same program, so that a version guards against nothing but a mistake.

use std::path::PathBuf;

use lodestar_abi::{
    Event as AbiEvent, ModError, NewEvent as AbiNewEvent, RelayedEvent as AbiRelayedEvent,
};
use serde::{Deserialize, Serialize};

/// The version of these messages.
pub(super) const VERSION: u32 = 4;

/// Longest frame in bytes. The longest answer to a command is a little shorter.
pub(super) const MAX_FRAME: usize = 64 << 20;

/// The first frame on the first socket; the descriptor of the sealed library comes with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) version: u32,
    /// Process id of the daemon.
    pub(super) parent: u32,
    /// Name of the module.
    pub(super) name: String,
    /// Path that its library was read from, for messages.
    pub(super) library: PathBuf,
    pub(super) sha256: String,
    /// Paths that it may read, besides the system's libraries and settings.
    pub(super) readable: Vec<PathBuf>,
    /// Paths that it may write.
    pub(super) writable: Vec<PathBuf>,
    /// `true` when the daemon counts its memory, because no control group does: then it may create
    /// no memory that belongs to no process.
    pub(super) counted: bool,
}

/// The reply to [`Setup`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Loaded {
    /// Success: the library is mapped; `sandbox` says how far the sandbox holds.
    Yes { sandbox: String, sandboxed: bool },
    /// Failure to map the library.
    No { reason: String, incompatible: bool },
}

/// A call of the module.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RunnerRequest<'a> {
    Describe,
    Validate(#[serde(with = "serde_bytes")] &'a [u8]),
    Create {
        #[serde(with = "serde_bytes")]
        config: &'a [u8],
        #[serde(with = "serde_bytes")]
        restored: &'a [u8],
        #[serde(with = "serde_bytes")]
        info: &'a [u8],
    },
    Batch(#[serde(borrow)] Vec<Event<'a>>),
    Timer(u32),
    Command {
        /// Number under which the frames of the answer come.
        number: u64,
        /// Number of [`HostRequest`]s that the daemon has met.
        met: u64,
        #[serde(with = "serde_bytes")]
        request: &'a [u8],
        /// `true` when the descriptor that its files come from is with the frame.
        files: bool,
    },
    Health,
    LogLevel(u32),
    Snapshot,
    /// Request to stop, with the grace in milliseconds. The runner ends after its reply.
    Stop(u64),
}

/// Reply to a call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply<'a> {
    /// Bytes that the module's allocator has handed out.
    pub(super) heap: u64,
    /// Handles and values that the module's thread recorded meanwhile.
    pub(super) records: Vec<(u64, f64)>,
    #[serde(borrow)]
    pub(super) outcome: Outcome<'a>,
}

/// Result of a call, see [`Reply`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome<'a> {
    Done,
    Bytes(#[serde(with = "serde_bytes")] &'a [u8]),
    /// The whole answer of a command, in place of [`HostRequest::Answer`].
    Answer(#[serde(with = "serde_bytes")] &'a [u8]),
    Batch {
        handled: u32,
        fault: Option<Fault>,
    },
    Refused(Fault),
}

/// A request of a module to the host. Where there is an `ask`, a [`HostResponse`] with the same
/// number comes back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum HostRequest<'a> {
    Emit {
        answer: Answer,
        #[serde(borrow)]
        events: Vec<NewEvent<'a>>,
    },
    Relay {
        answer: Answer,
        #[serde(borrow)]
        events: Vec<RelayedEvent<'a>>,
    },
    Wanted {
        ask: u64,
        topic: &'a str,
    },
    Log {
        level: u32,
        target: &'a str,
        message: &'a str,
        #[serde(with = "serde_bytes")]
        fields: &'a [u8],
    },
    Metric {
        ask: u64,
        kind: u32,
        name: &'a str,
        help: &'a str,
        #[serde(with = "serde_bytes")]
        labels: &'a [u8],
    },
    Record {
        handle: u64,
        value: f64,
    },
    Secret {
        ask: u64,
        name: &'a str,
    },
    Pseudonym {
        ask: u64,
        kind: &'a str,
        value: &'a str,
    },
    Listener {
        ask: u64,
        name: &'a str,
    },
    CacheGet {
        ask: u64,
        key: &'a str,
    },
    CacheSet {
        key: &'a str,
        #[serde(with = "serde_bytes")]
        value: &'a [u8],
        ttl_ms: u64,
    },
    Frame {
        number: u64,
        #[serde(with = "serde_bytes")]
        bytes: &'a [u8],
    },
    /// The last frame of an answer, and its end.
    Answer {
        number: u64,
        #[serde(with = "serde_bytes")]
        bytes: &'a [u8],
    },
    Finish {
        number: u64,
        fault: Option<Fault>,
    },
    Call(#[serde(borrow)] CallRequest<'a>),
    CancelCall(u64),
    /// Notice that a frame of a call's answer was read; nobody wants the next when `wanted` is
    /// false.
    CallFrameTaken {
        number: u64,
        wanted: bool,
    },
}

/// A call of another module, or of the host. Its answer comes as [`HostResponse::CallFrame`], and
/// ends with [`HostResponse::CallAnswer`] or [`HostResponse::CallEnded`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct CallRequest<'a> {
    pub(super) number: u64,
    pub(super) target: &'a str,
    pub(super) command: &'a str,
    #[serde(with = "serde_bytes")]
    pub(super) arguments: &'a [u8],
    pub(super) deadline_ms: u64,
    pub(super) parent: u64,
}

/// Time at which an emitter is told about its events, with the number of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Never.
    No,
    /// Once the bus has taken the events in.
    Taken(u64),
    /// Once they are accepted: ledger events are then written.
    Accepted(u64),
}

/// A response of the host, or a part of an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum HostResponse<'a> {
    Done {
        ask: u64,
        fault: Option<Fault>,
    },
    Bytes {
        ask: u64,
        #[serde(with = "serde_bytes")]
        bytes: &'a [u8],
    },
    Number {
        ask: u64,
        number: u64,
    },
    /// Listening socket, whose descriptor comes with the frame.
    Listener {
        ask: u64,
    },
    /// Notice that a frame of an answer was read; nobody wants the next when `wanted` is false.
    FrameTaken {
        number: u64,
        wanted: bool,
    },
    CallFrame {
        number: u64,
        #[serde(with = "serde_bytes")]
        bytes: &'a [u8],
    },
    /// The last frame of an answer, and its end.
    CallAnswer {
        number: u64,
        #[serde(with = "serde_bytes")]
        bytes: &'a [u8],
    },
    CallEnded {
        number: u64,
        fault: Option<Fault>,
    },
}

/// An error on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    pub(super) kind: u32,
    pub(super) message: String,
    pub(super) place: String,
}

/// An event for the module.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Event<'a> {
    #[serde(with = "serde_bytes")]
    id: [u8; 16],
    time_ns: u64,
    sequence: u64,
    attempt: u32,
    flags: u32,
    topic: &'a str,
    source: &'a str,
    subject: &'a str,
    traceparent: &'a str,
    #[serde(with = "serde_bytes")]
    data: &'a [u8],
}

/// An event from the module.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NewEvent<'a> {
    time_ns: u64,
    flags: u32,
    topic: &'a str,
    subject: &'a str,
    traceparent: &'a str,
    #[serde(with = "serde_bytes")]
    data: &'a [u8],
}

/// An event from the module that was published elsewhere.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RelayedEvent<'a> {
    #[serde(with = "serde_bytes")]
    id: [u8; 16],
    origin: &'a str,
    #[serde(borrow)]
    event: NewEvent<'a>,
}

impl<'a> From<&'a AbiRelayedEvent<'a>> for RelayedEvent<'a> {
    fn from(relayed: &'a AbiRelayedEvent<'a>) -> Self {
        let (id, origin) = (relayed.id, relayed.origin.as_str());
        Self { id, origin, event: NewEvent::from(&relayed.event) }
    }
}

impl<'a> RelayedEvent<'a> {
    pub(super) fn to_abi(&self) -> AbiRelayedEvent<'a> {
        AbiRelayedEvent {
            id: self.id,
            origin: self.origin.into(),
            event: self.event.to_abi(),
            reserved: [0; 2],
        }
    }
}

impl<'a> From<&'a AbiEvent<'a>> for Event<'a> {
    fn from(event: &'a AbiEvent<'a>) -> Self {
        Self {
            id: event.id,
            time_ns: event.time_ns,
            sequence: event.sequence,
            attempt: event.attempt,
            flags: event.flags,
            topic: event.topic.as_str(),
            source: event.source.as_str(),
            subject: event.subject.as_str(),
            traceparent: event.traceparent.as_str(),
            data: event.data.as_slice(),
        }
    }
}

impl<'a> Event<'a> {
    pub(super) fn to_abi(&self) -> AbiEvent<'a> {
        AbiEvent {
            id: self.id,
            time_ns: self.time_ns,
            sequence: self.sequence,
            attempt: self.attempt,
            flags: self.flags,
            topic: self.topic.into(),
            source: self.source.into(),
            subject: self.subject.into(),
            traceparent: self.traceparent.into(),
            data: self.data.into(),
            reserved: [0; 4],
        }
    }
}

impl<'a> From<&'a AbiNewEvent<'a>> for NewEvent<'a> {
    fn from(event: &'a AbiNewEvent<'a>) -> Self {
        Self {
            time_ns: event.time_ns,
            flags: event.flags,
            topic: event.topic.as_str(),
            subject: event.subject.as_str(),
            traceparent: event.traceparent.as_str(),
            data: event.data.as_slice(),
        }
    }
}

impl<'a> NewEvent<'a> {
    pub(super) fn to_abi(&self) -> AbiNewEvent<'a> {
        AbiNewEvent {
            time_ns: self.time_ns,
            flags: self.flags,
            topic: self.topic.into(),
            subject: self.subject.into(),
            traceparent: self.traceparent.into(),
            data: self.data.into(),
            reserved: [0; 4],
        }
    }
}

impl Fault {
    pub(super) fn new(kind: u32, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), place: String::new() }
    }
}

impl From<&ModError> for Fault {
    fn from(error: &ModError) -> Self {
        Self {
            kind: error.kind,
            message: error.message.to_string(),
            place: error.place.to_string(),
        }
    }
}

impl From<Fault> for ModError {
    fn from(fault: Fault) -> Self {
        Self { kind: fault.kind, message: fault.message.into(), place: fault.place.into() }
    }
}

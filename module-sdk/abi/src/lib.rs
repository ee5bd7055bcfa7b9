//! The stable ABI between `lodestard` and its modules.
//!
//! This is the only crate that both sides of the library boundary share and the only user of
//! `abi_stable` (adr/0002). A module is a `cdylib` that exports one [`ModuleRoot`], found through
//! the `abi_stable` library header, and carries two sections that the host reads from the file
//! before it runs a single instruction of it: [`BuildInfo`] and the text of `module.toml`.
//!
//! # How it may grow
//!
//! * The crate stays at version 1.x: `abi_stable` makes the version part of every type.
//! * [`ModuleRoot`] gets new fields only after its last one; the two trait objects get new methods
//!   only at their end and only with a default body. Everything else is frozen; what may vary
//!   travels as JSON bytes.
//! * No cargo feature and no `cfg` ever touches a type here.
#![expect(
    non_local_definitions,
    non_camel_case_types,
    missing_docs,
    unsafe_code,
    clippy::used_underscore_binding,
    reason = "what abi_stable's macros write; the items written by hand below have their docs"
)]

pub use abi_stable;
use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::RootModule,
    package_version_strings, sabi_trait,
    sabi_types::VersionStrings,
    std_types::{RBox, ROption, RResult, RSlice, RStr, RString, RVec},
};

mod build_info;
pub use build_info::{BUILD_INFO_MAGIC, BuildInfo, BuildInfoError};

/// The ABI epoch: modules of another epoch are refused before they are mapped.
pub const EPOCH: u32 = 1;

/// The ELF section that holds the [`BuildInfo`] of a module.
pub const BUILD_INFO_SECTION: &str = ".lodestar.build";

/// The ELF section that holds the text of a module's `module.toml`.
pub const MANIFEST_SECTION: &str = ".lodestar.manifest";

/// An event for a handler, borrowed from the host for the duration of the call.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Event<'a> {
    /// The UUIDv7 of the event.
    pub id: [u8; 16],
    /// Time of the event, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Number of the event in the ledger, or among the live events of this run of the daemon.
    pub sequence: u64,
    /// 1 on first delivery, more on each redelivery.
    pub attempt: u32,
    /// Bit 0: a ledger event.
    pub flags: u32,
    /// The dotted topic.
    pub topic: RStr<'a>,
    /// Source of the event: `/lodestar/<module>`.
    pub source: RStr<'a>,
    /// Subject of the event, may be empty.
    pub subject: RStr<'a>,
    /// The W3C trace context, may be empty.
    pub traceparent: RStr<'a>,
    /// The payload, JSON.
    pub data: RSlice<'a, u8>,
    /// Reserved.
    pub reserved: [u64; 4],
}

/// An event that a module asks the host to publish.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct NewEvent<'a> {
    /// Time of the event, in nanoseconds since the Unix epoch; 0 for now.
    pub time_ns: u64,
    /// Bit 0: a ledger event.
    pub flags: u32,
    /// The dotted topic.
    pub topic: RStr<'a>,
    /// Subject of the event, may be empty.
    pub subject: RStr<'a>,
    /// The W3C trace context, may be empty.
    pub traceparent: RStr<'a>,
    /// The payload, JSON.
    pub data: RSlice<'a, u8>,
    /// Reserved.
    pub reserved: [u64; 4],
}

/// An event that was published by another daemon.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RelayedEvent<'a> {
    /// The UUIDv7 of the event there.
    pub id: [u8; 16],
    /// Daemon and module that published it: `//laptop-1/lodestar/ingest`.
    pub origin: RStr<'a>,
    /// The event; its time is the original one.
    pub event: NewEvent<'a>,
    /// Reserved.
    pub reserved: [u64; 2],
}

/// Bit 0 of the flags of [`Event`] and [`NewEvent`].
pub const FLAG_LEDGER: u32 = 1;

/// The error of a failed call. `kind` may get further values, see [`error_kind`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct ModError {
    /// Kind of the error, one of [`error_kind`].
    pub kind: u32,
    /// Message for people, one sentence.
    pub message: RString,
    /// The handler, command or timer that failed, may be empty.
    pub place: RString,
}

/// The kinds of [`ModError`]. An unknown one reads as [`FAILED`](error_kind::FAILED).
pub mod error_kind {
    /// Failed call; another try may fail as well.
    pub const FAILED: u32 = 0;
    /// Caught panic.
    pub const PANIC: u32 = 1;
    /// Invalid configuration; `message` is a JSON report.
    pub const CONFIG: u32 = 2;
    /// Temporary failure: the same call may succeed later (full disk, locked database, full queue).
    pub const UNAVAILABLE: u32 = 3;
    /// Invalid request of the caller (bad arguments).
    pub const USAGE: u32 = 4;
    /// Missing command, secret or listener.
    pub const NOT_FOUND: u32 = 5;
    /// Call cancelled by the caller.
    pub const CANCELLED: u32 = 6;
    /// Missing answer at the deadline. Since 1.1.
    pub const TIMED_OUT: u32 = 7;
    /// Call that is not allowed; the message says what to write where. Since 1.1.
    pub const REFUSED: u32 = 8;
}

/// Result of a batch: the first `handled` events are done, `error` is about the next one.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct BatchOutcome {
    /// Number of events handled, from the first.
    pub handled: u32,
    /// Error of the event after them. Absent if all are handled.
    pub error: ROption<ModError>,
}

/// Arguments for creating a module.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct CreateRequest<'a> {
    /// The configuration, JSON.
    pub config: RSlice<'a, u8>,
    /// State from `snapshot` of the previous generation, empty for none.
    pub restored: RSlice<'a, u8>,
    /// Reserved.
    pub reserved: [u64; 4],
}

/// A call of a command of another module, or of the host.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct CallRequest<'a> {
    /// The caller's own number for the call, for cancelling it: not 0, and not that of another
    /// running call.
    pub number: u64,
    /// Name of a module, or `host`.
    pub target: RStr<'a>,
    /// Name of the command.
    pub command: RStr<'a>,
    /// Arguments of the command, JSON.
    pub arguments: RSlice<'a, u8>,
    /// Deadline in milliseconds; 0 lets the host choose.
    pub deadline_ms: u64,
    /// The `call` in the request of the command for which this call is made, 0 for none.
    pub parent: u64,
    /// Reserved.
    pub reserved: [u64; 4],
}

/// Number that stands for all calls of a module, for `cancel_call`.
pub const ALL_CALLS: u64 = 0;

/// Receiver of the result of an `emit`: that the events were accepted, or the error. Called once,
/// from any thread.
#[sabi_trait]
pub trait Completion: Send + 'static {
    #[sabi(last_prefix_field)]
    fn complete(&self, result: RResult<(), ModError>);
}

/// An owned [`Completion`].
pub type CompletionBox = Completion_TO<RBox<()>>;

/// Sink for the answer of a command.
#[sabi_trait]
pub trait ReplySink: Send + 'static {
    /// Sends one frame (JSON). Returns false if the receiver is gone.
    fn frame(&self, frame: RSlice<'_, u8>) -> bool;
    /// Ends the answer.
    #[sabi(last_prefix_field)]
    fn finish(&self, result: RResult<(), ModError>);
}

/// An owned [`ReplySink`].
pub type ReplySinkBox = ReplySink_TO<RBox<()>>;

/// Services of the host for a module. Callable from every thread of the module until its `stop` has
/// returned; afterwards every call is refused.
#[sabi_trait]
pub trait HostServices: Send + Sync + 'static {
    /// Returns JSON: name, version, data_dir, generation, log_level.
    fn info(&self) -> RVec<u8>;
    /// Returns the time in nanoseconds since the Unix epoch.
    fn now_ns(&self) -> u64;
    /// Publishes events, in order. `done` is completed when all of them are accepted.
    fn emit(
        &self,
        events: RSlice<'_, NewEvent<'_>>,
        done: ROption<CompletionBox>,
    ) -> RResult<(), ModError>;
    /// Writes a log record; `fields` is a JSON object. Levels: 1 error … 5 trace.
    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>, fields: RSlice<'_, u8>);
    /// Registers one time series and returns its handle. `kind`: 0 counter, 1 gauge, 2 histogram;
    /// `labels` is a JSON object of strings.
    fn metric(
        &self,
        kind: u32,
        name: RStr<'_>,
        help: RStr<'_>,
        labels: RSlice<'_, u8>,
    ) -> RResult<u64, ModError>;
    /// Adds to a counter, sets a gauge, observes into a histogram.
    fn record(&self, handle: u64, value: f64);
    /// Returns a secret that the manifest declares and the operator gave.
    fn secret(&self, name: RStr<'_>) -> RResult<RString, ModError>;
    /// Returns the HMAC of a value under the key of this installation.
    fn pseudonym(&self, kind: RStr<'_>, value: RStr<'_>) -> RString;
    /// Returns a duplicate of the descriptor of a listening socket of the host.
    fn listener(&self, name: RStr<'_>) -> RResult<i32, ModError>;
    /// Returns a cached value, empty bytes for none.
    fn cache_get(&self, key: RStr<'_>) -> RVec<u8>;
    /// Caches a value for `ttl_ms` milliseconds; empty bytes remove it.
    fn cache_set(&self, key: RStr<'_>, value: RSlice<'_, u8>, ttl_ms: u64);
    /// Reports how much memory the module's own allocator has given out, in bytes.
    #[sabi(last_prefix_field)]
    fn heap_bytes(&self, bytes: u64);
    /// Returns whether an event of a topic would reach a module. Since 1.1; a host without this
    /// method counts as one that returns true.
    fn wanted(&self, topic: RStr<'_>) -> bool {
        let _ = topic;
        true
    }
    /// Publishes events under their original ids and times, each once. Since 1.1.
    fn relay(
        &self,
        events: RSlice<'_, RelayedEvent<'_>>,
        done: ROption<CompletionBox>,
    ) -> RResult<(), ModError> {
        let _ = (events, done);
        RResult::RErr(ModError {
            kind: error_kind::FAILED,
            message: "this lodestard is older than relays; upgrade it".into(),
            place: "".into(),
        })
    }
    /// Calls a command. The answer goes to `sink`, as a command writes it, and ends within the
    /// deadline, whatever happens to the target. Since 1.1.
    fn call(&self, request: CallRequest<'_>, sink: ReplySinkBox) -> RResult<(), ModError> {
        drop(sink);
        RResult::RErr(ModError {
            kind: error_kind::NOT_FOUND,
            message: format!(
                "this lodestard is older than calls between modules, so {}.{} cannot be called; \
                 update it",
                request.target, request.command
            )
            .into(),
            place: RString::new(),
        })
    }
    /// Cancels a call by its number, or [`ALL_CALLS`]. Since 1.1.
    fn cancel_call(&self, number: u64) {
        let _ = number;
    }
}

/// An owned [`HostServices`].
pub type HostBox = HostServices_TO<RBox<()>>;

/// A running module. All calls come from one thread, one at a time.
#[sabi_trait]
pub trait ModuleInstance: 'static {
    /// Handles events, oldest first.
    fn on_batch(&mut self, events: RSlice<'_, Event<'_>>) -> BatchOutcome;
    /// Runs timer number `index` of the description.
    fn on_timer(&mut self, index: u32) -> RResult<(), ModError>;
    /// Runs a command: `request` is JSON, the answer goes to `sink`.
    fn command(&mut self, request: RSlice<'_, u8>, sink: ReplySinkBox);
    /// Returns JSON: status and message.
    fn health(&mut self) -> RVec<u8>;
    /// Sets the log level, below which nothing is logged.
    fn log_level(&mut self, level: u32);
    /// Returns the state for the next generation; empty for none.
    fn snapshot(&mut self) -> RResult<RVec<u8>, ModError>;
    /// Stops everything that the module started. The instance is dropped afterwards.
    #[sabi(last_prefix_field)]
    fn stop(&mut self, grace_ms: u64) -> RResult<(), ModError>;
}

/// An owned [`ModuleInstance`].
pub type ModuleBox = ModuleInstance_TO<RBox<()>>;

/// The functions that a module library exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ModuleRoot_Ref)))]
#[sabi(missing_field(panic))]
pub struct ModuleRoot {
    /// Returns JSON: commands, timers, topics and the schema of the configuration.
    pub describe: extern "C" fn() -> RResult<RVec<u8>, ModError>,
    /// Checks whether a configuration (JSON) is valid.
    pub validate: extern "C" fn(config: RSlice<'_, u8>) -> RResult<(), ModError>,
    /// Creates a running module.
    #[sabi(last_prefix_field)]
    pub create:
        extern "C" fn(request: CreateRequest<'_>, host: HostBox) -> RResult<ModuleBox, ModError>,
}

impl RootModule for ModuleRoot_Ref {
    declare_root_module_statics! {ModuleRoot_Ref}
    const BASE_NAME: &'static str = "lodestar_module";
    const NAME: &'static str = "lodestar_module";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

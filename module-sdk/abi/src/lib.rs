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

/// An event as a handler sees it: borrowed from the host for the length of the call.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Event<'a> {
    /// The UUIDv7 of the event.
    pub id: [u8; 16],
    /// When it happened, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Its number in the ledger, or among the live events of this run of the daemon.
    pub sequence: u64,
    /// 1 on first delivery, more on each redelivery.
    pub attempt: u32,
    /// Bit 0: a ledger event.
    pub flags: u32,
    /// The dotted topic.
    pub topic: RStr<'a>,
    /// Who emitted it: `/lodestar/<module>`.
    pub source: RStr<'a>,
    /// What it is about, may be empty.
    pub subject: RStr<'a>,
    /// The W3C trace context, may be empty.
    pub traceparent: RStr<'a>,
    /// The payload, JSON.
    pub data: RSlice<'a, u8>,
    /// For later.
    pub reserved: [u64; 4],
}

/// An event that a module asks the host to publish.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct NewEvent<'a> {
    /// When it happened, in nanoseconds since the Unix epoch; 0 for now.
    pub time_ns: u64,
    /// Bit 0: a ledger event.
    pub flags: u32,
    /// The dotted topic.
    pub topic: RStr<'a>,
    /// What it is about, may be empty.
    pub subject: RStr<'a>,
    /// The W3C trace context, may be empty.
    pub traceparent: RStr<'a>,
    /// The payload, JSON.
    pub data: RSlice<'a, u8>,
    /// For later.
    pub reserved: [u64; 4],
}

/// An event that was published elsewhere.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RelayedEvent<'a> {
    /// The UUIDv7 that it has there.
    pub id: [u8; 16],
    /// Where, and who published it: `//laptop-1/lodestar/ingest`.
    pub origin: RStr<'a>,
    /// The event; its time is the one that it has there.
    pub event: NewEvent<'a>,
    /// For later.
    pub reserved: [u64; 2],
}

/// Bit 0 of the flags of [`Event`] and [`NewEvent`].
pub const FLAG_LEDGER: u32 = 1;

/// Why a call failed. What may grow is in `kind`, see [`error_kind`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct ModError {
    /// One of [`error_kind`].
    pub kind: u32,
    /// One sentence for a person.
    pub message: RString,
    /// The handler, command or timer that failed, may be empty.
    pub place: RString,
}

/// The kinds of [`ModError`]. An unknown one reads as [`FAILED`](error_kind::FAILED).
pub mod error_kind {
    /// The call failed; another try may fail as well.
    pub const FAILED: u32 = 0;
    /// A panic was caught.
    pub const PANIC: u32 = 1;
    /// The configuration is not valid; `message` is a JSON report.
    pub const CONFIG: u32 = 2;
    /// Not now: the same call may succeed later (full disk, locked database, full queue).
    pub const UNAVAILABLE: u32 = 3;
    /// The caller asked for something that does not fit (bad arguments).
    pub const USAGE: u32 = 4;
    /// There is no such thing (command, secret, listener).
    pub const NOT_FOUND: u32 = 5;
    /// The caller gave up.
    pub const CANCELLED: u32 = 6;
    /// The answer did not come within the deadline. Since 1.1.
    pub const TIMED_OUT: u32 = 7;
    /// It is not allowed; the message says what to write where. Since 1.1.
    pub const REFUSED: u32 = 8;
}

/// How far a batch got: the first `handled` events are done, the next one met `error`.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct BatchOutcome {
    /// How many events, from the first, are handled.
    pub handled: u32,
    /// What the event after them met. Absent when all are handled.
    pub error: ROption<ModError>,
}

/// What a module is made from.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct CreateRequest<'a> {
    /// The configuration, JSON.
    pub config: RSlice<'a, u8>,
    /// What the generation before gave in `snapshot`, empty for none.
    pub restored: RSlice<'a, u8>,
    /// For later.
    pub reserved: [u64; 4],
}

/// A call of a command of another module, or of the host.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct CallRequest<'a> {
    /// The caller's own number for it, by which it is cancelled: not 0, and of no other call that
    /// is under way.
    pub number: u64,
    /// A module, or `host`.
    pub target: RStr<'a>,
    /// The command.
    pub command: RStr<'a>,
    /// Its arguments, JSON.
    pub arguments: RSlice<'a, u8>,
    /// In how many milliseconds the answer must be there; 0 leaves it to the host.
    pub deadline_ms: u64,
    /// The `call` in the request of the command on whose behalf this call is made, 0 for none.
    pub parent: u64,
    /// For later.
    pub reserved: [u64; 4],
}

/// All calls of a module, for `cancel_call`.
pub const ALL_CALLS: u64 = 0;

/// Tells an emitter that its events were accepted, or why not. Called once, from any thread.
#[sabi_trait]
pub trait Completion: Send + 'static {
    #[sabi(last_prefix_field)]
    fn complete(&self, result: RResult<(), ModError>);
}

/// An owned [`Completion`].
pub type CompletionBox = Completion_TO<RBox<()>>;

/// Where a command writes its answer.
#[sabi_trait]
pub trait ReplySink: Send + 'static {
    /// Sends one frame (JSON). False when nobody listens any more.
    fn frame(&self, frame: RSlice<'_, u8>) -> bool;
    /// Ends the answer.
    #[sabi(last_prefix_field)]
    fn finish(&self, result: RResult<(), ModError>);
}

/// An owned [`ReplySink`].
pub type ReplySinkBox = ReplySink_TO<RBox<()>>;

/// What the host does for a module. Callable from every thread of the module until its `stop`
/// has returned; afterwards every call is refused.
#[sabi_trait]
pub trait HostServices: Send + Sync + 'static {
    /// JSON: name, version, data_dir, generation, log_level.
    fn info(&self) -> RVec<u8>;
    /// Nanoseconds since the Unix epoch.
    fn now_ns(&self) -> u64;
    /// Publishes events, in order. `done` is told when all of them are accepted.
    fn emit(
        &self,
        events: RSlice<'_, NewEvent<'_>>,
        done: ROption<CompletionBox>,
    ) -> RResult<(), ModError>;
    /// Writes a log record; `fields` is a JSON object. Levels: 1 error … 5 trace.
    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>, fields: RSlice<'_, u8>);
    /// Registers one time series and answers its handle. `kind`: 0 counter, 1 gauge, 2 histogram;
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
    /// A secret that the manifest declares and the operator gave.
    fn secret(&self, name: RStr<'_>) -> RResult<RString, ModError>;
    /// The HMAC of a value under the key of this installation.
    fn pseudonym(&self, kind: RStr<'_>, value: RStr<'_>) -> RString;
    /// A duplicate of the descriptor of a listening socket that the host holds.
    fn listener(&self, name: RStr<'_>) -> RResult<i32, ModError>;
    /// A cached value, empty bytes for none.
    fn cache_get(&self, key: RStr<'_>) -> RVec<u8>;
    /// Caches a value for `ttl_ms` milliseconds; empty bytes remove it.
    fn cache_set(&self, key: RStr<'_>, value: RSlice<'_, u8>, ttl_ms: u64);
    /// Tells how much memory the module's own allocator has given out, in bytes.
    #[sabi(last_prefix_field)]
    fn heap_bytes(&self, bytes: u64);
    /// Tells whether an event of a topic would reach a module. Since 1.1; a host that does not know
    /// is taken to want it.
    fn wanted(&self, topic: RStr<'_>) -> bool {
        let _ = topic;
        true
    }
    /// Publishes events under the ids and times that they have elsewhere, each once. Since 1.1.
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
    /// deadline, whatever becomes of the target. Since 1.1.
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
    /// Gives up on a call by its number, or on [`ALL_CALLS`]. Since 1.1.
    fn cancel_call(&self, number: u64) {
        let _ = number;
    }
}

/// An owned [`HostServices`].
pub type HostBox = HostServices_TO<RBox<()>>;

/// A running module. All calls come from one thread, one at a time.
#[sabi_trait]
pub trait ModuleInstance: 'static {
    /// Hands over events, oldest first.
    fn on_batch(&mut self, events: RSlice<'_, Event<'_>>) -> BatchOutcome;
    /// Timer number `index` of the description is due.
    fn on_timer(&mut self, index: u32) -> RResult<(), ModError>;
    /// Runs a command: `request` is JSON, the answer goes to `sink`.
    fn command(&mut self, request: RSlice<'_, u8>, sink: ReplySinkBox);
    /// JSON: status and message.
    fn health(&mut self) -> RVec<u8>;
    /// The level below which nothing is logged has changed.
    fn log_level(&mut self, level: u32);
    /// The state for the next generation; empty for none.
    fn snapshot(&mut self) -> RResult<RVec<u8>, ModError>;
    /// Ends everything that the module started. Dropped afterwards.
    #[sabi(last_prefix_field)]
    fn stop(&mut self, grace_ms: u64) -> RResult<(), ModError>;
}

/// An owned [`ModuleInstance`].
pub type ModuleBox = ModuleInstance_TO<RBox<()>>;

/// What a module library exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ModuleRoot_Ref)))]
#[sabi(missing_field(panic))]
pub struct ModuleRoot {
    /// JSON: commands, timers, topics and the schema of the configuration.
    pub describe: extern "C" fn() -> RResult<RVec<u8>, ModError>,
    /// Tells whether a configuration (JSON) would be taken.
    pub validate: extern "C" fn(config: RSlice<'_, u8>) -> RResult<(), ModError>,
    /// Makes a running module.
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

//! Types of the control API, which `lodestard` serves on its socket and `lodestar` uses.
//!
//! HTTP/1.1 with JSON over the Unix socket; errors are `application/problem+json` ([`Problem`]);
//! streams are lines of JSON (`application/x-ndjson`). Fields may be added, never renamed or
//! removed. Times are RFC 3339 in UTC with milliseconds; durations carry their unit in the name.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/healthz` | [`Healthz`] |
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/modules` | `[`[`Module`]`]` |
//! | `GET /v1/modules/{name}` | [`ModuleInfo`] |
//! | `POST /v1/modules/{name}/enable`, `…/disable`, [`WaitQuery`] | [`Operation`] |
//! | `POST /v1/modules/{name}/reload`, `…/rollback`, [`WaitQuery`] | [`Operation`] |
//! | `GET /v1/modules/{name}/why` | [`Why`] |
//! | `POST /v1/modules/install`, [`InstallQuery`], a `tar` archive | [`Installed`] |
//! | `POST /v1/modules/{name}/remove`, [`RemoveQuery`] | [`Operation`] |
//! | `GET /v1/verify`, [`VerifyQuery`] | `[`[`Verified`]`]` |
//! | `GET /v1/modules/{name}/logs`, [`LogsQuery`] | lines of [`LogLine`] |
//! | `POST /v1/modules/{name}/commands/{command}`, its arguments | lines of [`CommandItem`] |
//! | `POST /v1/modules/{name}/commands/{command}/files`, [`module_sdk::Files`] | the same |
//! | `GET /v1/operations/{id}`, [`WaitQuery`] | [`Operation`] |
//! | `GET /v1/module-commands` | `[`[`ModuleCommands`]`]` of the running modules |
//! | `GET /v1/config` | [`ConfigView`] |
//! | `GET /v1/config/modules/{name}` | `[`[`Setting`]`]` of one module, with their origins |
//! | `GET /v1/config/diff` | `[`[`Change`]`]` between what runs and the file |
//! | `POST /v1/config/check`, [`ConfigCheck`] | [`ConfigReport`] |
//! | `POST /v1/config/reload`, [`WaitQuery`] | [`Operation`] |
//! | `GET /v1/events/tail`, [`TailQuery`] | lines of [`TailItem`] |
//! | `GET /v1/events/lag` | `[`[`Lag`]`]` |
//! | `GET /v1/events/dead`, [`DeadQuery`] | `[`[`DeadLetter`]`]` |
//! | `POST /v1/events/replay`, [`Replay`] | [`Replayed`] |
//! | `GET /v1/events/audit` | `[`[`AuditRow`]`]` |

mod config;
mod connections;
mod events;
mod figures;
mod install;
mod logs;
mod why;

use std::collections::BTreeMap;

use module_sdk::{CommandDescription, Reply};
use serde::{Deserialize, Serialize};

pub use config::{Change, ConfigCheck, ConfigProblem, ConfigReport, ConfigView, Setting};
pub use connections::{Connections, Ended};
pub use events::{
    AuditRow, DeadLetter, DeadQuery, Envelope, Lag, Replay, Replayed, TailItem, TailQuery,
};
pub use figures::{CallFigures, LedgerLoss, LedgerStatus, RecentCalls};
pub use install::{Declares, InstallQuery, Installed, RemoveQuery, Verified, VerifyQuery};
pub use logs::{LogLine, LogsQuery};
pub use why::{HistoryEntry, ModuleProcess, Why};

/// The media type of [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The media type of streams.
pub const NDJSON: &str = "application/x-ndjson";

/// Error response to a request (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Problem type, always `about:blank`: programs read [`code`](Self::code) instead.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// Name of the code in words.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// Description of the problem for people, one sentence.
    pub detail: String,
    /// Kind of the failure.
    pub code: ProblemCode,
    /// Remedy, one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

impl Problem {
    /// Creates a problem with the title and the status of its code.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            kind: about_blank(),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            help: None,
        }
    }

    /// Adds the remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Returns the last step of the remedy for a failed module: to start it once the cause is removed.
#[must_use]
pub fn once_mended(module: &str) -> String {
    format!("once that is mended, `lodestar modules enable {module}` starts it again")
}

/// The kinds of [`Problem`]. One that this version does not know reads as `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// Missing module, command, operation or event.
    NotFound,
    /// Request that is not allowed, or that would start something unacceptable (ABI, permission).
    Refused,
    /// Invalid input: arguments or configuration.
    Invalid,
    /// Conflict with another running operation on the same thing.
    Busy,
    /// Exceeded deadline.
    Timeout,
    /// Temporary failure: the module does not run, the database is locked, the disk is full.
    Unavailable,
    /// Any other failure.
    #[serde(other)]
    Failed,
}

impl ProblemCode {
    /// Returns the HTTP status of the code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Refused => 403,
            Self::Invalid => 422,
            Self::Busy => 409,
            Self::Timeout => 504,
            Self::Unavailable => 503,
            Self::Failed => 500,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Busy => "busy",
            Self::Timeout => "timed out",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }
}

/// Response to a health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthz {
    /// `ok`.
    pub status: String,
}

/// The daemon and its modules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of `lodestard`.
    pub version: String,
    /// Process id of `lodestard`.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// CPU time of `lodestard` in milliseconds, including modules in it.
    #[serde(default)]
    pub cpu_ms: u64,
    /// Resident memory of `lodestard` in bytes, including modules in it.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Number of threads of `lodestard`.
    #[serde(default)]
    pub threads: u64,
    /// The configuration file.
    pub config_path: String,
    /// Errors in the configuration file on disk; the daemon then keeps the previous configuration.
    /// `null` if the file is in force.
    #[serde(default)]
    pub config_error: Option<String>,
    /// Problems of the daemon or its environment that persist.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// The state directory.
    #[serde(default)]
    pub state_dir: String,
    /// State of the event ledger.
    #[serde(default)]
    pub ledger: LedgerStatus,
    /// The daemon's own listeners (`metrics`); a module's are in its entry.
    pub listeners: Vec<Listener>,
    /// Connections of the daemon's own listeners and of the control socket.
    #[serde(default)]
    pub connections: Vec<Connections>,
    /// Modules in the configuration or on the module path.
    pub modules: Vec<Module>,
}

/// A problem that stops nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Subject of the warning, a word or two: `watching`, `permissions`, `pseudonym key`.
    pub name: String,
    /// Description of the problem, one sentence.
    pub message: String,
    /// Remedy for the problem.
    pub remedy: String,
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Name of the listener: `metrics`, `http`.
    pub name: String,
    /// The address in use, `127.0.0.1:4318`; `null` when it could not be bound.
    pub address: Option<String>,
    /// Reason for a missing address, with the holder of the port if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Current state of a module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Module {
    /// Name of the module.
    pub name: String,
    /// Version of the module; `null` if no library was found.
    pub version: Option<String>,
    /// State that the configuration asks for: `enabled`, `disabled`, `removed`.
    pub desired: String,
    /// Actual state: `absent`, `verified`, `loading`, `running`, `degraded`, `draining`, `stopped`,
    /// `stalled`, `reloading`, `backoff`, `failed`, `quarantined`, `incompatible`.
    pub state: String,
    /// Reason for not running, in words; `null` while the module runs.
    pub reason: Option<String>,
    /// `in_process` or `process`.
    pub isolation: String,
    /// The number of the generation that runs or ran last, 0 for none.
    pub generation: u64,
    /// Health that the module reports.
    pub health: ModuleHealth,
    /// Counters of the module's events since it was first enabled.
    pub events: EventCounters,
    /// Number of restarts after failures.
    pub restarts: u64,
    /// CPU time in milliseconds since the daemon started: of the module's threads in the daemon and
    /// of its processes, including those that have ended.
    pub cpu_ms: u64,
    /// Memory allocated by the module, or resident in its process, in bytes; 0 while the module
    /// does not run.
    pub memory_bytes: u64,
    /// Number of the module's threads in the daemon, or of its process.
    #[serde(default)]
    pub threads: u64,
    /// Age of the oldest event that waits for the module, in milliseconds; 0 for none.
    #[serde(default)]
    pub lag_ms: u64,
    /// Dropped events by reason: `overflow`, `retention`, `failed`, `stopped`, `restart`, `lost`,
    /// `purged`.
    #[serde(default)]
    pub dropped_by: BTreeMap<String, u64>,
    /// Calls of the module since the daemon started, by kind.
    #[serde(default)]
    pub calls: Vec<CallFigures>,
    /// Calls of the module within the last half to whole minute.
    #[serde(default)]
    pub recent: RecentCalls,
    /// Listening sockets of the module.
    pub listeners: Vec<Listener>,
}

/// Health that a module reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleHealth {
    /// `ok`, `degraded`, `failed`; `unknown` while it does not run.
    pub status: String,
    /// Explanation, one sentence; may be empty.
    pub message: String,
}

/// The counters of a subscriber: `accepted = handled + dead + dropped + pending`, always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounters {
    /// Events accepted for the subscriber.
    pub accepted: u64,
    /// Events handled by the subscriber.
    pub handled: u64,
    /// Events dead-lettered after too many failures.
    pub dead: u64,
    /// Events dropped for any reason of [`Module::dropped_by`].
    pub dropped: u64,
    /// Events that wait for the subscriber.
    pub pending: u64,
}

/// Details of one module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// Entry of the module in the list of modules.
    #[serde(flatten)]
    pub module: Module,
    /// Reason for the isolation, half a sentence; `null` for a module that runs in the daemon by
    /// default.
    #[serde(default)]
    pub isolation_reason: Option<String>,
    /// Maximum of log records per second; `null` if the module was never started.
    #[serde(default)]
    pub log_records_per_second: Option<u64>,
    /// Description from the manifest, one sentence.
    #[serde(default)]
    pub description: String,
    /// Path of the library.
    #[serde(default)]
    pub library: Option<String>,
    /// SHA-256 hash of the library, hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Version of the SDK that the module was built with.
    #[serde(default)]
    pub sdk_version: Option<String>,
    /// Name of the module's command, if it differs from the module's name.
    #[serde(default)]
    pub command: Option<String>,
    /// Topic filters that the module subscribes to.
    #[serde(default)]
    pub subscriptions: Vec<String>,
    /// Topic filters that the module may publish.
    #[serde(default)]
    pub publishes: Vec<String>,
    /// Names of the module's commands.
    #[serde(default)]
    pub commands: Vec<String>,
    /// Timers of the module.
    #[serde(default)]
    pub timers: Vec<Timer>,
    /// Time when the current state began.
    #[serde(default)]
    pub since: Option<String>,
    /// Last failures of the module, newest first.
    #[serde(default)]
    pub last_errors: Vec<ModuleError>,
    /// Data directory of the module.
    #[serde(default)]
    pub data_dir: Option<String>,
    /// Process of the module, if it runs in one of its own.
    #[serde(default)]
    pub process: Option<ModuleProcess>,
    /// Number of generations of the library mapped into the daemon, including the running one.
    #[serde(default)]
    pub resident_generations: u64,
}

/// A timer of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Name of the handler.
    pub name: String,
    /// Interval, in milliseconds.
    pub every_ms: u64,
    /// Time of day, for a daily timer, which checks the calendar at this interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<String>,
}

/// A failure of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleError {
    /// Time of the failure.
    pub time: String,
    /// Handler, command or timer that failed; may be empty.
    #[serde(default)]
    pub place: String,
    /// Description of the failure.
    pub message: String,
}

/// A change of state, running or finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Id of the operation, a UUIDv7.
    pub id: String,
    /// Kind of operation: `enable`, `disable`, `reload`, `rollback`, `install`, `remove`,
    /// `reload_config`.
    pub kind: String,
    /// Name of the module, if the operation concerns one.
    pub module: Option<String>,
    /// Origin of the request: `user 1000`, `module dashboard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// State of the operation.
    pub state: OperationState,
    /// Result, one sentence; of a failure the reason.
    pub message: String,
    /// Time when the operation began.
    pub started_at: String,
    /// Time when the operation ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Edit of the configuration file: `config/modules.yaml:17 enabled: false -> true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_line: Option<String>,
    /// Kind of the failure, if the operation failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ProblemCode>,
    /// Remedy for the failure, one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// State of an [`Operation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Operation that is still running.
    Pending,
    /// Operation that succeeded.
    Done,
    /// Operation that failed; the previous state stays in force.
    Failed,
}

/// Time to wait for the end of an operation before its state is returned, in milliseconds; 0 to
/// return at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitQuery {
    /// Time to wait, in milliseconds, at most 60 000.
    pub wait_ms: u64,
}

/// Commands of a module on the command line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModuleCommands {
    /// Name of the module.
    pub module: String,
    /// Name of the command: `usage`.
    pub command: String,
    /// Other names of the command, including the module's name.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Description, one line.
    #[serde(default)]
    pub about: String,
    /// Command that runs if none is given.
    #[serde(default)]
    pub default_command: Option<String>,
    /// Exit code if that command does not answer; `null` for the usual ones.
    #[serde(default)]
    pub failure_exit_code: Option<u8>,
    /// Commands of the module.
    pub commands: Vec<CommandDescription>,
}

/// One line of a command's output: a [`module_sdk::Frame`], or the error that ended the command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandItem {
    /// Progress of the command.
    Progress {
        /// Amount of work done.
        done: u64,
        /// Total amount of work, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// Unit of the amounts.
        unit: String,
    },
    /// A part of the output.
    Chunk(String),
    /// Final reply of the command.
    Reply(Reply),
    /// Error that ended the command.
    Error(Problem),
}

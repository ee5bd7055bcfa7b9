//! The control API in types: what `lodestard` answers on its socket and `lodestar` reads.
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
//! | `GET /v1/operations/{id}`, [`WaitQuery`] | [`Operation`] |
//! | `GET /v1/module_commands` | `[`[`ModuleCommands`]`]` of the running modules |
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

/// Why a request failed (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Always `about:blank`: [`code`](Self::code) says what a program needs.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// The code in words.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// One sentence for a person: the thing and what is wrong with it.
    pub detail: String,
    /// What kind of failure it is.
    pub code: ProblemCode,
    /// What to do about it, one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

impl Problem {
    /// A problem with the title and the status of its code.
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

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Returns the last step of what helps a module that failed: starting it alone would only fail
/// again.
#[must_use]
pub fn once_mended(module: &str) -> String {
    format!("once that is mended, `lodestar modules enable {module}` starts it again")
}

/// The kinds of [`Problem`]. One that this version does not know reads as `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// There is no such module, command, operation or event.
    NotFound,
    /// It is not allowed, or what it would start is not acceptable (ABI, permission).
    Refused,
    /// What was sent does not fit: arguments, configuration.
    Invalid,
    /// Another operation on the same thing is under way.
    Busy,
    /// The deadline passed.
    Timeout,
    /// Not now: the module does not run, the database is locked, the disk is full.
    Unavailable,
    /// It did not work.
    #[serde(other)]
    Failed,
}

impl ProblemCode {
    /// The HTTP status that goes with it.
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

/// The daemon answers.
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
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Its CPU time in milliseconds, modules in it included.
    #[serde(default)]
    pub cpu_ms: u64,
    /// Its resident memory in bytes, modules in it included.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Its threads.
    #[serde(default)]
    pub threads: u64,
    /// The configuration file.
    pub config_path: String,
    /// What is wrong with that file as it lies on the disk; the daemon then goes on with the one
    /// before. `null` when it is what runs.
    #[serde(default)]
    pub config_error: Option<String>,
    /// What is wrong with the daemon itself or with what lies around it, as long as it is.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// The state directory.
    #[serde(default)]
    pub state_dir: String,
    /// Whether the event ledger can be written.
    #[serde(default)]
    pub ledger: LedgerStatus,
    /// The daemon's own listeners (`metrics`); a module's are in its entry.
    pub listeners: Vec<Listener>,
    /// What happens on the daemon's own listeners and the control socket.
    #[serde(default)]
    pub connections: Vec<Connections>,
    /// The modules that the configuration names or the module path holds.
    pub modules: Vec<Module>,
}

/// Something that is wrong and stops nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What it is about, a word or two: `watching`, `permissions`, `pseudonym key`.
    pub name: String,
    /// What is wrong, one sentence.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// `metrics`, `http`.
    pub name: String,
    /// The address in use, `127.0.0.1:4318`; `null` when it could not be bound.
    pub address: Option<String>,
    /// Why it has no address, with the holder of the port where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A module as it is now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its version; `null` where no library was found.
    pub version: Option<String>,
    /// What the configuration asks: `enabled`, `disabled`, `removed`.
    pub desired: String,
    /// What is so: `absent`, `verified`, `loading`, `running`, `degraded`, `draining`, `stopped`,
    /// `stalled`, `reloading`, `backoff`, `failed`, `quarantined`, `incompatible`.
    pub state: String,
    /// Why it is not running, in words; `null` while it runs.
    pub reason: Option<String>,
    /// `in_process` or `process`.
    pub isolation: String,
    /// The number of the generation that runs or ran last, 0 for none.
    pub generation: u64,
    /// How it says it is.
    pub health: ModuleHealth,
    /// Its counters, events since it was first enabled.
    pub events: EventCounters,
    /// How often it was started again after a failure.
    pub restarts: u64,
    /// CPU time in milliseconds since the daemon started: of its threads in the daemon and of its
    /// processes, those that have ended too.
    pub cpu_ms: u64,
    /// Memory that it has allocated, or that its process has resident, in bytes; 0 while it does
    /// not run.
    pub memory_bytes: u64,
    /// Its threads in the daemon, or those of its process.
    #[serde(default)]
    pub threads: u64,
    /// For how long the oldest event that waits for it has waited, in milliseconds; 0 for none.
    #[serde(default)]
    pub lag_ms: u64,
    /// The dropped events by reason: `overflow`, `retention`, `failed`, `stopped`, `restart`,
    /// `lost`, `purged`.
    #[serde(default)]
    pub dropped_by: BTreeMap<String, u64>,
    /// Its calls since the daemon started, by kind.
    #[serde(default)]
    pub calls: Vec<CallFigures>,
    /// Its calls of the last half to whole minute.
    #[serde(default)]
    pub recent: RecentCalls,
    /// Its listening sockets.
    pub listeners: Vec<Listener>,
}

/// How a module says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleHealth {
    /// `ok`, `degraded`, `failed`; `unknown` while it does not run.
    pub status: String,
    /// A sentence, may be empty.
    pub message: String,
}

/// The counters of a subscriber: `accepted = handled + dead + dropped + pending`, always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounters {
    /// Accepted for it.
    pub accepted: u64,
    /// Handled by it.
    pub handled: u64,
    /// Set aside after too many failures.
    pub dead: u64,
    /// Lost to a full inbox (live events) or to retention.
    pub dropped: u64,
    /// Waiting for it.
    pub pending: u64,
}

/// Everything about one module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// What the list shows.
    #[serde(flatten)]
    pub module: Module,
    /// Why it runs where it runs, half a sentence; `null` where nothing speaks against the daemon.
    #[serde(default)]
    pub isolation_reason: Option<String>,
    /// How many log records a second it may write; `null` where it was never started.
    #[serde(default)]
    pub log_records_per_second: Option<u64>,
    /// One sentence from its manifest.
    #[serde(default)]
    pub description: String,
    /// The file it was loaded from.
    #[serde(default)]
    pub library: Option<String>,
    /// The hash of that file, hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The SDK that it was built with.
    #[serde(default)]
    pub sdk_version: Option<String>,
    /// Its first word on the command line, where that is not its name.
    #[serde(default)]
    pub command: Option<String>,
    /// Topic filters that it listens to.
    #[serde(default)]
    pub subscriptions: Vec<String>,
    /// Topic filters that it may publish.
    #[serde(default)]
    pub publishes: Vec<String>,
    /// The names of its commands.
    #[serde(default)]
    pub commands: Vec<String>,
    /// What it does by the clock.
    #[serde(default)]
    pub timers: Vec<Timer>,
    /// Since when it is in its state.
    #[serde(default)]
    pub since: Option<String>,
    /// Its last failures, newest first.
    #[serde(default)]
    pub last_errors: Vec<ModuleError>,
    /// Its data directory.
    #[serde(default)]
    pub data_dir: Option<String>,
    /// The process that it runs in, where that is its own.
    #[serde(default)]
    pub process: Option<ModuleProcess>,
    /// Generations of its library that are mapped into the daemon, the running one among them.
    #[serde(default)]
    pub resident_generations: u64,
}

/// Something that a module does by the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// The handler.
    pub name: String,
    /// How often, in milliseconds.
    pub every_ms: u64,
    /// The time of day, for one that looks at the calendar so often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<String>,
}

/// A failure of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleError {
    /// When.
    pub time: String,
    /// The handler, command or timer, may be empty.
    #[serde(default)]
    pub place: String,
    /// What happened.
    pub message: String,
}

/// A change of state on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// UUIDv7.
    pub id: String,
    /// `enable`, `disable`, `reload_config`.
    pub kind: String,
    /// The module, where it is about one.
    pub module: Option<String>,
    /// Who asked for it: `user 1000`, `module dashboard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// How far it is.
    pub state: OperationState,
    /// What happened, one sentence; of a failure the reason.
    pub message: String,
    /// When it began.
    pub started_at: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// The edit of the file: `config/modules.yaml:17 enabled: false -> true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_line: Option<String>,
    /// What kind of failure it is, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ProblemCode>,
    /// What to do about the failure, one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// How far an [`Operation`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Under way.
    Pending,
    /// It worked.
    Done,
    /// It did not work; what was before goes on.
    Failed,
}

/// How long to wait for an operation before its state is told, in milliseconds; 0 for not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitQuery {
    /// At most 60 000.
    pub wait_ms: u64,
}

/// What a module answers to on the command line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModuleCommands {
    /// The module.
    pub module: String,
    /// The word: `usage`.
    pub command: String,
    /// Other words for it, the module's name among them.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What it is, one line.
    #[serde(default)]
    pub about: String,
    /// The command that runs when none is given.
    #[serde(default)]
    pub default_command: Option<String>,
    /// Its commands.
    pub commands: Vec<CommandDescription>,
}

/// One line of a command's answer: a [`module_sdk::Frame`], or the error that ended it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandItem {
    /// How far the work is.
    Progress {
        /// What is done.
        done: u64,
        /// What there is to do, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// What is counted.
        unit: String,
    },
    /// A piece of the stream.
    Chunk(String),
    /// The end.
    Reply(Reply),
    /// The end, without an answer.
    Error(Problem),
}

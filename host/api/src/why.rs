//! Types of `/v1/modules/{name}/why`: the state of a module with its history.

use serde::{Deserialize, Serialize};

/// An entry in the history of a module: an event, or a decision of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Time of the entry, RFC 3339 with milliseconds, UTC.
    pub at: String,
    /// Kind of the entry, one word: `runs`, `restarts`, `quarantined`, `refused`, `rolled_back`,
    /// `stalled`, `stopped`, `asked`, `changed`, …
    pub what: String,
    /// Description of the entry, one sentence.
    pub detail: String,
}

/// The state of a module with the reason for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Name of the module.
    pub module: String,
    /// State of the module.
    pub state: String,
    /// Reason for the state, one sentence; empty while all is well.
    pub reason: String,
    /// Time when the state began, RFC 3339 with milliseconds, UTC.
    pub since: String,
    /// Possible remedies, each with its command.
    pub advice: Vec<String>,
    /// History of the module, oldest entry first.
    pub history: Vec<HistoryEntry>,
}

/// The process of a module with `isolation: process`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleProcess {
    /// Process id.
    pub pid: u32,
    /// Number of threads.
    pub threads: u64,
    /// Memory limit in force, in words; `null` for none.
    pub memory_limit: Option<String>,
    /// Limit on processor time in force, in words; `null` for none.
    pub cpu_limit: Option<String>,
    /// Limit on threads and processes in force, in words.
    #[serde(default)]
    pub tasks_limit: String,
    /// Limit on the data directory in force, in words.
    #[serde(default)]
    pub data_limit: String,
    /// Configured limits that no control group enforces, with reason and remedy.
    #[serde(default)]
    pub limits_without_group: Vec<String>,
    /// State of the sandbox, in words.
    pub sandbox: String,
}

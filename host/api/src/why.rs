//! What happened to a module, and where it runs.

use serde::{Deserialize, Serialize};

/// Something that happened to a module, or that the host did about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When, RFC 3339 with milliseconds, UTC.
    pub at: String,
    /// What, in a word: `runs`, `restarts`, `quarantined`, `refused`, `rolled_back`, `stalled`,
    /// `stopped`, `asked`, `changed`, …
    pub what: String,
    /// The whole of it, in a sentence.
    pub detail: String,
}

/// Why a module is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The module.
    pub module: String,
    /// What it is doing.
    pub state: String,
    /// Why, in a sentence; empty while all is well.
    pub reason: String,
    /// Since when, RFC 3339 with milliseconds, UTC.
    pub since: String,
    /// What can be done, each with the command that does it.
    pub advice: Vec<String>,
    /// What happened, oldest first.
    pub history: Vec<HistoryEntry>,
}

/// The process of a module with `isolation: process`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleProcess {
    /// Its number.
    pub pid: u32,
    /// Its threads.
    pub threads: u64,
    /// Which limit on its memory is in force, in words; `null` for none.
    pub memory_limit: Option<String>,
    /// Which limit on its time on the processors is in force, in words; `null` for none.
    pub cpu_limit: Option<String>,
    /// Which limit on its threads and processes is in force, in words.
    #[serde(default)]
    pub tasks_limit: String,
    /// Which limit on its data directory is in force, in words.
    #[serde(default)]
    pub data_limit: String,
    /// Each limit that was asked for and that no control group holds, with the reason and what to
    /// do.
    #[serde(default)]
    pub limits_without_group: Vec<String>,
    /// How far its sandbox holds, in words.
    pub sandbox: String,
}

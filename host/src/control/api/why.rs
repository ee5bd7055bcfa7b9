//! What happened to a module.

use serde::{Deserialize, Serialize};

/// Something that happened to a module, or that the host did about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chapter {
    /// When, RFC 3339 with milliseconds, UTC.
    pub at: String,
    /// What, in a word: `runs`, `panicked`, `quarantined`, `refused`, `rolled_back`, `stalled`,
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
    pub story: Vec<Chapter>,
}

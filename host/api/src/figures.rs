//! How the event ledger fares, and what a module does with its time.

use serde::{Deserialize, Serialize};

/// How the event ledger fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerStatus {
    /// Why the last write failed, one sentence; `null` when it did not. No ledger event is accepted
    /// while it stands.
    pub trouble: Option<String>,
    /// What helps against it; `null` where there is no trouble.
    pub remedy: Option<String>,
    /// Writes that failed since the daemon started.
    pub failed_writes: u64,
    /// How much it keeps on disk, in bytes.
    pub bytes: u64,
    /// What it was found to have lost in the last seven days, oldest first.
    pub losses: Vec<LedgerLoss>,
}

/// Something that the event ledger lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerLoss {
    /// When it was found, RFC 3339.
    pub found: String,
    /// In which file of the ledger.
    pub file: String,
    /// `damaged`, `cut`, `missing`, `unreadable`, `subscriptions`, `copy` or `dead_letters`.
    pub kind: String,
    /// The sequence of the first event that it is about; 0 where it is not about single events.
    pub first: u64,
    /// The sequence of the last event that may be among them; how many were lost, for dead letters.
    pub last: u64,
    /// Others may have come behind `last`: lodestard was killed, and its last note of where the
    /// ledger ended is older than that.
    pub at_least: bool,
    /// Perhaps not all of these were there.
    pub at_most: bool,
    /// What happened, one sentence.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// The calls of one kind since the daemon started. Percentiles are right within 1/64.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallFigures {
    /// `events`, `command`, `timer`, `health`.
    pub kind: String,
    /// How many calls.
    pub calls: u64,
    /// Events that were handed over in them; of other kinds the calls.
    pub items: u64,
    /// Calls that failed.
    pub failures: u64,
    /// How long all of them took, in nanoseconds.
    pub total_ns: u64,
    /// Half of them took at most this long, in nanoseconds; `null` when there was none.
    pub p50_ns: Option<u64>,
    /// 99 of 100 took at most this long, in nanoseconds.
    pub p99_ns: Option<u64>,
    /// The longest one, in nanoseconds.
    pub max_ns: u64,
}

/// The calls of a module within the last half to whole minute, of all kinds but `health`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecentCalls {
    /// How many.
    pub calls: u64,
    /// Half of them took at most this long, in nanoseconds; `null` when there was none.
    pub p50_ns: Option<u64>,
    /// 99 of 100 took at most this long, in nanoseconds.
    pub p99_ns: Option<u64>,
}

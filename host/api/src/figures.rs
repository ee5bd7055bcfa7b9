//! State of the event ledger and statistics of modules' calls.

use serde::{Deserialize, Serialize};

/// State of the event ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerStatus {
    /// Error of the last write, one sentence; `null` if it succeeded. No ledger event is accepted
    /// as long as it is set.
    pub trouble: Option<String>,
    /// Remedy for the error; `null` if there is none.
    pub remedy: Option<String>,
    /// Number of failed writes since the daemon started.
    pub failed_writes: u64,
    /// Size of the ledger on disk, in bytes.
    pub bytes: u64,
    /// Losses found in the last seven days, oldest first.
    pub losses: Vec<LedgerLoss>,
}

/// Something that the event ledger lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerLoss {
    /// Time when the loss was found, RFC 3339.
    pub found: String,
    /// File of the ledger.
    pub file: String,
    /// Kind of loss: `damaged`, `cut`, `missing`, `unreadable`, `subscriptions`, `copy` or
    /// `dead_letters`.
    pub kind: String,
    /// Sequence of the first event concerned; 0 if the loss is not about single events.
    pub first: u64,
    /// Sequence of the last event that may be lost; for dead letters, the number lost.
    pub last: u64,
    /// `true` if events after `last` may be lost as well: lodestard was killed, and its last record
    /// of the ledger's end is older than that.
    pub at_least: bool,
    /// `true` if not all events of the range may have existed.
    pub at_most: bool,
    /// Description of the loss, one sentence.
    pub what: String,
    /// Remedy for the loss.
    pub remedy: String,
}

/// The calls of one kind since the daemon started. Percentiles are right within 1/64.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallFigures {
    /// Kind of call: `events`, `command`, `timer` or `health`.
    pub kind: String,
    /// Number of calls.
    pub calls: u64,
    /// Number of events delivered in the calls; for other kinds the number of calls.
    pub items: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Total duration of the calls, in nanoseconds.
    pub total_ns: u64,
    /// Median duration, in nanoseconds; `null` if there was no call.
    pub p50_ns: Option<u64>,
    /// 99th percentile of the duration, in nanoseconds.
    pub p99_ns: Option<u64>,
    /// Duration of the longest call, in nanoseconds.
    pub max_ns: u64,
}

/// The calls of a module within the last half to whole minute, of all kinds but `health`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecentCalls {
    /// Number of calls.
    pub calls: u64,
    /// Median duration, in nanoseconds; `null` if there was no call.
    pub p50_ns: Option<u64>,
    /// 99th percentile of the duration, in nanoseconds.
    pub p99_ns: Option<u64>,
}

//! `/v1/events` in types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EventCounters;

/// An event in the form of CloudEvents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// `1.0`.
    pub specversion: String,
    /// UUIDv7.
    pub id: String,
    /// `/lodestar/<module>`, or `//<node>/…` of one that was published elsewhere.
    pub source: String,
    /// The topic.
    #[serde(rename = "type")]
    pub topic: String,
    /// When it happened.
    pub time: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The payload; of the text of requests only its size, `{"bytes": …}`, unless asked for.
    pub data: Value,
    /// Its number in the ledger, or among the live events of this run of the daemon.
    pub sequence: u64,
    /// `ledger` or `live`.
    pub class: String,
}

/// Which events to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TailQuery {
    /// A topic filter; every event where it is absent.
    pub filter: Option<String>,
    /// Whether to show the text of `llm.request.content`; its size where it is false.
    pub content: bool,
}

/// One line of a tail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TailItem {
    /// Events were left out, since the reader was too slow.
    Skipped {
        /// How many since the line before.
        skipped: u64,
    },
    /// An event.
    Event(Box<Envelope>),
}

/// How far a subscriber is behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// The module.
    pub module: String,
    /// Accepted for it.
    pub accepted: u64,
    /// Handled by it.
    pub handled: u64,
    /// Set aside after too many failures.
    pub dead: u64,
    /// Dropped, by reason (`overflow`, `retention`).
    pub dropped: BTreeMap<String, u64>,
    /// Waiting for it.
    pub pending: u64,
    /// How old the oldest waiting event is; `null` when none waits.
    pub oldest_pending_ms: Option<u64>,
    /// The state of the module.
    pub state: String,
}

/// Whose dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadQuery {
    /// Of one module; of all where it is absent.
    pub module: Option<String>,
}

/// An event that a module could not handle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The module.
    pub module: String,
    /// The event.
    pub event: Envelope,
    /// What the last attempt met.
    pub reason: String,
    /// How many attempts there were.
    pub attempts: u32,
    /// When the last one failed.
    pub failed_at: String,
}

/// Which events to deliver again: dead letters, or with `since` what the ledger still keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// To which module.
    pub module: String,
    /// The ids of the events; all of the module's where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// Not dead letters, but every kept event accepted from then on (RFC 3339), those before the
    /// module's subscription among them. They count as newly accepted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// With `since`: accepted before then (RFC 3339); now where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What became of a [`Replay`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// How many events wait again.
    pub replayed: u64,
    /// Of a replay by time: when the oldest event that the ledger keeps was accepted; `null` when
    /// it keeps none. The ledger deletes what every module has settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_since: Option<String>,
}

/// The counters of a subscriber beside a recount of what waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// The module.
    pub module: String,
    /// Its counters.
    #[serde(flatten)]
    pub counters: EventCounters,
    /// What waits, counted again in the ledger and the inbox.
    pub recounted_pending: u64,
    /// Whether `accepted = handled + dead + dropped + recounted_pending`.
    pub balanced: bool,
    /// More may be lost than `dropped` has: a loss of the ledger in the last seven days is told as
    /// "at least".
    #[serde(default)]
    pub at_least: bool,
}

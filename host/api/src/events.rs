//! Types of `/v1/events`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EventCounters;

/// An event in the form of CloudEvents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Version of CloudEvents: `1.0`.
    pub specversion: String,
    /// Id of the event, a UUIDv7.
    pub id: String,
    /// `/lodestar/<module>`, or `//<node>/…` for an event that was published by another daemon.
    pub source: String,
    /// The topic.
    #[serde(rename = "type")]
    pub topic: String,
    /// Time of the event.
    pub time: String,
    /// Subject of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The payload; of the text of requests only its size, `{"bytes": …}`, unless asked for.
    pub data: Value,
    /// Number of the event in the ledger, or among the live events of this run of the daemon.
    pub sequence: u64,
    /// `ledger` or `live`.
    pub class: String,
}

/// Selection of the events to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TailQuery {
    /// Topic filter; every event if absent.
    pub filter: Option<String>,
    /// `true` to show the text of `llm.request.content`; `false` to show only its size.
    pub content: bool,
}

/// One line of a tail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TailItem {
    /// Events that were left out because the reader was too slow.
    Skipped {
        /// Number of events left out since the line before.
        skipped: u64,
    },
    /// An event.
    Event(Box<Envelope>),
}

/// Backlog of a subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// The module.
    pub module: String,
    /// Events accepted for the module.
    pub accepted: u64,
    /// Events handled by the module.
    pub handled: u64,
    /// Events dead-lettered after too many failures.
    pub dead: u64,
    /// Events dropped, by reason as in [`Module::dropped_by`](super::Module::dropped_by).
    pub dropped: BTreeMap<String, u64>,
    /// Events that wait for the module.
    pub pending: u64,
    /// Age of the oldest waiting event; `null` if none waits.
    pub oldest_pending_ms: Option<u64>,
    /// The state of the module.
    pub state: String,
}

/// Selection of dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadQuery {
    /// Module whose dead letters to return; all modules if absent.
    pub module: Option<String>,
}

/// An event that a module could not handle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The module.
    pub module: String,
    /// The event.
    pub event: Envelope,
    /// Error of the last attempt.
    pub reason: String,
    /// Number of attempts.
    pub attempts: u32,
    /// Time of the last failure.
    pub failed_at: String,
}

/// Selection of events to deliver again: dead letters, or with `since` events that the ledger still
/// keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Module to deliver to.
    pub module: String,
    /// Ids of the events; all events of the module if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// Start (RFC 3339) of a replay from the ledger instead of the dead letters: every kept event
    /// accepted from then on, including those before the module's subscription. They count as newly
    /// accepted for the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// End (RFC 3339) of a replay with `since`, exclusive; now if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Result of a [`Replay`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Number of events queued again.
    pub replayed: u64,
    /// For a replay by time: time when the oldest event in the ledger was accepted; `null` if the
    /// ledger has none. The ledger deletes events that every module has settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_since: Option<String>,
}

/// The counters of a subscriber with a recount of the waiting events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// The module.
    pub module: String,
    /// Counters of the module.
    #[serde(flatten)]
    pub counters: EventCounters,
    /// Number of waiting events, counted again in the ledger and the inbox.
    pub recounted_pending: u64,
    /// `true` if `accepted = handled + dead + dropped + recounted_pending`.
    pub balanced: bool,
    /// `true` if more events may be lost than `dropped` counts: a loss of the ledger in the last
    /// seven days is reported as "at least".
    #[serde(default)]
    pub at_least: bool,
}

//! The event bus: delivery of events to subscribers, and counters that prove it.
//!
//! A publisher calls [`Bus::publish`]. A live event goes straight into the inbox of every running
//! subscriber; a ledger event goes through the ledger's writer first, so that it survives before
//! it counts as accepted. A module's thread takes from its [`Inbox`] and settles what it took.
//!
//! Promises, kept for each subscriber by its own lock and checked by [`Bus::audit`]:
//!
//! * `accepted = handled + dead + dropped + pending` at every moment;
//! * ledger events are settled in the order of the ledger, without holes, so that one number says
//!   how far a subscriber has come;
//! * events of one publisher and topic are delivered in the order in which they were published;
//! * a subscriber that is slow or stopped delays neither publishers nor other subscribers: beyond
//!   its memory, its ledger events wait on disk.

mod core;
mod counters;
mod dead_letters;
mod inbox;
mod ledger;
mod maintenance;
mod publish;
mod queue;
mod recover;
mod replay;
mod retry;
mod routes;
mod spares;
mod subscriber;
mod tail;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use crate::ledger::{
    Counts, DeadLetter, DropReason, Dropped, Durability, Event, Extent, LedgerError, LedgerHealth,
    LedgerTrouble, Loss, LossKind, PublishError, RareText, SharedEvent,
};
pub use core::{Accepted, Bus, SubscribeError};
pub use counters::{AuditRow, Counters};
pub use inbox::{Delivery, Failure, FailureKind, Inbox, Woken};
pub use publish::NewEvent;
pub use replay::{ReplayError, Replayed};
pub use subscriber::{Mark, Waker};
pub use tail::{Tail, Tailed};

/// Configuration of the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusConfig {
    /// Time for which a ledger event waits for a subscriber, in hours after the newest event beside
    /// it.
    pub retention_hours: u64,
    /// Largest size of the ledger on disk, in bytes.
    pub max_bytes: u64,
    /// Durability of accepted ledger events.
    pub durability: Durability,
    /// Number of events of each class that wait in a module's memory. Beyond it, or beyond 4 KiB
    /// for each of that number, live events push the oldest out and ledger events wait on disk.
    pub inbox_events: usize,
    /// The size at which a file of the ledger is sealed, in bytes.
    pub segment_bytes: u64,
    /// Space on the disk that is reserved for the counters, in bytes, and at most 1/64 of the disk.
    pub reserve_bytes: u64,
    /// Time for which a failed event waits before it comes again, after its 1st to 4th failure.
    /// After the 5th it becomes a dead letter.
    pub retry_after: [Duration; 4],
    /// The longest wait of a module that is not available; it begins with `retry_after[0]` and
    /// doubles.
    pub unavailable_max: Duration,
}

impl Default for BusConfig {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            retention_hours: 168,
            max_bytes: 1 << 30,
            durability: Durability::Process,
            inbox_events: 8192,
            segment_bytes: 16 << 20,
            reserve_bytes: 32 << 20,
            retry_after: [ms(10), ms(100), ms(500), ms(2000)],
            unavailable_max: Duration::from_secs(30),
        }
    }
}

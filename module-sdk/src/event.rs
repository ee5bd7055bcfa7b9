//! Events that a module receives and publishes.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// The most bytes that the payload of an event may have, as JSON.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// Guarantee with which an event is kept until its subscribers have handled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Written to the ledger before it counts as accepted; redelivered until it is handled.
    Ledger,
    /// Kept in bounded memory; the oldest is dropped, and counted, when an inbox is full.
    Live,
}

/// A type that travels on the bus as JSON.
///
/// ```
/// use module_sdk::{Class, EventType};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct BuildFinished {
///     commit: String,
/// }
///
/// impl EventType for BuildFinished {
///     const TOPIC: &'static str = "ci.build.finished";
///     const CLASS: Class = Class::Live;
/// }
/// ```
pub trait EventType: Serialize + DeserializeOwned {
    /// Topic, or the filter that covers every topic of the type (`lynex.*`).
    const TOPIC: &'static str;
    /// Class of the events.
    const CLASS: Class;

    /// Returns the topic of this very event.
    fn topic(&self) -> Cow<'_, str> {
        Cow::Borrowed(Self::TOPIC)
    }

    /// Returns the subject of the event, CloudEvents `subject`.
    fn subject(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// Returns the time of the event, where that is not now.
    fn time(&self) -> Option<Timestamp> {
        None
    }
}

/// Room for the JSON of an event from the start: most need not grow it.
const ROOM: usize = 1024;

/// Returns an event as JSON.
pub(crate) fn encoded<T: EventType>(event: &T) -> crate::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(ROOM);
    serde_json::to_writer(&mut data, event)?;
    Ok(data)
}

/// An event that was published elsewhere, as [`Host::relay`](crate::Host::relay) takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayedEvent<'a> {
    /// Id that it has there (UUIDv7). It is handled once, however often it is relayed.
    pub id: Uuid,
    /// Time of the event there.
    pub time: Timestamp,
    /// Daemon and module that published it there: `//laptop-1/lodestar/ingest`. It becomes the
    /// source of the event, and no module of this daemon has one that begins with two slashes.
    pub origin: &'a str,
    /// The dotted topic.
    pub topic: &'a str,
    /// Class of the event.
    pub class: Class,
    /// Subject of the event, empty for none.
    pub subject: &'a str,
    /// The W3C trace context, empty for none.
    pub traceparent: &'a str,
    /// The payload, JSON.
    pub data: &'a [u8],
}

/// An event on its way to a handler.
#[derive(Debug, Clone)]
pub struct Event<'a, T> {
    /// Id that the host assigned, unique for ever (UUIDv7): the key against double handling.
    pub id: Uuid,
    /// Time of the event.
    pub time: Timestamp,
    /// Number of the delivery: 1 for the first, more for each redelivery.
    pub attempt: u32,
    /// The dotted topic.
    pub topic: &'a str,
    /// Module that emitted it, `/lodestar/<module>`; for a relayed event its
    /// [origin](RelayedEvent::origin).
    pub source: &'a str,
    /// Subject of the event, empty for none.
    pub subject: &'a str,
    /// The W3C trace context, empty for none.
    pub traceparent: &'a str,
    /// The payload.
    pub data: T,
}

//! Events: what a module hears and what it says.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// The most bytes that the payload of an event may have, as JSON.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// How an event is kept until its subscribers have handled it.
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
    /// The topic, or the filter that covers every topic of the type (`lynex.*`).
    const TOPIC: &'static str;
    /// How it is kept.
    const CLASS: Class;

    /// The topic of this very event.
    fn topic(&self) -> Cow<'_, str> {
        Cow::Borrowed(Self::TOPIC)
    }

    /// What the event is about, CloudEvents `subject`.
    fn subject(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// When it happened, where that is not now.
    fn time(&self) -> Option<Timestamp> {
        None
    }
}

/// An event that was published elsewhere, as [`Host::relay`](crate::Host::relay) takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayedEvent<'a> {
    /// The id that it has there (UUIDv7). It is handled once, however often it is relayed.
    pub id: Uuid,
    /// When it happened there.
    pub time: Timestamp,
    /// Where, and who published it there: `//laptop-1/lodestar/ingest`. It becomes the source of
    /// the event, and no module of this daemon has one that begins with two slashes.
    pub origin: &'a str,
    /// The dotted topic.
    pub topic: &'a str,
    /// How it is kept.
    pub class: Class,
    /// What it is about, empty for nothing.
    pub subject: &'a str,
    /// The W3C trace context, empty for none.
    pub traceparent: &'a str,
    /// The payload, JSON.
    pub data: &'a [u8],
}

/// An event on its way to a handler.
#[derive(Debug, Clone)]
pub struct Event<'a, T> {
    /// The id that the host gave, unique for ever (UUIDv7): the key against double handling.
    pub id: Uuid,
    /// When it happened.
    pub time: Timestamp,
    /// 1 on first delivery, more on each redelivery.
    pub attempt: u32,
    /// The dotted topic.
    pub topic: &'a str,
    /// Who emitted it, `/lodestar/<module>`; for a relayed one its [origin](RelayedEvent::origin).
    pub source: &'a str,
    /// What it is about, empty for nothing.
    pub subject: &'a str,
    /// The W3C trace context, empty for none.
    pub traceparent: &'a str,
    /// The payload.
    pub data: T,
}

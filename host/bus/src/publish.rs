//! Conversion of what a publisher hands in to an event with an id.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use module_sdk::{Class, MAX_EVENT_BYTES};
use uuid::Uuid;

use crate::ledger::{Event, PublishError};

/// Largest size of a source, subject or trace context, in bytes.
const MAX_TEXT_BYTES: usize = 4096;
const MAX_TOPIC_BYTES: usize = 256;
const MAX_TOPIC_PARTS: usize = 16;

/// An event on its way to the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The id that it has where it was published before; `None` for a new event.
    pub id: Option<Uuid>,
    /// Class of the event, which decides how it is kept.
    pub class: Class,
    /// Time when the event happened, in nanoseconds since the Unix epoch; 0 for now.
    pub time_ns: u64,
    /// The dotted topic.
    pub topic: Arc<str>,
    /// Source of the event, `/lodestar/<module>`; `//<node>/…` where it was published before.
    pub source: Arc<str>,
    /// Subject of the event, empty for none.
    pub subject: Box<str>,
    /// The W3C trace context, empty for none.
    pub traceparent: Box<str>,
    /// The payload, JSON.
    pub data: Box<[u8]>,
}

impl NewEvent {
    /// Checks that the event is no larger than the bus carries.
    pub(super) fn check(&self) -> Result<(), PublishError> {
        let too_large = |bytes, limit| {
            Err(PublishError::TooLarge { topic: self.topic.to_string(), bytes, limit })
        };
        if self.data.len() > MAX_EVENT_BYTES {
            return too_large(self.data.len(), MAX_EVENT_BYTES);
        }
        for text in [&*self.source, &*self.subject, &*self.traceparent] {
            if text.len() > MAX_TEXT_BYTES {
                return too_large(text.len(), MAX_TEXT_BYTES);
            }
        }
        Ok(())
    }
}

/// Generator of the ids of events and the numbers of live events.
#[derive(Debug)]
pub(super) struct Ids {
    random: AtomicU64,
    live: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        // The low 62 bits of a UUIDv7 are random.
        let (_, seed) = Uuid::now_v7().as_u64_pair();
        Self { random: AtomicU64::new(seed), live: AtomicU64::new(0) }
    }

    /// Returns the number of the next live event.
    pub(super) fn live_sequence(&self) -> u64 {
        self.live.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns a UUIDv7 (RFC 9562 §5.7): milliseconds, then a 12-bit fraction of the millisecond
    /// (§6.2, method 3), then 62 bits from a generator that was seeded by the system.
    fn id(&self, now_ns: u64) -> Uuid {
        let ms = now_ns / 1_000_000;
        let fraction = (now_ns % 1_000_000) * 4096 / 1_000_000;
        let high = ms << 16 | 0x7000 | fraction;
        let step = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let low = mix(step) & (u64::MAX >> 2) | 0x8000_0000_0000_0000;
        Uuid::from_u64_pair(high, low)
    }

    /// Creates an event from what a publisher handed in.
    pub(super) fn event(&self, new: NewEvent, sequence: u64, now_ns: u64) -> Event {
        Event {
            id: new.id.unwrap_or_else(|| self.id(now_ns)),
            time_ns: if new.time_ns == 0 { now_ns } else { new.time_ns },
            sequence,
            class: new.class,
            topic: new.topic,
            source: new.source,
            subject: new.subject.into(),
            traceparent: new.traceparent.into(),
            data: new.data,
        }
    }
}

/// Returns the output step of SplitMix64 (Steele, Lea, Flood 2014), which spreads a counter over 64
/// bits.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Returns the time in nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Checks whether a text is a topic.
pub(super) fn is_topic(topic: &str) -> bool {
    topic.len() <= MAX_TOPIC_BYTES
        && topic.split('.').count() <= MAX_TOPIC_PARTS
        && topic.split('.').all(is_part)
}

/// Checks whether a text is a filter: a topic in which `*` stands for one part and a last `>` for
/// more.
pub(super) fn is_filter(filter: &str) -> bool {
    let parts: Vec<&str> = filter.split('.').collect();
    filter.len() <= MAX_TOPIC_BYTES
        && parts.len() <= MAX_TOPIC_PARTS
        && parts.iter().enumerate().all(|(index, part)| {
            is_part(part) || *part == "*" || *part == ">" && index + 1 == parts.len()
        })
}

fn is_part(part: &str) -> bool {
    let known =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    !part.is_empty() && part.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn topics_and_filters() {
        let deep = ["a"; 17].join(".");
        let long = "a".repeat(257);
        for (text, topic, filter) in [
            ("llm.request.completed", true, true),
            ("a", true, true),
            ("tool-use.v_2", true, true),
            ("llm.*", false, true),
            ("*.request", false, true),
            ("llm.>", false, true),
            (">", false, true),
            (">.llm", false, false),
            ("llm*", false, false),
            ("llm..x", false, false),
            (".llm", false, false),
            ("", false, false),
            ("LLM", false, false),
            ("a b", false, false),
            (deep.as_str(), false, false),
            (long.as_str(), false, false),
        ] {
            assert_eq!((is_topic(text), is_filter(text)), (topic, filter), "{text}");
        }
    }

    #[test]
    fn ids_are_version_7_ordered_by_time_and_never_twice() {
        let ids = Ids::new();
        let mut seen = HashSet::new();
        let start = now_ns();
        for step in 0..10_000 {
            let id = ids.id(start + step * 1_000);
            assert_eq!(id.get_version_num(), 7);
            assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
            assert!(seen.insert(id));
        }
        assert!(ids.id(start) < ids.id(start + 1_000_000));
        let again = Ids::new();
        assert!(seen.insert(again.id(start)));
    }
}

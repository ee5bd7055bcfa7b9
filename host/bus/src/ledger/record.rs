//! One event, in memory and on disk.
//!
//! On disk, all numbers little-endian:
//!
//! ```text
//! length u32 · crc32 of the payload u32 · crc32 of both, salted u32 · payload
//! payload: sequence u64 · id 16 bytes · time_ns u64 · audience u8
//!          · lengths u16 × 5 (module, topic, source, subject, traceparent) · their text · data
//! ```
//!
//! Dead letters and segments of format 1 have no salted checksum.

use std::sync::Arc;

use module_sdk::Class;
use uuid::Uuid;

/// Largest length of a record, in bytes: a larger one is taken for damage.
pub(crate) const MAX_RECORD_BYTES: usize = 8 << 20;
const FIXED_BYTES: usize = 8 + 16 + 8 + 1 + 5 * 2;
/// Smallest size of a record in a segment, in bytes.
pub(crate) const MIN_RECORD_BYTES: u64 = (Framing::Plain.bytes() + FIXED_BYTES) as u64;

/// Prefix of the records of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The length of the payload and its checksum.
    Plain,
    /// The same and a checksum of both, seeded with the salt of the file: no payload can hold bytes
    /// that look like the beginning of a record, and a beginning is recognised without reading the
    /// payload.
    Salted(u32),
}

impl Framing {
    /// Returns the size of the prefix before a payload, in bytes.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Plain => 8,
            Self::Salted(_) => 12,
        }
    }

    /// Returns the length of the payload and its checksum, or `None` where no record can begin.
    pub(crate) fn prefix(self, bytes: &[u8]) -> Option<(usize, u32)> {
        let prefix = bytes.get(..self.bytes())?;
        let (length, rest) = prefix.split_first_chunk::<4>()?;
        let (crc, check) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        if !(FIXED_BYTES..=MAX_RECORD_BYTES).contains(&length) {
            return None;
        }
        let fits = match self {
            Self::Plain => true,
            Self::Salted(salt) => check == salted(salt, &prefix[..8]).to_le_bytes(),
        };
        fits.then(|| (length, u32::from_le_bytes(*crc)))
    }
}

fn salted(salt: u32, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(salt);
    crc.update(bytes);
    crc.finalize()
}

/// A text that is empty more often than not. It is a pointer, so that an event alone, with the
/// counts of its references, takes 120 bytes: up to here glibc frees what another thread allocated
/// without a lock. Publishers would wait for it as often as handlers let go of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RareText(Option<Box<Box<str>>>);

impl From<Box<str>> for RareText {
    fn from(text: Box<str>) -> Self {
        Self((!text.is_empty()).then(|| Box::new(text)))
    }
}

impl From<&str> for RareText {
    fn from(text: &str) -> Self {
        Box::<str>::from(text).into()
    }
}

impl std::ops::Deref for RareText {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_deref().map_or("", |text| text)
    }
}

/// An event that was accepted, shared by all who get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unique id (UUIDv7: its first 48 bits are the milliseconds of acceptance).
    pub id: Uuid,
    /// Time when the event happened, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Place in the ledger, from 1; of a live event, a count since the daemon started, from 1.
    pub sequence: u64,
    /// Class of the event: ledger or live.
    pub class: Class,
    /// The dotted topic.
    pub topic: Arc<str>,
    /// Source of the event, `/lodestar/<module>`; where it was published elsewhere, `//<node>/…`.
    pub source: Arc<str>,
    /// Subject of the event, empty for none.
    pub subject: RareText,
    /// The W3C trace context, empty for none.
    pub traceparent: RareText,
    /// The payload, JSON.
    pub data: Box<[u8]>,
}

const _: () = assert!(size_of::<Event>() + 2 * size_of::<usize>() <= 120, "see `RareText`");

impl Event {
    /// Returns when the bus accepted the event, in milliseconds since the Unix epoch; for an event
    /// that was published elsewhere, when the bus there did.
    #[must_use]
    pub fn accepted_ms(&self) -> u64 {
        id_ms(self.id)
    }

    /// Returns whether the event was published elsewhere.
    pub(crate) fn is_relayed(&self) -> bool {
        is_elsewhere(&self.source)
    }

    /// Returns the memory that the event takes in an inbox, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.data.len() + self.subject.len() + self.traceparent.len() + size_of::<Self>()
    }
}

/// An event together with those that were published with it: they share one reference.
#[derive(Debug, Clone)]
pub struct SharedEvent {
    group: Arc<[Event]>,
    index: usize,
}

impl SharedEvent {
    pub(crate) fn new(group: Arc<[Event]>, index: usize) -> Self {
        Self { group, index }
    }

    pub(crate) fn into_parts(self) -> (Arc<[Event]>, usize) {
        (self.group, self.index)
    }
}

impl std::ops::Deref for SharedEvent {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.group[self.index]
    }
}

impl From<Event> for SharedEvent {
    fn from(event: Event) -> Self {
        Self { group: Arc::new([event]), index: 0 }
    }
}

impl PartialEq for SharedEvent {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SharedEvent {}

/// Checks whether a source is that of a relayed event: a module of this daemon has
/// `/lodestar/<module>`.
pub(crate) fn is_elsewhere(source: &str) -> bool {
    source.starts_with("//")
}

/// Returns the milliseconds in a UUIDv7.
fn id_ms(id: Uuid) -> u64 {
    let (high, _) = id.as_u64_pair();
    high >> 16
}

/// Receivers of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Every subscriber whose filters fit.
    Subscribers,
    /// One module, again, from its dead letters.
    DeadLetter(Arc<str>),
    /// One module, again, from the ledger itself.
    Replay(Arc<str>),
}

/// A record as the writer gets it, and as it hands it on.
#[derive(Debug, Clone)]
pub(crate) struct Entry<E = Event> {
    pub(crate) event: E,
    pub(crate) audience: Audience,
}

/// A record as it lies in a buffer.
#[derive(Debug)]
pub(crate) struct RawRecord<'a> {
    pub(crate) sequence: u64,
    pub(crate) id: Uuid,
    pub(crate) time_ns: u64,
    /// The one module it is for, empty for all subscribers.
    pub(crate) module: &'a str,
    /// True when the record was replayed from that module's dead letters.
    pub(crate) from_dead: bool,
    pub(crate) topic: &'a str,
    source: &'a str,
    subject: &'a str,
    traceparent: &'a str,
    data: &'a [u8],
}

/// Appends a record to `out`.
pub(crate) fn encode(event: &Event, audience: &Audience, framing: Framing, out: &mut Vec<u8>) {
    let start = out.len();
    let payload = start + framing.bytes();
    out.resize(payload, 0);
    out.extend_from_slice(&event.sequence.to_le_bytes());
    out.extend_from_slice(event.id.as_bytes());
    out.extend_from_slice(&event.time_ns.to_le_bytes());
    let (kind, module) = match audience {
        Audience::Subscribers => (0, ""),
        Audience::DeadLetter(module) => (1, module.as_ref()),
        Audience::Replay(module) => (2, module.as_ref()),
    };
    out.push(kind);
    let texts = [module, &event.topic, &event.source, &event.subject, &event.traceparent];
    for text in texts {
        let length = u16::try_from(text.len()).expect("publish refuses texts over 65,535 bytes");
        out.extend_from_slice(&length.to_le_bytes());
    }
    for text in texts {
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&event.data);
    let length = u32::try_from(out.len() - payload).expect("an event is far below 4 GiB");
    let crc = crc32fast::hash(&out[payload..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    if let Framing::Salted(salt) = framing {
        let check = salted(salt, &out[start..start + 8]);
        out[start + 8..payload].copy_from_slice(&check.to_le_bytes());
    }
}

impl<'a> RawRecord<'a> {
    /// Decodes a payload whose checksum is right.
    pub(crate) fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut rest = payload;
        let sequence = u64::from_le_bytes(*take(&mut rest)?);
        let id = Uuid::from_bytes(*take(&mut rest)?);
        let time_ns = u64::from_le_bytes(*take(&mut rest)?);
        let [kind] = *take(&mut rest)?;
        let mut lengths = [0; 5];
        for length in &mut lengths {
            *length = usize::from(u16::from_le_bytes(*take(&mut rest)?));
        }
        let mut texts = [""; 5];
        for (text, length) in texts.iter_mut().zip(lengths) {
            let (bytes, after) = rest.split_at_checked(length)?;
            *text = std::str::from_utf8(bytes).ok()?;
            rest = after;
        }
        let [module, topic, source, subject, traceparent] = texts;
        if (kind > 0) == module.is_empty() || kind > 2 {
            return None;
        }
        Some(Self {
            sequence,
            id,
            time_ns,
            module,
            from_dead: kind == 1,
            topic,
            source,
            subject,
            traceparent,
            data: rest,
        })
    }

    /// Returns the event of the record, with data of its own.
    pub(crate) fn to_event(&self) -> Event {
        Event {
            id: self.id,
            time_ns: self.time_ns,
            sequence: self.sequence,
            class: Class::Ledger,
            topic: self.topic.into(),
            source: self.source.into(),
            subject: self.subject.into(),
            traceparent: self.traceparent.into(),
            data: self.data.into(),
        }
    }

    /// Returns when the bus accepted the event, in milliseconds since the Unix epoch.
    pub(crate) fn accepted_ms(&self) -> u64 {
        id_ms(self.id)
    }

    /// Returns whether the event was published elsewhere and is for all subscribers.
    pub(crate) fn is_relayed(&self) -> bool {
        self.module.is_empty() && is_elsewhere(self.source)
    }

    /// Returns the size of the event's data, in bytes.
    pub(crate) const fn data_bytes(&self) -> usize {
        self.data.len()
    }

    /// Returns the size of the record on disk, in bytes.
    pub(crate) const fn disk_bytes(&self) -> usize {
        let texts = self.module.len() + self.topic.len() + self.source.len() + self.subject.len();
        Framing::Salted(0).bytes() + FIXED_BYTES + texts + self.traceparent.len() + self.data.len()
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALTED: Framing = Framing::Salted(7);

    fn event(topic: &str, data: &[u8]) -> Event {
        Event {
            id: Uuid::now_v7(),
            time_ns: 17,
            sequence: 42,
            class: Class::Ledger,
            topic: topic.into(),
            source: "/lodestar/test".into(),
            subject: "größe".into(),
            traceparent: "".into(),
            data: data.into(),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_went() {
        let tracker: Arc<str> = "usage_tracker".into();
        for audience in [
            Audience::Subscribers,
            Audience::DeadLetter(tracker.clone()),
            Audience::Replay(tracker),
        ] {
            for data in [&b""[..], b"{}", &[7; 70_000]] {
                let event = event("a.b", data);
                let mut bytes = Vec::new();
                encode(&event, &audience, SALTED, &mut bytes);
                let (length, crc) = SALTED.prefix(&bytes).expect("a prefix");
                assert_eq!(bytes.len(), SALTED.bytes() + length);
                assert_eq!(crc, crc32fast::hash(&bytes[SALTED.bytes()..]));
                assert_eq!(Framing::Salted(8).prefix(&bytes), None);
                let raw = RawRecord::decode(&bytes[SALTED.bytes()..]).expect("a record");
                assert_eq!(raw.to_event(), event);
                let module = if audience == Audience::Subscribers { "" } else { "usage_tracker" };
                assert_eq!(raw.module, module);
                assert_eq!(raw.disk_bytes(), bytes.len());
                let from_dead = matches!(audience, Audience::DeadLetter(_));
                assert_eq!(raw.from_dead, from_dead);
            }
        }
    }

    #[test]
    fn no_cut_of_a_record_reads_as_one() {
        for framing in [Framing::Plain, SALTED] {
            let mut bytes = Vec::new();
            encode(&event("a.b", b"[1]"), &Audience::Subscribers, framing, &mut bytes);
            let (begin, texts) = (framing.bytes(), bytes.len() - 3);
            for end in begin..texts {
                assert!(RawRecord::decode(&bytes[begin..end]).is_none(), "cut at {end}");
            }
            assert_eq!(framing.prefix(&[0; 12]), None);
            assert_eq!(framing.prefix(&[0xff; 12]), None);
            assert_eq!(framing.prefix(&bytes[..begin - 1]), None);
        }
    }
}

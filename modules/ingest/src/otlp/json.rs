//! A reader of OTLP/JSON, by protobuf's JSON mapping, that writes protobuf.
//!
//! The reader understands what the mapping allows: `null` for any field, numbers as text, names of
//! enum values, names as in the proto files, unknown fields. Anything else that is odd costs its
//! record at most.

use serde::{
    Deserialize as _,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    decoded_size::{allocated, grown},
    refused::{Fit, Misfit, Step},
    rewrite::{MAX_DEPTH, Rewrite, Rewritten, Unreadable},
    scalar::{self, Token},
    schema::{Field, Kind, Message, MessageId, Schema},
};
use crate::{
    json_text,
    server::{BodyError, Share},
};

/// Writes the request in `text` as protobuf; `records` is the message type of its records.
pub(super) fn rewrite(
    text: &str,
    request: MessageId,
    records: MessageId,
    share: &mut Share,
) -> Result<Rewritten, Unreadable> {
    // Skipping what is unknown takes a byte for each bracket that is open.
    let brackets = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    let mut to = Rewrite::new(records, text.len() + brackets, share);
    to.add_size(0)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let fit = Root { to: &mut to, request }.deserialize(&mut json);
    match fit.and_then(|fit| json.end().map(|()| fit)) {
        Ok(Ok(())) => Ok(Rewritten { bytes: to.bytes, refused: to.refused }),
        Ok(Err(_)) => Err(Unreadable::Form),
        Err(error) => Err(to.failed.map_or(Unreadable::Syntax(error), Unreadable::Budget)),
    }
}

/// The request itself.
struct Root<'r, 's> {
    to: &'r mut Rewrite<'s>,
    request: MessageId,
}

/// The position of a value within its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValuePosition {
    /// The value of the whole field.
    Whole,
    /// An element of the field's list.
    Element,
    /// An element of the field's list whose tag is written already.
    Packed,
}

/// The place for a value.
struct Slot<'r, 's> {
    to: &'r mut Rewrite<'s>,
    of: &'static Message,
    field: &'static Field,
    place: ValuePosition,
}

impl<'de> DeserializeSeed<'de> for Root<'_, '_> {
    type Value = Fit;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fit, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Visits a value that is neither a list nor an object, with the method `$found`.
macro_rules! visit_scalars {
    ($found:ident) => {
        fn visit_bool<E: Error>(self, _: bool) -> Result<Fit, E> {
            self.$found()
        }

        fn visit_i64<E: Error>(self, _: i64) -> Result<Fit, E> {
            self.$found()
        }

        fn visit_u64<E: Error>(self, _: u64) -> Result<Fit, E> {
            self.$found()
        }

        fn visit_f64<E: Error>(self, _: f64) -> Result<Fit, E> {
            self.$found()
        }

        fn visit_str<E: Error>(self, _: &str) -> Result<Fit, E> {
            self.$found()
        }
    };
}

impl Root<'_, '_> {
    #[expect(clippy::unused_self, reason = "what the visits of the other kinds have")]
    fn misfit<E>(self) -> Result<Fit, E> {
        Ok(Err(Misfit::new("must be an object")))
    }
}

impl<'de> Visitor<'de> for Root<'_, '_> {
    type Value = Fit;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a request")
    }

    visit_scalars!(misfit);

    fn visit_unit<E: Error>(self) -> Result<Fit, E> {
        self.misfit()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Fit, A::Error> {
        drain_list(list)?;
        self.misfit()
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Fit, A::Error> {
        members(self.to, self.request, map)
    }
}

/// Writes the members of an object as the fields of a message.
fn members<'de, A: MapAccess<'de>>(
    to: &mut Rewrite<'_>,
    id: MessageId,
    mut map: A,
) -> Result<Fit, A::Error> {
    let of = Schema::get().message(id);
    let mut fit = Ok(());
    while let Some(name) = map.next_key::<&RawValue>()? {
        match scalar::name(name.get()).and_then(|name| of.named(&name)) {
            Some(field) if fit.is_ok() => {
                let place = ValuePosition::Whole;
                fit = if field.repeated {
                    map.next_value_seed(Slot { to: &mut *to, of, field, place })?
                } else {
                    to.attempt(field, None, |to| {
                        map.next_value_seed(Slot { to, of, field, place })
                    })?
                };
            }
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
    }
    Ok(fit)
}

impl Slot<'_, '_> {
    fn is_list(&self) -> bool {
        self.field.repeated && self.place == ValuePosition::Whole
    }

    /// Returns the misfit for a value that is neither what the field holds nor null.
    fn misfit<E>(self) -> Result<Fit, E> {
        if !self.is_list() {
            return Ok(Err(Misfit::new("must be an object")));
        }
        self.to.attempt(self.field, None, |_| Ok(Err(Misfit::new("must be a list"))))
    }

    /// Writes a value of a kind that is neither message nor list.
    fn scalar<E: Error>(self, raw: &str) -> Result<Fit, E> {
        let Self { to, of, field, place } = self;
        if matches!(field.kind, Kind::Text | Kind::Bytes) {
            // Without its quotes.
            add_size(to, allocated(raw.len().saturating_sub(2)))?;
        }
        let token = Token::of(raw);
        if matches!(token, Token::Null) && place == ValuePosition::Whole {
            return Ok(Ok(()));
        }
        let tag = if place == ValuePosition::Packed { None } else { Some(field) };
        let fit = scalar::put(to, field, tag, &token);
        match (fit, of.text_of_odd_value(), token.text()) {
            (Err(_), Some(field), Some(text)) => {
                to.tag(field, 2);
                to.delimited(text.as_bytes());
                Ok(Ok(()))
            }
            (fit, ..) => Ok(fit),
        }
    }
}

/// Writes the elements of a list.
fn elements<'de, A: SeqAccess<'de>>(
    to: &mut Rewrite<'_>,
    (of, field, place): (&'static Message, &'static Field, ValuePosition),
    mut list: A,
) -> Result<Fit, A::Error> {
    let (mut fit, mut more, mut count) = (Ok(()), true, 0);
    let size = to.schema.size_of(field.kind);
    for index in 0.. {
        if fit.is_err() {
            more = list.next_element::<IgnoredAny>()?.is_some();
        } else if matches!(field.kind, Kind::Message(_)) {
            fit = to.attempt(field, Some(index), |to| {
                let found = list.next_element_seed(Slot { to, of, field, place })?;
                more = found.is_some();
                Ok(found.unwrap_or(Ok(())))
            })?;
        } else {
            let found = list.next_element_seed(Slot { to: &mut *to, of, field, place })?;
            more = found.is_some();
            fit = found.unwrap_or(Ok(())).map_err(|it| it.within(Step::at(field, index)));
        }
        if !more {
            break;
        }
        add_size(to, grown(&mut count, 1, size) + to.besides(field.kind))?;
    }
    Ok(fit)
}

fn add_size<E: Error>(to: &mut Rewrite<'_>, more: usize) -> Result<(), E> {
    to.add_size(more).map_err(|error: BodyError| {
        let told = E::custom(&error);
        to.failed = Some(error);
        told
    })
}

fn drain_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<(), A::Error> {
    while list.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

impl<'de> DeserializeSeed<'de> for Slot<'_, '_> {
    type Value = Fit;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fit, D::Error> {
        if !self.is_list() && !matches!(self.field.kind, Kind::Message(_)) {
            let raw = <&RawValue>::deserialize(deserializer)?;
            return self.scalar(raw.get());
        }
        if self.to.depth >= MAX_DEPTH {
            IgnoredAny::deserialize(deserializer)?;
            return Ok(Err(Misfit::new("nests too deeply")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Slot<'_, '_> {
    type Value = Fit;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    visit_scalars!(misfit);

    fn visit_unit<E: Error>(self) -> Result<Fit, E> {
        if self.place == ValuePosition::Whole {
            return Ok(Ok(()));
        }
        self.to.nested(self.field, |_| Ok(Ok(())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Fit, A::Error> {
        if !self.is_list() {
            drain_list(list)?;
            return self.misfit();
        }
        let Self { to, of, field, .. } = self;
        if !field.kind.is_packable() {
            return elements(to, (of, field, ValuePosition::Element), list);
        }
        to.nested(field, |to| elements(to, (of, field, ValuePosition::Packed), list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fit, A::Error> {
        let Kind::Message(id) = self.field.kind else {
            while map.next_entry::<&RawValue, IgnoredAny>()?.is_some() {}
            return self.misfit();
        };
        if self.is_list() {
            while map.next_entry::<&RawValue, IgnoredAny>()?.is_some() {}
            return self.misfit();
        }
        self.to.nested(self.field, |to| members(to, id, map))
    }
}

/// Returns the content of a JSON string; `raw` includes its quotes.
pub(super) fn unescaped(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok().or_else(|| {
        let mended = json_text::without_halves(raw)?;
        serde_json::from_str(&mended).ok()
    })
}

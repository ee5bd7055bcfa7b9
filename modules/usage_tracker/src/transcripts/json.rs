//! Lenient pieces of JSON: a field that has another form than expected is absent, and makes no
//! line unreadable.

use std::{borrow::Cow, fmt, marker::PhantomData};

use module_sdk::jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// A count of tokens. What no count can be (negative, infinite) is [`IMPOSSIBLE`], so that the
/// request is marked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count(pub(super) Option<u64>);

/// A count that no request can have.
pub(super) const IMPOSSIBLE: u64 = u64::MAX;

/// An amount in US dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Dollars(pub(super) Option<f64>);

/// A text, borrowed from the line where that is possible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text<'a>(Option<Cow<'a, str>>);

/// A time, in milliseconds since the Unix epoch: a text as in RFC 3339, or a number of seconds or
/// milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Time(pub(super) Option<i64>);

/// A truth value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

/// An object; anything else in its place is none.
#[derive(Debug, Clone)]
pub(super) struct Object<T>(pub(super) Option<T>);

/// An array of objects, without what is no object; anything else in its place is an empty one.
#[derive(Debug, Clone)]
pub(super) struct Objects<T>(pub(super) Vec<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl Count {
    /// Returns the count, 0 for none.
    pub(super) fn or_zero(self) -> u64 {
        self.0.unwrap_or(0)
    }
}

impl Dollars {
    /// Returns the amount in nano-USD. One that cannot be is negative, so that the request is
    /// marked.
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what is wanted")]
    pub(super) fn nano(self) -> Option<i64> {
        let nano = (self.0? * 1e9).round();
        Some(if nano.is_finite() && nano >= 0.0 { nano as i64 } else { -1 })
    }
}

impl Text<'_> {
    /// Returns the text; `None` for an empty one.
    pub(super) fn as_str(&self) -> Option<&str> {
        self.0.as_deref().map(str::trim).filter(|text| !text.is_empty())
    }

    pub(super) fn is(&self, word: &str) -> bool {
        self.0.as_deref() == Some(word)
    }

    /// Returns the text, where it can be a name of a model, a version or the like. Words of a
    /// person, or code, are none.
    pub(super) fn name(&self) -> Option<String> {
        let text = self.as_str().filter(|text| text.len() <= 128)?;
        let fits = text.chars().all(|c| match c {
            '"' | '\'' | '`' | '{' | '}' | '<' | '>' | '\\' => false,
            c => c.is_ascii_graphic(),
        });
        fits.then(|| text.to_owned())
    }

    /// Returns the text as an identifier, which is not shown as it is.
    pub(super) fn id(&self) -> Option<String> {
        self.as_str().map(str::to_owned)
    }
}

/// Visits a value of whatever form.
macro_rules! lenient {
    ($type:ident $(<$life:lifetime>)?, $words:literal, { $($visits:tt)* }) => {
        impl<'de $(: $life, $life)?> Deserialize<'de> for $type $(<$life>)? {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Any $(<$life>(PhantomData<&$life ()>))?;

                impl<'de $(: $life, $life)?> Visitor<'de> for Any $(<$life>)? {
                    type Value = $type $(<$life>)?;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($words)
                    }

                    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                        Ok(Self::Value::default())
                    }

                    fn visit_seq<A: SeqAccess<'de>>(
                        self,
                        mut values: A,
                    ) -> Result<Self::Value, A::Error> {
                        while values.next_element::<IgnoredAny>()?.is_some() {}
                        Ok(Self::Value::default())
                    }

                    fn visit_map<A: MapAccess<'de>>(
                        self,
                        mut values: A,
                    ) -> Result<Self::Value, A::Error> {
                        while values.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        Ok(Self::Value::default())
                    }

                    $($visits)*
                }

                deserializer.deserialize_any(lenient!(@new Any $($life)?))
            }
        }
    };
    (@new $any:ident $life:lifetime) => { $any(PhantomData) };
    (@new $any:ident) => { $any };
}

lenient!(Count, "a count", {
    fn visit_bool<E: Error>(self, _: bool) -> Result<Count, E> {
        Ok(Count(None))
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<Count, E> {
        Ok(Count(Some(count)))
    }

    fn visit_i64<E: Error>(self, count: i64) -> Result<Count, E> {
        Ok(Count(Some(u64::try_from(count).unwrap_or(IMPOSSIBLE))))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is neither negative nor larger than the type"
    )]
    fn visit_f64<E: Error>(self, count: f64) -> Result<Count, E> {
        let fits = (0.0..1e18).contains(&count);
        Ok(Count(Some(if fits { count as u64 } else { IMPOSSIBLE })))
    }

    fn visit_str<E: Error>(self, count: &str) -> Result<Count, E> {
        Ok(Count(count.trim().parse().ok()))
    }
});

lenient!(Dollars, "an amount", {
    fn visit_bool<E: Error>(self, _: bool) -> Result<Dollars, E> {
        Ok(Dollars(None))
    }

    #[expect(clippy::cast_precision_loss, reason = "no amount is so large")]
    fn visit_u64<E: Error>(self, amount: u64) -> Result<Dollars, E> {
        Ok(Dollars(Some(amount as f64)))
    }

    #[expect(clippy::cast_precision_loss, reason = "no amount is so large")]
    fn visit_i64<E: Error>(self, amount: i64) -> Result<Dollars, E> {
        Ok(Dollars(Some(amount as f64)))
    }

    fn visit_f64<E: Error>(self, amount: f64) -> Result<Dollars, E> {
        Ok(Dollars(Some(amount)))
    }

    fn visit_str<E: Error>(self, amount: &str) -> Result<Dollars, E> {
        Ok(Dollars(amount.trim().parse().ok()))
    }
});

lenient!(Text<'a>, "a text", {
    fn visit_bool<E: Error>(self, _: bool) -> Result<Text<'a>, E> {
        Ok(Text(None))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Text<'a>, E> {
        Ok(Text(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Text<'a>, E> {
        Ok(Text(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Text<'a>, E> {
        Ok(Text(None))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'a>, E> {
        Ok(Text(Some(Cow::Borrowed(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'a>, E> {
        Ok(Text(Some(Cow::Owned(text.to_owned()))))
    }
});

lenient!(Time, "a time", {
    fn visit_bool<E: Error>(self, _: bool) -> Result<Time, E> {
        Ok(Time(None))
    }

    #[expect(clippy::cast_precision_loss, reason = "no time is so large")]
    fn visit_u64<E: Error>(self, time: u64) -> Result<Time, E> {
        Ok(Time(of_number(time as f64)))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Time, E> {
        Ok(Time(None))
    }

    fn visit_f64<E: Error>(self, time: f64) -> Result<Time, E> {
        Ok(Time(of_number(time)))
    }

    fn visit_str<E: Error>(self, time: &str) -> Result<Time, E> {
        Ok(Time(of_text(time.trim())))
    }
});

lenient!(Flag, "a truth value", {
    fn visit_bool<E: Error>(self, is: bool) -> Result<Flag, E> {
        Ok(Flag(is))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Flag, E> {
        Ok(Flag(false))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Flag, E> {
        Ok(Flag(false))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Flag, E> {
        Ok(Flag(false))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Flag, E> {
        Ok(Flag(false))
    }
});

/// Returns a time: a number of seconds is smaller than one of milliseconds can be.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what is wanted")]
fn of_number(time: f64) -> Option<i64> {
    const SECONDS_BELOW: f64 = 1e11;
    let ms = if time < SECONDS_BELOW { time * 1e3 } else { time };
    (ms > 0.0).then_some(ms as i64)
}

/// Returns the time of a text; one without a zone is in UTC.
fn of_text(time: &str) -> Option<i64> {
    if let Ok(time) = time.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let time: DateTime = time.parse().ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

/// Visits an object, or whatever is in its place.
struct AnyObject<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for AnyObject<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyObject(PhantomData)).map(Self)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Objects<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyArray(PhantomData)).map(Self)
    }
}

/// Visits an array of objects, or whatever is in its place.
struct AnyArray<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for AnyArray<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(Object(value)) = values.next_element::<Object<T>>()? {
            found.extend(value);
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        while values.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Vec::new())
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Sample<'a> {
        count: Count,
        #[serde(borrow)]
        text: Text<'a>,
        at: Time,
        inner: Object<Inner>,
        many: Objects<Inner>,
    }

    #[derive(Deserialize, Default, Debug, Clone)]
    #[serde(default)]
    struct Inner {
        count: Count,
    }

    fn sample(json: &str) -> Sample<'_> {
        serde_json::from_str(json).expect(json)
    }

    #[test]
    fn counts_of_any_form_are_read_and_impossible_ones_are_marked() {
        let check = |json: &str, expected: Option<u64>| {
            let text = format!("{{\"count\": {json}}}");
            assert_eq!(sample(&text).count.0, expected, "{json}");
        };
        check("7", Some(7));
        check("7.0", Some(7));
        check("\"7\"", Some(7));
        check("null", None);
        check("\"seven\"", None);
        check("{\"a\": [1]}", None);
        check("[1]", None);
        check("true", None);
        check("-1", Some(IMPOSSIBLE));
        check("-0.5", Some(IMPOSSIBLE));
        check("1e300", Some(IMPOSSIBLE));
        check("18446744073709551615", Some(u64::MAX));
    }

    #[test]
    fn times_are_texts_or_numbers() {
        let check = |json: &str, expected: Option<i64>| {
            let text = format!("{{\"at\": {json}}}");
            assert_eq!(sample(&text).at.0, expected, "{json}");
        };
        check("\"2026-11-20T23:48:30.508Z\"", Some(1_795_218_510_508));
        check("\"2026-11-20 23:48:30\"", Some(1_795_218_510_000));
        check("1795218510", Some(1_795_218_510_000));
        check("1795218510.5", Some(1_795_218_510_500));
        check("1795218510508", Some(1_795_218_510_508));
        check("\"soon\"", None);
        check("-5", None);
        check("null", None);
    }

    #[test]
    fn what_has_another_form_is_absent() {
        let it = sample(r#"{"inner": "text", "many": {"a": 1}, "text": {"b": []}}"#);
        assert!(it.inner.0.is_none() && it.many.0.is_empty() && it.text.as_str().is_none());
        let it = sample(r#"{"inner": {"count": 1}, "many": [1, {"count": 2}, "x"], "text": "a"}"#);
        assert_eq!(it.inner.0.map(|inner| inner.count.0), Some(Some(1)));
        assert_eq!(it.many.0.iter().map(|it| it.count.or_zero()).collect::<Vec<_>>(), [2]);
        assert_eq!(it.text.as_str(), Some("a"));
    }

    #[test]
    fn words_of_a_person_are_no_name() {
        let name = |text: &str| Text(Some(Cow::Borrowed(text))).name();
        assert_eq!(name(" claude-sonnet-4-5 ").as_deref(), Some("claude-sonnet-4-5"));
        assert_eq!(name("please write a poem"), None);
        assert_eq!(name("{\"a\":1}"), None);
        assert_eq!(name(&"x".repeat(200)), None);
    }

    #[test]
    fn money_is_whole_nano_dollars() {
        assert_eq!(Dollars(Some(0.003_435)).nano(), Some(3_435_000));
        assert_eq!(Dollars(Some(-1.0)).nano(), Some(-1));
        assert_eq!(Dollars(Some(f64::NAN)).nano(), Some(-1));
        assert_eq!(Dollars(None).nano(), None);
    }
}

//! Amounts of US dollars.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

/// Number of digits after the point: the unit is the nano-dollar.
const DECIMALS: usize = 9;

/// Number of nano-dollars in a dollar.
const DOLLAR: i64 = 1_000_000_000;

/// An amount of US dollars, exact to the nano-dollar: the unit of every cost in an event.
///
/// In a configuration it is a number or a text with at most nine decimals, and it is read as it is
/// written, not as the nearest binary fraction. In JSON it is a number whose first 15 digits are
/// exact; what adds up for years keeps [`nano`](Self::nano).
///
/// ```
/// use module_sdk::Usd;
///
/// let limit: Usd = serde_json::from_str("12.3").expect("it is an amount");
/// let spent = Usd::from_nano(3_435_000);
/// assert_eq!(limit.nano(), 12_300_000_000);
/// assert_eq!(spent.to_string(), "0.003435");
/// assert!(limit.saturating_add(spent) > limit);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd {
    nano: i64,
}

impl Usd {
    /// Creates an amount of this many nano-dollars.
    #[must_use]
    pub const fn from_nano(nano: i64) -> Self {
        Self { nano }
    }

    /// Returns the amount in nano-dollars.
    #[must_use]
    pub const fn nano(self) -> i64 {
        self.nano
    }

    /// Returns the sum, or the largest or smallest amount where the sum is beyond.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self { nano: self.nano.saturating_add(other.nano) }
    }

    /// Returns the nearest floating-point number, for a metric; never add these up.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "15 digits are promised, and kept")]
    pub fn as_f64(self) -> f64 {
        self.nano as f64 / 1e9
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.nano < 0 { "-" } else { "" };
        let nano = self.nano.unsigned_abs();
        let (whole, rest) = (nano / DOLLAR.unsigned_abs(), nano % DOLLAR.unsigned_abs());
        let rest = format!("{rest:0DECIMALS$}");
        match rest.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            rest => write!(f, "{sign}{whole}.{rest}"),
        }
    }
}

/// A text that is no amount of US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no amount of US dollars; write a number with at most nine decimals, such as 12.50")]
pub struct UsdError;

impl FromStr for Usd {
    type Err = UsdError;

    fn from_str(text: &str) -> Result<Self, UsdError> {
        let (is_negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, rest) = digits.split_once('.').unwrap_or((digits, "0"));
        let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !are_digits(whole) || !are_digits(rest) || rest.len() > DECIMALS {
            return Err(UsdError);
        }
        let nano: i128 = format!("{whole}{rest:0<DECIMALS$}").parse().map_err(|_| UsdError)?;
        let nano = if is_negative { -nano } else { nano };
        i64::try_from(nano).map(Self::from_nano).map_err(|_| UsdError)
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UsdVisitor)
    }
}

struct UsdVisitor;

impl Visitor<'_> for UsdVisitor {
    type Value = Usd;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount of US dollars")
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Usd, E> {
        number.checked_mul(DOLLAR).map(Usd::from_nano).ok_or_else(|| E::custom(UsdError))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Usd, E> {
        let number = i64::try_from(number).map_err(|_| E::custom(UsdError))?;
        self.visit_i64(number)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Usd, E> {
        // The shortest text that means this number is what somebody wrote.
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Usd, E> {
        text.trim().parse().map_err(E::custom)
    }
}

impl JsonSchema for Usd {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Usd".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_what_was_written() {
        let check = |json: &str, nano: i64, text: &str| {
            let amount: Usd = serde_json::from_str(json).expect(json);
            assert_eq!((amount.nano(), amount.to_string().as_str()), (nano, text), "{json}");
            assert_eq!(text.parse(), Ok(amount), "{text}");
        };
        check("0", 0, "0");
        check("10", 10_000_000_000, "10");
        check("10.0", 10_000_000_000, "10");
        check("0.1", 100_000_000, "0.1");
        check("0.000000001", 1, "0.000000001");
        check("1e-9", 1, "0.000000001");
        check("-2.5", -2_500_000_000, "-2.5");
        // Times a billion as a floating-point number it would be 8115999999.
        check("8.116", 8_116_000_000, "8.116");
        check("1.005", 1_005_000_000, "1.005");
        check("\"12.50\"", 12_500_000_000, "12.5");
        check("999999.999999999", 999_999_999_999_999, "999999.999999999");
        check("\"9223372036.854775807\"", i64::MAX, "9223372036.854775807");
        check("\"-9223372036.854775808\"", i64::MIN, "-9223372036.854775808");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for json in [
            "0.0000000001",
            "\"\"",
            "\"12,50\"",
            "\"$3\"",
            "\"1.\"",
            "\".5\"",
            "\"+1\"",
            "9223372037",
            "1e300",
            "18446744073709551615",
            "true",
            "null",
        ] {
            let amount: Result<Usd, _> = serde_json::from_str(json);
            let error = amount.expect_err(json).to_string();
            assert!(error.contains("amount of US dollars"), "{json}: {error}");
        }
    }

    #[test]
    fn json_has_a_number() {
        let check = |nano, text: &str| {
            let json = serde_json::to_string(&Usd::from_nano(nano)).expect("it is written");
            assert_eq!(json, text);
            let read: Usd = serde_json::from_str(&json).expect("it was written here");
            assert_eq!(read.nano(), nano);
        };
        check(0, "0.0");
        check(1, "1e-9");
        check(3_435_000, "0.003435");
        check(-2_500_000_001, "-2.500000001");
        check(999_999_999_999_999, "999999.999999999");
    }
}

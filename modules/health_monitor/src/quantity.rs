//! Values and lengths of time as a person writes them in a rule: `97%`, `20GB`, `2m`, `14d`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::metric::Unit;

/// A value in the base unit of its metric: a number, or a text with a unit (`97%`, `20GB`,
/// `500ms`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantity {
    /// The value in base units.
    pub value: f64,
    /// Kind of unit that was written, `None` for a bare number.
    pub unit: Option<Unit>,
}

/// A text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no value; write a number in the metric's unit, or one with %, B, kB, MB, GB, TB, \
     KiB, MiB, GiB, TiB, ms, s, m, h, d, C, W or USD"
)]
pub struct QuantityError(String);

const UNITS: [(&str, f64, Unit); 20] = [
    ("%", 0.01, Unit::Ratio),
    ("B", 1.0, Unit::Bytes),
    ("kB", 1e3, Unit::Bytes),
    ("MB", 1e6, Unit::Bytes),
    ("GB", 1e9, Unit::Bytes),
    ("TB", 1e12, Unit::Bytes),
    ("KiB", 1024.0, Unit::Bytes),
    ("MiB", 1_048_576.0, Unit::Bytes),
    ("GiB", 1_073_741_824.0, Unit::Bytes),
    ("TiB", 1_099_511_627_776.0, Unit::Bytes),
    ("ms", 0.001, Unit::Seconds),
    ("s", 1.0, Unit::Seconds),
    ("m", 60.0, Unit::Seconds),
    ("h", 3_600.0, Unit::Seconds),
    ("d", 86_400.0, Unit::Seconds),
    ("C", 1.0, Unit::Celsius),
    ("°C", 1.0, Unit::Celsius),
    ("W", 1.0, Unit::Watts),
    ("USD", 1.0, Unit::Usd),
    ("$", 1.0, Unit::Usd),
];

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || QuantityError(text.to_owned());
        let trimmed = text.trim();
        let (dollar, trimmed) = match trimmed.strip_prefix('$') {
            Some(rest) => (true, rest),
            None => (false, trimmed),
        };
        let end = trimmed.find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '_'));
        let (number, unit) = trimmed.split_at(end.unwrap_or(trimmed.len()));
        let number: f64 = number.replace('_', "").parse().map_err(|_| error())?;
        let unit = match (unit.trim(), dollar) {
            ("", true) => Some((1.0, Unit::Usd)),
            ("", false) => None,
            (_, true) => return Err(error()),
            (unit, false) => {
                let known = UNITS.iter().find(|(name, ..)| *name == unit).ok_or_else(error)?;
                Some((known.1, known.2))
            }
        };
        let value = number * unit.map_or(1.0, |(factor, _)| factor);
        if !value.is_finite() {
            return Err(error());
        }
        Ok(Self { value, unit: unit.map(|(_, unit)| unit) })
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a text such as `97%` or `20GB`")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Quantity, E> {
                if value.is_finite() {
                    return Ok(Quantity { value, unit: None });
                }
                Err(E::invalid_value(de::Unexpected::Float(value), &self))
            }

            #[expect(clippy::cast_precision_loss, reason = "thresholds beyond 2^53 may be rounded")]
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
                self.visit_f64(value as f64)
            }

            #[expect(clippy::cast_precision_loss, reason = "thresholds beyond 2^53 may be rounded")]
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
                self.visit_f64(value as f64)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["number", "string"]})
    }
}

/// A length of time: `30s`, `2m`, `1h 30m`, `14d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

impl Span {
    /// Creates a length of so many seconds.
    #[must_use]
    pub const fn of_seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Returns the length in milliseconds.
    #[must_use]
    pub fn ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The longest time that a rule may name.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no length of time of at most 366d; write `30s`, `2m`, `1h 30m` or `14d`")]
pub struct SpanError(String);

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || SpanError(text.to_owned());
        let mut rest = text.trim();
        let mut total = Duration::ZERO;
        if rest.is_empty() {
            return Err(error());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
            let (number, after) = rest.split_at(digits);
            let number: u32 = number.parse().map_err(|_| error())?;
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let one = match unit {
                "ms" => Duration::from_millis(1),
                "s" => Duration::from_secs(1),
                "m" => Duration::from_secs(60),
                "h" => Duration::from_secs(3_600),
                "d" => Duration::from_secs(86_400),
                "w" => Duration::from_secs(7 * 86_400),
                _ => return Err(error()),
            };
            let part = one.checked_mul(number).ok_or_else(error)?;
            total = total.checked_add(part).ok_or_else(error)?;
            rest = after.trim_start();
        }
        if total > LONGEST { Err(error()) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        let mut is_first = true;
        for (unit, name) in units {
            if rest >= unit {
                write!(f, "{}{}{name}", if is_first { "" } else { " " }, rest / unit)?;
                (rest, is_first) = (rest % unit, false);
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_units() {
        let check = |text: &str, value: f64, unit: Option<Unit>| {
            let quantity: Quantity = text.parse().expect("it is one");
            assert!((quantity.value - value).abs() < 1e-9 * value.abs().max(1.0), "{text}");
            assert_eq!(quantity.unit, unit, "{text}");
        };
        check("97%", 0.97, Some(Unit::Ratio));
        check("20 GB", 20e9, Some(Unit::Bytes));
        check("1.5GiB", 1.5 * 1_073_741_824.0, Some(Unit::Bytes));
        check("500ms", 0.5, Some(Unit::Seconds));
        check("-3", -3.0, None);
        check("$10", 10.0, Some(Unit::Usd));
        for text in ["", "%", "1 apple", "1e999", "NaN", "inf", "$1GB", "--1"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
        let read = |json| serde_json::from_value::<Quantity>(json);
        assert_eq!(read(serde_json::json!(3)).expect("it is one").value, 3.0);
        assert!(read(serde_json::json!(true)).is_err());
    }

    #[test]
    fn lengths_of_time_are_read_and_shown() {
        let check = |text: &str, seconds: f64, shown: &str| {
            let span: Span = text.parse().expect("it is one");
            assert!((span.0.as_secs_f64() - seconds).abs() < 1e-9, "{text}");
            assert_eq!(span.to_string(), shown);
        };
        check("30s", 30.0, "30s");
        check("1h 30m", 5_400.0, "1h 30m");
        check("1h30m", 5_400.0, "1h 30m");
        check("14d", 14.0 * 86_400.0, "14d");
        check("250ms", 0.25, "250ms");
        check("0s", 0.0, "0s");
        for text in ["", "5", "5 min", "-5s", "9999999999s", "367d", "5s5"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}

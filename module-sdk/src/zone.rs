//! Time zones in configurations.

use std::fmt;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Visitor};

use crate::nearest;

/// A time zone in a configuration: an IANA name, or the system's zone where none is given.
///
/// An unknown name is refused, with the nearest that is known.
///
/// ```
/// use module_sdk::Zone;
///
/// let zone: Zone = serde_json::from_str("\"Europe/Vienna\"").expect("it is known");
/// let late = "2026-11-20T23:30:00Z".parse().expect("a time");
/// assert_eq!(zone.date(late).to_string(), "2026-11-21");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Returns the zone for calculations.
    #[must_use]
    pub const fn time_zone(&self) -> &TimeZone {
        &self.0
    }

    /// Returns the day that a moment lies in.
    #[must_use]
    pub fn date(&self, moment: Timestamp) -> Date {
        moment.to_zoned(self.0.clone()).date()
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::system())
    }
}

impl From<TimeZone> for Zone {
    fn from(zone: TimeZone) -> Self {
        Self(zone)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({self})")
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("local time"))
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ZoneVisitor)
    }
}

struct ZoneVisitor;

impl Visitor<'_> for ZoneVisitor {
    type Value = Zone;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an IANA time zone such as `Europe/Vienna`")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Zone, E> {
        Ok(Zone::default())
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Zone, E> {
        TimeZone::get(name).map(Zone).map_err(|_| E::custom(unknown(name)))
    }
}

fn unknown(name: &str) -> String {
    let zones: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    let city = name.replace(' ', "_");
    // A person who writes only the city means the zone that ends with it.
    let of_city = zones.iter().find(|zone| {
        zone.rsplit_once('/').is_some_and(|(_, name)| name.eq_ignore_ascii_case(&city))
    });
    let near = of_city.map(String::as_str);
    match near.or_else(|| nearest(name, zones.iter().map(String::as_str))) {
        Some(zone) => format!("is no known time zone; did you mean `{zone}`?"),
        None => "is no known time zone; write an IANA name such as `Europe/Vienna`, or leave it \
                 out for that of the system"
            .to_owned(),
    }
}

impl JsonSchema for Zone {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Zone".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "null"]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_that_is_none_is_answered_with_the_nearest() {
        let check = |zone: &str, part: &str| {
            let read: Result<Zone, _> = serde_json::from_value(zone.into());
            let error = read.expect_err("it is refused").to_string();
            assert_eq!(error, format!("is no known time zone; {part}"), "{zone}");
        };
        check("Europe/Viena", "did you mean `Europe/Vienna`?");
        check("Vienna", "did you mean `Europe/Vienna`?");
        check("new york", "did you mean `America/New_York`?");
        let any = "write an IANA name such as `Europe/Vienna`, or leave it out for that of the \
                   system";
        check("Mars/Olympus", any);
        let error = serde_json::from_str::<Zone>("7").expect_err("it is refused").to_string();
        assert!(error.contains("an IANA time zone"), "{error}");
    }

    #[test]
    fn none_is_that_of_the_system() {
        let zone: Zone = serde_json::from_str("null").expect("it is read");
        assert_eq!(zone, Zone::default());
    }
}

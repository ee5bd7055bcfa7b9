//! Quantities that are limited, and the windows in which they are counted.

use module_sdk::{
    Zone, clock,
    jiff::{Timestamp, ToSpan as _},
};
use serde::{Deserialize, Serialize};

/// Quantity that is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Quantity {
    /// Requests.
    Requests,
    /// Tokens of input and output together.
    Tokens,
    /// Billionths of a US dollar.
    NanoUsd,
}

impl Quantity {
    /// Returns its name in keys of the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::NanoUsd => "usd",
        }
    }
}

/// Period for which a limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Period {
    /// Any 60 seconds.
    Minute,
    /// Any 60 minutes.
    Hour,
    /// A day of the calendar.
    Day,
    /// A month of the calendar.
    Month,
}

impl Period {
    /// Returns its name in keys of the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Returns its length, where it is a bucket that leaks all the time and not a part of the
    /// calendar that begins anew.
    pub(crate) const fn bucket_ms(self) -> Option<u64> {
        match self {
            Self::Minute => Some(60_000),
            Self::Hour => Some(3_600_000),
            Self::Day | Self::Month => None,
        }
    }
}

/// Amounts used of each quantity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    /// Requests.
    pub requests: u64,
    /// Tokens.
    pub tokens: u64,
    /// Billionths of a US dollar.
    pub nano_usd: u64,
}

impl Amounts {
    /// Returns the amount of a quantity.
    pub(crate) const fn of(self, quantity: Quantity) -> u64 {
        match quantity {
            Quantity::Requests => self.requests,
            Quantity::Tokens => self.tokens,
            Quantity::NanoUsd => self.nano_usd,
        }
    }
}

/// Day and month of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Calendar {
    /// Beginning and end of the day, in Unix milliseconds.
    pub day: (i64, i64),
    /// Beginning and end of the month.
    pub month: (i64, i64),
}

impl Calendar {
    /// Returns the day and the month of a moment in a zone.
    pub(crate) fn at(now: Timestamp, zone: &Zone) -> Self {
        let date = zone.date(now);
        let first = date.first_of_month();
        let begin = |date: module_sdk::jiff::civil::Date| {
            let zoned = date.to_zoned(zone.time_zone().clone());
            zoned.map_or(now, |zoned| zoned.timestamp()).as_millisecond()
        };
        let next = |date: module_sdk::jiff::civil::Date, span: module_sdk::jiff::Span| {
            begin(date.saturating_add(span))
        };
        Self {
            day: (begin(date), next(date, 1.day())),
            month: (begin(first), next(first, 1.month())),
        }
    }

    /// Returns the beginning and the end of a period of the calendar.
    pub(crate) const fn window(&self, period: Period) -> (i64, i64) {
        match period {
            Period::Minute | Period::Hour | Period::Day => self.day,
            Period::Month => self.month,
        }
    }
}

/// The calendar, worked out again only when its day is over: on the way of every request.
#[derive(Debug)]
pub(super) struct CalendarClock {
    zone: Zone,
    calendar: Calendar,
}

impl CalendarClock {
    pub(super) fn new(zone: Zone) -> Self {
        let nothing = Calendar { day: (0, 0), month: (0, 0) };
        Self { zone, calendar: nothing }
    }

    /// Returns the calendar of a moment. A clock that cannot be right moves nothing.
    pub(super) fn at(&mut self, now: Timestamp) -> Calendar {
        let ms = now.as_millisecond();
        let (begin, end) = self.calendar.day;
        if !(begin..end).contains(&ms) && (end == 0 || clock::is_plausible(now)) {
            self.calendar = Calendar::at(now, &self.zone);
        }
        self.calendar
    }
}

#[cfg(test)]
mod tests {
    use module_sdk::jiff::tz::TimeZone;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn days_and_months_are_those_of_the_zone() {
        let check = |zone: &str, now: &str, day: [&str; 2], month: [&str; 2]| {
            let zone = Zone::from(TimeZone::get(zone).expect("it is known"));
            let calendar = Calendar::at(at(now), &zone);
            let ms =
                |times: [&str; 2]| (at(times[0]).as_millisecond(), at(times[1]).as_millisecond());
            assert_eq!((calendar.day, calendar.month), (ms(day), ms(month)), "{now}");
        };
        check(
            "UTC",
            "2026-12-31T23:59:59.999Z",
            ["2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"],
            ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"],
        );
        // Clocks go forward: a day of 23 hours.
        check(
            "Europe/Vienna",
            "2027-03-28T10:00:00Z",
            ["2027-03-27T23:00:00Z", "2027-03-28T22:00:00Z"],
            ["2027-02-28T23:00:00Z", "2027-03-31T22:00:00Z"],
        );
    }

    #[test]
    fn a_clock_that_cannot_be_right_moves_nothing() {
        let mut clock = CalendarClock::new(Zone::from(TimeZone::UTC));
        let before = clock.at(at("2026-12-05T10:00:00Z"));
        assert_eq!(clock.at(at("1970-01-01T00:00:00Z")), before);
        assert_eq!(clock.at(at("2099-01-01T00:00:00Z")), before);
        assert_ne!(clock.at(at("2026-12-06T00:00:00Z")), before);
    }
}

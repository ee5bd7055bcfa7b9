//! `--since` and `--until`: words, dates and durations become a range of time.

use jiff::{
    SignedDuration, Span, Timestamp, ToSpan as _, Zoned,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use module_sdk::{Error, Result};

/// A range of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// The first moment in it.
    pub from: Timestamp,
    /// The first moment after it, as it is shown.
    pub to: Timestamp,
    /// Whether nobody said when it ends: then requests count that a clock running ahead puts
    /// behind `to`.
    pub open: bool,
    /// The zone of its days and hours.
    pub zone: TimeZone,
}

impl Period {
    /// Reads what a person wrote.
    ///
    /// # Errors
    ///
    /// When it is no time, it begins in the future, or its end is not after its beginning.
    pub fn read(
        since: Option<&str>,
        until: Option<&str>,
        default_since: &str,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Result<Self> {
        let now = now.to_zoned(zone.clone());
        let shown =
            |time: Timestamp| time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string();
        let from = moment("since", since.unwrap_or(default_since), &now, Edge::Start)?;
        if from > now.timestamp() {
            return Err(Error::usage(format!(
                "--since {} begins at {}, which is in the future: it is {} ({}); write a time \
                 that has passed",
                since.unwrap_or(default_since),
                shown(from),
                shown(now.timestamp()),
                zone.iana_name().unwrap_or("local time")
            )));
        }
        let to = match until {
            Some(until) => moment("until", until, &now, Edge::End)?,
            None => now.timestamp(),
        };
        if until.is_some() && to <= from {
            return Err(Error::usage(format!(
                "--until {} ends at {} and --since {} begins at {}; exchange them or widen the \
                 range",
                until.unwrap_or_default(),
                shown(to),
                since.unwrap_or(default_since),
                shown(from)
            )));
        }
        Ok(Self { from, to, open: until.is_none(), zone: zone.clone() })
    }

    /// Its first and last bound for a query, Unix milliseconds; the second is not in it.
    #[must_use]
    pub fn bounds_ms(&self) -> (i64, i64) {
        let to = ceil_ms(self.to);
        (ceil_ms(self.from), if self.open { END_MS } else { to })
    }
}

/// The end of the year 9999, after which nothing ends: whatever clock it was that told when.
const END_MS: i64 = 253_402_300_800_000;

fn ceil_ms(time: Timestamp) -> i64 {
    let ms = time.as_millisecond();
    ms + i64::from(time > Timestamp::from_millisecond(ms).unwrap_or(time))
}

/// What a day stands for: its first moment or its last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Start,
    End,
}

fn moment(option: &str, text: &str, now: &Zoned, edge: Edge) -> Result<Timestamp> {
    let text = text.trim();
    let day = |date: Date| {
        let date = if edge == Edge::End { date.tomorrow()? } else { date };
        Ok::<_, jiff::Error>(date.to_zoned(now.time_zone().clone())?.timestamp())
    };
    let found = match text {
        "now" => Ok(now.timestamp()),
        "today" => day(now.date()),
        "yesterday" => now.date().yesterday().and_then(day),
        _ => {
            if let Ok(time) = text.parse::<Timestamp>() {
                Ok(time)
            } else if let Ok(date) = text.parse::<Date>()
                && text.len() == 10
            {
                day(date)
            } else if let Ok(time) = text.parse::<DateTime>()
                && text.contains([':', 'T'])
            {
                time.to_zoned(now.time_zone().clone()).map(|time| time.timestamp())
            } else {
                return ago(text, now).ok_or_else(|| unknown(option, text, now));
            }
        }
    };
    found.map_err(|_| unknown(option, text, now))
}

/// `90m`, `12h`, `7d`, `2w` before now. Days and weeks are those of the calendar.
fn ago(text: &str, now: &Zoned) -> Option<Timestamp> {
    let unit = text.chars().next_back()?;
    let number: i64 = text[..text.len() - unit.len_utf8()].parse().ok()?;
    if !(0..=1_000_000).contains(&number) {
        return None;
    }
    let span: Span = match unit {
        'm' => return now.timestamp().checked_sub(SignedDuration::from_mins(number)).ok(),
        'h' => return now.timestamp().checked_sub(SignedDuration::from_hours(number)).ok(),
        'd' => Span::new().try_days(number).ok()?,
        'w' => Span::new().try_weeks(number).ok()?,
        _ => return None,
    };
    now.checked_sub(span).ok().map(|time| time.timestamp())
}

fn unknown(option: &str, text: &str, now: &Zoned) -> Error {
    if let Some(ago_text) = text.strip_prefix('-').filter(|rest| ago(rest, now).is_some()) {
        return Error::usage(format!(
            "--{option} {text:?} is no time; write --{option} {ago_text}, which is that long ago"
        ));
    }
    Error::usage(format!(
        "--{option} {text:?} is no time; write 7d, 12h, 90m, 2w, today, yesterday, 2026-11-01, \
         2026-11-01T10:30 or 2026-11-01T10:30:00Z"
    ))
}

/// The days of a zone that touch a range of milliseconds, each with its part of the range. They
/// have 23 to 25 hours where clocks change.
pub(crate) fn days(from_ms: i64, to_ms: i64, zone: &TimeZone) -> Vec<(Date, i64, i64)> {
    let mut days = Vec::new();
    let Ok(from) = Timestamp::from_millisecond(from_ms) else { return days };
    let mut date = from.to_zoned(zone.clone()).date();
    let mut start = from_ms;
    while start < to_ms {
        let next = date
            .checked_add(1.day())
            .and_then(|next| Ok((next, next.to_zoned(zone.clone())?.timestamp().as_millisecond())));
        let Ok((tomorrow, end)) = next else { break };
        if end > start {
            days.push((date, start, end.min(to_ms)));
            start = end;
        }
        date = tomorrow;
    }
    days
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).expect("the zones are built in")
    }

    #[test]
    fn what_people_write_is_understood() {
        let vienna = zone("Europe/Vienna");
        let check = |since: &str, until: Option<&str>, expected: (&str, &str)| {
            let now: Timestamp = "2026-11-21T01:30:00Z".parse().expect("a time");
            let period = Period::read(Some(since), until, "30d", now, &vienna).expect(since);
            assert_eq!((period.from.to_string(), period.to.to_string()), {
                (expected.0.to_owned(), expected.1.to_owned())
            });
        };
        let now = "2026-11-21T01:30:00Z";
        check("7d", None, ("2026-11-14T01:30:00Z", now));
        check("2w", None, ("2026-11-07T01:30:00Z", now));
        check("12h", None, ("2026-11-20T13:30:00Z", now));
        check("90m", Some("now"), ("2026-11-21T00:00:00Z", now));
        check("today", None, ("2026-11-20T23:00:00Z", now));
        let yesterday = ("2026-11-19T23:00:00Z", "2026-11-20T23:00:00Z");
        check("yesterday", Some("yesterday"), yesterday);
        check("2026-11-20", Some("2026-11-20"), yesterday);
        check("2026-11-20T10:30", None, ("2026-11-20T09:30:00Z", now));
        check("2026-11-01T10:30:00+05:30", None, ("2026-11-01T05:00:00Z", now));
        // Days are those of the calendar: one of these had 25 hours.
        check("28d", None, ("2026-10-24T00:30:00Z", now));
        check("2026-10-25", Some("2026-10-25"), ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_refused_with_examples() {
        let check = |since: &str, until: Option<&str>, part: &str| {
            let now: Timestamp = "2026-11-21T01:30:00Z".parse().expect("a time");
            let error = Period::read(Some(since), until, "30d", now, &TimeZone::UTC)
                .expect_err("it is refused");
            assert_eq!(error.kind(), module_sdk::ErrorKind::Usage);
            assert!(error.to_string().contains(part), "{error}");
        };
        check("7 days", None, "7d, 12h");
        check("", None, "7d, 12h");
        check("-3d", None, "write --since 3d");
        check("-3x", None, "7d, 12h");
        check("99999999999999999999d", None, "7d, 12h");
        check("3µ", None, "7d, 12h");
        check("2026-13-01", None, "7d, 12h");
        check("999999w", None, "7d, 12h");
        check(
            "2026-11-22",
            None,
            "--since 2026-11-22 begins at 2026-11-22 00:00, which is in the future: it is \
             2026-11-21 01:30 (UTC)",
        );
        check("2026-11-21T01:31", Some("2027-01-01"), "in the future");
        check(
            "today",
            Some("yesterday"),
            "--until yesterday ends at 2026-11-21 00:00 and --since today begins at \
             2026-11-21 00:00",
        );
    }

    #[test]
    fn days_have_their_true_lengths() {
        let check = |name: &str, from: &str, to: &str, hours: &[i64]| {
            let ms = |text: &str| text.parse::<Timestamp>().expect("a time").as_millisecond();
            let days = days(ms(from), ms(to), &zone(name));
            let lengths: Vec<i64> =
                days.iter().map(|(_, start, end)| (end - start) / 3_600_000).collect();
            assert_eq!(lengths, hours, "{name}");
        };
        check(
            "Europe/Vienna",
            "2026-10-24T00:00:00+02:00",
            "2026-10-27T00:00:00+01:00",
            &[24, 25, 24],
        );
        check("Europe/Vienna", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00", &[23]);
        check("Asia/Kolkata", "2026-11-20T20:30:00Z", "2026-11-22T00:30:00Z", &[22, 6]);
        check("UTC", "2026-11-20T00:00:00Z", "2026-11-20T00:00:00Z", &[]);
    }
}

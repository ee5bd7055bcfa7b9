//! Ranges of time as people write them: `--since 7d`, `--until yesterday`.

use jiff::{
    Span, Timestamp, Zoned,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Error, Result, Zone};

/// The options `--since` and `--until` of a command, as a part of its arguments.
///
/// ```
/// use module_sdk::{TimeRangeArgs, Zone, jiff::tz::TimeZone};
///
/// /// Lists what was said.
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct ListArgs {
///     #[serde(flatten)]
///     range: TimeRangeArgs,
/// }
///
/// let args: ListArgs = serde_json::from_str(r#"{"since": "yesterday"}"#).expect("they fit");
/// let (now, zone) = ("2026-11-21T10:00:00Z".parse().expect("a time"), Zone::from(TimeZone::UTC));
/// let range = args.range.resolve("30d", now, &zone).expect("it is a range");
/// assert_eq!((range.from.to_string().as_str(), range.to), ("2026-11-20T00:00:00Z", now));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TimeRangeArgs {
    /// From when: 7d, 12h, 90m, today, yesterday, 2026-11-01, 2026-11-01T10:30.
    pub since: Option<String>,
    /// Until when, in the same forms; a day means all of it [default: now].
    pub until: Option<String>,
}

impl TimeRangeArgs {
    /// Returns the range that is meant at the moment `now`, in the days of `zone`. Without `since`
    /// it begins at `default_since`.
    ///
    /// # Errors
    ///
    /// When a text is no time, the range begins in the future, or its end is not after its
    /// beginning.
    pub fn resolve(&self, default_since: &str, now: Timestamp, zone: &Zone) -> Result<TimeRange> {
        let since = self.since.as_deref().unwrap_or(default_since);
        let now = now.to_zoned(zone.time_zone().clone());
        let shown = |time: Timestamp| {
            time.to_zoned(zone.time_zone().clone()).strftime("%Y-%m-%d %H:%M").to_string()
        };
        let from = moment("since", since, &now, Edge::Start)?;
        if from > now.timestamp() {
            let (begins, now) = (shown(from), shown(now.timestamp()));
            return Err(Error::usage(format!(
                "--since {since} begins at {begins}, which is in the future: it is {now} ({zone})"
            ))
            .hint("write a time that has passed"));
        }
        let to = match &self.until {
            Some(until) => moment("until", until, &now, Edge::End)?,
            None => now.timestamp(),
        };
        match &self.until {
            Some(until) if to <= from => Err(Error::usage(format!(
                "--until {until} ends at {} and --since {since} begins at {}",
                shown(to),
                shown(from)
            ))
            .hint("exchange them or widen the range")),
            until => {
                Ok(TimeRange { from, to, is_open: until.is_none(), zone: zone.time_zone().clone() })
            }
        }
    }
}

/// A range of time, made by [`TimeRangeArgs::resolve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeRange {
    /// First moment in the range.
    pub from: Timestamp,
    /// First moment after the range, as it is shown.
    pub to: Timestamp,
    /// `true` when no end was given: then what a clock running ahead puts after `to` counts.
    pub is_open: bool,
    /// Zone of its days and hours.
    pub zone: TimeZone,
}

/// The end of the year 9999 in Unix milliseconds, the bound of a range without an end: it includes
/// events of any clock.
const END_MS: i64 = 253_402_300_800_000;

impl TimeRange {
    /// Returns the bounds of the range for a query, in Unix milliseconds; the second is exclusive.
    #[must_use]
    pub fn bounds_ms(&self) -> (i64, i64) {
        (ceil_ms(self.from), if self.is_open { END_MS } else { ceil_ms(self.to) })
    }
}

fn ceil_ms(time: Timestamp) -> i64 {
    let ms = time.as_millisecond();
    ms + i64::from(time > Timestamp::from_millisecond(ms).unwrap_or(time))
}

/// Edge of a day that its date stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Start,
    End,
}

fn moment(option: &str, text: &str, now: &Zoned, edge: Edge) -> Result<Timestamp> {
    let text = text.trim();
    read(text, now, edge).ok_or_else(|| {
        let error = Error::usage(format!("--{option} {text:?} is no time"));
        match text.strip_prefix('-').filter(|rest| ago(rest, now).is_some()) {
            Some(ago) => error.hint(format!("write --{option} {ago}, which is that long ago")),
            None => error.hint(
                "write 7d, 12h, 90m, 2w, today, yesterday, 2026-11-01, 2026-11-01T10:30 or \
                 2026-11-01T10:30:00Z",
            ),
        }
    })
}

fn read(text: &str, now: &Zoned, edge: Edge) -> Option<Timestamp> {
    let day = |date: Date| {
        let date = if edge == Edge::End { date.tomorrow().ok()? } else { date };
        Some(date.to_zoned(now.time_zone().clone()).ok()?.timestamp())
    };
    match text {
        "now" => return Some(now.timestamp()),
        "today" => return day(now.date()),
        "yesterday" => return now.date().yesterday().ok().and_then(day),
        _ => {}
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    // Not `20261101`, which looks like a number.
    if text.len() == 10
        && let Ok(date) = text.parse::<Date>()
    {
        return day(date);
    }
    if text.contains([':', 'T'])
        && let Ok(time) = text.parse::<DateTime>()
    {
        return time.to_zoned(now.time_zone().clone()).ok().map(|time| time.timestamp());
    }
    ago(text, now)
}

/// Reads `90m`, `12h`, `7d`, `2w` before now. Days and weeks are those of the calendar.
fn ago(text: &str, now: &Zoned) -> Option<Timestamp> {
    let is_short = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && text.ends_with(['m', 'h', 'd', 'w']);
    let span: Span = text.parse().ok().filter(|_| is_short)?;
    now.checked_sub(span).ok().map(|time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use schemars::schema_for;
    use serde_json::json;

    use super::*;
    use crate::ErrorKind;

    const NOW: &str = "2026-11-21T01:30:00Z";

    fn zone(name: &str) -> Zone {
        TimeZone::get(name).expect("the zones are built in").into()
    }

    fn resolve(since: &str, until: Option<&str>, zone: &Zone) -> Result<TimeRange> {
        let args = TimeRangeArgs {
            since: (!since.is_empty()).then(|| since.to_owned()),
            until: until.map(str::to_owned),
        };
        args.resolve("30d", NOW.parse().expect("a time"), zone)
    }

    #[test]
    fn what_people_write_is_understood() {
        let vienna = zone("Europe/Vienna");
        let check = |since: &str, until: Option<&str>, expected: (&str, &str)| {
            let range = resolve(since, until, &vienna).expect(since);
            let found = (range.from.to_string(), range.to.to_string());
            assert_eq!(found, (expected.0.to_owned(), expected.1.to_owned()), "{since}");
            assert_eq!(range.is_open, until.is_none());
        };
        check("", None, ("2026-10-22T00:30:00Z", NOW));
        check("7d", None, ("2026-11-14T01:30:00Z", NOW));
        check("2w", None, ("2026-11-07T01:30:00Z", NOW));
        check("12h", None, ("2026-11-20T13:30:00Z", NOW));
        check("1h30m", None, ("2026-11-21T00:00:00Z", NOW));
        check("90m", Some("now"), ("2026-11-21T00:00:00Z", NOW));
        check("today", None, ("2026-11-20T23:00:00Z", NOW));
        let yesterday = ("2026-11-19T23:00:00Z", "2026-11-20T23:00:00Z");
        check("yesterday", Some("yesterday"), yesterday);
        check(" 2026-11-20 ", Some("2026-11-20"), yesterday);
        check("2026-11-20T10:30", None, ("2026-11-20T09:30:00Z", NOW));
        check("2026-11-20 10:30", None, ("2026-11-20T09:30:00Z", NOW));
        check("2026-11-01T10:30:00+05:30", None, ("2026-11-01T05:00:00Z", NOW));
        // Days are those of the calendar: one of these had 25 hours.
        check("28d", None, ("2026-10-24T00:30:00Z", NOW));
        check("2026-10-25", Some("2026-10-25"), ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_refused_with_examples() {
        let utc = Zone::from(TimeZone::UTC);
        let check = |since: &str, until: Option<&str>, part: &str| {
            let error = resolve(since, until, &utc).expect_err("it is refused");
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains(part), "{error}");
        };
        for text in ["7 days", "soon", "7", "20261101", "3µ", "-3x", "2026-13-01", "999999w"] {
            check(text, None, "is no time; write 7d, 12h");
        }
        check(" ", None, "--since \"\" is no time");
        check("99999999999999999999d", None, "7d, 12h");
        check("-3d", None, "write --since 3d, which is that long ago");
        check("7d", Some("-3d"), "write --until 3d");
        check(
            "2026-11-22",
            None,
            "--since 2026-11-22 begins at 2026-11-22 00:00, which is in the future: it is \
             2026-11-21 01:30 (UTC); write a time that has passed",
        );
        check("2026-11-21T01:31", Some("2027-01-01"), "in the future");
        check(
            "today",
            Some("yesterday"),
            "--until yesterday ends at 2026-11-21 00:00 and --since today begins at \
             2026-11-21 00:00; exchange them",
        );
    }

    #[test]
    fn bounds_are_whole_milliseconds() {
        let utc = Zone::from(TimeZone::UTC);
        let range = resolve("2026-11-20T00:00:00.0000001Z", Some("2026-11-20"), &utc);
        let start = 1_795_132_800_000;
        assert_eq!(range.expect("it is one").bounds_ms(), (start + 1, start + 86_400_000));
        let open = resolve("2026-11-20", None, &utc).expect("it is one");
        assert_eq!(open.bounds_ms(), (start, END_MS));
    }

    /// Lists.
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    #[derive(Default)]
    struct ListArgs {
        #[serde(flatten)]
        range: TimeRangeArgs,
        /// At most so many.
        limit: Option<u32>,
    }

    #[test]
    fn a_misspelt_option_is_answered_with_those_that_there_are() {
        let schema = schema_for!(ListArgs).to_value();
        let unknown = crate::schema::unknown_keys(&schema, &json!({"sinse": "7d", "until": "now"}));
        let told: Vec<&str> = unknown.iter().map(|misfit| misfit.message.as_str()).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("unknown field `sinse`, expected one of "), "{told:?}");
        assert!(told[0].contains("`since`"), "{told:?}");
    }

    #[test]
    fn they_are_a_part_of_the_arguments() {
        let read = |json| serde_json::from_value::<ListArgs>(json);
        let args = read(json!({"since": "7d", "limit": 3})).expect("they fit");
        assert_eq!((args.range.since.as_deref(), args.limit), (Some("7d"), Some(3)));
        let error = read(json!({"sinse": "7d"})).expect_err("there is no such argument");
        assert!(error.to_string().contains("unknown field `sinse`"), "{error}");
        let schema = schema_for!(ListArgs).to_value();
        let mut names: Vec<&String> =
            schema["properties"].as_object().expect("its options").keys().collect();
        names.sort();
        assert_eq!(names, ["limit", "since", "until"]);
    }
}

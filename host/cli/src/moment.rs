//! Times as people write them on the command line.

use jiff::{Span, Timestamp, Zoned, civil::Date, civil::DateTime};

use crate::error::{CliError, Result};

/// What a day stands for: its first moment or the end of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    Start,
    End,
}

/// The moment that `text`, given to `--option`, means: `now`, `today`, `yesterday`, a time ago
/// (`90m`, `12h`, `7d`, `2w`), a day, a local time or one with its zone.
///
/// # Errors
///
/// When it is none of these.
pub(crate) fn moment(option: &str, text: &str, now: &Zoned, edge: Edge) -> Result<Timestamp> {
    read(text.trim(), now, edge).ok_or_else(|| {
        let ago = text.trim().strip_prefix('-').filter(|rest| ago(rest, now).is_some());
        let help = match ago {
            Some(ago) => format!("write --{option} {ago}, which is that long ago"),
            None => "write 90m, 12h, 7d, 2w, today, yesterday, 2026-11-01, 2026-11-01T10:30 or \
                     2026-11-01T10:30:00Z"
                .to_owned(),
        };
        CliError::usage(format!("--{option} {text:?} is no time")).help(help)
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

fn ago(text: &str, now: &Zoned) -> Option<Timestamp> {
    let is_short = text.starts_with(|c: char| c.is_ascii_digit()) && text.is_ascii();
    let span: Span =
        text.parse().ok().filter(|_| is_short && text.ends_with(['m', 'h', 'd', 'w']))?;
    now.checked_sub(span).ok().map(|time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        "2026-11-21T02:30:00+01:00[Europe/Vienna]".parse().expect("a time")
    }

    #[test]
    fn understands_what_people_write() {
        let check = |text: &str, edge: Edge, expected: &str| {
            let found = moment("since", text, &now(), edge).expect(text);
            assert_eq!(found.to_string(), expected, "{text}");
        };
        check("now", Edge::Start, "2026-11-21T01:30:00Z");
        check("90m", Edge::Start, "2026-11-21T00:00:00Z");
        check("12h", Edge::Start, "2026-11-20T13:30:00Z");
        check("7d", Edge::Start, "2026-11-14T01:30:00Z");
        check("2w", Edge::Start, "2026-11-07T01:30:00Z");
        // One of these days had 25 hours.
        check("28d", Edge::Start, "2026-10-24T00:30:00Z");
        check("today", Edge::Start, "2026-11-20T23:00:00Z");
        check("yesterday", Edge::Start, "2026-11-19T23:00:00Z");
        check("yesterday", Edge::End, "2026-11-20T23:00:00Z");
        check("2026-11-20", Edge::End, "2026-11-20T23:00:00Z");
        check("2026-11-20T10:30", Edge::Start, "2026-11-20T09:30:00Z");
        check("2026-11-01T10:30:00+05:30", Edge::End, "2026-11-01T05:00:00Z");
    }

    #[test]
    fn says_what_would_be_a_time() {
        let check = |text: &str, part: &str| {
            let error = moment("since", text, &now(), Edge::Start).expect_err(text);
            let failure = error.failure().expect("a failure");
            assert_eq!(failure.exit, 2);
            let help = failure.help.as_deref().unwrap_or_default();
            assert!(help.contains(part), "{text}: {help}");
        };
        check("-3d", "write --since 3d");
        check("soon", "90m, 12h");
        check("", "90m, 12h");
        check("7", "90m, 12h");
        check("20261101", "90m, 12h");
        check("2026-13-01", "90m, 12h");
        check("9999999w", "90m, 12h");
    }
}

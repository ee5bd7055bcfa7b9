//! The days of a range of time.

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};

/// Returns the days of a zone that overlap a range of milliseconds, each with its part of it. They
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

    #[test]
    fn days_have_their_true_lengths() {
        let check = |name: &str, from: &str, to: &str, hours: &[i64]| {
            let ms = |text: &str| text.parse::<Timestamp>().expect("a time").as_millisecond();
            let days =
                days(ms(from), ms(to), &TimeZone::get(name).expect("the zones are built in"));
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

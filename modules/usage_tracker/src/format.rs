//! Numbers as people read them in a table of 80 columns.

use jiff::{Timestamp, tz::TimeZone};

use crate::query::Usd;

/// Money with as many digits as its size deserves: `$1235`, `$12.34`, `$0.0343`, `<$0.0001`.
pub(crate) fn usd(money: Option<Usd>) -> String {
    let Some(money) = money else { return "-".to_owned() };
    let (sign, nano) =
        if money.0 < 0 { ("-", money.0.unsigned_abs()) } else { ("", money.0 as u64) };
    let decimals = match nano {
        0 => 2,
        n if n >= 1_000_000_000_000 => 0,
        n if n >= 1_000_000_000 => 2,
        _ => 4,
    };
    let step = 10_u64.pow(9 - decimals);
    let rounded = (nano + step / 2) / step;
    if rounded == 0 && nano > 0 {
        return format!("{sign}<$0.0001");
    }
    let scale = 10_u64.pow(decimals);
    let (whole, rest) = (rounded / scale, rounded % scale);
    if decimals == 0 {
        return format!("{sign}${whole}");
    }
    let mut text = format!("{sign}${whole}.{rest:0width$}", width = decimals as usize);
    // Two decimals always, more only where they say something.
    while decimals > 2 && text.ends_with('0') && text.len() - text.find('.').unwrap_or(0) > 3 {
        text.pop();
    }
    text
}

/// A count: `950`, `12.3k`, `1.2M`, `4.5G`.
pub(crate) fn count(number: i64) -> String {
    let size = number.unsigned_abs();
    let (unit, name) = match size {
        0..10_000 => return number.to_string(),
        10_000..1_000_000 => (1_000, "k"),
        1_000_000..1_000_000_000 => (1_000_000, "M"),
        _ => (1_000_000_000, "G"),
    };
    let sign = if number < 0 { "-" } else { "" };
    let tenths = (size + unit / 20) / (unit / 10);
    if tenths >= 1_000 {
        format!("{sign}{}{name}", (size + unit / 2) / unit)
    } else {
        format!("{sign}{}.{}{name}", tenths / 10, tenths % 10)
    }
}

/// A duration: `85ms`, `1.2s`, `3m05s`, `2h10m`.
pub(crate) fn milliseconds(ms: Option<u64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms @ 0..1_000) => format!("{ms}ms"),
        Some(ms @ 1_000..60_000) => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        Some(ms @ 60_000..3_600_000) => format!("{}m{:02}s", ms / 60_000, ms % 60_000 / 1_000),
        Some(ms) => format!("{}h{:02}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// A time in a zone, to the minute.
pub(crate) fn minute(ms: i64, zone: &TimeZone) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap_or_default();
    time.to_zoned(zone.clone()).strftime("%m-%d %H:%M").to_string()
}

/// A text that fits: control characters are shown as `?`, what is too long is cut in the middle.
pub(crate) fn short(text: &str, most: usize) -> String {
    let clean: Vec<char> =
        text.chars().map(|char| if char.is_control() { '?' } else { char }).collect();
    if clean.len() <= most {
        return clean.into_iter().collect();
    }
    let tail = most / 3;
    let head = most.saturating_sub(tail + 1);
    clean[..head].iter().chain(&['…']).chain(&clean[clean.len() - tail..]).collect()
}

/// Shows ids by as many of their first characters as tell these ids apart: at least `least`, at
/// most `most`.
pub(crate) fn beginnings<'a>(
    ids: impl IntoIterator<Item = &'a str>,
    least: usize,
    most: usize,
) -> impl Fn(&str) -> String {
    let mut ids: Vec<&str> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    let alike = |pair: &[&str]| {
        let both = pair[0].chars().zip(pair[1].chars());
        both.take_while(|(left, right)| left == right).count()
    };
    let needed = ids.windows(2).map(alike).max().map_or(least, |alike| alike + 1);
    let shown = needed.clamp(least, most);
    move |id| {
        let is_cut = needed > most && id.chars().count() > most;
        let taken = id.chars().take(if is_cut { most - 1 } else { shown });
        let mut text: String = taken.map(|c| if c.is_control() { '?' } else { c }).collect();
        if is_cut {
            text.push('…');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_readable() {
        let check = |nano, expected: &str| assert_eq!(usd(Some(Usd(nano))), expected);
        check(0, "$0.00");
        check(1, "<$0.0001");
        check(3_435_000, "$0.0034");
        check(3_050_000, "$0.0031");
        check(34_349_000, "$0.0343");
        check(500_000_000, "$0.50");
        check(12_345_678_901, "$12.35");
        check(999_999_999, "$1.00");
        check(1_234_567_890_123, "$1235");
        check(-2_500_000_000, "-$2.50");
        assert_eq!(usd(None), "-");
    }

    #[test]
    fn counts_are_readable() {
        let check = |number, expected: &str| assert_eq!(count(number), expected);
        check(0, "0");
        check(9_999, "9999");
        check(12_345, "12.3k");
        check(99_999, "100k");
        check(999_999, "1000k");
        check(1_250_000, "1.3M");
        check(123_456_789, "123M");
        check(-12_345, "-12.3k");
        check(4_500_000_000, "4.5G");
    }

    #[test]
    fn ids_are_shown_as_far_as_they_differ() {
        let check = |ids: &[&str], expected: &[&str]| {
            let shown = beginnings(ids.iter().copied(), 4, 8);
            let shown: Vec<String> = ids.iter().map(|id| shown(id)).collect();
            assert_eq!(shown, expected);
        };
        check(&[], &[]);
        check(&["abcdefghijkl"], &["abcd"]);
        check(&["abcdefghijkl", "abcdefghijkl", "ab"], &["abcd", "abcd", "ab"]);
        check(&["abcdeXghijkl", "zzzzzz", "abcdeYghijkl"], &["abcdeX", "zzzzzz", "abcdeY"]);
        check(&["abcdefgh1234", "abcdefgh5678", "x"], &["abcdefg…", "abcdefg…", "x"]);
        check(&["a\u{1b}[31mb"], &["a?[3"]);
    }

    #[test]
    fn durations_and_texts_are_readable() {
        let check = |ms, expected: &str| assert_eq!(milliseconds(Some(ms)), expected);
        check(0, "0ms");
        check(1_234, "1.2s");
        check(185_000, "3m05s");
        check(7_800_000, "2h10m");
        assert_eq!(short("claude-sonnet-4-5-20250929", 20), "claude-sonnet…250929");
        assert_eq!(short("a\u{1b}[31mb", 20), "a?[31mb");
    }
}

//! Formatting of numbers, times and texts for a table of 80 columns.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use module_sdk::{Usd, human};

/// Formats an amount of money; `-` for none.
pub(crate) fn usd(money: Option<Usd>) -> String {
    money.map_or_else(|| "-".to_owned(), human::usd)
}

/// Formats a duration; `-` for none.
pub(crate) fn milliseconds(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| human::duration(Duration::from_millis(ms)))
}

/// Formats a time in a zone, to the minute.
pub(crate) fn minute(ms: i64, zone: &TimeZone) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap_or_default();
    time.to_zoned(zone.clone()).strftime("%m-%d %H:%M").to_string()
}

/// Shortens a text to `most` characters: control characters are shown as `?`, and a longer text is
/// cut in the middle.
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

/// Returns a function that shortens ids to as many of their first characters as tell these ids
/// apart: at least `least`, at most `most`.
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
    fn what_is_not_known_is_a_dash_and_texts_fit() {
        assert_eq!((usd(None), milliseconds(None)), ("-".to_owned(), "-".to_owned()));
        assert_eq!(milliseconds(Some(185_000)), "3m 5s");
        assert_eq!(short("claude-sonnet-4-5-20250929", 20), "claude-sonnet…250929");
        assert_eq!(short("a\u{1b}[31mb", 20), "a?[31mb");
    }
}

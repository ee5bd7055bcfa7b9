//! Cells of tables.

use std::time::Duration;

use module_sdk::{Usd, human};

/// Shows an amount of money in nano-USD; `-` for one that is not known.
pub(super) fn money(nano: Option<i64>) -> String {
    nano.map_or_else(|| "-".to_owned(), |nano| human::usd(Usd::from_nano(nano)))
}

/// Shows a duration; `-` for none.
pub(super) fn milliseconds(ms: Option<u32>) -> String {
    let shown = |ms| human::duration(Duration::from_millis(u64::from(ms)));
    ms.map_or_else(|| "-".to_owned(), shown)
}

/// Shows a count; `-` for one that is not known.
pub(super) fn tokens(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), human::count)
}

/// Writes out what a terminal would obey; line ends stay.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    shown
}

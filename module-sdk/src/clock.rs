//! The clock of the machine, which may stand wrong: embedded boards start in 1970, a flat battery
//! gives 1972 or 2099.

use jiff::Timestamp;

/// 2026-01-01, in Unix seconds: no clock of a daemon that runs this code stands before.
pub const EARLIEST_S: i64 = 1_767_225_600;

/// 2056-01-01, in Unix seconds: nor after.
pub const LATEST_S: i64 = 2_713_910_400;

/// Returns whether a clock that shows this time can be right.
///
/// ```
/// use module_sdk::{clock::is_plausible, jiff::Timestamp};
///
/// assert!(!is_plausible(Timestamp::UNIX_EPOCH));
/// ```
#[must_use]
pub fn is_plausible(now: Timestamp) -> bool {
    (EARLIEST_S..=LATEST_S).contains(&now.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_years_are_plausible() {
        let check = |time: &str, expected: bool| {
            assert_eq!(is_plausible(time.parse().expect("a time")), expected, "{time}");
        };
        check("1970-01-01T00:00:01Z", false);
        check("2025-12-31T23:59:59Z", false);
        check("2026-01-01T00:00:00Z", true);
        check("2056-01-01T00:00:00Z", true);
        check("2056-01-01T00:00:01Z", false);
    }
}

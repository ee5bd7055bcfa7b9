//! Numbers as people read them in a table. JSON has the exact ones.
//!
//! ```
//! use std::time::Duration;
//! use module_sdk::{Usd, human};
//!
//! assert_eq!(human::count(12_345_u64), "12,345");
//! assert_eq!(human::count(1_234_567_u64), "1.23M");
//! assert_eq!(human::exact(1_234_567_u64), "1,234,567");
//! assert_eq!(human::bytes(4_300_000), "4.10 MiB");
//! assert_eq!(human::duration(Duration::from_millis(1_250)), "1.25s");
//! assert_eq!(human::usd(Usd::from_nano(34_349_000)), "$0.0343");
//! ```

use std::time::Duration;

use crate::Usd;

const SECOND: u128 = 1_000_000_000;

/// Bound below which counts are shown whole.
const WHOLE: u128 = 100_000;

/// Shows a count: whole below 100,000, then with three digits and a unit.
pub fn count(number: impl Into<i128>) -> String {
    let number = number.into();
    if number.unsigned_abs() < WHOLE {
        return exact(number);
    }
    let units = [(1_000, "k"), (1_000_000, "M"), (1_000_000_000, "G"), (10_u128.pow(12), "T")];
    signed(number) + &scaled(number.unsigned_abs(), &units)
}

/// Shows every digit of a count, in groups of three.
pub fn exact(number: impl Into<i128>) -> String {
    let number = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut grouped = signed(number);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Shows a size, in bytes or with three digits and a binary unit.
#[must_use]
pub fn bytes(number: u64) -> String {
    if number < 1 << 10 {
        return format!("{number} B");
    }
    let units = [
        (1 << 10, " KiB"),
        (1 << 20, " MiB"),
        (1 << 30, " GiB"),
        (1 << 40, " TiB"),
        (1 << 50, " PiB"),
    ];
    scaled(number.into(), &units)
}

/// Shows a length of time: three digits below a minute, then its two largest units.
#[must_use]
pub fn duration(length: Duration) -> String {
    let nanoseconds = length.as_nanos();
    // Otherwise 59.96 s would be shown as 60 seconds.
    if nanoseconds < 60 * SECOND - SECOND / 20 {
        let units = [(1, "ns"), (1_000, "µs"), (1_000_000, "ms"), (SECOND, "s")];
        return if nanoseconds == 0 { "0s".to_owned() } else { scaled(nanoseconds, &units) };
    }
    let seconds = (nanoseconds + SECOND / 2) / SECOND;
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m {seconds}s"),
        (0, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Shows money with as many digits as its size deserves; the exact amount is its `Display`.
#[must_use]
pub fn usd(amount: Usd) -> String {
    let sign = signed(amount.nano());
    let nano = u128::from(amount.nano().unsigned_abs());
    let decimals = match nano {
        0 => 2,
        nano if nano >= 1_000 * SECOND => 0,
        nano if nano >= SECOND => 2,
        _ => 4,
    };
    let step = 10_u128.pow(9 - decimals);
    let rounded = (nano + step / 2) / step;
    if rounded == 0 && nano > 0 {
        return format!("{sign}<$0.0001");
    }
    let scale = 10_u128.pow(decimals);
    let (whole, rest) = (rounded / scale, rounded % scale);
    let whole = exact(i128::try_from(whole).unwrap_or(i128::MAX));
    if decimals == 0 {
        return format!("{sign}${whole}");
    }
    let rest = format!("{rest:0width$}", width = decimals as usize);
    // Two decimals always, more only where they say something.
    let (cents, more) = rest.split_at(2);
    format!("{sign}${whole}.{cents}{}", more.trim_end_matches('0'))
}

fn signed(number: impl Into<i128>) -> String {
    if number.into() < 0 { "-".to_owned() } else { String::new() }
}

/// Shows a number in the largest unit that leaves a digit before the point: whole where it is
/// whole, otherwise with three digits.
fn scaled(number: u128, units: &[(u128, &str)]) -> String {
    // 999.5 would be shown as 1000.
    let fits = |(unit, _): &&(u128, &str)| number * 2 < unit * 1_999;
    let (unit, name) = units.iter().find(fits).or(units.last()).copied().unwrap_or((1, ""));
    if number.is_multiple_of(unit) {
        return format!("{}{name}", number / unit);
    }
    let rounded = |scale: u128| (number * scale + unit / 2) / unit;
    let (digits, decimals) = match (rounded(100), rounded(10)) {
        (hundredths, _) if hundredths < 1_000 => (hundredths, 2),
        (_, tenths) if tenths < 1_000 => (tenths, 1),
        _ => (rounded(1), 0),
    };
    let scale = 10_u128.pow(decimals);
    let (whole, rest) = (digits / scale, digits % scale);
    match decimals {
        0 => format!("{whole}{name}"),
        _ => format!("{whole}.{rest:0width$}{name}", width = decimals as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let check = |number: i128, expected: &str| assert_eq!(count(number), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(99_999, "99,999");
        check(-12_345, "-12,345");
        check(100_000, "100k");
        check(999_499, "999k");
        check(999_500, "1.00M");
        check(1_000_000, "1M");
        check(1_250_000, "1.25M");
        check(-1_250_000, "-1.25M");
        check(10_000_000, "10M");
        check(123_456_789, "123M");
        check(999_600_000, "1.00G");
        check(4_500_000_000, "4.50G");
        check(u64::MAX.into(), "18446744T");
        assert_eq!(exact(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(exact(i64::MIN), "-9,223,372,036,854,775,808");
    }

    #[test]
    fn sizes() {
        let check = |number, expected: &str| assert_eq!(bytes(number), expected);
        check(0, "0 B");
        check(1_023, "1023 B");
        check(1_024, "1 KiB");
        check(1_536, "1.50 KiB");
        check(4_300_000, "4.10 MiB");
        check(1_023_500, "0.98 MiB");
        check(1_073_000_000, "1.00 GiB");
        check(u64::MAX, "16384 PiB");
    }

    #[test]
    fn durations() {
        let check = |nanoseconds: u64, expected: &str| {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), expected);
        };
        check(0, "0s");
        check(999, "999ns");
        check(1_500, "1.50µs");
        check(999_600, "1.00ms");
        check(41_000_000, "41ms");
        check(41_200_000, "41.2ms");
        check(999_400_000, "999ms");
        check(1_250_000_000, "1.25s");
        check(59_940_000_000, "59.9s");
        check(59_960_000_000, "1m 0s");
        check(185_000_000_000, "3m 5s");
        check(3_599_700_000_000, "1h 0m");
        check(18_420_000_000_000, "5h 7m");
        check(86_400_000_000_000 * 3, "3d 0h");
    }

    #[test]
    fn money() {
        let check = |nano, expected: &str| assert_eq!(usd(Usd::from_nano(nano)), expected);
        check(0, "$0.00");
        check(1, "<$0.0001");
        check(-1, "-<$0.0001");
        check(3_435_000, "$0.0034");
        check(3_050_000, "$0.0031");
        check(34_349_000, "$0.0343");
        check(500_000_000, "$0.50");
        check(12_345_678_901, "$12.35");
        check(999_999_999, "$1.00");
        check(1_234_567_890_123, "$1,235");
        check(-2_500_000_000, "-$2.50");
        check(i64::MAX, "$9,223,372,037");
    }
}

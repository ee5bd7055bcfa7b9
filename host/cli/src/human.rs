//! Numbers, times and foreign text as people read them. JSON has the exact ones.

/// Text that came from elsewhere.
pub(crate) use lodestar_platform::visible::visible as plain;

/// A count: exact with separators below ten million, then with three digits.
pub(crate) fn count(number: u64) -> String {
    if number < 10_000_000 {
        return grouped(number);
    }
    scaled(number, 1_000, &["k", "M", "G", "T", "P", "E"])
}

/// A size in bytes.
pub(crate) fn bytes(number: u64) -> String {
    if number < 1_024 {
        return format!("{number} B");
    }
    scaled(number, 1_024, &[" KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
}

/// A length of time, the two largest units of it.
pub(crate) fn duration_s(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// A length of time in milliseconds; below a second as it is.
pub(crate) fn duration_ms(milliseconds: u64) -> String {
    match milliseconds {
        0..1_000 => format!("{milliseconds}ms"),
        1_000..10_000 => format!("{}.{}s", milliseconds / 1_000, milliseconds / 100 % 10),
        _ => duration_s(milliseconds / 1_000),
    }
}

/// A length of time in nanoseconds, with three digits.
pub(crate) fn duration_ns(nanoseconds: u64) -> String {
    if nanoseconds < 1_000 {
        return format!("{nanoseconds}ns");
    }
    scaled(nanoseconds, 1_000, &["µs", "ms", "s"])
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn scaled(number: u64, step: u64, units: &[&str]) -> String {
    let mut value = number as f64;
    let mut unit = "";
    for next in units {
        // 999.5 would be shown as 1000.
        if value < 999.5 {
            break;
        }
        value /= step as f64;
        unit = next;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let check = |number, expected: &str| assert_eq!(count(number), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(9_999_999, "9,999,999");
        check(10_000_000, "10.0M");
        check(999_600_000, "1.00G");
        check(u64::MAX, "18.4E");
    }

    #[test]
    fn sizes() {
        let check = |number, expected: &str| assert_eq!(bytes(number), expected);
        check(0, "0 B");
        check(1_023, "1023 B");
        check(1_024, "1.00 KiB");
        check(4_300_000, "4.10 MiB");
        check(1_073_000_000, "1.00 GiB");
    }

    #[test]
    fn durations() {
        let check = |milliseconds, expected: &str| assert_eq!(duration_ms(milliseconds), expected);
        check(41, "41ms");
        check(1_250, "1.2s");
        check(59_000, "59s");
        check(61_000, "1m 1s");
        check(3_600_000 * 5 + 60_000 * 7, "5h 7m");
        check(86_400_000 * 3, "3d 0h");
    }

    #[test]
    fn short_durations() {
        let check = |nanoseconds, expected: &str| assert_eq!(duration_ns(nanoseconds), expected);
        check(0, "0ns");
        check(999, "999ns");
        check(1_500, "1.50µs");
        check(41_200_000, "41.2ms");
        check(999_400_000, "999ms");
        check(2_310_000_000, "2.31s");
        check(137_000_000_000, "137s");
    }
}

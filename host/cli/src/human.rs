//! Numbers, times and foreign text as people read them. JSON has the exact ones.

use std::time::Duration;

use module_sdk::human::duration;
pub(crate) use module_sdk::human::{bytes, count, exact};

/// Text from elsewhere, with hidden characters escaped.
pub(crate) use lodestar_platform::visible::visible as plain;

/// Shows a length of time in seconds.
pub(crate) fn duration_s(seconds: u64) -> String {
    duration(Duration::from_secs(seconds))
}

/// Shows a length of time in milliseconds.
pub(crate) fn duration_ms(milliseconds: u64) -> String {
    duration(Duration::from_millis(milliseconds))
}

/// Shows a length of time in nanoseconds.
pub(crate) fn duration_ns(nanoseconds: u64) -> String {
    duration(Duration::from_nanos(nanoseconds))
}

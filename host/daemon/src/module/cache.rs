//! Values that a module caches in the host's memory for a limited time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The largest value, in bytes.
const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// The most bytes that all values of a module may take with their keys: what its own allocator does
/// not count must not grow without a limit either.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The most values that a module may have.
const MAX_VALUES: usize = 10_000;

/// The longest time to live: a century, which can be added to any instant.
const MAX_TTL: Duration = Duration::from_hours(24 * 36_525);

/// The cached values of one generation of a module.
#[derive(Debug, Default)]
pub(super) struct Cache {
    values: HashMap<String, (Instant, Vec<u8>)>,
    /// Size of all keys and values.
    bytes: usize,
}

impl Cache {
    /// Returns the value of a key, where there is one that has not expired.
    pub(super) fn get(&self, key: &str, now: Instant) -> Option<&[u8]> {
        let (expires, value) = self.values.get(key)?;
        (*expires > now).then_some(value)
    }

    /// Caches a value where there is room; the old value of the key is gone either way. An empty
    /// value only removes the old one.
    pub(super) fn set(&mut self, key: &str, value: &[u8], now: Instant, ttl: Duration) {
        if let Some((_, old)) = self.values.remove(key) {
            self.bytes -= key.len() + old.len();
        }
        let bytes = key.len() + value.len();
        if value.is_empty() || value.len() > MAX_VALUE_BYTES {
            return;
        }
        if !self.has_room(bytes) {
            self.values.retain(|_, (expires, _)| *expires > now);
            self.bytes = self.values.iter().map(|(key, (_, value))| key.len() + value.len()).sum();
        }
        if self.has_room(bytes) {
            self.bytes += bytes;
            self.values.insert(key.to_owned(), (now + ttl.min(MAX_TTL), value.to_vec()));
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.values.len() < MAX_VALUES && self.bytes + bytes <= MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_value_stays_until_it_expires_or_is_replaced() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.set("a", b"one", now, HOUR);
        assert_eq!(cache.get("a", now), Some(&b"one"[..]));
        assert_eq!(cache.get("a", now + HOUR), None);
        cache.set("a", b"three", now, Duration::MAX);
        assert_eq!((cache.get("a", now + HOUR), cache.bytes), (Some(&b"three"[..]), 6));
        cache.set("a", b"", now, HOUR);
        assert_eq!((cache.get("a", now), cache.bytes), (None, 0));
    }

    #[test]
    fn bytes_and_number_are_bounded_and_the_expired_make_room() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.set("large", &vec![1; MAX_VALUE_BYTES + 1], now, HOUR);
        assert_eq!(cache.get("large", now), None);
        for number in 0..20 {
            cache.set(&format!("{number:02}"), &vec![1; MAX_VALUE_BYTES], now, HOUR);
        }
        assert!(cache.bytes <= MAX_BYTES, "{}", cache.bytes);
        assert!(cache.get("14", now).is_some() && cache.get("15", now).is_none());
        cache.set("15", &vec![1; MAX_VALUE_BYTES], now + HOUR, HOUR);
        assert_eq!((cache.values.len(), cache.bytes), (1, 2 + MAX_VALUE_BYTES));
        for number in 0..2 * MAX_VALUES {
            cache.set(&number.to_string(), b"v", now + HOUR, HOUR);
        }
        assert_eq!(cache.values.len(), MAX_VALUES);
    }
}

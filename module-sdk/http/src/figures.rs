//! Counters of a listener.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Time for which a problem is reported after it was last seen.
const RECENT: Duration = Duration::from_secs(60);

/// Reason for the end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Closed by either side.
    Done,
    /// No request for too long.
    Idle,
    /// Head of a request took too long.
    SlowHead,
    /// Client that did not read the response.
    Unread,
    /// Closed to make room for a new connection.
    Displaced,
}

impl End {
    /// All reasons.
    pub const ALL: [Self; 5] =
        [Self::Done, Self::Idle, Self::SlowHead, Self::Unread, Self::Displaced];

    /// Returns the label in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Idle => "idle",
            Self::SlowHead => "slow_head",
            Self::Unread => "unread",
            Self::Displaced => "displaced",
        }
    }
}

/// Counters of a listener since it was opened.
#[derive(Debug, Default)]
pub struct Figures {
    limit: usize,
    pub(crate) open: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    accept_errors: AtomicU64,
    ended: [AtomicU64; End::ALL.len()],
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    refused: Option<(Instant, Shortage)>,
    accept_error: Option<(Instant, String)>,
}

/// Resource that was short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    Connections,
    Descriptors,
}

/// Counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Maximum of connections open at once.
    pub limit: usize,
    /// Connections open now.
    pub open: usize,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Clients refused so far because there was no room.
    pub refused: u64,
    /// Errors of `accept` so far.
    pub accept_errors: u64,
    /// Connections ended so far, in the order of [`End::ALL`].
    pub ended: [u64; End::ALL.len()],
}

impl Figures {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Returns the current counters.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Snapshot {
            limit: self.limit,
            open: self.open.load(Ordering::Relaxed),
            accepted: read(&self.accepted),
            refused: read(&self.refused),
            accept_errors: read(&self.accept_errors),
            ended: self.ended.each_ref().map(read),
        }
    }

    /// Returns a description of what kept clients out within the last minute, a sentence without
    /// its end.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let Snapshot { limit, open, refused, accept_errors, .. } = self.snapshot();
        let trouble = self.locked();
        if let Some((when, error)) = &trouble.accept_error
            && when.elapsed() < RECENT
        {
            return Some(format!(
                "the system gave no connection {accept_errors} times, last {} s ago: {error}",
                when.elapsed().as_secs()
            ));
        }
        let (when, shortage) = trouble.refused.filter(|(when, _)| when.elapsed() < RECENT)?;
        let why = match shortage {
            Shortage::Connections => "all connections were in use",
            Shortage::Descriptors => "the process had hardly any descriptors left",
        };
        Some(format!(
            "{why}: {refused} clients were refused so far, the last one {} s ago; {open} of \
             {limit} connections are open",
            when.elapsed().as_secs()
        ))
    }

    pub(crate) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_end(&self, end: End) {
        self.ended[end as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_refused(&self, shortage: Shortage) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.locked().refused = Some((Instant::now(), shortage));
    }

    /// Counts a failure to accept; returns whether it is the first for a while.
    pub(crate) fn count_error(&self, error: &io::Error) -> bool {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
        let mut trouble = self.locked();
        let before = trouble.accept_error.replace((Instant::now(), error.to_string()));
        before.is_none_or(|(when, _)| when.elapsed() >= RECENT)
    }

    fn locked(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_in_their_order() {
        let figures = Figures::new(1);
        for (index, end) in (1..).zip(End::ALL) {
            (0..index).for_each(|_| figures.count_end(end));
        }
        assert_eq!(figures.snapshot().ended, [1, 2, 3, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trouble_is_told_with_its_numbers_and_passes() {
        let figures = Figures::new(8);
        assert_eq!(figures.trouble(), None);
        figures.count_refused(Shortage::Connections);
        figures.count_refused(Shortage::Connections);
        tokio::time::advance(Duration::from_secs(3)).await;
        let told = figures.trouble().expect("clients were refused");
        assert!(told.contains("2 clients were refused so far, the last one 3 s ago"), "{told}");
        assert!(told.contains("0 of 8 connections"), "{told}");
        assert!(figures.count_error(&io::Error::from_raw_os_error(24)), "it is new");
        assert!(!figures.count_error(&io::Error::from_raw_os_error(24)), "it is not");
        let told = figures.trouble().expect("the system gave none");
        assert!(told.contains("no connection 2 times, last 0 s ago: Too many"), "{told}");
        tokio::time::advance(RECENT).await;
        assert_eq!(figures.trouble(), None);
    }
}

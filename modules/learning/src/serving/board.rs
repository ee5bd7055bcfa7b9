//! News of the servers that come with Lodestar.

use std::{
    net::SocketAddr,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// News of a server, for everybody who waits for it.
#[derive(Debug, Clone, Default)]
pub(super) struct News {
    /// Times that it died, or could not be started.
    pub deaths: u64,
    /// Reason of the last time; none once it is well.
    pub reason: Option<String>,
    /// Its address, once it has one.
    pub address: Option<SocketAddr>,
}

/// The news of both, and what wakes those who wait for some.
#[derive(Debug, Default)]
pub(super) struct Board {
    news: [Mutex<News>; 2],
    changed: Condvar,
}

impl Board {
    pub(super) fn of(&self, which: Which) -> MutexGuard<'_, News> {
        lock(&self.news[which as usize])
    }

    pub(super) fn note(&self, which: Which, reason: String) {
        let mut news = self.of(which);
        news.deaths += 1;
        news.reason = Some(reason);
        self.changed.notify_all();
    }

    /// Waits for a while for one more death than these; returns the news.
    pub(super) fn watch(&self, which: Which, deaths: u64, time: Duration) -> News {
        let lives = |news: &mut News| news.deaths <= deaths;
        let waited = self.changed.wait_timeout_while(self.of(which), time, lives);
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Front,
    Side,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Money that the router may spend for itself in a day.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use module_sdk::{Host, Result};
use serde::{Deserialize, Serialize};

use crate::app::App;

/// Budget of a day (UTC). What was spent outlasts a restart.
#[derive(Debug)]
pub(crate) struct DailyBudget {
    /// Name of the state.
    name: &'static str,
    limit: i64,
    spent: Mutex<Spent>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    day: Option<Date>,
    nano_usd: i64,
}

impl DailyBudget {
    /// Reads what was spent today; `name` is that of its state.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub(crate) fn load(name: &'static str, host: &Host, limit: i64) -> Result<Self> {
        let spent = host.load_state(name)?.unwrap_or_default();
        Ok(Self { name, limit, spent: Mutex::new(spent) })
    }

    fn lock(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether so much more may be spent today.
    pub(crate) fn has_room(&self, now: Timestamp, more: i64) -> bool {
        self.lock().on(now).saturating_add(more) <= self.limit
    }

    /// Counts what is expected to be spent, where there is room for it. What it comes to is
    /// [told](Self::spend) as the difference.
    pub(crate) fn reserve(&self, now: Timestamp, expected: i64) -> bool {
        let mut spent = self.lock();
        let has_room = spent.on(now).saturating_add(expected) <= self.limit;
        if has_room {
            spent.add(now, expected);
        }
        has_room
    }

    #[cfg(test)]
    fn spent(&self, now: Timestamp) -> i64 {
        self.lock().on(now)
    }

    fn count(&self, now: Timestamp, cost: i64) -> Spent {
        let mut spent = self.lock();
        spent.add(now, cost);
        *spent
    }

    /// Counts what was spent, or less of it where it is negative, and writes it down.
    pub(crate) async fn spend(&self, app: &App, cost: i64) {
        let spent = self.count(app.host.now(), cost);
        let (name, host) = (self.name, app.host.clone());
        let written = tokio::task::spawn_blocking(move || host.save_state(name, &spent)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(budget = name, %error, "what was spent today is not written down");
        }
    }
}

impl Spent {
    fn on(&self, now: Timestamp) -> i64 {
        if self.day == Some(day(now)) { self.nano_usd } else { 0 }
    }

    fn add(&mut self, now: Timestamp, cost: i64) {
        let sum = self.on(now).saturating_add(cost);
        // What was reserved yesterday and not spent is nothing of today.
        *self = Self { day: Some(day(now)), nano_usd: sum.max(0) };
    }
}

fn day(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use module_sdk::testing::FakeHost;

    use super::*;

    #[test]
    fn a_day_has_its_own_money() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let host = Arc::new(FakeHost::new(directory.path())).host().expect("a host");
        let budget = DailyBudget::load("quality", &host, 100).expect("it is read");
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let (today, tomorrow) = (at("2026-11-30T23:59:59Z"), at("2026-12-01T00:00:00Z"));
        assert!(budget.has_room(today, 100) && !budget.has_room(today, 101));
        budget.count(today, 60);
        assert!(budget.has_room(today, 40) && !budget.has_room(today, 41));
        assert!(budget.has_room(tomorrow, 100));
        let spent = budget.count(today, 30);
        host.save_state("quality", &spent).expect("it is written");
        let again = DailyBudget::load("quality", &host, 100).expect("it is read");
        assert!(again.has_room(today, 10) && !again.has_room(today, 11));
    }

    #[test]
    fn what_was_reserved_and_not_spent_can_be_spent() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let host = Arc::new(FakeHost::new(directory.path())).host().expect("a host");
        let budget = DailyBudget::load("shadows", &host, 100).expect("it is read");
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let (today, tomorrow) = (at("2026-11-30T12:00:00Z"), at("2026-12-01T00:00:00Z"));
        assert!(budget.reserve(today, 70) && !budget.reserve(today, 40));
        budget.count(today, 10 - 70);
        assert_eq!(budget.spent(today), 10);
        assert!(budget.reserve(today, 90));
        budget.count(tomorrow, -90);
        assert_eq!(budget.spent(tomorrow), 0);
    }
}

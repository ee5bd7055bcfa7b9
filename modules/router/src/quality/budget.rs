//! The money that the checks of a day may cost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use module_sdk::{Host, Result};
use serde::{Deserialize, Serialize};

use crate::app::App;

/// Name of the state.
const STATE: &str = "quality";

/// Budget of a day (UTC). What was spent outlasts a restart.
#[derive(Debug)]
pub(super) struct DailyBudget {
    limit: i64,
    spent: Mutex<Spent>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spent {
    day: Option<Date>,
    nano_usd: i64,
}

impl DailyBudget {
    pub(super) fn load(host: Host, limit: i64) -> Result<Self> {
        let spent = host.load_state(STATE)?.unwrap_or_default();
        Ok(Self { limit, spent: Mutex::new(spent) })
    }

    fn lock(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether so much more may be spent today.
    pub(super) fn has_room(&self, now: Timestamp, more: i64) -> bool {
        let spent = self.lock();
        let so_far = if spent.day == Some(day(now)) { spent.nano_usd } else { 0 };
        so_far.saturating_add(more) <= self.limit
    }

    /// Counts what was spent, and returns the sum of the day.
    pub(super) fn count(&self, now: Timestamp, cost: i64) -> Spent {
        let mut spent = self.lock();
        let today = Some(day(now));
        if spent.day != today {
            *spent = Spent { day: today, nano_usd: 0 };
        }
        spent.nano_usd = spent.nano_usd.saturating_add(cost);
        *spent
    }

    /// Counts what was spent and writes it down.
    pub(super) async fn spend(&self, app: &Arc<App>, cost: i64) {
        let spent = self.count(app.host.now(), cost);
        let host = app.host.clone();
        let written = tokio::task::spawn_blocking(move || host.save_state(STATE, &spent)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "what checks of answers cost today is not written down");
        }
    }
}

fn day(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::UTC).date()
}

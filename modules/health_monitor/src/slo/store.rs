//! Counts of objectives in the database.

use module_sqlite::{
    DatabaseError,
    rusqlite::{self, Connection, Transaction, params},
};

use super::{Bucket, FIVE_MS, FIVES_MS, HOUR_MS, Objective, Objectives, Share};
use crate::{store::Store, time::Moment};

/// Time after which counts of objectives that are no more are deleted, in milliseconds.
const FORMER_MS: i64 = 90 * 86_400_000;

impl Objectives {
    /// Reads what the database has of earlier runs where that was not done yet, and writes what was
    /// counted since. What cannot be written waits for the next time.
    ///
    /// # Errors
    ///
    /// When the database is not available.
    pub fn keep(&mut self, store: &mut Store, now: Moment) -> Result<(), DatabaseError> {
        for objective in &mut self.all {
            if !objective.is_loaded {
                // What waits was counted already, and is not in the database yet.
                let key = objective.slo.key();
                let from = now.at.as_millisecond().saturating_sub(objective.slo.window_ms);
                let rows = store.database().read(|connection| rows(connection, &key, from))?;
                rows.into_iter().for_each(|row| objective.load(row, now));
                objective.is_loaded = true;
            }
        }
        if self.all.iter().all(|objective| objective.waiting.is_empty()) {
            return Ok(());
        }
        let all = &self.all;
        store.database().write(|transaction| {
            all.iter().try_for_each(|objective| objective.write(transaction))
        })?;
        self.all.iter_mut().for_each(|objective| objective.waiting.clear());
        Ok(())
    }

    /// Deletes what no window reaches any more. The newest are counted, not their times: a clock
    /// that jumps deletes nothing.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub fn prune(&self, store: &mut Store, now: Moment) -> Result<(), DatabaseError> {
        let keys: Vec<String> = self.all.iter().map(|objective| objective.slo.key()).collect();
        let former = now.at.as_millisecond().saturating_sub(FORMER_MS);
        store.database().write(|transaction| {
            let sql = "DELETE FROM slo_bucket WHERE slo = ?1 AND width_ms = ?2 AND at <= \
                       (SELECT at FROM slo_bucket WHERE slo = ?1 AND width_ms = ?2 \
                        ORDER BY at DESC LIMIT 1 OFFSET ?3)";
            let mut delete = transaction.prepare_cached(sql)?;
            for Objective { slo, .. } in &self.all {
                for (width, span) in [(FIVE_MS, FIVES_MS), (HOUR_MS, slo.window_ms)] {
                    delete.execute(params![slo.key(), width, span / width + 1])?;
                }
            }
            let sql = "SELECT slo FROM slo_bucket GROUP BY slo HAVING max(at) < ?1";
            let mut old = transaction.prepare_cached(sql)?;
            let old: Vec<String> =
                old.query_map([former], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            let mut delete = transaction.prepare_cached("DELETE FROM slo_bucket WHERE slo = ?1")?;
            for key in old.iter().filter(|key| !keys.contains(key)) {
                delete.execute([key])?;
            }
            Ok(())
        })
    }
}

fn rows(connection: &Connection, key: &str, from: i64) -> rusqlite::Result<Vec<(Bucket, Share)>> {
    let sql = "SELECT width_ms, at, good, total FROM slo_bucket WHERE slo = ?1 AND at >= ?2";
    let mut all = connection.prepare_cached(sql)?;
    all.query_map(params![key, from], |row| {
        let share = Share { good: row.get(2)?, total: row.get(3)? };
        Ok(((row.get(0)?, row.get(1)?), share))
    })?
    .collect()
}

impl Objective {
    /// Counts a row of the database.
    fn load(&mut self, ((width, at), share): (Bucket, Share), now: Moment) {
        let now_ms = crate::requests::steady(now);
        let age_ms = now.at.as_millisecond().saturating_sub(at);
        // The middle of what has passed of the bucket stands for it.
        let middle_ms = now_ms.saturating_sub(age_ms - age_ms.clamp(0, width) / 2);
        let rings = match width {
            HOUR_MS => [None, Some(&mut self.hours)],
            _ => [Some(&mut self.minutes), Some(&mut self.fives)],
        };
        for ring in rings.into_iter().flatten() {
            if let Some(sum) = ring.at(middle_ms, now_ms) {
                *sum += share;
            }
        }
    }

    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = "INSERT INTO slo_bucket (slo, width_ms, at, good, total) \
                   VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (slo, width_ms, at) DO UPDATE \
                   SET good = good + excluded.good, total = total + excluded.total";
        let mut insert = transaction.prepare_cached(sql)?;
        let key = self.slo.key();
        for ((width, at), share) in &self.waiting {
            insert.execute(params![key, width, at, share.good, share.total])?;
        }
        Ok(())
    }
}

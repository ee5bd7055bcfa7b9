//! The work of the timers: retention, and the end of idle sessions.

use module_sdk::Result;

use crate::{UsageTracker, clock};

impl UsageTracker {
    pub(crate) fn delete_old_requests(&mut self) -> Result<()> {
        let Some(retention_ms) = self.retention_ms else { return Ok(()) };
        let now = self.host.now().as_millisecond();
        let newest = self.store().newest_ms()?;
        match newest {
            Some(newest) if clock::may_delete(now, newest) => {}
            _ => return Ok(()),
        }
        let deleted = self.store().purge(now.saturating_sub(retention_ms))?.rows;
        if deleted > 0 {
            tracing::debug!(deleted, "deleted requests older than retention_days");
        }
        self.metrics.sizes(&self.store());
        Ok(())
    }

    pub(crate) fn end_idle_sessions(&mut self) -> Result<()> {
        let now = self.host.now().as_millisecond();
        if !clock::believable(now) {
            return Ok(());
        }
        let ended = self.store().end_idle_sessions(now)?;
        for session in ended {
            self.tell(&session);
        }
        Ok(())
    }
}

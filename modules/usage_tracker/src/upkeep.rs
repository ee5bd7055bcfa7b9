//! What is done by the clock: retention, and the end of sessions that have fallen silent.

use module_sdk::Result;

use crate::{UsageTracker, clock};

/// How many pieces of a thousand requests retention deletes before it lets events through again.
const PURGES_AT_ONCE: usize = 10;

impl UsageTracker {
    pub(crate) fn delete_old_requests(&mut self) -> Result<()> {
        let Some(retention_ms) = self.retention_ms else { return Ok(()) };
        let now = self.host.now().as_millisecond();
        let newest = self.storage.store()?.newest_ms();
        match self.storage.note(newest)? {
            Some(newest) if clock::may_delete(now, newest) => {}
            _ => return Ok(()),
        }
        let before = now.saturating_sub(retention_ms);
        let mut deleted = 0;
        for _ in 0..PURGES_AT_ONCE {
            let purged = self.storage.store()?.purge(before);
            match self.storage.note(purged)? {
                0 => break,
                some => deleted += some,
            }
        }
        if deleted > 0 {
            tracing::debug!(deleted, "deleted requests older than retention_days");
        }
        self.metrics.sizes(self.storage.store()?);
        Ok(())
    }

    pub(crate) fn end_idle_sessions(&mut self) -> Result<()> {
        let now = self.host.now().as_millisecond();
        if !clock::believable(now) {
            return Ok(());
        }
        let ended = self.storage.store()?.end_idle_sessions(now);
        for session in self.storage.note(ended)? {
            self.tell(&session);
        }
        Ok(())
    }
}

//! Deletion by time: of text after its days, and of what was to be forgotten in datasets.

use std::sync::atomic::Ordering;

use module_sdk::{Error, Result, clock::is_plausible};

use crate::{Learning, dataset::files::Folder, store::Store};

/// Milliseconds of a day.
pub(crate) const DAY_MS: i64 = 24 * 3_600_000;

impl Learning {
    /// Deletes text that is older than it may be, and the text of datasets that is due.
    pub(crate) fn delete_old(&mut self) -> Result<()> {
        let (now, time) = (self.now(), self.host.now());
        // By a clock that shows 1970 or 2099 nothing is old, or everything.
        if !is_plausible(time) {
            return Ok(());
        }
        self.store.delete_older(now - i64::from(self.config.retention_days) * DAY_MS)?;
        let built_before = now - i64::from(self.config.dataset_days) * DAY_MS;
        for id in self.store.to_erase(built_before)? {
            erase(&self.store, &self.folder, &id, "its text is older than `dataset_days`", now)?;
        }
        self.versions.labels().delete_older(built_before, now)?;
        self.versions.taint()?;
        self.training.stop_tainted()?;
        // Where the database was not there at the start.
        self.training.take_up()?;
        // While one is built it is recorded a moment before its files are in place.
        if !self.building.load(Ordering::Acquire) {
            for it in self.store.datasets()?.iter().filter(|it| it.erased_at.is_none()) {
                if !self.folder.of(&it.id).is_dir() {
                    self.store.erased(&it.id, "its files are missing", now)?;
                }
            }
        }
        Ok(())
    }
}

/// Deletes the text of a dataset and notes why.
pub(crate) fn erase(
    store: &Store,
    folder: &Folder,
    id: &str,
    reason: &str,
    now: i64,
) -> Result<()> {
    folder.erase(id).map_err(|error| {
        Error::unavailable(format!("cannot delete the text of a dataset: {error}"))
    })?;
    store.erased(id, reason, now)
}

//! Registration and recording of metrics by one generation of a module, and their lifetime.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use super::{
    Kind, MetricError, Metrics,
    family::{Series, Shape},
};

/// The series of one generation of a module, by their handles.
pub struct Instruments {
    metrics: Arc<Metrics>,
    number: u64,
    series: RwLock<HashMap<u64, Series>>,
}

impl std::fmt::Debug for Instruments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Instruments({})", self.number)
    }
}

impl Instruments {
    pub(super) fn new(metrics: Arc<Metrics>, number: u64) -> Self {
        Self { metrics, number, series: RwLock::default() }
    }

    /// Registers a series, or finds it; returns its handle.
    ///
    /// # Errors
    ///
    /// When another module that lives has the family, this generation has registered it
    /// otherwise, the module has as much as it may have, a name is not valid, or the generation
    /// has ended.
    pub fn series(
        &self,
        kind: Kind,
        name: &str,
        help: &str,
        labels: &[(String, String)],
    ) -> Result<u64, MetricError> {
        let mut labels = labels.to_vec();
        labels.sort();
        let (label_names, values): (Vec<String>, Vec<String>) = labels.into_iter().unzip();
        let shape = Shape { kind, help, label_names: &label_names };
        let mut state = self.metrics.state();
        let found = state.series(self.number, name, &shape, &values);
        // With the state still held, so that `close` comes before or after.
        let mut own = self.series.write().unwrap_or_else(PoisonError::into_inner);
        for handle in state.dropped.drain(..) {
            own.remove(&handle);
        }
        let (handle, series) = found?;
        own.insert(handle, series);
        Ok(handle)
    }

    /// Returns the number of series that are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.series.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Records into a series. A handle that this generation did not get is ignored.
    pub fn record(&self, handle: u64, value: f64) {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = series.get(&handle) {
            series.record(value);
        }
    }

    /// Notes that this generation runs from now on: what it registered otherwise than the one
    /// before is shown in its form.
    pub fn settle(&self) {
        self.metrics.state().settle(self.number);
    }

    /// Ends registering and recording by this generation.
    pub fn close(&self) {
        let mut state = self.metrics.state();
        state.close(self.number);
        self.series.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Instruments {
    fn drop(&mut self) {
        self.close();
    }
}

/// Proof that a thread of a module lives. The families of the module go when the last one is
/// dropped.
#[derive(Debug)]
pub struct Presence {
    metrics: Arc<Metrics>,
    owner: String,
}

impl Presence {
    pub(super) fn new(metrics: Arc<Metrics>, owner: &str) -> Self {
        Self { metrics, owner: owner.to_owned() }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.metrics.state().depart(&self.owner);
    }
}

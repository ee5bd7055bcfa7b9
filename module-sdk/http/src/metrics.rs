//! Metrics of a module about its connections.

use std::sync::{Mutex, PoisonError};

use module_sdk::{Host, Result};

use crate::{End, Figures, Snapshot};

/// The connections of one listener in the metrics of a module: `<prefix>_connections`,
/// `<prefix>_connections_refused_total` and `<prefix>_connections_closed_total{reason}`.
#[derive(Debug)]
pub struct ConnectionMetrics {
    prefix: String,
    /// Counters already added to the metrics: metrics get only the differences.
    shown: Mutex<Snapshot>,
}

impl ConnectionMetrics {
    /// Creates metrics with names that begin with `prefix`, such as `lodestar_ingest`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), shown: Mutex::default() }
    }

    /// Adds the changes since the last call to the metrics; to be called by a timer, every 10 s or
    /// so.
    ///
    /// # Errors
    ///
    /// Returns an error if the host has no such metric.
    pub fn show(&self, host: &Host, figures: &Figures) -> Result<()> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let now = figures.snapshot();
        // First: what the host took must not be added again where it refuses the rest.
        let shown = std::mem::replace(&mut *shown, now);
        let name = |rest: &str| format!("{}_connections{rest}", self.prefix);
        let help = "Connections that are open.";
        host.gauge(&name(""), help, &[])?.set(number(now.open as u64));
        let help = "Connections that were refused, since there was no room for them.";
        host.counter(&name("_refused_total"), help, &[])?.add(number(now.refused - shown.refused));
        let help = "Connections that ended, by why they did.";
        for ((end, now), before) in End::ALL.iter().zip(now.ended).zip(shown.ended) {
            let labels = [("reason", end.name())];
            host.counter(&name("_closed_total"), help, &labels)?.add(number(now - before));
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "no daemon has had 2^53 connections")]
const fn number(count: u64) -> f64 {
    count as f64
}

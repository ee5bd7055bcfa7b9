//! Shows in the metrics what happens to connections.

use std::sync::{Mutex, PoisonError};

use module_http::{End, Figures, Snapshot};
use module_sdk::{Host, Result};

/// What was shown already: counters are told what is added.
#[derive(Debug, Default)]
pub(crate) struct Shown(Mutex<Snapshot>);

impl Shown {
    /// Shows what has happened since the last time.
    ///
    /// # Errors
    ///
    /// When the host has no such metric.
    pub(crate) fn show(&self, host: &Host, figures: &Figures) -> Result<()> {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = figures.snapshot();
        let help = "Connections that are open.";
        host.gauge("lodestar_ingest_connections", help, &[])?.set(number(now.open as u64));
        let help = "Connections that were refused, since there was no room for them.";
        host.counter("lodestar_ingest_connections_refused_total", help, &[])?
            .add(number(now.refused - shown.refused));
        let help = "Connections that ended, by why they did.";
        for ((end, now), before) in End::ALL.iter().zip(now.ended).zip(shown.ended) {
            let labels = [("reason", end.name())];
            host.counter("lodestar_ingest_connections_closed_total", help, &labels)?
                .add(number(now - before));
        }
        *shown = now;
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "no daemon has had 2^53 connections")]
const fn number(count: u64) -> f64 {
    count as f64
}

//! How the event ledger fares, as `status` and the metrics show it.

use super::api::LedgerStatus;
use crate::{
    metrics::{Kind, Snapshot},
    supervisor::Daemon,
};

impl Daemon {
    /// Whether the event ledger can be written.
    pub(crate) fn ledger_status(&self) -> LedgerStatus {
        let health = self.context.bus.health();
        LedgerStatus {
            trouble: health.trouble,
            failed_writes: health.failed_writes,
            bytes: self.context.bus.ledger_bytes(),
        }
    }

    /// The same as metrics.
    pub(crate) fn ledger_metrics(&self, families: &mut Snapshot) {
        let ledger = self.ledger_status();
        #[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
        let (failed_writes, bytes) = (ledger.failed_writes as f64, ledger.bytes as f64);
        families
            .family(
                Kind::Gauge,
                "lodestar_ledger_writable",
                "1 while the event ledger takes events, 0 after a write that failed.",
                &[],
                [(vec![], f64::from(u8::from(ledger.trouble.is_none())))],
            )
            .family(
                Kind::Counter,
                "lodestar_ledger_failed_writes_total",
                "Writes of the event ledger that failed.",
                &[],
                [(vec![], failed_writes)],
            )
            .family(
                Kind::Gauge,
                "lodestar_ledger_bytes",
                "What the event ledger keeps on disk.",
                &[],
                [(vec![], bytes)],
            );
    }
}

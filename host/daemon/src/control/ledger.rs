//! How the event ledger fares, as `status` and the metrics show it.

use lodestar_api::{LedgerLoss, LedgerStatus};
use lodestar_bus::{Extent, Loss, Trouble};

use super::events::moment;
use crate::{
    metrics::{Kind, Snapshot},
    supervisor::Daemon,
};

impl Daemon {
    /// Whether the event ledger can be written, and what it lost.
    pub(crate) fn ledger_status(&self) -> LedgerStatus {
        let health = self.context.bus.health();
        let (trouble, remedy) =
            health.trouble.map(|Trouble { what, remedy }| (what, remedy)).unzip();
        LedgerStatus {
            trouble,
            remedy,
            failed_writes: health.failed_writes,
            bytes: self.context.bus.ledger_bytes(),
            losses: health.losses.iter().map(tell).collect(),
        }
    }

    /// The same as metrics.
    pub(crate) fn ledger_metrics(&self, families: &mut Snapshot) {
        let ledger = self.ledger_status();
        #[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
        let [failed_writes, bytes, losses] =
            [ledger.failed_writes, ledger.bytes, ledger.losses.len() as u64]
                .map(|figure| figure as f64);
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
            )
            .family(
                Kind::Gauge,
                "lodestar_ledger_losses",
                "Places at which the event ledger was found damaged in the last seven days.",
                &[],
                [(vec![], losses)],
            );
    }
}

fn tell(loss: &Loss) -> LedgerLoss {
    let &Loss { found_ms, kind, ref file, first, last, extent } = loss;
    LedgerLoss {
        found: format!("{:.0}", moment(found_ms)),
        file: file.clone(),
        kind: kind.name().to_owned(),
        first,
        last,
        at_least: extent == Extent::AtLeast,
        at_most: extent == Extent::AtMost,
        what: loss.sentence(),
        remedy: kind.remedy().to_owned(),
    }
}

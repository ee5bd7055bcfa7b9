//! The state of the event ledger, as `status` and the metrics show it.

use std::path::Path;

use jiff::Timestamp;
use lodestar_api::{LedgerLoss, LedgerStatus};
use lodestar_bus::{Extent, LedgerTrouble, Loss};
use lodestar_config::Privacy;
use lodestar_platform::Trouble;

use super::Daemon;
use crate::metrics::{Kind, Snapshot};

/// Returns the state of the event ledger: whether it can be written, its size and its losses.
pub(crate) fn ledger_status(daemon: &Daemon) -> LedgerStatus {
    let health = daemon.context.bus.health();
    let (trouble, remedy) =
        health.trouble.map(|LedgerTrouble { what, remedy }| (what, remedy)).unzip();
    LedgerStatus {
        trouble,
        remedy,
        failed_writes: health.failed_writes,
        bytes: daemon.context.bus.ledger_bytes(),
        losses: health.losses.iter().map(tell).collect(),
    }
}

/// Returns the problem for which the counters of the event ledger are not kept any more, if any.
pub(super) fn ledger_unkept(daemon: &Daemon) -> Option<Trouble> {
    daemon.context.bus.health().unkept.map(|LedgerTrouble { what, remedy }| (what, remedy))
}

/// Returns a warning of where the text of requests may lie on the disk, while it may be published.
pub(super) fn text_on_disk(daemon: &Daemon) -> Option<Trouble> {
    text_below(&daemon.context.privacy, &daemon.places.state_dir)
}

/// Adds the state of the event ledger to the metrics.
pub(crate) fn ledger_metrics(daemon: &Daemon, families: &mut Snapshot) {
    let ledger = ledger_status(daemon);
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

fn text_below(privacy: &Privacy, state_dir: &Path) -> Option<Trouble> {
    privacy.full_logging.then(|| {
        let ledger = state_dir.join("ledger");
        let what = format!(
            "`privacy.full_logging` is on: the text of requests may lie in the segments and the \
             dead letters of {}, and in what is exported by `events tail --content`",
            ledger.display()
        );
        let remedy = "set it to false where nobody needs the text; what was written goes with its \
                      segment, and a dead letter when it was replayed";
        (what, remedy.to_owned())
    })
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

/// Converts milliseconds since the Unix epoch to a time.
#[must_use]
pub fn moment(milliseconds: u64) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(milliseconds).unwrap_or(i64::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_text_lies_as_long_as_it_may() {
        let mut privacy = Privacy::default();
        assert_eq!(text_below(&privacy, Path::new("/state")), None);
        privacy.full_logging = true;
        let (what, remedy) = text_below(&privacy, Path::new("/state")).expect("it is told");
        assert!(what.contains("dead letters of /state/ledger"), "{what}");
        assert!(remedy.starts_with("set it to false"), "{remedy}");
    }
}

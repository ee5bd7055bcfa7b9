//! Sets of labels and calibrations as tables.

use module_sdk::{Table, human::count};
use serde_json::{Value, json};

use crate::{
    commands::{counted, plain, time},
    labels::{
        LabelSet, Summary,
        calibration::{Calibration, Difference, Share},
    },
};

/// Returns all that is known of a set.
pub(super) fn shown(set: &LabelSet) -> Value {
    json!({
        "id": set.id, "created_at": time(set.created_at), "summary": set.summary,
        "stale": set.stale, "erased_at": set.erased_at.and_then(time), "missing": 0,
    })
}

/// Returns the counts of labels.
pub(super) fn counts(summary: &Summary) -> Table {
    let mut table = Table::new(["JUDGED ANSWERS", "NUMBER#", "RIGHT#"]);
    table.row(["local".to_owned(), count(summary.local), count(summary.local_right)]);
    table.row(["paid".to_owned(), count(summary.paid), count(summary.paid_right)]);
    for (source, number) in &summary.sources {
        table.notes.push(format!("{} judged by {}", count(*number), plain(source, 40)));
    }
    table
}

/// Returns a policy beside what needs none.
pub(super) fn ways(found: &Calibration) -> Table {
    let mut table = Table::new(["WAY", "PROMISE#", "LOCAL#", "RIGHT#", "BESIDE PAID#"]);
    let share = |it: &Share| {
        format!("{:.1} % ({:.1} to {:.1})", 100.0 * it.value, 100.0 * it.low, 100.0 * it.high)
    };
    let points = |it: &Difference| {
        format!("{:+.1} ({:+.1} to {:+.1})", 100.0 * it.mean, 100.0 * it.low, 100.0 * it.high)
    };
    for way in &found.ways {
        table.row([
            way.name.clone(),
            way.promise.map_or_else(String::new, |it| format!("{:.0} %", 100.0 * it)),
            share(&way.local),
            share(&way.right),
            way.beside_paid.as_ref().map_or_else(String::new, points),
        ]);
    }
    table.notes.push(format!(
        "{} held back; {} of the paid answers were judged, the others count as right",
        counted(found.held_out, "local answer"),
        count(found.paid_judged)
    ));
    table.notes.push(format!(
        "{} unlike anything that was learnt from, which are paid for",
        count(found.strange)
    ));
    table.notes.push(format!(
        "Brier {:.3}, and {:.3} for one number for all",
        found.brier, found.brier_of_share
    ));
    table.notes.extend(found.reliability.iter().map(|bin| {
        format!(
            "said {:.0} %: {} of {} were right ({:.0} to {:.0} %)",
            100.0 * bin.predicted,
            count((bin.right.value * bin.number as f64).round() as u64),
            count(bin.number),
            100.0 * bin.right.low,
            100.0 * bin.right.high
        )
    }));
    table
}

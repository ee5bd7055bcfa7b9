//! Measuring of a policy by what was held back.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    labels::{
        Row,
        calibration::{Calibration, Held, Share, calibration},
    },
    registry::Digest,
};

/// Policy as the router learnt it.
#[derive(Debug, Deserialize)]
pub(super) struct Learnt {
    /// SHA-256 of its file.
    pub(super) digest: Digest,
    /// Version of the router's features.
    pub(super) features: Value,
    /// Its file.
    pub(super) file: String,
    /// Predictions of what is held back.
    held_out: Vec<Predicted>,
}

#[derive(Debug, Deserialize)]
struct Predicted {
    id: String,
    local: f64,
    strange: bool,
    local_at: Vec<bool>,
}

/// Returns how a policy does on what was held back.
pub(super) fn measured(
    rows: &[Row],
    learnt: &Learnt,
    promises: &[f64],
    set: &str,
) -> Option<Calibration> {
    let said: HashMap<&str, &Predicted> =
        learnt.held_out.iter().map(|it| (it.id.as_str(), it)).collect();
    let held: Vec<Held> = rows
        .iter()
        .filter(|row| row.held_out)
        .filter_map(|row| {
            let it = said.get(row.id.as_str())?;
            Some(Held {
                local_right: row.local?,
                paid_right: row.paid,
                predicted: it.local.clamp(0.0, 1.0),
                strange: it.strange,
                local_at: it.local_at.clone(),
            })
        })
        .collect();
    let trained = rows.iter().filter(|row| !row.held_out).filter_map(|row| row.local);
    let (right, all) = trained
        .fold((0_u64, 0_u64), |(right, all), is_right| (right + u64::from(is_right), all + 1));
    let share = Share::of(right, all).value;
    let seed = u64::from_le_bytes(*set.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
    calibration(&held, promises, share, seed)
}

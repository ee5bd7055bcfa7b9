//! Predictions that were made before a label was known, and the labels: the threshold is set by
//! them.
//!
//! A prediction is noted before its label is learned from, so that the threshold rests on requests
//! that the model had not seen.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Largest number that is kept; the oldest go first.
const MOST: usize = 4000;
/// Fewest on which a threshold may rest.
const FEWEST: usize = 100;
/// Quality that is aimed for beyond what is promised: a threshold that fits a sample exactly
/// delivers less outside it (94.2 where 95.0 was wanted).
const MARGIN: f64 = 0.01;
/// Further margin for a single outcome: for many it shrinks with the root of their number, as
/// chance does.
const MARGIN_OF_CHANCE: f64 = 0.1;
/// Share of familiar requests that pass for strange.
const STRANGE: f64 = 0.05;

/// One prediction and its label.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// Gain that was predicted for the paid model.
    pub(super) score: f32,
    /// Strangeness, as it was measured then.
    pub(super) strangeness: f32,
    /// `true` when the local model was right.
    pub(super) is_local_right: bool,
    /// `true` when the paid model was right, or nobody knows.
    pub(super) is_paid_right: bool,
}

/// Outcomes, the newest last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Outcomes(VecDeque<Outcome>);

/// Bounds within which the local model answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    /// Predicted gain from which on the paid model is asked.
    pub(super) score: f32,
    /// Strangeness from which on it is asked whatever is predicted.
    pub(super) strangeness: f32,
}

impl Outcomes {
    pub(super) fn note(&mut self, outcome: Outcome) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(outcome);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the bounds that keep a share of the paid model's right answers with the fewest paid
    /// calls; `None` while too little is known.
    pub(super) fn bounds(&self, keep_quality: f64) -> Option<Bounds> {
        // The older half was predicted by a model that knew less.
        let mut recent: Vec<Outcome> = self.0.range(self.0.len() / 2..).copied().collect();
        if recent.len() < FEWEST {
            return None;
        }
        recent.sort_by(|a, b| a.strangeness.total_cmp(&b.strangeness));
        let familiar = (recent.len() as f64 * (1.0 - STRANGE)) as usize;
        let strangeness = recent[familiar.min(recent.len() - 1)].strangeness;
        recent.sort_by(|a, b| b.score.total_cmp(&a.score));
        let right = |is: fn(&Outcome) -> bool| recent.iter().filter(|it| is(it)).count() as f64;
        let margin = MARGIN + MARGIN_OF_CHANCE / (recent.len() as f64).sqrt();
        let wanted = (keep_quality + margin) * right(|it| it.is_paid_right);
        let mut kept = right(|it| it.is_local_right);
        let mut score = f32::INFINITY;
        for outcome in &recent {
            if kept >= wanted {
                break;
            }
            kept += f64::from(u8::from(outcome.is_paid_right));
            kept -= f64::from(u8::from(outcome.is_local_right));
            score = outcome.score;
        }
        Some(Bounds { score, strangeness })
    }
}

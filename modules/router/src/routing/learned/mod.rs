//! Learns from judged answers of this installation which requests the local models answer as well
//! as the paid ones.
//!
//! Nothing comes trained: what was learned on one kind of requests is worth no more than chance on
//! another. Each label is learned from once and not kept: a random choice of former ones beside
//! each new one made the result worse (APGR on MMLU 0.64 instead of 0.66). What resembles nothing
//! that was learned from goes to the paid models.

pub(crate) mod approved;
mod model;
mod outcomes;
mod packed;
mod sample;
pub(crate) mod saved;

#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::options::LearnedOptions;
use approved::Approved;
use model::Model;
use outcomes::{Bounds, Outcome, Outcomes};
use sample::WORDS;

pub(crate) use sample::Sample;

/// Labels after which the bounds are set anew.
const BOUNDS_EVERY: usize = 16;

/// Judgement of the answers to one request; `None` where nobody judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    /// `true` when the local model's answer was right.
    pub is_local_right: Option<bool>,
    /// `true` when the paid model's answer was right.
    pub is_paid_right: Option<bool>,
}

/// Opinion about one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Opinion {
    /// Probability that the local model is right.
    pub local: f32,
    /// Probability that the paid model is right.
    pub paid: f32,
    /// `true` when it resembles nothing that was learned from.
    pub is_strange: bool,
    /// `true` when the local model will do.
    pub is_local_enough: bool,
}

impl Opinion {
    /// Returns the gain of the paid model, between -1 and 1.
    pub(crate) fn gain(&self) -> f32 {
        self.paid - self.local
    }
}

/// Knowledge from judged answers, shared by all who decide and by those who judge.
#[derive(Debug, Clone, Default)]
pub(crate) struct Learned {
    own: Arc<RwLock<State>>,
    /// Policy that a person approved: while there is one it decides in the place of what is learned
    /// from day to day.
    approved: Arc<RwLock<Option<Arc<Approved>>>>,
}

#[derive(Debug, Clone)]
struct State {
    model: Model,
    /// Times that a word was seen, by its hash.
    words: Box<[u8]>,
    outcomes: Outcomes,
    labels: u64,
    bounds: Option<Bounds>,
    keep_quality: f64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            model: Model::default(),
            words: vec![0; WORDS].into(),
            outcomes: Outcomes::default(),
            labels: 0,
            bounds: None,
            keep_quality: LearnedOptions::default().keep_quality,
        }
    }
}

impl Learned {
    /// Returns the number of labels that were learned from.
    pub(crate) fn labels(&self) -> u64 {
        self.read().labels
    }

    /// Sets the share of the paid model's right answers that is to be kept.
    pub(crate) fn keep(&self, quality: f64) {
        let mut state = self.write();
        state.keep_quality = quality;
        state.bounds = state.outcomes.bounds(quality);
    }

    /// Returns the probabilities that the local and the paid model are right, as far as it knows.
    pub(crate) fn probabilities(&self, sample: &Sample) -> (f32, f32) {
        self.read().model.predict(sample)
    }

    /// Returns an opinion about a request; `None` while too little was learned.
    pub(crate) fn opinion(&self, sample: &Sample, least_labels: u32) -> Option<Opinion> {
        if let Some(approved) = self.approved() {
            return Some(approved.opinion(sample));
        }
        let state = self.read();
        let bounds = state.bounds.filter(|_| state.labels >= u64::from(least_labels))?;
        Some(state.opinion(sample, bounds))
    }

    /// Returns the policy that a person approved, if there is one.
    pub(crate) fn approved(&self) -> Option<Arc<Approved>> {
        self.approved.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets a policy decide from now on, or none.
    pub(crate) fn decide_by(&self, policy: Option<Approved>) {
        *self.approved.write().unwrap_or_else(PoisonError::into_inner) = policy.map(Arc::new);
    }

    /// Learns from a judged request.
    pub(crate) fn learn(&self, sample: &Sample, label: Label) {
        if (label.is_local_right, label.is_paid_right) != (None, None) {
            self.write().learn(sample, label);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.own.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.own.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn learn(&mut self, sample: &Sample, label: Label) {
        if let Some(is_local_right) = label.is_local_right {
            let (local, paid) = self.model.predict(sample);
            self.outcomes.note(Outcome {
                score: paid - local,
                strangeness: self.strangeness(sample),
                is_local_right,
                is_paid_right: label.is_paid_right.unwrap_or(true),
            });
            if self.outcomes.len().is_multiple_of(BOUNDS_EVERY) || self.bounds.is_none() {
                self.bounds = self.outcomes.bounds(self.keep_quality);
            }
        }
        self.labels += 1;
        self.model.meet(sample);
        for word in &sample.words {
            let seen = &mut self.words[usize::from(*word)];
            *seen = seen.saturating_add(1);
        }
        self.model.train(sample, label.is_local_right, label.is_paid_right);
    }

    fn opinion(&self, sample: &Sample, bounds: Bounds) -> Opinion {
        let (local, paid) = self.model.predict(sample);
        let is_strange = self.strangeness(sample) > bounds.strangeness;
        let is_local_enough = !is_strange && paid - local < bounds.score;
        Opinion { local, paid, is_strange, is_local_enough }
    }

    /// Returns how strange the words of a request are: 0 where all were seen often, 1 where none
    /// was seen.
    fn strangeness(&self, sample: &Sample) -> f32 {
        let rare = |word: &u16| 1.0 / (1.0 + f32::from(self.words[usize::from(*word)]));
        let sum: f32 = sample.words.iter().map(rare).sum();
        // Nothing is known of what has no words.
        if sample.words.is_empty() { 1.0 } else { sum / sample.words.len() as f32 }
    }
}

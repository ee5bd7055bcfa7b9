//! Targets, sorted by whether they can answer.

use std::borrow::Cow;

use super::{Candidate, fit::Fit, strategy::Choice};
use crate::target::{TargetName, TargetView};

/// Targets that were looked at, by whether they can answer.
#[derive(Default)]
pub(super) struct Sorted<'a> {
    pub(super) able: Vec<Choice<'a>>,
    pub(super) later: Vec<TargetName>,
    pub(super) candidates: Vec<Candidate>,
}

impl<'a> Sorted<'a> {
    /// Adds a target.
    pub(super) fn add(&mut self, view: Cow<'a, TargetView>, cost: Option<i64>, fit: Fit) {
        let (is_allowed, reason) = match fit {
            Fit::Able => (true, "".into()),
            Fit::Later(reason) => {
                self.later.push(view.name.clone());
                (false, reason)
            }
            Fit::Unable(reason) => (false, reason),
        };
        self.candidates.push(Candidate {
            target: view.name.clone(),
            is_allowed,
            reason,
            estimated_cost_nano_usd: cost,
        });
        if is_allowed {
            self.able.push(Choice { view, cost });
        }
    }

    /// Returns whether a target was looked at.
    pub(super) fn has_seen(&self, name: &TargetName) -> bool {
        self.candidates.iter().any(|candidate| candidate.target == *name)
    }

    /// Returns whether a target can answer.
    pub(super) fn is_able(&self, name: &TargetName) -> bool {
        self.able.iter().any(|choice| choice.view.name == *name)
    }
}

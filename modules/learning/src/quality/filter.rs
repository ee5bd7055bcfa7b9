//! The seam of the funnel: a filter judges the examples that are left, and says why one is dropped.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use crate::example::Example;

/// Code of the reason for a drop, `prompt_cap`.
pub(super) type Reason = &'static str;

/// One step of the funnel.
pub(super) trait Filter {
    /// Returns the name of the step.
    fn name(&self) -> &'static str;

    /// Returns for each candidate the reason to drop it, `None` where it stays. A filter may change
    /// what stays.
    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>>;
}

/// An example on its way through the funnel, with what has been found out about it.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Place among the examples that came in.
    pub(super) index: usize,
    /// The example.
    pub(super) example: Example,
    /// Rating of the answer, from 0 to 1.
    pub(super) score: f64,
    /// Digest of question and answer without case and space.
    pub(super) digest: u128,
    /// Group of examples with much the same question or answer.
    pub(super) cluster: u64,
    /// Number of replacements by the kind of what was replaced.
    pub(super) redactions: BTreeMap<&'static str, u32>,
}

/// Score of an answer that nobody rated.
const UNRATED: f64 = 0.5;

impl Candidate {
    pub(super) fn new(index: usize, example: Example) -> Self {
        let score = example.outcome.feedback.filter(|it| it.is_finite()).unwrap_or(UNRATED);
        Self { index, example, score, digest: 0, cluster: 0, redactions: BTreeMap::new() }
    }

    /// Compares two candidates, the better one first: by rating, then the newer one. What is left
    /// is decided by the text and the id, and never by the place among the others.
    pub(super) fn rank(&self, other: &Self) -> Ordering {
        let rated = other.score.total_cmp(&self.score);
        let newer = || other.example.at.cmp(&self.example.at);
        rated.then_with(newer).then_with(|| self.place(other))
    }

    /// Compares two candidates by text and id, whatever came first.
    pub(super) fn place(&self, other: &Self) -> Ordering {
        let ids = || self.example.id.cmp(&other.example.id);
        self.digest.cmp(&other.digest).then_with(ids)
    }
}

/// Progress of one step, and the wish to end.
pub(super) struct Work<'a> {
    progress: &'a mut dyn FnMut(usize, usize),
    cancelled: &'a AtomicBool,
    /// Work of the earlier steps, and with this one, of `total`.
    from: usize,
    to: usize,
    total: usize,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        progress: &'a mut dyn FnMut(usize, usize),
        cancelled: &'a AtomicBool,
        (from, to, total): (usize, usize, usize),
    ) -> Self {
        Self { progress, cancelled, from, to, total }
    }

    /// Returns what a function says of each item. When the work is cancelled, the rest is left out.
    pub(super) fn each<T, R>(
        &mut self,
        items: &mut [T],
        mut of: impl FnMut(&mut T) -> R,
    ) -> Vec<R> {
        let count = items.len();
        let mut results = Vec::with_capacity(count);
        for (index, item) in items.iter_mut().enumerate() {
            if self.is_cancelled() {
                break;
            }
            results.push(of(item));
            if index % 64 == 63 {
                let done = (self.to - self.from) as u64 * index as u64 / count as u64;
                let done = self.from + usize::try_from(done).unwrap_or_default();
                (self.progress)(done, self.total);
            }
        }
        results
    }

    /// Says that this step is done.
    pub(super) fn end(self) {
        (self.progress)(self.to, self.total);
    }

    /// Returns `true` when somebody wishes the work to end.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }
}

/// Judges each candidate on its own.
pub(super) fn each(
    candidates: &mut [Candidate],
    work: &mut Work<'_>,
    judge: impl Fn(&Example) -> Option<Reason>,
) -> Vec<Option<Reason>> {
    work.each(candidates, |candidate| judge(&candidate.example))
}

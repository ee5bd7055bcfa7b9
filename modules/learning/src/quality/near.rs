//! Examples that say much the same, and questions that are asked again and again.

use std::collections::HashMap;

use super::{
    config::Config,
    filter::{Candidate, Filter, Reason, Work},
    minhash::{self, Sets, Signature},
    text,
};

/// Share of the similarity of near-duplicates from which on examples are held together: what is
/// less like than that is not dropped, but would still tell a test what to answer.
const HELD: f64 = 0.8;

/// Filter for the best of those that say much the same.
pub(super) struct NearDuplicates {
    similarity: f64,
}

/// Filter for a few of those that ask much the same. Holds examples together by clusters.
pub(super) struct PromptCap {
    similarity: f64,
    most: usize,
}

/// Returns for each text the index of one that stands for all that are much like it, itself among
/// them: two texts with the same index are near-duplicates, or have one between them.
pub fn near_duplicates<T: AsRef<str>>(texts: &[T], similarity: f64) -> Vec<usize> {
    let signatures: Vec<Signature> =
        texts.iter().map(|text| minhash::signature(text.as_ref())).collect();
    let mut sets = Sets::new(texts.len());
    minhash::join(&signatures, similarity, &mut sets);
    (0..texts.len()).map(|index| sets.find(index)).collect()
}

impl NearDuplicates {
    pub(super) fn new(config: &Config) -> Self {
        Self { similarity: config.similarity }
    }
}

impl PromptCap {
    pub(super) fn new(config: &Config) -> Self {
        Self { similarity: config.similarity, most: config.per_prompt }
    }
}

impl Filter for NearDuplicates {
    fn name(&self) -> &'static str {
        "near_duplicates"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        candidates.sort_unstable_by(Candidate::place);
        let of = |it: &mut Candidate| minhash::signature(&text::document(&it.example));
        let signatures = work.each(candidates, of);
        let mut sets = Sets::new(candidates.len());
        minhash::join(&signatures, self.similarity, &mut sets);
        keep(candidates, &mut sets, 1, "near_duplicate")
    }
}

impl Filter for PromptCap {
    fn name(&self) -> &'static str {
        "prompt_cap"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        candidates.sort_unstable_by(Candidate::place);
        let both = |it: &mut Candidate| {
            let question = text::question(&it.example);
            let question = minhash::signature(&question);
            (question, minhash::signature(&text::document(&it.example)))
        };
        let signatures = work.each(candidates, both);
        let (questions, documents): (Vec<Signature>, Vec<Signature>) =
            signatures.into_iter().unzip();
        let mut sets = Sets::new(candidates.len());
        minhash::join(&questions, self.similarity, &mut sets);
        let verdicts = keep(candidates, &mut sets, self.most, "prompt_cap");
        minhash::join(&questions, HELD * self.similarity, &mut sets);
        minhash::join(&documents, HELD * self.similarity, &mut sets);
        number(candidates, &verdicts, &mut sets);
        verdicts
    }
}

/// Keeps the best of each set, so many of them.
fn keep(
    candidates: &[Candidate],
    sets: &mut Sets,
    most: usize,
    reason: Reason,
) -> Vec<Option<Reason>> {
    let mut members: HashMap<usize, Vec<usize>> = HashMap::new();
    for index in 0..candidates.len() {
        members.entry(sets.find(index)).or_default().push(index);
    }
    let mut verdicts = vec![None; candidates.len()];
    for mut members in members.into_values().filter(|members| members.len() > most) {
        members.sort_unstable_by(|one, other| candidates[*one].rank(&candidates[*other]));
        for dropped in members.into_iter().skip(most) {
            verdicts[dropped] = Some(reason);
        }
    }
    verdicts
}

/// Numbers the clusters by what stays in them: the same examples have the same number.
fn number(candidates: &mut [Candidate], verdicts: &[Option<Reason>], sets: &mut Sets) {
    let mut numbers: HashMap<usize, u64> = HashMap::new();
    for (index, candidate) in candidates.iter_mut().enumerate() {
        if verdicts[index].is_some() {
            continue;
        }
        // The candidates are sorted, so that the first is the one of the least digest.
        let first = (candidate.digest >> 64) as u64;
        candidate.cluster = *numbers.entry(sets.find(index)).or_insert(first);
    }
}

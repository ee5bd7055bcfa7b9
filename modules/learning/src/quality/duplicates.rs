//! Examples that say the same but for case and space.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::{
    filter::{Candidate, Filter, Reason, Work},
    text,
};

/// Filter for the best of those that are the same.
pub(super) struct ExactDuplicates;

impl Filter for ExactDuplicates {
    fn name(&self) -> &'static str {
        "exact_duplicates"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        let done = work.each(candidates, |candidate| {
            candidate.digest = digest(&text::document(&candidate.example));
        });
        let mut best: HashMap<u128, usize> = HashMap::new();
        for (index, candidate) in candidates.iter().enumerate().take(done.len()) {
            let best = best.entry(candidate.digest).or_insert(index);
            if candidate.rank(&candidates[*best]).is_lt() {
                *best = index;
            }
        }
        let is_best =
            |index: usize, candidate: &Candidate| best.get(&candidate.digest) == Some(&index);
        let all = candidates.iter().enumerate();
        all.map(|(index, it)| (!is_best(index, it)).then_some("duplicate")).collect()
    }
}

/// Returns the digest of a text in small letters, with single spaces.
fn digest(text: &str) -> u128 {
    let mut hasher = Sha256::new();
    let mut small = String::new();
    for word in text.split_whitespace() {
        small.clear();
        small.extend(word.chars().flat_map(char::to_lowercase));
        hasher.update(&small);
        hasher.update(b" ");
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let (first, _) = digest.split_at(16);
    first.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_space_make_no_difference() {
        assert_eq!(digest("Split  it,\n PLEASE"), digest(" split it, please "));
        assert_ne!(digest("a + b"), digest("a - b"));
        assert_ne!(digest("ab c"), digest("a bc"));
        assert_eq!(digest(""), digest(" \n"));
    }
}

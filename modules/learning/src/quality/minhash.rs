//! MinHash with locality-sensitive hashing: texts that share most of their phrases are found,
//! without a comparison of each with each.
//!
//! Of every permutation of all phrases of five words a text has a first one; two texts agree in as
//! many of these as is their Jaccard similarity. They are compared where all rows of a band agree.

use super::text;

/// Number of words of a phrase.
const SHINGLE: usize = 5;
/// Number of permutations: the similarity of a pair is known to 0.04.
pub(super) const PERMUTATIONS: usize = 112;
/// Rows of a band. The usual 14 bands of 8 miss 8 of 100 pairs that are as like as 0.8, and join
/// what only shares a band; 28 bands of 4 miss one of 4,000 that is as like as 0.72, and what
/// shares one is compared.
const ROWS: usize = 4;
/// Number of texts of a band's bucket that a text is compared with. More are unlike each other only
/// where somebody made them so, and each would be compared with each.
const COMPARED: usize = 8;

/// Smallest hashes of a text's phrases.
pub(super) type Signature = Box<[u32; PERMUTATIONS]>;

/// Multipliers and summands: `(a * hash + b) >> 32` is a permutation as good as any.
static PERMUTATION: [(u64, u64); PERMUTATIONS] = permutations();

const fn permutations() -> [(u64, u64); PERMUTATIONS] {
    let mut permutations = [(0, 0); PERMUTATIONS];
    let mut state = 0x1234_5678_9abc_def0;
    let mut index = 0;
    while index < PERMUTATIONS {
        let (first, next) = split_mix(state);
        let (second, after) = split_mix(next);
        permutations[index] = (first | 1, second);
        state = after;
        index += 1;
    }
    permutations
}

/// Returns a number of the generator SplitMix64, and its next state.
const fn split_mix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut number = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (number ^ (number >> 31), state)
}

/// Returns the signature of a text.
pub(super) fn signature(text: &str) -> Signature {
    let words: Vec<u64> = text::words(text).map(|word| word.hash).collect();
    let mut least = Box::new([u32::MAX; PERMUTATIONS]);
    let mut add = |phrase: u64| {
        for (least, (a, b)) in least.iter_mut().zip(&PERMUTATION) {
            // The upper half: the lower bits of a product depend on few bits.
            let hash = (a.wrapping_mul(phrase).wrapping_add(*b) >> 32) as u32;
            *least = (*least).min(hash);
        }
    };
    match words.len() {
        // No word at all: signs.
        0 => add(text::phrase(text.split_whitespace().flat_map(str::chars).map(u64::from))),
        1..SHINGLE => add(text::phrase(words)),
        _ => words.windows(SHINGLE).for_each(|words| add(text::phrase(words.iter().copied()))),
    }
    least
}

/// Returns the share of permutations in which two signatures agree.
fn similarity(one: &Signature, other: &Signature) -> f64 {
    let same = one.iter().zip(other.iter()).filter(|(one, other)| one == other).count();
    same as f64 / PERMUTATIONS as f64
}

/// Joins the sets of texts that share a band and are at least so similar.
pub(super) fn join(signatures: &[Signature], least: f64, sets: &mut Sets) {
    let mut keys: Vec<(u64, usize)> = Vec::with_capacity(signatures.len());
    for band in 0..PERMUTATIONS / ROWS {
        let key = |signature: &Signature| {
            text::phrase(signature[band * ROWS..(band + 1) * ROWS].iter().map(|it| u64::from(*it)))
        };
        keys.clear();
        keys.extend(signatures.iter().enumerate().map(|(index, it)| (key(it), index)));
        keys.sort_unstable();
        for bucket in keys.chunk_by(|one, other| one.0 == other.0).filter(|it| it.len() > 1) {
            join_bucket(signatures, bucket, least, sets);
        }
    }
}

fn join_bucket(signatures: &[Signature], bucket: &[(u64, usize)], least: f64, sets: &mut Sets) {
    let mut compared: Vec<usize> = Vec::with_capacity(COMPARED);
    for (_, index) in bucket.iter().copied() {
        let set = sets.find(index);
        let mut like = |other: usize| {
            let is_like = || similarity(&signatures[other], &signatures[index]) >= least;
            sets.find(other) == set || is_like()
        };
        match compared.iter().copied().find(|other| like(*other)) {
            Some(other) => sets.join(other, index),
            None if compared.len() < COMPARED => compared.push(index),
            None => {}
        }
    }
}

/// Disjoint sets of numbers.
#[derive(Debug, Clone)]
pub(super) struct Sets {
    parents: Vec<usize>,
}

impl Sets {
    /// Makes each number below `count` a set of its own.
    pub(super) fn new(count: usize) -> Self {
        Self { parents: (0..count).collect() }
    }

    /// Returns the least number of the set of `index`.
    pub(super) fn find(&mut self, mut index: usize) -> usize {
        while self.parents[index] != index {
            // Each is brought nearer to the least, so that no way stays long.
            self.parents[index] = self.parents[self.parents[index]];
            index = self.parents[index];
        }
        index
    }

    /// Makes two sets one.
    pub(super) fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.find(one), self.find(other));
        let (least, greater) = (one.min(other), one.max(other));
        self.parents[greater] = least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::tests::Random;

    /// Returns a text of some words, and the same with some of them replaced.
    fn pair(seed: u64, words: usize, replaced: usize) -> (String, String) {
        let mut random = Random::new(seed);
        let one: Vec<String> = (0..words).map(|_| random.word()).collect();
        let mut other = one.clone();
        for _ in 0..replaced {
            let at = random.below(words);
            other[at] = format!("replaced{}", random.below(1000));
        }
        (one.join(" "), other.join(" "))
    }

    fn joined(texts: &[String], least: f64) -> Vec<usize> {
        let signatures: Vec<Signature> = texts.iter().map(|text| signature(text)).collect();
        let mut sets = Sets::new(texts.len());
        join(&signatures, least, &mut sets);
        (0..texts.len()).map(|index| sets.find(index)).collect()
    }

    #[test]
    fn the_share_of_equal_permutations_is_the_similarity() {
        for replaced in [0, 2, 5, 10, 40] {
            let mut error = 0.0;
            for seed in 0..20 {
                let (one, other) = pair(seed, 200, replaced);
                let phrases = |text: &str| {
                    let words: Vec<u64> = text::words(text).map(|word| word.hash).collect();
                    let phrases = words.windows(SHINGLE).map(<[u64]>::to_vec);
                    phrases.collect::<std::collections::HashSet<_>>()
                };
                let (first, second) = (phrases(&one), phrases(&other));
                let both = first.intersection(&second).count() as f64;
                let truth = both / first.union(&second).count() as f64;
                error += similarity(&signature(&one), &signature(&other)) - truth;
            }
            // Twenty pairs: the mean deviates by a hundredth, as theory has it.
            assert!((error / 20.0).abs() < 0.03, "{replaced}: {error}");
        }
    }

    #[test]
    fn near_duplicates_are_joined_and_others_are_not() {
        let mut texts = Vec::new();
        for seed in 0..300 {
            let (one, other) = pair(seed, 220, 3);
            texts.extend([one, other]);
        }
        let sets = joined(&texts, 0.72);
        let found = sets.chunks(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(found >= 299, "{found} of 300");
        let distinct = sets.chunks(2).map(|pair| pair[0]).collect::<std::collections::HashSet<_>>();
        assert_eq!(distinct.len(), 300, "different texts were joined");
    }

    #[test]
    fn short_texts_are_joined_where_they_are_the_same() {
        let texts = ["go on", "Go on!", "go off", "", "  ", "!?", "! ?", "天地", "天"];
        let sets = joined(&texts.map(str::to_owned), 0.72);
        assert_eq!(sets, [0, 0, 2, 3, 3, 5, 5, 7, 8]);
    }

    #[test]
    fn a_bucket_of_many_costs_no_square() {
        let texts = vec!["the same text over and over again".to_owned(); 20_000];
        assert!(joined(&texts, 0.72).iter().all(|set| *set == 0));
        // Nobody is like another enough: a bucket is looked through to its eighth.
        assert!(joined(&texts[..5000], 1.1).iter().enumerate().all(|(index, set)| index == *set));
    }
}

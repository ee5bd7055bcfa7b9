//! Examples that hold a part of a benchmark: a model that learnt them would be tested on what it
//! has read.

use std::collections::HashSet;

use super::{
    filter::{Candidate, Filter, Reason, Work, each},
    text,
};
use crate::example::Example;

/// Number of words in a row that no text has by chance.
const GRAM: usize = 12;

/// Phrases of benchmarks, of which no example that is kept has one.
#[derive(Debug, Clone, Default)]
pub struct Decontamination {
    /// Hashes of twelve words in a row.
    phrases: HashSet<u64>,
    /// Hashes of texts with fewer words: a whole message is compared with them.
    short: HashSet<u64>,
}

impl Decontamination {
    /// Takes in the questions and answers of benchmarks.
    pub fn new<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut new = Self::default();
        for text in texts {
            let words: Vec<u64> = text::words(text.as_ref()).map(|word| word.hash).collect();
            match words.len() {
                0 => {}
                1..GRAM => drop(new.short.insert(text::phrase(words))),
                _ => new.phrases.extend(phrases(&words)),
            }
        }
        new
    }

    /// Returns `true` when a text has twelve words in a row of a benchmark, or is one of its short
    /// texts.
    #[must_use]
    pub fn overlaps(&self, text: &str) -> bool {
        if self.phrases.is_empty() && self.short.is_empty() {
            return false;
        }
        let words: Vec<u64> = text::words(text).map(|word| word.hash).collect();
        if words.len() < GRAM {
            return self.short.contains(&text::phrase(words));
        }
        phrases(&words).any(|phrase| self.phrases.contains(&phrase))
    }

    fn judge_one(&self, example: &Example) -> Option<Reason> {
        let overlaps = |message| self.overlaps(&text::of_message(message));
        example.messages.iter().any(overlaps).then_some("benchmark_overlap")
    }
}

fn phrases(words: &[u64]) -> impl Iterator<Item = u64> {
    words.windows(GRAM).map(|words| text::phrase(words.iter().copied()))
}

impl Filter for Decontamination {
    fn name(&self) -> &'static str {
        "decontamination"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        each(candidates, work, |example| self.judge_one(example))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_words_in_a_row_are_an_overlap() {
        let long = "A train leaves at nine with forty people, and ten more get on at each stop.";
        let benchmarks = Decontamination::new([long, "What is the capital of France?", "...", "A"]);
        for (text, expected) in [
            (long, true),
            ("Look: a TRAIN leaves at nine with forty people and ten more get off.", true),
            ("A train leaves at nine with forty people and twelve more get on at each.", false),
            ("what is the capital of france", true),
            ("What is the capital of France? Paris.", false),
            ("a", true),
            ("", false),
            ("---", false),
        ] {
            assert_eq!(benchmarks.overlaps(text), expected, "{text}");
        }
        assert!(!Decontamination::default().overlaps(long));
    }
}

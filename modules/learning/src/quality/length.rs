//! The length of a question with its answer.

use super::{
    config::Config,
    filter::{Candidate, Filter, Reason, Work, each},
    text,
};

/// Filter for examples that are neither too short to tell something nor too long to be trained on.
pub(super) struct Length {
    min_chars: usize,
    max_chars: usize,
    min_words: usize,
}

impl Length {
    pub(super) fn new(config: &Config) -> Self {
        let Config { min_chars, max_chars, min_words, .. } = *config;
        Self { min_chars, max_chars, min_words }
    }

    fn judge_text(&self, text: &str) -> Option<Reason> {
        let chars = text.chars().count();
        if chars < self.min_chars {
            Some("too_short")
        } else if chars > self.max_chars {
            Some("too_long")
        } else if text::words(text).take(self.min_words).count() < self.min_words {
            Some("too_few_words")
        } else {
            None
        }
    }
}

impl Filter for Length {
    fn name(&self) -> &'static str {
        "length"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        each(candidates, work, |example| self.judge_text(&text::document(example)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_long_and_of_one_word() {
        let length = Length { min_chars: 10, max_chars: 30, min_words: 3 };
        for (text, expected) in [
            ("", Some("too_short")),
            ("one two 3", Some("too_short")),
            ("one two three", None),
            ("ééé ééé ééé", None),
            ("one, two - oh!", None),
            ("onetwothreefour", Some("too_few_words")),
            ("... --- ... --- ...", Some("too_few_words")),
            ("天地玄黃宇宙洪荒日月", None),
            ("one two three four five six seven", Some("too_long")),
        ] {
            assert_eq!(length.judge_text(text), expected, "{text}");
        }
    }
}

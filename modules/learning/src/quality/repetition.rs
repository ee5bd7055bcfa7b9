//! Text that goes round in circles: lines, paragraphs and phrases that come again.
//!
//! The rules for lines and phrases are those of Gopher (Rae et al. 2021, table A1), the one for the
//! share of repeated words that of Data-Juicer. They are for prose: code repeats itself by its
//! nature, and what stands between the fences of Markdown is exempt.

use std::collections::{HashMap, HashSet, hash_map::RandomState};

use super::{
    config::Repetition,
    filter::{Candidate, Filter, Reason, Work, each},
    text::{self, Word},
};

/// Filter for answers whose lines, paragraphs and phrases do not come again and again.
pub(super) struct PhraseRepetition(Repetition);

/// Filter for answers in which no long phrase or run of characters comes again and again.
pub(super) struct WordRepetition(Repetition);

/// Length of the phrases and runs that are counted by `WordRepetition`.
const LONG: usize = 10;

impl PhraseRepetition {
    pub(super) fn new(most: &Repetition) -> Self {
        Self(most.clone())
    }

    fn judge_prose(&self, prose: &str) -> Option<Reason> {
        let most = &self.0;
        let words: Vec<Word> = text::words(prose).collect();
        if words.len() < most.from_words.max(1) {
            return None;
        }
        let chars = prose.chars().count();
        let lines = repeated(prose.lines());
        let paragraphs = repeated(paragraphs(prose));
        let of_chars = |count: usize| count as f64 / chars as f64;
        if lines.share() > most.lines {
            return Some("repeated_lines");
        }
        if paragraphs.share() > most.paragraphs {
            return Some("repeated_paragraphs");
        }
        if of_chars(lines.chars) > most.line_chars {
            return Some("repeated_line_characters");
        }
        if of_chars(paragraphs.chars) > most.paragraph_chars {
            return Some("repeated_paragraph_characters");
        }
        for (length, most) in (2..).zip(most.common_phrases) {
            if of_chars(commonest(&words, length)) > most {
                return Some("common_phrase");
            }
        }
        for (length, most) in (5..).zip(most.repeated_phrases) {
            if of_chars(repeated_phrases(&words, length)) > most {
                return Some("repeated_phrases");
            }
        }
        None
    }
}

impl WordRepetition {
    pub(super) fn new(most: &Repetition) -> Self {
        Self(most.clone())
    }

    fn judge_prose(&self, prose: &str) -> Option<Reason> {
        let most = &self.0;
        let words: Vec<u64> = text::words(prose).map(|word| word.hash).collect();
        if words.len() >= most.from_words.max(LONG) {
            let counts = counts(words.windows(LONG).map(|words| text::phrase(words.to_vec())));
            let all: u32 = counts.values().sum();
            let repeated: u32 = counts.values().filter(|count| **count > 1).sum();
            if f64::from(repeated) > most.words * f64::from(all) {
                return Some("repeated_words");
            }
        }
        (character_repetition(prose) > most.characters).then_some("repeated_characters")
    }
}

/// Units that stood before.
#[derive(Debug, Default, PartialEq, Eq)]
struct Repeated {
    all: usize,
    repeated: usize,
    /// Number of characters in those that stood before.
    chars: usize,
}

impl Repeated {
    fn share(&self) -> f64 {
        if self.all == 0 { 0.0 } else { self.repeated as f64 / self.all as f64 }
    }
}

/// Counts the lines or paragraphs that stood before. Those without a word, such as `---` or a
/// bracket, do not count.
fn repeated<'t>(units: impl Iterator<Item = &'t str>) -> Repeated {
    let mut seen = HashSet::new();
    let mut counts = Repeated::default();
    let units = units.map(str::trim).filter(|unit| unit.contains(char::is_alphanumeric));
    for unit in units {
        counts.all += 1;
        if !seen.insert(unit) {
            counts.repeated += 1;
            counts.chars += unit.chars().count();
        }
    }
    counts
}

/// Returns the parts between empty lines.
fn paragraphs(prose: &str) -> impl Iterator<Item = &str> {
    let mut rest = prose;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        for line in rest.split_inclusive('\n') {
            end += line.len();
            if line.trim().is_empty() {
                break;
            }
        }
        let (paragraph, after) = rest.split_at(end);
        rest = after;
        Some(paragraph)
    })
}

/// Returns the number of characters in all places of the commonest phrase, 0 where none comes
/// twice.
fn commonest(words: &[Word], length: usize) -> usize {
    let mut counts: HashMap<u64, (usize, usize)> = HashMap::new();
    for phrase in words.windows(length) {
        let count = counts.entry(hash(phrase)).or_insert((0, chars(phrase)));
        count.0 += 1;
    }
    let repeated = counts.into_values().filter(|(count, _)| *count > 1);
    repeated.map(|(count, chars)| count * chars).max().unwrap_or_default()
}

/// Returns the number of characters in phrases that stood before, none of them counted twice.
fn repeated_phrases(words: &[Word], length: usize) -> usize {
    let mut seen = HashSet::new();
    let (mut at, mut repeated) = (0, 0);
    while let Some(phrase) = words.get(at..at + length) {
        if seen.insert(hash(phrase)) {
            at += 1;
        } else {
            repeated += chars(phrase);
            at += length;
        }
    }
    repeated
}

fn hash(phrase: &[Word]) -> u64 {
    text::phrase(phrase.iter().map(|word| word.hash))
}

fn chars(phrase: &[Word]) -> usize {
    phrase.iter().map(|word| word.chars).sum()
}

/// Returns the share of the commonest runs of characters: as many of the kinds of runs as their
/// square root, those that come more than once.
fn character_repetition(prose: &str) -> f64 {
    let chars: Vec<char> = prose.chars().collect();
    // A short text says nothing.
    if chars.len() < 10 * LONG {
        return 0.0;
    }
    let runs = chars.windows(LONG).map(|run| text::phrase(run.iter().map(|c| u64::from(*c))));
    let mut counts: Vec<u32> = counts(runs).into_values().collect();
    let all: u32 = counts.iter().sum();
    counts.sort_unstable_by(|one, other| other.cmp(one));
    let some = counts.len().isqrt().max(1);
    let repeated: u32 = counts.iter().take(some).filter(|count| **count > 1).sum();
    f64::from(repeated) / f64::from(all)
}

fn counts(hashes: impl Iterator<Item = u64>) -> HashMap<u64, u32> {
    let mut counts = HashMap::with_hasher(RandomState::new());
    for hash in hashes {
        *counts.entry(hash).or_default() += 1;
    }
    counts
}

impl Filter for PhraseRepetition {
    fn name(&self) -> &'static str {
        "repetition"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        each(candidates, work, |it| self.judge_prose(&text::prose(&text::answer(it))))
    }
}

impl Filter for WordRepetition {
    fn name(&self) -> &'static str {
        "word_repetition"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        each(candidates, work, |it| self.judge_prose(&text::prose(&text::answer(it))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::tests::Random;

    /// Returns text in which no phrase comes twice, in paragraphs of lines.
    fn fresh(words: usize) -> String {
        let mut random = Random::new(7);
        let words = (0..words).map(|index| {
            let end =
                if index % 40 == 39 { "\n\n" } else { [" ", "\n"][usize::from(index % 8 == 7)] };
            format!("{}{end}", random.word())
        });
        words.collect()
    }

    fn phrases(text: &str) -> Option<Reason> {
        PhraseRepetition::new(&Repetition::default()).judge_prose(text)
    }

    fn words(text: &str) -> Option<Reason> {
        WordRepetition::new(&Repetition::default()).judge_prose(text)
    }

    #[test]
    fn what_comes_again_and_again_has_its_reason() {
        let text = fresh(400);
        assert_eq!((phrases(&text), words(&text)), (None, None));
        let lines = "a line that was said before\n".repeat(20);
        let some = "a line that was said before\n".repeat(4);
        assert_eq!(phrases(&format!("{text}\n{some}")), None, "it is a small part");
        assert_eq!(phrases(&format!("{}\n{lines}", fresh(100))), Some("repeated_lines"));
        let again = format!("{text}\n\n{text}");
        assert_eq!(phrases(&again), Some("repeated_lines"));
        let joined = text.replace('\n', " ");
        assert_eq!(phrases(&format!("{joined} {joined}")), Some("repeated_phrases"));
        let twice = format!("{joined}\n\n{joined}\n\n{joined}");
        assert_eq!(phrases(&twice), Some("repeated_lines"));
        let paragraph = |index: usize| format!("line {index} of it\n");
        let paragraphs: String = (0..90)
            .map(|index| paragraph(index) + if index % 9 == 8 { "\n" } else { "" })
            .collect();
        assert_eq!(phrases(&paragraphs), Some("common_phrase"));
        assert_eq!(words(&"over and over again ".repeat(40)), Some("repeated_words"));
        assert_eq!(words(&"a".repeat(100_000)), Some("repeated_characters"));
        assert_eq!(words(&"天地".repeat(1000)), Some("repeated_words"));
    }

    #[test]
    fn short_texts_and_tables_are_left_alone() {
        for text in [
            "",
            "Yes.",
            "To split a string, call split. To split a list, call split. To split bytes, loop.",
            "\n\n\n",
            "- one\n- two\n- three\n",
        ] {
            assert_eq!((phrases(text), words(text)), (None, None), "{text}");
        }
        let rows: String = (0..30)
            .map(|row| format!("| {} | {row} |\n|---|---|\n", fresh(20 + row).replace('\n', " ")))
            .collect();
        assert_ne!(phrases(&rows), Some("repeated_lines"));
    }

    #[test]
    fn units_are_counted() {
        assert_eq!(
            repeated("a\n---\nb\n---\n a \n".lines()),
            Repeated { all: 3, repeated: 1, chars: 1 }
        );
        let found: Vec<&str> = paragraphs("a\nb\n\n \nc\n").map(str::trim).collect();
        assert_eq!(found, ["a\nb", "", "c"]);
        let words: Vec<Word> = text::words("a b a b a b c").collect();
        assert_eq!(commonest(&words, 2), 6);
        assert_eq!((commonest(&words, 4), commonest(&words, 5)), (8, 0));
        assert_eq!(repeated_phrases(&words, 2), 4);
    }
}

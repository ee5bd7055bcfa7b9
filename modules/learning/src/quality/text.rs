//! Text of examples as the filters read it: questions, answers, words, prose.

use std::borrow::Cow;

use module_sdk::events::ContentRole;

use crate::example::{Example, Message};

/// Number of words from which on the last messages say what was asked. "Yes, go on" does not: then
/// what came before belongs to the question.
const TELLING: usize = 12;

/// Returns the text of a message with its calls of tools.
pub(crate) fn of_message(message: &Message) -> Cow<'_, str> {
    match &message.tool_calls {
        None => Cow::Borrowed(&message.content),
        Some(calls) if message.content.is_empty() => Cow::Owned(calls.to_string()),
        Some(calls) => Cow::Owned(format!("{}\n{calls}", message.content)),
    }
}

/// Returns the answer, empty where there is none.
pub(crate) fn answer(example: &Example) -> Cow<'_, str> {
    example.messages.last().map_or(Cow::Borrowed(""), of_message)
}

/// Returns the question: the messages right before the answer, as far back as it takes for them to
/// say something. Instructions of the operator, which all examples share, are no part of it.
pub(crate) fn question(example: &Example) -> String {
    let before = example.messages.split_last().map_or(&[][..], |(_, before)| before);
    let mut parts = Vec::new();
    let mut count = 0;
    for message in before.iter().rev().filter(|message| message.role != ContentRole::System) {
        let part = of_message(message);
        count += words(&part).take(TELLING).count();
        parts.push(part);
        if count >= TELLING {
            break;
        }
    }
    parts.reverse();
    parts.join("\n")
}

/// Returns the question and the answer.
pub(crate) fn document(example: &Example) -> String {
    let mut document = question(example);
    document.push('\n');
    document.push_str(&answer(example));
    document
}

/// A word, in small letters and without what stands around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    /// Hash of the word, the same at all times: datasets are compared by it.
    pub(crate) hash: u64,
    /// Number of characters.
    pub(crate) chars: usize,
}

/// Returns the words of a text: letters and digits without case. A character of a script that sets
/// no spaces is a word of its own.
pub(crate) fn words(text: &str) -> Words<'_> {
    Words { chars: text.chars(), waiting: None }
}

/// Words of a text, one after the other.
pub(crate) struct Words<'t> {
    chars: std::str::Chars<'t>,
    /// A word of one character that ended the word before.
    waiting: Option<Word>,
}

/// FNV-1a, whose last step is that of MurmurHash3: each word is some bytes long, and hashed once.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Iterator for Words<'_> {
    type Item = Word;

    fn next(&mut self) -> Option<Word> {
        if let Some(word) = self.waiting.take() {
            return Some(word);
        }
        let (mut hash, mut chars) = (OFFSET, 0);
        for c in self.chars.by_ref() {
            if c.is_ascii_alphanumeric() {
                hash = (hash ^ u64::from(c.to_ascii_lowercase())).wrapping_mul(PRIME);
                chars += 1;
            } else if !c.is_ascii() && c.is_alphanumeric() {
                if stands_alone(c) {
                    let hash_of_one = (OFFSET ^ u64::from(c)).wrapping_mul(PRIME);
                    let alone = Word { hash: mix(hash_of_one), chars: 1 };
                    if chars == 0 {
                        return Some(alone);
                    }
                    self.waiting = Some(alone);
                    break;
                }
                for c in c.to_lowercase() {
                    hash = (hash ^ u64::from(c)).wrapping_mul(PRIME);
                }
                chars += 1;
            } else if chars > 0 {
                break;
            }
        }
        (chars > 0).then(|| Word { hash: mix(hash), chars })
    }
}

/// Checks whether a character belongs to a script that sets no spaces between words: Thai, Lao,
/// Burmese, Khmer, kana and Han.
fn stands_alone(c: char) -> bool {
    matches!(u32::from(c),
        0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x4dbf
        | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
}

/// Returns a number whose every bit depends on all bits of another.
pub(crate) fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    number = (number ^ (number >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ (number >> 33)
}

/// Returns the hash of words in their order.
pub(crate) fn phrase(words: impl IntoIterator<Item = u64>) -> u64 {
    let join = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(PRIME);
    mix(words.into_iter().fold(OFFSET, join))
}

/// Returns a text without its code blocks: what stands between two fences of Markdown.
pub(crate) fn prose(text: &str) -> String {
    let mut prose = String::with_capacity(text.len());
    let mut open: Option<(u8, usize)> = None;
    for line in text.split_inclusive('\n') {
        let fence = fence(line);
        match (open, fence) {
            (None, Some((mark, length, _))) => open = Some((mark, length)),
            (None, None) => prose.push_str(line),
            (Some((mark, length)), Some((other, count, ends))) => {
                if mark == other && count >= length && ends {
                    open = None;
                }
            }
            (Some(_), None) => {}
        }
    }
    prose
}

/// Returns the mark of a fence, how often it stands there, and if nothing else does.
fn fence(line: &str) -> Option<(u8, usize, bool)> {
    let line = line.trim();
    let mark = *line.as_bytes().first().filter(|mark| b"`~".contains(mark))?;
    let length = line.bytes().take_while(|byte| *byte == mark).count();
    (length >= 3).then_some((mark, length, length == line.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::tests::{chat, example};

    fn hashes(text: &str) -> Vec<u64> {
        words(text).map(|word| word.hash).collect()
    }

    #[test]
    fn words_are_without_case_and_what_stands_around_them() {
        for (text, same) in [
            ("To split, call `Split()`!", "to split call split"),
            ("ÄRGER\u{a0}über", "ärger über"),
            ("snake_case", "snake case"),
            ("  \n\t", ""),
        ] {
            assert_eq!(hashes(text), hashes(same), "{text}");
        }
        assert_ne!(hashes("ab c"), hashes("a bc"));
        let chars = |text| words(text).map(|word| word.chars).collect::<Vec<_>>();
        assert_eq!(chars("one 天地x é"), [3, 1, 1, 1, 1]);
        assert_eq!(chars("天地"), [1, 1]);
        assert_eq!(hashes("a天b"), [hashes("a"), hashes("天"), hashes("b")].concat());
    }

    #[test]
    fn hashes_are_the_same_at_all_times() {
        assert_eq!(hashes("dataset"), [0x9bed_4f6d_6e95_4706]);
        assert_eq!(phrase(hashes("a b")), phrase(hashes("A, b.")));
        assert_ne!(phrase(hashes("a b")), phrase(hashes("b a")));
    }

    #[test]
    fn code_is_no_prose() {
        for (text, expected) in [
            ("a\n```rust\nb\n```\nc", "a\nc"),
            ("a\n~~~~\nb\n~~~\n```\n~~~~\nc\n", "a\nc\n"),
            ("```\nnever closed", ""),
            ("a `b` c", "a `b` c"),
            ("  ```\nb\n  ```  \nc", "c"),
            ("```\n```rust\nb\n```\nc", "c"),
        ] {
            assert_eq!(prose(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_question_goes_back_until_it_says_something() {
        let system = (ContentRole::System, "You are a helpful assistant of the shop, be kind.");
        let ask = "How do I make a list of all open orders of the last three weeks?";
        let messages = [
            system,
            (ContentRole::User, ask),
            (ContentRole::Assistant, "With a query."),
            (ContentRole::User, "Go on"),
            (ContentRole::Assistant, "SELECT"),
        ];
        let short = example("1", &messages);
        assert_eq!(question(&short), format!("{ask}\nWith a query.\nGo on"));
        assert_eq!(answer(&short), "SELECT");
        assert_eq!(question(&chat("2", ask, "With a query.")), ask);
        let mut none = short;
        none.messages.clear();
        assert_eq!((question(&none), answer(&none)), (String::new(), Cow::Borrowed("")));
    }
}

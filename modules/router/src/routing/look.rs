//! Look of a text: counts of what is in it, taken in one pass.

use super::sign::{self, SIGNS, Sign};

/// Longest word that is looked at, in bytes; what is longer is none that anybody types.
const LONGEST: usize = 24;
/// Part of a long text that is read, in bytes, from its start and from its end each: what is asked
/// for stands before or after what is pasted.
const READ: usize = 16 * 1024;

/// Kinds of bytes that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mark {
    /// Whatever is not counted.
    Other,
    /// Letters in lower case.
    Lower,
    /// Letters in upper case.
    Upper,
    /// Digits.
    Digit,
    /// First bytes of characters outside ASCII.
    Foreign,
    /// Further bytes of characters outside ASCII.
    Within,
    /// Ends of lines.
    Line,
    /// Characters that are frequent in code and rare in prose.
    Code,
    /// Mathematical characters.
    Maths,
    /// Backticks.
    Backtick,
    /// Question marks.
    Question,
    /// Commas.
    Comma,
    /// Points.
    Point,
    /// Opening brackets.
    Bracket,
    /// Percent signs.
    Percent,
    /// Dollar signs.
    Dollar,
    /// Quotation marks.
    Quote,
    /// Apostrophes.
    Apostrophe,
}

/// Number of kinds.
const MARKS: usize = Mark::Apostrophe as usize + 1;

/// Kind of each byte.
static MARK_OF: [Mark; 256] = marks();

const fn marks() -> [Mark; 256] {
    let mut marks = [Mark::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        marks[byte] = match byte as u8 {
            b'a'..=b'z' => Mark::Lower,
            b'A'..=b'Z' => Mark::Upper,
            b'0'..=b'9' => Mark::Digit,
            0xc0..=0xff => Mark::Foreign,
            0x80..=0xbf => Mark::Within,
            b'\n' => Mark::Line,
            b'{' | b'}' | b';' | b'_' | b'[' | b']' | b'\\' => Mark::Code,
            b'+' | b'*' | b'/' | b'^' | b'=' | b'<' | b'>' => Mark::Maths,
            b'`' => Mark::Backtick,
            b'?' => Mark::Question,
            b',' => Mark::Comma,
            b'.' => Mark::Point,
            b'(' => Mark::Bracket,
            b'%' => Mark::Percent,
            b'$' => Mark::Dollar,
            b'"' => Mark::Quote,
            b'\'' => Mark::Apostrophe,
            _ => Mark::Other,
        };
        byte += 1;
    }
    marks
}

/// Look of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    /// Bytes of the whole text.
    pub(super) bytes: usize,
    /// Words.
    pub(super) words: u32,
    /// Words that begin with a digit.
    pub(super) numbers: u32,
    /// Largest number, as far as a billion.
    pub(super) largest: f32,
    /// Words of more than eight letters.
    pub(super) long_words: u32,
    /// Lines that begin with a letter and a point, bracket or colon: options to choose from.
    pub(super) options: u32,
    /// Words before the first option.
    pub(super) words_of_question: u32,
    marks: [u32; MARKS],
    signs: [u16; SIGNS],
}

impl Look {
    /// Reads a text.
    pub(super) fn of(text: &str) -> Self {
        Self::with_words(text, |_, _| {})
    }

    /// Reads a text and calls `on_word` with each word and its end in the text.
    pub(super) fn with_words(text: &str, mut on_word: impl FnMut(&Word<'_>, usize)) -> Self {
        let mut look = Self {
            bytes: text.len(),
            words: 0,
            numbers: 0,
            largest: 0.0,
            long_words: 0,
            options: 0,
            words_of_question: 0,
            marks: [0; MARKS],
            signs: [0; SIGNS],
        };
        each_part(text, |from, part| {
            look.read(part.as_bytes(), |word| on_word(word, from + word.end));
        });
        look
    }

    /// Returns how many words have a sign.
    pub(super) fn count(&self, sign: Sign) -> u32 {
        self.signs[sign as usize].into()
    }

    /// Returns how many bytes are of a kind.
    pub(super) fn marks(&self, mark: Mark) -> u32 {
        self.marks[mark as usize]
    }

    /// Returns the number of letters.
    pub(super) fn letters(&self) -> u32 {
        self.marks(Mark::Lower) + self.marks(Mark::Upper) + self.marks(Mark::Foreign)
    }

    fn read(&mut self, text: &[u8], mut on_word: impl FnMut(&Word<'_>)) {
        for byte in text {
            self.marks[MARK_OF[usize::from(*byte)] as usize] += 1;
        }
        for line in memchr::memchr_iter(b'\n', text) {
            self.options += u32::from(is_option(&text[line + 1..]));
        }
        each_word(text, options_at(text), |word| {
            self.words += 1;
            self.words_of_question += u32::from(!word.is_of_option);
            self.long_words += u32::from(word.bytes.len() > 8);
            if word.bytes[0].is_ascii_digit() {
                self.numbers += 1;
                self.largest = self.largest.max(number(word.bytes));
            } else if let Some(sign) = sign::sign_of(word.hash) {
                self.signs[sign] = self.signs[sign].saturating_add(1);
            }
            on_word(&word);
        });
    }
}

/// Returns whether a line begins as an option to choose: `A.`, `(b)`, `C:`.
fn is_option(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"(").unwrap_or(line);
    matches!(line, [b'A'..=b'Z' | b'a'..=b'z', b'.' | b')' | b':', ..])
}

fn number(word: &[u8]) -> f32 {
    let digits = word.iter().take_while(|byte| byte.is_ascii_digit());
    let value = digits.fold(0.0, |sum, byte| sum * 10.0 + f32::from(byte - b'0'));
    value.min(1e9)
}

/// Returns the position of the first option of a question; the length of the text where it has
/// none.
fn options_at(text: &[u8]) -> usize {
    let is_first = |line: &usize| {
        matches!(&text[line + 1..], [b'A', b'.' | b')', ..] | [b'(', b'A', b')', ..])
    };
    memchr::memchr_iter(b'\n', text).find(is_first).unwrap_or(text.len())
}

/// Calls `read` with the position and the text of the start and of the end of a text, or of the
/// whole.
fn each_part(text: &str, mut read: impl FnMut(usize, &str)) {
    if text.len() <= 2 * READ {
        return read(0, text);
    }
    read(0, &text[..text.floor_char_boundary(READ)]);
    let from = text.ceil_char_boundary(text.len() - READ);
    read(from, &text[from..]);
}

/// A word in lower case.
pub(super) struct Word<'a> {
    /// Its bytes; what is longer than a word that people type is cut.
    pub(super) bytes: &'a [u8],
    /// Its hash.
    pub(super) hash: u64,
    /// `true` when it stands in one of the options of a question.
    pub(super) is_of_option: bool,
    /// Its end in the part that is read.
    end: usize,
}

/// Calls `read` with each word: letters, digits and apostrophes within. From `options` on they
/// stand in options.
fn each_word(text: &[u8], options: usize, mut read: impl FnMut(Word<'_>)) {
    let mut read = |bytes: &[u8], hash: u64, end: usize| {
        read(Word { bytes, hash, is_of_option: end > options, end });
    };
    let mut bytes = [0_u8; LONGEST];
    let (mut len, mut hash) = (0, sign::START);
    for (index, byte) in text.iter().enumerate() {
        let is_part = match MARK_OF[usize::from(*byte)] {
            Mark::Lower | Mark::Upper | Mark::Digit => true,
            Mark::Foreign | Mark::Within => !is_punctuation(text, index),
            Mark::Apostrophe => len > 0 && text.get(index + 1).is_some_and(u8::is_ascii_alphabetic),
            _ => false,
        };
        if is_part {
            if len < LONGEST {
                bytes[len] = byte.to_ascii_lowercase();
                hash = sign::hashed(hash, bytes[len]);
                len += 1;
            }
        } else if len > 0 {
            read(&bytes[..len], hash, index);
            (len, hash) = (0, sign::START);
        }
    }
    if len > 0 {
        read(&bytes[..len], hash, text.len());
    }
}

/// Returns whether a byte belongs to one of the quotes, dashes and spaces of U+2000 to U+206F.
fn is_punctuation(text: &[u8], index: usize) -> bool {
    (index.saturating_sub(2)..=index)
        .any(|start| matches!(text.get(start..start + 3), Some([0xe2, 0x80 | 0x81, _])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole() {
        let check = |text: &str, expected: &[(Sign, u32)]| {
            let look = Look::of(text);
            let sum: u32 = look.signs.iter().map(|count| u32::from(*count)).sum();
            assert_eq!(sum, expected.iter().map(|(_, count)| count).sum::<u32>(), "{text}");
            for (sign, count) in expected {
                assert_eq!(look.count(*sign), *count, "{text}: {sign:?}");
            }
        };
        check("Address the user by name", &[]);
        check("Show me the prefix sum algorithm", &[(Sign::Code, 1), (Sign::Easy, 1)]);
        check("Checkout branch main", &[(Sign::Easy, 2)]);
        check("Summarise this system log", &[(Sign::Easy, 1)]);
        check("Prove that sqrt(2) is irrational", &[(Sign::Proof, 2), (Sign::Maths, 1)]);
        check("What's a debugger's bug?", &[(Sign::Fault, 1), (Sign::Fact, 1)]);
        check("FIX", &[(Sign::Fault, 1)]);
        check("\u{201c}prove\u{201d}\u{2014}debug", &[(Sign::Proof, 1), (Sign::Fault, 1)]);
    }

    #[test]
    fn what_stands_in_a_text_is_counted() {
        let look = Look::of("Is 7% of 1,250 more?\nA. no\nB. yes\n(c) \u{e4}rger\n");
        assert_eq!((look.words, look.numbers, look.words_of_question), (12, 3, 6));
        assert_eq!((look.options, look.largest), (3, 250.0));
        assert_eq!(look.marks(Mark::Percent), 1);
        assert_eq!(look.marks(Mark::Foreign), 1);
        assert_eq!(look.marks(Mark::Line), 4);
    }

    #[test]
    fn a_long_text_is_read_at_both_ends() {
        let text = format!("prove {} \u{e4} debug", "\u{fc} ".repeat(400_000));
        let look = Look::of(&text);
        assert_eq!((look.count(Sign::Proof), look.count(Sign::Fault)), (1, 1));
        assert!(look.words < 20_000);
    }
}

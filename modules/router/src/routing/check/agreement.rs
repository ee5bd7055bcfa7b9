//! Agreement of two answers, where they can be compared: calls, JSON, letters of options, numbers
//! and short texts.

use serde_json::Value;

use super::{AnswerText, Asked, Expected};
use crate::dialect::inspect::AnswerFormat;

/// Comparison of two answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// They say the same.
    Agrees,
    /// They do not.
    Disagrees,
    /// Nobody can tell without understanding them.
    Incomparable,
}

/// Longest text that is compared whole, in characters.
const SHORT: usize = 80;

/// Compares two answers to one request.
pub(crate) fn agreement(
    asked: &Asked<'_>,
    first: &AnswerText<'_>,
    second: &AnswerText<'_>,
) -> Agreement {
    if !first.tool_calls.is_empty() || !second.tool_calls.is_empty() {
        return told(same_calls(first, second));
    }
    if asked.format != AnswerFormat::Text {
        return told(same_json(first.text, second.text));
    }
    let read: fn(&str) -> Option<Said> = match asked.expected {
        Expected::Option => option,
        Expected::Number => number,
        Expected::Open => short,
    };
    match (read(first.text), read(second.text)) {
        (Some(first), Some(second)) => told(first.is(&second)),
        (None, None) => Agreement::Incomparable,
        // One came to an answer, and the other did not.
        _ if asked.expected != Expected::Open => Agreement::Disagrees,
        _ => Agreement::Incomparable,
    }
}

const fn told(is_same: bool) -> Agreement {
    if is_same { Agreement::Agrees } else { Agreement::Disagrees }
}

fn same_calls(first: &AnswerText<'_>, second: &AnswerText<'_>) -> bool {
    let arguments = |text: &str| if text.trim().is_empty() { "{}" } else { text }.to_owned();
    first.tool_calls.len() == second.tool_calls.len()
        && first.tool_calls.iter().zip(second.tool_calls).all(|(first, second)| {
            first.name == second.name
                && same_json(&arguments(first.arguments), &arguments(second.arguments))
        })
}

fn same_json(first: &str, second: &str) -> bool {
    match (serde_json::from_str(first), serde_json::from_str(second)) {
        (Ok(first), Ok(second)) => same_value(&first, &second),
        _ => false,
    }
}

/// Returns whether two values are the same: 1 is 1.0, and the order of keys does not count.
fn same_value(first: &Value, second: &Value) -> bool {
    match (first, second) {
        (Value::Number(first), Value::Number(second)) => {
            first == second || first.as_f64().zip(second.as_f64()).is_some_and(|(a, b)| a == b)
        }
        (Value::String(first), Value::String(second)) => first.trim() == second.trim(),
        (Value::Array(first), Value::Array(second)) => {
            first.len() == second.len()
                && first.iter().zip(second).all(|(first, second)| same_value(first, second))
        }
        (Value::Object(first), Value::Object(second)) => {
            first.len() == second.len()
                && first.iter().all(|(key, value)| {
                    second.get(key).is_some_and(|other| same_value(value, other))
                })
        }
        _ => first == second,
    }
}

/// Conclusion of an answer.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Letter(char),
    Number(f64),
    Words(String),
}

impl Said {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(first), Self::Number(second)) => {
                (first - second).abs() <= 1e-6 * first.abs().max(second.abs()).max(1.0)
            }
            _ => self == other,
        }
    }
}

/// Marks after which an answer says what it comes to, the surest first.
const MARKS: &[&str] = &["####", "\\boxed{", "answer is", "answer:", "answer =", "answer to"];

/// Returns what stands after the last mark, or the whole.
fn conclusion(text: &str) -> (&str, bool) {
    let lower = text.to_ascii_lowercase();
    let after = MARKS.iter().find_map(|mark| Some(lower.rfind(mark)? + mark.len()));
    after.map_or((text, false), |from| (&text[from..], true))
}

/// Returns the letter of the option that an answer chooses.
fn option(text: &str) -> Option<Said> {
    let (after, is_marked) = conclusion(text);
    let found = if is_marked { first_letter(after) } else { None };
    found
        .or_else(|| first_letter(text.trim_start()).filter(|_| begins_with_option(text)))
        .or_else(|| text.lines().rev().find(|line| !line.trim().is_empty()).and_then(last_letter))
        .map(Said::Letter)
}

/// Returns whether a text begins with an option: `C`, `(C)`, `C. iron`, `**C**`.
fn begins_with_option(text: &str) -> bool {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || "(*[".contains(c));
    let mut letters = text.chars();
    letters.next().is_some_and(|letter| letter.is_ascii_uppercase())
        && letters.next().is_none_or(|next| ".):*]\n".contains(next))
}

fn first_letter(text: &str) -> Option<char> {
    letters(text).next()
}

fn last_letter(text: &str) -> Option<char> {
    letters(text).last()
}

/// Returns the capital letters that stand alone. `I` and `A` within a sentence are words.
fn letters(text: &str) -> impl Iterator<Item = char> {
    let bytes = text.as_bytes();
    let is_word =
        |at: Option<&u8>| at.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'\'');
    (0..bytes.len()).filter_map(move |at| {
        let is_alone = bytes[at].is_ascii_uppercase()
            && !is_word(at.checked_sub(1).and_then(|before| bytes.get(before)))
            && !is_word(bytes.get(at + 1));
        let is_article = matches!(bytes[at], b'A' | b'I')
            && bytes.get(at + 1) == Some(&b' ')
            && bytes.get(at + 2).is_some_and(u8::is_ascii_lowercase);
        (is_alone && !is_article).then(|| char::from(bytes[at]))
    })
}

/// Returns the number that an answer comes to: the first after a mark, or the last.
fn number(text: &str) -> Option<Said> {
    let (after, is_marked) = conclusion(text);
    let found = if is_marked { numbers(after).next() } else { None };
    found.or_else(|| numbers(text).last()).map(Said::Number)
}

/// Returns the numbers in a text; `1,250.50` is one.
fn numbers(text: &str) -> impl Iterator<Item = f64> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at;
            at += 1;
            if !bytes[start].is_ascii_digit() {
                continue;
            }
            let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
            while is_digit(at) || (matches!(bytes.get(at), Some(b',' | b'.')) && is_digit(at + 1)) {
                at += 1;
            }
            let digits: String = text[start..at].chars().filter(|c| *c != ',').collect();
            // The 2 of `x2` is part of a name.
            let is_name = start > 0 && bytes[start - 1].is_ascii_alphabetic();
            let is_negative = start > 0
                && bytes[start - 1] == b'-'
                && !(start > 1 && bytes[start - 2].is_ascii_alphanumeric());
            if let Ok(value) = digits.parse::<f64>()
                && !is_name
            {
                return Some(if is_negative { -value } else { value });
            }
        }
        None
    })
}

/// Returns a short answer without what does not count: case, punctuation, articles.
fn short(text: &str) -> Option<Said> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > SHORT {
        return None;
    }
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric());
    let words = words.filter(|word| !word.is_empty() && !["the", "a", "an"].contains(word));
    let words: Vec<&str> = words.collect();
    // Of nothing but signs, such as `[]`, every sign counts.
    let is_signs = words.is_empty();
    Some(Said::Words(if is_signs { text.to_owned() } else { words.join(" ") }))
}

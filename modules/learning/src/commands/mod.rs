//! The commands `lodestar learning …`: their arguments, answers and tables.

mod build;
mod consent;
mod datasets;
mod deploy;
mod experiments;
mod feedback;
mod fit;
mod forget;
mod gates;
mod import;
mod judge;
mod labels;
pub(crate) mod policy;
mod remedies;
mod setup;
mod train;
mod versions;

use module_sdk::{Error, Result, jiff::Timestamp};

use crate::{
    advice,
    registry::{State, Version},
};

/// Longest name that a person may give: of a project, a session, themselves.
const LONGEST_NAME: usize = 200;

/// Returns a text on one line: without control characters and marks that turn its direction, and
/// at most so many characters of it.
pub(crate) fn plain(text: &str, most: usize) -> String {
    let is_hidden = |c: &char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2066}'..='\u{2069}')
    };
    let mut shown: String = text.chars().filter(|c| !is_hidden(c)).take(most).collect();
    if text.chars().count() > most {
        shown.push('…');
    }
    shown
}

/// Returns a name that a person gave, without the space around it.
///
/// # Errors
///
/// When it is empty, too long, or has characters that cannot be seen.
fn name<'a>(kind: &str, given: &'a str) -> Result<&'a str> {
    let given = given.trim();
    if given.is_empty() {
        return Err(Error::usage(format!("{kind} is empty")));
    }
    if plain(given, LONGEST_NAME) != given {
        return Err(Error::usage(format!(
            "{kind} has more than {LONGEST_NAME} characters, or some that cannot be seen"
        )));
    }
    Ok(given)
}

/// Returns a name as a word that can be typed into a shell.
fn word(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@+".contains(c);
    if !name.is_empty() && !name.starts_with('-') && name.chars().all(is_plain) {
        return name.to_owned();
    }
    format!("'{}'", plain(name, LONGEST_NAME).replace('\'', "'\\''"))
}

/// Returns a size as disks and cards are sold, and as the trainers tell it: in powers of ten.
fn gigabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a decimal is shown")]
    let gigabytes = bytes as f64 / 1e9;
    if gigabytes < 1.0 {
        return format!("{} MB", bytes.div_ceil(1_000_000));
    }
    format!("{gigabytes:.1} GB")
}

/// Returns what becomes of versions that were learnt from text that was taken back a moment ago, in
/// sentences.
fn taken_back(tainted: &[Version]) -> Vec<String> {
    let sentence = |version: &Version| {
        let id = &version.id;
        if version.state == State::Deployed {
            format!(
                "{id} was learnt from it and still serves: `{}` takes it back",
                advice::rollback(version)
            )
        } else {
            format!("{id} was learnt from it, and is not deployed any more")
        }
    };
    // What serves needs somebody to do something.
    let (serving, others): (Vec<&Version>, Vec<&Version>) =
        tainted.iter().partition(|it| it.state == State::Deployed);
    serving.into_iter().chain(others).map(sentence).collect()
}

/// Returns versions that were learnt from text that was taken back as programs read them.
fn taken_back_data(tainted: &[Version]) -> Vec<serde_json::Value> {
    let data =
        |it: &Version| serde_json::json!({"id": it.id, "serves": it.state == State::Deployed});
    tainted.iter().map(data).collect()
}

/// Returns a time in milliseconds as programs read it.
fn time(ms: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(ms).ok()
}

/// Returns a time in milliseconds as people read it, in UTC.
fn minute(ms: i64) -> String {
    time(ms).map_or_else(|| "-".to_owned(), |it| it.strftime("%Y-%m-%d %H:%M").to_string())
}

/// Returns a number with the word for what is counted: "1 example", "2 examples".
pub(crate) fn counted(number: u64, word: &str) -> String {
    let number_text = module_sdk::human::count(number);
    if number == 1 { format!("{number_text} {word}") } else { format!("{number_text} {word}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_be_seen() {
        let check = |given: &str, expected: Option<&str>| {
            assert_eq!(name("the project", given).ok(), expected, "{given:?}");
        };
        check(" shop ", Some("shop"));
        check("Übung 7", Some("Übung 7"));
        check("", None);
        check("a\u{1b}[31m", None);
        check("a\u{202e}b", None);
        check(&"x".repeat(201), None);
        assert_eq!(plain("a\nb\u{200b}c", 9), "abc");
        assert_eq!(plain("abcd", 2), "ab…");
    }

    #[test]
    fn names_can_be_typed_into_a_shell() {
        let check = |name: &str, expected: &str| assert_eq!(word(name), expected);
        check("shop", "shop");
        check("qwen3:4b", "qwen3:4b");
        check("our shop", "'our shop'");
        check("$(id)", "'$(id)'");
        check("it's", "'it'\\''s'");
        check("", "''");
    }

    #[test]
    fn sizes_are_told_in_powers_of_ten() {
        let check = |bytes: u64, expected: &str| assert_eq!(gigabytes(bytes), expected);
        check(4_400_000_000, "4.4 GB");
        check(60_000_001, "61 MB");
        check(0, "0 MB");
    }

    #[test]
    fn numbers_have_words() {
        assert_eq!(counted(1, "example"), "1 example");
        assert_eq!(counted(0, "example"), "0 examples");
    }
}

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
mod setup;
mod train;
mod versions;

use module_sdk::{Error, Result, jiff::Timestamp};

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

/// Returns a time in milliseconds as programs read it.
fn time(ms: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(ms).ok()
}

/// Returns a time in milliseconds as people read it, in UTC.
fn minute(ms: i64) -> String {
    time(ms).map_or_else(|| "-".to_owned(), |it| it.strftime("%Y-%m-%d %H:%M").to_string())
}

/// Returns a number with the word for what is counted: "1 example", "2 examples".
fn counted(number: u64, word: &str) -> String {
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
    fn numbers_have_words() {
        assert_eq!(counted(1, "example"), "1 example");
        assert_eq!(counted(0, "example"), "0 examples");
    }
}

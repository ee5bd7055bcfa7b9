//! Checks of answers: what a question that comes with Lodestar, or that a person wrote, asks for.

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

/// Longest pattern that is compiled, in bytes of its automaton.
const PATTERN_BYTES: usize = 1 << 20;

/// Checks as they stand in a line of a file. Of several each has to hold.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// Texts of which one has to be there as whole words, in whatever case.
    #[serde(default)]
    contains: Option<OneOrMore>,
    /// The whole answer, but for the space around it.
    #[serde(default)]
    equals: Option<String>,
    /// A regular expression that has to match somewhere.
    #[serde(default)]
    matches: Option<String>,
    /// `true` for an answer that is JSON, or the keys that its object must have.
    #[serde(default)]
    json: Option<Json>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Json {
    Any(bool),
    Keys(Vec<String>),
}

/// A check, ready to be made.
#[derive(Debug, Clone)]
pub(super) enum Check {
    /// One of these texts is there.
    Contains(Vec<String>),
    /// The answer is this one.
    Equals(String),
    /// A pattern matches.
    Matches(Regex),
    /// The answer is JSON, and an object with these keys where there are some.
    Json(Vec<String>),
}

/// Reason why checks cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// There is none.
    #[error("has no check: write `contains`, `equals`, `matches` or `json`")]
    None,
    /// A text is empty, and every answer would hold it.
    #[error("has an empty text to look for")]
    Empty,
    /// `json` is `false`.
    #[error("says `json: false`: leave it out, or write `true`")]
    NotJson,
    /// A pattern is none. Its text is not repeated, as it may be long.
    #[error("has a pattern that is no regular expression")]
    Pattern,
}

impl Written {
    /// Returns the checks.
    ///
    /// # Errors
    ///
    /// When there is none, or one that says nothing.
    pub(super) fn checks(self) -> Result<Vec<Check>, CheckError> {
        let mut checks = Vec::new();
        if let Some(texts) = self.contains {
            let texts = match texts {
                OneOrMore::One(text) => vec![text],
                OneOrMore::More(texts) => texts,
            };
            if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
                return Err(CheckError::Empty);
            }
            checks.push(Check::Contains(texts));
        }
        checks.extend(self.equals.map(|text| Check::Equals(text.trim().to_owned())));
        if let Some(pattern) = self.matches {
            let mut builder = regex::RegexBuilder::new(&pattern);
            let built = builder.size_limit(PATTERN_BYTES).build();
            checks.push(Check::Matches(built.map_err(|_| CheckError::Pattern)?));
        }
        match self.json {
            Some(Json::Any(false)) => return Err(CheckError::NotJson),
            Some(Json::Any(true)) => checks.push(Check::Json(Vec::new())),
            Some(Json::Keys(keys)) => checks.push(Check::Json(keys)),
            None => {}
        }
        if checks.is_empty() { Err(CheckError::None) } else { Ok(checks) }
    }
}

impl Check {
    /// Returns whether an answer passes.
    pub(super) fn passes(&self, answer: &str) -> bool {
        match self {
            Self::Contains(texts) => texts.iter().any(|text| has_words(answer, text)),
            Self::Equals(text) => answer.trim() == text,
            Self::Matches(pattern) => pattern.is_match(answer),
            Self::Json(keys) => json_of(answer)
                .is_some_and(|value| keys.iter().all(|key| value.get(key.as_str()).is_some())),
        }
    }

    /// Returns the texts that an answer is compared with.
    pub(super) fn texts(&self) -> &[String] {
        match self {
            Self::Contains(texts) => texts,
            Self::Equals(text) => std::slice::from_ref(text),
            Self::Matches(_) | Self::Json(_) => &[],
        }
    }
}

/// Returns whether a text holds another one, in whatever case, with no letter or digit right before
/// or after it where it begins or ends with one itself.
fn has_words(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.to_lowercase(), wanted.trim().to_lowercase());
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let (first, last) = (wanted.chars().next(), wanted.chars().next_back());
    text.match_indices(&wanted).any(|(at, found)| {
        let (before, after) =
            (text[..at].chars().next_back(), text[at + found.len()..].chars().next());
        !(is_word(first) && is_word(before) || is_word(last) && is_word(after))
    })
}

/// Returns the JSON of an answer, which may stand in a block of code.
pub(super) fn json_of(answer: &str) -> Option<Value> {
    let text = answer.trim();
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let inner = inner.map_or(text, |rest| rest.strip_prefix("json").unwrap_or(rest).trim());
    serde_json::from_str(inner).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checks(written: Value) -> Result<Vec<Check>, CheckError> {
        serde_json::from_value::<Written>(written).expect("it has the form").checks()
    }

    #[test]
    fn answers_pass_or_do_not() {
        let check = |written: Value, answer: &str, expected: bool| {
            let all = checks(written.clone()).expect("it can be used");
            let found = all.iter().all(|check| check.passes(answer));
            assert_eq!(found, expected, "{written} {answer:?}");
        };
        check(json!({"contains": "Paris"}), "It is PARIS.", true);
        check(json!({"contains": "Paris"}), "It is Parisian.", false);
        check(json!({"contains": ["six", "6"]}), "That makes 6", true);
        check(json!({"contains": ["six", "6"]}), "That makes 16", false);
        check(json!({"contains": "```"}), "a```b", true);
        check(json!({"contains": "Öl"}), "öl!", true);
        check(json!({"contains": "İ"}), "i\u{307} there", true);
        check(json!({"equals": " yes "}), "yes\n", true);
        check(json!({"equals": "yes"}), "Yes", false);
        check(json!({"matches": "^[A-Z]{3}-\\d+$"}), "ABC-12", true);
        check(json!({"matches": "^[A-Z]{3}-\\d+$"}), "abc-12", false);
        check(json!({"json": true}), "[1, 2]", true);
        check(json!({"json": true}), "```json\n{\"a\": 1}\n```", true);
        check(json!({"json": true}), "{\"a\": 1} it is", false);
        check(json!({"json": ["a", "b"]}), "{\"a\": 1, \"b\": null}", true);
        check(json!({"json": ["a", "b"]}), "{\"a\": 1}", false);
        check(json!({"json": ["a"]}), "[\"a\"]", false);
        // All of them have to hold.
        check(json!({"json": true, "contains": "a"}), "{\"b\": 1}", false);
    }

    #[test]
    fn checks_that_say_nothing_are_refused() {
        let check = |written: Value, expected: CheckError| {
            assert_eq!(checks(written).expect_err("it says nothing"), expected);
        };
        check(json!({}), CheckError::None);
        check(json!({"contains": []}), CheckError::Empty);
        check(json!({"contains": ["a", " "]}), CheckError::Empty);
        check(json!({"json": false}), CheckError::NotJson);
        check(json!({"matches": "("}), CheckError::Pattern);
        check(json!({"matches": "(a{1000}){1000}"}), CheckError::Pattern);
    }
}

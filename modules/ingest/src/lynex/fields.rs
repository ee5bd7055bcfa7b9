//! Reads the fields of a JSON object and collects the problems, each with its place.

use std::cell::RefCell;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::{Map, Value};

use super::error::Problem;
use crate::sources::{MAX_TOKENS, name};

/// An object at a place of the body.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
    problems: &'a RefCell<Vec<Problem>>,
}

impl<'a> Fields<'a> {
    /// Returns the fields of a value that must be an object; for any other value notes a problem.
    pub(super) fn of(
        value: &'a Value,
        path: &str,
        problems: &'a RefCell<Vec<Problem>>,
    ) -> Option<Self> {
        let Value::Object(map) = value else {
            let message = "must be an object".to_owned();
            problems.borrow_mut().push(Problem { path: path.to_owned(), message });
            return None;
        };
        Some(Self { map, path: path.to_owned(), problems })
    }

    /// Notes that a field is wrong.
    pub(super) fn problem(&self, field: &str, message: &str) {
        let path = format!("{}/{}", self.path, field.replace('~', "~0").replace('/', "~1"));
        self.problems.borrow_mut().push(Problem { path, message: message.to_owned() });
    }

    /// Returns the value of a field; null counts as absent.
    pub(super) fn value(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    fn required(&self, field: &str) -> Option<&'a Value> {
        let value = self.value(field);
        if value.is_none() {
            self.problem(field, "is missing");
        }
        value
    }

    /// Returns an object that is required.
    pub(super) fn object(&self, field: &str) -> Option<Self> {
        let value = self.required(field)?;
        Self::of(value, &format!("{}/{field}", self.path), self.problems)
    }

    /// Returns an object that is optional.
    pub(super) fn optional_object(&self, field: &str) -> Option<Self> {
        let value = self.value(field)?;
        Self::of(value, &format!("{}/{field}", self.path), self.problems)
    }

    /// Returns a text that is required, and may be empty.
    pub(super) fn text(&self, field: &str) -> Option<&'a str> {
        self.required(field)?;
        self.optional_text(field)
    }

    /// Returns a text that is optional.
    pub(super) fn optional_text(&self, field: &str) -> Option<&'a str> {
        match self.value(field)? {
            Value::String(text) => Some(text),
            _ => {
                self.problem(field, "must be a text");
                None
            }
        }
    }

    /// Returns a text that is required and must have the form of a name: an id, a model.
    pub(super) fn name(&self, field: &str) -> Option<String> {
        let found = name(self.text(field)?);
        if found.is_none() {
            self.problem(
                field,
                "must have 1 to 128 visible ASCII characters, without spaces, quotes and braces",
            );
        }
        found
    }

    /// Returns a text that is required, where it has the form of a name. Titles that people choose
    /// need not be names, and are then left out.
    pub(super) fn title(&self, field: &str) -> Option<String> {
        name(self.text(field)?)
    }

    /// Returns a text that is optional, where it has the form of a name.
    pub(super) fn optional_title(&self, field: &str) -> Option<String> {
        name(self.optional_text(field)?)
    }

    /// Returns the text of a required field that must be one of `words`.
    pub(super) fn word(&self, field: &str, words: &[&'static str]) -> Option<&'static str> {
        let text = self.text(field)?;
        let found = words.iter().find(|word| word.eq_ignore_ascii_case(text)).copied();
        if found.is_none() {
            self.problem(field, &format!("must be one of {}", words.join(", ")));
        }
        found
    }

    /// Returns a finite number that is required.
    pub(super) fn number(&self, field: &str) -> Option<f64> {
        self.required(field)?;
        self.optional_number(field)
    }

    /// Returns a finite number that is optional.
    pub(super) fn optional_number(&self, field: &str) -> Option<f64> {
        let number = self.value(field)?.as_f64().filter(|number| number.is_finite());
        if number.is_none() {
            self.problem(field, "must be a number");
        }
        number
    }

    /// Returns a number that is optional and must not be negative, such as a duration.
    pub(super) fn optional_amount(&self, field: &str) -> Option<f64> {
        let number = self.optional_number(field)?;
        if number < 0.0 {
            self.problem(field, "must not be negative");
            return None;
        }
        Some(number)
    }

    /// Returns a number of tokens that is required.
    pub(super) fn count(&self, field: &str) -> Option<u64> {
        self.required(field)?;
        self.optional_count(field)
    }

    /// Returns a number of tokens that is optional.
    pub(super) fn optional_count(&self, field: &str) -> Option<u64> {
        let value = self.value(field)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        let whole = |number: f64| {
            (number.fract() == 0.0 && (0.0..=1e15).contains(&number)).then_some(number as u64)
        };
        let count = value.as_u64().or_else(|| value.as_f64().and_then(whole));
        let count = count.filter(|count| *count <= MAX_TOKENS);
        if count.is_none() {
            self.problem(field, &format!("must be a whole number from 0 to {MAX_TOKENS}"));
        }
        count
    }

    /// Returns a time that is required: ISO 8601; without a zone it is UTC.
    pub(super) fn time(&self, field: &str) -> Option<Timestamp> {
        self.required(field)?;
        self.optional_time(field)
    }

    /// Returns a time that is optional.
    pub(super) fn optional_time(&self, field: &str) -> Option<Timestamp> {
        let value = self.value(field)?;
        let time = match value {
            Value::String(text) => time(text),
            _ => None,
        };
        if time.is_none() {
            self.problem(field, "must be a time such as 2026-11-20T23:48:21.711Z");
        }
        time
    }

    /// Returns a list that is required.
    pub(super) fn list(&self, field: &str) -> Option<&'a [Value]> {
        match self.required(field)? {
            Value::Array(list) => Some(list),
            _ => {
                self.problem(field, "must be a list");
                None
            }
        }
    }

    /// Returns the number of characters of a text that is optional, and of any other value that of
    /// its JSON.
    pub(super) fn length(&self, field: &str) -> Option<u64> {
        self.value(field).map(|value| match value {
            Value::String(text) => text.chars().count() as u64,
            other => other.to_string().chars().count() as u64,
        })
    }

    /// Returns the number of fields of the object.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }
}

fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse::<Timestamp>().ok().or_else(|| {
        let naive: DateTime = text.parse().ok()?;
        Some(naive.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_without_a_zone_are_utc() {
        let check = |text: &str, expected: Option<&str>| {
            let expected = expected.map(|text| text.parse().expect("a time"));
            assert_eq!(time(text), expected, "{text}");
        };
        check("2026-11-20T23:48:21.711Z", Some("2026-11-20T23:48:21.711Z"));
        check("2026-11-20T23:48:21.711+02:00", Some("2026-11-20T21:48:21.711Z"));
        check("2026-11-20T23:48:21.711234", Some("2026-11-20T23:48:21.711234Z"));
        check("2026-11-20 23:48:21", Some("2026-11-20T23:48:21Z"));
        check("yesterday", None);
        check("", None);
    }

    #[test]
    fn problems_have_their_place_and_no_value() {
        let problems = RefCell::new(Vec::new());
        let value = json!({"n": "secret", "t": 5, "w": "secret", "c": -1, "o": [], "a/b": {}});
        let fields = Fields::of(&value, "/body", &problems).expect("an object");
        assert_eq!(fields.number("n"), None);
        assert_eq!(fields.text("t"), None);
        assert_eq!(fields.word("w", &["a", "b"]), None);
        assert_eq!(fields.count("c"), None);
        assert!(fields.object("o").is_none());
        assert_eq!(fields.text("a/b"), None);
        assert_eq!(fields.text("gone"), None);
        let told: Vec<String> =
            problems.borrow().iter().map(|p| format!("{} {}", p.path, p.message)).collect();
        assert_eq!(
            told,
            [
                "/body/n must be a number",
                "/body/t must be a text",
                "/body/w must be one of a, b",
                "/body/c must be a whole number from 0 to 1000000000000",
                "/body/o must be an object",
                "/body/a~1b must be a text",
                "/body/gone is missing",
            ]
        );
    }
}

//! Patterns that pick alerts: of channels, silences and maintenance windows.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::note::Subject;
use crate::rule::Pattern;

/// Conditions on an alert, all of which have to hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matcher {
    conditions: Vec<(Field, Pattern)>,
}

/// Part of an alert that a pattern is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    /// Id, name of the rule or component, whichever fits.
    Any,
    Id,
    Name,
    Severity,
    /// A label; the component is one of them.
    Label(String),
}

/// A text that picks nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} picks no alerts; write a rule, component or id such as `disk.*`, or conditions such as \
     `component=disk.*,severity=warning`"
)]
pub struct MatcherError(String);

/// Longest text of a matcher, in bytes.
const LONGEST: usize = 1_000;

impl Matcher {
    /// Returns whether an alert fits.
    #[must_use]
    pub fn fits(&self, alert: &Subject) -> bool {
        self.conditions.iter().all(|(field, pattern)| match field {
            Field::Any => [&alert.id, &alert.name, &alert.component]
                .into_iter()
                .any(|text| pattern.fits(text)),
            Field::Id => pattern.fits(&alert.id),
            Field::Name => pattern.fits(&alert.name),
            Field::Severity => pattern.fits(alert.severity.as_str()),
            Field::Label(name) => {
                alert.labels.get(name).is_some_and(|value| pattern.fits(value))
                    || (name == "component" && pattern.fits(&alert.component))
            }
        })
    }

    /// Creates a matcher from patterns by the names of what they are compared with.
    #[must_use]
    pub fn of(patterns: &BTreeMap<String, String>) -> Self {
        let conditions = patterns
            .iter()
            .map(|(name, pattern)| (field(name), Pattern::new(pattern.clone())))
            .collect();
        Self { conditions }
    }
}

fn field(name: &str) -> Field {
    match name {
        "id" => Field::Id,
        "name" => Field::Name,
        "severity" => Field::Severity,
        label => Field::Label(label.to_owned()),
    }
}

impl FromStr for Matcher {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MatcherError(crate::text::visible(text));
        let mut conditions = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, pattern) = match part.split_once('=') {
                Some((name, pattern)) => (field(name.trim()), pattern.trim()),
                None => (Field::Any, part),
            };
            if pattern.is_empty() || name == Field::Label(String::new()) {
                return Err(error());
            }
            conditions.push((name, Pattern::new(pattern)));
        }
        if text.len() > LONGEST { Err(error()) } else { Ok(Self { conditions }) }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (field, pattern)) in self.conditions.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let name = match field {
                Field::Any => "",
                Field::Id => "id=",
                Field::Name => "name=",
                Field::Severity => "severity=",
                Field::Label(name) => &format!("{name}="),
            };
            write!(f, "{comma}{name}{}", pattern.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::note::tests::subject;

    #[test]
    fn alerts_are_picked_by_what_they_are() {
        let alert = subject("disk_low", "disk./home", "warning");
        let check = |text: &str, expected: bool| {
            let matcher: Matcher = text.parse().expect("it is a matcher");
            assert_eq!(matcher.fits(&alert), expected, "{text}");
            assert_eq!(matcher.to_string().parse(), Ok(matcher), "{text}");
        };
        check("disk.*", true);
        check("disk_low", true);
        check("memory|disk_low", true);
        check("component=disk.*, severity=warning", true);
        check("component=disk.*,severity=critical", false);
        check("name=disk_*", true);
        check("name=disk.*", false);
        check("team=ops", false);
        check("*", true);
        for text in ["", ",", "=x", "a=", &"a".repeat(2_000)] {
            assert!(text.parse::<Matcher>().is_err(), "{text}");
        }
    }
}

//! Personal data: what tells who somebody is becomes a placeholder that says what it was.
//!
//! `<EMAIL_1>`: the same value has the same number within an example, so that what is said of it
//! still holds together. What belongs to nobody (addresses of documentation, private networks,
//! accounts of machines) stays.

mod names;
mod network;
mod numbers;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use serde_json::{Map, Value};

use super::{
    config::Config,
    filter::{Candidate, Filter, Reason, Work},
};
use crate::example::Example;

/// Kind of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Email,
    Ip,
    Phone,
    Card,
    Iban,
    User,
    Host,
}

impl Kind {
    /// Returns the name by which replacements are counted.
    fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Ip => "ip",
            Self::Phone => "phone",
            Self::Card => "card",
            Self::Iban => "iban",
            Self::User => "user",
            Self::Host => "host",
        }
    }
}

/// A place of a text that has personal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    range: Range<usize>,
    kind: Kind,
}

/// Step that replaces personal data. It drops only what somebody made so that it never ends.
pub(super) struct PersonalData {
    user_names: Vec<String>,
    host_names: Vec<String>,
}

/// Number of times that a text is looked through: what stands beside a placeholder may only then be
/// seen for what it is. Two find all that people write; numbers in a long row without anything
/// between take one each.
const ROUNDS: usize = 12;

impl PersonalData {
    pub(super) fn new(config: &Config) -> Self {
        let of = |names: &[String]| names.iter().map(|name| name.trim().to_owned()).collect();
        Self { user_names: of(&config.user_names), host_names: of(&config.host_names) }
    }

    /// Replaces personal data in all texts of an example; returns how many of each kind, `None`
    /// where some may be left.
    pub(super) fn redact(&self, example: &mut Example) -> Option<BTreeMap<&'static str, u32>> {
        let mut placeholders = Placeholders::default();
        let mut known = Known { users: self.user_names.clone(), hosts: self.host_names.clone() };
        each_text(example, &mut |text| known.learn(text));
        for _ in 0..ROUNDS {
            let mut is_same = true;
            each_text(example, &mut |text| {
                let spans = known.spans(text);
                if !spans.is_empty() {
                    is_same = false;
                    *text = placeholders.replace(text, &spans);
                }
            });
            if is_same {
                return Some(placeholders.counts);
            }
        }
        None
    }
}

/// Names of people and machines that are looked for in all texts of an example.
struct Known {
    users: Vec<String>,
    hosts: Vec<String>,
}

impl Known {
    /// Learns the names that a text says: the owner of a folder is named elsewhere, too.
    fn learn(&mut self, text: &str) {
        let mut spans = Vec::new();
        names::find(text, &mut spans);
        for Span { range, kind } in spans {
            let name = &text[range];
            let names = match kind {
                Kind::Host => &mut self.hosts,
                _ => &mut self.users,
            };
            if names::is_telling(name) && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }

    /// Returns the places of personal data, in their order and none within another.
    fn spans(&self, text: &str) -> Vec<Span> {
        let mut spans = Vec::new();
        numbers::find(text, &mut spans);
        network::find(text, &mut spans);
        names::find(text, &mut spans);
        names::find_known(text, &self.users, Kind::User, &mut spans);
        names::find_known(text, &self.hosts, Kind::Host, &mut spans);
        spans.retain(|span| !span.range.is_empty());
        // Of two that overlap one is made: no part of either may stay.
        spans.sort_by_key(|span| (span.range.start, std::cmp::Reverse(span.range.end)));
        let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match joined.last_mut() {
                Some(last) if span.range.start < last.range.end => {
                    last.range.end = last.range.end.max(span.range.end);
                }
                _ => joined.push(span),
            }
        }
        joined
    }
}

/// Placeholders of an example.
#[derive(Default)]
struct Placeholders {
    numbers: HashMap<(Kind, String), usize>,
    /// Number of different values of each kind.
    values: HashMap<Kind, usize>,
    counts: BTreeMap<&'static str, u32>,
}

impl Placeholders {
    fn replace(&mut self, text: &str, spans: &[Span]) -> String {
        let mut replaced = String::with_capacity(text.len());
        let mut end = 0;
        for Span { range, kind } in spans {
            replaced.push_str(&text[end..range.start]);
            replaced.push_str(&self.of(*kind, &text[range.clone()]));
            end = range.end;
        }
        replaced.push_str(&text[end..]);
        replaced
    }

    fn of(&mut self, kind: Kind, value: &str) -> String {
        *self.counts.entry(kind.name()).or_default() += 1;
        let count = self.values.entry(kind).or_default();
        let number = self.numbers.entry((kind, value.to_lowercase())).or_insert_with(|| {
            *count += 1;
            *count
        });
        format!("<{}_{number}>", kind.name().to_uppercase())
    }
}

/// Shows each text of an example: what was said, and each string of calls and tools.
fn each_text(example: &mut Example, change: &mut dyn FnMut(&mut String)) {
    for message in &mut example.messages {
        change(&mut message.content);
        if let Some(calls) = &mut message.tool_calls {
            each_string(calls, change);
        }
    }
    if let Some(tools) = &mut example.tools {
        each_string(tools, change);
    }
}

/// Shows each string of a JSON value, the names of members among them. A depth of more than 128 has
/// no JSON that was read.
fn each_string(value: &mut Value, change: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(values) => values.iter_mut().for_each(|value| each_string(value, change)),
        Value::Object(members) => {
            let old = std::mem::take(members);
            for (mut name, mut value) in old {
                change(&mut name);
                each_string(&mut value, change);
                members.insert(unlike(members, name), value);
            }
        }
        _ => {}
    }
}

/// Returns a name that no member has.
fn unlike(members: &Map<String, Value>, name: String) -> String {
    let numbered = (2_usize..).map(|number| format!("{name} {number}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names.find(|name| !members.contains_key(name)).unwrap_or(name)
}

impl Filter for PersonalData {
    fn name(&self) -> &'static str {
        "personal_data"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        work.each(candidates, |candidate| {
            let counts = self.redact(&mut candidate.example);
            let is_left = counts.is_none();
            candidate.redactions = counts.unwrap_or_default();
            is_left.then_some("personal_data")
        })
    }
}

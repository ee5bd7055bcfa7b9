//! Reading a map of the tree key by key while collecting every problem.

use std::{ops::RangeInclusive, path::Path};

use super::{
    error::{ConfigError, InvalidValue, quoted, suggestion},
    tree::{Entry, Node, SourceLocation, Yaml},
};

/// Problems found so far.
pub(super) struct Problems<'a> {
    file: &'a Path,
    pub(super) errors: Vec<ConfigError>,
    /// Settings that are still accepted but should be written differently.
    pub(super) warnings: Vec<ConfigError>,
}

impl<'a> Problems<'a> {
    pub(super) const fn new(file: &'a Path) -> Self {
        Self { file, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn warn(&mut self, place: &SourceLocation, key: &str, message: &str, hint: &str) {
        self.warnings.push(place.error(self.file, key, message, hint));
    }

    pub(super) fn add(
        &mut self,
        place: &SourceLocation,
        key: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.errors.push(place.error(self.file, key, message, hint));
    }
}

/// The keys of one map. Requested keys are known; [`finish`](Self::finish) refuses the rest.
pub(super) struct Fields<'a> {
    key: String,
    entries: &'a [Entry],
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Returns the fields of a node that must be a map; `key` is its dotted key.
    pub(super) fn of(node: &'a Node, key: &str, problems: &mut Problems<'_>) -> Self {
        let entries = node.entries().unwrap_or_else(|| {
            let message = format!("must be a map of keys, but is {}", node.kind());
            problems.add(&node.place, key, message, "write `key: value` lines below it");
            &[]
        });
        Self { key: key.to_owned(), entries, known: Vec::new() }
    }

    /// Returns the entry of a key that is given and not null.
    pub(super) fn take(&mut self, name: &'static str) -> Option<&'a Entry> {
        self.known.push(name);
        let entry = self.entries.iter().find(|entry| entry.name == name)?;
        (!matches!(entry.node.value, Yaml::Null)).then_some(entry)
    }

    /// Returns the fields of the map below a key.
    pub(super) fn below(&mut self, name: &'static str, problems: &mut Problems<'_>) -> Self {
        let key = self.join(name);
        match self.take(name) {
            Some(entry) => Self::of(&entry.node, &key, problems),
            None => Self { key, entries: &[], known: Vec::new() },
        }
    }

    /// Returns every entry of a map whose keys are names that the operator chose.
    pub(super) const fn named(&self) -> &'a [Entry] {
        self.entries
    }

    /// Returns the dotted form of a key.
    pub(super) fn join(&self, name: &str) -> String {
        if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) }
    }

    pub(super) fn boolean(
        &mut self,
        name: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<bool> {
        let entry = self.take(name)?;
        match &entry.node.value {
            Yaml::Bool(value) => Some(*value),
            Yaml::String(word) if ["yes", "on", "no", "off"].contains(&word.as_str()) => {
                let hint = "only `true` and `false` are booleans in YAML 1.2";
                self.wrong(entry, "`true` or `false`", hint, problems)
            }
            _ => self.wrong(entry, "`true` or `false`", "", problems),
        }
    }

    pub(super) fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        problems: &mut Problems<'_>,
    ) -> Option<u64> {
        let entry = self.take(name)?;
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        match &entry.node.value {
            Yaml::Number(number) => match number.as_u64() {
                Some(value) if range.contains(&value) => Some(value),
                _ => {
                    let message = format!("must be {expected}, but is {number}");
                    problems.add(&entry.node.place, &self.join(name), message, "");
                    None
                }
            },
            Yaml::String(_) => {
                let hint = "write it without quotes and without a unit";
                self.wrong(entry, &expected, hint, problems)
            }
            _ => self.wrong(entry, &expected, "", problems),
        }
    }

    pub(super) fn text(
        &mut self,
        name: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<&'a str> {
        let entry = self.take(name)?;
        match &entry.node.value {
            Yaml::String(text) => Some(text),
            Yaml::Number(_) | Yaml::Bool(_) => {
                self.wrong(entry, "a text", "put it in quotes", problems)
            }
            _ => self.wrong(entry, "a text", "", problems),
        }
    }

    /// Reads a list of texts, none of them empty.
    pub(super) fn texts(
        &mut self,
        name: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<Vec<String>> {
        let entry = self.take(name)?;
        let Yaml::List(nodes) = &entry.node.value else {
            return self.wrong(entry, "a list of texts", "write `[one, another]`", problems);
        };
        let mut texts = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            match node.text() {
                Some(text) if !text.is_empty() => texts.push(text.to_owned()),
                _ => {
                    let key = format!("{}[{index}]", self.join(name));
                    let message = format!("must be a text, but is {}", node.kind());
                    problems.add(&node.place, &key, message, "put it in quotes");
                }
            }
        }
        Some(texts)
    }

    /// Reads a text with `read`; if that fails, its message becomes an error.
    pub(super) fn parsed<T>(
        &mut self,
        name: &'static str,
        problems: &mut Problems<'_>,
        read: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        let text = self.text(name, problems)?;
        match read(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let place = &self.entries.iter().find(|entry| entry.name == name)?.node.place;
                problems.add(place, &self.join(name), error.to_string(), "");
                None
            }
        }
    }

    /// Reads one word of a closed list.
    pub(super) fn word<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&'static str, T)],
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        let entry = self.take(name)?;
        word(&entry.node, &self.join(name), words, problems)
    }

    /// Refuses the keys that were not requested.
    pub(super) fn finish(self, problems: &mut Problems<'_>) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&&*entry.name)) {
            let hint = suggestion(&entry.name, &self.known);
            problems.add(&entry.place, &self.join(&entry.name), "unknown key", hint);
        }
    }

    fn wrong<T>(
        &self,
        entry: &Entry,
        expected: &str,
        hint: &str,
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        let message = format!("must be {expected}, but is {}", entry.node.kind());
        problems.add(&entry.node.place, &self.join(&entry.name), message, hint);
        None
    }
}

/// Reads one word of a closed list.
pub(super) fn word<T: Copy>(
    node: &Node,
    key: &str,
    words: &[(&'static str, T)],
    problems: &mut Problems<'_>,
) -> Option<T> {
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    let expected = quoted(&names, "or");
    let Yaml::String(given) = &node.value else {
        let message = format!("must be {expected}, but is {}", node.kind());
        problems.add(&node.place, key, message, "");
        return None;
    };
    if let Some((_, value)) = words.iter().find(|(name, _)| name == given) {
        return Some(*value);
    }
    let message = format!("must be {expected}, but is another word");
    let hint = super::error::nearest(given, names.iter().copied())
        .map_or_else(String::new, |right| format!("did you mean `{right}`?"));
    problems.add(&node.place, key, message, hint);
    None
}

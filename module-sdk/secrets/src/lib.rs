//! Keeps secrets out of all that is written or shown: those that the configuration names, and what
//! looks like one ([adr/0056](../../../adr/0056-secrets-in-names.md)).

mod find;
mod json;
mod keys;
mod kinds;
#[cfg(test)]
mod names_tests;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use aho_corasick::{AhoCorasick, AhoCorasickKind};

pub use find::Found;
use json::Of;
pub use keys::KeyLines;
use kinds::{KINDS, Kind};
pub use kinds::{is_reference, looks_random};

/// Replacement for a secret.
const REPLACEMENT: &str = "[redacted]";

/// Escapes with which JSON may write a character of a secret otherwise than it is.
const ESCAPES: [&str; 2] = [r"\u00", r"\/"];

/// Length in bytes of the shortest text that [`Redactor::learn`] takes.
const LEAST: usize = 6;

/// Number of bytes from which on a learnt secret is no name, whatever it looks like.
const LONG: usize = 20;

/// Redactor of secrets in text.
#[derive(Debug)]
pub struct Redactor {
    known: RwLock<Known>,
}

/// Texts and marks that are looked for.
#[derive(Debug)]
struct Known {
    /// Searcher for what may belong to a secret: the marks of the kinds, the secrets that were
    /// learnt, and the escapes, in this order.
    finder: AhoCorasick,
    /// Index of the kind to which each mark belongs.
    kinds: Vec<usize>,
    /// Texts that the configuration names, the longest first.
    learnt: Vec<Learnt>,
}

/// A text that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Learnt {
    text: String,
    /// `true` when it is a secret that no name can be.
    is_unlike_names: bool,
}

/// Selection of the learnt texts that are taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Take {
    /// All: of what is logged or shown, where a word too few does no harm.
    All,
    /// Secrets that no name can be: of what is kept, and what counts by its names.
    UnlikeNames,
    /// None: of the names of members.
    None,
}

/// Hits in a text, each kind as a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Hits {
    kinds: u128,
    learnt: bool,
    escapes: bool,
}

const _: () = assert!(KINDS.len() <= u128::BITS as usize, "each kind is a bit");

impl Default for Redactor {
    fn default() -> Self {
        Self::new()
    }
}

impl Redactor {
    /// Creates a redactor that knows the usual forms of secrets.
    #[must_use]
    pub fn new() -> Self {
        Self { known: RwLock::new(Known::new(Vec::new())) }
    }

    /// Keeps this very text out of logs and errors from now on, also as Rust and JSON write it
    /// within quotes. Short texts are ignored: they would remove ordinary words.
    pub fn learn(&self, text: &str) {
        self.take_note(text, false);
    }

    /// Learns a text that is a secret by where it stands, as [`learn`](Self::learn) does. One that
    /// is no name, that is long or random, is kept out of events, metrics and answers too.
    pub fn learn_secret(&self, secret: &str) {
        self.take_note(secret, secret.len() >= LONG || looks_random(secret));
    }

    fn take_note(&self, text: &str, is_unlike_names: bool) {
        if text.len() < LEAST {
            return;
        }
        let quoted = [format!("{text:?}"), serde_json::Value::from(text).to_string()];
        let quoted = quoted.iter().map(|text| &text[1..text.len() - 1]);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut learnt = known.learnt.clone();
        for text in quoted.chain([text]) {
            match learnt.iter_mut().find(|other| other.text == text) {
                Some(other) => other.is_unlike_names |= is_unlike_names,
                None => learnt.push(Learnt { text: text.to_owned(), is_unlike_names }),
            }
        }
        // Of one that begins like another nothing is left.
        learnt.sort_by_key(|learnt| std::cmp::Reverse(learnt.text.len()));
        if learnt != known.learnt {
            *known = Known::new(learnt);
        }
    }

    /// Returns words for people, of a log or an error, without secrets.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.known().redact(text, Take::All, &|_| REPLACEMENT.to_owned())
    }

    /// Returns a text that may be a name (a metric's label, a topic) without secrets.
    pub fn redact_name<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.known().redact(text, Take::UnlikeNames, &|_| REPLACEMENT.to_owned())
    }

    /// Returns a name with each secret replaced by `[redacted:ALIAS]`: names that differed still
    /// differ. `alias` must not tell the secret.
    pub fn redact_name_to_alias<'a>(
        &self,
        text: &'a str,
        alias: &dyn Fn(&str) -> String,
    ) -> Cow<'a, str> {
        self.known().redact(text, Take::UnlikeNames, &|secret| named(&alias(secret)))
    }

    /// Returns JSON of a log whose strings are without secrets, `None` where there was none. The
    /// rest stays as it was written.
    pub fn redact_json(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.json(bytes, Take::All, None)
    }

    /// Returns JSON of data, in which names count, without secrets, `None` where there was none.
    pub fn redact_data(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.json(bytes, Take::UnlikeNames, None)
    }

    /// Returns JSON of data as [`redact_data`](Self::redact_data) does, but in a member whose name
    /// says that it is an id a secret becomes `[redacted:ALIAS]`.
    pub fn redact_data_to_alias(
        &self,
        bytes: &[u8],
        alias: &dyn Fn(&str) -> String,
    ) -> Option<Vec<u8>> {
        self.json(bytes, Take::UnlikeNames, Some(alias))
    }

    fn json(
        &self,
        bytes: &[u8],
        take: Take,
        alias: Option<&dyn Fn(&str) -> String>,
    ) -> Option<Vec<u8>> {
        let known = self.known();
        let hits = known.hits(bytes);
        if hits == Hits::default() {
            return None;
        }
        json::redact(bytes, &|of, text| {
            let (member, take) = match of {
                Of::Name if take == Take::UnlikeNames => (None, Take::None),
                Of::Name => (None, take),
                Of::Member(name) => (name, take),
            };
            let is_secret = text.len() >= LEAST && member.is_some_and(kinds::names_secret);
            if is_secret && !is_reference(text) {
                return Cow::Owned(REPLACEMENT.to_owned());
            }
            let alias = alias.filter(|_| member.is_some_and(json::names_id));
            known.redact(text, take, &|secret| match alias {
                Some(alias) => named(&alias(secret)),
                None => REPLACEMENT.to_owned(),
            })
        })
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named(alias: &str) -> String {
    format!("[redacted:{alias}]")
}

impl Known {
    fn new(learnt: Vec<Learnt>) -> Self {
        let marks = KINDS.iter().enumerate();
        let marks = marks.flat_map(|(kind, it)| it.marks.iter().map(move |mark| (kind, *mark)));
        let (kinds, marks): (Vec<usize>, Vec<&str>) = marks.unzip();
        let words = learnt.iter().map(|learnt| learnt.text.as_str());
        let texts = marks.into_iter().chain(words).chain(ESCAPES);
        let finder = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(texts)
            .expect("some thousand bytes of text make no too large automaton");
        Self { finder, kinds, learnt }
    }

    fn hits(&self, text: &[u8]) -> Hits {
        let mut hits = Hits::default();
        // Most have none, and that is quickly seen.
        if !self.finder.is_match(text) {
            return hits;
        }
        for found in self.finder.find_overlapping_iter(text) {
            let index = found.pattern().as_usize();
            match self.kinds.get(index) {
                Some(kind) => hits.kinds |= 1 << kind,
                None if index < self.kinds.len() + self.learnt.len() => hits.learnt = true,
                None => hits.escapes = true,
            }
        }
        hits
    }

    fn redact<'a>(&self, text: &'a str, take: Take, name: &dyn Fn(&str) -> String) -> Cow<'a, str> {
        let hits = self.hits(text.as_bytes());
        if hits == Hits::default() {
            return Cow::Borrowed(text);
        }
        let mut text = Cow::Borrowed(text);
        let learnt = if hits.learnt { &*self.learnt } else { &[] };
        let learnt = learnt.iter().filter(|it| match take {
            Take::All => true,
            Take::UnlikeNames => it.is_unlike_names,
            Take::None => false,
        });
        for secret in learnt.map(|it| it.text.as_str()).filter(|it| !REPLACEMENT.contains(it)) {
            if text.contains(secret) {
                text = Cow::Owned(text.replace(secret, &name(secret)));
            }
        }
        for (index, kind) in KINDS.iter().enumerate() {
            if hits.kinds & 1 << index != 0
                && let Some(replaced) = kind.replace(&text, name)
            {
                text = Cow::Owned(replaced);
            }
        }
        text
    }
}

impl Kind {
    /// Returns the text without the secrets of this kind, `None` where there is none.
    fn replace(&self, text: &str, name: &dyn Fn(&str) -> String) -> Option<String> {
        let mut replaced = String::new();
        let mut end = 0;
        for found in self.regex().captures_iter(text).filter_map(|found| found.name("s")) {
            let secret = found.as_str();
            let is_word = self.ambiguous && !looks_random(secret);
            if is_word || is_reference(secret) || secret.starts_with("[redacted") {
                continue;
            }
            replaced.push_str(&text[end..found.start()]);
            replaced.push_str(&name(secret));
            end = found.end();
        }
        if end == 0 {
            return None;
        }
        replaced.push_str(&text[end..]);
        Some(replaced)
    }
}

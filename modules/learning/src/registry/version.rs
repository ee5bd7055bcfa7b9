//! A version: its origin, its gates, its approvals.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Refusal, State};

/// Longest id of a version, in bytes.
const LONGEST_ID: usize = 80;
/// Longest name of a person, in characters.
const LONGEST_NAME: usize = 100;
/// Longest reason, in characters.
const LONGEST_REASON: usize = 1_000;

/// A SHA-256 in lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Returns the digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from(Sha256::digest(bytes).as_slice().try_into().unwrap_or([0; 32]))
    }

    /// Returns the 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(crate::store::hex(&bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(is_digit) {
            return Ok(Self(text));
        }
        Err(Refusal::Text { what: "a digest", fault: "must be 64 lower-case hexadecimal digits" })
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Origin of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Id of the run that trains it.
    pub run: String,
    /// Name of the base model.
    pub base: String,
    /// Digest of the base model's files.
    pub base_digest: Digest,
    /// Id of the dataset.
    pub dataset: String,
    /// Digest of the dataset's lines.
    pub dataset_digest: Digest,
    /// Number of examples that it is trained on.
    pub examples: u64,
    /// Ids of the consents that the examples were kept under.
    pub consents: Vec<String>,
    /// Name of the trainer; empty for a version of before that was noted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trainer: String,
}

/// Base of a policy of the router, which no model has: theirs are absolute paths.
pub const ROUTER: &str = "router";

impl Lineage {
    /// Returns whether the version is a policy of the router, and no model.
    #[must_use]
    pub fn is_policy(&self) -> bool {
        self.base == ROUTER
    }
}

/// Digests of what a version consists of and is judged by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Digest of the artifact.
    pub artifact: Digest,
    /// Digest of the base model's files.
    pub base: Digest,
    /// Digest of the dataset's lines.
    pub dataset: Digest,
    /// Digest of the benchmark that the gates were measured with.
    pub bench: Digest,
}

impl Observed {
    /// Returns the name of the first thing that differs.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let pairs = [
            ("artifact", &self.artifact, &other.artifact),
            ("base", &self.base, &other.base),
            ("dataset", &self.dataset, &other.dataset),
            ("benchmark", &self.bench, &other.bench),
        ];
        pairs.into_iter().find(|(_, one, two)| one != two).map(|(name, _, _)| name)
    }
}

/// A gate: a measured value beside its limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// Name of the gate.
    pub name: String,
    /// `true` when the value is within the limit.
    pub passed: bool,
    /// The measured value; none where it could not be measured.
    pub value: Option<f64>,
    /// The limit.
    pub limit: Option<f64>,
    /// Facts that the value was computed from.
    #[serde(default)]
    pub evidence: Value,
    /// The person who overrode it, and their reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<Overriding>,
}

impl Gate {
    /// Returns whether it stands in the way.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !self.passed && self.overridden.is_none()
    }
}

/// The overriding of a gate. It is shown with the gate for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overriding {
    /// Name of the person.
    pub by: String,
    /// Their reason.
    pub reason: String,
    /// Time of it, in milliseconds since the Unix epoch.
    pub at: i64,
}

/// An approval of exactly one artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Name of the person.
    pub by: String,
    /// Their reason.
    pub reason: String,
    /// Time of it, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Number of the evaluation that it is based on.
    pub evaluation: u64,
    /// Digests of what was approved.
    pub observed: Observed,
}

/// A version as the log tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Id of the version.
    pub id: String,
    /// State of the version.
    pub state: State,
    /// Time of its creation, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// Time of the last entry about it, in milliseconds since the Unix epoch.
    pub updated_at: i64,
    /// Origin of the version.
    pub lineage: Lineage,
    /// Digest of the artifact, once there is one.
    pub artifact: Option<Digest>,
    /// Number of evaluations that were finished.
    pub evaluation: u64,
    /// Digest of the benchmark of the last evaluation.
    pub bench: Option<Digest>,
    /// Gates of the last evaluation.
    pub gates: Vec<Gate>,
    /// Approvals, those of earlier evaluations too.
    pub approvals: Vec<Approval>,
    /// `true` when it was learnt from what should be forgotten.
    pub tainted: bool,
}

impl Version {
    /// Returns the digests that an approval of the version as it is has to have.
    #[must_use]
    pub fn expected(&self) -> Option<Observed> {
        Some(Observed {
            artifact: self.artifact.clone()?,
            base: self.lineage.base_digest.clone(),
            dataset: self.lineage.dataset_digest.clone(),
            bench: self.bench.clone()?,
        })
    }

    /// Returns the names of the gates that stand in the way; none before they were measured.
    #[must_use]
    pub fn open_gates(&self) -> Option<Vec<String>> {
        let is_open = |gate: &&Gate| gate.is_open();
        let open = self.gates.iter().filter(is_open).map(|gate| gate.name.clone());
        (!self.gates.is_empty()).then(|| open.collect())
    }

    /// Returns the persons who approved exactly this, after the last evaluation.
    #[must_use]
    pub fn approvers(&self, observed: &Observed) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        for approval in &self.approvals {
            let is_valid = approval.evaluation == self.evaluation && approval.observed == *observed;
            if is_valid && !all.iter().any(|other| is_same_person(other, &approval.by)) {
                all.push(&approval.by);
            }
        }
        all
    }
}

/// Returns whether two names are those of one person.
pub(super) fn is_same_person(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

/// The one who acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// The daemon itself.
    Lodestar,
    /// A person, by the name that they gave.
    Person(String),
}

impl Actor {
    /// Returns the form in the log.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Lodestar => "lodestar".to_owned(),
            Self::Person(name) => format!("person:{name}"),
        }
    }

    /// Reads the form in the log.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "lodestar" => Some(Self::Lodestar),
            Some(("person", name)) if !name.is_empty() => Some(Self::Person(name.to_owned())),
            _ => None,
        }
    }

    /// Returns the name of the person.
    #[must_use]
    pub fn person(&self) -> Option<&str> {
        match self {
            Self::Lodestar => None,
            Self::Person(name) => Some(name),
        }
    }

    /// Checks the name of the person.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        self.person().map_or(Ok(()), |name| line("the name of the person", name, LONGEST_NAME))
    }
}

/// Checks an id: it goes into paths and commands.
pub(super) fn check_id(id: &str) -> Result<(), Refusal> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_id = id.bytes().all(is_plain) && id.bytes().next().is_some_and(|byte| byte != b'.');
    if !is_id || id.starts_with('-') || id.len() > LONGEST_ID {
        let fault = "must be 1 to 80 of a-z, A-Z, 0-9, `.`, `_` and `-`, a letter or digit first";
        return Err(Refusal::Text { what: "the id of a version", fault });
    }
    Ok(())
}

/// Checks a reason.
pub(super) fn check_reason(reason: &str, is_needed: bool) -> Result<(), Refusal> {
    if reason.is_empty() && !is_needed {
        return Ok(());
    }
    line("the reason", reason, LONGEST_REASON)
}

/// Checks a text that stands in one line of a table.
fn line(what: &'static str, text: &str, longest: usize) -> Result<(), Refusal> {
    let fault = if text.trim().is_empty() {
        "must not be empty"
    } else if text.trim() != text {
        "must not begin or end with a space"
    } else if text.chars().count() > longest {
        "is too long"
    } else if text.chars().any(is_hidden) {
        "must be one line without control characters"
    } else {
        return Ok(());
    };
    Err(Refusal::Text { what, fault })
}

/// Returns whether a character changes how others are shown: controls, marks of direction, and
/// separators of lines.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{61c}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_checked() {
        let digest = Digest::of(b"abc");
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.as_str(), known);
        for bad in ["", "ba78", &known.to_uppercase(), &format!("{known}0")] {
            Digest::try_from(bad.to_owned()).expect_err("it is refused");
        }
        assert_eq!(Digest::try_from(known.to_owned()), Ok(digest));
    }

    #[test]
    fn ids_and_reasons_are_checked() {
        for good in ["shop-v1", "0190e2d4-aaaa", "A.b_c"] {
            assert_eq!(check_id(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "-v", "a/b", "a b", "ä", &"x".repeat(81)] {
            check_id(bad).expect_err(bad);
        }
        assert_eq!(check_reason("", false), Ok(()));
        assert_eq!(check_reason("better at SQL, wie gewünscht", true), Ok(()));
        for bad in ["", " ", "a\nb", "a\u{202e}b", " a", "\u{1b}[31m", &"x".repeat(1_001)] {
            check_reason(bad, true).expect_err(bad);
        }
    }

    #[test]
    fn actors_are_read_as_they_are_written() {
        for actor in [Actor::Lodestar, Actor::Person("anna: x".to_owned())] {
            assert_eq!(Actor::from_text(&actor.to_text()), Some(actor));
        }
        for bad in ["", "lodestar:", "person:", "root"] {
            assert_eq!(Actor::from_text(bad), None, "{bad}");
        }
        Actor::Person("a\0".to_owned()).check().expect_err("it is refused");
    }
}

//! Errors of a module, as the host sees them.

use std::fmt;

use lodestar_abi::{ModError, error_kind};
use serde::{Deserialize, Serialize};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Kind of an [`Error`], which decides how the host treats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A failure. An event is tried again, and after five failures set aside as dead.
    Failed,
    /// A panic that was caught.
    Panic,
    /// An invalid configuration.
    Config,
    /// A temporary failure: full disk, locked database, full queue. An event is tried again until
    /// it works.
    Unavailable,
    /// Arguments of the caller that do not fit.
    Usage,
    /// Something that does not exist.
    NotFound,
    /// A call that the caller gave up.
    Cancelled,
    /// An answer that did not come within the deadline.
    TimedOut,
    /// Something that is not allowed; the message says what to write where.
    Refused,
}

impl ErrorKind {
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Failed => error_kind::FAILED,
            Self::Panic => error_kind::PANIC,
            Self::Config => error_kind::CONFIG,
            Self::Unavailable => error_kind::UNAVAILABLE,
            Self::Usage => error_kind::USAGE,
            Self::NotFound => error_kind::NOT_FOUND,
            Self::Cancelled => error_kind::CANCELLED,
            Self::TimedOut => error_kind::TIMED_OUT,
            Self::Refused => error_kind::REFUSED,
        }
    }

    pub(crate) const fn from_code(code: u32) -> Self {
        match code {
            error_kind::PANIC => Self::Panic,
            error_kind::CONFIG => Self::Config,
            error_kind::UNAVAILABLE => Self::Unavailable,
            error_kind::USAGE => Self::Usage,
            error_kind::NOT_FOUND => Self::NotFound,
            error_kind::CANCELLED => Self::Cancelled,
            error_kind::TIMED_OUT => Self::TimedOut,
            error_kind::REFUSED => Self::Refused,
            _ => Self::Failed,
        }
    }
}

/// An error of a module: a kind for the host, a sentence for a person.
///
/// Every standard error converts into one with `?`. Never put a secret or the text of a prompt
/// into it: it is logged and shown.
///
/// ```
/// use module_sdk::{Error, ErrorKind};
///
/// let error = Error::unavailable("the disk is full").context("cannot store the batch");
/// assert_eq!(error.kind(), ErrorKind::Unavailable);
/// assert_eq!(error.to_string(), "cannot store the batch: the disk is full");
/// ```
pub struct Error {
    kind: ErrorKind,
    message: String,
    place: String,
    /// Key of the configuration that is wrong, with dots; empty for none in particular.
    key: String,
    /// Remedy; empty where the message says it.
    hint: String,
}

impl Error {
    /// Creates an error of the kind [`ErrorKind::Failed`] with this reason.
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Failed, message)
    }

    /// Creates an error for something that cannot work now, but may later.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Unavailable, message)
    }

    /// Creates an error for arguments of a command that do not fit; the message says which and what
    /// would.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Usage, message)
    }

    /// Creates an error for a configuration that cannot be used.
    pub fn config(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Config, message)
    }

    /// Creates an error for one key of the configuration whose value cannot be used: `key` with
    /// dots (`rate_limit.burst`), `message` what is wrong with it. The operator is shown the line
    /// of the file. Leave the value out: it may be a secret.
    ///
    /// ```
    /// use module_sdk::Error;
    ///
    /// let error = Error::config_at("timezone", "is no time zone");
    /// let error = error.near("Europe/Wien", ["Europe/Vienna"]);
    /// assert_eq!(error.to_string(), "timezone: is no time zone; did you mean `Europe/Vienna`?");
    /// ```
    pub fn config_at(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), ..Self::config(message) }
    }

    /// Creates an error of any kind.
    pub fn of(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message, place: String::new(), key: String::new(), hint: String::new() }
    }

    /// Sets the remedy.
    #[must_use]
    pub fn hint(mut self, what: impl Into<String>) -> Self {
        self.hint = what.into();
        self
    }

    /// Asks whether the nearest of `known` was meant, where one of them is near to what was given.
    #[must_use]
    pub fn near<'a>(self, given: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(given, known) {
            Some(right) => self.hint(format!("did you mean `{right}`?")),
            None => self,
        }
    }

    /// Says that the key of the configuration lies below another one, for a part of it that checks
    /// itself.
    ///
    /// ```
    /// use module_sdk::Error;
    ///
    /// let error = Error::config_at("burst", "must not be 0").below("rate_limit");
    /// assert_eq!(error.to_string(), "rate_limit.burst: must not be 0");
    /// ```
    #[must_use]
    pub fn below(mut self, key: &str) -> Self {
        self.key = if self.key.is_empty() { key.to_owned() } else { format!("{key}.{}", self.key) };
        self
    }

    /// Returns how the host treats the error.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Adds what was being done before the message.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Turns an error of another module into an error of the call: its panic is not the caller's,
    /// and neither is its invalid configuration.
    #[must_use]
    pub(crate) fn into_answer(self) -> Self {
        let kind = match self.kind {
            ErrorKind::Panic | ErrorKind::Config => ErrorKind::Failed,
            kind => kind,
        };
        Self { kind, place: String::new(), ..self }
    }

    /// Turns an error of a module's own check into one that says that the configuration cannot be
    /// used.
    #[must_use]
    pub(crate) fn into_config(self) -> Self {
        Self { kind: ErrorKind::Config, ..self }
    }

    /// Sets the handler, command or timer in which the error occurred, unless it is set.
    #[must_use]
    pub(crate) fn at(mut self, place: impl Into<String>) -> Self {
        if self.place.is_empty() {
            self.place = place.into();
        }
        self
    }

    pub(crate) fn from_abi(error: ModError) -> Self {
        let kind = ErrorKind::from_code(error.kind);
        let (message, place) = (error.message.into_string(), error.place.into_string());
        let report = match kind {
            ErrorKind::Config => serde_json::from_str::<ConfigReport>(&message).ok(),
            _ => None,
        };
        match report {
            Some(ConfigReport { path, message, hint }) => {
                Self { kind, message, place, key: path, hint }
            }
            None => Self { place, ..Self::of(kind, message) },
        }
    }

    pub(crate) fn into_abi(self) -> ModError {
        let message = self.to_string();
        ModError { kind: self.kind.code(), message: message.into(), place: self.place.into() }
    }

    /// Converts the error like [`into_abi`](Self::into_abi), but writes a refusal of the
    /// configuration as a [`ConfigReport`].
    pub(crate) fn into_abi_report(self) -> ModError {
        if self.kind != ErrorKind::Config {
            return self.into_abi();
        }
        let (kind, place) = (self.kind.code(), self.place.into());
        let report = ConfigReport { path: self.key, message: self.message, hint: self.hint };
        let json = serde_json::to_string(&report).unwrap_or(report.message);
        ModError { kind, message: json.into(), place }
    }
}

/// A refusal of the configuration as JSON, so that the host can point at the place in the file.
#[derive(Serialize, Deserialize)]
struct ConfigReport {
    path: String,
    message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    hint: String,
}

/// Returns the candidate that a person most likely meant, where one is near enough: a
/// Jaro–Winkler similarity of 0.8 or more, or a Damerau–Levenshtein distance of at most a third
/// of the letters.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |candidate: &str| {
        let edits = strsim::damerau_levenshtein(name, candidate);
        strsim::jaro_winkler(name, candidate) >= 0.8 || edits * 3 <= name.chars().count()
    };
    candidates
        .into_iter()
        .filter(|candidate| near(candidate))
        .min_by_key(|candidate| strsim::damerau_levenshtein(name, candidate))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self::new(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_name() {
        let names = ["database", "retention_days", "enabled"];
        let check = |name, expected| assert_eq!(nearest(name, names), expected, "{name}");
        check("databse", Some("database"));
        check("retention", Some("retention_days"));
        check("enabeld", Some("enabled"));
        check("Enabled", Some("enabled"));
        check("colour", None);
        check("", None);
    }

    #[test]
    fn a_refused_key_crosses_the_boundary_whole() {
        let there = || Error::config_at("a.b", "is wrong").hint("mend it");
        let crossed = there().into_abi_report();
        assert_eq!(
            crossed.message.as_str(),
            r#"{"path":"a.b","message":"is wrong","hint":"mend it"}"#
        );
        assert_eq!(Error::from_abi(crossed).to_string(), there().to_string());
        // Where nobody looks for a report it is a sentence, and a sentence stays one.
        assert_eq!(there().into_abi().message.as_str(), "a.b: is wrong; mend it");
        let sentence = Error::config("no way").into_abi();
        assert_eq!(Error::from_abi(sentence).to_string(), "no way");
        assert_eq!(Error::new("a fault").into_abi_report().message.as_str(), "a fault");
    }
}

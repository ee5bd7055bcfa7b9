//! Errors in a configuration, with place and remedy.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

pub use module_sdk::nearest;
use serde::Serialize;

/// An error in a configuration.
///
/// It never holds a value of the file, because that may be a secret; words of a closed list
/// (`isolation: proces`) are the exception.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The file, `environment variable NAME`, or `--set KEY`.
    #[serde(rename = "file")]
    pub path: String,
    /// The line, from 1; 0 if there is none.
    pub line: u32,
    /// The column in characters, from 1; 0 if there is none.
    pub column: u32,
    /// Dotted key, empty for the whole file.
    pub key: String,
    /// Description of the error.
    pub message: String,
    /// Remedy; empty if the message says it.
    pub hint: String,
}

impl ConfigError {
    /// Creates an error of a whole file.
    pub fn of_file(path: &Path, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            path: path.display().to_string(),
            line: 0,
            column: 0,
            key: String::new(),
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(super) fn read(path: &Path, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                "write it, or name the file with --config; a lodestard that starts without \
                 one writes the default"
            }
            io::ErrorKind::PermissionDenied => "make it readable for the user who runs lodestard",
            _ => "",
        };
        Self::of_file(path, format!("cannot be read: {error}"), hint)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// All errors in a configuration: at least one [`ConfigError`], by line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Returns `value` if there are no errors.
    pub fn or<T>(mut errors: Vec<ConfigError>, value: T) -> Result<T, Self> {
        if errors.is_empty() {
            return Ok(value);
        }
        errors.sort_by_key(|error| (error.line, error.column));
        Err(Self(errors))
    }

    /// Returns the errors, by line.
    #[must_use]
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.0
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Requirement that a value does not meet: part of a sentence, behind the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidValue(&'static str);

impl InvalidValue {
    pub(super) const fn new(fragment: &'static str) -> Self {
        Self(fragment)
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidValue {}

/// Reason for which a reference cannot be resolved: part of a sentence, with the remedy.
#[derive(Debug)]
pub struct ReferenceError(pub(super) BadReference);

/// The kinds of [`ReferenceError`].
#[derive(Debug)]
pub(super) enum BadReference {
    /// `~` without a home directory.
    NoHome,
    /// `${` without `}`.
    Unclosed,
    /// `${…}` around something else than a name.
    NoName,
    /// A variable that is not set.
    NotSet(String),
    /// A file that holds no secret.
    File(PathBuf, BadSecret),
}

/// Reason for which a file cannot be used as a secret.
#[derive(Debug)]
pub(super) enum BadSecret {
    NoFile,
    TooLarge,
    NoText,
    Empty,
    Unreadable(io::Error),
}

impl From<BadReference> for ReferenceError {
    fn from(kind: BadReference) -> Self {
        Self(kind)
    }
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            BadReference::NoHome => {
                f.write_str("`~` has no meaning here: set HOME or write the path out")
            }
            BadReference::Unclosed => {
                f.write_str("holds `${` without `}`; write `$${` for the characters themselves")
            }
            BadReference::NoName => f.write_str(
                "holds `${…}` around something that is no variable's name; write `$${` for the \
                 characters themselves",
            ),
            BadReference::NotSet(name) => write!(
                f,
                "the environment variable {name} is not set; set it where lodestard is started"
            ),
            BadReference::File(path, what) => write!(f, "the file {} {what}", path.display()),
        }
    }
}

impl fmt::Display for BadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => f.write_str("is not a regular file"),
            Self::TooLarge => f.write_str("is larger than 64 KiB; is it the right one?"),
            Self::NoText => f.write_str("is not UTF-8 text"),
            Self::Empty => f.write_str("is empty"),
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

impl std::error::Error for ReferenceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            BadReference::File(_, BadSecret::Unreadable(error)) => Some(error),
            _ => None,
        }
    }
}

/// Returns the remedy for an unknown name: `did you mean …?`, or the list of the known names.
pub(super) fn suggestion(name: &str, candidates: &[&str]) -> String {
    match nearest(name, candidates.iter().copied()) {
        Some(right) => format!("did you mean `{right}`?"),
        None if candidates.is_empty() => "remove it".to_owned(),
        None => format!("known here are {}", quoted(candidates, "and")),
    }
}

/// Returns the names as "`a`, `b` or `c`".
pub(super) fn quoted(names: &[&str], joint: &str) -> String {
    match names {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(|name| format!("`{name}`")).collect();
            format!("{} {joint} `{last}`", first.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_what_and_the_remedy() {
        let error = ConfigError {
            path: "modules.yaml".to_owned(),
            line: 7,
            column: 5,
            key: "modules.usage_tracker.databse".to_owned(),
            message: "unknown key".to_owned(),
            hint: suggestion("databse", &["database"]),
        };
        assert_eq!(
            error.to_string(),
            "modules.yaml:7:5: modules.usage_tracker.databse: unknown key; did you mean \
             `database`?"
        );
        let file = ConfigError::of_file(Path::new("m.yaml"), "is too large", "");
        let errors = ConfigErrors::or(vec![error, file], ()).expect_err("there are errors");
        assert!(errors.to_string().starts_with("m.yaml: is too large\nmodules.yaml:7:5"));
    }

    #[test]
    fn lists_what_there_is_when_nothing_is_near() {
        assert_eq!(suggestion("zzz", &["a", "b", "c"]), "known here are `a`, `b` and `c`");
    }
}

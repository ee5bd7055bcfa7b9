//! References in values of the configuration: `~`, `${NAME}` and `file:/path`.
//!
//! References are resolved when a module is started and not before, so that displayed
//! configurations hold the reference and never the secret.

use std::{
    collections::BTreeMap,
    fmt, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use lodestar_platform::files;

use super::error::{BadReference, BadSecret, InvalidValue, ReferenceError};

/// The largest file that a `file:` reference may name.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// The environment variables that a configuration may use.
///
/// They are captured once and passed on, so that nothing depends on the process's environment.
/// `Debug` shows no values.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Returns the variables of this process that are UTF-8.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Returns the value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Returns all variables by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn home(&self) -> Option<PathBuf> {
        match self.get("HOME") {
            Some(home) if !home.is_empty() => Some(home.into()),
            _ => std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
        }
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self { variables: variables.collect() }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.variables.len())
    }
}

/// A secret in memory. `Debug` shows `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns the secret itself. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A reference to a secret: `${NAME}` or `file:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// An environment variable.
    Variable(String),
    /// A file.
    File(PathBuf),
}

impl Reference {
    /// Reads a reference. Anything else is refused, since it would be the secret itself.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidValue> {
        if let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'))
            && valid_variable(name)
        {
            return Ok(Self::Variable(name.to_owned()));
        }
        match file_of(text) {
            Some(path) => Ok(Self::File(path.into())),
            None => Err(InvalidValue::new(
                "must be a reference, `${NAME}` or `file:/path`, not the secret itself",
            )),
        }
    }

    /// Fetches the secret.
    ///
    /// # Errors
    ///
    /// When the variable is not set or the file cannot be used.
    pub fn resolve(&self, environment: &Environment) -> Result<Fetched, ReferenceError> {
        match self {
            Self::Variable(name) => {
                let value = variable(name, environment)?;
                Ok(Fetched { secret: Secret(value.to_owned()), warning: None })
            }
            Self::File(path) => read_secret(&expand_path(path, environment)?),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "${{{name}}}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// A secret with a warning about its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The secret.
    pub secret: Secret,
    /// Warning that the file is open to others.
    pub warning: Option<String>,
}

/// Checks a path of the daemon's own settings, and returns it as it is written.
pub(super) fn path(text: &str) -> Result<PathBuf, InvalidValue> {
    if text.starts_with('/') || text.starts_with("~/") {
        Ok(text.into())
    } else {
        Err(InvalidValue::new("must be an absolute path, or begin with `~/`"))
    }
}

/// Returns a path with `~/` replaced by the home directory.
///
/// # Errors
///
/// When it begins with `~/` and there is no home directory.
pub fn expand_path(path: &Path, environment: &Environment) -> Result<PathBuf, ReferenceError> {
    match path.strip_prefix("~") {
        Ok(rest) => match environment.home() {
            Some(home) if rest.as_os_str().is_empty() => Ok(home),
            Some(home) => Ok(home.join(rest)),
            None => Err(BadReference::NoHome.into()),
        },
        Err(_) => Ok(path.to_owned()),
    }
}

/// Returns a text of a module's settings with every reference in it replaced.
pub(super) fn expand(text: &str, environment: &Environment) -> Result<Expanded, ReferenceError> {
    if let Some(path) = file_of(text) {
        let path = substitute(path, environment)?;
        let fetched = read_secret(&expand_path(Path::new(&path), environment)?)?;
        return Ok(Expanded { text: fetched.secret.0, warning: fetched.warning });
    }
    with_home(substitute(text, environment)?, environment)
}

/// Returns a text of a module's own defaults with `~/` and `$$` replaced as in `modules.yaml`.
/// Nothing in it is looked up.
pub(super) fn expand_default(
    text: &str,
    environment: &Environment,
) -> Result<Expanded, ReferenceError> {
    with_home(substitute(text, &Environment::default())?, environment)
}

fn with_home(text: String, environment: &Environment) -> Result<Expanded, ReferenceError> {
    let text = if text == "~" || text.starts_with("~/") {
        expand_path(Path::new(&text), environment)?.display().to_string()
    } else {
        text
    };
    Ok(Expanded { text, warning: None })
}

/// Returns whether a text refers to the daemon's environment or to a file.
pub(super) fn looks_up(text: &str) -> bool {
    file_of(text).is_some() || text.replace("$$", "").contains("${")
}

/// A text whose references are replaced.
pub(super) struct Expanded {
    pub(super) text: String,
    pub(super) warning: Option<String>,
}

/// Returns the path of `file:/path`, `file:~/path` or `file:///path`.
fn file_of(text: &str) -> Option<&str> {
    let path = text.strip_prefix("file:")?;
    let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    (path.starts_with('/') || path.starts_with("~/")).then_some(path)
}

/// Replaces `${NAME}`; `$$` is a dollar sign, and so is a `$` before anything else.
fn substitute(text: &str, environment: &Environment) -> Result<String, ReferenceError> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let (name, after) = after.split_once('}').ok_or(BadReference::Unclosed)?;
            if !valid_variable(name) {
                return Err(BadReference::NoName.into());
            }
            result.push_str(variable(name, environment)?);
            rest = after;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    Ok(result)
}

fn valid_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn variable<'a>(name: &str, environment: &'a Environment) -> Result<&'a str, ReferenceError> {
    environment.get(name).ok_or_else(|| BadReference::NotSet(name.to_owned()).into())
}

/// Reads a file that holds one secret: a regular file that nobody else can write.
pub(super) fn read_secret(path: &Path) -> Result<Fetched, ReferenceError> {
    let wrong = |what| ReferenceError::from(BadReference::File(path.to_owned(), what));
    let failed = |error: io::Error| {
        wrong(match error.kind() {
            io::ErrorKind::InvalidInput => BadSecret::NoFile,
            io::ErrorKind::FileTooLarge => BadSecret::TooLarge,
            _ => BadSecret::Unreadable(error),
        })
    };
    let bytes = files::read_trusted(path, MAX_SECRET_BYTES).map_err(failed)?;
    let metadata = path.metadata().map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong(BadSecret::NoText))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(wrong(BadSecret::Empty));
    }
    let open = metadata.mode() & 0o007 != 0;
    let warning = open.then(|| {
        let path = path.display();
        format!(
            "the file {path} can be used by every user of the machine; `chmod o= {path}` ends that"
        )
    });
    Ok(Fetched { secret: Secret(text.to_owned()), warning })
}

//! What can go wrong in a module, as the host sees it.

use std::fmt;

use lodestar_abi::{ModError, error_kind};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How the host treats an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It did not work. An event is tried again, and after five failures set aside as dead.
    Failed,
    /// A panic was caught.
    Panic,
    /// The configuration is not valid.
    Config,
    /// Not now: full disk, locked database, full queue. An event is tried again until it works.
    Unavailable,
    /// The caller's arguments do not fit.
    Usage,
    /// There is no such thing.
    NotFound,
    /// The caller gave up.
    Cancelled,
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
}

impl Error {
    /// It did not work, for this reason.
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Failed, message)
    }

    /// It cannot work now, but may later.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Unavailable, message)
    }

    /// The arguments of a command do not fit; the message says which and what would.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Usage, message)
    }

    /// The configuration cannot be used.
    pub fn config(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Config, message)
    }

    /// An error of any kind.
    pub fn of(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), place: String::new() }
    }

    /// How the host treats it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Says what was being done.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Names the handler, command or timer.
    #[must_use]
    pub(crate) fn at(mut self, place: impl Into<String>) -> Self {
        if self.place.is_empty() {
            self.place = place.into();
        }
        self
    }

    pub(crate) fn from_abi(error: ModError) -> Self {
        Self {
            kind: ErrorKind::from_code(error.kind),
            message: error.message.into_string(),
            place: error.place.into_string(),
        }
    }

    pub(crate) fn into_abi(self) -> ModError {
        ModError { kind: self.kind.code(), message: self.message.into(), place: self.place.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
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

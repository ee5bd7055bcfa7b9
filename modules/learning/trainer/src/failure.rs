//! The ways in which the trainer ends, each with its exit code.

use std::path::Path;

/// A class of failures: the supervisor of the process reads it from the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Anything that has no class of its own.
    Other = 1,
    /// The job or its base asks for something that this trainer does not do.
    Job = 2,
    /// The data set cannot be trained on.
    Data = 3,
    /// It needs more memory than it may use.
    Memory = 4,
    /// It was asked to stop, and a checkpoint was written.
    Stopped = 5,
    /// A file that it depends on is missing.
    Missing = 6,
    /// A limit of the job was reached, and a checkpoint was written.
    Limit = 7,
}

impl Class {
    /// Returns the exit code of the process.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the name of the class, as events show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Job => "bad_job",
            Self::Data => "bad_data",
            Self::Memory => "out_of_memory",
            Self::Stopped => "stopped",
            Self::Missing => "missing",
            Self::Limit => "limit",
        }
    }
}

/// A failure: its class, and a sentence with a remedy. It never holds text of the data set.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Class of the failure.
    pub class: Class,
    message: String,
}

/// A result of this crate.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// Creates a failure with no class of its own.
    pub fn other(message: impl Into<String>) -> Self {
        Self { class: Class::Other, message: message.into() }
    }

    /// Creates the failure of a job or a base that is wrong or refused.
    pub fn job(message: impl Into<String>) -> Self {
        Self { class: Class::Job, message: message.into() }
    }

    /// Creates the failure of a data set.
    pub fn data(message: impl Into<String>) -> Self {
        Self { class: Class::Data, message: message.into() }
    }

    /// Creates the failure of a job that needs too much memory.
    pub fn memory(message: impl Into<String>) -> Self {
        Self { class: Class::Memory, message: message.into() }
    }

    /// Creates the failure of a file that is not there.
    pub fn missing(message: impl Into<String>) -> Self {
        Self { class: Class::Missing, message: message.into() }
    }

    /// Creates the end of a run that may be resumed.
    pub fn stopped(message: impl Into<String>) -> Self {
        Self { class: Class::Stopped, message: message.into() }
    }

    /// Creates the end of a run that reached a limit.
    pub fn limit(message: impl Into<String>) -> Self {
        Self { class: Class::Limit, message: message.into() }
    }

    /// Creates the failure of reading or writing a file.
    pub fn file(verb: &str, path: &Path, error: &std::io::Error) -> Self {
        let message = format!("cannot {verb} {}: {error}", path.display());
        let gone = error.kind() == std::io::ErrorKind::NotFound && verb == "read";
        Self { class: if gone { Class::Missing } else { Class::Other }, message }
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        Self::other(format!("a computation failed: {error}"))
    }
}

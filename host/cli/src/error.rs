//! Errors of the command line: one sentence, the remedy, and the exit code.

use std::{borrow::Cow, fmt, io};

use lodestar_api::{Problem, ProblemCode};

use crate::exit_codes;

pub(crate) type Result<T, E = CliError> = std::result::Result<T, E>;

/// Reason why a verb ended without its result.
#[derive(Debug)]
pub(crate) enum CliError {
    /// A failure with its message.
    Failure(Failure),
    /// The end of the program that read the output, which is no error.
    ReaderGone,
}

/// A failure, as it is shown.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: u8,
    /// Name of the error for programs.
    pub(crate) code: &'static str,
    /// The message: the thing and what is wrong with it.
    pub(crate) message: String,
    /// Remedy for the failure.
    pub(crate) help: Option<String>,
}

impl CliError {
    fn new(exit: u8, code: &'static str, message: impl Into<String>) -> Self {
        Self::Failure(Failure { exit, code, message: message.into(), help: None })
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(exit_codes::FAILED, "failed", message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(exit_codes::USAGE, "usage", message)
    }

    pub(crate) fn not_reachable(message: impl Into<String>) -> Self {
        Self::new(exit_codes::NOT_REACHABLE, "not_reachable", message)
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(exit_codes::REFUSED, "refused", message)
    }

    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::new(exit_codes::TIMED_OUT, "timeout", message)
    }

    pub(crate) fn signalled(signal: u8, message: impl Into<String>) -> Self {
        Self::new(exit_codes::SIGNAL + signal, "cancelled", message)
    }

    /// Creates the error for a problem that the daemon reports, in the daemon's own words.
    pub(crate) fn from_problem(problem: Problem) -> Self {
        let help = problem.help.clone();
        let mut error =
            Self::new(exit_codes::of(problem.code), code_word(problem.code), problem.detail);
        if let Self::Failure(failure) = &mut error {
            failure.help = help;
        }
        error
    }

    /// Adds the remedy.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        if let Self::Failure(failure) = &mut self {
            failure.help = Some(help.into());
        }
        self
    }

    /// Sets the exit code.
    pub(crate) fn exit(mut self, code: u8) -> Self {
        if let Self::Failure(failure) = &mut self {
            failure.exit = code;
        }
        self
    }

    /// Returns the failure, if the error is one.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failure(failure) => Some(failure),
            Self::ReaderGone => None,
        }
    }

    /// Returns whether the error says that no daemon answers.
    pub(crate) fn is_not_reachable(&self) -> bool {
        self.failure().is_some_and(|failure| failure.exit == exit_codes::NOT_REACHABLE)
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::failed(format!("cannot write the output: {error}")),
        }
    }
}

/// Error of an option whose value does not have the expected form.
#[derive(Debug)]
pub(crate) struct InvalidValue(Invalid);

/// The kinds of [`InvalidValue`].
#[derive(Debug)]
enum Invalid {
    Expected(Cow<'static, str>),
    Json(serde_json::Error),
    Setting,
}

impl InvalidValue {
    /// Creates the error for a value that is not `what`.
    pub(crate) fn expected(what: impl Into<Cow<'static, str>>) -> Self {
        Self(Invalid::Expected(what.into()))
    }

    /// Creates the error for a value that is not JSON.
    pub(crate) fn json(error: serde_json::Error) -> Self {
        Self(Invalid::Json(error))
    }

    /// Creates the error for a value that is not `KEY=VALUE`.
    pub(crate) const fn setting() -> Self {
        Self(Invalid::Setting)
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Invalid::Expected(what) => write!(f, "expected {what}"),
            Invalid::Json(error) => write!(f, "expected JSON: {error}"),
            Invalid::Setting => f.write_str("it must look like KEY=VALUE, such as limit=30"),
        }
    }
}

impl std::error::Error for InvalidValue {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Invalid::Json(error) => Some(error),
            Invalid::Expected(_) | Invalid::Setting => None,
        }
    }
}

/// Reason for which the `Cargo.lock` of a crate could not be made.
#[derive(Debug)]
pub(crate) enum LockError {
    /// The `Cargo.lock` of the SDK could not be copied.
    NotCopied(io::Error),
    /// Cargo could not be run.
    NoCargo(io::Error),
    /// Cargo failed, with this error.
    Refused(String),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCopied(error) => write!(f, "{error}"),
            Self::NoCargo(error) => write!(f, "cannot run cargo: {error}"),
            Self::Refused(said) => f.write_str(said),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotCopied(error) | Self::NoCargo(error) => Some(error),
            Self::Refused(_) => None,
        }
    }
}

const fn code_word(code: ProblemCode) -> &'static str {
    match code {
        ProblemCode::NotFound => "not_found",
        ProblemCode::Refused => "refused",
        ProblemCode::Invalid => "invalid",
        ProblemCode::Busy => "busy",
        ProblemCode::Timeout => "timeout",
        ProblemCode::Unavailable => "unavailable",
        ProblemCode::Failed => "failed",
    }
}

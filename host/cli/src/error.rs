//! What can go wrong on the command line: one sentence, the remedy, and the exit code.

use std::io;

use lodestar_api::{Problem, ProblemCode};

use crate::exit_codes;

pub(crate) type Result<T, E = CliError> = std::result::Result<T, E>;

/// Why a verb ended without its result.
#[derive(Debug)]
pub(crate) enum CliError {
    /// It failed, in words.
    Failure(Failure),
    /// Who read our output went away: the end, and no error.
    ReaderGone,
}

/// A failure, as it is shown.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: u8,
    /// The word for programs.
    pub(crate) code: &'static str,
    /// The thing and what is wrong with it.
    pub(crate) message: String,
    /// What to do.
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

    /// The daemon's own words.
    pub(crate) fn from_problem(problem: Problem) -> Self {
        let help = problem.help.clone();
        let mut error =
            Self::new(exit_codes::of(problem.code), code_word(problem.code), problem.detail);
        if let Self::Failure(failure) = &mut error {
            failure.help = help;
        }
        error
    }

    /// Says what to do.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        if let Self::Failure(failure) = &mut self {
            failure.help = Some(help.into());
        }
        self
    }

    /// The failure, where it is one.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failure(failure) => Some(failure),
            Self::ReaderGone => None,
        }
    }

    /// Whether it says that no daemon answers.
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

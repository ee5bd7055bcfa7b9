//! Errors of asking libraries what they are, and of starting and reloading modules.

use std::{io, process::ExitStatus, time::Duration};

use lodestar_api::ProblemCode;
use lodestar_library::{LoadError, install::AdmitError};

use crate::module::State;

/// Reason for which a library cannot be described to the process that asked.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// The configuration on standard input cannot be read.
    #[error(transparent)]
    Input(#[from] io::Error),
    /// The library cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The module refuses to describe itself, with this reason.
    #[error("{0}")]
    Refused(String),
    /// The module's description of itself is damaged.
    #[error("its description cannot be read: {0}")]
    Damaged(#[source] serde_json::Error),
    /// The answer cannot be represented as JSON.
    #[error(transparent)]
    Json(serde_json::Error),
}

/// Reason for which a library cannot be asked what it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// The library, or its module's own defaults, cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The library may not be loaded.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// The process that asks it cannot be started.
    #[error("cannot start a process to look at it: {0}")]
    NoProcess(#[source] io::Error),
    /// The library did not describe itself within this time.
    #[error("it did not describe itself within {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// The process that asked it gave up, with this reason.
    #[error("{0}")]
    GaveUp(String),
    /// The process that asked it ended without a reason.
    #[error("it ended with {0}")]
    Ended(ExitStatus),
    /// The answer cannot be read.
    #[error(transparent)]
    Damaged(#[from] serde_json::Error),
}

/// Name or command of a module that means something else already, with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NameTaken(pub(super) String);

/// Error of the system that keeps the thread of a generation from being started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a thread: {0}")]
pub(super) struct SpawnError(#[from] io::Error);

/// Reason for which a module is not started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The module is quarantined, for this reason.
    #[error("{0}")]
    Quarantined(String),
    /// The module's library is in none of the places that this sentence names.
    #[error("{0}")]
    Absent(String),
    /// The thread of the module cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl StartError {
    /// Returns the state that the module enters.
    pub(super) const fn state(&self) -> State {
        match self {
            Self::Quarantined(_) => State::Quarantined,
            Self::Absent(_) => State::Absent,
            Self::Spawn(_) => State::Failed,
        }
    }
}

/// Reason for which a reload does not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// The daemon is ending.
    #[error("the daemon ends")]
    Ending,
    /// The module of this name is not enabled any more.
    #[error("{0} was disabled meanwhile")]
    Disabled(String),
    /// The module's library is in none of the places that this sentence names.
    #[error("{0}")]
    Absent(String),
    /// The thread of the new generation cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl ReloadError {
    /// Returns the code by which whoever asked for the reload tells it from others.
    pub(super) const fn code(&self) -> ProblemCode {
        match self {
            Self::Ending | Self::Disabled(_) => ProblemCode::Busy,
            Self::Absent(_) => ProblemCode::NotFound,
            Self::Spawn(_) => ProblemCode::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn no_thread() -> SpawnError {
        io::Error::other("no room").into()
    }

    #[test]
    fn a_module_that_is_not_started_enters_a_state_with_a_reason() {
        let check = |error: StartError, state, reason| {
            assert_eq!((error.state(), error.to_string().as_str()), (state, reason));
        };
        check(StartError::Quarantined("it panicked".to_owned()), State::Quarantined, "it panicked");
        check(StartError::Absent("not in /m".to_owned()), State::Absent, "not in /m");
        check(no_thread().into(), State::Failed, "cannot start a thread: no room");
    }

    #[test]
    fn a_reload_that_does_not_begin_has_a_code_and_a_reason() {
        let check = |error: ReloadError, code, reason| {
            assert_eq!((error.code(), error.to_string().as_str()), (code, reason));
        };
        check(ReloadError::Ending, ProblemCode::Busy, "the daemon ends");
        let disabled = ReloadError::Disabled("tiny".to_owned());
        check(disabled, ProblemCode::Busy, "tiny was disabled meanwhile");
        check(ReloadError::Absent("not in /m".to_owned()), ProblemCode::NotFound, "not in /m");
        check(no_thread().into(), ProblemCode::Failed, "cannot start a thread: no room");
    }

    #[test]
    fn a_library_that_cannot_be_asked_has_a_reason() {
        let check = |error: ProbeError, reason| assert_eq!(error.to_string(), reason);
        let io = io::Error::other("no room");
        check(ProbeError::NoProcess(io), "cannot start a process to look at it: no room");
        let late = ProbeError::NoAnswer(Duration::from_secs(10));
        check(late, "it did not describe itself within 10 s");
        check(ProbeError::GaveUp("it is no library".to_owned()), "it is no library");
        check(ProbeError::Ended(ExitStatus::from_raw(9)), "it ended with signal: 9 (SIGKILL)");
    }
}

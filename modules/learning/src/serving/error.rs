//! Reasons why nothing is served, and the kinds of error that they are.

use std::{io, path::PathBuf};

use module_sdk::{Error, ErrorKind};

use crate::run::RunError;

/// Reason why the server that comes with Lodestar does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServingError {
    /// Its program is not there.
    #[error("no server can be started: {0}; or name another one as `serving`")]
    NoProgram(RunError),
    /// Its program cannot be started.
    #[error(
        "cannot start {}: {source}; in a process of its own (`isolation: process`) learning starts \
         no programs",
        program.display()
    )]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Reason of the system.
        source: io::Error,
    },
    /// Its folder cannot be written.
    #[error("cannot write into {}: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Reason of the system.
        source: io::Error,
    },
    /// Its address cannot be had.
    #[error("{0} (`serving.listen` in the section of learning)")]
    Address(String),
    /// A socket or a thread cannot be had.
    #[error("the server of trained versions cannot be started: {0}")]
    Socket(io::Error),
    /// The process was gone at once.
    #[error("the server of trained versions was gone before it could be watched")]
    Lost,
    /// The process ended.
    #[error("the server of trained versions ended: {0}")]
    Ended(String),
    /// The process does not answer.
    #[error("the server of trained versions has not loaded its base after 120 s; try it again")]
    Slow,
    /// The base is not what it was.
    #[error("the base {} is gone, or not the one that was trained on: put it back", base.display())]
    BaseChanged {
        /// The base.
        base: PathBuf,
    },
    /// The module stops.
    #[error("learning is stopping")]
    Left,
}

/// Returns an error of the server as that of a command.
pub(super) fn told(error: ServingError) -> Error {
    let kind = match error {
        ServingError::NoProgram(_) => ErrorKind::NotFound,
        ServingError::BaseChanged { .. } => ErrorKind::Refused,
        ServingError::Left => ErrorKind::Cancelled,
        ServingError::Folder { .. } | ServingError::Lost => ErrorKind::Failed,
        _ => ErrorKind::Unavailable,
    };
    Error::of(kind, error.to_string())
}

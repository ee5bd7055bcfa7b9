//! Errors of serving a runner, and of opening paths to it.

use std::{io, path::PathBuf};

use super::channel::ChannelError;
use crate::module::WINDOW;

/// Reason for which a runner is no longer served and its process is ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("it sent garbage: {0}")]
    Garbage(#[source] ChannelError),
    #[error("its socket failed: {0}")]
    Socket(#[source] ChannelError),
    #[error("it asked for something before it was started")]
    NotStarted,
    #[error("it does not read what it asked for")]
    Unread,
    #[error("it cannot be answered: {0}")]
    Unanswerable(#[source] ChannelError),
    #[error("it sent more than {WINDOW} frames of an answer at once")]
    TooManyFrames,
}

/// Reason for which a path of the configuration is not opened to a module's process.
#[derive(Debug, thiserror::Error)]
pub(super) enum PathError {
    #[error(
        "{key} lies in {}, where the daemon and other modules keep their data as well, which a \
         module of its own process must not reach; put it into a directory of its own, or write \
         isolation: in_process",
        .path.display()
    )]
    Closed { key: String, path: PathBuf },
    #[error(
        "{key} lies in {}, which cannot be used: {source}; make that directory, or correct the key",
        .directory.display()
    )]
    Unusable { key: String, directory: PathBuf, source: io::Error },
}

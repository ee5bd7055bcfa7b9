//! What can go wrong with the ledger.

use std::{io, path::Path, path::PathBuf};

/// Why the ledger could not be opened or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// A file or directory of the ledger could not be used.
    #[error("cannot {what} {path}: {source}; check the permissions and the free space there")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The files were written by a later version.
    #[error(
        "{path} has format {found} and this daemon reads up to {known}; start the newer daemon, \
         or move the directory away to begin anew"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: u32,
        /// The format this daemon knows.
        known: u32,
    },
    /// An event could not be written.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The dead letters of a module could not be read or changed.
    #[error("cannot change the dead letters: {0}; check the state directory")]
    DeadLetters(#[from] io::Error),
}

impl LedgerError {
    /// Whether it comes again for as long as nobody does anything about a file.
    pub(crate) fn stays(&self) -> bool {
        matches!(self, Self::Io { source, .. } if stays(source))
    }
}

/// Whether using a file fails again for as long as nobody does anything about it.
pub(crate) fn stays(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, InvalidInput, IsADirectory, PermissionDenied};
    // The second is what is no regular file: a pipe, a device.
    matches!(error.kind(), PermissionDenied | InvalidInput | IsADirectory | FileTooLarge)
        || error.raw_os_error() == Some(libc::EIO)
}

/// Gives an I/O error its place.
pub(crate) fn io_error(
    what: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> LedgerError + use<> {
    let path = path.to_owned();
    move |source| LedgerError::Io { what, path, source }
}

/// Why events were not accepted. None of the ledger events of the call is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The writer is behind by as much as it may be. The same call may succeed later.
    #[error(
        "the ledger's queue is full ({queued_bytes} bytes wait to be written); try again later, \
         and check the disk if this lasts"
    )]
    Full {
        /// What waits, in bytes.
        queued_bytes: u64,
    },
    /// The disk did not take it. The same call may succeed later.
    #[error("cannot write {path}: {reason}; free space there, events are refused until then")]
    Io {
        /// The segment file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// One event is larger than the bus carries.
    #[error(
        "an event of {topic} is {bytes} bytes and the limit is {limit}; send a reference to the \
         content instead of the content"
    )]
    TooLarge {
        /// Its topic.
        topic: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A topic has a form that no filter could name.
    #[error(
        "`{topic}` is not a topic; use up to 16 dotted parts of a-z, 0-9, _ and -, at most 256 \
         bytes, such as `llm.request.completed`"
    )]
    Topic {
        /// The topic.
        topic: String,
    },
    /// The bus has been closed.
    #[error("the event bus is closed; start the daemon again")]
    Closed,
}

impl PublishError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Io { .. })
    }
}

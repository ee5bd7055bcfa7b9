//! Errors of the ledger.

use std::{io, path::Path, path::PathBuf};

/// Reason for which the ledger could not be opened or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// A file or directory of the ledger could not be used.
    #[error("cannot {what} {path}: {cause}; {}", remedy(cause))]
    Io {
        /// Operation that failed.
        what: &'static str,
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the system. It is no `source`: the sentence holds it already.
        cause: io::Error,
    },
    /// A thread of the ledger could not be started.
    #[error("cannot start the thread that {does}: {cause}; {}", thread_remedy(cause))]
    Thread {
        /// Task of the thread.
        does: &'static str,
        /// Error of the system.
        cause: io::Error,
    },
    /// The files were written by a later version.
    #[error(
        "{path} has format {found} and this daemon reads up to {known}; start the newer daemon, \
         or move the directory away to begin anew"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        found: u32,
        /// Newest format that this daemon reads.
        known: u32,
    },
    /// An event could not be written.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The dead letters of a module could not be read or changed.
    #[error("cannot change the dead letters: {cause}; {}", remedy(cause))]
    DeadLetters {
        /// Error of the system.
        cause: io::Error,
    },
}

impl From<io::Error> for LedgerError {
    fn from(cause: io::Error) -> Self {
        Self::DeadLetters { cause }
    }
}

impl LedgerError {
    /// Returns whether the error recurs until somebody corrects a file.
    pub(crate) fn stays(&self) -> bool {
        matches!(self, Self::Io { cause, .. } if stays(cause))
    }
}

/// Returns whether using a file fails again until somebody corrects it.
pub(crate) fn stays(error: &io::Error) -> bool {
    use io::ErrorKind::{
        FileTooLarge, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied,
    };
    // `InvalidInput` is what is no regular file: a pipe, a device. `NotFound` is a link to nothing.
    matches!(
        error.kind(),
        PermissionDenied | InvalidInput | IsADirectory | NotADirectory | NotFound | FileTooLarge
    ) || matches!(error.raw_os_error(), Some(libc::EIO | libc::ELOOP))
}

/// Returns the remedy for an error of the system on a file.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind::{
        InvalidInput, IsADirectory, NotADirectory, NotFound, OutOfMemory, PermissionDenied,
        QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    match (error.kind(), error.raw_os_error()) {
        (StorageFull, _) => "free space on its file system",
        (QuotaExceeded, _) => "free space, or raise the disk quota of the daemon's user",
        (_, Some(libc::EFBIG)) => {
            "raise `ulimit -f` where lodestard is started, or LimitFSIZE= in its unit"
        }
        (_, Some(libc::EMFILE)) => {
            "raise `ulimit -n` where lodestard is started, or LimitNOFILE= in its unit"
        }
        (_, Some(libc::ENFILE)) => "raise `sysctl fs.file-max`, or end what has so many files open",
        (_, Some(libc::EIO)) => "check the disk and its file system",
        (OutOfMemory, _) => "free memory on the machine",
        (PermissionDenied, _) => "give it to the daemon's user, readable and writable",
        (ReadOnlyFilesystem, _) => "mount its file system for writing",
        (NotFound, _) => {
            "find out what removes files there, put it back if you can, and restart lodestard"
        }
        (InvalidInput | IsADirectory | NotADirectory, _) | (_, Some(libc::ELOOP)) => {
            "move away what lies there instead, and restart lodestard"
        }
        _ => "check the disk and the limits of the daemon",
    }
}

/// Returns the remedy where no thread can be started.
fn thread_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            "raise `ulimit -u` of the daemon's user, or TasksMax= in its unit, or end some of its \
             processes"
        }
        _ => "free memory on the machine, or raise `ulimit -v` where lodestard is started",
    }
}

/// Adds the operation and the path to an I/O error.
pub(crate) fn io_error(
    what: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> LedgerError + use<> {
    let path = path.to_owned();
    move |cause| LedgerError::Io { what, path, cause }
}

/// Reason for which events were not accepted. None of the ledger events of the call is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// As many bytes wait to be written as may wait. The same call may succeed later.
    #[error(
        "the ledger's queue is full ({queued_bytes} bytes wait to be written); try again later, \
         and check the disk if this lasts"
    )]
    Full {
        /// Size of what waits to be written, in bytes.
        queued_bytes: u64,
    },
    /// The disk did not do what was to be done. The same call may succeed later.
    #[error("cannot {what} {path}: {reason}; {remedy}; events are refused until then")]
    Io {
        /// Operation that failed.
        what: &'static str,
        /// Path of the file or directory.
        path: String,
        /// Error of the system.
        reason: String,
        /// Remedy for the error.
        remedy: &'static str,
    },
    /// The writer thread has ended, and is not started again. The same call may succeed once the
    /// daemon was restarted.
    #[error("{WRITER_ENDED}; {WRITER_REMEDY}")]
    WriterEnded,
    /// One event is larger than the bus carries.
    #[error(
        "an event of {topic} is {bytes} bytes and the limit is {limit}; send a reference to the \
         content instead of the content"
    )]
    TooLarge {
        /// Topic of the event.
        topic: String,
        /// Size of the event, in bytes.
        bytes: usize,
        /// Largest size allowed, in bytes.
        limit: usize,
    },
    /// The text is not a topic.
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
    /// Splits it into what is wrong with the ledger and what helps; `None` where it is the call.
    pub(crate) fn trouble(&self) -> Option<LedgerTrouble> {
        match self {
            Self::Io { what, path, reason, remedy } => Some(LedgerTrouble {
                what: format!("cannot {what} {path}: {reason}"),
                remedy: (*remedy).to_owned(),
            }),
            Self::WriterEnded => Some(LedgerTrouble {
                what: WRITER_ENDED.to_owned(),
                remedy: WRITER_REMEDY.to_owned(),
            }),
            _ => None,
        }
    }
}

const WRITER_ENDED: &str = "the thread that writes the event ledger has ended by a defect of \
                            lodestard";
const WRITER_REMEDY: &str = "restart lodestard, and report what its log says";

/// Something that keeps the ledger from its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerTrouble {
    /// Description of the problem.
    pub what: String,
    /// Remedy for the problem.
    pub remedy: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the sentence that a person reads, with all that an error says of its causes.
    fn told(error: LedgerError) -> String {
        format!("{:#}", anyhow::Error::from(error).context("cannot open the ledger"))
    }

    #[test]
    fn each_error_is_one_sentence_with_the_remedy_of_its_cause() {
        for (code, cause, remedy) in [
            (libc::ENOSPC, "No space left on device", "free space"),
            (libc::EDQUOT, "Disk quota exceeded", "raise the disk quota"),
            (libc::EFBIG, "File too large", "`ulimit -f`"),
            (libc::EMFILE, "Too many open files", "`ulimit -n`"),
            (libc::EACCES, "Permission denied", "give it to the daemon's user"),
            (libc::EROFS, "Read-only file system", "mount its file system for writing"),
            (libc::ENOENT, "No such file or directory", "find out what removes files there"),
            (libc::EISDIR, "Is a directory", "move away what lies there"),
            (libc::ELOOP, "Too many levels of symbolic links", "move away what lies there"),
            (libc::EIO, "Input/output error", "check the disk"),
        ] {
            let error = || io::Error::from_raw_os_error(code);
            let path = Path::new("/state/ledger");
            let sentences = [
                told(io_error("write", path)(error())),
                told(LedgerError::from(error())),
                told(LedgerError::Publish(PublishError::Io {
                    what: "write",
                    path: path.display().to_string(),
                    reason: error().to_string(),
                    remedy: super::remedy(&error()),
                })),
            ];
            for sentence in sentences {
                assert_eq!(sentence.matches(cause).count(), 1, "{sentence}");
                assert_eq!(sentence.matches(remedy).count(), 1, "{sentence}");
                assert!(code == libc::ENOSPC || !sentence.contains("free space on"), "{sentence}");
            }
        }
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_no_matter_of_the_disk() {
        for (code, remedy) in [(libc::EAGAIN, "`ulimit -u`"), (libc::ENOMEM, "`ulimit -v`")] {
            let cause = io::Error::from_raw_os_error(code);
            let reason = cause.to_string();
            let sentence = told(LedgerError::Thread { does: "writes it", cause });
            assert_eq!(sentence.matches(&reason).count(), 1, "{sentence}");
            assert!(sentence.contains("cannot start the thread that writes it"), "{sentence}");
            assert!(sentence.contains(remedy) && !sentence.contains("space"), "{sentence}");
        }
    }
}

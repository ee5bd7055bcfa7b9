//! Errors of installed modules, signatures and trusted keys.

use std::{io, path::PathBuf};

use lodestar_platform::file_trust::Stranger;

use super::MODIFIED;

/// Reason for which the lock of the installed modules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Unreadable(PathBuf, #[source] io::Error),
    /// The file does not hold a lock.
    #[error(
        "{} is damaged ({}); restore it, or move it away and install the modules again",
        .0.display(), .1.message()
    )]
    Damaged(PathBuf, #[source] Box<toml::de::Error>),
}

/// Reason for which an uncommitted install cannot be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The lock of the installed modules cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The files could not be changed.
    #[error("cannot undo the install of {module}: {source}")]
    Undo {
        /// Name of the module.
        module: String,
        /// Error of the system.
        source: io::Error,
    },
}

/// Reason for which a library may not be loaded although it is a compatible module.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// A generation kept on disk was modified.
    #[error(
        "{} was modified since it was kept; remove it, and install or reload {module} again",
        .directory.display()
    )]
    Modified {
        /// Directory of the generation.
        directory: PathBuf,
        /// Name of the module.
        module: String,
    },
    /// An installed module was modified.
    #[error(
        "{} {MODIFIED}; `lodestar modules verify {module}` shows what differs, `lodestar modules \
         install` puts it right",
        .directory.display()
    )]
    Installed {
        /// Directory of the module.
        directory: PathBuf,
        /// Name of the module.
        module: String,
    },
    /// The lock, which says what was installed, cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Reason for which a signature is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The content is not a signature.
    #[error("its signature is damaged")]
    Damaged,
    /// The signature is of a kind that is no longer checked.
    #[error("its signature is of the old kind; sign it with minisign 0.10 or later")]
    OldKind,
    /// The trusted key of this name signed other bytes.
    #[error("its signature by {0} is of other bytes")]
    OtherBytes(String),
}

/// Reason for which a file holds no key that may be trusted: part of a sentence, behind the path.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    #[error("is no plain file; put the key itself there")]
    NoFile,
    #[error("{0}; {remedy}", remedy = remedy(.0))]
    Open(Stranger),
    #[error("is no minisign key; `minisign -G` makes one with a .pub file")]
    NoKey,
}

const fn remedy(stranger: &Stranger) -> &'static str {
    match stranger {
        Stranger::Owner(_) => "give it to root",
        Stranger::Mode(_) => "`chmod 644` it",
        Stranger::ListedUser(_) | Stranger::ListedGroup(_) => "`setfacl -b` it",
    }
}

/// Reason for which the files of an installed module cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    #[error("cannot look into {}: {}", .0.display(), .1)]
    Unreadable(PathBuf, #[source] io::Error),
    #[error("{} is a symbolic link; install the module again", .0.display())]
    Link(PathBuf),
    #[error("{} {}; install the module again", .0.display(), .1)]
    Open(PathBuf, Stranger),
}

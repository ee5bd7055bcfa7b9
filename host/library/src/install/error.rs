//! What can be wrong with what is installed.

use std::{io, path::PathBuf};

use lodestar_platform::file_trust::Stranger;

use super::MODIFIED;

/// Why the lock of the installed modules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Unreadable(PathBuf, #[source] io::Error),
    /// It holds something else than a lock.
    #[error(
        "{} is damaged ({}); restore it, or move it away and install the modules again",
        .0.display(), .1.message()
    )]
    Damaged(PathBuf, #[source] Box<toml::de::Error>),
}

/// Why an install that was left on trial is not undone.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The lock cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The disk does not take it.
    #[error("cannot undo the install of {module}: {source}")]
    Undo {
        /// The module.
        module: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Why a library may not be loaded though it is a module that fits.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// A kept generation is not what was kept.
    #[error(
        "{} was modified since it was kept; remove it, and install or reload {module} again",
        .directory.display()
    )]
    StillMapped {
        /// Where it lies.
        directory: PathBuf,
        /// The module.
        module: String,
    },
    /// An installed module is not what was installed.
    #[error(
        "{} {MODIFIED}; `lodestar modules verify {module}` shows what differs, `lodestar modules \
         install` puts it right",
        .directory.display()
    )]
    Installed {
        /// Where it lies.
        directory: PathBuf,
        /// The module.
        module: String,
    },
    /// Nothing tells what was installed.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Why a signature counts against what it was found with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is no signature.
    #[error("its signature is damaged")]
    Damaged,
    /// It is of a kind that is not checked any more.
    #[error("its signature is of the old kind; sign it with minisign 0.10 or later")]
    OldKind,
    /// The trusted key of this name signed something else.
    #[error("its signature by {0} is of other bytes")]
    OtherBytes(String),
}

/// Why a file holds no key that may be trusted, a fragment that follows its path.
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

/// Why the files of an installed module may not be somebody else's work.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    #[error("cannot look into {}: {}", .0.display(), .1)]
    Unreadable(PathBuf, #[source] io::Error),
    #[error("{} is a symbolic link; install the module again", .0.display())]
    Link(PathBuf),
    #[error("{} {}; install the module again", .0.display(), .1)]
    Open(PathBuf, Stranger),
}

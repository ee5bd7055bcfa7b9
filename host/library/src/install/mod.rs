//! The installation of modules: their packages, the checks of them, and the lock that records them.
//!
//! A module that an operator installs lies in `STATE/modules/<name>`. `STATE/modules.lock` says
//! which bytes that are, whose signature they carry and where they came from; nothing else is
//! loaded from there under that name. See adr/0043.

mod archive;
mod bundle;
mod error;
mod install_dir;
mod keys;
mod lock;
mod source;
mod transaction;
mod verify;

pub use bundle::{Bundle, MAX_BUNDLE};
pub use error::{AdmitError, LockError, RecoverError, SignatureError};
pub use install_dir::{InstallDir, Staged};
pub use keys::{Keys, Signed};
pub use lock::{Lock, Locked, MODIFIED};
pub use source::{open, open_built};
pub use transaction::{begin, commit, recover, roll_back};
pub use verify::verify;

use lodestar_api::{Problem, ProblemCode};

/// Returns the problem of a package that is not acceptable, with the remedy.
fn refused(what: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::Refused, what).help(remedy)
}

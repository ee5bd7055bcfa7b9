//! Errors of preparing the start of a module, and of replacing its running generation.

use std::{io, path::PathBuf, time::Duration};

use lodestar_config::{ConfigError, ConfigErrors};
use lodestar_library::LoadError;
use lodestar_platform::file_trust::Exposed;

/// Reason for which the start of a module cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// The module's own defaults cannot be read.
    #[error(transparent)]
    Defaults(#[from] LoadError),
    /// The module's section of the configuration cannot be used.
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
    /// A listener of the module has no address.
    #[error(transparent)]
    Address(#[from] ConfigError),
    /// The module's data directory cannot be made.
    #[error("cannot make its data directory {}: {}", .0.display(), .1)]
    NoDirectory(PathBuf, #[source] io::Error),
    /// An untrusted account can write the module's data directory.
    #[error("{0}, its data directory; {remedy}", remedy = .0.remedy())]
    OpenDirectory(Exposed),
    /// The module's settings cannot be represented as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Reason for which a module does not get a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The reference of the secret cannot be resolved.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration does not have the secret.
    #[error(
        "the secret {name} is not given; write `secrets: {{{name}: ${{NAME}}}}` into the section \
         of {module}"
    )]
    NotGiven {
        /// Name of the secret.
        name: String,
        /// Name of the module.
        module: String,
    },
}

/// Reason for which a new generation does not take over.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeOverError {
    /// The new generation cannot be started, or did not start well.
    #[error("{0}")]
    NotStarted(String),
    /// The new generation started, and reports that its health is failed.
    #[error("it started, but its health is failed: {0}")]
    Unhealthy(String),
    /// The running generation refuses to pause.
    #[error("{0}")]
    Refused(String),
    /// The running generation did not pause within this time.
    #[error("the running generation did not come to a pause within {} s", .0.as_secs())]
    NoPause(Duration),
    /// The previous generation ended before it was asked to pause.
    #[error("the generation before ended meanwhile; enable it to start it")]
    NobodyThere,
    /// The previous generation ended before it paused.
    #[error("the generation before ended meanwhile")]
    Gone,
    /// The previous generation resumed, since the new one took too long to start.
    #[error("it took so long to start that the generation before went on")]
    WentOn,
    /// The caller no longer waits for the new generation.
    #[error("it was given up, since it took so long to start")]
    GivenUp,
    /// The library of the new generation cannot be kept on disk. Without it there would be no way
    /// back to this generation, nor from the next one.
    #[error(
        "cannot keep the new generation in {}: {source}; {}", .place.display(), remedy(.source)
    )]
    NotKept {
        /// Directory of the generations.
        place: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on its file system",
        _ => "see that lodestard's user may write there",
    }
}

//! Why a module does not get what it is started with, or does not take over.

use std::{io, path::PathBuf, time::Duration};

use lodestar_config::{ConfigError, ConfigErrors};
use lodestar_library::LoadError;
use lodestar_platform::file_trust::Exposed;

/// Why a module does not get what it is to be started with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// Its own defaults cannot be read.
    #[error(transparent)]
    Defaults(#[from] LoadError),
    /// Its section cannot be used.
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
    /// One of its listeners has no address.
    #[error(transparent)]
    Address(#[from] ConfigError),
    /// Its data directory cannot be made.
    #[error("cannot make its data directory {}: {}", .0.display(), .1)]
    NoDirectory(PathBuf, #[source] io::Error),
    /// Somebody else can write its data directory.
    #[error("{0}, its data directory; {remedy}", remedy = .0.remedy())]
    OpenDirectory(Exposed),
    /// Its settings are no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Why a module does not get a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// What it refers to cannot be had.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nobody gave it.
    #[error(
        "the secret {name} is not given; write `secrets: {{{name}: ${{NAME}}}}` into the section \
         of {module}"
    )]
    NotGiven {
        /// The secret.
        name: String,
        /// The module.
        module: String,
    },
}

/// Why a new generation does not take over.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeOverError {
    /// It cannot be started, or did not start well.
    #[error("{0}")]
    NotStarted(String),
    /// It started, and says that it cannot work.
    #[error("it started, but its health is failed: {0}")]
    Unhealthy(String),
    /// The one that runs refuses to hold.
    #[error("{0}")]
    Refused(String),
    /// The one that runs does not finish what it is doing.
    #[error("the running generation did not come to a pause within {} s", .0.as_secs())]
    NoPause(Duration),
    /// The one before was gone before it was asked.
    #[error("the generation before ended meanwhile; enable it to start it")]
    NobodyThere,
    /// The one before went while it was waited for.
    #[error("the generation before ended meanwhile")]
    Gone,
    /// The one before waited no longer.
    #[error("it took so long to start that the generation before went on")]
    WentOn,
    /// Whoever asked for it waited no longer.
    #[error("it was given up, since it took so long to start")]
    GivenUp,
    /// Without its library on the disk there would be no way back to it, nor from the next one.
    #[error(
        "cannot keep the new generation in {}: {source}; {}", .place.display(), remedy(.source)
    )]
    NotKept {
        /// Where generations are kept.
        place: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on its file system",
        _ => "see that lodestard's user may write there",
    }
}

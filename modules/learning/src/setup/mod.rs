//! Environments of the trainers in Python: below the module's data directory, with exact versions
//! of all packages, each checked against its hash.
//!
//! An environment counts as made once a file within it names the versions that it was made of. A
//! setup that was cut off, or whose versions are older than those of this module, is done again and
//! takes what is there already.

mod machine;
mod make;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub(crate) use machine::{Interpreter, find_python, find_uv, free_bytes};
pub(crate) use make::{MAKING, Making, make};

use crate::{registry::Digest, run::Strategy};

/// File that names what an environment was made of.
const MADE: &str = "lodestar.json";

/// Room that has to be free before an environment is made, in bytes.
pub(crate) const ROOM: u64 = 8_000_000_000;

/// Error of a setup.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The program that makes environments is not there.
    #[error("there is no uv; install it (`pip install uv`, or see https://docs.astral.sh/uv)")]
    NoUv,
    /// There is no Python that the packages are made for.
    #[error(
        "there is no Python from 3.11 to 3.{newest}{found}; install one (Debian: `apt install \
         python3`), or name it with --python"
    )]
    NoPython {
        /// Second number of the newest one that would do.
        newest: u32,
        /// Its version, where there is another one.
        found: String,
    },
    /// There is not enough room.
    #[error("{} GB are free in {folder}, and {} GB are needed; make room", free / GB, needed / GB)]
    NoRoom {
        /// The folder.
        folder: String,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// Another setup is going on.
    #[error("another setup is going on; wait for it")]
    Busy,
    /// A program cannot be started, or a file cannot be written.
    #[error("{what}: {source}")]
    Io {
        /// Work that failed.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// `uv` failed.
    #[error("uv could not {what}: {words}")]
    Failed {
        /// Work that it was to do.
        what: &'static str,
        /// Its last words.
        words: String,
    },
    /// It took too long.
    #[error("the setup took longer than six hours; the same command goes on with it")]
    Late,
    /// Nobody waits for it any more, or the module stops.
    #[error("the setup was cut off; the same command goes on with it")]
    CutOff,
}

const GB: &u64 = &1_000_000_000;

impl SetupError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}

/// State of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentState {
    /// It can be trained with.
    Ready,
    /// It was made of other versions than those that this module names.
    Outdated,
    /// It was begun, or broken.
    Unfinished,
    /// There is none.
    Missing,
}

/// Record of what an environment was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// SHA-256 of the requirements.
    pub requirements: String,
    /// Version of Python.
    pub python: String,
    /// Time of it, in milliseconds since the Unix epoch.
    pub at: i64,
}

/// The environments of a module.
#[derive(Debug, Clone)]
pub struct Environments {
    folder: PathBuf,
}

impl Environments {
    /// Returns the environments below a data directory.
    #[must_use]
    pub fn within(data: &Path) -> Self {
        Self { folder: data.join("environments") }
    }

    /// Returns the folder of one.
    #[must_use]
    pub fn of(&self, strategy: Strategy) -> PathBuf {
        self.folder.join(strategy.as_str())
    }

    /// Returns the interpreter of one that is ready; none for one that is not.
    #[must_use]
    pub fn interpreter(&self, strategy: Strategy) -> Option<PathBuf> {
        (self.state(strategy) == EnvironmentState::Ready).then(|| python(&self.of(strategy)))
    }

    /// Returns the state of one.
    #[must_use]
    pub fn state(&self, strategy: Strategy) -> EnvironmentState {
        let folder = self.of(strategy);
        if !folder.exists() {
            return EnvironmentState::Missing;
        }
        match self.made(strategy) {
            Some(_) if !python(&folder).exists() => EnvironmentState::Unfinished,
            Some(made) if made.requirements == digest(strategy) => EnvironmentState::Ready,
            Some(_) => EnvironmentState::Outdated,
            None => EnvironmentState::Unfinished,
        }
    }

    pub(crate) fn made(&self, strategy: Strategy) -> Option<Made> {
        let text = fs::read(self.of(strategy).join(MADE)).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// Returns the interpreter of an environment.
fn python(folder: &Path) -> PathBuf {
    folder.join("bin").join("python")
}

/// Returns the digest of the requirements of a strategy.
fn digest(strategy: Strategy) -> String {
    Digest::of(strategy.requirements().unwrap_or_default().as_bytes()).to_string()
}

/// Returns how much is fetched for a strategy and how much it takes on the disk, in bytes, as the
/// head of its requirements says.
#[must_use]
pub fn sizes(strategy: Strategy) -> (u64, u64) {
    let head = strategy.requirements().unwrap_or_default().lines().nth(1).unwrap_or_default();
    let mut numbers = head.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok());
    let mut next = || numbers.next().unwrap_or_default() * 1_000_000;
    (next(), next())
}

#[cfg(test)]
mod tests;

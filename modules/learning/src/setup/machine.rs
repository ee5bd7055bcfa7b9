//! The machine: uv, Python, room.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use super::SetupError;
use crate::{
    child::{self, End, Says},
    run::in_path,
};

/// Names under which a Python is looked for, the one that most packages are made for first.
const NAMES: [&str; 4] = ["python3.12", "python3.13", "python3.11", "python3"];

/// Time within which an interpreter has to tell its version.
const ANSWER: Duration = Duration::from_secs(10);

/// Folders of a home directory in which uv is installed.
const OF_HOME: [&str; 2] = [".local/bin", ".cargo/bin"];

/// An interpreter with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interpreter {
    pub path: PathBuf,
    pub version: String,
}

/// Finds uv in the `PATH`, or where its installers put it.
///
/// # Errors
///
/// With the remedy when it is nowhere.
pub(crate) fn find_uv(path: Option<&OsStr>, home: Option<&OsStr>) -> Result<PathBuf, SetupError> {
    let of_home = home.into_iter().flat_map(|home| OF_HOME.map(|it| Path::new(home).join(it)));
    let of_home = std::env::join_paths(of_home).ok();
    let found = in_path(path, "uv").or_else(|| in_path(of_home.as_deref(), "uv"));
    found.ok_or(SetupError::NoUv)
}

/// Finds a Python that the packages are made for: the one that a person names, or one of the
/// `PATH`.
///
/// # Errors
///
/// With the remedy when there is none.
pub(crate) fn find_python(
    named: Option<&Path>,
    path: Option<&OsStr>,
    newest: u32,
) -> Result<Interpreter, SetupError> {
    let candidates: Vec<PathBuf> = match named {
        Some(named) => vec![named.to_owned()],
        None => NAMES.into_iter().filter_map(|name| in_path(path, name)).collect(),
    };
    let mut found = String::new();
    for path in candidates {
        match version(&path) {
            Some(version) if is_known(&version, newest) => {
                return Ok(Interpreter { path, version });
            }
            Some(version) => found = format!(" ({} is {version})", path.display()),
            None => found = format!(" ({} does not tell its version)", path.display()),
        }
    }
    Err(SetupError::NoPython { newest, found })
}

/// Asks an interpreter for its version.
fn version(python: &Path) -> Option<String> {
    let question = "import sys; print('%d.%d.%d' % sys.version_info[:3])";
    let mut command = Command::new(python);
    command.args(["-I", "-c", question]);
    let ended = child::run(command, Says::Output, Instant::now() + ANSWER, &mut || true).ok()?;
    let End::Itself(status, said) = ended else { return None };
    let version = said.trim().to_owned();
    let is_plain = version.len() < 20 && version.chars().all(|c| c.is_ascii_digit() || c == '.');
    (status.success() && is_plain && !version.is_empty()).then_some(version)
}

fn is_known(version: &str, newest: u32) -> bool {
    let second = version.strip_prefix("3.").and_then(|it| it.split('.').next()?.parse().ok());
    second.is_some_and(|it: u32| (11..=newest).contains(&it))
}

/// Returns the room that is left where a folder is, or will be.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|it| it.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

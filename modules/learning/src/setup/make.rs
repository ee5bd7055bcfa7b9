//! The making of an environment by uv.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use super::{Environments, Interpreter, MADE, Made, SetupError, digest, python};
use crate::{
    child::{self, End, Says},
    commands::plain,
    run::Strategy,
};

/// Time within which an environment has to be made: five gigabytes come over slow lines, too.
pub(crate) const MAKING: Duration = Duration::from_secs(6 * 3_600);
/// Time within which a lock that was given back is free, and time between two tries.
const SHARED: Duration = Duration::from_secs(2);
const TRY: Duration = Duration::from_millis(20);
/// Last lines of uv that an error shows, and the longest of them.
const LINES: usize = 4;
const LONGEST_LINE: usize = 300;
/// Variables that uv may see: of proxies, certificates, and its own for mirrors of packages.
const KEPT: [&str; 12] = [
    "PATH",
    "LANG",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// An environment to be made.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    /// The environments.
    pub environments: &'a Environments,
    /// The one that is made.
    pub strategy: Strategy,
    /// The program `uv`.
    pub uv: &'a Path,
    /// The Python that it is made of.
    pub python: &'a Interpreter,
    /// Time of it, in milliseconds since the Unix epoch.
    pub now: i64,
    /// Time by which it has to be made.
    pub until: Instant,
}

/// Makes an environment, or brings one up to date. `go_on` is called with the bytes that are there
/// about every half a second; the making is cut off when it returns `false`.
///
/// # Errors
///
/// When uv fails, there is no room, or it was cut off.
pub(crate) fn make(
    making: &Making<'_>,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<(), SetupError> {
    let all = &making.environments.folder;
    let failed = |what: &str| SetupError::io(format!("cannot {what} in {}", all.display()));
    fs::create_dir_all(all).map_err(failed("make a folder"))?;
    let lock = File::create(all.join(".lock")).map_err(failed("write"))?;
    let begun = Instant::now();
    while lock.try_lock().is_err() {
        // A program that is being started holds a copy of a lock that was given back, until it
        // runs.
        if begun.elapsed() > SHARED {
            return Err(SetupError::Busy);
        }
        std::thread::sleep(TRY);
    }
    let folder = making.environments.of(making.strategy);
    let cache = all.join(".cache");
    // From here on it does not count as made.
    if let Err(error) = fs::remove_file(folder.join(MADE))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(failed("write")(error));
    }
    let requirements = all.join(format!("{}.txt", making.strategy));
    let text = making.strategy.requirements().unwrap_or_default();
    fs::write(&requirements, text).map_err(failed("write"))?;
    let mut uv =
        Uv { program: making.uv, cache: &cache, folder: &folder, until: making.until, go_on };
    let words = ["venv", "--clear", "--no-config", "--no-python-downloads", "--python"];
    let interpreter = making.python.path.as_os_str();
    uv.run("make the environment", &words, &[interpreter, folder.as_os_str()])?;
    let words = ["pip", "sync", "--no-config", "--require-hashes", "--only-binary", ":all:"];
    let inner = python(&folder);
    let sync = [OsStr::new("--python"), inner.as_os_str(), requirements.as_os_str()];
    uv.run("install the packages", &words, &sync)?;
    let made = Made {
        requirements: digest(making.strategy),
        python: making.python.version.clone(),
        at: making.now,
    };
    let text = serde_json::to_vec(&made).unwrap_or_default();
    fs::write(folder.join(MADE), text).map_err(failed("write"))?;
    // The packages are linked from it, so that it takes no room of its own unless it is elsewhere.
    drop(fs::remove_dir_all(&cache));
    Ok(())
}

/// The program `uv`, run once after the other.
struct Uv<'a> {
    program: &'a Path,
    cache: &'a Path,
    folder: &'a Path,
    until: Instant,
    go_on: &'a mut dyn FnMut(u64) -> bool,
}

impl Uv<'_> {
    fn run(
        &mut self,
        what: &'static str,
        words: &[&str],
        paths: &[&OsStr],
    ) -> Result<(), SetupError> {
        let mut command = Command::new(self.program);
        command.args(words).args(paths).arg("--cache-dir").arg(self.cache);
        command.env_clear();
        let of_uv = |name: &str| name.starts_with("UV_") && !name.starts_with("UV_PYTHON");
        let variables = std::env::vars_os().filter(|(name, _)| {
            name.to_str().is_some_and(|name| KEPT.contains(&name) || of_uv(name))
        });
        command.envs(variables).env("HOME", self.cache).env("UV_NO_PROGRESS", "1");
        let (cache, folder) = (self.cache, self.folder);
        let mut go_on = || (self.go_on)(size(cache).max(size(folder)));
        let ended = child::run(command, Says::Errors, self.until, &mut go_on);
        match ended.map_err(SetupError::io("uv cannot be run"))? {
            End::Itself(status, _) if status.success() => Ok(()),
            End::Itself(_, said) => Err(SetupError::Failed { what, words: last_lines(&said) }),
            End::Late => Err(SetupError::Late),
            End::CutOff => Err(SetupError::CutOff),
        }
    }
}

/// Returns the last lines of what uv said, in one.
fn last_lines(said: &str) -> String {
    let lines = said.lines().filter(|line| !line.trim().is_empty()).rev().take(LINES);
    let mut lines: Vec<String> = lines.map(|line| plain(line.trim(), LONGEST_LINE)).collect();
    lines.reverse();
    lines.join(" ")
}

/// Returns the size of the files below a folder, without following links.
fn size(folder: &Path) -> u64 {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

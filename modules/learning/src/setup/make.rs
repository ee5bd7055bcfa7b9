//! The making of an environment by uv.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Environments, Interpreter, MADE, Made, SetupError, digest, python};
use crate::{commands::plain, run::Strategy};

/// Time between two reports of the progress.
const LOOK: Duration = Duration::from_millis(500);
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
    let mut uv = Uv { program: making.uv, cache: &cache, folder: &folder, go_on };
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
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env_clear().process_group(0);
        let of_uv = |name: &str| name.starts_with("UV_") && !name.starts_with("UV_PYTHON");
        let variables = std::env::vars_os().filter(|(name, _)| {
            name.to_str().is_some_and(|name| KEPT.contains(&name) || of_uv(name))
        });
        command.envs(variables).env("HOME", self.cache).env("UV_NO_PROGRESS", "1");
        let started = command.spawn();
        let mut child = started.map_err(SetupError::io("uv cannot be started"))?;
        let (lines, reader) = lines_of(&mut child);
        let mut running = Running { child, reader };
        let mut last: VecDeque<String> = VecDeque::new();
        loop {
            match lines.recv_timeout(LOOK) {
                Ok(line) => {
                    last.push_back(plain(line.trim(), LONGEST_LINE));
                    if last.len() > LINES {
                        last.pop_front();
                    }
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let bytes = size(self.cache).max(size(self.folder));
            if !(self.go_on)(bytes) {
                return Err(SetupError::CutOff);
            }
        }
        let status = running.child.wait().map_err(SetupError::io("uv cannot be waited for"))?;
        if status.success() {
            return Ok(());
        }
        let words = last.into_iter().collect::<Vec<_>>().join(" ");
        Err(SetupError::Failed { what, words })
    }
}

/// A child that is ended with all that it started, where nobody waits for it any more.
struct Running {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            if let Some(group) = group {
                let _: Result<(), _> = kill_process_group(group, Signal::KILL);
            }
            let _: Result<_, _> = self.child.wait();
        }
        // No thread outlives the module.
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

/// Returns the lines of the standard error, until it is closed, and the thread that reads them.
fn lines_of(child: &mut Child) -> (Receiver<String>, Option<JoinHandle<()>>) {
    let (sender, receiver) = channel();
    let reader = child.stderr.take().map(|errors| {
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        })
    });
    (receiver, reader)
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

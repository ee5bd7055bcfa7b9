//! The process of the server that comes with Lodestar.

use std::{
    fs::{self, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use module_sdk::Secret;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::ServingError;
use crate::run;

/// Variable by which the program gets the key of who decides what it answers with.
const KEY: &str = "LODESTAR_SERVING_KEY";
/// Beginning of the sentence in which the program says why it ended.
const SAYS: &str = "lodestar-trainer: ";
/// Most of the log's end that is read, in bytes, and of its last sentence, in characters.
const LOG_END: u64 = 4_096;
const MOST_WORDS: usize = 300;

/// A base, and the adapters that a server answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    /// The base: a folder or a GGUF file.
    pub base: PathBuf,
    /// Name under which everybody asks.
    pub alias: String,
    /// Adapter that answers under that name.
    pub adapter: Option<Loaded>,
    /// Adapter of a version on trial, which answers under the name of the version alone.
    pub on_trial: Option<Loaded>,
}

/// An adapter that is loaded from the beginning: its version, its file and the SHA-256 of it.
pub(crate) type Loaded = (String, PathBuf, String);

/// A process that runs. A drop ends it at once.
#[derive(Debug)]
pub(super) struct Process {
    child: Owned,
    pidfd: OwnedFd,
    log: PathBuf,
    started: Instant,
}

impl Process {
    /// Starts a server on a socket that listens already, so that nobody who asks meanwhile is
    /// turned away. It ends with the thread that starts it.
    pub(super) fn start(
        program: &Path,
        served: &Served,
        listener: &TcpListener,
        key: &Secret,
        log: &Path,
    ) -> Result<Self, ServingError> {
        let folder = log.parent().unwrap_or_else(|| Path::new("/"));
        let unwritable = |source| ServingError::Folder { folder: folder.to_owned(), source };
        let temporary = folder.join("tmp");
        fs::create_dir_all(&temporary).map_err(unwritable)?;
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600);
        let errors = options.open(log).map_err(unwritable)?;
        let socket = listener.try_clone().map_err(ServingError::Socket)?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&served.base).args(["--listen", "stdin"]);
        command.arg("--alias").arg(&served.alias);
        command.arg("--parent").arg(std::process::id().to_string());
        for (name, file, sha256) in served.adapter.iter().chain(&served.on_trial) {
            command.arg("--adapter").arg(name).arg(file).arg(sha256);
        }
        if let Some((name, _, _)) = &served.adapter {
            command.arg("--on").arg(name);
        }
        if let Some((name, _, _)) = &served.on_trial {
            command.arg("--open").arg(name);
        }
        run::quiet(&mut command, folder, &temporary).env(KEY, key.expose());
        command.current_dir(folder).process_group(0);
        command.stdin(OwnedFd::from(socket)).stdout(Stdio::null()).stderr(errors);
        let child = command
            .spawn()
            .map_err(|source| ServingError::Spawn { program: program.to_owned(), source })?;
        // From here on a failure ends it.
        let child = Owned(child);
        let pid = i32::try_from(child.0.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(ServingError::Lost)?;
        run::step_back(pid);
        // Nobody has waited for it yet, so that its number is not used again.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| ServingError::Socket(error.into()))?;
        Ok(Self { child, pidfd, log: log.to_owned(), started: Instant::now() })
    }

    /// Returns what becomes readable at its end.
    pub(super) fn end(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Returns the time since its start.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Asks it to answer what it has begun, and to end.
    pub(super) fn ask_to_stop(&self) {
        // It may have ended by itself.
        let _: Result<(), _> = pidfd_send_signal(&self.pidfd, Signal::TERM);
    }

    /// Returns `true` once it has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.0.try_wait(), Ok(None))
    }

    /// Returns why it ended: the last sentence of its log, safe to show.
    pub(super) fn last_words(&mut self) -> String {
        let words = last_line(&self.log).unwrap_or_default();
        let words = words.strip_prefix(SAYS).unwrap_or(&words);
        let shown: String = words.chars().take(MOST_WORDS).flat_map(char::escape_debug).collect();
        if !shown.is_empty() {
            return shown;
        }
        match self.child.0.try_wait() {
            Ok(Some(status)) => status.to_string(),
            _ => "it said nothing".to_owned(),
        }
    }
}

/// A child that a drop ends, and waits for.
#[derive(Debug)]
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Both say no more than that it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn last_line(log: &Path) -> Option<String> {
    let mut file = fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_END))).ok()?;
    let mut end = Vec::new();
    file.take(LOG_END).read_to_end(&mut end).ok()?;
    let end = String::from_utf8_lossy(&end).into_owned();
    end.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}

/// Returns a socket of this machine for a server that nobody else asks.
pub(super) fn private_socket() -> Result<(TcpListener, SocketAddr), ServingError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(ServingError::Socket)?;
    let address = listener.local_addr().map_err(ServingError::Socket)?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_cannot_be_watched_is_ended_and_waited_for() {
        let child = Command::new("sleep").arg("1000").spawn().expect("it starts");
        let pid = Pid::from_child(&child);
        drop(Owned(child));
        let options = rustix::process::WaitIdOptions::EXITED;
        let waited = rustix::process::waitid(rustix::process::WaitId::Pid(pid), options);
        assert_eq!(waited.expect_err("nothing is left to wait for"), rustix::io::Errno::CHILD);
    }

    #[test]
    fn the_last_words_are_the_last_line_and_safe_to_show() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let check = |text: &str, expected: Option<&str>| {
            fs::write(&log, text).expect("it is writable");
            assert_eq!(last_line(&log).as_deref(), expected, "{text:?}");
        };
        check("", None);
        check("one\nlodestar-trainer: two\n\n", Some("lodestar-trainer: two"));
        check(&format!("{}\nend", "x".repeat(10_000)), Some("end"));
        assert_eq!(last_line(&directory.path().join("none")), None);
    }
}

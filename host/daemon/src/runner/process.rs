//! Process of a runner: its start, its limits, and its end.

use std::{
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use lodestar_config::Limits;
use nix::unistd::getpgid;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use super::{
    limits::{self, InForce},
    process_exit::{self, ProcessExit},
    watch::groups,
};

/// Variables of the daemon's environment that a module sees: where things are and how to write
/// times.
const ENVIRONMENT: [&str; 8] =
    ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// A process that runs one module. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    /// A pidfd, which stands for this very process, also when its number is another's.
    handle: OwnedFd,
    in_force: InForce,
    exit_state: Mutex<ExitState>,
    settled: Condvar,
    /// `true` once `exit_state` holds a process exit: read before each call.
    gone: AtomicBool,
}

#[derive(Debug, Default)]
struct ExitState {
    /// Reason why the daemon ended the process.
    kill_reason: Option<String>,
    /// `true` once the process was asked to end.
    leaving: bool,
    /// Its last line on standard error that explains an end.
    last_words: Option<String>,
    exit: Option<ProcessExit>,
}

/// A process that was just started, with the channels between it and the daemon.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) child: ChildGuard,
    pub(super) calls: UnixStream,
    pub(super) services: UnixStream,
    pub(super) stderr: ChildStderr,
}

/// A child process that has to be waited for: dropping this kills it and waits for it, where nobody
/// did before.
#[derive(Debug)]
pub(super) struct ChildGuard(Option<Child>);

impl ChildGuard {
    /// Waits for the child's end.
    fn wait(mut self) -> io::Result<ExitStatus> {
        let child = self.0.take();
        child.ok_or_else(|| io::Error::other("it was waited for"))?.wait()
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // An error means that it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts the program as a runner, which waits for its [`Setup`](super::wire::Setup).
pub(super) fn start(
    program: &Path,
    name: &str,
    data_dir: &Path,
    asked: Limits,
) -> io::Result<Started> {
    let (calls, their_calls) = UnixStream::pair()?;
    let (services, their_services) = UnixStream::pair()?;
    let mut command = Command::new(program);
    // The name that `ps` shows.
    command.arg0("lodestard").arg("--runner").arg(name).env_clear().current_dir(data_dir);
    let environment = ENVIRONMENT.into_iter();
    command.envs(environment.filter_map(|name| Some((name, std::env::var_os(name)?))));
    // Temporary files too are the module's own.
    command.env("TMPDIR", data_dir);
    command.stdin(OwnedFd::from(their_calls)).stdout(OwnedFd::from(their_services));
    command.stderr(Stdio::piped());
    // Signals of a terminal to the daemon are the daemon's to pass on.
    command.process_group(0);
    let mut child = spawn(command)?;
    let stderr = child.stderr.take().ok_or_else(|| io::Error::other("it has no standard error"))?;
    let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let child = ChildGuard(Some(child));
    let pid = number.ok_or_else(|| io::Error::other("it has no process number"))?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let in_force = limits::impose(name, pid, asked);
    let process = Process {
        pid,
        handle,
        in_force,
        exit_state: Mutex::default(),
        settled: Condvar::new(),
        gone: AtomicBool::new(false),
    };
    Ok(Started { process, child, calls, services, stderr })
}

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts a command from a thread that lasts: the kernel ends a process that asks for it with the
/// *thread* that started it, and a module's thread may end before the module does.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    static ORDERS: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        let thread = std::thread::Builder::new().name("runners".to_owned());
        let work = move || {
            for (mut command, answer) in receiver {
                let child = command.spawn();
                // The other ends of the sockets are the child's alone: their end must be seen.
                drop(command);
                // An error means that nobody waits, which does not happen.
                let _ = answer.send(child);
            }
        };
        if let Err(error) = thread.spawn(work) {
            tracing::error!(%error, "cannot start the thread that starts runners");
        }
        Mutex::new(sender)
    });
    let (sender, receiver) = mpsc::sync_channel(1);
    let no_thread = || io::Error::other("there is no thread that starts processes");
    let sent = orders.lock().unwrap_or_else(PoisonError::into_inner).send((command, sender));
    sent.map_err(|_| no_thread())?;
    receiver.recv().map_err(|_| no_thread())?
}

/// Waits for processes that were ended with a runner and became the daemon's children, because
/// their parent has ended and the daemon is the first process of a container. To be called before
/// the runner itself is waited for: until then its group is no other's.
pub(super) fn wait_for_others(leader: Pid) {
    let group = leader.as_raw_nonzero().get();
    for number in groups().remove(&group.unsigned_abs()).unwrap_or_default() {
        let number = i32::try_from(number).ok().and_then(Pid::from_raw);
        let Some(number) = number.filter(|number| *number != leader) else { continue };
        let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else { continue };
        // The number may be another's by now; the handle is of who has it at this moment.
        let still = getpgid(Some(nix::unistd::Pid::from_raw(number.as_raw_nonzero().get())));
        if still.is_ok_and(|still| still.as_raw() == group) {
            // An error means that it is not ours to wait for.
            let _ = waitid(WaitId::PidFd(handle.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

impl Process {
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(super) fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// Returns a descriptor that is readable once the process has ended.
    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Returns how the process ended, if it has.
    pub(super) fn exit(&self) -> Option<ProcessExit> {
        if self.gone.load(Ordering::Acquire) { self.exit_state().exit.clone() } else { None }
    }

    /// Kills the process at once. The first reason counts; a process that ended by itself keeps its
    /// own.
    pub(super) fn kill_with_reason(&self, reason: String) {
        let mut exit_state = self.exit_state();
        if exit_state.exit.is_none() {
            exit_state.kill_reason.get_or_insert(reason);
            // An error means that it has just ended.
            let _ = pidfd_send_signal(&self.handle, Signal::KILL);
        }
    }

    /// Records that the process was asked to end: from now on its end is no failure.
    pub(super) fn leave(&self) {
        self.exit_state().leaving = true;
    }

    pub(super) fn note_last_words(&self, words: &str) {
        self.exit_state().last_words = Some(words.to_owned());
    }

    /// Waits until it is known how the process ended.
    pub(super) fn wait_for_exit(&self, patience: Duration) -> Option<ProcessExit> {
        let until = Instant::now() + patience;
        let mut exit_state = self.exit_state();
        while exit_state.exit.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.settled.wait_timeout(exit_state, left);
            exit_state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        exit_state.exit.clone()
    }

    /// Ends the processes that it started, as far as they are still in its groups. To be called
    /// before the process is waited for: until then its number and that of its group are not
    /// another's.
    pub(super) fn end_what_it_started(&self) {
        // An error means that there is nothing left.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        self.in_force.end_group();
    }

    /// Waits for the process, and records and returns how it ended. The processes that it started
    /// end with it.
    pub(super) fn reap(&self, child: ChildGuard) -> ProcessExit {
        self.end_what_it_started();
        wait_for_others(self.pid);
        let status = child.wait();
        let mut exit_state = self.exit_state();
        let exit = self.judge(&exit_state, status);
        exit_state.exit = Some(exit.clone());
        drop(exit_state);
        self.gone.store(true, Ordering::Release);
        self.settled.notify_all();
        exit
    }

    fn judge(&self, exit_state: &ExitState, status: io::Result<ExitStatus>) -> ProcessExit {
        if let Some(reason) = &exit_state.kill_reason {
            return ProcessExit { reason: reason.clone(), blamed: true };
        }
        if exit_state.leaving {
            return ProcessExit { reason: "it was stopped".to_owned(), blamed: false };
        }
        match status {
            Ok(status) => {
                process_exit::explain(status, exit_state.last_words.as_deref(), &self.in_force)
            }
            Err(error) => {
                ProcessExit { reason: format!("its process is gone: {error}"), blamed: true }
            }
        }
    }

    fn exit_state(&self) -> MutexGuard<'_, ExitState> {
        self.exit_state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_with_reason("it is not needed any more".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_nobody_takes_is_ended_and_waited_for() {
        let child = Command::new("sleep").arg("1000").spawn().expect("there is such a program");
        let place = format!("/proc/{}", child.id());
        assert!(Path::new(&place).exists());
        drop(ChildGuard(Some(child)));
        assert!(!Path::new(&place).exists(), "neither it nor a zombie of it");
    }

    #[test]
    fn what_has_become_the_daemons_is_waited_for() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let started = start(Path::new("/bin/sh"), "x", directory.path(), Limits::default());
        let Started { process, child, .. } = started.expect("there is a shell");
        // It does not know that option and ends, but its group stays as long as its zombie.
        let id = WaitId::PidFd(process.handle());
        waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).expect("it ends");
        let mut other = Command::new("sleep");
        let other = other.arg("1000").process_group(process.pid.as_raw_nonzero().get());
        let mut other = other.spawn().expect("there is such a program");
        process.reap(child);
        let place = format!("/proc/{}", other.id());
        assert!(!Path::new(&place).exists(), "neither it nor a zombie of it");
        assert!(other.wait().is_err(), "it was waited for");
    }
}

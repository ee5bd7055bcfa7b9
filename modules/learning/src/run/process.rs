//! The process of a trainer: in its own group, with an environment of its own, and found again
//! after a restart of the daemon.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group,
        pidfd_open, pidfd_send_signal, prlimit, setpriority_pgrp, waitid,
    },
};
use serde::{Deserialize, Serialize};

use super::{Launch, RunError};

/// File of the events, in the folder of an attempt.
pub(super) const EVENTS: &str = "events.jsonl";
/// File of all else that the program prints.
pub(super) const LOG: &str = "trainer.log";
/// Variable by which the processes of a run are found.
const MARK: &str = "LODESTAR_RUN";
/// Politeness towards other programs.
const NICE: i32 = 10;
/// Readiness to be ended first when the machine runs out of memory.
const OOM_SCORE: &str = "500";
/// Size at which the log is cut down to its end, and the size that is left of it.
const LOG_BYTES: u64 = 8 << 20;
const LOG_END: u64 = 1 << 20;
/// Passes over all processes, each of which may leave new children of what it ends.
const PASSES: usize = 20;

/// Identity of a process: a number alone is used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Number of the process.
    pub pid: i32,
    /// Time of its start, in ticks since the start of the machine.
    pub started: u64,
    /// Id of the start of the machine.
    pub boot: String,
}

impl Identity {
    /// Returns the identity of the process that has this number now.
    fn of(pid: i32) -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self { pid, started: started(pid)?, boot: boot.trim().to_owned() })
    }

    fn pid(&self) -> Option<Pid> {
        // 0 and -1 would be the own group and everybody.
        Pid::from_raw(self.pid).filter(|_| self.pid > 1)
    }
}

/// End of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// It ended with a code.
    Code(i32),
    /// It was ended by a signal.
    Signal(i32),
    /// It was started by a daemon before this one, which alone was told.
    Unknown,
}

/// A process of a trainer. A drop leaves it running.
#[derive(Debug)]
pub struct Process {
    identity: Identity,
    pidfd: OwnedFd,
}

impl Process {
    /// Starts a program in a folder, which gets the files of its output.
    pub(super) fn spawn(
        launch: &Launch,
        run: &str,
        folder: &Path,
        largest_file: Option<u64>,
    ) -> Result<Self, RunError> {
        let file = |name: &str| {
            let mut options = OpenOptions::new();
            options.create(true).append(true).mode(0o600).open(folder.join(name))
        };
        let temporary = folder.join("tmp");
        fs::create_dir_all(&temporary).map_err(RunError::folder(folder))?;
        let events = file(EVENTS).map_err(RunError::folder(folder))?;
        let log = file(LOG).map_err(RunError::folder(folder))?;
        let mut command = Command::new(&launch.program);
        command.args(&launch.args).current_dir(folder).process_group(0);
        command.stdin(Stdio::null()).stdout(events).stderr(log);
        quiet(&mut command, folder, &temporary).env(MARK, run);
        let mut child = command.spawn().map_err(|source| RunError::Spawn {
            program: launch.program.display().to_string(),
            source,
        })?;
        let watched = Self::watch(child.id(), largest_file);
        if watched.is_err() {
            // Nobody would wait for it. Both say no more than that it has ended already.
            drop(child.kill());
            drop(child.wait());
        }
        // The end is waited for by `wait`, for it may outlive this value.
        watched
    }

    /// Takes hold of a program that was started, and bounds it.
    fn watch(child: u32, largest_file: Option<u64>) -> Result<Self, RunError> {
        let pid = i32::try_from(child).map_err(|_| RunError::Lost)?;
        let raw = Pid::from_raw(pid).ok_or(RunError::Lost)?;
        step_back(raw);
        if let Some(bytes) = largest_file {
            let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
            let _: Result<_, _> = prlimit(Some(raw), Resource::Fsize, limit);
        }
        // Nobody has waited for it yet, so that its number is not used again.
        let identity = Identity::of(pid).ok_or(RunError::Lost)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(RunError::watch)?;
        Ok(Self { identity, pidfd })
    }

    /// Finds a process again; none where it is gone, or its number is that of another one.
    #[must_use]
    pub fn adopt(identity: &Identity) -> Option<Self> {
        let pidfd = pidfd_open(identity.pid()?, PidfdFlags::empty()).ok()?;
        // Looked at once it is held: from here on the number cannot become another's.
        let now = Identity::of(identity.pid)?;
        (now == *identity).then(|| Self { identity: identity.clone(), pidfd })
    }

    /// Finds the leader of the processes of a run, if the daemon was killed before it could note
    /// its number.
    #[must_use]
    pub fn find(run: &str) -> Option<Self> {
        let leader = |pid: &i32| group(*pid) == Some(*pid);
        let identity = marked(run).into_iter().find(leader).and_then(Identity::of)?;
        Self::adopt(&identity)
    }

    /// Returns the identity, to be kept.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the age, which no change of the clock alters.
    #[must_use]
    pub fn age(&self) -> Duration {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime = uptime.split(' ').next().and_then(|text| text.parse::<f64>().ok());
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        #[expect(clippy::cast_precision_loss, reason = "hundredths of seconds since the start")]
        let started = self.identity.started as f64 / ticks as f64;
        Duration::try_from_secs_f64(uptime.unwrap_or(started) - started).unwrap_or_default()
    }

    /// Waits for the end. Whatever the process left behind in its group is ended with it.
    pub(super) fn wait(&self, timeout: Duration) -> Result<Option<Exit>, RunError> {
        let mut events = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).map_err(|_| RunError::Lost)?;
        match poll(&mut events, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(RunError::watch(error)),
        }
        if events[0].revents().is_empty() {
            return Ok(None);
        }
        // As long as nobody waited for the leader no other group can have its number.
        let is_own = self.peek();
        if is_own {
            self.signal_group(Signal::KILL);
        }
        let id = WaitId::PidFd(self.pidfd.as_fd());
        let exit = match waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
            _ => Exit::Unknown,
        };
        Ok(Some(exit))
    }

    /// Returns whether the process is a child of this one whose end was not taken note of.
    fn peek(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::PidFd(self.pidfd.as_fd()), options), Ok(Some(_)))
    }

    /// Asks the trainer and its children to write a checkpoint and to end.
    pub(super) fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends the process and its group at once.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // While the process is there its number is that of its group.
        if Self::adopt(&self.identity).is_some() {
            self.signal_group(signal);
        }
    }

    fn signal_group(&self, signal: Signal) {
        if let Some(group) = self.identity.pid() {
            let _: Result<(), _> = kill_process_group(group, signal);
        }
    }
}

/// Gives a program an environment of its own: that of the daemon holds keys, and the home folder
/// those of other programs.
pub(crate) fn quiet<'a>(
    command: &'a mut Command,
    home: &Path,
    temporary: &Path,
) -> &'a mut Command {
    let kept = ["PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"];
    command.env_clear();
    command.envs(kept.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.env("HOME", home).env("TMPDIR", temporary).envs([
        ("OMP_NUM_THREADS", "1"),
        ("RAYON_NUM_THREADS", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("PYTHONUNBUFFERED", "1"),
        ("HF_HUB_OFFLINE", "1"),
        ("HF_DATASETS_OFFLINE", "1"),
        ("TRANSFORMERS_OFFLINE", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("DO_NOT_TRACK", "1"),
        ("WANDB_MODE", "disabled"),
    ])
}

/// Lowers the priority of a program's group, and has it ended first where memory runs out.
pub(crate) fn step_back(leader: Pid) {
    let _: Result<(), _> = setpriority_pgrp(Some(leader), NICE);
    let path = format!("/proc/{}/oom_score_adj", leader.as_raw_pid());
    let _: Result<(), _> = fs::write(path, OOM_SCORE);
}

/// Ends all processes of a run, wherever they moved to. Returns their number. Only one that gave
/// up both its group and its environment is not found.
pub fn sweep(run: &str) -> usize {
    let mut ended = 0;
    for _ in 0..PASSES {
        let pids = marked(run);
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            let Some(raw) = Pid::from_raw(pid) else { continue };
            let Ok(pidfd) = pidfd_open(raw, PidfdFlags::empty()) else { continue };
            // Looked at again once it is held: the number may be another's by now.
            if is_marked(pid, run) && pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
                ended += 1;
                let _: Result<_, _> = poll(
                    &mut [PollFd::new(&pidfd, PollFlags::IN)],
                    Some(&Timespec { tv_sec: 1, tv_nsec: 0 }),
                );
            }
        }
    }
    ended
}

/// Returns the numbers of the processes of a run.
fn marked(run: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_marked(*pid, run)).collect()
}

fn is_marked(pid: i32, run: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mark = format!("{MARK}={run}");
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

/// Returns the fields of a process after its name, which may hold anything.
fn fields(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn started(pid: i32) -> Option<u64> {
    fields(pid)?.get(19)?.parse().ok()
}

fn group(pid: i32) -> Option<i32> {
    fields(pid)?.get(2)?.parse().ok()
}

/// Cuts a log down to its end once it is too large. The program goes on writing at the end.
pub(super) fn cut(log: &Path) -> std::io::Result<()> {
    let mut file = File::options().read(true).append(true).open(log)?;
    let length = file.metadata()?.len();
    if length <= LOG_BYTES {
        return Ok(());
    }
    file.seek(SeekFrom::Start(length - LOG_END))?;
    let mut end = Vec::new();
    (&file).take(LOG_END).read_to_end(&mut end)?;
    file.set_len(0)?;
    file.write_all(&end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let own = i32::try_from(std::process::id()).expect("it is small");
        let identity = Identity::of(own).expect("it runs");
        let process = Process::adopt(&identity).expect("it is found");
        assert!(process.age() < Duration::from_secs(3_600));
        for other in [
            Identity { started: identity.started + 1, ..identity.clone() },
            Identity { boot: "another".to_owned(), ..identity.clone() },
            Identity { pid: i32::MAX, ..identity.clone() },
            Identity { pid: 0, ..identity },
        ] {
            assert!(Process::adopt(&other).is_none(), "{other:?}");
        }
        assert!(Process::find("no such run").is_none());
        assert_eq!(sweep("no such run"), 0);
    }

    #[test]
    fn a_log_keeps_its_end() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join(LOG);
        fs::write(&log, "short").expect("it is written");
        cut(&log).expect("it is looked at");
        assert_eq!(fs::read(&log).expect("it is read"), b"short");
        let mut text = vec![b'x'; usize::try_from(LOG_BYTES).expect("it is small")];
        text.extend_from_slice(b"the end");
        fs::write(&log, text).expect("it is written");
        cut(&log).expect("it is cut");
        let left = fs::read(&log).expect("it is read");
        assert_eq!(left.len() as u64, LOG_END);
        assert!(left.ends_with(b"xthe end"));
        cut(Path::new("/nowhere")).expect_err("it is not there");
    }
}

//! Programs that channels run: without a shell, within a deadline, and nothing of them is left.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, memfd_create},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use super::SendError;
use crate::text::visible;

/// A program to run.
pub(super) struct Program {
    /// Name in messages.
    pub(super) name: String,
    /// Remedy where it is not there.
    pub(super) hint: &'static str,
    /// The program with its arguments and environment.
    pub(super) command: Command,
    /// Text for its standard input.
    pub(super) input: String,
    /// Texts that no message may show.
    pub(super) hidden: Vec<String>,
    /// Time within which it has to end.
    pub(super) deadline: Duration,
}

/// Ends the program when nobody waits for it any more.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs a program to its end, on a thread of its own.
pub(super) async fn run(program: Program) -> Result<(), SendError> {
    let is_over = Arc::new(AtomicBool::new(false));
    let _give_up = GiveUp(is_over.clone());
    let ended = tokio::task::spawn_blocking(move || program.run(&is_over)).await;
    ended.unwrap_or(Err(SendError::Broken))
}

/// Bytes of what a program says that are kept.
const SAID: usize = 4_096;
/// Longest time for which a program that nobody waits for lives on.
const SLICE: Duration = Duration::from_millis(100);

impl Program {
    fn run(mut self, is_over: &AtomicBool) -> Result<(), SendError> {
        let input = self.input().map_err(|error| self.failed(&error.to_string()))?;
        self.command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut child = self.command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                SendError::Missing { program: self.name.clone(), hint: self.hint }
            }
            _ => self.failed(&error.to_string()),
        })?;
        let watched = self.watch(&mut child, is_over);
        // Whatever it left behind ends as well: the group is its own.
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _: Result<(), _> = kill_process_group(group, Signal::KILL);
        }
        let status = child.wait().map_err(|error| self.failed(&error.to_string()))?;
        let said = watched?;
        if status.success() { Ok(()) } else { Err(self.ended(status, &said)) }
    }

    /// Returns the input as a file, so that a program that does not read it holds nothing up.
    fn input(&self) -> std::io::Result<Stdio> {
        let file = memfd_create("note", MemfdFlags::CLOEXEC)?;
        let mut file = File::from(file);
        file.write_all(self.input.as_bytes())?;
        file.rewind()?;
        Ok(file.into())
    }

    /// Waits for the end; returns the beginning of what the program said.
    fn watch(&self, child: &mut Child, is_over: &AtomicBool) -> Result<Vec<u8>, SendError> {
        let failed = |error: rustix::io::Errno| self.failed(&error.to_string());
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(SendError::Broken)?;
        let ended = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
        let mut stderr = child.stderr.take().ok_or(SendError::Broken)?;
        let flags = fcntl_getfl(&stderr).map_err(failed)?;
        fcntl_setfl(&stderr, flags | OFlags::NONBLOCK).map_err(failed)?;
        let (begun, mut said, mut is_open) = (Instant::now(), Vec::new(), true);
        loop {
            let left = self.deadline.saturating_sub(begun.elapsed());
            if left.is_zero() || is_over.load(Ordering::Acquire) {
                return Err(SendError::Late(self.deadline));
            }
            let timeout = Timespec::try_from(left.min(SLICE)).map_err(|_| SendError::Broken)?;
            let is_ended = {
                let mut events = vec![PollFd::new(&ended, PollFlags::IN)];
                if is_open {
                    events.push(PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::IN));
                }
                match poll(&mut events, Some(&timeout)) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => !events[0].revents().is_empty(),
                    Err(error) => return Err(failed(error)),
                }
            };
            let mut buffer = [0; 4_096];
            // One buffer at a time: a program that says ever more does not get past its deadline.
            match stderr.read(&mut buffer) {
                Ok(0) => is_open = false,
                Ok(read) => {
                    let room = SAID.saturating_sub(said.len());
                    said.extend_from_slice(&buffer[..read.min(room)]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => is_open = false,
            }
            if is_ended {
                return Ok(said);
            }
        }
    }

    fn failed(&self, message: &str) -> SendError {
        SendError::Run { program: self.name.clone(), message: visible(message) }
    }

    fn ended(&self, status: ExitStatus, said: &[u8]) -> SendError {
        let ended = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "failed".to_owned(),
        };
        let said = String::from_utf8_lossy(said);
        let line = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        SendError::Failed { program: self.name.clone(), ended, said: self.without_secrets(line) }
    }

    /// Returns a line without the arguments of the program, which may be secrets.
    fn without_secrets(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for hidden in self.hidden.iter().filter(|hidden| hidden.len() >= SHORTEST_SECRET) {
            line = line.replace(hidden.as_str(), "[redacted]");
        }
        visible(&line)
    }
}

/// Arguments of fewer bytes are no secrets: `-v`.
const SHORTEST_SECRET: usize = 6;

/// Returns the last part of a path, for messages.
pub(super) fn name(path: &Path) -> String {
    visible(&path.file_name().unwrap_or_default().to_string_lossy())
}

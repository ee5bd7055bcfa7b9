//! Programs that somebody waits for: their time is bounded, what they say is kept at its end only,
//! and nothing of them is left behind.

use std::{
    collections::VecDeque,
    io::{self, Read},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// Time between two looks at whether it is still wanted.
const LOOK: Duration = Duration::from_millis(500);
/// Time between two looks at one that has closed its output, and goes on.
const SILENT: Duration = Duration::from_millis(20);
/// Most of what it says that is kept, in bytes.
const KEPT: usize = 64 << 10;

/// Stream on which a program says what is wanted. The other one is thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    /// The standard output.
    Output,
    /// The standard error.
    Errors,
}

/// End of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It ended by itself, and said this last.
    Itself(ExitStatus, String),
    /// Its time was over.
    Late,
    /// Nobody wants it any more.
    CutOff,
}

/// Runs a program to its end, at the latest until a time. `go_on` is called about every half a
/// second, however much the program says, and ends it by `false`.
///
/// # Errors
///
/// When it cannot be started, or not be waited for.
pub(crate) fn run(
    mut command: Command,
    says: Says,
    until: Instant,
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<End> {
    command.process_group(0).stdin(Stdio::null());
    match says {
        Says::Output => command.stdout(Stdio::piped()).stderr(Stdio::null()),
        Says::Errors => command.stdout(Stdio::null()).stderr(Stdio::piped()),
    };
    let mut running = Running { child: command.spawn()?, reader: None };
    let said = running.listen(says)?;
    let mut looked = Instant::now();
    loop {
        if running.has_ended()? {
            let status = running.end()?;
            let said = said.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let (front, back) = said.as_slices();
            let text = String::from_utf8_lossy(&[front, back].concat()).into_owned();
            return Ok(End::Itself(status, text));
        }
        let now = Instant::now();
        if now >= until {
            return Ok(End::Late);
        }
        if now >= looked + LOOK {
            looked = now;
            if !go_on() {
                return Ok(End::CutOff);
            }
        }
        let rest = (looked + LOOK).min(until).saturating_duration_since(now);
        if said.closed.recv_timeout(rest) == Err(RecvTimeoutError::Disconnected) {
            // Mostly it ends just now.
            std::thread::sleep(SILENT.min(rest));
        }
    }
}

/// Words of a program.
struct Said {
    kept: Arc<Mutex<VecDeque<u8>>>,
    /// Nothing comes of it; it ends when the program has closed its stream.
    closed: Receiver<()>,
}

/// A program with all that it starts. A drop ends it.
struct Running {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// Reads what it says, and keeps the end of it.
    fn listen(&mut self, says: Says) -> io::Result<Said> {
        let stream: Option<Box<dyn Read + Send>> = match says {
            Says::Output => self.child.stdout.take().map(|it| Box::new(it) as _),
            Says::Errors => self.child.stderr.take().map(|it| Box::new(it) as _),
        };
        let kept: Arc<Mutex<VecDeque<u8>>> = Arc::default();
        let (open, closed) = channel();
        let filled = Arc::clone(&kept);
        let read = move || {
            let _open = open;
            let (mut stream, mut piece) = (stream, [0; 8 << 10]);
            while let Some(Ok(read @ 1..)) = stream.as_mut().map(|it| it.read(&mut piece)) {
                let mut kept = filled.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&piece[..read]);
                let beyond = kept.len().saturating_sub(KEPT);
                kept.drain(..beyond);
            }
        };
        let reader = std::thread::Builder::new().name("learning:child".to_owned()).spawn(read)?;
        self.reader = Some(reader);
        Ok(Said { kept, closed })
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Returns whether it has ended; its number stays its own until [`end`](Self::end).
    fn has_ended(&self) -> io::Result<bool> {
        let Some(pid) = self.pid() else { return Ok(true) };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(pid), options)?.is_some())
    }

    /// Ends it with all that it started, and waits for that.
    fn end(&mut self) -> io::Result<ExitStatus> {
        // Nobody has waited for it before this, so that no other group has its number.
        if self.reader.is_some()
            && let Some(group) = self.pid()
        {
            let _: Result<(), _> = kill_process_group(group, Signal::KILL);
        }
        let status = self.child.wait();
        // No thread outlives the module.
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It says no more than that it has ended already.
        drop(self.child.kill());
        drop(self.end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn shell(script: &str, until: Duration, go_on: &mut dyn FnMut() -> bool) -> End {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        run(command, Says::Errors, Instant::now() + until, go_on).expect("it starts")
    }

    #[test]
    fn the_end_of_what_is_said_is_kept() {
        let End::Itself(status, said) = shell("echo one; echo two >&2; exit 3", LONG, &mut || true)
        else {
            panic!("it ends by itself")
        };
        assert_eq!((status.code(), said.as_str()), (Some(3), "two\n"));
        let much = "head -c 1000000 /dev/zero >&2; echo end >&2";
        let End::Itself(status, said) = shell(much, LONG, &mut || true) else {
            panic!("it ends by itself")
        };
        assert!(status.success() && said.len() == KEPT && said.ends_with("end\n"));
    }

    #[test]
    fn one_that_never_stops_talking_is_ended() {
        for script in ["while :; do echo x >&2; done", "exec tr '\\0' x </dev/zero >&2"] {
            assert_eq!(shell(script, LONG, &mut || false), End::CutOff, "{script}");
            assert_eq!(shell(script, Duration::ZERO, &mut || true), End::Late, "{script}");
        }
    }

    #[test]
    fn one_that_closes_its_output_is_waited_for_and_ended() {
        let End::Itself(status, _) = shell("exec 2>&-; sleep 0.1; exit 4", LONG, &mut || true)
        else {
            panic!("it ends by itself")
        };
        assert_eq!(status.code(), Some(4));
        assert_eq!(shell("exec 2>&-; sleep 1000", LONG, &mut || false), End::CutOff);
        // What it left behind holds its output, and is ended with it.
        let End::Itself(status, said) = shell("sleep 1000 & echo x >&2", LONG, &mut || true) else {
            panic!("it ends by itself")
        };
        assert!(status.success() && said == "x\n", "{said}");
    }
}

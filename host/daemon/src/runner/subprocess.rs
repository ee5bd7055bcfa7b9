//! A subprocess that answers one request: soon and with little output, or it is killed.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Seek as _, Write as _},
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    io::Errno,
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, getppid, kill_process, kill_process_group,
        pidfd_open, set_parent_process_death_signal, setrlimit,
    },
};

use super::process::{spawn, wait_for_others};

/// The most bytes that it may write to each of its two outputs.
const WORDS: u64 = 1 << 20;

/// The most bytes of heap and stacks that it may have.
const MEMORY: u64 = 1 << 30;

/// The most seconds of processor time that it may use: it is not to outlast the process that
/// started it by much, whatever happens to that.
const PROCESSOR: u64 = 20;

/// Amount by which its OOM score is raised, in thousandths of the machine's memory: it is killed
/// before the daemon where memory runs out. The unit protects the daemon by as much.
const SOONER: i32 = 200;

/// Output of a subprocess.
#[derive(Debug)]
pub struct SubprocessOutput {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output, the first MiB.
    pub output: Vec<u8>,
    /// Standard error, the first MiB.
    pub complaints: Vec<u8>,
}

/// Runs a command with this input to its end; returns `None` when it has not ended in time. Every
/// process that it started in its process group ends with it.
///
/// # Errors
///
/// When it cannot be started or waited for.
pub fn ask(
    mut command: Command,
    input: &[u8],
    patience: Duration,
) -> io::Result<Option<SubprocessOutput>> {
    let until = Instant::now() + patience;
    let (output, complaints) = (sheet()?, sheet()?);
    // Files rather than pipes: nobody has to read along, and nobody can hold them open.
    command.stdin(written(input)?).stdout(output.try_clone()?).stderr(complaints.try_clone()?);
    command.process_group(0);
    let mut child = spawn(command)?;
    let in_time = ends(&child, until);
    end_group(&mut child);
    let status = child.wait()?;
    let answered =
        || Ok(SubprocessOutput { status, output: read(&output)?, complaints: read(&complaints)? });
    if in_time? { answered().map(Some) } else { Ok(None) }
}

/// Limits this process, and ties it to the one that started it, before it runs code of others.
///
/// # Errors
///
/// When the kernel refuses, or the parent is gone.
pub fn answer_to(parent: u32) -> io::Result<()> {
    for (resource, most) in
        [(Resource::Data, MEMORY), (Resource::Cpu, PROCESSOR), (Resource::Core, 0)]
    {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    be_ended_first();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let now = getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) { Ok(()) } else { Err(io::Error::other("who asked is gone")) }
}

/// Makes the kernel kill this process before the daemon, where memory runs out. A process that may
/// not lower its OOM score may raise it; a kernel that refuses chooses by size alone.
pub(super) fn be_ended_first() {
    const FIGURE: &str = "/proc/self/oom_score_adj";
    let before = std::fs::read_to_string(FIGURE).ok();
    if let Some(before) = before.and_then(|text| text.trim().parse::<i32>().ok()) {
        let raised = before.saturating_add(SOONER).min(1000);
        let _ = std::fs::write(FIGURE, raised.to_string());
    }
}

/// Waits for the end of a process; returns whether it came in time.
fn ends(child: &Child, until: Instant) -> io::Result<bool> {
    let handle = pidfd_open(number(child)?, PidfdFlags::empty())?;
    let mut ended = [PollFd::new(&handle, PollFlags::IN)];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut ended, Some(&left)) {
            Err(Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

/// Kills a child and its process group. The child was not waited for, so that the numbers are not
/// another's; it may have gone to another group.
fn end_group(child: &mut Child) {
    if let Ok(number) = number(child) {
        // Errors mean that there is nothing left to end.
        let _ = kill_process_group(number, Signal::KILL);
        let _ = kill_process(number, Signal::KILL);
        wait_for_others(number);
    }
}

fn number(child: &Child) -> io::Result<Pid> {
    let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    number.ok_or_else(|| io::Error::other("it has no process number"))
}

/// Creates a file in memory that holds these bytes, to be read from its beginning.
fn written(bytes: &[u8]) -> io::Result<File> {
    let mut file = in_memory(c"lodestar-asked")?;
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// Creates a file in memory that takes [`WORDS`] bytes and no more.
fn sheet() -> io::Result<File> {
    let file = in_memory(c"lodestar-answered")?;
    ftruncate(&file, WORDS)?;
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

fn in_memory(name: &CStr) -> io::Result<File> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into())
}

/// Reads an output file: text, which has no zero bytes.
fn read(sheet: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(WORDS).unwrap_or(0)];
    sheet.read_exact_at(&mut bytes, 0)?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time limit that is longer than everything that ends by itself here.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn shell(script: &str, input: &str, patience: Duration) -> Option<SubprocessOutput> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        ask(command, input.as_bytes(), patience).expect("it can be started")
    }

    #[test]
    fn input_output_complaints_and_end_are_its_own() {
        let answered = shell("cat; echo no >&2; exit 3", "yes\n", PATIENCE).expect("in time");
        let SubprocessOutput { status, output, complaints } = answered;
        assert_eq!((&output[..], &complaints[..]), (&b"yes\n"[..], &b"no\n"[..]));
        assert_eq!(status.code(), Some(3));
        let input = "x".repeat(300_000);
        let answered = shell("cat", &input, PATIENCE).expect("in time");
        assert_eq!(answered.output.len(), input.len());
    }

    #[test]
    fn who_talks_without_end_is_not_listened_to_for_ever() {
        let answered = shell("yes; yes no >&2", "", PATIENCE).expect("it cannot write on");
        assert_eq!(answered.output.len() as u64, WORDS);
        assert!(answered.complaints.starts_with(b"yes: "), "a complaint of yes comes first");
        assert_eq!(answered.complaints.len() as u64, WORDS);
    }

    #[test]
    fn what_it_leaves_behind_ends_with_it() {
        let left = |output: &[u8]| -> Pid {
            let text = String::from_utf8_lossy(output).into_owned();
            Pid::from_raw(text.trim().parse().expect("a number")).expect("not zero")
        };
        let alive = |pid: Pid| {
            // One that nobody has waited for yet is not alive.
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            stat.is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
        };
        let gone = |pid| {
            let until = Instant::now() + PATIENCE;
            while alive(pid) {
                assert!(Instant::now() < until, "it lives on");
                std::thread::yield_now();
            }
        };
        // It has ended, and something of it holds its outputs.
        let answered = shell("sleep 1000 & echo $!", "", PATIENCE).expect("not waited for");
        gone(left(&answered.output));
        // It is late.
        let directory = tempfile::tempdir().expect("a directory");
        let note = directory.path().join("number");
        let script = format!("sleep 1000 & echo $! > {}; wait", note.display());
        assert!(shell(&script, "", Duration::from_millis(500)).is_none());
        if let Ok(number) = std::fs::read(note) {
            gone(left(&number));
        }
    }
}

//! Resources that a process uses, as the kernel counts them.

use std::{fs, io};

/// Resources that a process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Processor time since it started, in milliseconds, ended threads included.
    pub cpu_ms: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Number of living threads.
    pub threads: u64,
}

/// Returns the resources that a process uses now; zeros when it has ended.
#[must_use]
pub fn figures(pid: u32) -> Figures {
    let stat = text_of(&format!("/proc/{pid}/stat")).unwrap_or_default();
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let page = rustix::param::page_size() as u64;
    parse(&stat, ticks, page).unwrap_or_default()
}

/// Reads a file of the kernel as text. Invalid UTF-8 is replaced, as a process can give itself any
/// name.
pub(crate) fn text_of(path: &str) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the ids of a process's threads.
pub(crate) fn threads(pid: u32) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Returns whether a thread has ended or is about to, so that its files are closed or will be at
/// once.
pub(crate) fn is_ending(pid: u32, thread: u32) -> bool {
    text_of(&format!("/proc/{pid}/task/{thread}/stat")).map_or(true, |stat| is_exiting(&stat))
}

/// Returns whether field 9 of proc(5), flags, has `PF_EXITING`, which a zombie keeps.
fn is_exiting(stat: &str) -> bool {
    const PF_EXITING: u64 = 4;
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(9 - 3));
    flags.and_then(|flags| flags.parse::<u64>().ok()).is_none_or(|flags| flags & PF_EXITING != 0)
}

/// Reads fields 14, 15, 20 and 24 of proc(5): utime, stime, num_threads, rss.
fn parse(stat: &str, ticks_per_second: u64, page: u64) -> Option<Figures> {
    // The name in parentheses may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Figures {
        cpu_ms: (number(14)? + number(15)?) * 1000 / ticks_per_second,
        memory_bytes: number(24)? * page,
        threads: number(20)?,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        process::{Command, Stdio},
    };

    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 3 0 99 1000 256 1";
        let expected = Figures { cpu_ms: 2000, memory_bytes: 256 * 4096, threads: 3 };
        assert_eq!(parse(stat, 100, 4096), Some(expected));
        assert_eq!(parse("", 100, 4096), None);
        let own = figures(std::process::id());
        assert!(own.memory_bytes > 1 << 20 && own.threads >= 1, "{own:?}");
        assert_eq!(figures(u32::MAX), Figures::default());
    }

    #[test]
    fn tells_who_is_about_to_end() {
        let own = std::process::id();
        assert!(threads(own).any(|thread| thread == own) && !is_ending(own, own));
        let mut child = Command::new("true").spawn().expect("there is such a program");
        let id = WaitId::Pid(Pid::from_child(&child));
        waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).expect("it ends");
        assert!(is_ending(child.id(), child.id()), "a zombie");
        child.wait().expect("it has ended");
        assert!(is_ending(child.id(), child.id()), "it is gone");
    }

    #[test]
    fn a_name_that_is_no_text_hides_nothing() {
        let mut command = Command::new("sh");
        command.args(["-c", "printf '\\377' > /proc/$$/comm; echo named; read end"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let child = child.as_mut().expect("there is a shell");
        let mut said = [0; 6];
        let output = child.stdout.as_mut().expect("it is a pipe");
        output.read_exact(&mut said).expect("it says so");
        let name = fs::read(format!("/proc/{}/comm", child.id())).expect("it lives");
        assert_eq!(name, b"\xff\n");
        let found = figures(child.id());
        assert!(found.threads == 1 && found.memory_bytes > 0, "{found:?}");
        assert!(text_of(&format!("/proc/{}/status", child.id())).is_ok());
        drop(child.stdin.take());
        child.wait().expect("it ends");
    }
}

//! The resident memory of this process, and the processor time that it has taken.

use std::{fs, io, time::Duration};

/// The resident memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resident(usize);

impl Resident {
    /// Reads the resident memory.
    pub(crate) fn now() -> Self {
        Self(status("VmRSS:"))
    }

    /// Resets the peak, and reads the resident memory.
    pub(crate) fn reset() -> Self {
        // The kernel's word for the peak of resident memory.
        fs::write("/proc/self/clear_refs", "5").expect("a process may reset its own peak");
        Self::now()
    }

    /// Returns by how much the peak since the reset exceeds this.
    pub(crate) fn peak_above(self) -> usize {
        status("VmHWM:").saturating_sub(self.0)
    }

    /// Returns by how much this exceeds another.
    pub(crate) const fn above(self, other: Self) -> usize {
        self.0.saturating_sub(other.0)
    }
}

/// Returns the processor time that the other threads of this process have taken so far.
pub(crate) fn processor_time() -> Duration {
    let own = fs::read_link("/proc/thread-self").expect("the kernel tells");
    let tasks = fs::read_dir("/proc/self/task").expect("the kernel tells");
    let of = |task: io::Result<fs::DirEntry>| {
        let task = task.ok()?;
        // A thread may have ended meanwhile.
        let told = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanoseconds = told.split(' ').next()?.parse::<u64>().ok()?;
        (Some(task.file_name().as_os_str()) != own.file_name()).then_some(nanoseconds)
    };
    Duration::from_nanos(tasks.filter_map(of).sum())
}

fn status(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("it is told");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

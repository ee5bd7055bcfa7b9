//! The resident memory of this process.

use std::fs;

/// How much memory is resident, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resident(usize);

impl Resident {
    /// Reads how much it is now.
    pub(crate) fn now() -> Self {
        Self(status("VmRSS:"))
    }

    /// Forgets the peak so far, and reads how much it is now.
    pub(crate) fn reset() -> Self {
        // The kernel's word for the peak of resident memory.
        fs::write("/proc/self/clear_refs", "5").expect("a process may reset its own peak");
        Self::now()
    }

    /// Returns by how much the peak since the reset is above.
    pub(crate) fn peak_above(self) -> usize {
        status("VmHWM:").saturating_sub(self.0)
    }

    /// Returns by how much this is above another.
    pub(crate) const fn above(self, other: Self) -> usize {
        self.0.saturating_sub(other.0)
    }
}

fn status(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("it is told");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

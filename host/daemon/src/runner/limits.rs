//! Limits on the resources of a runner, and the means that enforce them.

use lodestar_config::Limits;
use rustix::{
    io::Errno,
    process::{Pid, Resource, Rlimit, prlimit},
};

use super::cgroup::{self, Group, GroupError, MemoryKill};

/// The limits that hold for one runner.
#[derive(Debug, Default)]
pub(super) struct InForce {
    pub(super) memory: MemoryLimit,
    pub(super) cpu: CpuLimit,
    pub(super) tasks: TasksLimit,
    pub(super) data: DataLimit,
    /// Control group of the runner, where there is one.
    pub(super) group: Option<Group>,
}

/// Limit on the memory of a runner.
#[derive(Debug, Default, Clone)]
pub(super) enum MemoryLimit {
    /// No limit: none was asked for.
    #[default]
    None,
    /// Limit in bytes by `memory.max` of a control group.
    Group(u64),
    /// Limit by `RLIMIT_DATA`, which counts heap, stacks and private mappings of each process, and
    /// by the daemon, which counts the memory of all its processes, shared memory included.
    Data { bytes: u64, no_group: GroupError },
    /// No limit: it could not be set.
    Refused(MemoryError),
}

/// Reason why the memory is not limited.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{no_group}; RLIMIT_DATA: {source}")]
pub(super) struct MemoryError {
    no_group: GroupError,
    source: Errno,
}

/// Limit on the processor time of a runner.
#[derive(Debug, Default, Clone)]
pub(super) enum CpuLimit {
    /// No limit: none was asked for.
    #[default]
    None,
    /// Limit by `cpu.max` of a control group, in percent of one processor.
    Group(u64),
    /// No control group: the time is measured, but not limited.
    Reported { percent: u64, no_group: GroupError },
}

/// Default limit on the number of threads and processes.
const TASKS: u64 = 512;

/// Growth that the data directory is allowed at least by default, in bytes, where there is room
/// beside [`KEPT_FREE`].
const LEAST_GROWTH: u64 = 1 << 30;

/// Bytes that stay free for the daemon and everything else, or half of the free bytes, if that is
/// less.
const KEPT_FREE: u64 = 256 << 20;

/// Limit on the number of threads and processes of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TasksLimit {
    /// Limit by `pids.max` of a control group.
    Group(u64),
    /// Limit by the daemon, which counts, and ends a process that has more.
    Counted(u64),
}

impl Default for TasksLimit {
    fn default() -> Self {
        Self::Counted(TASKS)
    }
}

/// Limit on the size of the data directory: the daemon measures it, and ends a process that keeps
/// more.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLimit {
    /// Limit in bytes from the module's section; no single file may be larger.
    Given(u64),
    /// Size when the daemon first measured, plus half of what was free or [`LEAST_GROWTH`] where
    /// there is room for that.
    #[default]
    HalfOfFree,
}

impl DataLimit {
    /// Returns the limit in bytes, for a directory of `had` bytes on a disk with `free` free bytes.
    pub(super) fn bytes(self, had: u64, free: u64) -> u64 {
        match self {
            Self::Given(bytes) => bytes,
            Self::HalfOfFree => {
                let least = LEAST_GROWTH.min(free.saturating_sub(KEPT_FREE));
                had.saturating_add(least.max(free / 2))
            }
        }
    }
}

/// Puts limits on a process that was just started. It gets a group of its own without limits too,
/// so that the kernel tells whether it killed the process for lack of memory.
pub(super) fn impose(name: &str, pid: Pid, asked: Limits) -> InForce {
    let group = cgroup::group(name, pid);
    let memory = asked.memory_bytes.map(|bytes| limit_memory(&group, pid, bytes));
    let cpu = asked.cpu_percent.map(|percent| limit_cpu(&group, percent));
    let (memory, cpu) = (memory.unwrap_or_default(), cpu.unwrap_or_default());
    let tasks = limit_tasks(&group, asked.tasks.unwrap_or(TASKS));
    let data = asked.data_bytes.map_or(DataLimit::HalfOfFree, |bytes| limit_files(pid, bytes));
    let in_force = InForce { memory, cpu, tasks, data, group: group.ok() };
    in_force.report(name);
    in_force
}

fn limit_memory(group: &Result<Group, GroupError>, pid: Pid, bytes: u64) -> MemoryLimit {
    let limited = group.as_ref().map_err(GroupError::clone);
    let Err(no_group) = limited.and_then(|group| group.limit_memory(bytes)) else {
        return MemoryLimit::Group(bytes);
    };
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    match prlimit(Some(pid), Resource::Data, limit) {
        Ok(_) => MemoryLimit::Data { bytes, no_group },
        Err(source) => MemoryLimit::Refused(MemoryError { no_group, source }),
    }
}

fn limit_tasks(group: &Result<Group, GroupError>, most: u64) -> TasksLimit {
    match group {
        Ok(group) if group.limit_tasks(most).is_ok() => TasksLimit::Group(most),
        _ => TasksLimit::Counted(most),
    }
}

/// Limits the size of single files to that of all together: the kernel enforces that at once.
fn limit_files(pid: Pid, bytes: u64) -> DataLimit {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // A lower limit that is in force already is enough.
    let _ = prlimit(Some(pid), Resource::Fsize, limit);
    DataLimit::Given(bytes)
}

fn limit_cpu(group: &Result<Group, GroupError>, percent: u64) -> CpuLimit {
    let limited = group.as_ref().map_err(GroupError::clone);
    match limited.and_then(|group| group.limit_cpu(percent)) {
        Ok(()) => CpuLimit::Group(percent),
        Err(no_group) => CpuLimit::Reported { percent, no_group },
    }
}

impl InForce {
    /// Returns why the kernel killed a process of the group for lack of memory, if it did.
    pub(super) fn memory_kill(&self) -> Option<MemoryKill> {
        self.group.as_ref().and_then(Group::memory_kill)
    }

    /// Returns whether the daemon counts the memory, because no control group does.
    pub(super) fn is_counted(&self) -> bool {
        matches!(self.memory, MemoryLimit::Data { .. })
    }

    /// Returns whether the daemon counts anything of the runner's processes.
    pub(super) fn needs_counting(&self) -> bool {
        self.is_counted() || matches!(self.tasks, TasksLimit::Counted(_))
    }

    /// Kills the processes of the group that still live.
    pub(super) fn end_group(&self) {
        if let Some(group) = &self.group {
            group.end();
        }
    }

    fn report(&self, name: &str) {
        match &self.memory {
            MemoryLimit::None | MemoryLimit::Group(_) => {}
            MemoryLimit::Data { no_group, .. } => {
                tracing::info!(module = name, %no_group, "limits.memory_bytes is RLIMIT_DATA");
            }
            MemoryLimit::Refused(error) => {
                tracing::warn!(module = name, %error, "limits.memory_bytes does not hold");
            }
        }
        if let CpuLimit::Reported { no_group, .. } = &self.cpu {
            tracing::warn!(module = name, %no_group, "limits.cpu_percent is measured only");
        }
    }

    /// Returns a description of the memory limit, `None` without one.
    pub(super) fn memory_in_words(&self) -> Option<String> {
        match &self.memory {
            MemoryLimit::None => None,
            MemoryLimit::Group(bytes) => Some(format!("{bytes} bytes by cgroup memory.max")),
            MemoryLimit::Data { bytes, .. } => {
                Some(format!("{bytes} bytes by RLIMIT_DATA and the daemon's count"))
            }
            MemoryLimit::Refused(reason) => Some(format!("not in force: {reason}")),
        }
    }

    /// Returns a description of the limit on processor time, `None` without one.
    pub(super) fn cpu_in_words(&self) -> Option<String> {
        match &self.cpu {
            CpuLimit::None => None,
            CpuLimit::Group(percent) => Some(format!("{percent}% by cgroup cpu.max")),
            CpuLimit::Reported { percent, .. } => {
                Some(format!("{percent}% asked for, measured only"))
            }
        }
    }

    /// Returns a description of the limit on threads and processes.
    pub(super) fn tasks_in_words(&self) -> String {
        match self.tasks {
            TasksLimit::Group(most) => format!("{most} by cgroup pids.max"),
            TasksLimit::Counted(most) => format!("{most} by the daemon's count"),
        }
    }

    /// Returns a description of the limit on the data directory.
    pub(super) fn data_in_words(&self) -> String {
        match self.data {
            DataLimit::Given(bytes) => format!("{bytes} bytes by the daemon's count"),
            DataLimit::HalfOfFree => {
                "growth by half of what was free, by the daemon's count; limits.data_bytes sets \
                 another"
                    .to_owned()
            }
        }
    }

    /// Returns each limit that was asked for and that no control group holds, with the reason and
    /// what to do.
    pub(super) fn without_group(&self) -> Vec<String> {
        let memory = match &self.memory {
            MemoryLimit::None | MemoryLimit::Group(_) => None,
            MemoryLimit::Data { no_group, .. } => Some(format!(
                "limits.memory_bytes holds by RLIMIT_DATA for heap and stacks of each process, and \
                 for all of them, with shared memory, by the daemon's count, which may be late: \
                 {no_group}"
            )),
            MemoryLimit::Refused(reason) => {
                Some(format!("limits.memory_bytes does not hold: {reason}"))
            }
        };
        let cpu = match &self.cpu {
            CpuLimit::None | CpuLimit::Group(_) => None,
            CpuLimit::Reported { no_group, .. } => {
                Some(format!("limits.cpu_percent is measured only: {no_group}"))
            }
        };
        memory.into_iter().chain(cpu).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_data_directory_may_fill_the_disk() {
        let gib = 1 << 30;
        let check = |free: u64, growth: u64| {
            assert_eq!(DataLimit::HalfOfFree.bytes(7, free), 7 + growth, "{free}");
            assert!(growth + KEPT_FREE.min(free / 2) <= free, "{free}");
        };
        check(10 * gib, 5 * gib);
        check(2 * gib, gib);
        check(gib + KEPT_FREE, gib);
        check(gib, gib - KEPT_FREE);
        check(KEPT_FREE, KEPT_FREE / 2);
        check(1000, 500);
        check(0, 0);
        assert_eq!(DataLimit::Given(5).bytes(7, 10 * gib), 5);
    }

    #[test]
    fn a_limit_without_a_group_says_why() {
        let no_group = || GroupError::NoController { controller: "memory" };
        let because = no_group().to_string();
        let by_data = format!(
            "limits.memory_bytes holds by RLIMIT_DATA for heap and stacks of each process, and for \
             all of them, with shared memory, by the daemon's count, which may be late: {because}"
        );
        let measured = format!("limits.cpu_percent is measured only: {because}");
        let check = |memory, cpu, expected: &[&str]| {
            let said = InForce { memory, cpu, ..InForce::default() }.without_group();
            assert_eq!(said, expected);
        };
        check(MemoryLimit::None, CpuLimit::None, &[]);
        check(MemoryLimit::Group(1), CpuLimit::Group(1), &[]);
        check(
            MemoryLimit::Data { bytes: 1, no_group: no_group() },
            CpuLimit::Reported { percent: 1, no_group: no_group() },
            &[&by_data, &measured],
        );
        let refused = MemoryError { no_group: no_group(), source: Errno::PERM };
        let expected = format!("limits.memory_bytes does not hold: {refused}");
        assert!(expected.contains(&because) && expected.contains("RLIMIT_DATA: "), "{expected}");
        check(MemoryLimit::Refused(refused), CpuLimit::None, &[&expected]);
    }
}

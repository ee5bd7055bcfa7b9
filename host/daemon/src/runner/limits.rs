//! What a runner may use, and what of it holds.

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
    /// Where the kernel counts for it.
    pub(super) group: Option<Group>,
}

/// How its memory is limited.
#[derive(Debug, Default, Clone)]
pub(super) enum MemoryLimit {
    /// None was asked for.
    #[default]
    None,
    /// By `memory.max` of a control group.
    Group(u64),
    /// By `RLIMIT_DATA`, which counts heap, stacks and private mappings of each process, and by the
    /// daemon, which counts what all of them have, shared memory included.
    Data { bytes: u64, no_group: GroupError },
    /// It could not be set.
    Refused(MemoryError),
}

/// Why its memory is not limited.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{no_group}; RLIMIT_DATA: {source}")]
pub(super) struct MemoryError {
    no_group: GroupError,
    source: Errno,
}

/// How its time on the processors is limited.
#[derive(Debug, Default, Clone)]
pub(super) enum CpuLimit {
    /// None was asked for.
    #[default]
    None,
    /// By `cpu.max` of a control group, in percent of one processor.
    Group(u64),
    /// There is no control group: it is measured and nothing more.
    Reported { percent: u64, no_group: GroupError },
}

/// How many threads and processes it may have where its section does not say.
const TASKS: u64 = 512;

/// By how much its data directory may grow at least where its section does not say, and there is
/// room beside [`KEPT_FREE`].
const LEAST_GROWTH: u64 = 1 << 30;

/// What stays free for the daemon and everything else, or half of what was, if that is less.
const KEPT_FREE: u64 = 256 << 20;

/// How the number of its threads and processes is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TasksLimit {
    /// By `pids.max` of a control group.
    Group(u64),
    /// The daemon counts, and ends a process that has more.
    Counted(u64),
}

impl Default for TasksLimit {
    fn default() -> Self {
        Self::Counted(TASKS)
    }
}

/// How the size of its data directory is limited: the daemon looks, and ends a process that keeps
/// more.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLimit {
    /// To what its section says; no single file may be larger.
    Given(u64),
    /// To what it was when the daemon first looked, and half of what was free.
    #[default]
    HalfOfFree,
}

impl DataLimit {
    /// In bytes, for a directory that had so many when so many were free.
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

/// Puts limits on a process that was just started. It gets a group of its own without them too, so
/// that the kernel says whether it ended it for want of memory.
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

/// No file may be larger than all together may be: the kernel sees to that at once.
fn limit_files(pid: Pid, bytes: u64) -> DataLimit {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // A lower limit that is in force already will do.
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
    /// Whether the kernel has ended a process of the group for want of memory.
    pub(super) fn memory_kill(&self) -> Option<MemoryKill> {
        self.group.as_ref().and_then(Group::memory_kill)
    }

    /// Whether the daemon counts its memory, because no control group does.
    pub(super) fn is_counted(&self) -> bool {
        matches!(self.memory, MemoryLimit::Data { .. })
    }

    /// Whether the daemon counts anything of its processes.
    pub(super) fn needs_counting(&self) -> bool {
        self.is_counted() || matches!(self.tasks, TasksLimit::Counted(_))
    }

    /// Ends whatever of the group still lives.
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

    /// The limit on memory in words, `None` without one.
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

    /// The limit on the processors in words, `None` without one.
    pub(super) fn cpu_in_words(&self) -> Option<String> {
        match &self.cpu {
            CpuLimit::None => None,
            CpuLimit::Group(percent) => Some(format!("{percent}% by cgroup cpu.max")),
            CpuLimit::Reported { percent, .. } => {
                Some(format!("{percent}% asked for, measured only"))
            }
        }
    }

    /// The limit on its threads and processes in words.
    pub(super) fn tasks_in_words(&self) -> String {
        match self.tasks {
            TasksLimit::Group(most) => format!("{most} by cgroup pids.max"),
            TasksLimit::Counted(most) => format!("{most} by the daemon's count"),
        }
    }

    /// The limit on its data directory in words.
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

    /// Each limit that was asked for and that no control group holds, with the reason and what to
    /// do.
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

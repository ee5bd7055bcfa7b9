//! What a runner may use, and what of it holds.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::cgroup::{self, Group};
use crate::config::Limits;

/// The limits that hold for one runner.
#[derive(Debug, Default)]
pub(super) struct InForce {
    pub(super) memory: MemoryLimit,
    pub(super) cpu: CpuLimit,
    /// Where the kernel counts for it.
    pub(super) group: Option<Group>,
}

/// How its memory is limited.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum MemoryLimit {
    /// None was asked for.
    #[default]
    None,
    /// By `memory.max` of a control group.
    Group(u64),
    /// By `RLIMIT_DATA`: heap, stacks and private mappings; not shared memory or the page cache.
    Data(u64),
    /// It could not be set.
    Refused(String),
}

/// How its time on the processors is limited.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum CpuLimit {
    /// None was asked for.
    #[default]
    None,
    /// By `cpu.max` of a control group, in percent of one processor.
    Group(u64),
    /// There is no control group: it is measured and nothing more.
    Reported(u64),
}

/// Puts limits on a process that was just started.
pub(super) fn impose(name: &str, pid: Pid, asked: Limits) -> InForce {
    let Limits { memory_bytes, cpu_percent, .. } = asked;
    let mut in_force = InForce::default();
    if memory_bytes.is_none() && cpu_percent.is_none() {
        return in_force;
    }
    match cgroup::group(name, pid) {
        Ok(group) => in_force.group = group,
        Err(error) => {
            tracing::warn!(module = name, %error, "no control group can be made for the module");
        }
    }
    if let Some(bytes) = memory_bytes {
        in_force.memory = limit_memory(in_force.group.as_ref(), pid, bytes);
    }
    if let Some(percent) = cpu_percent {
        let limited = in_force.group.as_ref().is_some_and(|group| group.limit_cpu(percent));
        in_force.cpu = if limited { CpuLimit::Group(percent) } else { CpuLimit::Reported(percent) };
    }
    in_force.report(name);
    in_force
}

fn limit_memory(group: Option<&Group>, pid: Pid, bytes: u64) -> MemoryLimit {
    if group.is_some_and(|group| group.limit_memory(bytes)) {
        return MemoryLimit::Group(bytes);
    }
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    match prlimit(Some(pid), Resource::Data, limit) {
        Ok(_) => MemoryLimit::Data(bytes),
        Err(error) => MemoryLimit::Refused(error.to_string()),
    }
}

impl InForce {
    /// Whether the kernel has ended a process of the group for want of memory.
    pub(super) fn memory_killed(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.oom_kills() > 0)
    }

    fn report(&self, name: &str) {
        if let MemoryLimit::Refused(error) = &self.memory {
            tracing::warn!(module = name, error, "limits.memory_bytes cannot be made true");
        }
        if let CpuLimit::Reported(percent) = self.cpu {
            tracing::warn!(
                module = name,
                percent,
                "limits.cpu_percent is measured only: the daemon has no control group of its own \
                 (Delegate= in its unit)"
            );
        }
    }

    /// The limit on memory in words, `None` without one.
    pub(super) fn memory_in_words(&self) -> Option<String> {
        match &self.memory {
            MemoryLimit::None => None,
            MemoryLimit::Group(bytes) => Some(format!("{bytes} bytes by cgroup memory.max")),
            MemoryLimit::Data(bytes) => Some(format!("{bytes} bytes by RLIMIT_DATA")),
            MemoryLimit::Refused(error) => Some(format!("not in force: {error}")),
        }
    }

    /// The limit on the processors in words, `None` without one.
    pub(super) fn cpu_in_words(&self) -> Option<String> {
        match self.cpu {
            CpuLimit::None => None,
            CpuLimit::Group(percent) => Some(format!("{percent}% by cgroup cpu.max")),
            CpuLimit::Reported(percent) => {
                Some(format!("{percent}% asked for, measured only: no delegated cgroup"))
            }
        }
    }
}

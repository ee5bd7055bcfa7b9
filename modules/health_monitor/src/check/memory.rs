//! Memory, swap and what the kernel killed for lack of memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Check, Progress, kernel_file::KernelFile};
use crate::{
    metric::{MEMORY_AVAILABLE, MEMORY_UTILIZATION, OOM_KILLS, SWAP_UTILIZATION},
    reading::{Component, Found, Report, Series},
};

pub(super) struct Memory {
    meminfo: KernelFile,
    vmstat: KernelFile,
    parts: Parts,
    /// Number of processes that were killed, and when that was read.
    killed: Option<(Instant, Option<f64>)>,
}

/// Time for which the number of killed processes is taken as it was read: the kernel adds up some
/// two hundred counters for it.
const KILLED_FOR: Duration = Duration::from_secs(5);

/// The components, with what their reports consist of.
struct Parts {
    memory: Component,
    swap: Component,
    utilization: Arc<Series>,
    available: Arc<Series>,
    swapped: Arc<Series>,
    killed: Arc<Series>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            meminfo: KernelFile::new("/proc/meminfo"),
            vmstat: KernelFile::new("/proc/vmstat"),
            parts: Parts::default(),
            killed: None,
        }
    }
}

impl Default for Parts {
    fn default() -> Self {
        let (memory, swap): (Component, Component) = ("memory".into(), "swap".into());
        Self {
            utilization: Series::new(&MEMORY_UTILIZATION, &memory, []),
            available: Series::new(&MEMORY_AVAILABLE, &memory, []),
            killed: Series::new(&OOM_KILLS, &memory, []),
            swapped: Series::new(&SWAP_UTILIZATION, &swap, []),
            memory,
            swap,
        }
    }
}

impl Check for Memory {
    fn run(&mut self, _: &Progress) -> Report {
        let mut report = Report::default();
        let parts = &self.parts;
        match self.meminfo.text() {
            Ok(text) => parts.usage(text, &mut report),
            Err(error) => {
                let message = format!("/proc/meminfo cannot be read: {error}");
                report.found.push(Found::unknown(&parts.memory, message));
            }
        }
        if self.killed.is_none_or(|(read, _)| read.elapsed() >= KILLED_FOR) {
            let killed = self.vmstat.text().ok().and_then(|text| field(text, "oom_kill"));
            self.killed = Some((Instant::now(), killed));
        }
        if let Some((_, Some(killed))) = self.killed {
            report.read(&parts.killed, killed);
        }
        report
    }
}

impl Parts {
    fn usage(&self, meminfo: &str, report: &mut Report) {
        let bytes = |name| field(meminfo, name).map(|kib| kib * 1_024.0);
        match (bytes("MemTotal:"), bytes("MemAvailable:")) {
            (Some(total), Some(available)) if total > 0.0 => {
                report.found.push(Found::present(&self.memory, &self.utilization));
                report.read(&self.utilization, (1.0 - available / total).clamp(0.0, 1.0));
                report.read(&self.available, available);
            }
            _ => {
                let message = "/proc/meminfo does not say how much memory is available";
                report.found.push(Found::unknown(&self.memory, message));
            }
        }
        match (bytes("SwapTotal:"), bytes("SwapFree:")) {
            (Some(total), Some(free)) if total > 0.0 => {
                report.found.push(Found::present(&self.swap, &self.swapped));
                report.read(&self.swapped, (1.0 - free / total).clamp(0.0, 1.0));
            }
            _ => report.found.push(Found::absent(&self.swap, "this machine has no swap")),
        }
    }
}

/// Returns the number that follows a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '\t'])))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Presence;

    #[test]
    fn this_machine_has_memory() {
        let report = Memory::default().run(&Progress::default());
        assert_eq!(report.found[0].presence, Presence::Present);
        assert!(report.readings[0].value > 0.0 && report.readings[0].value < 1.0);
    }

    #[test]
    fn what_is_not_said_is_not_known() {
        let memory = Parts::default();
        let mut report = Report::default();
        memory.usage("MemTotal: 1000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n", &mut report);
        assert_eq!(report.found[0].presence, Presence::Unknown);
        assert_eq!(report.found[1].presence, Presence::Absent);
        assert!(report.readings.is_empty());
        let text = "MemTotal: 1000 kB\nMemAvailable: 250 kB\nSwapTotal: 100 kB\nSwapFree: 90 kB\n";
        let mut report = Report::default();
        memory.usage(text, &mut report);
        let values: Vec<f64> = report.readings.iter().map(|reading| reading.value).collect();
        assert_eq!(values.len(), 3);
        assert!((values[0] - 0.75).abs() < 1e-9 && (values[2] - 0.1).abs() < 1e-9);
    }
}

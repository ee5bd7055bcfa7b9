//! What a process uses, as the kernel counts it.

use std::fs;

/// What a process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Time on the processors since it started, in milliseconds, ended threads included.
    pub cpu_ms: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Threads that live.
    pub threads: u64,
}

/// What a process uses now; nothing when it has ended.
#[must_use]
pub fn figures(pid: u32) -> Figures {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let page = rustix::param::page_size() as u64;
    parse(&stat, ticks, page).unwrap_or_default()
}

/// Fields 14, 15, 20 and 24 of proc(5): utime, stime, num_threads, rss.
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
}

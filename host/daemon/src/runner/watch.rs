//! Limits that the kernel does not enforce for a module: the daemon measures, while there are
//! processes of modules, and kills one that uses too much. A module's processes are those of its
//! process group, which none of them can leave.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use lodestar_platform::files;
use nix::unistd::{Pid, getpgid};

use super::{
    limits::{DataLimit, MemoryLimit, TasksLimit},
    measure::{size, size_of_unlinked},
    service_server::Runner,
};
use crate::process_stats::{figures, text_of, threads};

/// Period of the checks.
const EVERY: Duration = Duration::from_millis(250);

/// Longest time between two measurements of a directory, whatever happens to the free space.
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// Loss of free space that is a reason to measure at once, in bytes.
const GROWTH: u64 = 4 << 20;

/// Shortest pause after a measurement, as a multiple of the time that it took.
const PAUSE: u32 = 20;

/// A process that is watched.
#[derive(Debug, Clone)]
struct Watched {
    runner: Weak<Runner>,
    data_dir: PathBuf,
}

static WATCHED: Mutex<Vec<Watched>> = Mutex::new(Vec::new());
static MORE: Condvar = Condvar::new();

/// Watches one more process until it has ended.
pub(super) fn look_after(runner: &Arc<Runner>, data_dir: &Path) {
    static THREADS: Once = Once::new();
    // Without links, as the kernel reports the path of an open file.
    let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    let one = Watched { runner: Arc::downgrade(runner), data_dir };
    watched().push(one);
    MORE.notify_all();
    THREADS.call_once(|| {
        begin("watch:tasks", look_at_tasks);
        let mut measured = HashMap::new();
        begin("watch:disk", move |all| look_at_directories(all, &mut measured));
    });
}

fn watched() -> MutexGuard<'static, Vec<Watched>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin(name: &str, mut look: impl FnMut(&[Watched]) + Send + 'static) {
    let work = move || {
        loop {
            look(&living());
            thread::sleep(EVERY);
        }
    };
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(work) {
        tracing::error!(%error, "limits of modules are not looked after");
    }
}

/// Returns the watched processes that live; waits while there is none.
fn living() -> Vec<Watched> {
    let mut all = watched();
    loop {
        all.retain(|one| one.runner.upgrade().is_some_and(|it| it.process.exit().is_none()));
        if !all.is_empty() {
            return all.clone();
        }
        all = MORE.wait(all).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Returns every process of the machine, by its process group.
pub(super) fn groups() -> HashMap<u32, Vec<u32>> {
    let mut groups: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(process) = number.map(Pid::from_raw) else { continue };
        // One that has ended meanwhile is in none; the kernel's own are in one without a number.
        if let Ok(group) = getpgid(Some(process)) {
            groups.entry(unsigned(group)).or_default().push(unsigned(process));
        }
    }
    groups
}

fn unsigned(process: Pid) -> u32 {
    process.as_raw().unsigned_abs()
}

fn look_at_tasks(all: &[Watched]) {
    let runners = all.iter().filter_map(|one| one.runner.upgrade());
    let counted: Vec<_> = runners.filter(|it| it.process.in_force().needs_counting()).collect();
    // Every process of the machine is asked for its group.
    let groups = if counted.is_empty() { HashMap::new() } else { groups() };
    for runner in counted {
        let in_force = runner.process.in_force();
        let members = groups.get(&runner.process.pid()).map_or(&[][..], Vec::as_slice);
        if let TasksLimit::Counted(most) = in_force.tasks {
            let tasks: u64 = members.iter().map(|pid| figures(*pid).threads.max(1)).sum();
            if tasks > most {
                let had = format!("it had {tasks} threads and processes");
                runner.process.kill_with_reason(format!("{had}; limits.tasks is {most}"));
            }
        }
        if let MemoryLimit::Data { bytes, .. } = in_force.memory
            && memory(members) > bytes
        {
            let had = memory_without_sharing(members);
            if had > bytes {
                let had = format!("its processes had {had} bytes of memory, shared included");
                runner.process.kill_with_reason(format!("{had}; limits.memory_bytes is {bytes}"));
            }
        }
    }
}

/// Returns the memory that is not backed by files, in bytes; shared memory counts for each process.
fn memory(processes: &[u32]) -> u64 {
    kilobytes(processes, "status", &["RssAnon:", "RssShmem:", "VmSwap:"])
}

/// Returns the same memory with shared pages counted once in all: the kernel visits every page for
/// that. A process whose figures cannot be read counts as in [`memory`].
fn memory_without_sharing(processes: &[u32]) -> u64 {
    let heads = ["Pss_Anon:", "Pss_Shmem:", "SwapPss:"];
    let of_one = |pid: &u32| match kilobytes(&[*pid], "smaps_rollup", &heads) {
        0 => memory(&[*pid]),
        sum => sum,
    };
    processes.iter().map(of_one).sum()
}

/// Returns the sum of the values that a `/proc` file of each process has after these heads, in
/// bytes. Where the first thread has ended only the files of the other threads have them.
fn kilobytes(processes: &[u32], file: &str, heads: &[&str]) -> u64 {
    let sum_in = |place: String| text_of(&place).map_or(0, |text| sum_of(&text, heads));
    let of_one = |pid: u32| match sum_in(format!("/proc/{pid}/{file}")) {
        0 => {
            let sums = threads(pid).map(|it| sum_in(format!("/proc/{pid}/task/{it}/{file}")));
            sums.max().unwrap_or_default()
        }
        sum => sum,
    };
    processes.iter().copied().map(of_one).sum()
}

fn sum_of(text: &str, heads: &[&str]) -> u64 {
    let figure = |line: &str| {
        let rest = heads.iter().find_map(|head| line.strip_prefix(head))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    text.lines().filter_map(figure).sum::<u64>() << 10
}

/// Last measurement of a process's directory.
#[derive(Debug, Clone, Copy)]
struct Measured {
    /// Limit in bytes; one that depends on the disk is what it was when the process began.
    most: u64,
    at: Instant,
    took: Duration,
    free: u64,
}

/// Measures the directories that are due, by the number of the process: with each start of a module
/// its limit is worked out anew.
fn look_at_directories(all: &[Watched], measured: &mut HashMap<u32, Measured>) {
    let mut still = HashMap::new();
    for Watched { runner, data_dir } in all {
        // Not held while it takes time: the module may be stopped meanwhile.
        let Some((pid, limit)) =
            runner.upgrade().map(|it| (it.process.pid(), it.process.in_force().data))
        else {
            continue;
        };
        let before = measured.remove(&pid);
        let Ok(free) = files::free_bytes(data_dir) else { continue };
        if let Some(before) = before.as_ref().filter(|before| !is_due(before, free)) {
            still.insert(pid, *before);
            continue;
        }
        let begin = Instant::now();
        let found =
            size(data_dir).and_then(|size| Ok(size + size_of_unlinked(data_dir, &members(pid))?));
        let most = before.map(|before| before.most);
        let most = most.unwrap_or_else(|| limit.bytes(*found.as_ref().unwrap_or(&0), free));
        let (at, took) = (Instant::now(), begin.elapsed());
        still.insert(pid, Measured { most, at, took, free });
        let reason = match found {
            Ok(size) if size <= most => continue,
            Ok(size) => too_much(limit, size, most),
            Err(unseen) => format!("{unseen}, so that limits.data_bytes cannot hold"),
        };
        if let Some(runner) = runner.upgrade() {
            runner.process.kill_with_reason(reason);
        }
    }
    *measured = still;
}

fn members(group: u32) -> Vec<u32> {
    groups().remove(&group).unwrap_or_default()
}

fn too_much(limit: DataLimit, size: u64, most: u64) -> String {
    let kept = format!("it kept {size} bytes in its data directory");
    match limit {
        DataLimit::Given(_) => format!("{kept}; limits.data_bytes is {most}"),
        DataLimit::HalfOfFree => {
            format!("{kept}, and {most} are the most without a key; limits.data_bytes sets another")
        }
    }
}

fn is_due(before: &Measured, free: u64) -> bool {
    let since = before.at.elapsed();
    let has_shrunk = before.free.saturating_sub(free) >= GROWTH;
    since >= AT_LEAST_EVERY || (has_shrunk && since >= before.took * PAUSE)
}

#[cfg(test)]
mod tests {
    use lodestar_config::Limits;

    use super::{
        super::{
            process::{self, Started},
            replies::Replies,
            send_queue::SendQueue,
        },
        *,
    };

    #[test]
    fn counts_what_the_kernel_says() {
        let text = "Name:\tx\nVmRSS:\t  900 kB\nRssAnon:\t   12 kB\nRssShmem:\t    4 kB\n";
        assert_eq!(sum_of(text, &["RssAnon:", "RssShmem:"]), 16 << 10);
        let own = std::process::id();
        assert!(memory(&[own]) > 1 << 16 && memory_without_sharing(&[own]) > 1 << 16);
        assert_eq!(memory(&[u32::MAX]) + memory_without_sharing(&[u32::MAX]), 0);
        let group = unsigned(getpgid(None).expect("it lives"));
        assert!(groups()[&group].contains(&own));
    }

    /// Creates a runner of which only the process exists.
    fn runner(data_dir: &Path) -> Arc<Runner> {
        let asked = Limits::default();
        let started = process::start(Path::new("/bin/sh"), "x", data_dir, asked);
        let Started { process, services, .. } = started.expect("there is a shell");
        let send_queue = Arc::new(SendQueue::new(services).expect("it is a socket"));
        let replies = Replies::new(Arc::new(|_, _| ()));
        let (calls, met, bound, series) = Default::default();
        let name = "x".to_owned();
        Arc::new(Runner { name, process, replies, send_queue, calls, met, bound, series })
    }

    #[test]
    fn what_a_directory_may_have_is_found_anew_for_each_process() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data_dir = directory.path().canonicalize().expect("it is there");
        let runners = [runner(&data_dir), runner(&data_dir)];
        let [first, second] = runners
            .each_ref()
            .map(|runner| [Watched { runner: Arc::downgrade(runner), data_dir: data_dir.clone() }]);
        let [one, two] = runners.each_ref().map(|runner| runner.process.pid());
        let mut measured = HashMap::new();
        look_at_directories(&first, &mut measured);
        // Whoever came before had as good as nothing left.
        measured.get_mut(&one).expect("it was measured").most = 7;
        look_at_directories(&first, &mut measured);
        assert_eq!(measured[&one].most, 7, "it stays");
        look_at_directories(&second, &mut measured);
        assert!(measured.keys().eq([&two]) && measured[&two].most > 7, "{measured:?}");
    }

    #[test]
    fn a_limit_that_nobody_set_is_told_with_its_key() {
        let said = too_much(DataLimit::HalfOfFree, 9, 7);
        assert!(said.ends_with("limits.data_bytes sets another"), "{said}");
        let said = too_much(DataLimit::Given(7), 9, 7);
        assert!(said.ends_with("limits.data_bytes is 7"), "{said}");
    }
}

//! Limits that the kernel does not hold for a module: the daemon looks, while there are processes
//! of modules, and ends one that has too much. A module's processes are those of its process group,
//! which none of them can leave.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use nix::unistd::{Pid, getpgid};

use super::{
    desk::Runner,
    figures::figures,
    limits::{DataLimit, MemoryLimit, TasksLimit},
};

/// How often is looked.
const EVERY: Duration = Duration::from_millis(250);

/// How often directories are measured, whatever happens to the free space.
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// How much less free space is a reason to measure at once.
const GROWTH: u64 = 4 << 20;

/// How many times as long as a measurement took there is none after it.
const PAUSE: u32 = 20;

/// What even an empty file costs.
const SMALLEST: u64 = 512;

/// A process that is looked after.
#[derive(Debug, Clone)]
struct Watched {
    runner: Weak<Runner>,
    data_dir: PathBuf,
}

static WATCHED: Mutex<Vec<Watched>> = Mutex::new(Vec::new());
static MORE: Condvar = Condvar::new();

/// Looks after one more process until it has ended.
pub(super) fn look_after(runner: &Arc<Runner>, data_dir: &Path) {
    static THREADS: Once = Once::new();
    // Without links, as the kernel says where an open file is.
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

/// Those that live; waits while there is none.
fn living() -> Vec<Watched> {
    let mut all = watched();
    loop {
        all.retain(|one| one.runner.upgrade().is_some_and(|it| it.process.death().is_none()));
        if !all.is_empty() {
            return all.clone();
        }
        all = MORE.wait(all).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Every process, by its group.
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
    let groups = groups();
    for runner in all.iter().filter_map(|one| one.runner.upgrade()) {
        let in_force = runner.process.in_force();
        let members = groups.get(&runner.process.pid()).map_or(&[][..], Vec::as_slice);
        if let TasksLimit::Counted(most) = in_force.tasks {
            let tasks: u64 = members.iter().map(|pid| figures(*pid).threads.max(1)).sum();
            if tasks > most {
                let had = format!("it had {tasks} threads and processes");
                runner.process.condemn(format!("{had}; limits.tasks is {most}"));
            }
        }
        if let MemoryLimit::Data { bytes, .. } = in_force.memory
            && memory(members) > bytes
        {
            let had = memory_without_sharing(members);
            if had > bytes {
                let had = format!("its processes had {had} bytes of memory, shared included");
                runner.process.condemn(format!("{had}; limits.memory_bytes is {bytes}"));
            }
        }
    }
}

/// Memory that is not backed by files; what processes share counts for each of them.
fn memory(processes: &[u32]) -> u64 {
    kilobytes(processes, "status", &["RssAnon:", "RssShmem:", "VmSwap:"])
}

/// The same, where what is shared counts once in all: the kernel looks at every page for that.
fn memory_without_sharing(processes: &[u32]) -> u64 {
    kilobytes(processes, "smaps_rollup", &["Pss_Anon:", "Pss_Shmem:", "SwapPss:"])
}

/// The sum of what the kernel says of processes after these heads, in bytes. A process that may not
/// be looked into counts as `status` says.
fn kilobytes(processes: &[u32], file: &str, heads: &[&str]) -> u64 {
    let of_one = |pid: &u32| match fs::read_to_string(format!("/proc/{pid}/{file}")) {
        Ok(text) => sum_of(&text, heads),
        Err(_) if file == "status" => 0,
        Err(_) => memory(&[*pid]),
    };
    processes.iter().map(of_one).sum()
}

fn sum_of(text: &str, heads: &[&str]) -> u64 {
    let figure = |line: &str| {
        let rest = heads.iter().find_map(|head| line.strip_prefix(head))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    text.lines().filter_map(figure).sum::<u64>() << 10
}

/// When a directory was measured, and what was found.
#[derive(Debug)]
struct Measured {
    limit: DataLimit,
    /// The same in bytes; one that depends on the disk stays what it was.
    most: u64,
    at: Instant,
    took: Duration,
    free: u64,
}

fn look_at_directories(all: &[Watched], measured: &mut HashMap<PathBuf, Measured>) {
    for Watched { runner, data_dir } in all {
        let Some(free) = free(data_dir) else { continue };
        let before = measured.get(data_dir);
        if before.is_some_and(|before| !is_due(before, free)) {
            continue;
        }
        // Not held while it takes time: the module may be stopped meanwhile.
        let Some((pid, limit)) =
            runner.upgrade().map(|it| (it.process.pid(), it.process.in_force().data))
        else {
            continue;
        };
        let begin = Instant::now();
        let size = size(data_dir) + size_of_unlinked(data_dir, pid);
        let most = match before {
            Some(before) if before.limit == limit => before.most,
            _ => limit.bytes(size, free),
        };
        let (at, took) = (Instant::now(), begin.elapsed());
        measured.insert(data_dir.clone(), Measured { limit, most, at, took, free });
        if size > most
            && let Some(runner) = runner.upgrade()
        {
            runner.process.condemn(format!(
                "it kept {size} bytes in its data directory; limits.data_bytes is {most}"
            ));
        }
    }
}

fn is_due(before: &Measured, free: u64) -> bool {
    let since = before.at.elapsed();
    let has_shrunk = before.free.saturating_sub(free) >= GROWTH;
    since >= AT_LEAST_EVERY || (has_shrunk && since >= before.took * PAUSE)
}

fn free(directory: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(directory).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// The bytes that a directory takes on its disk.
fn size(directory: &Path) -> u64 {
    let mut linked_twice = HashSet::new();
    let mut left = vec![directory.to_owned()];
    let mut size = 0;
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            // Not of what a link leads to.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                left.push(entry.path());
            }
            if metadata.nlink() < 2 || metadata.is_dir() || linked_twice.insert(metadata.ino()) {
                size += taken(&metadata);
            }
        }
    }
    size
}

fn taken(metadata: &fs::Metadata) -> u64 {
    (metadata.blocks() * 512).max(SMALLEST)
}

/// The bytes of files that were removed from a directory while processes of this group have them
/// open.
fn size_of_unlinked(directory: &Path, group: u32) -> u64 {
    let mut seen = HashSet::new();
    let mut size = 0;
    for process in groups().remove(&group).unwrap_or_default() {
        for entry in fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten() {
            let is_of_it = fs::read_link(entry.path()).is_ok_and(|it| it.starts_with(directory));
            if is_of_it
                && let Ok(metadata) = fs::metadata(entry.path())
                && metadata.nlink() == 0
                && seen.insert(metadata.ino())
            {
                size += taken(&metadata);
            }
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn measures_what_files_take() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        fs::create_dir(path.join("deep")).expect("it is new");
        let empty = size(path);
        fs::write(path.join("deep/file"), vec![7; 1 << 20]).expect("it is writable");
        let full = size(path);
        assert!((1 << 20..1 << 21).contains(&(full - empty)), "{full} - {empty}");
        fs::hard_link(path.join("deep/file"), path.join("again")).expect("it is writable");
        std::os::unix::fs::symlink("/usr", path.join("link")).expect("it is writable");
        assert!(size(path) < full + (1 << 16), "once, and not where a link leads");
        let open = fs::File::open(path.join("again")).expect("it is there");
        fs::remove_file(path.join("again")).expect("it is ours");
        fs::remove_file(path.join("deep/file")).expect("it is ours");
        assert!(size(path) < empty + (1 << 16));
        let group = unsigned(getpgid(None).expect("it lives"));
        let real = path.canonicalize().expect("it is there");
        assert!(size_of_unlinked(&real, group) >= 1 << 20, "it is still there");
        drop(open);
        assert_eq!(size_of_unlinked(&real, group), 0);
    }
}

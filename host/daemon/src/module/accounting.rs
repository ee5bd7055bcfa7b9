//! Resources that a module uses: its processor time, memory and threads.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Mutex, MutexGuard, TryLockError, atomic::Ordering},
    time::{Duration, Instant},
};

use lodestar_library as library;
use nix::time::ClockId;
use rustix::fs::{Mode, OFlags, open};

use super::{Entry, state::lock};
use crate::process_stats::{figures, threads};

/// The call that a module's thread is in. Watched from outside, so that a call that never returns
/// is seen.
#[derive(Debug, Default)]
pub struct CallClock {
    current: Mutex<Option<(Cow<'static, str>, Instant)>>,
}

impl CallClock {
    /// Runs a call under the clock.
    pub fn time<T>(&self, what: impl Into<Cow<'static, str>>, call: impl FnOnce() -> T) -> T {
        self.timed(what, call).0
    }

    /// Runs a call under the clock, and returns how long it took as well.
    pub(super) fn timed<T>(
        &self,
        what: impl Into<Cow<'static, str>>,
        call: impl FnOnce() -> T,
    ) -> (T, Duration) {
        let begin = Instant::now();
        *lock(&self.current) = Some((what.into(), begin));
        let result = call();
        *lock(&self.current) = None;
        (result, begin.elapsed())
    }

    /// Returns the call that runs now, and for how long it has run.
    #[must_use]
    pub fn running(&self) -> Option<(String, Duration)> {
        lock(&self.current)
            .as_ref()
            .map(|(what, since)| (what.clone().into_owned(), since.elapsed()))
    }
}

/// Resources that a module uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Milliseconds of processor time since the daemon started: of its threads in the daemon and of
    /// its processes, including those that have ended. What a thread used since it was last
    /// measured, two seconds at most, is missing where it ends by itself.
    pub cpu_ms: u64,
    /// Bytes that its allocator has handed out, or that its processes have resident.
    pub memory_bytes: u64,
    /// Number of its living threads, in its processes or in the daemon.
    pub threads: u64,
}

impl Entry {
    /// Returns what the module uses now, and records it, so that it stays counted after threads and
    /// processes end.
    pub fn used(&self, tasks: &Tasks) -> Used {
        let mut living = tasks.of(&self.name);
        let threads = living.len() as u64;
        let processes = self.processes().into_iter();
        let processes = processes.map(|process| (process.pid, figures(process.pid)));
        // One that has ended uses nothing, and is counted already.
        let processes: Vec<_> = processes.filter(|(_, figures)| figures.threads > 0).collect();
        living.extend(processes.iter().map(|(pid, figures)| (*pid, figures.cpu_ms * 1_000_000)));
        let cpu_ms = self.cpu.update(&living) / 1_000_000;
        if processes.is_empty() {
            let memory_bytes = self.heap_bytes.load(Ordering::Relaxed);
            return Used { cpu_ms, memory_bytes, threads };
        }
        let living = || processes.iter().map(|(_, figures)| figures);
        Used {
            cpu_ms,
            memory_bytes: living().map(|figures| figures.memory_bytes).sum(),
            threads: living().map(|figures| figures.threads).sum(),
        }
    }

    /// Reaps the process `pid` of the module with `reap`, and keeps what the process used.
    pub(crate) fn reap<T>(&self, pid: u32, reap: impl FnOnce() -> T) -> T {
        // Between the last measurement of the process and its end nobody else may measure.
        let _looking = lock(&LOOKING);
        let last = figures(pid).cpu_ms * 1_000_000;
        let result = reap();
        self.cpu.finish(pid, last);
        result
    }
}

/// Processor time of living threads and processes, as last measured, and of those that ended.
#[derive(Debug, Default)]
pub struct CpuTime(Mutex<Times>);

#[derive(Debug, Default)]
struct Times {
    ended_ns: u64,
    /// Nanoseconds by thread or process number.
    living_ns: HashMap<u32, u64>,
}

impl CpuTime {
    /// Records the living threads and processes; returns the nanoseconds of all together, those
    /// that ended included. Never less than before.
    fn update(&self, living: &[(u32, u64)]) -> u64 {
        let mut times = lock(&self.0);
        let mut before = std::mem::take(&mut times.living_ns);
        for (id, ns) in living {
            if let Some(seen) = before.remove(id).filter(|seen| seen > ns) {
                // The number was given to another thread or process.
                times.ended_ns += seen;
            }
            times.living_ns.insert(*id, *ns);
        }
        times.ended_ns += before.into_values().sum::<u64>();
        times.ended_ns + times.living_ns.values().sum::<u64>()
    }

    /// Records that a thread or process ended that used `ns` nanoseconds in all.
    fn finish(&self, id: u32, ns: u64) {
        let mut times = lock(&self.0);
        let seen = times.living_ns.remove(&id).unwrap_or_default();
        times.ended_ns += seen.max(ns);
    }
}

/// Number of bytes of a thread's name that the kernel shows.
const THREAD_NAME_BYTES: usize = 15;

/// Prefixes of the names of a module's threads: its own thread, its tokio runtime, its jobs.
const THREAD_KINDS: [&str; 3] = ["m:", "rt:", "job:"];

/// Returns the name of a module's own thread.
#[must_use]
pub(super) fn thread_name(module: &str) -> String {
    kernel_name("m:", module)
}

fn kernel_name(kind: &str, module: &str) -> String {
    let mut name = format!("{kind}{module}");
    name.truncate(THREAD_NAME_BYTES);
    name
}

/// Lock held from a measurement until it is recorded: an older measurement must not come after a
/// newer one.
static LOOKING: Mutex<Strangers> = Mutex::new(Strangers(Vec::new()));

/// The threads that are known to be no module's, in the order of their numbers, with how often that
/// was seen: a thread that was just started has no name of its own yet.
#[derive(Debug)]
struct Strangers(Vec<(u32, u8)>);

/// Looks at the name of a thread until it is known to be no module's.
const LOOKS: u8 = 2;

/// The threads of modules that live in this process. Other measurements wait until it is dropped.
#[derive(Debug)]
pub struct Tasks {
    tasks: Vec<Task>,
    _looking: MutexGuard<'static, Strangers>,
}

#[derive(Debug)]
struct Task {
    id: u32,
    /// The module that the thread works for, where that is known.
    owner: Option<String>,
    /// Name of a thread of unknown owner.
    name: String,
    cpu_ns: u64,
}

impl Tasks {
    /// Reads the threads that live now.
    #[must_use]
    pub fn now() -> Self {
        Self::read(lock(&LOOKING))
    }

    /// Reads the threads that live now; `None` while somebody else does, or ends a process.
    #[must_use]
    pub fn try_now() -> Option<Self> {
        match LOOKING.try_lock() {
            Ok(looking) => Some(Self::read(looking)),
            Err(TryLockError::Poisoned(error)) => Some(Self::read(error.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn read(mut looking: MutexGuard<'static, Strangers>) -> Self {
        let mut listed: Vec<u32> = threads(std::process::id()).collect();
        listed.sort_unstable();
        let mut owners = library::workers(&listed);
        let (before, mut strangers) = (std::mem::take(&mut looking.0), Vec::new());
        let tasks = listed.into_iter().filter_map(|id| {
            let owner = owners.remove(&id);
            // Whose thread it is is known without its name.
            let name = if owner.is_none() {
                let looks = before.binary_search_by_key(&id, |(id, _)| *id);
                let looks = looks.map_or(0, |at| before[at].1);
                let name = if looks < LOOKS { named(id) } else { None };
                if name.is_none() {
                    strangers.push((id, (looks + 1).min(LOOKS)));
                }
                name?
            } else {
                String::new()
            };
            Some(Task { id, owner, name, cpu_ns: cpu_ns(id)? })
        });
        let tasks = tasks.collect();
        looking.0 = strangers;
        Self { tasks, _looking: looking }
    }

    /// Returns the number and the nanoseconds of each thread of a module: of those that work for
    /// it, and of those of unknown owner that bear its name.
    fn of(&self, module: &str) -> Vec<(u32, u64)> {
        let names = THREAD_KINDS.map(|kind| kernel_name(kind, module));
        let own = self.tasks.iter().filter(|task| match &task.owner {
            Some(owner) => owner == module,
            None => names.contains(&task.name),
        });
        own.map(|task| (task.id, task.cpu_ns)).collect()
    }

    /// Returns how many threads a module has.
    pub(super) fn count(&self, module: &str) -> usize {
        self.of(module).len()
    }
}

/// Returns the name of a thread of this process, where it is one of a module's.
fn named(id: u32) -> Option<String> {
    let mut name = [0; THREAD_NAME_BYTES + 1];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = open(format!("/proc/self/task/{id}/comm"), flags, Mode::empty()).ok()?;
    let read = rustix::io::read(file, &mut name).ok()?;
    let name = std::str::from_utf8(&name[..read]).ok()?.trim_end();
    THREAD_KINDS.iter().any(|kind| name.starts_with(kind)).then(|| name.to_owned())
}

/// Returns the processor time of a thread of this process in nanoseconds; `None` when it has ended.
fn cpu_ns(id: u32) -> Option<u64> {
    /// The clock of a thread by the scheduler's count (`linux/posix-timers.h`): what
    /// `pthread_getcpuclockid` gives for a thread of which only the number is known.
    const SCHED_OF_THREAD: i32 = 4 | 2;
    let clock = ClockId::from_raw((!i32::try_from(id).ok()?) << 3 | SCHED_OF_THREAD);
    u64::try_from(Duration::from(clock.now().ok()?).as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_shows_the_call_that_runs() {
        let clock = CallClock::default();
        clock.time("summary", || {
            assert_eq!(clock.running().expect("it runs").0, "summary");
        });
        assert_eq!(clock.running(), None);
    }

    #[test]
    fn what_has_ended_stays_counted() {
        let cpu = CpuTime::default();
        let check = |living: &[(u32, u64)], expected| assert_eq!(cpu.update(living), expected);
        check(&[(1, 100), (2, 50)], 150);
        check(&[(1, 120)], 170);
        check(&[(1, 7)], 177);
        check(&[], 177);
        check(&[(3, 10)], 187);
        cpu.finish(3, 40);
        check(&[], 217);
        cpu.finish(4, 3);
        check(&[], 220);
    }

    #[test]
    fn keeps_the_time_of_threads_that_end() {
        let entry = std::sync::Arc::new(Entry::new("burner_with_a_long_name"));
        let burner = entry.clone();
        let thread = std::thread::Builder::new().name(thread_name(&entry.name));
        let spent = thread.spawn(move || {
            let used = || burner.used(&Tasks::now());
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(10) && used().cpu_ms < 20 {
                std::hint::black_box((0..100_000_u64).sum::<u64>());
            }
            used()
        });
        let spent = spent.expect("a thread starts").join().expect("it ends");
        assert!(spent.cpu_ms >= 20 && spent.threads == 1, "{spent:?}");
        let after = entry.used(&Tasks::now());
        assert!(after.cpu_ms >= spent.cpu_ms, "{after:?} after {spent:?}");
        assert_eq!(after.threads, 0);
        assert_eq!(Entry::new("nobody").used(&Tasks::now()), Used::default());
    }

    /// Starts a process that has used some time and uses no more.
    fn spent_process() -> std::process::Child {
        let mut command = std::process::Command::new("sh");
        let child = command.args(["-c", "while :; do :; done"]).spawn().expect("there is a shell");
        while figures(child.id()).cpu_ms < 50 {
            std::thread::yield_now();
        }
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a number");
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it is ours");
        let is_stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
            stat.is_ok_and(|stat| stat.contains(") T "))
        };
        while !is_stopped() {
            std::thread::yield_now();
        }
        child
    }

    fn end(mut child: std::process::Child) {
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
    }

    #[test]
    fn a_process_that_gives_way_counts_once_and_one_that_is_refused_hides_nobody() {
        let entry = Entry::new("gear");
        let process = |child: &std::process::Child, generation| crate::module::ProcessView {
            pid: child.id(),
            generation,
            memory_limit: None,
            cpu_limit: None,
            tasks_limit: String::new(),
            data_limit: String::new(),
            limits_without_group: Vec::new(),
            sandbox: String::new(),
        };
        let used = || entry.used(&Tasks::now());
        let shown = || entry.process().map(|process| process.generation);
        let (old, refused, new) = (spent_process(), spent_process(), spent_process());
        let time = |child: &std::process::Child| figures(child.id()).cpu_ms;
        let mut all = time(&old);
        entry.add_process(process(&old, 1));
        entry.generation.store(1, Ordering::Relaxed);
        assert_eq!((used().cpu_ms, used().threads, shown()), (all, 1, Some(1)));
        for (child, generation) in [(&refused, 2), (&new, 3)] {
            entry.add_process(process(child, generation));
            all += time(child);
            assert_eq!((used().cpu_ms, shown()), (all, Some(1)), "both live, the first runs");
        }
        for (child, still) in [(refused, Some(1)), (old, Some(3))] {
            if still == Some(3) {
                entry.generation.store(3, Ordering::Relaxed);
            }
            let pid = child.id();
            entry.reap(pid, || end(child));
            entry.forget_process(pid);
            assert_eq!((used().cpu_ms, shown()), (all, still));
        }
        end(new);
    }

    #[test]
    fn modules_with_the_same_first_letters_are_told_apart() {
        let [one, two] = ["a_module_with_a_long_name", "a_module_with_a_longer_one"];
        let thread = std::thread::Builder::new().name(thread_name(one));
        let counts = thread.spawn(move || {
            let count = || [one, two].map(|module| Tasks::now().count(module));
            let by_name = count();
            let _working = library::work_for(one);
            (by_name, count())
        });
        let counts = counts.expect("a thread starts").join().expect("it ends");
        assert_eq!(counts, ([1, 1], [1, 0]));
    }
}

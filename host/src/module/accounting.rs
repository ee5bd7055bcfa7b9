//! What a module costs: its time on the processor, and how long its calls take.

use std::{
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use super::state::lock;

/// What a module's thread is in. Watched from outside, so that a call that never comes back is
/// seen.
#[derive(Debug, Default)]
pub struct CallClock {
    current: Mutex<Option<(String, Instant)>>,
}

impl CallClock {
    /// Runs a call under the clock.
    pub fn time<T>(&self, what: &str, call: impl FnOnce() -> T) -> T {
        *lock(&self.current) = Some((what.to_owned(), Instant::now()));
        let result = call();
        *lock(&self.current) = None;
        result
    }

    /// The call that runs now, and for how long.
    #[must_use]
    pub fn running(&self) -> Option<(String, Duration)> {
        lock(&self.current).as_ref().map(|(what, since)| (what.clone(), since.elapsed()))
    }
}

/// How the kernel shows a thread's name: 15 bytes of it.
const THREAD_NAME_BYTES: usize = 15;

/// What stands before the module's name in the names of its threads: its own thread, its tokio
/// runtime, its jobs.
const THREAD_KINDS: [&str; 3] = ["m:", "rt:", "job:"];

/// The name of a module's own thread.
#[must_use]
pub(super) fn thread_name(module: &str) -> String {
    let mut name = format!("m:{module}");
    name.truncate(THREAD_NAME_BYTES);
    name
}

/// Milliseconds of processor time that the threads of a module have used, those that live now.
#[must_use]
pub fn cpu_ms(module: &str) -> u64 {
    let times = tasks(module).into_iter().filter_map(|task| {
        let times = std::fs::read_to_string(task.join("schedstat")).ok()?;
        times.split_whitespace().next()?.parse::<u64>().ok()
    });
    times.sum::<u64>() / 1_000_000
}

/// How many threads a module has. A thread without a name of its own bears that of the thread
/// that started it, so that what a module starts by itself counts as well.
pub(super) fn threads(module: &str) -> usize {
    tasks(module).len()
}

/// The kernel's directories of a module's threads.
fn tasks(module: &str) -> Vec<PathBuf> {
    let names = THREAD_KINDS.map(|kind| {
        let mut name = format!("{kind}{module}");
        name.truncate(THREAD_NAME_BYTES);
        name
    });
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let mine = tasks.map(|task| task.path()).filter(|task| {
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        names.iter().any(|own| own == name.trim_end())
    });
    mine.collect()
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
    fn counts_the_time_of_a_modules_threads() {
        let thread = std::thread::Builder::new().name(thread_name("burner_with_a_long_name"));
        let spent = thread
            .spawn(|| {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(200)
                    && cpu_ms("burner_with_a_long_name") < 20
                {
                    std::hint::black_box((0..100_000_u64).sum::<u64>());
                }
                cpu_ms("burner_with_a_long_name")
            })
            .expect("a thread starts")
            .join()
            .expect("it ends");
        assert!(spent > 0);
        assert_eq!(cpu_ms("nobody"), 0);
    }
}

//! What a module costs: its time on the processor, and how long its calls take.

use std::{
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
    let names = THREAD_KINDS.map(|kind| {
        let mut name = format!("{kind}{module}");
        name.truncate(THREAD_NAME_BYTES);
        name
    });
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds: u64 = tasks
        .filter(|task| {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            names.iter().any(|own| own == name.trim_end())
        })
        .filter_map(|task| {
            let times = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            times.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    nanoseconds / 1_000_000
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

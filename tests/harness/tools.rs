//! Waiting, and external programs.

use std::{
    io::Write as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Time between two looks at a condition.
const EVERY: Duration = Duration::from_millis(5);

/// Time after which a wait is given up. Only what never happens takes so long, on however busy a
/// machine: how soon something happens is a matter of benchmarks.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Waits until `condition` gives something, and panics with `what` when [`PATIENCE`] is over.
pub fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        thread::sleep(EVERY);
    }
}

/// Returns the path of an external program. Where it is missing the test is [skipped](skip).
///
/// # Panics
///
/// When it is missing in continuous integration.
#[must_use]
pub fn tool_or_skip(program: &str, test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|it| it.join(program)).find(|it| it.is_file());
    if found.is_none() {
        skip(test, &format!("{program} is not installed"));
    }
    found
}

/// Notes that a test, or a part of it, does not run here, for want of a package or of root's
/// rights. `cargo xtask test` names it in its summary.
///
/// # Panics
///
/// In continuous integration (`CI=true`), where everything is there that can be.
pub fn skip(test: &str, reason: &str) {
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!in_ci, "{test} may not be skipped with CI=true: {reason}");
    skip_even_in_ci(test, reason);
}

/// Notes a test as [`skip`] does, for what this machine has not and nobody can give it: Landlock in
/// its kernel, or the right to mount a file system.
///
/// # Panics
///
/// When the list of skipped tests cannot be written.
pub fn skip_even_in_ci(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(list) = std::env::var_os("LODESTAR_TEST_SKIPS") {
        let list = std::fs::OpenOptions::new().append(true).create(true).open(list);
        let noted = list.and_then(|mut list| writeln!(list, "{test}: {reason}"));
        noted.expect("the list of skipped tests is writable");
    }
}

/// Returns whether the tests run as root, who passes every check of permissions.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns a time zone in which no day ends within the next six hours, for what counts by days.
#[must_use]
pub fn far_from_midnight() -> &'static str {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match since_1970.as_secs() / 3_600 % 24 {
        6..18 => "UTC",
        _ => "Etc/GMT-12",
    }
}

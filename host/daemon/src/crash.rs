//! Crash report: a fatal signal's handler notes who ended the daemon, the next start reads it.
//!
//! A module in the daemon can take it down. Each thread knows the module that it works for, also
//! one that a module started and named itself, so the handler writes the signal and that module's
//! name into a file that was opened before. So does a call of `exit` on such a thread. Of a thread
//! that is not known in this way its name tells (`m:`, `rt:` or `job:` and the module's name, of
//! which the kernel keeps 15 bytes). Any other thread, a process that was forked, a kill from
//! outside, an OOM kill or a power cut leave no note, and no module is named. Nor is any where the
//! allocator found no memory within a limit of the process: whoever asks then need not be who has
//! taken it.
#![expect(unsafe_code, reason = "handlers of signals")]

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{BorrowedFd, IntoRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
};

use libc::{c_int, c_void, siginfo_t};
use rustix::process::{Resource, getrlimit};

use lodestar_library as library;
use lodestar_platform::files;

/// The signals that a fault of a thread's own raises.
const FATAL: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGABRT, "SIGABRT"),
];

/// Number in a note that stands for a call of `exit` in place of a signal.
const EXIT: c_int = 0;

/// Descriptor of the note's file, -1 for none.
static NOTE: AtomicI32 = AtomicI32::new(-1);

/// Id of the process that takes notes: a process that a module forks shares the file, and is not
/// the daemon.
static DAEMON: AtomicI32 = AtomicI32::new(0);

/// The `eventfd` that asks for last words ([`ask_for_last_words`]), -1 for none.
static LAST_WORDS: AtomicI32 = AtomicI32::new(-1);

/// `true` when the last words were written since they were asked for.
static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Number of checks whether the last words were written, and the time between two.
const LOOKS: usize = 50;
const BETWEEN_LOOKS: rustix::thread::Timespec =
    rustix::thread::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Word in a note before the whole name of a module.
const MODULE: &str = "module";

/// Word in a note before the name where the process had no memory left within its limit.
const MEMORY: &str = "memory";

/// Largest size of a note in bytes: the names of modules are shorter than that by far.
const LINE: usize = 128;

/// The module that ended the daemon when it last ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashReport {
    /// The name of the module, or as much as the name of its thread had room for.
    pub name: String,
    /// `true` when that is the whole name.
    pub whole: bool,
    /// Cause of the end: a signal, or a call of `exit`.
    pub means: String,
    /// `true` when the process had no memory left within its limit, so that the module is not
    /// responsible.
    pub for_want_of_memory: bool,
}

impl CrashReport {
    /// Returns whether the report is about this module.
    #[must_use]
    pub fn is(&self, module: &str) -> bool {
        if self.whole {
            return self.name == module;
        }
        // Linux keeps 15 bytes of a thread's name, with its kind.
        let cut = ["m:", "rt:", "job:"].map(|kind| &module[..module.len().min(15 - kind.len())]);
        cut.contains(&self.name.as_str())
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("crash")
}

/// Reads the note of the run before, and takes notes from now on.
///
/// # Errors
///
/// When the file cannot be opened; the daemon runs without.
pub fn watch(state_dir: &Path) -> io::Result<Option<CrashReport>> {
    let path = path(state_dir);
    let crash_report = files::read_text(&path).ok().and_then(|text| read(&text));
    files::clear_irregular(&path)?;
    let mut options = OpenOptions::new();
    let file: File = options.create(true).write(true).truncate(true).mode(0o600).open(path)?;
    DAEMON.store(process(), Ordering::Release);
    NOTE.store(file.into_raw_fd(), Ordering::Release);
    for (signal, _) in FATAL {
        // SAFETY: an all-zero `sigaction` is a valid value of this plain C type.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = note as *const () as usize;
        // On the stack for signals that the thread has: its own may be used up.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
        // SAFETY: the handler is async-signal-safe and of the type that SA_SIGINFO asks for.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: the function lives as long as the program, and it cannot unwind.
    if unsafe { libc::atexit(note_exit) } != 0 {
        return Err(io::Error::other("the C library takes no function to call at exit"));
    }
    Ok(crash_report)
}

/// Registers the `eventfd` that is written to before the daemon ends, however it does: its reader
/// is to write what was printed before, and then to call [`last_words_are_written`].
pub fn ask_for_last_words(wake: OwnedFd) {
    LAST_WORDS.store(wake.into_raw_fd(), Ordering::Release);
}

/// Reports that all that was printed before the request is written.
pub fn last_words_are_written() {
    WRITTEN.store(true, Ordering::Release);
}

/// Unregisters the `eventfd`, since nobody is there any more to be asked.
pub fn no_last_words() {
    LAST_WORDS.store(-1, Ordering::Release);
}

/// Waits until the last words were written, for a tenth of a second at most: the thread that
/// writes them may wait for what this one holds. Async-signal-safe.
fn wait_for_last_words() {
    let wake = LAST_WORDS.load(Ordering::Acquire);
    if wake < 0 || process() != DAEMON.load(Ordering::Acquire) {
        return;
    }
    // SAFETY: it is never closed.
    let wake = unsafe { BorrowedFd::borrow_raw(wake) };
    WRITTEN.store(false, Ordering::Release);
    if rustix::io::write(wake, &1_u64.to_ne_bytes()).is_err() {
        return;
    }
    for _ in 0..LOOKS {
        if WRITTEN.load(Ordering::Acquire) {
            return;
        }
        let _ = rustix::thread::nanosleep(&BETWEEN_LOOKS);
    }
}

/// Runs on the thread that calls `exit`. A thread that works for no module leaves no note.
extern "C" fn note_exit() {
    note_module(EXIT, false);
    wait_for_last_words();
}

/// Writes `SIGNAL WHO` of the thread that faults. With `SA_RESETHAND` the signal does its default
/// work when the instruction that faulted is tried again, or `abort` raises it again.
extern "C" fn note(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // Before any call that may set the number of the last error.
    let for_want_of_memory = signal == libc::SIGABRT && allocation_failed();
    // SAFETY: the kernel hands over a valid one.
    let from_outside = unsafe { (*info).si_code } == libc::SI_USER;
    if from_outside {
        // A signal that somebody sent does not come again by itself.
        // SAFETY: it has no conditions; the handler was reset.
        unsafe { libc::raise(signal) };
    } else {
        note_module(signal, for_want_of_memory);
        wait_for_last_words();
    }
}

/// Returns whether the last call that failed on this thread found no memory, and the process has a
/// limit. Async-signal-safe.
fn allocation_failed() -> bool {
    io::Error::last_os_error().raw_os_error() == Some(libc::ENOMEM)
        && [Resource::As, Resource::Data].into_iter().any(|it| getrlimit(it).current.is_some())
}

fn process() -> libc::pid_t {
    // SAFETY: it has no conditions.
    unsafe { libc::getpid() }
}

/// Writes the module that ends the daemon, once, where this thread is a module's or there was no
/// memory left. Async-signal-safe.
fn note_module(means: c_int, for_want_of_memory: bool) {
    if process() != DAEMON.load(Ordering::Acquire) {
        return;
    }
    let mut thread = [0_u8; 16];
    let (kind, name) = match library::works_for() {
        Some(module) => (&b"module:"[..], module.as_bytes()),
        None => {
            // SAFETY: the call writes at most 16 bytes there.
            let named = unsafe { libc::prctl(libc::PR_GET_NAME, thread.as_mut_ptr()) } == 0;
            let is_module = [&b"m:"[..], b"rt:", b"job:"].iter().any(|it| thread.starts_with(it));
            if !named || !(is_module || for_want_of_memory) {
                return;
            }
            (&b""[..], &thread[..])
        }
    };
    let kind = if for_want_of_memory { &b"memory:"[..] } else { kind };
    write(means, kind, name, NOTE.swap(-1, Ordering::AcqRel));
}

/// Writes the note; `target` is -1 when there is one already. Async-signal-safe.
fn write(means: c_int, kind: &[u8], name: &[u8], target: c_int) {
    if target < 0 {
        return;
    }
    let digit = |number: c_int| b'0' + u8::try_from(number % 10).unwrap_or(0);
    let means = [digit(means / 10), digit(means), b' '];
    let mut line = [0_u8; LINE];
    let text = means.iter().chain(kind).chain(name).chain(b"\n");
    let mut length = 0;
    for (place, byte) in line.iter_mut().zip(text) {
        *place = *byte;
        length += 1;
    }
    // SAFETY: the descriptor was opened for this, the bytes are ours. Nothing can be done about
    // an error here.
    unsafe { libc::pwrite(target, line.as_ptr().cast(), length, 0) };
}

fn read(text: &str) -> Option<CrashReport> {
    let (number, name) = text.split_once(' ')?;
    let number = number.parse::<c_int>().ok()?;
    let means = if number == EXIT {
        "a call of exit()".to_owned()
    } else {
        let (_, word) = FATAL.iter().find(|(signal, _)| *signal == number)?;
        format!("signal {number} ({word})")
    };
    let name = name.trim_end_matches(['\n', ' ']).trim_end_matches('\0');
    let (kind, name) = name.split_once(':')?;
    let for_want_of_memory = kind == MEMORY;
    Some(CrashReport { name: name.to_owned(), whole: kind == MODULE, means, for_want_of_memory })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_note_names_the_module() {
        let note = "11 m:usage_tracker\0\n";
        let crash_report = read(note).expect("it is a note");
        assert_eq!(crash_report.means, "signal 11 (SIGSEGV)");
        assert!(crash_report.is("usage_tracker"), "{crash_report:?}");
        assert!(!crash_report.is("ingest"), "{crash_report:?}");
        let runtime = read("06 rt:usage_tracke\0\n").expect("it is a note");
        assert!(runtime.is("usage_tracker"), "its name is cut: {runtime:?}");
        let exit = read("00 m:ingest\0\n").expect("it is a note");
        assert_eq!((exit.name.as_str(), exit.means.as_str()), ("ingest", "a call of exit()"));
        for nonsense in ["", "11", "99 m:ingest", "x m:ingest", "11 lodestard"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn who_finds_no_memory_is_named_and_not_to_blame() {
        for name in ["ingest", "m:ingest", "lodestard"] {
            let crash_report = read(&format!("06 memory:{name}\0\n")).expect("it is a note");
            assert!(
                crash_report.for_want_of_memory && crash_report.name == name,
                "{crash_report:?}"
            );
        }
        assert!(!read("06 module:memory\n").expect("it is a note").for_want_of_memory);
    }

    #[test]
    fn names_that_begin_alike_are_told_apart() {
        let (one, other) = ("usage_tracker_one", "usage_tracker_other");
        let crash_report = read("11 module:usage_tracker_other\n").expect("it is a note");
        assert!(crash_report.is(other) && !crash_report.is(one), "{crash_report:?}");
        let cut = read("11 m:usage_tracker\0\n").expect("it is a note");
        assert!(cut.is(other) && cut.is(one), "a thread's name is all that is known: {cut:?}");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("note");
        let long = "m".repeat(100);
        let crash_report = |name: &str, whole| CrashReport {
            name: name.to_owned(),
            whole,
            means: "signal 7 (SIGBUS)".to_owned(),
            for_want_of_memory: false,
        };
        for (kind, name, expected) in [
            ("module:", "ingest", crash_report("ingest", true)),
            ("module:", &*long, crash_report(&long, true)),
            ("", "m:ingest\0\0\0", crash_report("ingest", false)),
        ] {
            let file = File::create(&path).expect("it is writable");
            write(libc::SIGBUS, kind.as_bytes(), name.as_bytes(), file.as_raw_fd());
            let text = std::fs::read_to_string(&path).expect("it is text");
            assert_eq!(read(&text), Some(expected), "{text:?}");
        }
    }
}

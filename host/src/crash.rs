//! A note of who ended the daemon: a fatal signal's handler writes it, the next start reads it.
//!
//! A module in the daemon can take it down. The thread that faults bears the name of its module
//! (`m:`, `rt:` or `job:` and the module's name), so the handler writes the signal and that name
//! into a file that was opened before. So does a call of `exit` on such a thread. A thread without
//! such a name, a kill from outside, an OOM kill or a power cut leave no note, and nobody is
//! blamed.
#![expect(unsafe_code, reason = "handlers of signals")]

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::IntoRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicI32, Ordering},
};

use libc::{c_int, c_void, siginfo_t};

/// The signals that a fault of a thread's own raises.
const FATAL: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGABRT, "SIGABRT"),
];

/// Stands in a note in place of a signal for a call of `exit`.
const EXIT: c_int = 0;

/// Where the note goes, -1 for nowhere.
static NOTE: AtomicI32 = AtomicI32::new(-1);

/// Who ended the daemon when it last ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Culprit {
    /// The name of the thread, without what tells its kind; long names are cut.
    pub thread: String,
    /// By what: a signal, or a call of `exit`.
    pub means: String,
}

impl Culprit {
    /// Whether the thread was one of this module's.
    #[must_use]
    pub fn is(&self, module: &str) -> bool {
        // Linux keeps 15 bytes of a thread's name, with its kind.
        let cut = ["m:", "rt:", "job:"].map(|kind| &module[..module.len().min(15 - kind.len())]);
        cut.contains(&self.thread.as_str())
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
pub fn watch(state_dir: &Path) -> io::Result<Option<Culprit>> {
    let path = path(state_dir);
    let culprit = std::fs::read_to_string(&path).ok().and_then(|text| read(&text));
    let mut options = OpenOptions::new();
    let file: File = options.create(true).write(true).truncate(true).mode(0o600).open(path)?;
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
    Ok(culprit)
}

/// Runs on the thread that calls `exit`. The daemon's own have other names.
extern "C" fn note_exit() {
    if let Some(name) = module_thread() {
        write(EXIT, &name, NOTE.swap(-1, Ordering::AcqRel));
    }
}

/// Writes `SIGNAL NAME` of the thread that faults. With `SA_RESETHAND` the signal does its default
/// work when the instruction that faulted is tried again, or `abort` raises it again.
extern "C" fn note(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel hands over a valid one.
    let from_outside = unsafe { (*info).si_code } == libc::SI_USER;
    let target = NOTE.swap(-1, Ordering::AcqRel);
    match module_thread() {
        Some(name) if !from_outside => write(signal, &name, target),
        _ => raise_again(signal, from_outside),
    }
}

/// The name of this thread, where it is a module's.
fn module_thread() -> Option<[u8; 16]> {
    let mut name = [0_u8; 16];
    // SAFETY: the call writes at most 16 bytes there.
    let named = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) } == 0;
    let is_module = [&b"m:"[..], b"rt:", b"job:"].iter().any(|kind| name.starts_with(kind));
    (named && is_module).then_some(name)
}

/// Writes the note; `target` is -1 when there is one already. Async-signal-safe.
fn write(signal: c_int, name: &[u8; 16], target: c_int) {
    if target < 0 {
        return;
    }
    let mut line = [b' '; 20];
    line[0] = b'0' + u8::try_from(signal / 10).unwrap_or(0);
    line[1] = b'0' + u8::try_from(signal % 10).unwrap_or(0);
    line[3..19].copy_from_slice(name);
    line[19] = b'\n';
    // SAFETY: the descriptor was opened for this, the bytes are ours. Nothing can be done about
    // an error here.
    unsafe { libc::write(target, line.as_ptr().cast(), line.len()) };
}

/// A signal that somebody sent does not come again by itself.
fn raise_again(signal: c_int, from_outside: bool) {
    if from_outside {
        // SAFETY: it has no conditions; the handler was reset.
        unsafe { libc::raise(signal) };
    }
}

fn read(text: &str) -> Option<Culprit> {
    let (number, name) = text.split_once(' ')?;
    let number = number.parse::<c_int>().ok()?;
    let means = if number == EXIT {
        "a call of exit()".to_owned()
    } else {
        let (_, word) = FATAL.iter().find(|(signal, _)| *signal == number)?;
        format!("signal {number} ({word})")
    };
    let name = name.trim_end_matches(['\n', ' ']).trim_end_matches('\0');
    let (_, thread) = name.split_once(':')?;
    Some(Culprit { thread: thread.to_owned(), means })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_names_the_module() {
        let note = "11 m:usage_tracker\0\n";
        let culprit = read(note).expect("it is a note");
        assert_eq!(culprit.means, "signal 11 (SIGSEGV)");
        assert!(culprit.is("usage_tracker"), "{culprit:?}");
        assert!(!culprit.is("ingest"), "{culprit:?}");
        let runtime = read("06 rt:usage_tracke\0\n").expect("it is a note");
        assert!(runtime.is("usage_tracker"), "its name is cut: {runtime:?}");
        let exit = read("00 m:ingest\0\n").expect("it is a note");
        assert_eq!((exit.thread.as_str(), exit.means.as_str()), ("ingest", "a call of exit()"));
        for nonsense in ["", "11", "99 m:ingest", "x m:ingest", "11 lodestard"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }
}

//! File descriptors that the process inherited by mistake.
#![expect(unsafe_code, reason = "a number is all that is known of a descriptor to be closed")]

use std::{
    fs,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

/// The highest of the standard descriptors.
const STANDARD: RawFd = 2;

/// Closes all descriptors but the standard ones and those given: the daemon opens all of its own
/// with close-on-exec, a library in the daemon may not.
pub(super) fn close_all_but(kept: &[BorrowedFd<'_>]) {
    let kept: Vec<RawFd> = kept.iter().map(|kept| kept.as_raw_fd()).collect();
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<RawFd> =
        open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in open {
        let still_open = || fs::read_link(format!("/proc/self/fd/{number}")).is_ok();
        if number > STANDARD && !kept.contains(&number) && still_open() {
            // SAFETY: the process has one thread and has just begun: whoever opened this
            // descriptor did so before the program was started, and nothing here knows of it.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}

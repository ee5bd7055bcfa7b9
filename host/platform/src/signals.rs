//! Handling of signals by a callback.

use std::io;

use signal_hook::iterator::Signals;

/// Calls `act` for every signal of these numbers, on a thread of its own. It does not use tokio:
/// the feature `signal` would be built into every module of this workspace, and each mapped copy of
/// tokio keeps two sockets open for ever.
///
/// # Errors
///
/// Returns an error if the system refuses a handler or a thread.
pub fn for_each_signal(
    numbers: &[i32],
    mut act: impl FnMut(i32) + Send + 'static,
) -> io::Result<()> {
    let mut signals = Signals::new(numbers)?;
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || signals.forever().for_each(&mut act)).map(drop)
}

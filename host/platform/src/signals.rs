//! Signals of the system, as calls.

use std::io;

use signal_hook::iterator::Signals;

/// Calls `act` for every signal of these numbers, on a thread of its own. Not with tokio: its
/// feature `signal` would be built into every module of this workspace, and each mapped copy of it
/// holds two sockets for ever.
///
/// # Errors
///
/// When the system refuses a handler or a thread.
pub fn for_each_signal(
    numbers: &[i32],
    mut act: impl FnMut(i32) + Send + 'static,
) -> io::Result<()> {
    let mut signals = Signals::new(numbers)?;
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || signals.forever().for_each(&mut act)).map(drop)
}

//! `lodestard --runner`: a process that runs one module for the daemon.
//!
//! The sockets come as standard input and output, so that nothing has to be inherited by number;
//! the library comes as a descriptor with the first frame. Before a single instruction of it runs
//! the process is in its sandbox. The main thread receives the host's responses; the module's calls
//! come to a thread of their own, as in the daemon. When the daemon is gone the kernel ends the
//! process with it, and so does the end of the socket.

mod answers;
mod calls;
mod descriptors;
mod link;
mod privileges;
mod sandbox;
mod services;
mod syscalls;

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use lodestar_library::{Inspected, Library, LoadError};
use rustix::process::Signal;

use self::{calls::Calls, link::Link};
use super::{
    channel::{Reader, Writer},
    wire::{Loaded, Setup, VERSION},
};

pub use sandbox::confine;

/// Runs one module until the daemon asks it to end or is gone.
///
/// # Errors
///
/// When it was not started by a daemon. Every other error is reported to the daemon.
pub fn main() -> anyhow::Result<ExitCode> {
    let (calls, services) = sockets().context(
        "this mode is for lodestard itself, which runs a module with `isolation: process` in it",
    )?;
    descriptors::close_all_but(&[calls.as_fd(), services.as_fd()]);
    let mut asks = Reader::with_descriptors(calls.try_clone()?);
    let mut replies = Writer::new(calls);
    let setup: Setup = asks.next()?;
    let library = asks.take_descriptor().context("no library came with the first frame")?;
    ensure!(setup.version == VERSION, "the daemon speaks version {}", setup.version);
    if !stay_with(setup.parent)? {
        return Ok(ExitCode::SUCCESS);
    }
    be_told_apart(&setup.name);
    let sandbox = sandbox::enter(&setup);
    let library = match map(&setup, library) {
        Ok(library) => library,
        Err(error) => {
            let incompatible = error.is_incompatible();
            replies.send(&Loaded::No { reason: error.to_string(), incompatible })?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let sandboxed = sandbox.holds;
    replies.send(&Loaded::Yes { sandbox: sandbox.in_words, sandboxed })?;
    let link = Link::new(services.try_clone()?, library.manifest().clone());
    let calls = Calls::new(library, asks, replies, link.clone());
    // The name by which the SDK knows that a panic is guarded, as in the daemon.
    let thread = std::thread::Builder::new().name(format!("m:{}", setup.name));
    thread.spawn(move || calls.run()).context("no thread can be started")?;
    link.hear(Reader::with_descriptors(services));
    end_at_once()
}

/// Returns the two sockets. From now on the module's standard output goes to standard error, which
/// the daemon logs.
fn sockets() -> io::Result<(UnixStream, UnixStream)> {
    let calls = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let services = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    // Anything but a socket has no peer.
    calls.peer_addr()?;
    services.peer_addr()?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok((calls, services))
}

/// Makes this process end with the daemon; returns whether the daemon is still there.
fn stay_with(daemon: u32) -> io::Result<bool> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get());
    Ok(parent.and_then(|parent| u32::try_from(parent).ok()) == Some(daemon))
}

/// Sets the process name to the module's for `ps` and the kernel's log, and has the kernel kill
/// this process before the daemon where memory runs out. Errors are ignored.
fn be_told_apart(module: &str) {
    // The kernel takes 15 bytes of the name.
    let _ = std::fs::write("/proc/self/comm", format!("m:{module}"));
    super::subprocess::be_ended_first();
}

fn map(setup: &Setup, library: OwnedFd) -> Result<Arc<Library>, LoadError> {
    let inspected = Inspected::adopt(library, &setup.name, &setup.library, &setup.sha256)?;
    Library::open(inspected).map(Arc::new)
}

/// Ends this process without notice to the module: the daemon is gone.
fn end_at_once() -> ! {
    // Destructors of libraries might wait for threads that wait for the daemon.
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    std::process::exit(1)
}

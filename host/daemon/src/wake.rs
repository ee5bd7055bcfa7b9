//! Events that wake the daemon.

use std::{io, sync::Arc};

use lodestar_api::{Operation, Problem};
use lodestar_platform::signals;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    flag,
};
use tokio::sync::{mpsc, oneshot};

use crate::{module::ModuleEvent, supervisor::InstallLock};

/// An event that wakes the daemon's loop.
#[derive(Debug)]
pub enum Wake {
    /// Request for a change, with its actor and the sender for its answer.
    Asked(Request, Actor, oneshot::Sender<Result<Operation, Problem>>),
    /// Change of the configuration file.
    ConfigChanged,
    /// SIGHUP: read the configuration, and try again what did not start.
    HangUp,
    /// Change on the module path.
    LibraryChanged,
    /// Event of a module's thread.
    Module {
        /// Name of the module.
        name: String,
        /// The event.
        event: ModuleEvent,
        /// Id of the thread.
        thread: std::thread::ThreadId,
    },
    /// Time to look for calls that do not come back, and to tell systemd that the daemon lives.
    Tick,
    /// Signal to end.
    Signal(StopSignal),
}

/// Actor who asks for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A user of this machine, through the socket; `None` when the kernel does not tell which.
    User(Option<u32>),
    /// A client with the token of the control API.
    TokenHolder,
    /// A module, by its name.
    Module(String),
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(Some(number)) => write!(f, "user {number}"),
            Self::User(None) => f.write_str("a user"),
            Self::TokenHolder => f.write_str("the holder of the token"),
            Self::Module(name) => write!(f, "module {name}"),
        }
    }
}

/// Request for a change.
#[derive(Debug)]
pub enum Request {
    /// Switching a module on or off, in the file.
    SetEnabled {
        /// Name of the module.
        module: String,
        /// `true` to switch it on.
        enabled: bool,
    },
    /// Reading the configuration again.
    ReloadConfig,
    /// Replacement of a module by the library that lies on the module path now.
    Reload {
        /// Name of the module.
        module: String,
    },
    /// Return to the generation before.
    Rollback {
        /// Name of the module.
        module: String,
    },
    /// Activation of a module that was installed.
    TakeUp {
        /// Install lock of the module.
        install_lock: InstallLock,
        /// Lines about the module for its section.
        notes: Vec<String>,
        /// Version that was installed before.
        previous: Option<String>,
    },
    /// Stop and removal of a module.
    Remove {
        /// Name of the module.
        module: String,
        /// `true` to delete its data as well.
        purge: bool,
        /// `true` to remove it although events wait for it.
        yes: bool,
    },
}

/// Reason why the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM, from systemd or `kill`.
    Terminate,
    /// SIGINT, from a terminal.
    Interrupt,
}

/// Sender of wakes.
pub type WakeSender = mpsc::UnboundedSender<Wake>;

/// Turns signals into wakes. Installed before anything else happens: a SIGHUP that comes too early
/// would end the daemon. So would SIGXFSZ, which comes with the error of a file that may not grow:
/// the error is enough.
///
/// # Errors
///
/// When the system refuses a handler or a thread.
pub fn watch_signals(wakes: WakeSender) -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::default())?;
    let mut stopping = false;
    signals::for_each_signal(&[SIGTERM, SIGINT, SIGHUP], move |signal| {
        let wake = match signal {
            SIGTERM => Wake::Signal(StopSignal::Terminate),
            SIGINT => Wake::Signal(StopSignal::Interrupt),
            _ => Wake::HangUp,
        };
        if matches!(wake, Wake::Signal(_)) {
            if stopping {
                tracing::warn!("a second signal: the daemon ends at once");
                std::process::exit(1);
            }
            stopping = true;
        }
        // An error means that the daemon is ending.
        let _ = wakes.send(wake);
    })
}

//! Everything that can wake the daemon.

use std::{io, sync::Arc};

use lodestar_api::{Operation, Problem};
use lodestar_platform::signals;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    flag,
};
use tokio::sync::{mpsc, oneshot};

use crate::{module::ModuleEvent, supervisor::InstallLock};

/// What the daemon's one loop turns on.
#[derive(Debug)]
pub enum Wake {
    /// Somebody asks through the control socket for a change.
    Asked(Request, Actor, oneshot::Sender<Result<Operation, Problem>>),
    /// The configuration file changed.
    ConfigChanged,
    /// SIGHUP came: read the configuration, and try again what did not start.
    HangUp,
    /// Something on the module path changed.
    LibraryChanged,
    /// A module's thread tells something.
    Module {
        /// The module.
        name: String,
        /// What.
        event: ModuleEvent,
        /// The thread.
        thread: std::thread::ThreadId,
    },
    /// Time to look for calls that do not come back, and to tell systemd that we are alive.
    Tick,
    /// End.
    Signal(StopSignal),
}

/// Who asks for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A user of this machine, through the socket; `None` when the kernel does not tell which.
    User(Option<u32>),
    /// Whoever has the token of the control API.
    TokenHolder,
    /// A module.
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

/// A change that somebody asks for.
#[derive(Debug)]
pub enum Request {
    /// Switch a module on or off, in the file.
    SetEnabled {
        /// The module.
        module: String,
        /// On or off.
        enabled: bool,
    },
    /// Read the configuration again.
    ReloadConfig,
    /// Replace a module by what lies on the module path now.
    Reload {
        /// The module.
        module: String,
    },
    /// Put the generation before back.
    Rollback {
        /// The module.
        module: String,
    },
    /// Take up a module that was put in its place.
    TakeUp {
        /// The module.
        install_lock: InstallLock,
        /// What is said of it in its section, lines.
        notes: Vec<String>,
        /// The version that was installed before.
        previous: Option<String>,
    },
    /// Stop a module and take it away.
    Remove {
        /// The module.
        module: String,
        /// Its data as well.
        purge: bool,
        /// Although events wait for it.
        yes: bool,
    },
}

/// Why the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM, from systemd or `kill`.
    Terminate,
    /// SIGINT, from a terminal.
    Interrupt,
}

/// Where wakes are sent.
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

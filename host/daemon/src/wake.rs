//! Events that wake the daemon.

use std::{io, sync::Arc};

use lodestar_api::{Operation, Problem};
use lodestar_config::ConfigError;
use lodestar_platform::signals;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    flag,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    module::ModuleEvent,
    request::{Actor, Request},
};

/// An event that wakes the daemon's loop.
#[derive(Debug)]
pub enum Wake {
    /// Request for a change, with its actor and the sender for its answer.
    Asked(Request, Actor, oneshot::Sender<Result<Operation, Problem>>),
    /// Change of the configuration file.
    ConfigChanged,
    /// Verdict of the modules on their new sections.
    ConfigJudged {
        /// Number of the judgement.
        number: u64,
        /// Errors of the sections that were refused.
        refusals: Vec<ConfigError>,
    },
    /// SIGHUP: the configuration is read, and modules that did not start are started again.
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

/// Signal for which the daemon ends.
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

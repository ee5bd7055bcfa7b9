//! Everything that can wake the daemon.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

use crate::{control::api::Operation, module::Ended};

/// What the daemon's one loop turns on.
#[derive(Debug)]
pub enum Wake {
    /// Somebody asks through the control socket for a change.
    Asked(Request, oneshot::Sender<Result<Operation, crate::control::api::Problem>>),
    /// The configuration file changed, or SIGHUP came.
    ConfigChanged,
    /// A module's thread ended.
    ModuleEnded {
        /// The module.
        name: String,
        /// How.
        ended: Ended,
    },
    /// Time to look for calls that do not come back, and to tell systemd that we are alive.
    Tick,
    /// End.
    Signal(StopSignal),
}

/// A change that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
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
/// would end the daemon.
///
/// # Errors
///
/// When the system refuses a handler.
pub fn watch_signals(wakes: WakeSender) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        let mut stopping = false;
        loop {
            let wake = tokio::select! {
                _ = terminate.recv() => Wake::Signal(StopSignal::Terminate),
                _ = interrupt.recv() => Wake::Signal(StopSignal::Interrupt),
                _ = hang_up.recv() => Wake::ConfigChanged,
            };
            if matches!(wake, Wake::Signal(_)) {
                if stopping {
                    tracing::warn!("a second signal: the daemon ends at once");
                    std::process::exit(1);
                }
                stopping = true;
            }
            if wakes.send(wake).is_err() {
                return;
            }
        }
    });
    Ok(())
}

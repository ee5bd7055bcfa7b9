//! The supervisor: brings the modules to the state that the configuration asks for. Start-up, an
//! edit of the file, enable, disable and shutdown all go through one `reconcile`.

mod activate;
mod changes;
mod config_store;
mod config_warnings;
mod configure;
mod crash_recovery;
mod daemon;
mod data_dirs;
mod descriptions;
mod ending;
mod error;
mod fleet;
mod history;
mod installer;
mod installs;
mod isolation;
mod ledger;
mod libraries;
mod metrics;
mod module_events;
mod operations;
mod packages;
mod plan;
mod preflight;
mod probe;
mod reloads;
mod removals;
mod requests;
mod resubscribe;
mod section_edits;
mod stall_detector;
mod starting;
mod status;
mod supervised;
mod table;
mod taking;
mod transactions;
mod warnings;
mod why;

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use module_sdk::events::ModuleStateChanged;

use changes::{Asker, Change, Changes};
pub use crash_recovery::act_on_crash;
pub use daemon::{Daemon, Parts, number};
pub use error::DescribeError;
use fleet::Fleet;
pub use history::{Decisions, Histories, Refused};
pub use installs::{Put, change, install, recover_installs, verify};
pub use isolation::{Placed, placed_once_installed};
pub use ledger::moment;
pub use metrics::own_metrics;
pub use operations::{Operations, Pending};
pub(crate) use packages::{config_schema, package_of};
pub use packages::{library_directories, unknown_module};
pub use probe::{Probe, check_config, config_diff, config_view, describe_for_parent, report};
use requests::shown;
pub use resubscribe::resubscribe;
pub use status::{OWN, account, brief_status, counts, module_commands, module_info, status};
use supervised::Supervised;
pub use table::{ModuleTable, Slot};
use transactions::Transaction;
pub use warnings::{Noted, warnings};
pub use why::why;

use crate::{
    module::ModuleEvent,
    wake::Wake,
    watch::{Changed, Watches},
};

/// Time that a command waits for the events before it.
pub const COMMAND_PATIENCE: Duration = Duration::from_secs(5);

/// Time that a call of a module may take before the module is shown as stalled.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Time that a module may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Time between two looks at what is watched: whether the paths still lead there, which the watches
/// tell themselves but where a directory far above was replaced.
const LOOK_AROUND: Duration = Duration::from_secs(10);

/// The supervisor, which runs the modules that the configuration asks for.
#[derive(Debug)]
pub struct Supervisor {
    fleet: Fleet,
    watches: Watches,
    looked_around: Instant,
    changes: Changes,
}

impl Supervisor {
    /// Creates a supervisor that has started nothing yet.
    #[must_use]
    pub fn new(daemon: Arc<Daemon>, watches: Watches) -> Self {
        let (fleet, changes) = (Fleet::new(daemon), Changes::default());
        Self { fleet, watches, looked_around: Instant::now(), changes }
    }

    /// Starts and stops modules until all are as the configuration asks.
    pub fn reconcile(&mut self) {
        self.fleet.reconcile();
    }

    /// Handles an event that woke the daemon. Returns `Break` when the daemon is to end.
    pub fn handle(&mut self, wake: Wake) -> ControlFlow<()> {
        match wake {
            Wake::Asked(request, actor, answer) => self.ask(request, Asker { actor, answer }),
            Wake::ConfigChanged => self.change(Change::Saved { hang_up: false }),
            Wake::HangUp => {
                self.fleet.modules.values_mut().for_each(Supervised::try_again);
                self.change(Change::Saved { hang_up: true });
            }
            Wake::ConfigJudged { number, refusals } => self.config_judged(number, refusals),
            Wake::Module { name, event, thread } => {
                if matches!(event, ModuleEvent::Ended(_)) {
                    self.fleet.join(&name, thread);
                }
                self.fleet.heard(&name, event, thread);
            }
            Wake::LibraryChanged => {
                self.look_around();
                self.fleet.libraries_changed();
            }
            Wake::Tick => {
                lodestar_platform::systemd::alive();
                lodestar_platform::systemd::status(&self.fleet.daemon.in_a_line());
                stall_detector::detect_stalls(&self.fleet.daemon);
                self.fleet.watch_reloads();
                self.watch_judgement();
                if self.looked_around.elapsed() >= LOOK_AROUND {
                    self.look_around();
                }
                // A generation whose probation is over lets the one before it go.
                if self.fleet.daemon.loaded_libraries.have_left_behind() {
                    let daemon = Arc::clone(&self.fleet.daemon);
                    tokio::task::spawn_blocking(move || daemon.sweep());
                }
            }
            Wake::Signal(signal) => {
                tracing::info!(?signal, "the daemon ends");
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Checks whether the watched files and directories are still those that the paths lead to, and
    /// applies changes that no notification reported.
    fn look_around(&mut self) {
        self.looked_around = Instant::now();
        let Changed { config, libraries } =
            self.watches.refresh(library_directories(&self.fleet.daemon));
        self.fleet.daemon.noted.note("watching", self.watches.trouble());
        if config {
            self.change(Change::Saved { hang_up: false });
        }
        if libraries {
            self.fleet.libraries_changed();
        }
    }
}

/// Publishes every change of a module's state on the bus, while the daemon runs.
fn publish_state_changes(daemon: &Arc<Daemon>, slot: &Slot) {
    let mut state = slot.entry.watch();
    let name = slot.entry.name.clone();
    let daemon = Arc::downgrade(daemon);
    tokio::spawn(async move {
        let mut before = state.borrow_and_update().state;
        while state.changed().await.is_ok() {
            let transition = state.borrow_and_update().clone();
            let Some(daemon) = daemon.upgrade() else { return };
            if transition.state != before {
                let reason = transition.reason;
                daemon.announce(&ModuleStateChanged {
                    module: name.clone(),
                    from: before.to_string(),
                    to: transition.state.to_string(),
                    reason: (!reason.is_empty()).then_some(reason),
                });
            }
            before = transition.state;
        }
    });
}

//! Makes what is so what the configuration asks: start-up, an edit of the file, enable, disable
//! and shut-down are all one `reconcile`.

mod activate;
mod configure;
mod crash_recovery;
mod daemon;
mod data_dirs;
mod descriptions;
mod ending;
mod history;
mod install_lock;
mod installs;
mod isolation;
mod metrics;
mod operations;
mod preflight;
mod probe;
mod reloads;
mod removals;
mod requests;
mod resubscribe;
mod stall_detector;
mod starting;
mod status;
mod transactions;
mod warnings;
mod why;

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
    thread::{JoinHandle, ThreadId},
    time::Duration,
};

use module_sdk::events::{ConfigChanged, ModuleStateChanged};

pub use daemon::{Daemon, Parts, Slot, number};
pub use history::{Decisions, Histories, Refused};
pub use install_lock::InstallLock;
pub use installs::{Put, change};
pub use isolation::Placed;
pub use operations::{Operations, Pending};
pub(crate) use probe::config_problem;
pub use probe::{Probe, describe_for_parent, report};
use reloads::{Reload, Wanted};
use requests::shown;
pub use status::{OWN, counts};
use transactions::Transaction;

use lodestar_config::{self as config, Config, ConfigErrors, ModuleSection};
use lodestar_library as library;

use crate::{
    module::{Ended, ModuleEvent, StartGate, State},
    wake::Wake,
    watch::{Changed, Watches},
};

/// How long a command waits for the events before it.
pub const COMMAND_PATIENCE: Duration = Duration::from_secs(5);

/// How long a call of a module may take before it is shown as stalled.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How long a module may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Runs the modules that the configuration asks for.
#[derive(Debug)]
pub struct Supervisor {
    daemon: Arc<Daemon>,
    watches: Watches,
    /// The section that each running module was started with.
    applied: HashMap<String, ModuleSection>,
    /// Modules that have a thread.
    alive: HashSet<String>,
    /// Modules that did not start or go on, with the section that they had: they are tried again
    /// when it changes, their library changes, or somebody asks.
    given_up: HashMap<String, ModuleSection>,
    /// Sections that a module that runs did not take.
    refused_sections: HashMap<String, ModuleSection>,
    reloads: HashMap<String, Reload>,
    /// What was decided of modules that did not run when they were rolled back, until they do.
    rolling_back: HashMap<String, Decisions>,
    /// Installs whose build is on trial: the end of a reload is the verdict.
    transactions: HashMap<String, Transaction>,
    threads: HashMap<ThreadId, JoinHandle<()>>,
    /// The hash of each library when it was last looked at.
    seen: HashMap<String, String>,
    /// Modules whose library may have been replaced while their first generation was loaded.
    changed_while_starting: HashSet<String>,
    stopping: bool,
}

impl Supervisor {
    /// One that has started nothing yet.
    #[must_use]
    pub fn new(daemon: Arc<Daemon>, watches: Watches) -> Self {
        Self {
            daemon,
            watches,
            applied: HashMap::new(),
            alive: HashSet::new(),
            given_up: HashMap::new(),
            refused_sections: HashMap::new(),
            reloads: HashMap::new(),
            rolling_back: HashMap::new(),
            transactions: HashMap::new(),
            threads: HashMap::new(),
            seen: HashMap::new(),
            changed_while_starting: HashSet::new(),
            stopping: false,
        }
    }

    /// Starts and stops modules until all are as the configuration asks. Returns at once; what was
    /// begun goes on by itself.
    pub fn reconcile(&mut self) {
        if self.stopping {
            return;
        }
        let config = self.daemon.config();
        let wanted: Vec<Arc<Slot>> =
            config.modules.iter().map(|section| self.daemon.slot(&section.name)).collect();
        for (slot, section) in wanted.iter().zip(&config.modules) {
            slot.set_desired(section.enabled);
        }
        self.forget_removed(&config);
        let mut starts = Vec::new();
        for (slot, section) in wanted.iter().zip(&config.modules) {
            let name = &section.name;
            let alive = self.alive.contains(name);
            let changed = self.applied.get(name).is_some_and(|known| known != section);
            match (section.enabled, alive) {
                (true, false) if self.given_up.get(name) == Some(section) => {}
                (true, false) => starts.push(slot.clone()),
                (true, true) if changed && self.is_reloading(section) => {}
                (true, true) if changed && self.refused_sections.get(name) != Some(section) => {
                    tracing::info!(module = name, "its configuration changed: it is reloaded");
                    self.reload_module(name, Wanted::AsStarted, "reload");
                }
                (false, true) => self.stop(slot),
                (false, false) => self.show_disabled(slot),
                (true, true) => {
                    // A section that was refused and taken back leaves nothing to be said.
                    if self.refused_sections.get(name).is_some_and(|refused| refused != section) {
                        self.refused_sections.remove(name);
                        slot.set_behind(None);
                    }
                }
            }
        }
        let gate = StartGate::new(starts.len());
        for slot in starts {
            self.start(&slot, &config, &gate);
        }
    }

    /// Acts on what woke the daemon; breaks when it is to end.
    pub fn handle(&mut self, wake: Wake) -> ControlFlow<()> {
        match wake {
            Wake::Asked(request, actor, answer) => self.asked(request, &actor, answer),
            Wake::HangUp | Wake::ConfigChanged => {
                if matches!(wake, Wake::HangUp) {
                    self.given_up.clear();
                }
                // Before it is read: what changes from now on is seen.
                let _ = self.watches.refresh_config();
                if self.take_saved_configuration() && matches!(wake, Wake::HangUp) {
                    tracing::info!("SIGHUP: the modules are as the configuration says");
                }
            }
            Wake::Module { name, event, thread } => {
                if matches!(event, ModuleEvent::Ended(_)) {
                    self.join(thread);
                }
                self.heard(&name, event, thread);
            }
            Wake::LibraryChanged => {
                self.look_around();
                self.libraries_changed();
            }
            Wake::Tick => {
                lodestar_platform::systemd::alive();
                lodestar_platform::systemd::status(&self.daemon.in_a_line());
                self.detect_stalls();
                self.watch_reloads();
                self.look_around();
                let daemon = Arc::clone(&self.daemon);
                // A generation whose probation is over lets the one before it go.
                tokio::task::spawn_blocking(move || {
                    daemon.account();
                    daemon.sweep();
                });
            }
            Wake::Signal(signal) => {
                tracing::info!(?signal, "the daemon ends");
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Reads the file again; answers the names of the modules whose section changed.
    fn take_configuration(&mut self) -> Result<Vec<String>, ConfigErrors> {
        self.take(Daemon::load_config)
    }

    /// Reads the file again after the daemon itself took a section out of it.
    fn take_own_edit(&mut self) -> Result<Vec<String>, ConfigErrors> {
        self.take(Daemon::load_own_edit)
    }

    fn take(
        &mut self,
        read: fn(&Daemon) -> Result<Config, ConfigErrors>,
    ) -> Result<Vec<String>, ConfigErrors> {
        if self.stopping {
            return Ok(Vec::new());
        }
        let taken = read(&self.daemon).and_then(|after| self.take_file(after));
        self.daemon.note_config(taken.as_ref().err());
        taken
    }

    fn take_file(&mut self, after: Config) -> Result<Vec<String>, ConfigErrors> {
        let before = self.daemon.config();
        self.validate_changed(&after)?;
        let changed = config::changed_modules(&before, &after);
        if before.text != after.text {
            self.daemon.announce(&ConfigChanged {
                path: self.daemon.places.config.display().to_string(),
                modules: changed.clone(),
            });
            tracing::info!(modules = changed.join(","), "took the configuration");
            say_what_needs_a_restart(&before, &after);
            after.tell_outdated();
        }
        self.daemon.apply_log_levels(&after);
        self.daemon.set_config(after);
        if self.watches.refresh_libraries(self.daemon.library_directories()) {
            self.libraries_changed();
        }
        self.reconcile();
        Ok(changed)
    }

    /// Asks every module that is to run with another section than before whether it would take it,
    /// all at the same time, before anything changes.
    fn validate_changed(&self, after: &Config) -> Result<(), ConfigErrors> {
        let changed = after.modules.iter().filter(|section| {
            let name = &section.name;
            let known = self.applied.get(name).or_else(|| self.given_up.get(name));
            section.enabled && known != Some(*section)
        });
        let daemon = &*self.daemon;
        let judged = probe::judge_all(daemon, after, changed);
        // The loop turns: that took a while, and not for ever.
        lodestar_platform::systemd::alive();
        let refusals = judged.into_iter().flat_map(|judged| judged.refusals);
        ConfigErrors::or(refusals.collect(), ())
    }

    fn ended(&mut self, name: &str, ended: Ended) {
        if matches!(ended, Ended::Replaced | Ended::Rejected) {
            return;
        }
        self.alive.remove(name);
        let section = self.applied.remove(name);
        // Another library lies there than the one that failed, perhaps.
        let is_changed = self.changed_while_starting.remove(name);
        let slot = self.daemon.slot(name);
        let failed = matches!(ended, Ended::Failed { .. });
        // A rollback that did not come about decides nothing.
        if let Some(before) = self.rolling_back.remove(name).filter(|_| failed) {
            self.daemon.histories.decide(name, |decisions| *decisions = before);
        }
        self.tell_end(&slot, ended);
        self.reload_without_module(name);
        if self.stopping {
            return;
        }
        if !slot.is_desired() {
            self.show_disabled(&slot);
            let config = self.daemon.config();
            self.forget_removed(&config);
        } else if failed {
            let given_up = section.filter(|_| !is_changed);
            self.given_up.extend(given_up.map(|section| (name.to_owned(), section)));
            self.daemon.context.listeners.release(name);
            // Its section may have changed meanwhile.
            self.reconcile();
        } else {
            // It was enabled again while it stopped.
            self.reconcile();
        }
    }

    /// Notes how a module ended. That one failed too often is written down before anybody sees it:
    /// a restart must not end a quarantine.
    fn tell_end(&self, slot: &Slot, ended: Ended) {
        let (name, histories) = (&slot.entry.name, &self.daemon.histories);
        match ended {
            Ended::Failed { state, reason } => {
                if state == State::Quarantined {
                    histories.decide(name, |it| it.quarantined = Some(reason.clone()));
                }
                histories.record(name, state.as_str(), reason.clone());
                slot.entry.enter(state, reason);
            }
            _ if self.stopping => histories.record(name, "stopped", "the daemon ends"),
            _ => histories.record(name, "stopped", ""),
        }
    }

    /// Lets a thread go that has said that it ends.
    fn join(&mut self, thread: ThreadId) {
        let Some(thread) = self.threads.remove(&thread) else { return };
        let daemon = Arc::clone(&self.daemon);
        tokio::task::spawn_blocking(move || {
            if thread.join().is_err() {
                tracing::error!("the thread of a module ended by a panic of the host");
            }
            daemon.sweep();
        });
    }

    /// Reloads every module whose library is not the one that runs, and tries those again that did
    /// not start.
    fn libraries_changed(&mut self) {
        for slot in self.daemon.slots() {
            self.library_changed(&slot);
        }
        self.reconcile();
    }

    fn library_changed(&mut self, slot: &Slot) {
        let name = slot.entry.name.clone();
        let config = self.daemon.config();
        let Some(section) = config.module(&name).filter(|section| section.enabled) else {
            return;
        };
        let is_alive = self.alive.contains(&name);
        if is_alive && matches!(slot.entry.state(), State::Loading | State::Verified) {
            // Which bytes its thread has read is known when it runs.
            self.changed_while_starting.insert(name);
            return;
        }
        let Some(package) = self.daemon.package(section) else { return };
        let Some(sha256) = library::hash(&package) else { return };
        if self.seen.get(&name) == Some(&sha256) {
            return;
        }
        self.seen.insert(name.clone(), sha256.clone());
        let decisions = self.daemon.histories.decisions(&name);
        if decisions.refused.is_some_and(|refused| refused.sha256 == sha256) {
            return;
        }
        if !is_alive {
            self.given_up.remove(&name);
        } else if slot.entry.known().is_some_and(|known| known.sha256 == sha256) {
            self.library_is_back(slot);
        } else {
            self.daemon.histories.record(&name, "changed", "its library was replaced");
            self.reload_module(&name, Wanted::AsStarted, "reload");
        }
    }

    /// Looks at a library that may have been replaced while its module started.
    pub(super) fn look_at_library_again(&mut self, module: &str) {
        if self.changed_while_starting.remove(module) {
            let slot = self.daemon.slot(module);
            self.library_changed(&slot);
        }
    }

    /// Takes note of the library that a reload on request is about to load: that it is new there
    /// needs no further one.
    pub(super) fn notice_library(&mut self, module: &str) {
        let config = self.daemon.config();
        let package = config.module(module).and_then(|section| self.daemon.package(section));
        if let Some(sha256) = package.and_then(|package| library::hash(&package)) {
            self.seen.insert(module.to_owned(), sha256);
        }
    }

    fn show_disabled(&self, slot: &Slot) {
        if slot.entry.state().is_alive() {
            return;
        }
        self.daemon.context.listeners.release(&slot.entry.name);
        let config = self.daemon.config();
        let section = config.module(&slot.entry.name);
        if section.is_some_and(|section| self.daemon.package(section).is_some()) {
            slot.entry.enter(State::Disabled, "disabled in the configuration");
        } else {
            slot.entry.enter(State::Absent, self.daemon.where_looked(&slot.entry.name));
        }
    }

    /// Stops modules whose section is gone. Their events wait: a name may be misspelt, and only
    /// `modules remove` is meant to drop them.
    fn forget_removed(&mut self, config: &Config) {
        for slot in self.daemon.slots() {
            let name = &slot.entry.name;
            if config.modules.iter().any(|section| section.name == *name) {
                continue;
            }
            slot.set_desired(false);
            if self.alive.contains(name) {
                self.stop(&slot);
            } else if self.daemon.forget(name) {
                self.daemon.context.listeners.release(name);
                tracing::warn!(
                    module = name,
                    "its section is gone; its events wait until there is one again, or until \
                     `lodestar modules remove {name}`"
                );
            }
        }
    }

    /// Notes that the library that runs lies on the module path again: what was said of another
    /// one there is over.
    fn library_is_back(&mut self, slot: &Slot) {
        let name = &slot.entry.name;
        let refused = self.refused_sections.get(name);
        if refused.is_none_or(|section| self.applied.get(name) == Some(section)) {
            self.refused_sections.remove(name);
            slot.set_behind(None);
        }
    }

    /// Looks whether what is watched is still what the paths lead to, and takes what changed
    /// without being told.
    fn look_around(&mut self) {
        let Changed { config, libraries } = self.watches.refresh(self.daemon.library_directories());
        self.daemon.note("watching", self.watches.trouble());
        if config {
            self.take_saved_configuration();
        }
        if libraries {
            self.libraries_changed();
        }
    }

    /// Takes the configuration as it was saved; one with errors is told and left. Answers whether
    /// all is as it says already.
    fn take_saved_configuration(&mut self) -> bool {
        let taken = self.take_configuration();
        let changed = taken.inspect_err(|errors| {
            tracing::error!(
                %errors,
                "the configuration has errors; the daemon goes on with the one before"
            );
        });
        changed.is_ok_and(|changed| changed.is_empty())
    }
}

/// Sections that are read once, when the daemon starts.
fn say_what_needs_a_restart(before: &Config, after: &Config) {
    let sections = config::changed_sections(before, after);
    for section in sections.iter().filter(|section| config::needs_a_restart(section)) {
        tracing::warn!(section, "this section takes effect when lodestard is started again");
    }
}

/// Tells the bus about every change of a module's state, as long as the daemon runs.
fn tell_changes(daemon: &Arc<Daemon>, slot: &Slot) {
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

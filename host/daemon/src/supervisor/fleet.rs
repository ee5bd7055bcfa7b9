//! The modules that the supervisor runs, and the execution of what is planned for them.

use std::{collections::BTreeMap, sync::Arc};

use lodestar_config::Config;

use super::{
    Daemon, Slot,
    packages::{package_of, where_looked},
    plan::{self, Action, Cause, Desired, Observed, Way},
    reloads::Wanted,
    supervised::Supervised,
};
use crate::module::{StartGate, State};

/// The modules that the supervisor runs.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) daemon: Arc<Daemon>,
    /// Each module of the configuration, and each that still has a thread, by name.
    pub(super) modules: BTreeMap<String, Supervised>,
    /// True while the daemon ends: nothing is started any more.
    pub(super) stopping: bool,
}

impl Fleet {
    /// Creates a fleet that has started nothing yet.
    pub(super) const fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon, modules: BTreeMap::new(), stopping: false }
    }

    /// Starts, stops and reloads modules until all are as the configuration asks. Returns at once,
    /// while these steps go on.
    pub(super) fn reconcile(&mut self) {
        if self.stopping {
            return;
        }
        let config = self.daemon.config();
        self.note_desired(&config);
        let actions = self.plan(&config);
        self.carry_out(actions, &config);
    }

    /// Notes in the table of modules whether each is to run.
    fn note_desired(&mut self, config: &Config) {
        for section in &config.modules {
            self.daemon.slot(&section.name).set_desired(section.enabled);
        }
        let slots = self.daemon.modules.all();
        for slot in slots.iter().filter(|slot| config.module(&slot.entry.name).is_none()) {
            slot.set_desired(false);
            // Whatever is in the table has a phase, so that it is forgotten.
            self.module_mut(&slot.entry.name);
        }
    }

    pub(super) fn plan(&self, config: &Config) -> Vec<Action> {
        let desired = Desired { sections: &config.modules, ends: self.stopping };
        plan::plan(&desired, &Observed { modules: &self.modules })
    }

    /// Carries out actions in their order. Starts come last, and begin together.
    pub(super) fn carry_out(&mut self, actions: Vec<Action>, config: &Arc<Config>) {
        let mut starts = Vec::new();
        for action in actions {
            match action {
                Action::Start(module) => starts.push(self.daemon.slot(&module)),
                Action::Stop(module) => {
                    let slot = self.daemon.slot(&module);
                    self.stop(&slot);
                }
                Action::Reload(module, cause) => {
                    match cause {
                        Cause::Section => {
                            tracing::info!(module, "its configuration changed: it is reloaded");
                        }
                        Cause::Library => {
                            let histories = &self.daemon.histories;
                            histories.record(&module, "changed", "its library was replaced");
                        }
                    }
                    self.reload_module(&module, Wanted::AsStarted, "reload");
                }
                Action::ForgetRefusal(module) => {
                    self.module_mut(&module).forget_refusal();
                    self.daemon.slot(&module).set_behind(None);
                }
                Action::LookAgain(module) => self.module_mut(&module).library_may_have_changed(),
                Action::TryAgain(module) => self.module_mut(&module).try_again(),
                Action::ShowDisabled(module) => show_disabled(self, &self.daemon.slot(&module)),
                Action::Forget(module) => self.forget(&module),
            }
        }
        let gate = StartGate::new(starts.len());
        for slot in starts {
            self.start(&slot, config, &gate);
        }
    }

    /// Returns the state of a module. Adds a module that is off where the name is new.
    pub(super) fn module_mut(&mut self, name: &str) -> &mut Supervised {
        if !self.modules.contains_key(name) {
            self.modules.insert(name.to_owned(), Supervised::default());
        }
        self.modules.get_mut(name).expect("it was inserted where it was missing")
    }

    /// Forgets a module whose section is gone. Its events are kept, as a name may be misspelt: only
    /// `modules remove` drops them.
    fn forget(&mut self, module: &str) {
        // Whoever waits until it is off learns that it is.
        if let Some(slot) = self.daemon.modules.get(module) {
            show_disabled(self, &slot);
        }
        if self.daemon.modules.remove(module) {
            self.daemon.context.listeners.release(module);
            tracing::warn!(
                module,
                "its section is gone; its events wait until there is one again, or until \
                 `lodestar modules remove {module}`"
            );
        }
        // Generations that were replaced may still drain.
        if self.modules.get(module).is_some_and(Supervised::is_over) {
            self.modules.remove(module);
        }
    }

    /// Returns the way to fulfil a request for a module to run.
    pub(super) fn way(&self, module: &str) -> Way {
        self.modules.get(module).map_or(Way::Start, |module| plan::on_request(module.phase()))
    }
}

fn show_disabled(fleet: &Fleet, slot: &Slot) {
    if slot.entry.state().is_alive() {
        return;
    }
    fleet.daemon.context.listeners.release(&slot.entry.name);
    let config = fleet.daemon.config();
    let section = config.module(&slot.entry.name);
    if section.is_some_and(|section| package_of(&fleet.daemon, section).is_some()) {
        slot.entry.enter(State::Disabled, "disabled in the configuration");
    } else {
        slot.entry.enter(State::Absent, where_looked(&fleet.daemon, &slot.entry.name));
    }
}

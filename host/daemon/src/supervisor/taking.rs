//! Application of the configuration file: reads it, asks the modules concerned off the loop, and
//! makes it the configuration that runs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Instant,
};

use lodestar_api::{Problem, ProblemCode};
use lodestar_config::{self as config, Config, ConfigError, ConfigErrors, ModuleSection};
use module_sdk::events::ConfigChanged;

use super::{
    Daemon, Slot, Supervisor,
    changes::{Asker, Begun, Change, JUDGE_DEADLINE, Step, Then},
    config_store::ConfigStore,
    packages::library_directories,
    probe, requests,
    supervised::Supervised,
};
use crate::{request::Request, wake::Wake};

/// Function that reads the file.
type Read = fn(&ConfigStore) -> Result<Config, ConfigErrors>;

impl Supervisor {
    /// Handles a request. One that does not concern the file does not wait for a verdict.
    pub(super) fn ask(&mut self, request: Request, asker: Asker) {
        match request {
            // A build that waits for its verdict is loaded by its own transaction first.
            Request::Reload { ref module }
                if self.changes.is_judging() && self.fleet.daemon.installer.is_changing(module) =>
            {
                self.change(Change::Asked(request, asker));
            }
            Request::Reload { .. } | Request::Rollback { .. } => self.asked(request, asker),
            Request::SetEnabled { .. }
            | Request::ReloadConfig
            | Request::Activate { .. }
            | Request::Remove { .. } => self.change(Change::Asked(request, asker)),
        }
    }

    /// Begins a change of the configuration, or queues it behind those before it.
    pub(super) fn change(&mut self, change: Change) {
        if !self.changes.is_judging() {
            return self.begin_change(change);
        }
        let on_disk = self.fleet.daemon.configuration.load().ok();
        self.changes.wait(change, on_disk.as_ref().map(|config| &*config.text));
    }

    fn begin_change(&mut self, change: Change) {
        match change {
            Change::Saved { hang_up } => {
                // Before it is read: what changes from now on is seen.
                let _ = self.watches.refresh_config();
                self.take(ConfigStore::load, Then::Log { hang_up });
            }
            Change::Asked(request, asker) => self.asked(request, asker),
        }
    }

    fn asked(&mut self, request: Request, asker: Asker) {
        match requests::begin(&mut self.fleet, request, &asker.actor) {
            // The daemon itself took a section out, perhaps the last one.
            Ok(Begun::Reads(step @ Step::Removed(_))) => {
                self.take(ConfigStore::load_own_edit, Then::Answer(asker, step));
            }
            Ok(Begun::Reads(step)) => self.take(ConfigStore::load, Then::Answer(asker, step)),
            Ok(Begun::Operation(operation)) => {
                asker.tell(&self.fleet.daemon.operations, Ok(operation))
            }
            Err(problem) => asker.tell(&self.fleet.daemon.operations, Err(problem)),
        }
    }

    /// Reads the file, and applies it if no module refuses its section.
    fn take(&mut self, read: Read, then: Then) {
        match read(&self.fleet.daemon.configuration) {
            Ok(after) => {
                let sections = self.to_judge(&after);
                if sections.is_empty() {
                    self.take_file(after, then)
                } else {
                    self.judge(after, sections, then);
                }
            }
            Err(errors) => self.refuse_file(errors, then),
        }
    }

    /// Returns the sections of enabled modules that differ from those tried last.
    fn to_judge(&self, after: &Config) -> Vec<ModuleSection> {
        let is_new = |section: &&ModuleSection| {
            let tried = self.fleet.modules.get(&section.name).and_then(Supervised::tried);
            section.enabled && tried != Some(*section)
        };
        after.modules.iter().filter(is_new).cloned().collect()
    }

    /// Asks modules whether they accept their sections, all at the same time, before anything
    /// changes. This may take seconds: it runs on a thread, and the verdict wakes the loop.
    fn judge(&mut self, after: Config, sections: Vec<ModuleSection>, then: Then) {
        let (daemon, judged) = (self.fleet.daemon.clone(), after.clone());
        let number = self.changes.judge(after, then);
        let judging = move || {
            let all = || probe::judge_all(&daemon, &judged, sections.iter());
            let refusals = match catch_unwind(AssertUnwindSafe(all)) {
                Ok(judged) => judged.into_iter().flat_map(|judged| judged.refusals).collect(),
                Err(_) => vec![not_judged(&daemon, "the host panicked")],
            };
            // An error means that the daemon is ending.
            let _ = daemon.wakes.send(Wake::ConfigJudged { number, refusals });
        };
        // No task of the runtime: the end of the daemon does not wait for it.
        if let Err(error) = thread::Builder::new().name("judge".to_owned()).spawn(judging) {
            let refusals = vec![not_judged(&self.fleet.daemon, &error.to_string())];
            // It fails for want of a receiver alone, and this is the receiver's own thread.
            let _ = self.fleet.daemon.wakes.send(Wake::ConfigJudged { number, refusals });
        }
    }

    /// Acts on a verdict, and begins the changes that waited for it.
    pub(super) fn config_judged(&mut self, number: u64, refusals: Vec<ConfigError>) {
        match self.changes.judged(number, refusals) {
            Some((then, Ok(after))) => self.take_file(after, then),
            Some((then, Err(errors))) => self.refuse_file(errors, then),
            None => {}
        }
        self.begin_waiting();
    }

    /// Refuses a file whose judgement hangs, and begins the changes that waited for it. The answers
    /// of modules have a deadline of their own; what is read for the question has none.
    pub(super) fn watch_judgement(&mut self) {
        let Some(then) = self.changes.overdue(Instant::now()) else { return };
        let why = format!(
            "that takes longer than {} s; see whether the file systems of the modules answer",
            JUDGE_DEADLINE.as_secs()
        );
        let error = not_judged(&self.fleet.daemon, &why);
        self.refuse_file(error.into(), then);
        self.begin_waiting();
    }

    fn begin_waiting(&mut self) {
        while let Some(change) = self.changes.next() {
            self.begin_change(change);
        }
    }

    fn refuse_file(&mut self, errors: ConfigErrors, then: Then) {
        self.fleet.daemon.configuration.note(Some(&errors));
        self.follow_up(then, Err(errors));
    }

    /// Applies a file that no module refused: it becomes the configuration that runs.
    fn take_file(&mut self, after: Config, then: Then) {
        let before = self.fleet.daemon.config();
        let changed = config::changed_modules(&before, &after);
        if before.text != after.text {
            self.fleet.daemon.announce(&ConfigChanged {
                path: self.fleet.daemon.places.config.display().to_string(),
                modules: changed.clone(),
            });
            tracing::info!(modules = changed.join(","), "took the configuration");
            self.say_what_waits(&before, &after);
            after.tell_outdated();
        }
        self.fleet.daemon.apply_log_levels(&after);
        self.fleet.daemon.configuration.set(after);
        if self.watches.refresh_libraries(library_directories(&self.fleet.daemon)) {
            self.fleet.libraries_changed();
        }
        self.fleet.reconcile();
        self.fleet.daemon.configuration.note(None);
        self.follow_up(then, Ok(changed));
    }

    /// Logs the changed sections that are read only when the daemon or a module starts.
    fn say_what_waits(&self, before: &Config, after: &Config) {
        for section in config::changed_sections(before, after) {
            if config::needs_a_restart(&section) {
                tracing::warn!(
                    section,
                    "this section takes effect when lodestard is started again"
                );
            } else if config::needs_reloads(&section) {
                self.fleet.daemon.modules.all().iter().for_each(|slot| keeps_providers(slot));
            }
        }
    }

    /// Finishes the work that waited for a file. `taken` holds the names of the modules whose
    /// section changed, or the errors of a file that was refused.
    fn follow_up(&mut self, then: Then, taken: Result<Vec<String>, ConfigErrors>) {
        match (then, taken) {
            (Then::Answer(asker, step), taken) => {
                let result = requests::finish(&mut self.fleet, step, taken);
                asker.tell(&self.fleet.daemon.operations, result);
            }
            (Then::Log { hang_up }, Ok(changed)) => {
                if hang_up && changed.is_empty() {
                    tracing::info!("SIGHUP: the modules are as the configuration says");
                }
            }
            (Then::Log { .. }, Err(errors)) => tracing::error!(
                %errors,
                "the configuration has errors; the daemon goes on with the one before"
            ),
        }
    }

    /// Answers all requests that wait for a change when the daemon ends. Edits that were not judged
    /// are undone.
    pub(super) fn give_up_changes(&mut self) {
        let (judged, waiting) = self.changes.give_up();
        if let Some(then) = judged {
            let error = not_judged(&self.fleet.daemon, "the daemon ends");
            self.follow_up(then, Err(error.into()));
        }
        for change in waiting {
            if let Change::Asked(_, asker) = change {
                asker.tell(&self.fleet.daemon.operations, Err(the_daemon_ends()));
            }
        }
    }
}

/// Returns the answer to a request to a daemon that ends.
pub(super) fn the_daemon_ends() -> Problem {
    let problem = Problem::new(ProblemCode::Busy, "the daemon ends");
    problem.help("ask again when it has started again")
}

fn not_judged(daemon: &Arc<Daemon>, why: &str) -> ConfigError {
    let what = format!("the modules were not asked whether they take their sections: {why}");
    ConfigError::of_file(&daemon.places.config, what, "save it again")
}

/// Notes that a module which runs goes on with the providers that it was started with, if it asked
/// to be told of them.
fn keeps_providers(slot: &Slot) {
    let entry = &slot.entry;
    let is_told = entry.known().is_some_and(|known| known.manifest.capabilities.providers);
    if !is_told || !entry.state().is_alive() {
        return;
    }
    let (module, remedy) = (&*entry.name, format!("lodestar modules reload {}", entry.name));
    tracing::warn!(module, remedy, "it goes on with the `providers` that it was started with");
    slot.set_behind(Some(format!(
        "it goes on with the `providers` that it was started with; `{remedy}` tells it of the new \
         ones"
    )));
}

//! What somebody asks for through the control socket.

use std::{path::Path, sync::Arc};

use lodestar_api::{Operation, Problem, ProblemCode};
use lodestar_config::{self as config, Config, ConfigErrors};
use lodestar_library as library;
use tokio::sync::oneshot;

use super::{Pending, Refused, Slot, Supervisor, reloads::Wanted};
use crate::{
    module::State,
    wake::{Actor, Request},
};

/// An edit of the file.
struct Edited {
    /// Where and what, as people are told.
    what: String,
    before: String,
    after: String,
}

impl Supervisor {
    pub(super) fn asked(
        &mut self,
        request: Request,
        actor: &Actor,
        answer: oneshot::Sender<Result<Operation, Problem>>,
    ) {
        let result = match request {
            Request::SetEnabled { module, enabled } => self.set_enabled(&module, enabled, actor),
            Request::ReloadConfig => self.configuration_on_request(),
            Request::Reload { module } => self.reload_module_on_request(&module, actor),
            Request::Rollback { module } => self.rollback_on_request(&module, actor),
            Request::TakeUp { install_lock, notes, previous } => {
                self.activate(install_lock, &notes, previous)
            }
            Request::Remove { module, purge, yes } => self.remove_on_request(&module, purge, yes),
        };
        let result = result.map(|operation| self.daemon.operations.note_actor(operation, actor));
        // An error means that the client is gone.
        let _ = answer.send(result);
    }

    fn configuration_on_request(&mut self) -> Result<Operation, Problem> {
        let pending = self.daemon.operations.begin("reload_config", None);
        let operation = pending.operation();
        match self.take_configuration() {
            Ok(changed) if changed.is_empty() => pending.done("nothing changed"),
            Ok(changed) => pending.done(format!("changed: {}", changed.join(", "))),
            Err(errors) => pending.failed(
                ProblemCode::Invalid,
                errors.to_string(),
                Some("correct the file; the daemon goes on with the one before".to_owned()),
            ),
        }
        Ok(operation)
    }

    fn set_enabled(
        &mut self,
        module: &str,
        enabled: bool,
        actor: &Actor,
    ) -> Result<Operation, Problem> {
        let config = self.daemon.config();
        let known = config.modules.iter().any(|section| section.name == module)
            || library::find(&self.daemon.places.module_path, module).is_some();
        if !known {
            return Err(self.daemon.unknown_module(module));
        }
        let verb = if enabled { "enable" } else { "disable" };
        let edited = self.edit(module, enabled)?;
        self.daemon.histories.record(module, "asked", by(verb, actor));
        if enabled {
            // Who asks for it has seen why it was left alone.
            self.given_up.remove(module);
            let mut moves = false;
            self.daemon.histories.decide(module, |decisions| {
                decisions.quarantined = None;
                moves = decisions.isolated.take().is_some();
            });
            if moves && self.alive.contains(module) {
                return Ok(self.reload_module(module, Wanted::AsStarted, verb));
            }
        }
        if let Err(errors) = self.take_configuration() {
            return Err(self.undo(edited, &errors));
        }
        let pending = self.daemon.operations.begin(verb, Some(module));
        if let Some(edited) = edited {
            pending.edited(edited.what);
        }
        let operation = pending.operation();
        tokio::spawn(follow(self.daemon.slot(module), pending, enabled));
        Ok(operation)
    }

    /// Takes an edit back that the modules do not take.
    fn undo(&self, edited: Option<Edited>, errors: &ConfigErrors) -> Problem {
        let mut what = errors.to_string();
        let mut help = "correct the file; `lodestar config check` shows every error";
        if let Some(Edited { before, after, .. }) = edited {
            match config::write_atomically(&self.daemon.places.config, &after, &before) {
                Ok(()) => help = "nothing was changed; correct the file first",
                Err(error) => what = format!("{what}; the edit stays: {error}"),
            }
        }
        Problem::new(ProblemCode::Invalid, what).help(help)
    }

    /// Writes the switch into the file; answers what was changed there.
    fn edit(&self, module: &str, enabled: bool) -> Result<Option<Edited>, Problem> {
        let path = &self.daemon.places.config;
        let refused = |error: String| {
            Problem::new(ProblemCode::Refused, error)
                .help("edit the file by hand; the daemon takes it when it is saved")
        };
        let text = self.text_to_edit()?;
        let edited = config::set_enabled(&text, module, enabled)
            .map_err(|error| refused(error.to_string()))?;
        if edited.text == text {
            return Ok(None);
        }
        self.write_config(&text, &edited.text)?;
        let (place, line, after) = (shown(path), edited.line, edited.after);
        let before = edited.before.map_or_else(|| "absent".to_owned(), |value| value.to_string());
        let what = format!("{place}:{line} enabled: {before} -> {after}");
        Ok(Some(Edited { what, before: text, after: edited.text }))
    }

    /// The file as it lies there, checked as when it is taken: an edit of one that holds nothing,
    /// as a full disk leaves it, would switch off all that it no longer names.
    pub(super) fn text_to_edit(&self) -> Result<String, Problem> {
        self.daemon.load_config().map(|config| config.text).map_err(|errors| {
            Problem::new(ProblemCode::Invalid, errors.to_string())
                .help("correct the file first; `lodestar config check` shows every error")
        })
    }

    /// Writes the file, unless it would have errors: a file with errors elsewhere stays as it is.
    pub(super) fn write_config(&self, before: &str, after: &str) -> Result<(), Problem> {
        let path = &self.daemon.places.config;
        Config::parse(after, path, &self.daemon.layers).map_err(|errors| {
            Problem::new(ProblemCode::Invalid, errors.to_string())
                .help("correct the file first; `lodestar config check` shows every error")
        })?;
        config::write_atomically(path, before, after).map_err(|error| {
            Problem::new(ProblemCode::Refused, error.to_string())
                .help("edit the file by hand; the daemon takes it when it is saved")
        })
    }

    fn reload_module_on_request(
        &mut self,
        module: &str,
        actor: &Actor,
    ) -> Result<Operation, Problem> {
        let slot = self.wanted_slot(module, "reload")?;
        self.daemon.histories.record(module, "asked", by("reload", actor));
        if self.alive.contains(module) {
            self.notice_library(module);
            return Ok(self.reload_module(module, Wanted::OnPath, "reload"));
        }
        // Who asks for the library that proved bad shall have it.
        self.daemon.histories.decide(module, |decisions| {
            decisions.refused = None;
            decisions.quarantined = None;
        });
        Ok(self.start_on_request(&slot, "reload"))
    }

    fn rollback_on_request(&mut self, module: &str, actor: &Actor) -> Result<Operation, Problem> {
        let slot = self.wanted_slot(module, "roll back")?;
        // What is on trial may be undone at this moment.
        let _turn = self.daemon.install_locks.take(module)?;
        let running = slot.entry.known().map(|known| known.sha256.clone());
        let kept = library::kept_generations(&self.daemon.places.state_dir, module);
        let other = kept.into_iter().find(|package| {
            package.directory.file_name().map(|name| name.to_string_lossy().into_owned()) != running
        });
        let Some(package) = other else {
            let message = format!("there is no earlier generation of {module} to go back to");
            return Err(Problem::new(ProblemCode::NotFound, message)
                .help("generations are kept when a module was reloaded with another library"));
        };
        let instead =
            package.directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What the next start is to pass over is what lies there to be loaded, whatever runs.
        let config = self.daemon.config();
        let on_path = config.module(module).and_then(|section| self.daemon.package(section));
        let lies_there = match on_path {
            // Nothing, where it is gone or cannot be read.
            Some(package) => Some(library::hash(&package).unwrap_or_default()),
            None => running,
        };
        let what = by(&format!("roll back to {}", short(&instead)), actor);
        self.daemon.histories.record(module, "asked", what);
        let refused = Refused {
            sha256: lies_there.unwrap_or_default(),
            instead,
            reason: by("it was rolled back", actor),
        };
        if self.alive.contains(module) {
            return Ok(self.reload_module(module, Wanted::Kept(refused), "rollback"));
        }
        let before = self.daemon.histories.decisions(module);
        self.rolling_back.insert(module.to_owned(), before);
        self.daemon.histories.decide(module, |decisions| {
            decisions.quarantined = None;
            decisions.refused = (refused.sha256 != refused.instead).then_some(refused);
        });
        Ok(self.start_on_request(&slot, "rollback"))
    }

    /// The place of a module that is switched on.
    fn wanted_slot(&self, module: &str, verb: &str) -> Result<Arc<Slot>, Problem> {
        let config = self.daemon.config();
        let Some(section) = config.module(module) else {
            return Err(self.daemon.unknown_module(module));
        };
        if !section.enabled {
            let message = format!("{module} is disabled: there is nothing to {verb}");
            return Err(Problem::new(ProblemCode::Invalid, message)
                .help(format!("`lodestar modules enable {module}` starts it")));
        }
        Ok(self.daemon.slot(module))
    }

    pub(super) fn start_on_request(&mut self, slot: &Arc<Slot>, verb: &str) -> Operation {
        let module = slot.entry.name.clone();
        let pending = self.daemon.operations.begin(verb, Some(&module));
        let operation = pending.operation();
        self.given_up.remove(&module);
        self.reconcile();
        tokio::spawn(follow(slot.clone(), pending, true));
        operation
    }
}

/// Returns what was asked for, with who did where that was no person.
fn by(what: &str, actor: &Actor) -> String {
    match actor {
        Actor::Module(_) => format!("{what}, by {actor}"),
        Actor::User(_) | Actor::TokenHolder => what.to_owned(),
    }
}

/// The first characters of a hash, as people see it.
pub(super) fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

/// Ends an operation when its module has arrived where it was sent.
async fn follow(slot: Arc<Slot>, pending: Pending, enabled: bool) {
    let mut state = slot.entry.watch();
    let settled = state.wait_for(|transition| {
        if slot.is_desired() != enabled {
            return true;
        }
        if enabled {
            transition.state.is_settled()
                && !matches!(transition.state, State::Disabled | State::Stopped)
        } else {
            matches!(transition.state, State::Disabled | State::Absent | State::Stalled)
        }
    });
    let Ok(transition) = settled.await.map(|transition| transition.clone()) else { return };
    let name = &slot.entry.name;
    let reason = &transition.reason;
    if slot.is_desired() != enabled {
        let message = format!("a later change of {name} came first; it is {}", transition.state);
        return pending.failed(ProblemCode::Busy, message, None);
    }
    match (enabled, transition.state) {
        (true, State::Running) => pending.done(format!("{name} is running")),
        (true, State::Degraded) => pending.done(format!("{name} is degraded: {reason}")),
        (false, state) if state != State::Stalled => pending.done(format!("{name} is {state}")),
        (_, State::Incompatible) => {
            pending.failed(ProblemCode::Refused, format!("{name}: {reason}"), None);
        }
        (_, State::Absent) => pending.failed(ProblemCode::NotFound, reason.clone(), None),
        (_, state) => {
            let help = format!("see `lodestar modules logs {name}`");
            let message = format!("{name} is {state}: {reason}");
            pending.failed(ProblemCode::Failed, message, Some(help));
        }
    }
}

/// The path as messages show it: relative to where the daemon was started, when it is below.
pub(super) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    relative.unwrap_or_else(|| path.to_owned()).display().to_string()
}

//! Requests of clients and modules: how each begins, and how it goes on when the file was read.

use std::{path::Path, sync::Arc};

use lodestar_api::{Operation, Problem, ProblemCode};
use lodestar_config::ConfigErrors;
use lodestar_library as library;

use super::{
    Fleet, Pending, Refused, Slot,
    activate::{activate, finish_activation, installed_at_rest},
    changes::{Begun, Step},
    libraries::notice_library,
    packages::{package_of, unknown_module},
    plan::Way,
    reloads::Wanted,
    removals::remove_on_request,
    section_edits::{Edited, switch, undo},
    supervised::Supervised,
};
use crate::{
    module::State,
    request::{Actor, Request},
};

/// Begins a request.
pub(super) fn begin(fleet: &mut Fleet, request: Request, actor: &Actor) -> Result<Begun, Problem> {
    match request {
        Request::SetEnabled { module, enabled } => switch_module(fleet, module, enabled, actor),
        Request::ReloadConfig => {
            let pending = fleet.daemon.operations.begin("reload_config", None);
            Ok(Begun::Reads(Step::Reloaded(pending)))
        }
        Request::Reload { module } => {
            reload_on_request(fleet, &module, actor).map(Begun::Operation)
        }
        Request::Rollback { module } => {
            rollback_on_request(fleet, &module, actor).map(Begun::Operation)
        }
        Request::Activate { install_lock, notes, previous } => {
            activate(fleet, install_lock, &notes, previous)
        }
        Request::Remove { module, purge, yes } => remove_on_request(fleet, &module, purge, yes),
    }
}

/// Goes on with a request when the file was applied or refused. `taken` holds the names of the
/// modules whose section changed, or the errors.
pub(super) fn finish(
    fleet: &mut Fleet,
    step: Step,
    taken: Result<Vec<String>, ConfigErrors>,
) -> Result<Operation, Problem> {
    match step {
        Step::Reloaded(pending) => {
            let operation = pending.operation();
            match taken {
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
        Step::Switched { module, enabled, edited } => match taken {
            Ok(_) => Ok(switched(fleet, &module, enabled, edited)),
            Err(errors) => Err(undo(&fleet.daemon, edited, &errors)),
        },
        Step::Activated(transaction) => finish_activation(fleet, transaction, taken.err()),
        Step::Installed { install_lock, added } => {
            installed_at_rest(fleet, &install_lock, added, taken.err())
        }
        Step::Removed(removal) => match taken {
            Ok(_) => Ok(removal.begin(&fleet.daemon)),
            Err(errors) => Err(removal.undo(&fleet.daemon, &errors)),
        },
    }
}

fn switch_module(
    fleet: &mut Fleet,
    module: String,
    enabled: bool,
    actor: &Actor,
) -> Result<Begun, Problem> {
    let config = fleet.daemon.config();
    let known = config.modules.iter().any(|section| section.name == module)
        || library::find(&fleet.daemon.places.module_path, &module).is_some();
    if !known {
        return Err(unknown_module(&fleet.daemon, &module));
    }
    let edited = switch(&fleet.daemon, &module, enabled)?;
    fleet.daemon.histories.record(&module, "asked", by(verb(enabled), actor));
    if enabled {
        // Who asks for it has seen why it was left alone.
        fleet.module_mut(&module).try_again();
        let mut moves = false;
        fleet.daemon.histories.decide(&module, |decisions| {
            decisions.quarantined = None;
            moves = decisions.isolated.take().is_some();
        });
        if moves && fleet.way(&module) == Way::Reload {
            let operation = fleet.reload_module(&module, Wanted::AsStarted, verb(enabled));
            return Ok(Begun::Operation(operation));
        }
    }
    Ok(Begun::Reads(Step::Switched { module, enabled, edited }))
}

fn switched(fleet: &mut Fleet, module: &str, enabled: bool, edited: Option<Edited>) -> Operation {
    let pending = fleet.daemon.operations.begin(verb(enabled), Some(module));
    if let Some(edited) = edited {
        pending.edited(edited.what);
    }
    let operation = pending.operation();
    let slot = fleet.daemon.slot(module);
    let first = first_start(fleet, &slot);
    tokio::spawn(follow(slot, first, pending, enabled));
    operation
}

fn reload_on_request(fleet: &mut Fleet, module: &str, actor: &Actor) -> Result<Operation, Problem> {
    let slot = wanted_slot(fleet, module, "reload")?;
    fleet.daemon.histories.record(module, "asked", by("reload", actor));
    if fleet.way(module) == Way::Reload {
        notice_library(fleet, module);
        return Ok(fleet.reload_module(module, Wanted::OnPath, "reload"));
    }
    // Who asks for the library that proved bad shall have it.
    fleet.daemon.histories.decide(module, |decisions| {
        decisions.refused = None;
        decisions.quarantined = None;
    });
    Ok(start_on_request(fleet, &slot, "reload"))
}

fn rollback_on_request(
    fleet: &mut Fleet,
    module: &str,
    actor: &Actor,
) -> Result<Operation, Problem> {
    let slot = wanted_slot(fleet, module, "roll back")?;
    // What is on trial may be undone at this moment.
    let _turn = fleet.daemon.installer.install_lock(module)?;
    let running = slot.entry.known().map(|known| known.sha256.clone());
    let kept = library::kept_generations(&fleet.daemon.places.state_dir, module);
    let other = kept.into_iter().find(|package| {
        package.directory.file_name().map(|name| name.to_string_lossy().into_owned()) != running
    });
    let Some(package) = other else {
        let message = format!("there is no earlier generation of {module} to go back to");
        return Err(Problem::new(ProblemCode::NotFound, message)
            .help("generations are kept when a module was reloaded with another library"));
    };
    let instead = package.directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // What the next start is to pass over is what lies there to be loaded, whatever runs.
    let config = fleet.daemon.config();
    let on_path = config.module(module).and_then(|section| package_of(&fleet.daemon, section));
    let lies_there = match on_path {
        // Nothing, where it is gone or cannot be read.
        Some(package) => Some(library::hash(&package).unwrap_or_default()),
        None => running,
    };
    let what = by(&format!("roll back to {}", short(&instead)), actor);
    fleet.daemon.histories.record(module, "asked", what);
    let refused = Refused {
        sha256: lies_there.unwrap_or_default(),
        instead,
        reason: by("it was rolled back", actor),
    };
    if fleet.way(module) == Way::Reload {
        return Ok(fleet.reload_module(module, Wanted::Kept(refused), "rollback"));
    }
    let before = fleet.daemon.histories.decisions(module);
    fleet.daemon.histories.decide(module, |decisions| {
        decisions.quarantined = None;
        decisions.refused = (refused.sha256 != refused.instead).then_some(refused);
    });
    let operation = start_on_request(fleet, &slot, "rollback");
    if let Some(before) = fleet.module_mut(module).starts_for_rollback(before) {
        // A rollback that does not come about decides nothing.
        fleet.daemon.histories.decide(module, |decisions| *decisions = before);
    }
    Ok(operation)
}

/// Returns the slot of an enabled module. `verb` names the request in the error message.
fn wanted_slot(fleet: &Fleet, module: &str, verb: &str) -> Result<Arc<Slot>, Problem> {
    let config = fleet.daemon.config();
    let Some(section) = config.module(module) else {
        return Err(unknown_module(&fleet.daemon, module));
    };
    if !section.enabled {
        let message = format!("{module} is disabled: there is nothing to {verb}");
        return Err(Problem::new(ProblemCode::Invalid, message)
            .help(format!("`lodestar modules enable {module}` starts it")));
    }
    Ok(fleet.daemon.slot(module))
}

pub(super) fn start_on_request(fleet: &mut Fleet, slot: &Arc<Slot>, verb: &str) -> Operation {
    let module = slot.entry.name.clone();
    let pending = fleet.daemon.operations.begin(verb, Some(&module));
    let operation = pending.operation();
    fleet.module_mut(&module).try_again();
    fleet.reconcile();
    tokio::spawn(follow(slot.clone(), first_start(fleet, slot), pending, true));
    operation
}

/// Returns the number of the start whose outcome fulfils a request for a module to run: the last
/// one, or the next one where the module is stopping.
fn first_start(fleet: &Fleet, slot: &Slot) -> u64 {
    let is_stopping = fleet.modules.get(&slot.entry.name).is_some_and(Supervised::is_stopping);
    slot.starts() + u64::from(is_stopping)
}

const fn verb(enabled: bool) -> &'static str {
    if enabled { "enable" } else { "disable" }
}

/// Returns the text for a request in the history, with its actor where that is a module.
fn by(what: &str, actor: &Actor) -> String {
    match actor {
        Actor::Module(_) => format!("{what}, by {actor}"),
        Actor::User(_) | Actor::TokenHolder => what.to_owned(),
    }
}

/// Returns the first characters of a hash, as shown to users.
pub(super) fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

/// Returns whether a request for a module to run ends with this state; `has_started` is false while
/// the module still stops.
const fn ends_request(state: State, has_started: bool) -> bool {
    match state {
        // Of these two it was not started yet.
        State::Disabled | State::Stopped => false,
        State::Running | State::Degraded | State::Backoff => has_started,
        state => state.is_settled(),
    }
}

/// Waits until a module is enabled or disabled as requested, or a later change came first, and ends
/// the operation. A module is enabled when its start of the number `first`, or a later one, is
/// over.
async fn follow(slot: Arc<Slot>, first: u64, pending: Pending, enabled: bool) {
    let mut state = slot.entry.watch();
    let settled = state.wait_for(|transition| {
        if slot.is_desired() != enabled {
            return true;
        }
        if enabled {
            ends_request(transition.state, slot.starts() >= first)
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

/// Returns a path as messages show it: relative to the current directory, when it lies below that.
pub(super) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    relative.unwrap_or_else(|| path.to_owned()).display().to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lodestar_api::OperationState;

    use super::*;
    use crate::supervisor::{ModuleTable, Operations};

    #[test]
    fn a_request_to_run_ends_with_the_outcome_of_a_start() {
        let check = |state, stopping, started| {
            assert_eq!(ends_request(state, false), stopping, "{state}, still stopping");
            assert_eq!(ends_request(state, true), started, "{state}, started");
        };
        check(State::Running, false, true);
        check(State::Degraded, false, true);
        check(State::Backoff, false, true);
        check(State::Draining, false, false);
        check(State::Stopped, false, false);
        check(State::Disabled, false, false);
        check(State::Loading, false, false);
        check(State::Stalled, true, true);
        check(State::Failed, true, true);
        check(State::Quarantined, true, true);
        check(State::Absent, true, true);
    }

    #[tokio::test]
    async fn a_module_that_stops_is_enabled_when_it_has_started_again() {
        let (slot, operations) =
            (ModuleTable::default().get_or_add("gear").0, Operations::default());
        slot.set_desired(true);
        slot.count_start();
        slot.entry.enter(State::Running, "");
        let pending = operations.begin("enable", Some("gear"));
        let id = pending.operation().id;
        let following = tokio::spawn(follow(slot.clone(), slot.starts() + 1, pending, true));
        for state in [State::Draining, State::Stopped] {
            tokio::task::yield_now().await;
            slot.entry.enter(state, "");
        }
        tokio::task::yield_now().await;
        let meanwhile = operations.get(&id, Duration::ZERO).await.expect("it is known");
        assert_eq!(meanwhile.state, OperationState::Pending, "{}", meanwhile.message);
        slot.count_start();
        for state in [State::Loading, State::Running] {
            slot.entry.enter(state, "");
        }
        following.await.expect("no panic");
        let ended = operations.get(&id, Duration::ZERO).await.expect("it is known");
        assert_eq!((ended.state, &*ended.message), (OperationState::Done, "gear is running"));
    }
}

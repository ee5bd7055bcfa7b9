//! Activation of a module that was put in place: adds its section, and reloads it if it runs.

use lodestar_api::{Operation, Problem, ProblemCode};
use lodestar_config::ConfigErrors;

use super::{
    Fleet, Transaction,
    changes::{Begun, Step},
    plan::Way,
    reloads::Wanted,
    requests::start_on_request,
    section_edits::add_section,
    transactions::{commit, note_as_seen, roll_back},
};
use crate::install_lock::InstallLock;

/// Adds the section of a module that was put in place, and reloads the module if it runs. The
/// install is committed at once for a module that does not run, otherwise when the new build has
/// taken over.
pub(super) fn activate(
    fleet: &mut Fleet,
    install_lock: InstallLock,
    notes: &[String],
    previous: Option<String>,
) -> Result<Begun, Problem> {
    let module = &*install_lock.module.clone();
    let behind = fleet.daemon.modules.get(module).and_then(|slot| slot.behind());
    let note = notes.first().cloned().unwrap_or_default();
    let transaction = Transaction { install_lock, note, previous, behind };
    let added = match add_section(&fleet.daemon, module, notes) {
        Ok(added) => added,
        Err(problem) => return Err(undone(fleet, transaction, problem)),
    };
    note_as_seen(fleet, module);
    if fleet.way(module) == Way::Reload {
        return Ok(Begun::Reads(Step::Activated(transaction)));
    }
    let install_lock = keep_at_rest(fleet, transaction)?;
    Ok(Begun::Reads(Step::Installed { install_lock, added }))
}

/// Commits the install of a module that does not run.
fn keep_at_rest(fleet: &mut Fleet, transaction: Transaction) -> Result<InstallLock, Problem> {
    if let Err(problem) = commit(fleet, &transaction) {
        return Err(undone(fleet, transaction, problem));
    }
    let module = &transaction.install_lock.module;
    fleet.module_mut(module).try_again();
    fleet.daemon.histories.decide(module, |decisions| decisions.quarantined = None);
    Ok(transaction.install_lock)
}

/// Reloads a module that runs with its new build, unless the file was refused, which rolls the
/// install back.
pub(super) fn finish_activation(
    fleet: &mut Fleet,
    transaction: Transaction,
    refused: Option<ConfigErrors>,
) -> Result<Operation, Problem> {
    if let Some(errors) = refused {
        let problem = Problem::new(ProblemCode::Invalid, errors.to_string());
        return Err(undone(
            fleet,
            transaction,
            problem.help("correct the file, then install it again"),
        ));
    }
    let module = transaction.install_lock.module.clone();
    if fleet.way(&module) == Way::Start {
        // It ended while its section was judged.
        let install_lock = keep_at_rest(fleet, transaction)?;
        return installed_at_rest(fleet, &install_lock, None, None);
    }
    let operation = fleet.reload_module(&module, Wanted::OnPath, "install");
    let transaction = match fleet.module_mut(&module).reload_mut() {
        Some(reload) => reload.begin_transaction(&operation.id, transaction),
        None => Some(transaction),
    };
    let Some(transaction) = transaction else { return Ok(operation) };
    let problem = Problem::new(ProblemCode::Busy, format!("{module} cannot be reloaded now"));
    Err(undone(fleet, transaction, problem.help("`lodestar status` shows what it does")))
}

/// Starts a module that was installed while it did not run, if it is enabled.
pub(super) fn installed_at_rest(
    fleet: &mut Fleet,
    install_lock: &InstallLock,
    added: Option<String>,
    refused: Option<ConfigErrors>,
) -> Result<Operation, Problem> {
    if let Some(errors) = refused {
        return Err(Problem::new(ProblemCode::Invalid, errors.to_string())
            .help("the module is installed; correct the file and enable it"));
    }
    let module = &*install_lock.module;
    if fleet.daemon.config().module(module).is_some_and(|section| section.enabled) {
        let slot = fleet.daemon.slot(module);
        return Ok(start_on_request(fleet, &slot, "install"));
    }
    let pending = fleet.daemon.operations.begin("install", Some(module));
    if let Some(line) = added {
        pending.edited(line);
    }
    let operation = pending.operation();
    pending.done(format!("{module} is installed"));
    Ok(operation)
}

/// Rolls back an install that failed with `problem`. Returns the problem with the outcome added.
fn undone(fleet: &mut Fleet, transaction: Transaction, mut problem: Problem) -> Problem {
    let installed = roll_back(fleet, transaction);
    problem.detail = format!("{}; {installed}", problem.detail);
    problem
}

//! Installs on trial: the reload of a module that runs is the verdict on what was put in its place.

use lodestar_api::Problem;
use lodestar_library::{self as library, install::InstallDir};

use super::Fleet;
use crate::install_lock::InstallLock;

/// A build that lies in the place of one that runs, and has not proved good.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) install_lock: InstallLock,
    /// What is told of it when it is installed.
    pub(super) note: String,
    /// The version that was installed before.
    pub(super) previous: Option<String>,
    /// What was said of the module before.
    pub(super) behind: Option<String>,
}

/// Keeps what proved good.
pub(super) fn commit(fleet: &Fleet, transaction: &Transaction) -> Result<(), Problem> {
    let module = &transaction.install_lock.module;
    fleet.daemon.installer.keep(module)?;
    fleet.daemon.histories.record(module, "installed", transaction.note.clone());
    // What was decided about the build before says nothing about this one.
    fleet.daemon.histories.decide(module, |decisions| decisions.refused = None);
    Ok(())
}

/// Undoes what is no good: what lay there before comes back. Returns what is installed now.
pub(super) fn roll_back(fleet: &mut Fleet, transaction: Transaction) -> String {
    let module = transaction.install_lock.module.clone();
    let installed = match (fleet.daemon.installer.undo(&module), transaction.previous) {
        (Ok(()), Some(version)) => format!("{module} {version} stays installed"),
        (Ok(()), None) => "nothing was installed".to_owned(),
        (Err(error), _) => {
            let what = "what was installed before cannot be put back";
            tracing::error!(module, %error, "{what}");
            format!("{what}: {error}; a restart of lodestard does it")
        }
    };
    note_as_seen(fleet, &module);
    if let Some(slot) = fleet.daemon.modules.get(&module) {
        slot.set_behind(transaction.behind);
    }
    fleet.daemon.histories.record(&module, "undone", installed.clone());
    installed
}

/// Notes what was put in place or came back there: it is no news to the watch of the module path.
pub(super) fn note_as_seen(fleet: &mut Fleet, module: &str) {
    let package = InstallDir::of(&fleet.daemon.places.state_dir).package(module);
    fleet.module_mut(module).sees(library::hash(&package));
}

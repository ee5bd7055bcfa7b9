//! Transactions of installs: a build that was put in place is committed or rolled back, which the
//! reload decides for a module that runs.

use lodestar_api::Problem;
use lodestar_library::{self as library, install::InstallDir};

use super::Fleet;
use crate::install_lock::InstallLock;

/// A build that was put in place and is neither committed nor rolled back.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) install_lock: InstallLock,
    /// Text for the module's history when the install is committed.
    pub(super) note: String,
    /// Version that was installed before.
    pub(super) previous: Option<String>,
    /// Value of [`Slot::behind`](super::Slot::behind) before the install.
    pub(super) behind: Option<String>,
}

/// Commits an install.
pub(super) fn commit(fleet: &Fleet, transaction: &Transaction) -> Result<(), Problem> {
    let module = &transaction.install_lock.module;
    fleet.daemon.installer.keep(module)?;
    fleet.daemon.histories.record(module, "installed", transaction.note.clone());
    // What was decided about the build before says nothing about this one.
    fleet.daemon.histories.decide(module, |decisions| decisions.refused = None);
    Ok(())
}

/// Rolls an install back: the build before is restored. Returns a message about what is installed
/// now.
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

/// Notes the library that was put in place or restored, so that the watch of the module path does
/// not report it as changed.
pub(super) fn note_as_seen(fleet: &mut Fleet, module: &str) {
    let package = InstallDir::of(&fleet.daemon.places.state_dir).package(module);
    fleet.module_mut(module).sees(library::hash(&package));
}

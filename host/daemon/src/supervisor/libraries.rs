//! Reaction to libraries that are replaced on the module path while the daemon runs.

use lodestar_library as library;

use super::{
    Fleet, Slot,
    packages::package_of,
    plan::{self, Library},
};

impl Fleet {
    /// Reloads every module whose library on disk is not the one that runs, and starts those again
    /// that failed.
    pub(super) fn libraries_changed(&mut self) {
        for slot in self.daemon.modules.all() {
            self.library_changed(&slot);
        }
        self.reconcile();
    }

    /// Acts on a change of the library of a module.
    pub(super) fn library_changed(&mut self, slot: &Slot) {
        let name = &slot.entry.name;
        let Some(found) = look_at_library(self, slot) else { return };
        let phase = self.module_mut(name).phase();
        if let Some(action) = plan::on_library(name, phase, found) {
            let config = self.daemon.config();
            self.carry_out(vec![action], &config);
        }
    }
}

/// Reads the library of a module. Returns `None` where it is unchanged or missing, or the module is
/// disabled.
fn look_at_library(fleet: &mut Fleet, slot: &Slot) -> Option<Library> {
    let name = &slot.entry.name;
    let config = fleet.daemon.config();
    let section = config.module(name).filter(|section| section.enabled)?;
    // The transaction loads what it put in place, and notes what it leaves there.
    if fleet.daemon.installer.is_changing(name) {
        return None;
    }
    if !fleet.module_mut(name).has_run() {
        return Some(Library::Other);
    }
    let sha256 = library::hash(&package_of(&fleet.daemon, section)?)?;
    if !fleet.module_mut(name).sees(Some(sha256.clone())) {
        return None;
    }
    let decisions = fleet.daemon.histories.decisions(name);
    Some(if decisions.refused.is_some_and(|refused| refused.sha256 == sha256) {
        Library::Bad
    } else if slot.entry.known().is_some_and(|known| known.sha256 == sha256) {
        Library::Runs
    } else {
        Library::Other
    })
}

/// Notes the library that a requested reload is about to load, so that its change causes no further
/// reload.
pub(super) fn notice_library(fleet: &mut Fleet, module: &str) {
    let config = fleet.daemon.config();
    let package = config.module(module).and_then(|section| package_of(&fleet.daemon, section));
    if let Some(sha256) = package.and_then(|package| library::hash(&package)) {
        fleet.module_mut(module).sees(Some(sha256));
    }
}

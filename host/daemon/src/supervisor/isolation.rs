//! Isolation of modules: in the daemon or in a process of their own, with the reason.

use lodestar_api::Module;
use lodestar_config::{Isolation, ModuleSection};
use lodestar_library::{
    self as library, Package,
    install::{InstallDir, Keys, Lock},
};

use super::{Daemon, packages::package_of};
use crate::module::Entry;

/// Isolation of a module, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Isolation: in the daemon, or in a process of its own.
    pub isolation: Isolation,
    /// Reason, half a sentence; `None` for a module that runs in the daemon by default.
    pub why: Option<String>,
}

/// Returns the isolation of a module of the configuration.
#[must_use]
fn placed_by_name(daemon: &Daemon, module: &str) -> Placed {
    daemon
        .config()
        .module(module)
        .map_or_else(Placed::in_daemon, |section| placement(daemon, section))
}

/// Returns the isolation of the installed module whose library has this hash, whether it runs or
/// not.
#[must_use]
pub fn placed_once_installed(daemon: &Daemon, module: &str, sha256: &str) -> Placed {
    let package = InstallDir::of(&daemon.places.state_dir).package(module);
    let config = daemon.config();
    let section = config.module(module);
    let decided = section.and_then(|section| by_decision(daemon, section));
    decided.unwrap_or_else(|| by_bytes(daemon, &package, Some(sha256)))
}

/// Returns the isolation of the module of a section, whether it runs or not.
pub(super) fn placement(daemon: &Daemon, section: &ModuleSection) -> Placed {
    let Some(package) = package_of(daemon, section) else {
        return by_decision(daemon, section).unwrap_or_else(Placed::in_daemon);
    };
    placement_as(daemon, section, &package, bytes_of(daemon, &section.name).as_deref())
}

/// Returns the isolation of a package: a process of its own after it crashed the daemon, else as
/// its section says, else by its origin. `sha256` is the hash of its library, where that is known.
pub(super) fn placement_as(
    daemon: &Daemon,
    section: &ModuleSection,
    package: &Package,
    sha256: Option<&str>,
) -> Placed {
    by_decision(daemon, section).unwrap_or_else(|| by_bytes(daemon, package, sha256))
}

fn by_decision(daemon: &Daemon, section: &ModuleSection) -> Option<Placed> {
    if let Some(what) = daemon.histories.decisions(&section.name).isolated {
        return Some(Placed { isolation: Isolation::Process, why: Some(what) });
    }
    let why = || Some("its section says so".to_owned());
    section.isolation.map(|isolation| Placed { isolation, why: why() })
}

/// Returns the hash of the library that runs, or of the generation kept on disk that would start in
/// the place of one that proved bad; `None` for the library on the module path.
fn bytes_of(daemon: &Daemon, module: &str) -> Option<String> {
    let slots = daemon.modules.all();
    let slot = slots.iter().find(|slot| slot.entry.name == module);
    if let Some(slot) = slot.filter(|slot| slot.entry.state().is_running()) {
        return slot.entry.known().map(|known| known.sha256.clone());
    }
    let refused = daemon.histories.decisions(module).refused?;
    let lock = Lock::read(&daemon.places.state_dir).unwrap_or_default();
    lock.of_bytes(module, &refused.sha256).map(|_| refused.instead)
}

/// Returns the isolation in which a module runs, whatever its section says by now; for a module
/// that does not run, the one in which it would start.
pub(super) fn isolation_now(daemon: &Daemon, entry: &Entry) -> Isolation {
    match entry.known().filter(|_| entry.state().is_alive()) {
        Some(known) if known.isolated => Isolation::Process,
        Some(_) => Isolation::InProcess,
        None => placed_by_name(daemon, &entry.name).isolation,
    }
}

/// Returns the reason for the isolation of a module. A decision since its start holds from its next
/// start on.
pub(super) fn isolation_reason(daemon: &Daemon, module: &Module) -> Option<String> {
    let placed = placed_by_name(daemon, &module.name);
    let isolation = placed.isolation.as_str();
    match placed.why {
        Some(why) if module.isolation != isolation => {
            Some(format!("{isolation} from its next start on: {why}"))
        }
        why => why,
    }
}

pub(super) fn isolation_of(daemon: &Daemon, section: &ModuleSection) -> Isolation {
    placement(daemon, section).isolation
}

/// Returns the isolation of a package on the module path by its origin alone.
pub(super) fn by_kind(daemon: &Daemon, package: &Package) -> Placed {
    by_bytes(daemon, package, None)
}

/// Returns the isolation of a package by its origin. One that was installed runs in a process of
/// its own unless a key that is trusted now signed it. One that came with the daemon, or that an
/// operator put on the module path, runs in the daemon. The signature that counts is that of these
/// very bytes, not of what was installed before or after them under the same name.
fn by_bytes(daemon: &Daemon, package: &Package, sha256: Option<&str>) -> Placed {
    // A lock that cannot be read vouches for nothing.
    let lock = Lock::read(&daemon.places.state_dir).unwrap_or_default();
    if !was_installed(daemon, package, &lock) {
        return Placed::in_daemon();
    }
    let locked = match sha256 {
        Some(sha256) => lock.of_bytes(&package.name, sha256),
        None => lock.lying_in(package),
    };
    let Some(locked) = locked else {
        return Placed::unsigned("no signature of these bytes is on record");
    };
    let Some((signer, key)) = locked.signer.as_ref().zip(locked.key.as_ref()) else {
        return Placed::unsigned("it was installed unsigned");
    };
    if Keys::beside(&daemon.places.config).trusts(key) {
        let why = Some(format!("it is signed by {signer}"));
        return Placed { isolation: Isolation::InProcess, why };
    }
    Placed::unsigned(&format!("its signer {signer} is no longer trusted"))
}

/// Returns whether a package was installed, or is a generation kept on disk of an installed one.
pub(super) fn was_installed(daemon: &Daemon, package: &Package, lock: &Lock) -> bool {
    let (state_dir, name) = (&daemon.places.state_dir, &package.name);
    let place = InstallDir::of(state_dir);
    place.holds(package)
        || library::generation_of(state_dir, package).is_some()
            && (lock.modules.contains_key(name)
                || lock.coming.contains_key(name)
                || place.package(name).directory.exists())
}

impl Placed {
    const fn in_daemon() -> Self {
        Self { isolation: Isolation::InProcess, why: None }
    }

    fn unsigned(why: &str) -> Self {
        let remedy = "`isolation: in_process` in its section trusts it with the daemon's rights";
        Self { isolation: Isolation::Process, why: Some(format!("{why}; {remedy}")) }
    }
}

//! Where a module runs, and why there.

use lodestar_api::Module;
use lodestar_config::{Isolation, ModuleSection};
use lodestar_library::{
    self as library, Package,
    install::{InstallDir, Keys, Lock},
};

use super::Daemon;
use crate::module::Entry;

/// Where a module runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// In the daemon, or in a process of its own.
    pub isolation: Isolation,
    /// Why there, half a sentence; `None` where nothing speaks against the daemon.
    pub why: Option<String>,
}

impl Daemon {
    /// Where a module of the configuration runs.
    #[must_use]
    pub fn placed_by_name(&self, module: &str) -> Placed {
        self.config().module(module).map_or_else(Placed::in_daemon, |section| self.placed(section))
    }

    /// Where the installed module whose library has this hash runs, or would run.
    #[must_use]
    pub fn placed_once_installed(&self, module: &str, sha256: &str) -> Placed {
        let package = InstallDir::of(&self.places.state_dir).package(module);
        let config = self.config();
        let section = config.module(module);
        let decided = section.and_then(|section| self.by_decision(section));
        decided.unwrap_or_else(|| self.by_bytes(&package, Some(sha256)))
    }

    /// Where the module of a section runs, or would run when it is started.
    pub(super) fn placed(&self, section: &ModuleSection) -> Placed {
        let Some(package) = self.package(section) else {
            return self.by_decision(section).unwrap_or_else(Placed::in_daemon);
        };
        self.placed_as(section, &package, self.bytes_of(&section.name).as_deref())
    }

    /// Where a package runs: in a process of its own after it crashed the daemon, else where its
    /// section says, else where its kind does. `sha256` is the hash of its library, where that is
    /// known.
    pub(super) fn placed_as(
        &self,
        section: &ModuleSection,
        package: &Package,
        sha256: Option<&str>,
    ) -> Placed {
        self.by_decision(section).unwrap_or_else(|| self.by_bytes(package, sha256))
    }

    fn by_decision(&self, section: &ModuleSection) -> Option<Placed> {
        if let Some(what) = self.histories.decisions(&section.name).isolated {
            return Some(Placed { isolation: Isolation::Process, why: Some(what) });
        }
        let why = || Some("its section says so".to_owned());
        section.isolation.map(|isolation| Placed { isolation, why: why() })
    }

    /// The hash of the library that runs, or of the kept one that would be started in the place of
    /// one that proved bad; `None` for what lies on the module path.
    fn bytes_of(&self, module: &str) -> Option<String> {
        let slots = self.slots();
        let slot = slots.iter().find(|slot| slot.entry.name == module);
        if let Some(slot) = slot.filter(|slot| slot.entry.state().is_running()) {
            return slot.entry.known().map(|known| known.sha256.clone());
        }
        let refused = self.histories.decisions(module).refused?;
        let lock = Lock::read(&self.places.state_dir).unwrap_or_default();
        lock.of_bytes(module, &refused.sha256).map(|_| refused.instead)
    }

    /// Where a module runs, whatever its section says meanwhile; or would run if it were started.
    pub(super) fn isolation_now(&self, entry: &Entry) -> Isolation {
        match entry.known().filter(|_| entry.state().is_alive()) {
            Some(known) if known.isolated => Isolation::Process,
            Some(_) => Isolation::InProcess,
            None => self.placed_by_name(&entry.name).isolation,
        }
    }

    /// Why a module runs where it runs. What was decided since it started holds from its next
    /// start on.
    pub(super) fn isolation_reason(&self, module: &Module) -> Option<String> {
        let placed = self.placed_by_name(&module.name);
        let isolation = placed.isolation.as_str();
        match placed.why {
            Some(why) if module.isolation != isolation => {
                Some(format!("{isolation} from its next start on: {why}"))
            }
            why => why,
        }
    }

    pub(super) fn isolation(&self, section: &ModuleSection) -> Isolation {
        self.placed(section).isolation
    }

    /// Where what lies on the module path would run if nothing else were said.
    pub(super) fn by_kind(&self, package: &Package) -> Placed {
        self.by_bytes(package, None)
    }

    /// One that was installed without a signature by a key that is trusted now runs in a process of
    /// its own; one that came with the daemon, or that an operator put on the module path, in it.
    /// The signature that counts is the one of these bytes, and not the one of what was installed
    /// before or after them under the same name.
    fn by_bytes(&self, package: &Package, sha256: Option<&str>) -> Placed {
        // A lock that cannot be read vouches for nothing.
        let lock = Lock::read(&self.places.state_dir).unwrap_or_default();
        if !self.was_installed(package, &lock) {
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
        if Keys::beside(&self.places.config).trusts(key) {
            let why = Some(format!("it is signed by {signer}"));
            return Placed { isolation: Isolation::InProcess, why };
        }
        Placed::unsigned(&format!("its signer {signer} is no longer trusted"))
    }

    /// Whether a package, or the one that it is a kept generation of, was installed.
    pub(super) fn was_installed(&self, package: &Package, lock: &Lock) -> bool {
        let (state_dir, name) = (&self.places.state_dir, &package.name);
        let place = InstallDir::of(state_dir);
        place.holds(package)
            || library::generation_of(state_dir, package).is_some()
                && (lock.modules.contains_key(name)
                    || lock.coming.contains_key(name)
                    || place.package(name).directory.exists())
    }
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

//! Where a module runs, and why there.

use super::Daemon;
use crate::{
    config::{Isolation, ModuleSection},
    control::api::Module,
    install::{Keys, Lock, Place},
    library::Package,
};

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

    /// Where a module runs: in a process of its own after it crashed the daemon, else where its
    /// section says, else where its kind does.
    pub(super) fn placed(&self, section: &ModuleSection) -> Placed {
        if let Some(what) = self.stories.standing(&section.name).isolated {
            return Placed { isolation: Isolation::Process, why: Some(what) };
        }
        if let Some(isolation) = section.isolation {
            return Placed { isolation, why: Some("its section says so".to_owned()) };
        }
        self.package(section).map_or_else(Placed::in_daemon, |package| self.by_kind(&package))
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

    /// One that was installed without a signature by a key that is trusted now runs in a process of
    /// its own; one that came with the daemon, or that an operator put on the module path, in it.
    pub(super) fn by_kind(&self, package: &Package) -> Placed {
        if !Place::of(&self.places.state_dir).holds(package) {
            return Placed::in_daemon();
        }
        let lock = Lock::read(&self.places.state_dir).unwrap_or_default();
        let locked = lock.modules.get(&package.name);
        let Some((signer, key)) = locked.and_then(|it| it.signer.as_ref().zip(it.key.as_ref()))
        else {
            return Placed::unsigned("it was installed unsigned");
        };
        if Keys::beside(&self.places.config).trusts(key) {
            let why = Some(format!("it is signed by {signer}"));
            return Placed { isolation: Isolation::InProcess, why };
        }
        Placed::unsigned(&format!("its signer {signer} is no longer trusted"))
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

//! The daemon's own word on itself and its modules, as the command `host.status` gives it.

use std::{collections::BTreeMap, time::Duration};

use module_sdk::{Host, Result};
use serde::Deserialize;
use serde_json::json;

/// State of the daemon, as far as checks look at it. What an older daemon does not say is absent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) memory_bytes: u64,
    pub(super) config_error: Option<String>,
    pub(super) warnings: Vec<Warning>,
    pub(super) state_dir: String,
    pub(super) ledger: Ledger,
    pub(super) modules: Vec<Module>,
}

/// A problem of the daemon that stops nothing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Warning {
    pub(super) name: String,
    pub(super) message: String,
}

/// State of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Ledger {
    pub(super) trouble: Option<String>,
    pub(super) losses: Vec<Loss>,
}

/// A loss of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Loss {
    pub(super) found: String,
    pub(super) what: String,
}

/// A module.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) desired: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) health: Health,
    pub(super) restarts: u64,
    pub(super) lag_ms: u64,
    pub(super) dropped_by: BTreeMap<String, u64>,
    pub(super) listeners: Vec<Listener>,
}

/// Health that a module reports.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Health {
    pub(super) status: String,
    pub(super) message: String,
}

/// A listening socket of a module.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) address: Option<String>,
}

/// Asks the daemon, on the thread of a check.
pub(super) fn ask(host: &Host, deadline: Duration) -> Result<Status> {
    host.call::<_, Status>("host", "status", &json!({})).within(deadline).wait()
}

/// Asks the daemon for what it has at hand: the modules of its configuration, and no warnings.
pub(super) fn ask_briefly(host: &Host, deadline: Duration) -> Result<Status> {
    host.call::<_, Status>("host", "status", &json!({"brief": true})).within(deadline).wait()
}

impl Status {
    /// Returns whether there is nothing to look at soon again.
    pub(super) fn is_well(&self) -> bool {
        let all = self.config_error.is_none()
            && self.ledger.trouble.is_none()
            && self.ledger.losses.is_empty();
        all && self.modules.iter().filter(|it| it.is_wanted()).all(Module::is_well)
    }

    /// Returns a module that is to run.
    pub(super) fn wanted(&self, name: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.name == name && module.is_wanted())
    }
}

impl Module {
    /// Returns whether the module is to run.
    pub(super) fn is_wanted(&self) -> bool {
        self.desired == "enabled"
    }

    /// Returns whether the module runs as it should, and no event waits for it.
    fn is_well(&self) -> bool {
        self.state == "running" && self.health.status == "ok" && self.lag_ms == 0
    }

    /// Returns whether the module runs, well or not.
    pub(super) fn runs(&self) -> bool {
        matches!(self.state.as_str(), "running" | "degraded" | "reloading" | "draining")
    }
}

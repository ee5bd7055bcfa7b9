//! Events that the host itself publishes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, EventType};

/// Change of a module's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleStateChanged {
    /// The module.
    pub module: String,
    /// The state before.
    pub from: String,
    /// The state now.
    pub to: String,
    /// Reason for the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl EventType for ModuleStateChanged {
    const TOPIC: &'static str = "module.state.changed";
    const CLASS: Class = Class::Live;
}

/// Change of the configuration: the file was read again and accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigChanged {
    /// Path of the file.
    pub path: String,
    /// The modules whose section changed.
    pub modules: Vec<String>,
}

impl EventType for ConfigChanged {
    const TOPIC: &'static str = "config.changed";
    const CLASS: Class = Class::Live;
}

//! What the host itself says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, EventType};

/// A module went from one state to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleStateChanged {
    /// The module.
    pub module: String,
    /// The state before.
    pub from: String,
    /// The state now.
    pub to: String,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl EventType for ModuleStateChanged {
    const TOPIC: &'static str = "module.state.changed";
    const CLASS: Class = Class::Live;
}

/// The configuration file was read again and taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigChanged {
    /// The file.
    pub path: String,
    /// The modules whose section changed.
    pub modules: Vec<String>,
}

impl EventType for ConfigChanged {
    const TOPIC: &'static str = "config.changed";
    const CLASS: Class = Class::Live;
}

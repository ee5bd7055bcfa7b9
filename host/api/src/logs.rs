//! The log of a module.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which lines of a module's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogsQuery {
    /// How many of the last ones.
    pub lines: u64,
    /// Whether to go on with new ones until the client goes away.
    pub follow: bool,
}

impl Default for LogsQuery {
    fn default() -> Self {
        Self { lines: 100, follow: false }
    }
}

/// A line of a module's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub time: String,
    /// `error`, `warn`, `info`, `debug`, `trace`.
    pub level: String,
    /// The module.
    pub module: String,
    /// The text.
    pub message: String,
    /// Key and value.
    #[serde(default)]
    pub fields: serde_json::Map<String, Value>,
}

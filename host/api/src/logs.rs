//! The log of a module.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Selection of lines of a module's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogsQuery {
    /// Number of lines to return, counted from the end.
    pub lines: u64,
    /// `true` to go on with new lines until the client disconnects.
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
    /// Time of the record.
    pub time: String,
    /// `error`, `warn`, `info`, `debug`, `trace`.
    pub level: String,
    /// Name of the module.
    pub module: String,
    /// Text of the record.
    pub message: String,
    /// Further fields of the record.
    #[serde(default)]
    pub fields: serde_json::Map<String, Value>,
}

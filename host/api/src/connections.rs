//! What happens on the daemon's own listeners.

use serde::{Deserialize, Serialize};

/// The connections of one listener since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// `socket` (the control socket), `metrics`, `control` (the control API over TCP).
    pub listener: String,
    /// Open ones.
    pub open: u64,
    /// At once, at most.
    pub limit: u64,
    /// Accepted so far.
    pub accepted: u64,
    /// Clients that were refused so far, since there was no room for them.
    pub refused: u64,
    /// How often the system gave no connection.
    pub accept_errors: u64,
    /// Ended so far, by why they did.
    pub ended: Ended,
    /// What kept clients out within the last minute; `null` when nothing did.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// Connections that ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Either side was done with it.
    pub done: u64,
    /// Nothing was asked on it for too long.
    pub idle: u64,
    /// The head of a request took too long.
    pub slow_head: u64,
    /// Its client did not read the answer.
    pub unread: u64,
    /// It gave way to a new one.
    pub displaced: u64,
}

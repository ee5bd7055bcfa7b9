//! Counters of the daemon's own listeners.

use serde::{Deserialize, Serialize};

/// The connections of one listener since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// `socket` (the control socket), `metrics`, `control` (the control API over TCP).
    pub listener: String,
    /// Connections open now.
    pub open: u64,
    /// Maximum of connections open at once.
    pub limit: u64,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Clients refused so far because the limit was reached.
    pub refused: u64,
    /// Errors of `accept` so far.
    pub accept_errors: u64,
    /// Connections ended so far, by reason.
    pub ended: Ended,
    /// Description of what kept clients out within the last minute; `null` if nothing did.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// Numbers of connections that ended, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Connections that either side closed.
    pub done: u64,
    /// Connections without a request for too long.
    pub idle: u64,
    /// Connections on which the head of a request took too long.
    pub slow_head: u64,
    /// Connections whose client did not read the response.
    pub unread: u64,
    /// Connections closed to make room for a new one.
    pub displaced: u64,
}

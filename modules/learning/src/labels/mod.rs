//! Labels: which requests a local model answered well enough, by the signs of this installation.
//!
//! The router keeps the features of judged requests, numbers from which no text can be read. Here
//! their signs are weighed and a part of the requests is held back; the router learns a policy from
//! the rest, and what it says of the held-back part shows how far it can be believed. See
//! [adr/0092](../../../../adr/0092-what-the-router-learns.md).

pub mod calibration;
mod set;
mod weighing;

use schemars::JsonSchema;
use serde::Deserialize;

pub use set::{LabelSet, Sets, Summary};
pub use weighing::{Judged, Row, Sign, rows};

/// The tables of labels.
pub const MIGRATION: &str = include_str!("../../migrations/0013_labels.sql");

/// Settings of what the router learns.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Number of judged answers of local models before a policy is learnt.
    #[schemars(range(min = 250, max = 4_000))]
    pub least: u64,
    /// Share of the requests that is held back, the newest sessions.
    #[schemars(range(min = 0.1, max = 0.5))]
    pub held_out: f64,
    /// Share of the paid model's right answers that a policy keeps.
    #[schemars(range(min = 0.5, max = 1.0))]
    pub promise: f64,
    /// Weight that the signs about an answer need together.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub least_weight: f64,
    /// Difference, from 0 to 1, by which the lower end of the interval may miss the promise.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub margin: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { least: 250, held_out: 0.2, promise: 0.95, least_weight: 0.5, margin: 0.05 }
    }
}

//! `health.*`: the state of the parts of the system, and alerts.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, EventType, words::words};

words! {
    /// State of a check.
    CheckStatus {
        /// Within its limits.
        Ok = "ok",
        /// Beyond a limit whose alert is a warning.
        Warning = "warning",
        /// Beyond a limit whose alert is critical.
        Critical = "critical",
        /// Not known: the check did not answer in time.
        Unknown = "unknown",
        /// Not there, or not configured.
        Absent = "absent",
    }
}

words! {
    /// Severity of an alert, the worst first.
    AlertSeverity {
        /// The system is down.
        Critical = "critical",
        /// The system is degraded.
        Warning = "warning",
        /// Normal operation.
        Info = "info",
    }
}

/// A run of a check on one component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HealthCheckCompleted {
    /// The component, such as `disk./`, `memory`, `gpu`, `provider.ollama`, `model.llama3.2:3b`.
    pub component: String,
    /// Its state.
    pub status: CheckStatus,
    /// The most telling value; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Unit of the value: `ratio`, `bytes`, `seconds`, `celsius`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Time of the run, in milliseconds since the Unix epoch.
    pub at: i64,
}

impl EventType for HealthCheckCompleted {
    const TOPIC: &'static str = "health.check.completed";
    const CLASS: Class = Class::Live;

    fn subject(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.component))
    }
}

/// Change of the state of a component, so that others can act: a router leaves the local models
/// when the GPU is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthComponentChanged {
    /// The component.
    pub component: String,
    /// State before.
    pub from: CheckStatus,
    /// State now.
    pub to: CheckStatus,
    /// Explanation in a sentence, empty for none.
    pub message: String,
    /// Time of the change, in milliseconds since the Unix epoch.
    pub at: i64,
}

impl EventType for HealthComponentChanged {
    const TOPIC: &'static str = "health.component.changed";
    const CLASS: Class = Class::Live;

    fn subject(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.component))
    }
}

/// Raising of an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HealthAlertRaised {
    /// Id of the alert, which its end has as well.
    pub id: String,
    /// Name of its rule: `disk_low`.
    pub name: String,
    /// Severity.
    pub severity: AlertSeverity,
    /// The component.
    pub component: String,
    /// Labels, the component among them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Text for a person: the trouble and the next step, in a sentence or two.
    pub message: String,
    /// Value that raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Start, in milliseconds since the Unix epoch.
    pub since: i64,
}

impl EventType for HealthAlertRaised {
    const TOPIC: &'static str = "health.alert.raised";
    const CLASS: Class = Class::Ledger;

    fn subject(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.component))
    }
}

/// End of an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthAlertResolved {
    /// Id of the alert.
    pub id: String,
    /// Name of its rule.
    pub name: String,
    /// Severity that it had.
    pub severity: AlertSeverity,
    /// The component.
    pub component: String,
    /// Start, in milliseconds since the Unix epoch.
    pub since: i64,
    /// End, in milliseconds since the Unix epoch.
    pub at: i64,
}

impl EventType for HealthAlertResolved {
    const TOPIC: &'static str = "health.alert.resolved";
    const CLASS: Class = Class::Ledger;

    fn subject(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.component))
    }
}

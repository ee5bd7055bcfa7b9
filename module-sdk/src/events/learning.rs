//! `learning.*`: datasets, runs of training, and versions of models.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, EventType};

/// A dataset that was built. It names no text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LearningDatasetBuilt {
    /// The version of this type, 1.
    pub schema: u16,
    /// Id of the dataset: the hash of its lines.
    pub dataset: String,
    /// The projects whose answers it holds.
    pub projects: Vec<String>,
    /// Examples to train on.
    pub train: u64,
    /// Examples that are held out.
    pub eval: u64,
    /// Time of the build, in milliseconds since the Unix epoch.
    pub at: i64,
}

impl EventType for LearningDatasetBuilt {
    const TOPIC: &'static str = "learning.dataset.built";
    const CLASS: Class = Class::Ledger;

    fn subject(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.dataset))
    }

    fn time(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.at).ok()
    }
}

/// Progress of a run of training, told every few seconds and at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LearningRunProgressed {
    /// The version of this type, 1.
    pub schema: u16,
    /// Id of the run.
    pub run: String,
    /// Id of the version that it trains.
    pub version: String,
    /// State of the run: `training`, `stopped`, `failed` or `done`.
    pub state: String,
    /// `true` while it has the graphics card of this machine to itself, as far as others give way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_card: bool,
    /// Number of steps that are done.
    pub step: u64,
    /// Number of all steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Loss of the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Loss on the held-out examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    /// Time of it, in milliseconds since the Unix epoch.
    pub at: i64,
}

impl EventType for LearningRunProgressed {
    const TOPIC: &'static str = "learning.run.progressed";
    const CLASS: Class = Class::Ledger;

    fn subject(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.run))
    }

    fn time(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.at).ok()
    }
}

/// A change of a version, as the registry's log tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LearningVersionChanged {
    /// The version of this type, 1.
    pub schema: u16,
    /// Id of the version; empty where it is about the log itself.
    pub version: String,
    /// The deed: `create`, `judge`, `approve`, `deploy`, `roll_back` and others.
    pub action: String,
    /// State before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// State after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Time of it, in milliseconds since the Unix epoch.
    pub at: i64,
}

impl EventType for LearningVersionChanged {
    const TOPIC: &'static str = "learning.version.changed";
    const CLASS: Class = Class::Ledger;

    fn subject(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.version))
    }

    fn time(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.at).ok()
    }
}

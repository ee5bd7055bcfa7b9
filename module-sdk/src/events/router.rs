//! `router.*` and feedback on answers.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, EventType};

/// Change of the state of a target: a model of a provider, as the router sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouterTargetChanged {
    /// Id of the provider in the configuration.
    pub provider: String,
    /// Model, as the provider calls it.
    pub model: String,
    /// State: `up`, `cold`, `degraded`, `rate_limited` or `down`.
    pub state: String,
    /// State of its breaker: `closed`, `open` or `half_open`.
    pub breaker: String,
    /// Time of the change, in milliseconds since the Unix epoch.
    pub at: i64,
}

impl EventType for RouterTargetChanged {
    const TOPIC: &'static str = "router.target.changed";
    const CLASS: Class = Class::Live;

    fn subject(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Owned(format!("{}/{}", self.provider, self.model)))
    }
}

/// Feedback on an answer, or on a session. Text that a person wrote is not part of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LlmFeedbackGiven {
    /// The version of this type, 1.
    pub schema: u16,
    /// Id of the request (`x-lodestar-request-id`), where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The session, a pseudonym by default, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// `true` when the answer was good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub good: Option<bool>,
    /// Rating, from 0 (bad) to 1 (good).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rating: Option<f64>,
    /// `true` when a comment was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_comment: Option<bool>,
    /// `true` when the person changed the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited: Option<bool>,
    /// `true` when the person asked again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retried: Option<bool>,
    /// Origin of the feedback: `person`, `check`, `judge`.
    pub origin: String,
    /// Time of the feedback, in milliseconds since the Unix epoch.
    pub at: i64,
}

impl EventType for LlmFeedbackGiven {
    const TOPIC: &'static str = "llm.feedback.given";
    const CLASS: Class = Class::Ledger;
}

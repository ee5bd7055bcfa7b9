//! An example: a conversation whose last message is an answer, with all that is known of it.

use std::fmt;

use module_sdk::events::ContentRole;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A message of a conversation, in the form of OpenAI's chat. Its `Debug` shows no text.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Author of the message.
    pub role: ContentRole,
    /// Text of the message.
    #[serde(default)]
    pub content: String,
    /// Calls of tools that the model made, as OpenAI writes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Value>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({}, {} bytes)", self.role, self.content.len())
    }
}

/// A class of terms under which a model's answers may be learnt from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LicenceClass {
    /// Written by people of the project, or by a model of their own.
    Own,
    /// Answers of a model with open weights whose licence allows it.
    OpenWeights,
    /// Answers of a provider whose terms restrict training.
    Restricted,
    /// Answers of a model of which nothing is known.
    Unknown,
}

/// Signs of how good an answer was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Mean of the feedback, from 0 (bad) to 1 (good), by the weights of its origins.
    pub feedback: Option<f64>,
    /// Reason for the end of the answer, as the provider names it (`stop`, `length`, …).
    pub finish_reason: Option<String>,
    /// `true` when the request failed.
    pub failed: bool,
    /// `true` when the text was cut before it was kept.
    pub truncated: bool,
    /// `true` when the person asked again.
    pub retried: bool,
    /// `true` when the person changed the answer.
    pub edited: bool,
    /// Score of a judge that may drop answers, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judged: Option<f64>,
}

/// A conversation whose last message is an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Id of the example, unique in the installation.
    pub id: String,
    /// The project, by which people agreed.
    pub project: String,
    /// The session or the file that it comes from: a conversation is never split between training
    /// and evaluation.
    pub conversation: String,
    /// Time of the answer, in milliseconds since the Unix epoch.
    pub at: i64,
    /// The model that answered, as it was named.
    pub model: Option<String>,
    /// Terms of that model.
    pub licence: LicenceClass,
    /// `true` when a person attested that it may be learnt from although its terms are restricted
    /// or unknown.
    pub attested: bool,
    /// Id of the consent that it was kept under; none where there is no consent any more.
    pub consent: Option<String>,
    /// Signs of how good the answer was.
    pub outcome: Outcome,
    /// The messages, the answer last.
    pub messages: Vec<Message>,
    /// Descriptions of the tools that the model was offered, as OpenAI writes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Value>,
}

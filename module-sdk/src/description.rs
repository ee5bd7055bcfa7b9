//! What a module says of itself before it runs.

use schemars::Schema;
use serde::{Deserialize, Serialize};

use crate::Class;

/// Everything a module declares in its `wire`, and the schema of its configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    /// The version of the SDK that it was built with.
    pub sdk_version: String,
    /// What it listens to.
    pub subscriptions: Vec<Subscription>,
    /// What it does by the clock.
    pub timers: Vec<TimerDescription>,
    /// What it answers.
    pub commands: Vec<CommandDescription>,
    /// The JSON schema of its configuration.
    pub config_schema: Schema,
}

/// A topic filter that a module listens to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// `llm.request.completed`, `lynex.*`, `llm.>`.
    pub filter: String,
    /// The class of the events, where the filter stands for one type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
}

/// Something that a module does by the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerDescription {
    /// The handler.
    pub name: String,
    /// How often, in milliseconds.
    pub every_ms: u64,
    /// The time of day, for one that looks at the calendar so often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<String>,
}

/// A command of a module: `lodestar <module> <name>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommandDescription {
    /// The verb.
    pub name: String,
    /// What it does; the description of the arguments' schema, empty where that has none.
    pub about: String,
    /// The JSON schema of its arguments.
    pub args: Schema,
    /// Whether it writes a stream before its answer, to be kept with `--out FILE`.
    pub streams: bool,
    /// Whether it answers without waiting until the events before it are handled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_barrier: bool,
}

//! Description that a module gives of itself before it runs.

use schemars::Schema;
use serde::{Deserialize, Serialize};

use crate::Class;

/// Everything that a module declares in its `wire`, and the schema of its configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    /// Version of the SDK that the module was built with.
    pub sdk_version: String,
    /// Topics that it subscribes to.
    pub subscriptions: Vec<Subscription>,
    /// Timers that it has.
    pub timers: Vec<TimerDescription>,
    /// Commands that it answers.
    pub commands: Vec<CommandDescription>,
    /// JSON schema of its configuration.
    pub config_schema: Schema,
}

/// A topic filter that a module listens to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Topic filter: `llm.request.completed`, `lynex.*`, `llm.>`.
    pub filter: String,
    /// Class of the events, where the filter stands for one type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
}

/// A timer of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerDescription {
    /// Name of the handler.
    pub name: String,
    /// Period in milliseconds.
    pub every_ms: u64,
    /// Time of day, for a timer that checks the calendar once per period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<String>,
}

/// A command of a module: `lodestar <module> <name>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommandDescription {
    /// Name of the command.
    pub name: String,
    /// Help; the description of the arguments' schema, empty where that has none.
    pub about: String,
    /// JSON schema of its arguments.
    pub args: Schema,
    /// `true` when it writes a stream before its answer, to be kept with `--out FILE`.
    pub streams: bool,
    /// `true` when it answers without waiting until the events before it are handled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_barrier: bool,
    /// `true` when it reads [`Files`](crate::Files): those at the path in the argument that is
    /// marked with `x-files`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reads_files: bool,
}

//! The trait that an author implements.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Host, Result, Wiring};

/// A Lodestar module.
///
/// All calls come from one thread of the host that belongs to this module, one at a time, so the
/// handlers take `&mut self` and need no lock.
pub trait Module: Sized + 'static {
    /// The module's section of `modules.yaml`. Derive `Deserialize` with
    /// `#[serde(deny_unknown_fields, default)]` so that a misspelt key is an error with a hint.
    type Config: DeserializeOwned + JsonSchema;

    /// Tells whether a configuration makes sense: what its types cannot say, such as ranges, names
    /// and keys that contradict each other. Called before [`start`](Self::start), and in a process
    /// of its own by `lodestard --check` and before a changed file is taken: so it looks at nothing
    /// but `config`, and changes nothing.
    ///
    /// # Errors
    ///
    /// What is wrong, best as [`Error::config_at`](crate::Error::config_at), which leads to the
    /// line of the file.
    fn check(config: &Self::Config) -> Result<()> {
        let _ = config;
        Ok(())
    }

    /// Makes a running module from a configuration that was checked: constructing is starting.
    ///
    /// # Errors
    ///
    /// When it cannot run. The reason is shown to the operator; the other modules run on.
    fn start(config: Self::Config, host: &Host) -> Result<Self>;

    /// Says which events, timers and commands the module answers to.
    fn wire(wiring: &mut Wiring<Self>);

    /// How it is.
    fn health(&self) -> Health {
        Health::ok("")
    }

    /// What the next generation should know. `None` for nothing.
    ///
    /// # Errors
    ///
    /// When the state cannot be written down; a reload then stops.
    fn snapshot(&mut self) -> Result<Option<Snapshot>> {
        Ok(None)
    }

    /// Takes over what the generation before gave. Called right after [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// When it cannot be read; the generation before then goes on.
    fn restore(&mut self, snapshot: Snapshot) -> Result<()> {
        let _ = snapshot;
        Ok(())
    }

    /// The last call: finish what is under way within `grace`. Dropping the module does the rest.
    ///
    /// # Errors
    ///
    /// When something could not be brought to its end; it is logged, and the module stops anyway.
    fn stop(&mut self, grace: Duration) -> Result<()> {
        let _ = grace;
        Ok(())
    }
}

/// How a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It does all of its work.
    Ok,
    /// It does a part of its work.
    Degraded,
    /// It does none of its work.
    Failed,
}

/// How a module is, with a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// In a word.
    pub status: HealthStatus,
    /// In a sentence, empty for nothing to say.
    pub message: String,
}

impl Health {
    /// All is well.
    pub fn ok(message: impl Into<String>) -> Self {
        Self { status: HealthStatus::Ok, message: message.into() }
    }

    /// Something does not work; the message says what, and what to do.
    pub fn degraded(message: impl Into<String>) -> Self {
        Self { status: HealthStatus::Degraded, message: message.into() }
    }

    /// Nothing works; the message says why, and what to do.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { status: HealthStatus::Failed, message: message.into() }
    }
}

/// State on its way from one generation of a module to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The version of the format, the module's own count.
    pub version: u32,
    /// The state, in any form the module likes.
    pub data: Vec<u8>,
}

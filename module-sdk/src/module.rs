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
    /// Type of the module's section of `modules.yaml`. Derive `Deserialize` with
    /// `#[serde(deny_unknown_fields, default)]` so that a misspelt key is an error with a hint.
    type Config: DeserializeOwned + JsonSchema;

    /// Checks whether a configuration makes sense: what its types cannot say, such as ranges, names
    /// and keys that contradict each other. Called before [`start`](Self::start), and in a process
    /// of its own by `lodestard --check` and before a changed file is taken: so it reads nothing
    /// but `config`, and changes nothing.
    ///
    /// # Errors
    ///
    /// When the configuration does not make sense, best as
    /// [`Error::config_at`](crate::Error::config_at), which leads to the line of the file.
    fn check(config: &Self::Config) -> Result<()> {
        let _ = config;
        Ok(())
    }

    /// Starts the module with a configuration that was checked.
    ///
    /// # Errors
    ///
    /// When it cannot run. The reason is shown to the operator; the other modules run on.
    fn start(config: Self::Config, host: &Host) -> Result<Self>;

    /// Registers the events, timers and commands that the module handles.
    fn wire(wiring: &mut Wiring<Self>);

    /// Returns the module's health.
    fn health(&self) -> Health {
        Health::ok("")
    }

    /// Returns the state for the next generation; `None` for none.
    ///
    /// # Errors
    ///
    /// When the state cannot be written down; a reload then stops.
    fn snapshot(&mut self) -> Result<Option<Snapshot>> {
        Ok(None)
    }

    /// Takes over the state of the previous generation. Called right after [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// When the state cannot be read; the previous generation then goes on.
    fn restore(&mut self, snapshot: Snapshot) -> Result<()> {
        let _ = snapshot;
        Ok(())
    }

    /// Stops the module: the last call, to finish what is under way within `grace`. Dropping the
    /// module does the rest.
    ///
    /// # Errors
    ///
    /// When something could not be brought to its end; it is logged, and the module stops anyway.
    fn stop(&mut self, grace: Duration) -> Result<()> {
        let _ = grace;
        Ok(())
    }
}

/// Health of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// A module that does all of its work.
    Ok,
    /// A module that does a part of its work.
    Degraded,
    /// A module that does none of its work.
    Failed,
}

/// Health of a module, with a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Health in a word.
    pub status: HealthStatus,
    /// Explanation in a sentence, empty for none.
    pub message: String,
}

impl Health {
    /// Creates the health of a module that does all of its work.
    pub fn ok(message: impl Into<String>) -> Self {
        Self { status: HealthStatus::Ok, message: message.into() }
    }

    /// Creates the health of a module that does a part of its work; the message says what does not
    /// work, and what to do.
    pub fn degraded(message: impl Into<String>) -> Self {
        Self { status: HealthStatus::Degraded, message: message.into() }
    }

    /// Creates the health of a module that does none of its work; the message says why, and what to
    /// do.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { status: HealthStatus::Failed, message: message.into() }
    }
}

/// State on its way from one generation of a module to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of the format, the module's own count.
    pub version: u32,
    /// State, in any form that the module likes.
    pub data: Vec<u8>,
}

//! The tasks that carry notes: one at a time for each channel, on the module's own runtime.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use module_sdk::{Host, Result};
use tokio::task::JoinHandle;

use crate::channels::{Channel, Envelope, SendError};

/// The channels, and what is on its way.
pub struct Couriers {
    host: Host,
    channels: BTreeMap<String, Arc<dyn Channel>>,
    tasks: BTreeMap<String, JoinHandle<Outcome>>,
}

type Outcome = std::result::Result<(), SendError>;

/// Time within which any channel has to come to an end, whatever its own deadline is.
const LONGEST: Duration = Duration::from_secs(90);

impl std::fmt::Debug for Couriers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Couriers({} of {} on their way)", self.tasks.len(), self.channels.len())
    }
}

impl Couriers {
    /// Begins with channels by name.
    #[must_use]
    pub fn new(host: &Host, channels: BTreeMap<String, Arc<dyn Channel>>) -> Self {
        Self { host: host.clone(), channels, tasks: BTreeMap::new() }
    }

    /// Returns a channel.
    #[must_use]
    pub fn channel(&self, name: &str) -> Option<Arc<dyn Channel>> {
        self.channels.get(name).cloned()
    }

    /// Sends a note by a channel that has none on its way.
    ///
    /// # Errors
    ///
    /// When the module's runtime cannot be started.
    pub fn send(&mut self, channel: &str, envelope: Arc<Envelope>) -> Result<()> {
        let Some(own) = self.channel(channel) else { return Ok(()) };
        let task = self.host.spawn(async move { carry(&*own, &envelope).await })?;
        self.tasks.insert(channel.to_owned(), task);
        Ok(())
    }

    /// Returns what came to its end since the last call, by channel.
    pub fn outcomes(&mut self) -> Vec<(String, Outcome)> {
        if !self.tasks.values().any(JoinHandle::is_finished) {
            return Vec::new();
        }
        // Where something was begun there is a runtime, until the module ends.
        let Ok(runtime) = self.host.runtime() else { return Vec::new() };
        let ended = self.tasks.extract_if(.., |_, task| task.is_finished());
        // A task that panicked is no reason for the others not to be carried.
        let outcome =
            |task: JoinHandle<Outcome>| runtime.block_on(task).unwrap_or(Err(SendError::Broken));
        ended.map(|(channel, task)| (channel, outcome(task))).collect()
    }

    /// Returns whether nothing is on its way, and every outcome was taken.
    #[must_use]
    pub fn has_nothing(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Returns whether nothing is on its way any more.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.tasks.values().all(JoinHandle::is_finished)
    }

    /// Gives up on what is on its way.
    pub fn stop(&mut self) {
        for task in std::mem::take(&mut self.tasks).into_values() {
            task.abort();
        }
    }
}

/// Sends a note within the longest deadline.
pub async fn carry(channel: &dyn Channel, envelope: &Envelope) -> Outcome {
    let sent = tokio::time::timeout(LONGEST, channel.send(envelope)).await;
    sent.unwrap_or(Err(SendError::Late(LONGEST)))
}

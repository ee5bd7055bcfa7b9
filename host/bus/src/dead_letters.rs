//! Dead letters: look at them, and give them another chance.

use std::sync::{Arc, mpsc};

use uuid::Uuid;

use super::{
    core::{Bus, SubscribeError},
    subscriber::Subscriber,
};
use crate::ledger::{Audience, DeadLetter, Entry, Event, Job, LedgerError, PublishError, io_error};

impl Bus {
    /// Returns the dead letters of one module or of all, oldest first for each module.
    ///
    /// # Errors
    ///
    /// When the module has no subscription, or the letters cannot be read.
    pub fn dead(&self, module: Option<&str>) -> Result<Vec<DeadLetter>, SubscribeError> {
        let mut subscribers = match module {
            Some(module) => vec![self.subscriber(module)?],
            None => self.shared.routes().subscribers.clone(),
        };
        subscribers.sort_unstable_by(|left, right| left.module.cmp(&right.module));
        let mut dead_letters = Vec::new();
        for subscriber in subscribers {
            let read = subscriber.dead.read();
            dead_letters.extend(
                read.map_err(io_error("read the dead letters in", &self.shared.dead_directory))?,
            );
        }
        Ok(dead_letters)
    }

    /// Replays dead letters of a module, all or those with these ids; returns their number. They go
    /// to the end of the ledger for this module only, under their old ids: `dead` goes down and
    /// `pending` up. Must not be called on the ledger's writer thread.
    ///
    /// # Errors
    ///
    /// When the module has no subscription, or the ledger does not take them.
    pub fn replay_dead(&self, module: &str, ids: Option<&[Uuid]>) -> Result<u64, SubscribeError> {
        let _housekeeping = self.shared.housekeeping();
        let subscriber = self.subscriber(module)?;
        // After a kill in the middle, the counters must know the letters that were replayed.
        self.shared.persist()?;
        let taken = subscriber.dead.take(
            |letter| is_meant(ids, letter),
            |dead_letters| self.publish_again(&subscriber.module, dead_letters),
        )?;
        self.shared.persist()?;
        Ok(taken.gone)
    }

    /// Writes letters to the ledger for one module and waits until they are pending.
    fn publish_again(
        &self,
        module: &Arc<str>,
        dead_letters: &[DeadLetter],
    ) -> Result<(), LedgerError> {
        let entries = dead_letters.iter().map(|letter| Entry {
            event: Event::clone(&letter.event),
            audience: Audience::DeadLetter(module.clone()),
        });
        let (sender, receiver) = mpsc::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        self.writer.submit(Job { entries: entries.collect(), done: Some(done) })?;
        receiver.recv().unwrap_or(Err(PublishError::Closed))?;
        Ok(())
    }

    pub(super) fn subscriber(&self, module: &str) -> Result<Arc<Subscriber>, SubscribeError> {
        let unknown = || SubscribeError::Unknown(module.to_owned());
        self.shared.routes().find(module).cloned().ok_or_else(unknown)
    }
}

fn is_meant(ids: Option<&[Uuid]>, letter: &DeadLetter) -> bool {
    ids.is_none_or(|ids| ids.contains(&letter.event.id))
}

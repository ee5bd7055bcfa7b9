//! The subscribers that each topic reaches.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use foldhash::fast::RandomState;
use module_sdk::events::fits;

use super::{publish::is_topic, subscriber::Subscriber, tail::Tap};
use crate::ledger::{Epoch, PublishError, RawRecord};

/// Number of topics that are remembered; topics are few, and a flood of new ones must not grow
/// memory.
const REMEMBERED_TOPICS: usize = 4096;

/// The subscribers that a topic reaches, by their place in [`Routes::subscribers`].
pub(super) type Route = Arc<[usize]>;

/// All subscribers and tails, and a cache of routes. Both lists are changed only under the bus's
/// write lock.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Modules that have subscribed and were not removed, running or not.
    pub(super) subscribers: Vec<Arc<Subscriber>>,
    pub(super) taps: Vec<Arc<Tap>>,
    known: RwLock<HashMap<Arc<str>, Route, RandomState>>,
}

impl Routes {
    /// Returns the subscribers of a topic. A text that is no topic is refused.
    pub(super) fn of(&self, topic: &Arc<str>) -> Result<Route, PublishError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = known.get(topic) {
            return Ok(route.clone());
        }
        drop(known);
        if !is_topic(topic) {
            let topic = topic.chars().take(64).collect();
            return Err(PublishError::Topic { topic });
        }
        let reached = self.subscribers.iter().enumerate();
        let route: Route = reached
            .filter(|(_, subscriber)| subscriber.listens_to(topic))
            .map(|(index, _)| index)
            .collect();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_TOPICS {
            known.clear();
        }
        known.insert(topic.clone(), route.clone());
        Ok(route)
    }

    /// Forgets the remembered routes, after a change of subscribers or filters.
    pub(super) fn changed(&mut self) {
        self.known.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn find(&self, module: &str) -> Option<&Arc<Subscriber>> {
        self.subscribers.iter().find(|subscriber| *subscriber.module == *module)
    }
}

/// Checks whether a record of the ledger is for a module with these filters.
pub(super) fn wants(module: &str, epochs: &[Epoch], record: &RawRecord<'_>) -> bool {
    if !record.module.is_empty() {
        return record.module == module;
    }
    let epoch = epochs.iter().rev().find(|epoch| epoch.from <= record.sequence);
    epoch.is_some_and(|epoch| any_fits(&epoch.filters, record.topic))
}

/// Checks whether one of the filters fits a topic.
pub(super) fn any_fits(filters: &[String], topic: &str) -> bool {
    filters.iter().any(|filter| fits(filter, topic))
}

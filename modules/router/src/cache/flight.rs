//! Equal requests at one time: one is asked, the others wait for its answer.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{
    key::CacheKey,
    stored::{Form, Stored},
};

/// Place of an answer in the cache.
pub(super) type Slot = (CacheKey, Form);

/// Requests that wait for one answer, at most; further ones are asked for themselves.
const MOST_WAITING: usize = 1_000;

/// The requests that are under way.
#[derive(Debug, Default)]
pub(super) struct Flights {
    waiting: Mutex<HashMap<Slot, VecDeque<oneshot::Sender<Baton>>>>,
}

/// Message to one that waits.
#[derive(Debug)]
pub(super) enum Baton {
    /// The answer.
    Answer(Arc<Stored>),
    /// The one that asked failed or went away: this one asks now.
    Lead(Lead),
    /// There was an answer, which others may not have: each asks for itself.
    Alone,
}

/// Part that a request plays.
#[derive(Debug)]
pub(super) enum Part {
    /// It asks, for all.
    Lead(Lead),
    /// It waits.
    Wait(oneshot::Receiver<Baton>),
    /// It asks, for itself.
    Alone,
}

/// Duty to ask for all that wait. Dropped, it goes to the next of them.
#[derive(Debug)]
pub(super) struct Lead {
    flights: Arc<Flights>,
    slot: Slot,
    is_over: bool,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Slot, VecDeque<oneshot::Sender<Baton>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins those who ask for one answer.
    pub(super) fn join(self: &Arc<Self>, slot: Slot) -> Part {
        let mut waiting = self.lock();
        let Some(queue) = waiting.get_mut(&slot) else {
            waiting.insert(slot, VecDeque::new());
            return Part::Lead(Lead { flights: self.clone(), slot, is_over: false });
        };
        if queue.len() >= MOST_WAITING {
            queue.retain(|waiter| !waiter.is_closed());
        }
        if queue.len() >= MOST_WAITING {
            return Part::Alone;
        }
        let (sender, receiver) = oneshot::channel();
        queue.push_back(sender);
        Part::Wait(receiver)
    }

    /// Returns how many requests are asked for all.
    pub(super) fn number(&self) -> usize {
        self.lock().len()
    }

    /// Returns how many wait for an answer.
    #[cfg(test)]
    pub(super) fn waiting(&self, slot: &Slot) -> usize {
        let open = |queue: &VecDeque<oneshot::Sender<Baton>>| {
            queue.iter().filter(|waiter| !waiter.is_closed()).count()
        };
        self.lock().get(slot).map_or(0, open)
    }
}

impl Lead {
    /// Gives all that wait the answer, or none that they may have.
    pub(super) fn end(mut self, answer: Option<&Arc<Stored>>) {
        self.is_over = true;
        let queue = self.flights.lock().remove(&self.slot).unwrap_or_default();
        for waiter in queue {
            // One that is gone needs none.
            let _ = waiter.send(answer.cloned().map_or(Baton::Alone, Baton::Answer));
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        while !self.is_over {
            let next = {
                let mut waiting = self.flights.lock();
                let next = waiting.get_mut(&self.slot).and_then(VecDeque::pop_front);
                if next.is_none() {
                    waiting.remove(&self.slot);
                }
                next
            };
            let Some(waiter) = next else { return };
            let lead = Self { flights: self.flights.clone(), slot: self.slot, is_over: false };
            match waiter.send(Baton::Lead(lead)) {
                Ok(()) => self.is_over = true,
                // It is gone: this one is not over, and looks for the next.
                Err(Baton::Lead(mut unused)) => unused.is_over = true,
                Err(_) => {}
            }
        }
    }
}

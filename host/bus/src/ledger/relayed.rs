//! The ids of relayed events, so that none of them is taken twice.

use std::{
    collections::{HashSet, VecDeque},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::{Ledger, Reader};

/// Number of ids remembered at most; with their places in the set they take 4 MiB.
pub(crate) const REMEMBERED: usize = 65_536;

/// Size of the part of the ledger, from its end, that is read for the ids of earlier runs, in
/// bytes.
const READ_BYTES: u64 = 64 << 20;

/// Set of the newest ids of relayed events. Nothing is allocated or read before the first one.
#[derive(Debug, Default)]
pub(crate) struct RelayedIds(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    ids: HashSet<Uuid>,
    /// Ids in the order in which they came, oldest first.
    order: VecDeque<Uuid>,
    is_loaded: bool,
}

impl RelayedIds {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the ids that the ledger holds, up to the event `upto`, unless they were read before.
    pub(crate) fn load(&self, ledger: &Ledger, upto: u64) -> io::Result<()> {
        let mut known = self.known();
        if known.is_loaded {
            return Ok(());
        }
        Reader::at(begin(ledger)).visit(ledger, upto, |record| {
            if record.is_relayed() {
                known.insert(record.id);
            }
            true
        })?;
        known.is_loaded = true;
        Ok(())
    }

    pub(crate) fn contains(&self, id: Uuid) -> bool {
        self.known().ids.contains(&id)
    }

    /// Remembers an id; returns whether it was new.
    pub(crate) fn insert(&self, id: Uuid) -> bool {
        self.known().insert(id)
    }

    /// Forgets an id whose event was not taken in the end.
    pub(crate) fn remove(&self, id: Uuid) {
        let mut known = self.known();
        known.ids.remove(&id);
        known.order.retain(|other| *other != id);
    }
}

impl Known {
    fn insert(&mut self, id: Uuid) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

/// Returns the base of the oldest of the last segments that have at most [`READ_BYTES`] together.
fn begin(ledger: &Ledger) -> u64 {
    let mut bytes = 0;
    let segments = ledger.list();
    let newest = segments.iter().rev().take_while(|info| {
        bytes += info.bytes;
        bytes <= READ_BYTES
    });
    newest.last().or(segments.last()).map_or(0, |info| info.base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_ids_are_remembered_and_no_more() {
        let relayed = RelayedIds::default();
        let id = |number: usize| Uuid::from_u128(number as u128 + 1);
        assert!(relayed.insert(id(0)));
        assert!(!relayed.insert(id(0)));
        (1..REMEMBERED).for_each(|number| assert!(relayed.insert(id(number))));
        assert!(relayed.contains(id(0)));
        assert!(relayed.insert(id(REMEMBERED)));
        assert!(!relayed.contains(id(0)) && relayed.contains(id(1)));
        relayed.remove(id(1));
        assert!(relayed.insert(id(1)));
        assert_eq!(relayed.known().order.len(), REMEMBERED);
    }
}

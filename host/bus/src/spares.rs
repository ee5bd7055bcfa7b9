//! Allocations of single events, used more than once.

use std::sync::{Arc, Mutex, PoisonError};

use module_sdk::Class;

use crate::ledger::Event;

/// Number of events that are kept: twice as many as a module settles at once.
const KEPT: usize = 512;
/// Size of the largest event that is kept, in bytes: a flood of large ones leaves nothing behind.
const LARGEST: usize = 1 << 10;

/// Live events that everybody is done with, each in a group of its own. The next ones take their
/// places, so that publishers free what they have allocated: glibc frees what another thread
/// allocated under a lock, for which a publisher sleeps whenever a handler is about to free.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Vec<Arc<[Event]>>>);

impl Spares {
    /// Returns a group of one event.
    pub(super) fn group(&self, [new]: [Event; 1]) -> Arc<[Event]> {
        if let Some(mut spare) = self.take()
            && let Some([old]) = Arc::get_mut(&mut spare)
        {
            *old = new;
            return spare;
        }
        Arc::new([new])
    }

    /// Returns a spare, or none where that would take waiting.
    fn take(&self) -> Option<Arc<[Event]>> {
        self.0.try_lock().ok()?.pop()
    }

    /// Takes as many of `spares` as there is room for, and frees the others.
    pub(super) fn keep(&self, spares: &mut Vec<Arc<[Event]>>) {
        if spares.is_empty() {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT.saturating_sub(kept.len()).min(spares.len());
        kept.extend(spares.drain(..room));
        drop(kept);
        spares.clear();
    }
}

/// Returns the group where nobody else has it and it is worth keeping; otherwise lets go of it.
pub(super) fn spare(group: Arc<[Event]>) -> Option<Arc<[Event]>> {
    // A reference that is the only one stays the only one while it is not cloned.
    let is_spare = Arc::strong_count(&group) == 1
        && matches!(&*group, [alone] if alone.class == Class::Live && alone.weight() <= LARGEST);
    is_spare.then_some(group)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn event(class: Class, bytes: usize) -> Event {
        Event {
            id: Uuid::nil(),
            time_ns: 1,
            sequence: 1,
            class,
            topic: "a.b".into(),
            source: "/lodestar/test".into(),
            subject: "".into(),
            traceparent: "".into(),
            data: vec![b'1'; bytes].into(),
        }
    }

    #[test]
    fn only_small_live_events_that_nobody_has_are_spare() {
        let shared: Arc<[Event]> = Arc::new([event(Class::Live, 1)]);
        assert!(spare(shared.clone()).is_none());
        assert!(spare(shared).is_some());
        assert!(spare(Arc::new([event(Class::Live, LARGEST)])).is_none());
        assert!(spare(Arc::new([event(Class::Ledger, 1)])).is_none());
        assert!(spare(Arc::new([event(Class::Live, 1), event(Class::Live, 1)])).is_none());
    }

    #[test]
    fn a_new_event_takes_the_place_of_a_spare() {
        let spares = Spares::default();
        let old = spares.group([event(Class::Live, 1)]);
        let place = old.as_ptr();
        spares.keep(&mut vec![old]);
        let new = spares.group([event(Class::Live, 2)]);
        assert_eq!((new.as_ptr(), &*new), (place, &[event(Class::Live, 2)][..]));
        assert_ne!(spares.group([event(Class::Live, 3)]).as_ptr(), place, "it is in use");
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let spares = Spares::default();
        for _ in 0..3 {
            let mut settled: Vec<Arc<[Event]>> = Vec::new();
            settled.resize_with(KEPT - 1, || Arc::new([event(Class::Live, 1)]));
            spares.keep(&mut settled);
            assert!(settled.is_empty());
        }
        assert_eq!(std::iter::from_fn(|| spares.take()).count(), KEPT);
    }
}

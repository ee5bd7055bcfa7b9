//! Xids: the errors that the driver tells of a card, counted as they come.
//!
//! A gauge of the last Xid neither ends nor shows the same one twice, so a thread of its own takes
//! the events and counts them: it alone can hold the sets of events for as long as a session lasts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use nvml_wrapper::{
    EventSet, Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
};

use crate::text;

/// Time between two looks at the events. They wait in the driver meanwhile.
const PAUSE: Duration = Duration::from_secs(1);
/// Time that the driver is given to hand out an event that it has, in milliseconds.
const WAIT_MS: u32 = 1;
/// Events of a card that are taken at once.
const EVENTS: usize = 100;
/// Time that the end of a session waits for the thread.
const GRACE: Duration = Duration::from_secs(1);
/// Different Xids that are counted of a card; what is beyond is counted together.
const XIDS: usize = 32;

/// Kind of an Xid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Xid {
    /// One with a number.
    Number(u64),
    /// One that the driver does not tell the number of.
    Unknown,
    /// One of a card that had too many different ones before.
    Other,
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "xid_{number}"),
            Self::Unknown => f.write_str("xid_unknown"),
            Self::Other => f.write_str("xid_other"),
        }
    }
}

/// Xids that came, by card. They are kept while sessions come and go.
#[derive(Debug, Default)]
pub(super) struct Counts {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<String, BTreeMap<Xid, u64>>,
    /// Number of the watch that counts; those before it have an event as well.
    current: u64,
    /// Watches whose thread has not ended.
    running: BTreeSet<u64>,
}

impl Counts {
    /// Returns the Xids of a card, with how often each came.
    pub(super) fn of(&self, id: &str) -> Vec<(Xid, u64)> {
        let state = self.lock();
        let counts = state.counts.get(id).into_iter().flatten();
        counts.map(|(xid, count)| (*xid, *count)).collect()
    }

    fn count(&self, watch: u64, id: &str, xid: Xid) {
        let mut state = self.lock();
        if state.current != watch {
            return;
        }
        let counts = state.counts.entry(id.to_owned()).or_default();
        let is_known = counts.contains_key(&xid) || counts.len() < XIDS;
        *counts.entry(if is_known { xid } else { Xid::Other }).or_default() += 1;
    }

    fn end(&self, watch: u64) {
        self.lock().running.remove(&watch);
        self.changed.notify_all();
    }

    /// Waits until the next look is due; returns `false` where the watch is over.
    fn pause(&self, watch: u64) -> bool {
        let is_current = |state: &mut State| state.current == watch;
        let waited = self.changed.wait_timeout_while(self.lock(), PAUSE, is_current);
        waited.unwrap_or_else(PoisonError::into_inner).0.current == watch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that counts the Xids of one session.
#[derive(Debug)]
pub(super) struct Watch {
    counts: Arc<Counts>,
    number: u64,
}

impl Watch {
    /// Starts the thread for these cards; returns `None` where none of them tells Xids.
    pub(super) fn start(
        nvml: Arc<Nvml>,
        cards: Vec<(u32, Arc<str>)>,
        counts: &Arc<Counts>,
    ) -> Option<Self> {
        if cards.is_empty() {
            return None;
        }
        let number = {
            let mut state = counts.lock();
            state.current += 1;
            let number = state.current;
            state.running.insert(number);
            number
        };
        let watch = Self { counts: counts.clone(), number };
        let counts = counts.clone();
        let spawned = thread::Builder::new().name("hm:gpu-xid".to_owned()).spawn(move || {
            let ended = Ended { counts: &counts, number };
            listen(&nvml, &cards, number, &counts);
            // The session ends with its last user, and may be over only then.
            drop(nvml);
            drop(ended);
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "Xids of NVIDIA cards cannot be counted");
            watch.counts.end(number);
            return None;
        }
        Some(watch)
    }
}

impl Drop for Watch {
    /// Ends the thread, and waits for it for a while: one that hangs in the driver is left behind.
    fn drop(&mut self) {
        let mut state = self.counts.lock();
        if state.current == self.number {
            state.current += 1;
            self.counts.changed.notify_all();
        }
        let is_running = |state: &mut State| state.running.contains(&self.number);
        let waited = self.counts.changed.wait_timeout_while(state, GRACE, is_running);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            tracing::warn!("a question for Xids hangs in the NVIDIA driver and is left behind");
        }
    }
}

/// End of the thread, however it comes about.
struct Ended<'a> {
    counts: &'a Counts,
    number: u64,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.counts.end(self.number);
    }
}

/// Counts Xids until the watch is over, or no card is left that tells any.
fn listen(nvml: &Nvml, cards: &[(u32, Arc<str>)], number: u64, counts: &Counts) {
    // A set for each card: one that is lost cannot be asked whose event it was.
    let sets = cards.iter().filter_map(|(index, id)| match register(nvml, *index) {
        Ok(set) => Some((id, set)),
        Err(error) => {
            is_over(id, &error);
            None
        }
    });
    let mut sets: Vec<(&Arc<str>, EventSet<'_>)> = sets.collect();
    while !sets.is_empty() && counts.pause(number) {
        sets.retain(|(id, set)| take(set, id, number, counts));
    }
}

/// Counts the Xids of a card that wait; returns `false` where it tells no more.
fn take(set: &EventSet<'_>, id: &str, number: u64, counts: &Counts) -> bool {
    for _ in 0..EVENTS {
        match set.wait(WAIT_MS).map(|event| event.event_data) {
            Ok(Some(XidError::Value(xid))) => counts.count(number, id, Xid::Number(xid)),
            Ok(Some(XidError::Unknown)) => counts.count(number, id, Xid::Unknown),
            Ok(None) => {}
            Err(NvmlError::Timeout) => break,
            Err(error) => return is_over(id, &error),
        }
    }
    true
}

fn register(nvml: &Nvml, index: u32) -> Result<EventSet<'_>, NvmlError> {
    let (set, card) = (nvml.create_event_set()?, nvml.device_by_index(index)?);
    card.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|error| error.error)
}

/// Says that a card tells no more Xids; returns `false`. Of one that is lost the samples tell.
fn is_over(id: &str, error: &NvmlError) -> bool {
    if !matches!(error, NvmlError::GpuLost) {
        let error = text::visible(&error.to_string());
        tracing::warn!(card = id, error, "the Xids of a card are not counted any more");
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_xids_are_counted_as_are_told_apart() {
        let counts = Counts::default();
        for xid in 0..100 {
            counts.count(0, "GPU-1", Xid::Number(xid));
        }
        counts.count(0, "GPU-1", Xid::Number(3));
        // A watch that was followed by another one counts no more.
        counts.count(1, "GPU-1", Xid::Number(3));
        let all = counts.of("GPU-1");
        assert_eq!(all.len(), XIDS + 1);
        assert_eq!(all[3], (Xid::Number(3), 2));
        assert_eq!(all[XIDS], (Xid::Other, 68));
        assert_eq!(Xid::Number(79).to_string(), "xid_79");
    }
}

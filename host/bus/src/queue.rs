//! The queue of events in memory: runs of events published together, oldest first.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use module_sdk::Class;

use crate::ledger::{Event, SharedEvent};

/// Memory that the events of one class may take in a module's inbox, in bytes for each of the
/// events that fit: more than most events take, so that it matters only to a flood of large ones.
const BYTES_PER_EVENT: usize = 4 << 10;

/// Neighbours in a published group that have been treated alike so far. They share one reference:
/// counting each event by itself costs more than handing it over.
#[derive(Debug)]
pub(super) struct Run {
    group: Arc<[Event]>,
    range: Range<usize>,
    /// The arrival stamp of the first event; those after it have the next ones.
    pub(super) stamp: u64,
    /// Number of times the events were handed to the module.
    pub(super) attempt: u32,
    /// Number of times the module failed on them.
    pub(super) failures: u32,
    bytes: usize,
}

impl Run {
    pub(super) fn new(group: Arc<[Event]>, range: Range<usize>, stamp: u64) -> Self {
        let bytes = group[range.clone()].iter().map(Event::weight).sum();
        Self { group, range, stamp, attempt: 0, failures: 0, bytes }
    }

    /// Creates a run of one event.
    pub(super) fn one(event: SharedEvent, stamp: u64) -> Self {
        let (group, index) = event.into_parts();
        Self::new(group, index..index + 1, stamp)
    }

    /// Takes the group out of a run that is settled.
    pub(super) fn into_group(self) -> Arc<[Event]> {
        self.group
    }

    pub(super) fn events(&self) -> &[Event] {
        &self.group[self.range.clone()]
    }

    pub(super) fn first(&self) -> &Event {
        &self.group[self.range.start]
    }

    pub(super) fn share_first(&self) -> SharedEvent {
        SharedEvent::new(self.group.clone(), self.range.start)
    }

    pub(super) fn class(&self) -> Class {
        self.first().class
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    /// Takes the first `count` events away, which are fewer than all.
    fn split_front(&mut self, count: usize) -> Self {
        let middle = self.range.start + count;
        let mut front = Self::new(self.group.clone(), self.range.start..middle, self.stamp);
        (front.attempt, front.failures) = (self.attempt, self.failures);
        self.range.start = middle;
        self.stamp += count as u64;
        self.bytes -= front.bytes;
        front
    }
}

/// Runs of events, oldest first. None of them is empty.
#[derive(Debug, Default)]
pub(super) struct Queue {
    runs: VecDeque<Run>,
    len: usize,
    bytes: usize,
}

impl Queue {
    /// Returns the number of events.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether one more event fits into a queue of at most `events`.
    pub(super) fn has_room(&self, events: usize) -> bool {
        self.len < events && self.bytes < events.saturating_mul(BYTES_PER_EVENT)
    }

    /// Returns whether the newest event no longer fitted when it came.
    pub(super) fn is_over(&self, events: usize) -> bool {
        let most = events.saturating_mul(BYTES_PER_EVENT);
        let newest =
            || self.runs.back().and_then(|run| run.events().last()).map_or(0, Event::weight);
        self.len > events || self.len > 1 && self.bytes >= most && self.bytes - newest() >= most
    }

    pub(super) fn push(&mut self, run: Run) {
        self.came(&run);
        self.runs.push_back(run);
    }

    pub(super) fn push_front(&mut self, run: Run) {
        self.came(&run);
        self.runs.push_front(run);
    }

    /// Removes and returns the oldest events, at most `max` of one run.
    pub(super) fn pop(&mut self, max: usize) -> Option<Run> {
        let front = self.runs.front_mut()?;
        if max == 0 {
            return None;
        }
        let run = if front.len() <= max { self.runs.pop_front()? } else { front.split_front(max) };
        self.gone(&run);
        Some(run)
    }

    /// Moves the oldest events to the end of another queue: whole runs, at most `max` events.
    /// Returns how many. Publishers wait for the lock meanwhile, so that it takes no step for each
    /// run where all of them go.
    pub(super) fn move_to(&mut self, other: &mut Self, max: usize) -> usize {
        if other.is_empty() && self.len <= max {
            std::mem::swap(self, other);
            return other.len;
        }
        let (mut runs, mut events, mut bytes) = (0, 0, 0);
        for run in &self.runs {
            if events + run.len() > max {
                break;
            }
            runs += 1;
            events += run.len();
            bytes += run.bytes;
        }
        other.runs.extend(self.runs.drain(..runs));
        (self.len, self.bytes) = (self.len - events, self.bytes - bytes);
        (other.len, other.bytes) = (other.len + events, other.bytes + bytes);
        events
    }

    /// Removes and returns the newest run.
    pub(super) fn pop_back(&mut self) -> Option<Run> {
        let run = self.runs.pop_back()?;
        self.gone(&run);
        Some(run)
    }

    pub(super) fn front(&self) -> Option<&Run> {
        self.runs.front()
    }

    /// Splits the oldest event off into a run of its own, and returns that run.
    pub(super) fn first_alone(&mut self) -> Option<&mut Run> {
        self.split_at(1);
        self.runs.front_mut()
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    /// Counts one more attempt for the oldest `count` events, and returns them.
    pub(super) fn hand_out(&mut self, count: usize) -> impl Iterator<Item = (&Event, u32)> {
        let whole = self.split_at(count);
        self.runs.iter_mut().take(whole).for_each(|run| run.attempt += 1);
        let runs = self.runs.iter().take(whole);
        runs.flat_map(|run| run.events().iter().map(|event| (event, run.attempt)))
    }

    /// Splits runs so that the oldest `count` events are whole runs, and returns the number of
    /// these runs.
    fn split_at(&mut self, mut count: usize) -> usize {
        let mut place = 0;
        while count > 0 && place < self.runs.len() {
            let run = &mut self.runs[place];
            if run.len() > count {
                let front = run.split_front(count);
                self.runs.insert(place, front);
                return place + 1;
            }
            count -= run.len();
            place += 1;
        }
        place
    }

    fn came(&mut self, run: &Run) {
        self.len += run.len();
        self.bytes += run.bytes;
    }

    fn gone(&mut self, run: &Run) {
        self.len -= run.len();
        self.bytes -= run.bytes;
    }
}

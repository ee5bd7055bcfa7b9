//! Statistics of a module's calls: how many of each kind, how long they take, and how many fail.

use std::{
    borrow::Cow,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{CallClock, Durations, latency::Latency, state::lock};

/// Time between the two moments that [`Meter::recent`] counts from: it covers between one and two
/// of these.
const TURN: Duration = Duration::from_secs(30);

/// The kinds of calls that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A batch of events.
    Events,
    /// A command.
    Command,
    /// A timer.
    Timer,
    /// A question for the module's health.
    Health,
}

impl Work {
    /// All kinds of calls.
    pub const ALL: [Self; 4] = [Self::Events, Self::Command, Self::Timer, Self::Health];

    /// Returns the label in metrics and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Command => "command",
            Self::Timer => "timer",
            Self::Health => "health",
        }
    }
}

/// The calls of one module since the daemon started. Its thread writes, once for each call and not
/// for each event; everybody reads.
#[derive(Debug, Default)]
pub struct Meter {
    kinds: [Gauge; Work::ALL.len()],
    turns: Mutex<Turns>,
}

#[derive(Debug, Default)]
struct Gauge {
    latency: Latency,
    items: AtomicU64,
    failures: AtomicU64,
}

/// Durations that were counted until two moments of the past.
#[derive(Debug, Default)]
struct Turns {
    before: Durations,
    last: Durations,
    at: Option<Instant>,
}

/// The calls of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Kind of the calls.
    pub work: Work,
    /// Durations of the calls.
    pub durations: Durations,
    /// Number of events that were handed over in the calls; for other kinds, the number of calls.
    pub items: u64,
    /// Number of calls that failed.
    pub failures: u64,
}

impl Meter {
    /// Runs a call under the clock and counts it. `items` are the events that it hands over.
    pub fn time<T>(
        &self,
        clock: &CallClock,
        (work, items): (Work, usize),
        what: impl Into<Cow<'static, str>>,
        call: impl FnOnce() -> T,
    ) -> T {
        let (result, took) = clock.timed(what, call);
        let kind = &self.kinds[work as usize];
        kind.latency.record(took);
        kind.items.fetch_add(items as u64, Ordering::Relaxed);
        result
    }

    /// Counts a failed call.
    pub fn failed(&self, work: Work) {
        self.kinds[work as usize].failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the statistics of every kind of call.
    #[must_use]
    pub fn measured(&self) -> [Measured; Work::ALL.len()] {
        Work::ALL.map(|work| {
            let kind = &self.kinds[work as usize];
            Measured {
                work,
                durations: kind.latency.durations(),
                items: kind.items.load(Ordering::Relaxed),
                failures: kind.failures.load(Ordering::Relaxed),
            }
        })
    }

    /// Returns the calls of the last half to whole minute, without questions for the module's
    /// health: those come whenever somebody looks.
    #[must_use]
    pub fn recent(&self) -> Durations {
        self.work().since(&lock(&self.turns).before)
    }

    /// Moves the start of the recent period. To be called every second or so.
    pub fn turn(&self, now: Instant) {
        let mut turns = lock(&self.turns);
        let last = *turns.at.get_or_insert(now);
        if now.saturating_duration_since(last) >= TURN {
            let all = self.work();
            turns.before = std::mem::replace(&mut turns.last, all);
            turns.at = Some(now);
        }
    }

    fn work(&self) -> Durations {
        let mut all = Durations::default();
        for work in [Work::Events, Work::Command, Work::Timer] {
            all.add(&self.kinds[work as usize].latency.durations());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_calls_items_and_failures_by_kind() {
        let (meter, clock) = (Meter::default(), CallClock::default());
        let answer = meter
            .time(&clock, (Work::Events, 256), "handler", || clock.running().map(|(what, _)| what));
        assert_eq!(answer.as_deref(), Some("handler"));
        meter.time(&clock, (Work::Timer, 1), "retain".to_owned(), || ());
        meter.failed(Work::Timer);
        let figures = meter.measured();
        let numbers =
            figures.map(|it| (it.work.name(), it.durations.count(), it.items, it.failures));
        let expected =
            [("events", 1, 256, 0), ("command", 0, 0, 0), ("timer", 1, 1, 1), ("health", 0, 0, 0)];
        assert_eq!(numbers, expected);
    }

    #[test]
    fn what_is_old_is_not_recent() {
        let (meter, clock, begin) = (Meter::default(), CallClock::default(), Instant::now());
        let call = |work| meter.time(&clock, (work, 1), "call", || ());
        let recent_at = |seconds: u64| {
            meter.turn(begin + Duration::from_secs(seconds));
            meter.recent().count()
        };
        call(Work::Events);
        call(Work::Health);
        assert_eq!([0, 10, 30, 59].map(recent_at), [1, 1, 1, 1]);
        call(Work::Command);
        assert_eq!(recent_at(60), 1, "the first call was before the last turn but one");
        assert_eq!(recent_at(90), 0);
    }
}

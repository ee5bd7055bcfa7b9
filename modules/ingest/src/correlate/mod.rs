//! Correlates the reports of one request: a log, a span and an SDK event may all report the same
//! one.
//!
//! A report gets the `dedupe_key` of its request. Strong matches: the same request or response id,
//! the same span, or a parent and its child span. Weak match: the same session, model, counts and
//! time, and then only between different reporters, since two records of one reporter are two
//! requests. adr/0020 has the reasons.

mod journal;
mod key;
mod lineage;
mod marks;
mod sighting;
mod sum;
mod sums;
mod turns;

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::Path,
    time::Duration,
};

use smallvec::{SmallVec, smallvec};

use journal::Journal;
use lineage::Lineage;
use marks::{mark_child, mark_key, mark_pair, mark_within, marks_of_one, marks_of_relatives};
use sighting::{Sighting, hash};
use sums::{Outer, Withdrawal};

use crate::report::Report;
pub(crate) use lineage::Link;
pub(crate) use sighting::span_mark;
pub(crate) use turns::Shared;

/// The way in which a report was correlated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Correlated {
    /// A request that was not known.
    New,
    /// A record that was received before.
    Resent,
    /// Matched by a request or response id.
    ById,
    /// Matched by a span and its parent.
    BySpan,
    /// Matched by the trace of a Lynex event.
    ByPair,
    /// Matched by session, model, counts and time.
    ByCounts,
    /// No request, but the sum of the requests within it.
    Sum,
}

impl Correlated {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Resent => "resent",
            Self::ById => "id",
            Self::BySpan => "span",
            Self::ByPair => "pair",
            Self::ByCounts => "counts",
            Self::Sum => "sum",
        }
    }
}

/// Largest amount of memory that one report takes, with its places in the maps, which grow by
/// doubling, in bytes.
pub(crate) const REMEMBERED: usize = 1024;

/// Largest number of requests that are remembered.
const MAX_REQUESTS: usize = 50_000;

/// Largest number of reports of one request that are remembered; further ones are compared with
/// those. A request has three or four; a program that gives all its requests one id has thousands.
const MAX_SIGHTINGS: usize = 16;

/// Largest number of candidates of a weak match that are looked at, newest first: many requests
/// with the same counts at the same moment must not make each of them slow.
const MAX_CANDIDATES: usize = 512;

/// Largest number of reporters that are told apart in the marks of counts.
const MAX_REPORTERS: usize = 64;

/// Reporter in the marks of a request that several reporters have reported.
const SEVERAL: u64 = 0;

/// The remembered reports of one request: mostly one.
type Sightings = SmallVec<[Sighting; 1]>;

/// Numbers of requests: mostly one.
type Numbers = SmallVec<[u64; 2]>;

/// The recent requests, by which new reports are correlated.
#[derive(Debug)]
pub(crate) struct Correlator {
    window_ms: i64,
    forget_ms: i64,
    /// The requests, oldest first; the number of the first is `first`.
    requests: VecDeque<Sightings>,
    first: u64,
    /// The request of each identity, id and span.
    one: HashMap<u64, u64>,
    /// The requests that bear each weak mark, in ascending order.
    many: HashMap<u64, Numbers>,
    /// The requests that were reported by each span.
    by_span: HashMap<u64, Numbers>,
    lineage: Lineage,
    /// The requests that each span reports, with what is known within it; kept for one turn.
    outers: HashMap<u64, Vec<Outer>>,
    /// Number of spans and requests that were looked at to judge others.
    visited: u64,
    /// Requests that were published and turned out to be sums, until the ledger has their
    /// withdrawals.
    withdrawn: Vec<Withdrawal>,
    /// The reporters so far.
    reporters: Vec<u64>,
    journal: Option<Journal>,
    unwritten: Vec<Sighting>,
}

impl Correlator {
    /// Creates a correlator that remembers only in memory.
    pub(crate) fn in_memory(window: Duration, forget: Duration) -> Self {
        Self {
            window_ms: milliseconds(window).max(1),
            forget_ms: milliseconds(forget),
            requests: VecDeque::new(),
            first: 0,
            one: HashMap::new(),
            many: HashMap::new(),
            by_span: HashMap::new(),
            lineage: Lineage::default(),
            outers: HashMap::new(),
            visited: 0,
            withdrawn: Vec::new(),
            reporters: Vec::new(),
            journal: None,
            unwritten: Vec::new(),
        }
    }

    /// Opens a correlator that remembers across restarts, in `directory`.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read or written.
    pub(crate) fn open(
        directory: &Path,
        window: Duration,
        forget: Duration,
        now_ms: i64,
    ) -> io::Result<Self> {
        let mut correlator = Self::in_memory(window, forget);
        let (journal, sightings) = Journal::open(directory, correlator.forget_ms, now_ms)?;
        correlator.journal = Some(journal);
        for sighting in sightings {
            correlator.remember(sighting);
        }
        correlator.forget(now_ms);
        Ok(correlator)
    }

    /// Learns what another generation of the module has written in the meantime.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read; correlation goes on with what is known.
    pub(crate) fn refresh(&mut self, now_ms: i64) -> io::Result<()> {
        self.forget(now_ms);
        let Some(journal) = &mut self.journal else { return Ok(()) };
        for sighting in journal.read_new(now_ms)? {
            self.remember(sighting);
        }
        Ok(())
    }

    /// Sets the key of a report, and returns how it was correlated.
    pub(crate) fn resolve(&mut self, report: &mut Report, now_ms: i64) -> Correlated {
        let mut sighting = Sighting::of(report, now_ms);
        if let Some(number) = self.one.get(&sighting.identity).copied() {
            return self.resolve_again(report, &sighting, number);
        }
        self.learn_link(Link { span: sighting.span, parent: sighting.parent });
        if self.is_sum(&sighting) {
            sighting.make_sum();
            report.event.dedupe_key = sighting.key.to_string();
            self.unwritten.push(sighting.clone());
            self.remember_as(sighting, None);
            return Correlated::Sum;
        }
        self.withdraw_sums_above(sighting.span, Some(&sighting));
        let (request, joined) = match self.find_certain(&sighting) {
            (None, _) => match self.same_call(&sighting) {
                Some(number) => (Some(number), Correlated::BySpan),
                None => self.find_by_counts(&sighting),
            },
            found => found,
        };
        if request.is_none() && self.is_withdrawn(&sighting.key) {
            sighting.key = sighting.other_key().into();
        }
        if let Some(known) = request.and_then(|number| self.request(number)?.first()) {
            sighting.key.clone_from(&known.key);
        }
        report.event.dedupe_key = sighting.key.to_string();
        let is_full = request
            .and_then(|number| self.request(number))
            .is_some_and(|known| known.len() >= MAX_SIGHTINGS);
        if !is_full {
            self.unwritten.push(sighting.clone());
            self.remember_as(sighting, request);
        }
        joined
    }

    fn resolve_again(&mut self, report: &mut Report, new: &Sighting, number: u64) -> Correlated {
        let known = self.request(number).and_then(|known| known.first());
        let (key, sum) = known.map_or((None, false), |known| (Some(known.key.clone()), known.sum));
        report.event.dedupe_key = key.unwrap_or_else(|| new.key.clone()).into();
        // A restart may have come between the judgement and the news of it.
        self.withdraw_sums_above(new.span, None);
        if sum { Correlated::Sum } else { Correlated::Resent }
    }

    /// Returns the number of spans that enclose one.
    fn depth(&self, span: u64) -> usize {
        self.lineage.depth(span)
    }

    /// Forgets what was only needed to judge the reports of one turn.
    fn end_turn(&mut self) {
        self.outers.clear();
    }

    /// Writes what was resolved since the last call, before the keys are published.
    ///
    /// # Errors
    ///
    /// When the journal cannot be written; a restart then forgets these correlations.
    pub(crate) fn commit(&mut self, now_ms: i64) -> io::Result<()> {
        let unwritten = std::mem::take(&mut self.unwritten);
        match &mut self.journal {
            Some(journal) if !unwritten.is_empty() => journal.append(&unwritten, now_ms),
            _ => Ok(()),
        }
    }

    /// Returns the number of requests that are remembered.
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Finds the request of a report by ids, by the trace of an event, or by a span and its parent.
    fn find_certain(&self, new: &Sighting) -> (Option<u64>, Correlated) {
        let by_id = [new.request, new.response].into_iter().find_map(|id| self.one.get(&id));
        if let Some(number) = by_id {
            return (Some(*number), Correlated::ById);
        }
        if new.pair != 0
            && let Some(number) = self.nearest(&[mark_pair(new.pair)], new, |_| true)
        {
            return (Some(number), Correlated::ByPair);
        }
        // A parent of two calls is rather the one with the same counts.
        let relatives = marks_of_relatives(new);
        let same_counts = |known: &Sighting| known.same_counts(new);
        let by_span = self.nearest(&relatives, new, same_counts);
        if let Some(number) = by_span.or_else(|| self.nearest(&relatives, new, |_| true)) {
            return (Some(number), Correlated::BySpan);
        }
        (None, Correlated::New)
    }

    fn find_by_counts(&self, new: &Sighting) -> (Option<u64>, Correlated) {
        let near = |known: &Sighting| {
            (known.ended_ms - new.ended_ms).abs() <= self.window_ms
                && known.tied_to(new)
                // A failure has no counts, so only the session can tell.
                && (!new.failed || known.session != 0 && known.session == new.session)
        };
        // A request that only one other has told of is the likelier one.
        let others = self.reporters.iter().copied().filter(|reporter| *reporter != new.reporter);
        let single: Vec<u64> =
            others.flat_map(|other| self.marks_of_counts(new, &[-1, 0, 1], other)).collect();
        let several = self.marks_of_counts(new, &[-1, 0, 1], SEVERAL);
        match self.nearest(&single, new, near).or_else(|| self.nearest(&several, new, near)) {
            Some(number) => (Some(number), Correlated::ByCounts),
            None => (None, Correlated::New),
        }
    }

    /// Finds the request nearest in time among those that bear one of `marks`, agree with `new` and
    /// fit.
    fn nearest(
        &self,
        marks: &[u64],
        new: &Sighting,
        fits: impl Fn(&Sighting) -> bool,
    ) -> Option<u64> {
        let candidates = marks.iter().filter_map(|mark| self.many.get(mark));
        candidates
            .flat_map(|bearers| bearers.iter().rev().take(MAX_CANDIDATES))
            .filter_map(|number| {
                let sightings = self.request(*number)?;
                let all_agree = sightings
                    .iter()
                    .all(|known| known.agrees_with(new) || self.are_one_call(known, new));
                let fitting = sightings.iter().filter(|known| fits(known));
                let distance = fitting.map(|known| (known.ended_ms - new.ended_ms).abs()).min()?;
                all_agree.then_some((distance, *number))
            })
            .min()
            .map(|(_, number)| number)
    }

    fn request(&self, number: u64) -> Option<&Sightings> {
        self.requests.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn request_mut(&mut self, number: u64) -> Option<&mut Sightings> {
        self.requests.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Remembers a sighting from the journal.
    fn remember(&mut self, sighting: Sighting) {
        self.lineage.learn(Link { span: sighting.span, parent: sighting.parent });
        if let Some(number) = self.one.get(&sighting.identity).copied() {
            let known = self.request(number).and_then(|known| known.first());
            if sighting.sum && known.is_some_and(|known| !known.sum) {
                // Whoever wrote it has told of it.
                self.withdraw(number);
            }
            return;
        }
        let request = self.one.get(&mark_key(&sighting.key)).copied();
        let known = request.and_then(|number| self.request(number));
        if known.is_none_or(|known| known.len() < MAX_SIGHTINGS) {
            self.remember_as(sighting, request);
        }
    }

    fn remember_as(&mut self, sighting: Sighting, request: Option<u64>) {
        let number = request.unwrap_or(self.first + self.requests.len() as u64);
        if sighting.sum {
            self.mark_sum(&sighting, number);
            self.requests.push_back(smallvec![sighting]);
            return;
        }
        self.mark_span(sighting.span, number);
        for mark in marks_of_one(&sighting) {
            self.one.entry(mark).or_insert(number);
        }
        if !self.reporters.contains(&sighting.reporter) && self.reporters.len() < MAX_REPORTERS {
            self.reporters.push(sighting.reporter);
        }
        let index = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        let new = sighting.clone();
        match self.requests.get_mut(index).map(std::mem::take) {
            Some(mut sightings) => {
                if let [only] = sightings.as_slice() {
                    self.unmark_weak(only, number);
                    self.mark(&self.marks_of_many(only, SEVERAL), number);
                }
                self.mark(&self.marks_of_many(&sighting, SEVERAL), number);
                sightings.push(sighting);
                self.requests[index] = sightings;
            }
            None => {
                self.mark(&self.marks_of_many(&sighting, sighting.reporter), number);
                self.requests.push_back(smallvec![sighting]);
            }
        }
        self.add_to_sums(&new, number);
    }

    fn mark_span(&mut self, span: u64, number: u64) {
        if span != 0 {
            insert(self.by_span.entry(span).or_default(), number);
        }
    }

    fn mark(&mut self, marks: &[u64], number: u64) {
        for mark in marks {
            insert(self.many.entry(*mark).or_default(), number);
        }
    }

    fn forget(&mut self, now_ms: i64) {
        self.outers.clear();
        while let Some(oldest) = self.requests.front() {
            let expired = oldest.iter().all(|sighting| sighting.seen_ms < now_ms - self.forget_ms);
            if !expired && self.requests.len() <= MAX_REQUESTS {
                return;
            }
            let number = self.first;
            let Some(sightings) = self.requests.pop_front() else { return };
            self.first += 1;
            for sighting in &sightings {
                self.unmark(sighting, number);
            }
        }
    }

    fn unmark(&mut self, sighting: &Sighting, number: u64) {
        for mark in marks_of_one(sighting) {
            if self.one.get(&mark) == Some(&number) {
                self.one.remove(&mark);
            }
        }
        self.unmark_weak(sighting, number);
        if let Some(within) = self.by_span.get_mut(&sighting.span) {
            remove(within, number);
            if within.is_empty() {
                self.by_span.remove(&sighting.span);
            }
        }
    }

    fn unmark_weak(&mut self, sighting: &Sighting, number: u64) {
        for by in [sighting.reporter, SEVERAL] {
            for mark in self.marks_of_many(sighting, by) {
                let Some(bearers) = self.many.get_mut(&mark) else { continue };
                remove(bearers, number);
                if bearers.is_empty() {
                    self.many.remove(&mark);
                }
            }
        }
    }

    fn marks_of_many(&self, sighting: &Sighting, reporter: u64) -> Vec<u64> {
        let mut marks = self.marks_of_counts(sighting, &[0], reporter);
        marks.extend((sighting.pair != 0).then(|| mark_pair(sighting.pair)));
        marks.extend((sighting.span != 0).then(|| mark_within(sighting.span)));
        marks.extend((sighting.parent != 0).then(|| mark_child(sighting.parent)));
        marks
    }

    /// Returns the marks of the counts in the time slots around that of the sighting. Slots keep
    /// the lists short where many requests have the same counts.
    fn marks_of_counts(&self, sighting: &Sighting, slots: &[i64], reporter: u64) -> Vec<u64> {
        let counts = match (sighting.input, sighting.output) {
            (Some(input), Some(output)) => format!("{input}/{output}"),
            _ if sighting.failed => "failed".to_owned(),
            _ => return Vec::new(),
        };
        let slot = sighting.ended_ms.div_euclid(self.window_ms);
        let (client, reporter) = (sighting.client.to_string(), reporter.to_string());
        let mark =
            |step: &i64| hash(&["counts", &client, &reporter, &counts, &(slot + step).to_string()]);
        slots.iter().map(mark).collect()
    }
}

/// Inserts a number in ascending order, once.
fn insert(numbers: &mut Numbers, number: u64) {
    if let Err(place) = numbers.binary_search(&number) {
        numbers.insert(place, number);
    }
}

fn remove(numbers: &mut Numbers, number: u64) {
    if let Ok(place) = numbers.binary_search(&number) {
        numbers.remove(place);
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod sum_tests;
#[cfg(test)]
mod tests;

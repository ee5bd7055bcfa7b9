//! Distinguishes the requests from the spans around them that hold their sum.
//!
//! An agent's run, an outer span of embeddings or a wrapper of the same name states what the
//! requests within it used together. It is no request, whichever of them arrives first: a span that
//! was published before its parts were known is withdrawn.

use std::collections::{BTreeSet, HashSet};

use super::{
    Correlator, Link,
    lineage::WIDEST,
    mark_key,
    sighting::Sighting,
    sum::{Sum, is_one_call},
};

/// Largest number of withdrawals that wait for the ledger: each body sends all of them.
const MAX_WITHDRAWN: usize = 1024;

/// Largest number of requests around a span that are judged, innermost first.
const MAX_AROUND: usize = 16;

/// Largest number of requests reported by one span that are judged.
const MAX_OUTERS: usize = 4;

/// A request that a span reports, and what is known of the requests within that span.
#[derive(Debug)]
pub(super) struct Outer {
    number: u64,
    sighting: Sighting,
    /// True when it is certainly a request.
    settled: bool,
    sum: Sum,
    /// The requests that are part of the sum.
    within: HashSet<u64>,
}

/// A published request that turned out to be a sum, until the ledger has its withdrawal.
#[derive(Debug)]
pub(super) struct Withdrawal {
    key: String,
    /// The sightings to write to the journal once the ledger has the withdrawal.
    sightings: Vec<Sighting>,
}

impl Correlator {
    /// Learns the nesting of spans; returns the spans that were unknown.
    pub(crate) fn learn(&mut self, links: &[Link]) -> Vec<u64> {
        let unknown = links.iter().filter(|link| self.learn_link(**link));
        unknown.map(|link| link.span).collect()
    }

    /// Learns one link; returns whether it was unknown.
    pub(super) fn learn_link(&mut self, link: Link) -> bool {
        let unknown = self.lineage.learn(link);
        let brings = self.lineage.has_within(link.span) || self.by_span.contains_key(&link.span);
        if unknown && brings {
            self.forget_outers_around(link.span);
        }
        unknown
    }

    /// Returns the spans that enclose any of `spans` and report requests, each once, innermost
    /// first.
    pub(crate) fn around(&self, spans: &[u64]) -> Vec<u64> {
        let mut seen = HashSet::new();
        for span in spans {
            for around in self.lineage.above(*span) {
                if !seen.insert(around) {
                    break;
                }
            }
        }
        let mut around: Vec<u64> =
            seen.into_iter().filter(|span| self.by_span.contains_key(span)).collect();
        around.sort_by_cached_key(|span| std::cmp::Reverse(self.lineage.depth(*span)));
        around
    }

    /// Returns whether a new span holds the sum of requests that are known within it.
    pub(super) fn is_sum(&mut self, outer: &Sighting) -> bool {
        outer.is_span && !self.is_told_elsewhere(outer) && {
            let (sum, _) = self.sum_within(outer, None);
            sum.is_told_by(outer)
        }
    }

    /// Withdraws the requests around `span` that hold the sum of those within them; `new` is the
    /// request in the span, where it is not yet remembered.
    pub(super) fn withdraw_sums_above(&mut self, span: u64, new: Option<&Sighting>) {
        let above: Vec<u64> = self.lineage.above(span).collect();
        let mut judged = 0;
        for around in above {
            if judged >= MAX_AROUND {
                return;
            }
            judged += self.withdraw_sums_in(around, new);
        }
    }

    /// Withdraws the requests that `span` reports and that hold the sum of those within it; returns
    /// the number of requests that were judged.
    pub(super) fn withdraw_sums_in(&mut self, span: u64, new: Option<&Sighting>) -> usize {
        if !self.by_span.contains_key(&span) {
            return 0;
        }
        let known = self.outers.remove(&span).unwrap_or_else(|| self.outers_in(span));
        let judged = known.len();
        let (sums, requests): (Vec<Outer>, Vec<Outer>) = known.into_iter().partition(|outer| {
            !outer.settled && outer.sum.and(&outer.sighting, new).is_told_by(&outer.sighting)
        });
        self.outers.insert(span, requests);
        for sum in sums {
            let Some(withdrawal) = self.withdraw(sum.number) else { continue };
            if self.withdrawn.len() >= MAX_WITHDRAWN {
                // The ledger has refused for long; the request goes on being counted.
                let key = self.withdrawn.remove(0).key;
                tracing::warn!(key, "a withdrawal is given up: too many wait for the ledger");
            }
            self.withdrawn.push(withdrawal);
        }
        judged
    }

    /// Finds the request that reports the same call as `new` from a span further out or further in.
    pub(super) fn same_call(&mut self, new: &Sighting) -> Option<u64> {
        if !new.is_span {
            return None;
        }
        let above: Vec<u64> = self.lineage.above(new.span).collect();
        let around = above.iter().filter_map(|span| self.outers.get(span)).flatten();
        let outer = around.take(MAX_AROUND).find(|outer| {
            let alone = outer.sum.is_empty() || outer.sighting.shares_id(new);
            alone && is_one_call(&outer.sighting, new) && self.is_new_to(new, outer.number)
        });
        if let Some(outer) = outer {
            return Some(outer.number);
        }
        let (sum, within) = self.sum_within(new, None);
        let only = within.into_iter().next().filter(|_| sum.is_one_call());
        only.filter(|number| self.is_new_to(new, *number))
    }

    /// Returns the keys of the withdrawals that the ledger is not known to have.
    pub(crate) fn untold(&self) -> Vec<String> {
        self.withdrawn.iter().map(|withdrawal| withdrawal.key.clone()).collect()
    }

    /// Notes that the ledger has the withdrawals of these keys, to be committed.
    pub(crate) fn told(&mut self, keys: &[String]) {
        let keys: HashSet<&String> = keys.iter().collect();
        for told in self.withdrawn.extract_if(.., |withdrawal| keys.contains(&withdrawal.key)) {
            self.unwritten.extend(told.sightings);
        }
    }

    /// Returns whether a key belongs to a request that was withdrawn; no other request can have it.
    pub(super) fn is_withdrawn(&self, key: &str) -> bool {
        let number = self.one.get(&mark_key(key));
        let known = number.and_then(|number| self.request(*number)?.first());
        known.is_some_and(|known| known.sum)
    }

    /// Turns a request into a sum: no report is matched with it any more, and it is not published
    /// again when it is resent.
    pub(super) fn withdraw(&mut self, number: u64) -> Option<Withdrawal> {
        let mut sightings = self.request(number)?.clone();
        for sighting in &mut sightings {
            self.unmark(sighting, number);
            sighting.sum = true;
        }
        for sighting in &sightings {
            self.mark_sum(sighting, number);
            self.outers.remove(&sighting.span);
            self.forget_outers_around(sighting.span);
        }
        if let Some(known) = self.request_mut(number) {
            known.clone_from(&sightings);
        }
        let key = sightings.first()?.key.to_string();
        Some(Withdrawal { key, sightings: sightings.into_vec() })
    }

    /// Remembers of a sum that its record was received and that its key is taken.
    pub(super) fn mark_sum(&mut self, sighting: &Sighting, number: u64) {
        self.one.insert(sighting.identity, number);
        self.one.entry(mark_key(&sighting.key)).or_insert(number);
        self.mark_span(sighting.span, number);
    }

    /// Adds a sighting of a request, now remembered, to the sums around it.
    pub(super) fn add_to_sums(&mut self, sighting: &Sighting, number: u64) {
        if self.outers.is_empty() {
            return;
        }
        let known = self.request(number).into_iter().flatten();
        for span in known.map(|known| known.span).collect::<Vec<_>>() {
            self.outers.remove(&span);
        }
        for around in self.lineage.above(sighting.span) {
            let Some(outers) = self.outers.get_mut(&around) else { continue };
            let mut stale = false;
            for outer in outers.iter_mut().filter(|outer| outer.number != number) {
                if outer.within.insert(number) {
                    outer.sum.add(&outer.sighting, sighting);
                } else {
                    // Of two reports of one request that of the same reporter counts.
                    stale |= outer.sighting.reporter == sighting.reporter;
                }
            }
            if stale {
                self.outers.remove(&around);
            }
        }
    }

    fn forget_outers_around(&mut self, span: u64) {
        for around in self.lineage.above(span) {
            self.outers.remove(&around);
        }
    }

    /// Returns whether a report other than a span has the same request with the same counts.
    fn is_told_elsewhere(&self, outer: &Sighting) -> bool {
        let ids = [outer.request, outer.response];
        let number = ids.into_iter().find_map(|id| self.one.get(&id));
        let known = number.and_then(|number| self.request(*number)).into_iter().flatten();
        known.into_iter().any(|known| !known.is_span && known.same_counts(outer))
    }

    fn is_new_to(&self, new: &Sighting, number: u64) -> bool {
        let mut known = self.request(number).into_iter().flatten();
        known.all(|known| known.reporter != new.reporter)
    }

    /// Returns the requests that a span reports, with what is known within it.
    fn outers_in(&mut self, span: u64) -> Vec<Outer> {
        let numbers: Vec<u64> =
            self.by_span.get(&span).map_or(&[][..], |known| known).iter().rev().copied().collect();
        self.visited += numbers.len() as u64;
        let mut outers = Vec::new();
        for number in numbers.into_iter().take(WIDEST) {
            let Some(sightings) = self.request(number) else { continue };
            let tells = |known: &&Sighting| known.is_span && known.span == span && !known.sum;
            let Some(sighting) = sightings.iter().find(tells).cloned() else { continue };
            // A request that knows a span within its own is settled, and so is one that a log
            // tells: that is trusted more.
            let settled = sightings.iter().any(|known| !known.is_span)
                || self.knows_within(&sighting, sightings);
            let (sum, within) = self.sum_within(&sighting, Some(number));
            outers.push(Outer { number, sighting, settled, sum, within });
            if outers.len() == MAX_OUTERS {
                break;
            }
        }
        outers
    }

    /// Adds up the requests within a span, apart from the one that the span reports itself. One
    /// report of each counts: that of the same reporter if there is one.
    fn sum_within(&mut self, outer: &Sighting, own: Option<u64>) -> (Sum, HashSet<u64>) {
        let below = self.lineage.below(outer.span);
        if below.is_empty() {
            return (Sum::default(), HashSet::new());
        }
        let within_outer: HashSet<u64> = below.iter().copied().collect();
        let known = below.iter().filter_map(|span| self.by_span.get(span)).flatten();
        let numbers: BTreeSet<u64> =
            known.copied().filter(|number| Some(*number) != own).take(WIDEST).collect();
        self.visited += (below.len() + numbers.len()) as u64;
        let mut sum = Sum::default();
        let mut counted = HashSet::new();
        for number in numbers {
            let within = |known: &&Sighting| !known.sum && within_outer.contains(&known.span);
            let Some(sightings) = self.request(number) else { continue };
            let mut within = sightings.iter().filter(within).peekable();
            let first = within.peek().copied();
            if let Some(part) = within.find(|known| known.reporter == outer.reporter).or(first) {
                sum.add(outer, part);
                counted.insert(number);
            }
        }
        (sum, counted)
    }

    fn knows_within(&self, outer: &Sighting, sightings: &[Sighting]) -> bool {
        sightings.iter().any(|known| {
            known.span != 0 && self.lineage.above(known.span).any(|around| around == outer.span)
        })
    }

    /// Returns whether two spans, of which one encloses the other, report one call.
    pub(super) fn are_one_call(&self, one: &Sighting, other: &Sighting) -> bool {
        let encloses = |outer: &Sighting, inner: &Sighting| {
            self.lineage.above(inner.span).any(|span| span == outer.span)
        };
        one.is_span
            && other.is_span
            && (encloses(one, other) && one.is_one_call_with(other)
                || encloses(other, one) && other.is_one_call_with(one))
    }
}

//! Tells the requests from the spans around them that hold their sum.
//!
//! An agent's run, an outer span of embeddings or a wrapper of the same name states what the
//! requests within it used together. It is no request, whichever of them arrives first: one that
//! was published before its parts were known is withdrawn.

use std::collections::{BTreeSet, HashSet};

use super::{Joiner, Link, lineage::WIDEST, mark_key, sighting::Sighting};

impl Joiner {
    /// Learns which spans enclose which, and withdraws what turns out to be a sum.
    pub(crate) fn learn(&mut self, links: &[Link]) {
        let mut news = Vec::new();
        for link in links {
            if self.lineage.learn(*link) {
                news.push(*link);
            }
        }
        for link in news {
            self.withdraw_sums_above(link.span, None);
        }
    }

    /// Whether a new span holds the sum of requests that are known within it.
    pub(super) fn is_sum(&self, outer: &Sighting) -> bool {
        outer.is_span && holds_sum(outer, &self.requests_within(outer, None))
    }

    /// Withdraws the requests around `span` that hold the sum of those within them; `new` is the
    /// one in the span, where it is not yet remembered.
    pub(super) fn withdraw_sums_above(&mut self, span: u64, new: Option<&Sighting>) {
        let above: Vec<u64> = self.lineage.above(span).collect();
        for around in above {
            for number in self.by_span.get(&around).cloned().unwrap_or_default() {
                let Some(sightings) = self.request(number) else { continue };
                let outer = sightings
                    .iter()
                    .find(|known| known.is_span && known.span == around && !known.sum);
                // A request that knows a span within its own is settled.
                let Some(outer) = outer.filter(|outer| !self.knows_within(outer, sightings)) else {
                    continue;
                };
                if holds_sum(outer, &self.requests_within(outer, new)) {
                    self.withdraw(number);
                }
            }
        }
    }

    /// Says again that the requests around a span that came again are withdrawn: nobody may have
    /// heard it the first time.
    pub(super) fn withdraw_again_above(&mut self, span: u64) {
        let above: Vec<u64> = self.lineage.above(span).collect();
        for number in above.iter().filter_map(|around| self.by_span.get(around)).flatten() {
            let first = self.request(*number).and_then(|known| known.first());
            if let Some(known) = first.filter(|known| known.was_withdrawn()) {
                let key = known.key.clone();
                self.withdrawn.push(key);
            }
        }
    }

    /// Whether a key belongs to a request that was withdrawn; nobody else can have it.
    pub(super) fn is_withdrawn(&self, key: &str) -> bool {
        let number = self.one.get(&mark_key(key));
        let known = number.and_then(|number| self.request(*number)?.first());
        known.is_some_and(|known| known.sum)
    }

    /// Makes a request one that is none: it can be joined no more, and comes no more when resent.
    pub(super) fn withdraw(&mut self, number: u64) {
        let Some(mut sightings) = self.request(number).cloned() else { return };
        for sighting in &mut sightings {
            self.unmark(sighting, number);
            sighting.sum = true;
        }
        for sighting in &sightings {
            self.mark_sum(sighting, number);
        }
        if let Some(first) = sightings.first() {
            self.withdrawn.push(first.key.clone());
        }
        self.unwritten.extend(sightings.iter().cloned());
        if let Some(known) = self.request_mut(number) {
            *known = sightings;
        }
    }

    /// What is kept of a sum: that the record was here, and that its key is taken.
    pub(super) fn mark_sum(&mut self, sighting: &Sighting, number: u64) {
        self.one.insert(sighting.identity, number);
        self.one.entry(mark_key(&sighting.key)).or_insert(number);
        if sighting.span != 0 {
            self.by_span.entry(sighting.span).or_default().push(number);
        }
    }

    /// Of each request within a span one report of it: that of the same reporter if there is one.
    fn requests_within<'a>(
        &'a self,
        outer: &Sighting,
        new: Option<&'a Sighting>,
    ) -> Vec<&'a Sighting> {
        let below = self.lineage.below(outer.span);
        if new.is_some() && below.len() >= WIDEST {
            // It was judged with each of the many before.
            return Vec::new();
        }
        let within_outer: HashSet<u64> = below.iter().copied().collect();
        let numbers: BTreeSet<u64> =
            below.iter().filter_map(|span| self.by_span.get(span)).flatten().copied().collect();
        let known = numbers.into_iter().filter_map(|number| {
            let within = |known: &&Sighting| !known.sum && within_outer.contains(&known.span);
            let mut within = self.request(number)?.iter().filter(within).peekable();
            let first = within.peek().copied();
            within.find(|known| known.reporter == outer.reporter).or(first)
        });
        known.chain(new).collect()
    }

    fn knows_within(&self, outer: &Sighting, sightings: &[Sighting]) -> bool {
        sightings.iter().any(|known| {
            known.span != 0 && self.lineage.above(known.span).any(|around| around == outer.span)
        })
    }

    /// Whether two spans, of which one encloses the other, tell of one call.
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

/// Whether the counts of a span are those of the requests within it together.
fn holds_sum(outer: &Sighting, within: &[&Sighting]) -> bool {
    let Some(first) = within.first() else { return false };
    let same_reporter = within.iter().any(|inner| inner.reporter == outer.reporter);
    let shares_id = within.iter().any(|inner| inner.shares_id(outer));
    let has_own_id = outer.has_id() && !shares_id;
    let sum = |of: fn(&Sighting) -> u64| within.iter().map(|inner| of(inner)).sum::<u64>();
    let (input, output) = (sum(Sighting::input), sum(Sighting::output));
    let uncached = sum(Sighting::uncached_input);
    if outer.input() + outer.output() == 0 {
        // A wrapper that counts nothing; of another reporter it may know what the inner does not.
        return same_reporter && !has_own_id;
    }
    // A stream may be counted a token more or less.
    let slack = within.len() as u64;
    let covers = outer.input() + slack >= uncached && outer.output() + slack >= output;
    let exact = outer.input().abs_diff(input) <= slack && outer.output().abs_diff(output) <= slack;
    let other_work = outer.operation != 0
        && within.iter().all(|inner| inner.operation != 0 && inner.operation != outer.operation);
    if input + output == 0 || !covers || (has_own_id || other_work) && !exact {
        return false;
    }
    if same_reporter || within.len() > 1 {
        return true;
    }
    if first.parent == outer.span && outer.same_model(first) {
        // Two reporters of one call, unless all says that there are more calls.
        !shares_id && outer.exceeds(first)
    } else {
        exact || !outer.calls
    }
}

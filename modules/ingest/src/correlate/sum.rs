//! Sums of the requests within a span, and the check whether the span reports just that sum.

use super::sighting::Sighting;

/// The requests within a span, compared with the request of that span.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    requests: u64,
    input: u64,
    output: u64,
    uncached_input: u64,
    /// Number of requests of the same reporter; the following fields count likewise.
    same_reporter: u64,
    sharing_id: u64,
    sharing_model: u64,
    other_operation: u64,
    failed: u64,
    first: Relation,
}

/// The relation of a request to the one around it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Relation {
    /// A request somewhere within the outer one.
    #[default]
    Within,
    /// The same call as the outer one.
    OneCall,
    /// A request directly within the outer one and of the same model, so that both report one call.
    Direct,
    /// Like `Direct`, but the counts of the outer one show that there are more calls.
    Exceeded,
}

impl Relation {
    fn of(outer: &Sighting, inner: &Sighting) -> Self {
        if inner.parent == outer.span && outer.same_model(inner) {
            if outer.exceeds(inner) { Self::Exceeded } else { Self::Direct }
        } else if is_one_call(outer, inner) {
            Self::OneCall
        } else {
            Self::Within
        }
    }
}

impl Sum {
    /// Adds a request within `outer`.
    pub(super) fn add(&mut self, outer: &Sighting, inner: &Sighting) {
        if self.requests == 0 {
            self.first = Relation::of(outer, inner);
        }
        let other_operation = inner.operation != 0 && inner.operation != outer.operation;
        self.requests += 1;
        self.input += inner.input();
        self.output += inner.output();
        self.uncached_input += inner.uncached_input();
        self.same_reporter += u64::from(inner.reporter == outer.reporter);
        self.sharing_id += u64::from(inner.shares_id(outer));
        self.sharing_model += u64::from(inner.same_model(outer));
        self.other_operation += u64::from(other_operation);
        self.failed += u64::from(inner.failed);
    }

    /// Returns the sum with one more request, where there is one.
    pub(super) fn and(mut self, outer: &Sighting, inner: Option<&Sighting>) -> Self {
        if let Some(inner) = inner {
            self.add(outer, inner);
        }
        self
    }

    /// Returns whether no request is part of the sum.
    pub(super) const fn is_empty(&self) -> bool {
        self.requests == 0
    }

    /// Returns whether the sum is of one request, which reports the same call as the outer one.
    pub(super) fn is_one_call(&self) -> bool {
        self.requests == 1 && self.first == Relation::OneCall
    }

    /// Returns whether the counts of a span are the sum of those of the requests within it.
    pub(super) fn is_told_by(&self, outer: &Sighting) -> bool {
        let same_reporter = self.same_reporter > 0;
        let has_own_id = outer.has_id() && self.sharing_id == 0;
        let other_work = outer.operation != 0 && self.other_operation == self.requests
            || outer.calls && self.sharing_model == 0;
        if self.is_empty() {
            return false;
        }
        if outer.input() + outer.output() == 0 {
            // A wrapper that counts nothing; of another reporter it may know what the inner does
            // not. A call that failed by itself, or did other work, is none.
            let failed_itself = outer.failed && self.failed == 0;
            return same_reporter && !has_own_id && !other_work && !failed_itself;
        }
        // A stream may be counted a token more or less.
        let slack = self.requests;
        let covers =
            outer.input() + slack >= self.uncached_input && outer.output() + slack >= self.output;
        let exact = outer.input().abs_diff(self.input) <= slack
            && outer.output().abs_diff(self.output) <= slack;
        if self.input + self.output == 0 || !covers || (has_own_id || other_work) && !exact {
            return false;
        }
        if same_reporter || self.requests > 1 {
            return true;
        }
        match self.first {
            Relation::Direct | Relation::OneCall => false,
            // Two reporters of one call, unless all says that there are more calls.
            Relation::Exceeded => self.sharing_id == 0,
            Relation::Within => exact || !outer.calls,
        }
    }
}

/// Returns whether a call and a span somewhere within it are one call that two reporters report:
/// they share an id, or everything that both know and count agrees.
pub(super) fn is_one_call(outer: &Sighting, inner: &Sighting) -> bool {
    let same = outer.is_one_call_with(inner) && outer.same_counts(inner) && outer.input.is_some();
    outer.reporter != inner.reporter && (outer.shares_id(inner) || outer.calls && same)
}

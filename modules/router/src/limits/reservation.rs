//! An amount that a request may use, until it is known what it used.

use std::sync::Arc;

use super::{hit::Scope, instance::Instance, ledger::Entry, window::Quantity};

/// Reservation of one request, or of one further attempt of it.
///
/// * [`settle`](Self::settle) puts what was used in the place of what was reserved; only the first
///   call counts.
/// * [`release`](Self::release) gives everything back, as if nothing had been asked.
/// * Dropped before [`sent`](Self::sent) it is released. Dropped after that it stays as it was
///   reserved: a provider was asked, and may have been paid.
#[derive(Debug, Default)]
#[must_use = "dropped, it is released"]
pub(crate) struct Reservation {
    open: Option<Open>,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) limits: Arc<Instance>,
    pub(super) scopes: Arc<[Scope]>,
    pub(super) entries: Vec<Entry>,
    /// `true` when Redis counted it.
    pub(super) is_shared: bool,
    pub(super) is_sent: bool,
}

/// Amounts that a request used. What is unknown stays as it was reserved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Actual {
    /// Tokens of input and output together.
    pub tokens: Option<u64>,
    /// Cost in billionths of a US dollar.
    pub nano_usd: Option<u64>,
}

impl Reservation {
    pub(super) const fn new(open: Open) -> Self {
        Self { open: Some(open) }
    }

    /// Notes that a provider is being asked: from now on the reservation is not released by being
    /// dropped.
    pub(crate) const fn sent(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_sent = true;
        }
    }

    /// Puts what was used in the place of what was reserved. Only the first call counts.
    pub(crate) fn settle(&mut self, actual: Actual) {
        let Some(open) = self.open.take() else { return };
        let used = |entry: &Entry| match entry.limit.quantity {
            Quantity::Requests => entry.amount,
            Quantity::Tokens => actual.tokens.unwrap_or(entry.amount),
            Quantity::NanoUsd => actual.nano_usd.unwrap_or(entry.amount),
        };
        change(open, used);
    }

    /// Gives everything back, as if nothing had been asked.
    pub(crate) fn release(&mut self) {
        if let Some(open) = self.open.take() {
            change(open, |_| 0);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.open.as_ref().is_some_and(|open| !open.is_sent) {
            self.release();
        }
    }
}

fn change(open: Open, used: impl Fn(&Entry) -> u64) {
    let changes: Vec<(Entry, i64)> = open
        .entries
        .into_iter()
        .filter_map(|entry| {
            let used = i64::try_from(used(&entry)).unwrap_or(i64::MAX);
            let reserved = i64::try_from(entry.amount).unwrap_or(i64::MAX);
            (used != reserved).then_some((entry, used - reserved))
        })
        .collect();
    if !changes.is_empty() {
        open.limits.change(open.scopes, changes, open.is_shared);
    }
}

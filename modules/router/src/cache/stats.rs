//! Figures of the cache since the start.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::{
    Tier,
    policy::{Bypass, NotStored},
};

/// Counters of every outcome.
#[derive(Debug, Default)]
pub(super) struct Stats {
    hits: [AtomicU64; 3],
    misses: AtomicU64,
    bypassed: [AtomicU64; Bypass::ALL.len()],
    stored: AtomicU64,
    not_stored: [AtomicU64; NotStored::ALL.len()],
    /// Requests that waited in vain, or were too many to wait.
    alone: AtomicU64,
    /// Answers that Redis was not given: it was lost or busy.
    not_shared: AtomicU64,
    saved_nano_usd: AtomicI64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Stats {
    pub(super) fn hit(&self, tier: Tier, saved_nano_usd: Option<i64>) {
        add(&self.hits[tier as usize]);
        self.saved_nano_usd.fetch_add(saved_nano_usd.unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn miss(&self) {
        add(&self.misses);
    }

    pub(super) fn bypass(&self, reason: Bypass) {
        add(&self.bypassed[reason as usize]);
    }

    pub(super) fn stored(&self) {
        add(&self.stored);
    }

    pub(super) fn not_stored(&self, reason: NotStored) {
        add(&self.not_stored[reason as usize]);
    }

    pub(super) fn alone(&self) {
        add(&self.alone);
    }

    pub(super) fn not_shared(&self) {
        add(&self.not_shared);
    }

    pub(super) fn hits(&self, tier: Tier) -> u64 {
        get(&self.hits[tier as usize])
    }

    pub(super) fn all_hits(&self) -> u64 {
        self.hits.iter().map(get).sum()
    }

    pub(super) fn misses(&self) -> u64 {
        get(&self.misses)
    }

    pub(super) fn stored_number(&self) -> u64 {
        get(&self.stored)
    }

    pub(super) fn alone_number(&self) -> u64 {
        get(&self.alone)
    }

    pub(super) fn not_shared_number(&self) -> u64 {
        get(&self.not_shared)
    }

    pub(super) fn saved_nano_usd(&self) -> i64 {
        self.saved_nano_usd.load(Ordering::Relaxed)
    }

    /// Returns the reasons for which the cache was not asked, with their numbers.
    pub(super) fn bypassed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = |(reason, counter): (&Bypass, &AtomicU64)| (reason.name(), get(counter));
        Bypass::ALL.iter().zip(&self.bypassed).map(named)
    }

    /// Returns the reasons for which answers were not kept, with their numbers.
    pub(super) fn not_stored_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = |(reason, counter): (&NotStored, &AtomicU64)| (reason.name(), get(counter));
        NotStored::ALL.iter().zip(&self.not_stored).map(named)
    }
}

//! The treatment of events that were not handled.

use std::time::Instant;

use module_sdk::Class;

use super::inbox::{Failure, FailureKind, Inbox};
use crate::ledger::{Counts, DeadLetter, DropReason, now_ms};

/// Number of failures after which an event is given up.
const MAX_FAILURES: u32 = 5;

impl Inbox {
    /// Handles the failure of the event at the head: it is tried again, dropped, or becomes a dead
    /// letter.
    pub(super) fn failed(&mut self, failure: &Failure, alone: bool) {
        let Some(first) = self.head.first_alone() else { return };
        let live = first.class() == Class::Live;
        first.failures += u32::from(failure.kind == FailureKind::Failed || live);
        let failures = first.failures;
        match failure.kind {
            FailureKind::Unavailable if live && failures >= MAX_FAILURES => self.drop_head(),
            FailureKind::Unavailable => {}
            FailureKind::Failed => self.limit = 1,
        }
        match failure.kind {
            FailureKind::Unavailable => self.back_off_unavailable(),
            FailureKind::Failed if live && alone => self.drop_head(),
            FailureKind::Failed if live => {}
            FailureKind::Failed if failures < MAX_FAILURES => {
                let wait = self.shared.config.retry_after[failures as usize - 1];
                self.retry_at = Some(Instant::now() + wait);
            }
            FailureKind::Failed => self.dead_letter_head(&failure.message),
        }
    }

    pub(super) fn back_off_unavailable(&mut self) {
        let config = &self.shared.config;
        let factor = 1_u32 << self.unavailable.min(20);
        let wait = config.retry_after[0].saturating_mul(factor).min(config.unavailable_max);
        self.unavailable += 1;
        self.retry_at = Some(Instant::now() + wait);
    }

    /// Drops the live event at the head.
    fn drop_head(&mut self) {
        let Some(run) = self.head.pop(1) else { return };
        let mut state = self.subscriber.lock();
        state.live_counters.drop_pending(DropReason::Failed, 1);
        state.gone_from_head(&run);
        state.head_since = self.head_since();
    }

    /// Moves the ledger event at the head, which failed for the last time, to the dead letters.
    fn dead_letter_head(&mut self, reason: &str) {
        let Some(run) = self.head.front() else { return };
        let letter = DeadLetter {
            module: self.subscriber.module.clone(),
            event: run.share_first(),
            reason: reason.to_owned(),
            attempts: run.attempt,
            failed_at_ms: now_ms(),
        };
        let purged = match self.subscriber.dead.append(&letter) {
            Ok(purged) => purged,
            Err(error) => {
                let module = &self.subscriber.module;
                tracing::error!(%module, %error, "cannot write a dead letter, will try again");
                self.back_off_unavailable();
                return;
            }
        };
        let mut state = self.subscriber.lock();
        dead_letter(&mut state.ledger_counters, purged);
        if let Some(run) = self.head.pop(1) {
            state.gone_from_head(&run);
        }
        state.head_since = self.head_since();
        drop(state);
        self.retry_at = None;
        self.shared.touch();
        tracing::warn!(
            module = %letter.module, topic = %letter.event.topic, event = %letter.event.id,
            attempts = letter.attempts,
            "an event failed too often and was set aside; see `lodestar events dead`"
        );
    }
}

/// Counts a pending event as a dead letter, and `purged` old letters that were removed for it as
/// dropped.
fn dead_letter(counters: &mut Counts, purged: u64) {
    counters.pending -= 1;
    counters.dead += 1;
    counters.dead -= purged;
    counters.dropped.add(DropReason::Purged, purged);
}

//! How the thread of one generation gives way to that of the next.
//!
//! The successor does all the work: when everything is loaded and validated it asks the running
//! generation to hold. That one finishes the call it is in, writes down its state and waits. With
//! `overlap` it stays alive meanwhile, with `handover` it stops first. Then the successor starts,
//! and either commits, and gets the inbox with every event that is not settled, or gives the word
//! back, and the running generation goes on as if nothing had been.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel},
    },
    time::Duration,
};

use lodestar_bus::Inbox;
use module_sdk::manifest::ReloadMode;

use super::{Configure, Image, Known, error::TakeOverError};

/// Asks a running generation to hold.
#[derive(Debug)]
pub struct PauseRequest {
    mode: ReloadMode,
    claim: Arc<OneShotFlag>,
    answer: SyncSender<Result<Paused, TakeOverError>>,
}

/// What the holding generation says, and where it waits for the verdict.
#[derive(Debug)]
pub(super) struct Paused {
    /// Its state, for the successor; empty for none.
    pub(super) snapshot: Vec<u8>,
    /// What it was made from, should the successor prove bad.
    pub(super) former: PreviousGeneration,
    outcome: std::sync::mpsc::Sender<HandoverOutcome>,
}

/// The generation before, as long as the new one is on probation.
#[derive(Clone)]
pub(super) struct PreviousGeneration {
    pub(super) image: Image,
    pub(super) config: Vec<u8>,
    pub(super) configure: Configure,
    pub(super) known: Option<Arc<Known>>,
    /// What it was on probation against itself, with the state that it had taken over.
    pub(super) last_good: Option<Box<(Self, Vec<u8>)>>,
}

impl std::fmt::Debug for PreviousGeneration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets may stand in its configuration.
        write!(f, "Former({:?})", self.image)
    }
}

/// What becomes of a generation that holds.
#[derive(Debug)]
pub(super) enum HandoverOutcome {
    /// The successor took over: hand it the inbox, then stop.
    Commit(SyncSender<Inbox>),
    /// The successor is no good: go on.
    GoOn,
}

/// What only the first of two may do: the generation that begins to hold or the successor that
/// gives up waiting; the successor that takes over or whoever gives it up because it hangs.
#[derive(Debug, Default)]
pub struct OneShotFlag(AtomicBool);

impl OneShotFlag {
    /// Whether this was the first.
    #[must_use]
    pub fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// The successor's end.
#[derive(Debug)]
pub(super) struct PendingPause {
    claim: Arc<OneShotFlag>,
    answer: Receiver<Result<Paused, TakeOverError>>,
}

/// A question to the running generation, and where its answer will be.
pub(super) fn ask(mode: ReloadMode) -> (PauseRequest, PendingPause) {
    let claim = Arc::<OneShotFlag>::default();
    let (sender, answer) = sync_channel(1);
    (PauseRequest { mode, claim: claim.clone(), answer: sender }, PendingPause { claim, answer })
}

impl PendingPause {
    /// Waits until the running generation holds.
    pub(super) fn wait(self, patience: Duration) -> Result<Paused, TakeOverError> {
        match self.answer.recv_timeout(patience) {
            Ok(held) => held,
            Err(RecvTimeoutError::Disconnected) => Err(TakeOverError::Gone),
            Err(RecvTimeoutError::Timeout) if self.claim.take() => {
                Err(TakeOverError::NoPause(patience))
            }
            // It holds at this moment: its answer comes.
            Err(RecvTimeoutError::Timeout) => {
                self.answer.recv().map_err(|_| TakeOverError::Gone)?
            }
        }
    }
}

impl Paused {
    /// Takes over. Answers none when the generation before has lost its patience and went on.
    pub(super) fn commit(self) -> Option<(Inbox, PreviousGeneration)> {
        let (sender, inbox) = sync_channel(1);
        self.outcome.send(HandoverOutcome::Commit(sender)).ok()?;
        Some((inbox.recv().ok()?, self.former))
    }

    /// Gives the word back.
    pub(super) fn give_back(self) {
        // An error means that it went on already.
        let _ = self.outcome.send(HandoverOutcome::GoOn);
    }
}

impl PauseRequest {
    pub(super) const fn mode(&self) -> ReloadMode {
        self.mode
    }

    /// Begins to hold; false when nobody waits for it any more.
    pub(super) fn begin(&self) -> bool {
        self.claim.take()
    }

    /// Tells the successor that this cannot be.
    pub(super) fn refuse(self, reason: impl Into<String>) {
        // An error means that it gave up.
        let _ = self.answer.send(Err(TakeOverError::Refused(reason.into())));
    }

    /// Answers the successor; what comes back is where its verdict will be.
    pub(super) fn answer(
        self,
        snapshot: Vec<u8>,
        former: PreviousGeneration,
    ) -> Receiver<HandoverOutcome> {
        let (outcome, receiver) = channel();
        // An error means that it is gone: the verdict will be missing.
        let _ = self.answer.send(Ok(Paused { snapshot, former, outcome }));
        receiver
    }
}

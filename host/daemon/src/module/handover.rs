//! Handover from one generation's thread to that of the next.
//!
//! The successor does all the work: when everything is loaded and validated it asks the running
//! generation to pause. That one finishes the call it is in, writes down its state and waits. With
//! `overlap` it stays alive meanwhile, with `handover` it stops first. Then the successor starts,
//! and either commits, and gets the inbox with every event that is not settled, or gives up, and
//! the running generation goes on as if nothing had been.

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

/// A request to a running generation to pause.
#[derive(Debug)]
pub struct PauseRequest {
    mode: ReloadMode,
    claim: Arc<OneShotFlag>,
    answer: SyncSender<Result<Paused, TakeOverError>>,
}

/// Answer of a paused generation, with the channel on which it waits for the outcome.
#[derive(Debug)]
pub(super) struct Paused {
    /// State for the successor; empty for none.
    pub(super) snapshot: Vec<u8>,
    /// The paused generation itself, which comes back should the successor prove bad.
    pub(super) former: PreviousGeneration,
    outcome: std::sync::mpsc::Sender<HandoverOutcome>,
}

/// The previous generation, kept as long as the new one is on probation.
#[derive(Clone)]
pub(super) struct PreviousGeneration {
    pub(super) image: Image,
    pub(super) config: Vec<u8>,
    pub(super) configure: Configure,
    pub(super) known: Option<Arc<Known>>,
    /// The generation that it was itself on probation against, with the state that it had taken
    /// over.
    pub(super) last_good: Option<Box<(Self, Vec<u8>)>>,
}

impl std::fmt::Debug for PreviousGeneration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets may stand in its configuration.
        write!(f, "PreviousGeneration({:?})", self.image)
    }
}

/// Outcome of a handover, for the generation that is paused.
#[derive(Debug)]
pub(super) enum HandoverOutcome {
    /// Success: the paused generation sends the inbox to the successor, then stops.
    Commit(SyncSender<Inbox>),
    /// Failure of the successor: the paused generation goes on.
    GoOn,
}

/// A flag that only the first of two can take: the generation that begins to pause or the successor
/// that gives up waiting; the successor that takes over or the supervisor that gives it up because
/// it hangs.
#[derive(Debug, Default)]
pub struct OneShotFlag(AtomicBool);

impl OneShotFlag {
    /// Takes the flag; returns whether this was the first time.
    #[must_use]
    pub fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// The successor's end of a [`PauseRequest`].
#[derive(Debug)]
pub(super) struct PendingPause {
    claim: Arc<OneShotFlag>,
    answer: Receiver<Result<Paused, TakeOverError>>,
}

/// Creates a request for the running generation, and the end that waits for its answer.
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
    /// Takes over. Returns `None` when the previous generation lost patience and went on.
    pub(super) fn commit(self) -> Option<(Inbox, PreviousGeneration)> {
        let (sender, inbox) = sync_channel(1);
        self.outcome.send(HandoverOutcome::Commit(sender)).ok()?;
        Some((inbox.recv().ok()?, self.former))
    }

    /// Lets the paused generation go on.
    pub(super) fn give_back(self) {
        // An error means that it went on already.
        let _ = self.outcome.send(HandoverOutcome::GoOn);
    }
}

impl PauseRequest {
    pub(super) const fn mode(&self) -> ReloadMode {
        self.mode
    }

    /// Begins the pause; returns false when nobody waits for it any more.
    pub(super) fn begin(&self) -> bool {
        self.claim.take()
    }

    /// Refuses the pause, with a reason for the successor.
    pub(super) fn refuse(self, reason: impl Into<String>) {
        // An error means that it gave up.
        let _ = self.answer.send(Err(TakeOverError::Refused(reason.into())));
    }

    /// Answers the successor; returns the channel on which the outcome will come.
    pub(super) fn answer(
        self,
        snapshot: Vec<u8>,
        former: PreviousGeneration,
    ) -> Receiver<HandoverOutcome> {
        let (outcome, receiver) = channel();
        // An error means that it is gone: the outcome will be missing.
        let _ = self.answer.send(Ok(Paused { snapshot, former, outcome }));
        receiver
    }
}

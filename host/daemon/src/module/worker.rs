//! Worker of a module: creates it, runs it, creates it again after a failure, and hands it over.

use std::{
    sync::{Arc, atomic::Ordering, mpsc::RecvTimeoutError},
    time::{Duration, Instant},
};

use lodestar_bus::Inbox;
use lodestar_library::Candidate;

use super::{
    Call, CallClock, Configure, Configured, Entry, Grant, Image, Services, Start, State,
    calls::refuse,
    event_loop::{EventLoop, ExitReason},
    generation::{Refusal, explain, failed},
    handover::{HandoverOutcome, PauseRequest, PreviousGeneration},
    image::Instance,
    thread::{ModuleEvent, RestartPolicy, enter, not_kept},
};

/// Period within which failures are counted for [`RestartPolicy::limit`].
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Time that a generation that has stopped waits for its successor before it reports that it is
/// stalled.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(30);

/// Time that a generation that overlaps waits for its successor before it goes on by itself.
const OUTCOME_PATIENCE: Duration = Duration::from_secs(15);

/// The worker of one module thread.
pub(super) struct Worker<'a> {
    pub(super) start: &'a Start,
    pub(super) clock: Arc<CallClock>,
    image: Image,
    config: Vec<u8>,
    configure: Configure,
    grant: Option<Grant>,
    /// Inbox of the module; `None` before it took over and after it was replaced.
    inbox: Option<Inbox>,
    /// Failures within [`FAILURE_WINDOW`].
    failures: Vec<Failure>,
    probation: Option<Probation>,
    /// An instance that was proven before it took over.
    made: Option<Made>,
    /// Its library, written to disk and kept as soon as the module runs.
    pub(super) candidate: Option<Candidate>,
}

/// An end of the instance that nobody asked for.
struct Failure {
    at: Instant,
    /// `true` when the module is at fault.
    blamed: bool,
}

/// Probation of a generation that took over: if it panics meanwhile, the previous one comes back.
struct Probation {
    until: Instant,
    former: PreviousGeneration,
    snapshot: Vec<u8>,
}

/// An instance with the services that it was given.
pub(super) struct Made {
    pub(super) instance: Box<dyn Instance>,
    services: Arc<Services>,
}

/// Way in which a worker ends without an error.
pub(super) enum End {
    Stopped,
    /// End by replacement: the inbox and the name belong to the successor.
    Replaced,
}

impl Made {
    pub(super) fn generation(&self) -> u64 {
        self.services.generation()
    }

    /// Ends an instance that got no work.
    pub(super) fn discard(mut self, start: &Start, clock: &CallClock) {
        let stopped = clock.time("stop", || self.instance.stop(start.grace));
        if let Err(error) = stopped {
            tracing::debug!(module = start.entry.name, %error.message, "did not stop well");
        }
        clock.time("drop", || drop(self.instance));
        self.services.close();
    }
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        start: &'a Start,
        clock: Arc<CallClock>,
        image: Image,
        configured: Configured,
        inbox: Inbox,
    ) -> Self {
        let mut worker = Self::without_inbox(start, clock, image, configured);
        worker.inbox = Some(inbox);
        worker
    }

    pub(super) fn without_inbox(
        start: &'a Start,
        clock: Arc<CallClock>,
        image: Image,
        configured: Configured,
    ) -> Self {
        let Configured { config, grant, .. } = configured;
        Self {
            start,
            clock,
            image,
            config,
            configure: start.configure.clone(),
            grant: Some(grant),
            inbox: None,
            failures: Vec::new(),
            probation: None,
            made: None,
            candidate: None,
        }
    }

    /// Takes over from the previous generation.
    pub(super) fn begin(
        &mut self,
        made: Made,
        inbox: Inbox,
        mut former: PreviousGeneration,
        snapshot: Vec<u8>,
    ) {
        let same = former.config == self.config && former.image.sha256() == self.image.sha256();
        let until = Instant::now() + self.start.restart.probation;
        // One that was on probation itself is no good one to go back to.
        let way_back = match former.last_good.take() {
            Some(last_good) => Some(*last_good),
            // What it runs with may differ, its limits say: the old ones are not to come back.
            None if same => None,
            None => Some((former, snapshot)),
        };
        self.probation = way_back.map(|(former, snapshot)| Probation { until, former, snapshot });
        self.inbox = Some(inbox);
        self.made = Some(made);
    }

    pub(super) fn entry(&self) -> &'a Entry {
        &self.start.entry
    }

    pub(super) fn inbox(&mut self) -> &mut Inbox {
        self.inbox.as_mut().expect("a generation that runs has its inbox")
    }

    pub(super) const fn image(&self) -> &Image {
        &self.image
    }

    /// Returns whether a successor has the inbox.
    pub(super) const fn is_replaced(&self) -> bool {
        self.inbox.is_none()
    }

    /// Returns when the probation ends, if the generation is on probation.
    pub(super) fn probation_ends(&self) -> Option<Instant> {
        self.probation.as_ref().map(|probation| probation.until)
    }

    /// Returns the hash of the library that comes back should this one fail on probation.
    pub(super) fn way_back(&self) -> Option<&str> {
        let former = self.probation.as_ref()?.former.image.sha256();
        (former != self.image.sha256()).then_some(former)
    }

    /// Drops the previous generation when the probation is over.
    pub(super) fn look_at_probation(&mut self) {
        if self.probation_ends().is_some_and(|until| until <= Instant::now()) {
            self.probation = None;
        }
    }

    pub(super) fn live(&mut self) -> Result<End, Refusal> {
        let mut restored = Vec::new();
        loop {
            let first = self.made.is_none();
            let made = match self.made.take() {
                Some(made) => made,
                None => self.create(&restored)?,
            };
            let services = made.services.clone();
            self.open(&made, first);
            let mut running = EventLoop::new(self, made.instance);
            let leave = loop {
                match running.run() {
                    ExitReason::PauseRequest(hold) => match running.hold(hold) {
                        Some(leave) => break leave,
                        None => continue,
                    },
                    leave => break leave,
                }
            };
            if matches!(leave, ExitReason::Stop) {
                enter(running.entry(), State::Draining, String::new());
            }
            running.stop();
            services.close();
            match leave {
                ExitReason::Stop => return Ok(End::Stopped),
                ExitReason::Replaced => return Ok(self.replaced()),
                ExitReason::Panic(reason) => {
                    restored = Vec::new();
                    if let Some(snapshot) = self.roll_back(&reason) {
                        restored = snapshot;
                    } else if let Some(end) = self.pause_after(&reason, true)? {
                        return Ok(end);
                    }
                }
                // Nothing speaks against the module, on probation or not.
                ExitReason::Gone(reason) => {
                    restored = Vec::new();
                    if let Some(end) = self.pause_after(&reason, false)? {
                        return Ok(end);
                    }
                }
                ExitReason::HandOver(hold, snapshot) => match self.hand_over(hold, snapshot) {
                    Some(snapshot) => restored = snapshot,
                    None => return Ok(self.replaced()),
                },
                ExitReason::PauseRequest(_) => {}
            }
        }
    }

    /// Marks the image as replaced: it is of no more use, unless the successor fails on probation.
    fn replaced(&self) -> End {
        self.image.set_replaced(true);
        End::Replaced
    }

    /// Starts to take calls: the module answers from now on.
    fn open(&mut self, made: &Made, first: bool) {
        let entry = self.entry();
        entry.generation.store(made.generation(), Ordering::Relaxed);
        made.services.settle();
        let waker = self.inbox().waker();
        entry.calls.open(waker);
        self.start.context.listeners.settle(&entry.name);
        enter(entry, State::Running, String::new());
        self.keep();
        let module = &self.image.manifest().module;
        tracing::info!(module = entry.name, version = module.version, "the module runs");
        if first {
            (self.start.notify)(ModuleEvent::Runs {
                sha256: self.image.sha256().to_owned(),
                version: module.version.clone(),
                generation: made.generation(),
                took_over: None,
            });
        }
    }

    /// Keeps the library on disk for a way back, now that it runs.
    pub(super) fn keep(&mut self) {
        let Some(candidate) = self.candidate.take() else { return };
        if let Err(error) = candidate.keep(&self.start.state_dir, self.way_back()) {
            not_kept(self.entry(), &error);
        }
    }

    pub(super) fn create(&mut self, restored: &[u8]) -> Result<Made, Refusal> {
        let entry = self.start.entry.clone();
        let grant = match self.grant.take() {
            Some(grant) => grant,
            // The grant went with the instance before; work it out again.
            None => {
                let configured = (self.configure)(self.image.manifest(), self.image.path());
                configured.map_err(|error| failed(error.to_string()))?.grant
            }
        };
        let services = Services::new(self.start.context.clone(), entry, grant);
        let create = || self.image.create(&self.config, restored, &services);
        match self.clock.time("start", create) {
            Ok(instance) => Ok(Made { instance, services }),
            Err(error) => {
                services.close();
                Err(failed(explain(self.start, &error)))
            }
        }
    }

    pub(super) fn former(&self) -> PreviousGeneration {
        PreviousGeneration {
            image: self.image.clone(),
            config: self.config.clone(),
            configure: self.configure.clone(),
            known: self.entry().known(),
            last_good: self
                .probation
                .as_ref()
                .map(|probation| Box::new((probation.former.clone(), probation.snapshot.clone()))),
        }
    }

    /// Waits for the outcome of the successor while this generation is alive. Returns true when it
    /// is replaced.
    pub(super) fn await_verdict(&mut self, hold: PauseRequest, snapshot: Vec<u8>) -> bool {
        let verdict = hold.answer(snapshot, self.former());
        match verdict.recv_timeout(OUTCOME_PATIENCE) {
            Ok(HandoverOutcome::Commit(successor)) => self.give_inbox(&successor),
            // A successor that has ended, or hangs: it finds nobody to take over from.
            Ok(HandoverOutcome::GoOn) | Err(_) => false,
        }
    }

    /// Waits for the outcome after this generation has stopped. Returns its state when it must
    /// start again.
    fn hand_over(&mut self, hold: PauseRequest, snapshot: Vec<u8>) -> Option<Vec<u8>> {
        let verdict = hold.answer(snapshot.clone(), self.former());
        let verdict = match verdict.recv_timeout(HANDOVER_PATIENCE) {
            Err(RecvTimeoutError::Timeout) => {
                // What the two must not have at the same time, the other one may have by now.
                let reason = "it has stopped for a new generation, whose start does not return; \
                              its events wait";
                enter(self.entry(), State::Stalled, reason.to_owned());
                verdict.recv().ok()
            }
            verdict => verdict.ok(),
        };
        match verdict {
            Some(HandoverOutcome::Commit(successor)) if self.give_inbox(&successor) => None,
            _ => Some(snapshot),
        }
    }

    fn give_inbox(&mut self, successor: &std::sync::mpsc::SyncSender<Inbox>) -> bool {
        let Some(inbox) = self.inbox.take() else { return false };
        match successor.send(inbox) {
            Ok(()) => true,
            Err(unsent) => {
                self.inbox = Some(unsent.0);
                false
            }
        }
    }

    /// Puts the last good generation back, if this one is on probation. Returns that generation's
    /// state.
    fn roll_back(&mut self, reason: &str) -> Option<Vec<u8>> {
        let probation = self.probation.take()?;
        let out_of_its_process = matches!(self.image, Image::Isolated(_))
            && matches!(probation.former.image, Image::Mapped(_));
        if out_of_its_process {
            // What fails in a process of its own is not brought into the daemon.
            return None;
        }
        let entry = self.entry();
        let from = self.image.sha256().to_owned();
        self.image.set_replaced(true);
        probation.former.image.set_replaced(false);
        let PreviousGeneration { image, config, configure, known, .. } = probation.former;
        tracing::error!(
            module = entry.name,
            reason,
            version = image.manifest().module.version,
            "the new generation failed on probation; the last good one is back"
        );
        entry.restarts.fetch_add(1, Ordering::Relaxed);
        (self.image, self.config, self.configure) = (image, config, configure);
        if let Some(known) = known {
            let filters = &known.manifest.bus.consumes;
            if let Err(error) = self.start.context.bus.refilter(&entry.name, filters) {
                tracing::error!(module = entry.name, %error, "its subscriptions stay as they were");
            }
            entry.set_known(known);
        }
        let to = self.image.sha256().to_owned();
        (self.start.notify)(ModuleEvent::RolledBack { from, to, reason: reason.to_owned() });
        Some(probation.snapshot)
    }

    /// Waits before the next try; returns how the worker ends when it is stopped or replaced
    /// meanwhile. Only a failure that the module is at fault for (`blamed`) counts towards
    /// quarantine.
    fn pause_after(&mut self, reason: &str, blamed: bool) -> Result<Option<End>, Refusal> {
        let now = Instant::now();
        self.failures.retain(|failure| now.duration_since(failure.at) < FAILURE_WINDOW);
        self.failures.push(Failure { at: now, blamed });
        let entry = self.entry();
        tracing::error!(module = entry.name, reason, "the module failed");
        let RestartPolicy { limit, max_backoff, .. } = self.start.restart;
        let count = self.failures.iter().filter(|failure| failure.blamed).count();
        if blamed && count > limit {
            let reason = format!(
                "it failed {count} times within {} s, the last time: {reason}; its events \
                 wait; {}",
                FAILURE_WINDOW.as_secs(),
                lodestar_api::once_mended(&entry.name)
            );
            return Err((State::Quarantined, reason));
        }
        entry.restarts.fetch_add(1, Ordering::Relaxed);
        let pause = jittered(backoff(self.failures.len()).min(max_backoff));
        (self.start.notify)(ModuleEvent::Restarts { reason: reason.to_owned(), pause });
        // The moment and not the time left, which would be wrong as soon as it is read.
        let at = jiff::Timestamp::now().saturating_add(pause).unwrap_or(jiff::Timestamp::MAX);
        let words = format!("{reason}; starts again at {} UTC", at.strftime("%H:%M:%S"));
        enter(entry, State::Backoff, words);
        let until = now + pause;
        while Instant::now() < until {
            while let Some(call) = entry.calls.pop(|_| true) {
                match call {
                    Call::Stop => return Ok(Some(End::Stopped)),
                    // There is nothing to stop and no state to hand over.
                    Call::PauseRequest(hold) if hold.begin() => {
                        if self.hand_over(hold, Vec::new()).is_none() {
                            return Ok(Some(self.replaced()));
                        }
                    }
                    call => refuse(call, "the module failed and starts again in a moment"),
                }
            }
            entry.calls.wait(until);
        }
        Ok(None)
    }
}

/// Returns the pause before a restart: none before the first, then 1, 2, 4 … seconds.
fn backoff(failures: usize) -> Duration {
    match u32::try_from(failures).unwrap_or(u32::MAX) {
        0 | 1 => Duration::ZERO,
        more => Duration::from_secs(1_u64.checked_shl(more - 2).unwrap_or(u64::MAX)),
    }
}

/// Shortens a pause by up to a quarter, so that modules that failed together do not restart
/// together.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::now_v7().as_u128() % 1000;
    let share = u32::try_from(random).unwrap_or_default();
    pause - pause / 4 * share / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles() {
        let seconds = |failures| backoff(failures).as_secs();
        assert_eq!([1, 2, 3, 4, 5, 9].map(seconds), [0, 1, 2, 4, 8, 128]);
        assert!(seconds(200) > 1_000_000);
    }

    #[test]
    fn jitter_takes_a_quarter_at_most() {
        let pause = Duration::from_secs(4);
        for _ in 0..100 {
            let jittered = jittered(pause);
            assert!(jittered <= pause && jittered >= pause - pause / 4, "{jittered:?}");
        }
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
    }
}

//! The experiment that goes on: what the router is told, what its reports say, and its end.
//!
//! The database says what is to go on; the router is held to it. A finding ends the experiment and
//! changes the state of the version in one transaction, and the router is told at once and until it
//! has heard it. What it is told has a lease besides: without this module everybody is led back to
//! the champion. Nothing here approves or deploys anything.

mod talk;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use module_sdk::{
    Error, ErrorKind, Event, Result,
    events::{LlmFeedbackGiven, LlmRequestCompleted},
};
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    experiment::{
        Observation, Verdict,
        counting::{self, Feedback},
        store::{self, Stored, Trial},
    },
    registry::{Action, Actor, Command, Done, Ledger, Refusal, Request, State},
    store::Weights,
    versions::{Versions, refused},
};

/// Seconds between two renewals.
const RENEWAL: u32 = 60;
/// Seconds between two looks at whether the experiment still makes sense.
const LOOK: u32 = 10;
/// Seconds after the start before which no outcome is counted: reports that waited come first.
const SETTLING: u32 = 3;
/// Outcomes that one transaction counts.
const AT_ONCE: u32 = 500;

/// Settings of experiments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExperimentConfig {
    /// Time from the first answer of a session or a user to its outcome, in seconds.
    #[schemars(range(min = 1, max = 604_800))]
    pub outcome_seconds: u32,
    /// Largest share of the sessions that a version may get before a person approved it, in
    /// percent.
    #[schemars(range(min = 1, max = 99))]
    pub most_percent: u32,
}

impl Default for ExperimentConfig {
    fn default() -> Self {
        Self { outcome_seconds: 1_800, most_percent: 50 }
    }
}

/// The experiment that goes on, shared by the module's thread and its jobs.
#[derive(Debug, Clone)]
pub(crate) struct Experiments {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    versions: Versions,
    /// Id of the experiment that goes on.
    current: Mutex<Option<String>>,
    /// `true` when one has ended since the last look.
    is_over: AtomicBool,
    /// `true` once the database was read.
    is_taken_up: AtomicBool,
    /// `true` while the router may not know of an end.
    is_unsettled: AtomicBool,
    /// `true` while somebody talks to the router.
    is_talking: AtomicBool,
    /// `true` when there is something new to say.
    has_news: AtomicBool,
    /// Right to talk to the router.
    turn: tokio::sync::Mutex<()>,
    /// Reason for which the router was not reached.
    trouble: Mutex<Option<String>>,
    seconds: AtomicU32,
}

impl Experiments {
    /// Takes up what goes on.
    pub(crate) fn start(versions: Versions) -> Self {
        let this = Self {
            inner: Arc::new(Inner {
                versions,
                current: Mutex::default(),
                is_over: AtomicBool::new(false),
                is_taken_up: AtomicBool::new(false),
                is_unsettled: AtomicBool::new(false),
                is_talking: AtomicBool::new(false),
                has_news: AtomicBool::new(false),
                turn: tokio::sync::Mutex::default(),
                trouble: Mutex::default(),
                seconds: AtomicU32::new(0),
            }),
        };
        if let Err(error) = this.take_up() {
            tracing::warn!(%error, "the experiment that goes on cannot be taken up yet");
        }
        this
    }

    fn take_up(&self) -> Result<()> {
        let inner = &self.inner;
        let (going_on, unsettled) = inner
            .versions
            .store
            .read(|connection| Ok((store::going_on(connection)?, store::unsettled(connection)?)))?;
        let id = going_on.map(|stored| stored.id);
        inner.abandon_without(id.is_some())?;
        let is_needed = id.is_some() || !unsettled.is_empty();
        *inner.current() = id;
        inner.is_unsettled.store(!unsettled.is_empty(), Ordering::Release);
        inner.is_taken_up.store(true, Ordering::Release);
        if is_needed {
            self.talk();
        }
        Ok(())
    }

    /// Returns the reason for which the router was not reached.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.inner.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up what goes on, where the database could not be read at the start: until then nobody
    /// knows what a report is about.
    ///
    /// # Errors
    ///
    /// When it cannot be read yet; what was to be noted comes again.
    fn ready(&self) -> Result<()> {
        if self.inner.is_taken_up.load(Ordering::Acquire) { Ok(()) } else { self.take_up() }
    }

    /// Notes what reports of requests say of the experiment that goes on.
    pub(crate) fn observe(&self, events: &[Event<'_, LlmRequestCompleted>]) -> Result<()> {
        self.ready()?;
        let Some(id) = self.inner.current().clone() else { return Ok(()) };
        let seen = events.iter().filter_map(|event| Observation::of(&event.data, &id));
        let seen: Vec<Observation<'_>> = seen.collect();
        if seen.is_empty() {
            return Ok(());
        }
        self.change(&id, |connection, stored| {
            for one in &seen {
                counting::observe(connection, stored, one)?;
                if stored.trial.verdict() != Verdict::Running {
                    break;
                }
            }
            Ok(true)
        })
    }

    /// Notes feedback on answers of the experiment that goes on.
    pub(crate) fn hear(
        &self,
        events: &[Event<'_, LlmFeedbackGiven>],
        weights: &Weights,
    ) -> Result<()> {
        self.ready()?;
        let Some(id) = self.inner.current().clone() else { return Ok(()) };
        self.change(&id, |connection, stored| {
            for event in events {
                let given = &event.data;
                let rating = given.rating.filter(|rating| (0.0..=1.0).contains(rating));
                let feedback = Feedback {
                    id: &event.id.to_string(),
                    request: given.request_id.as_deref(),
                    session: given.session_id.as_deref(),
                    rating: rating.or(given.good.map(f64::from)),
                    weight: weights.of(&given.origin),
                    redone: given.edited == Some(true) || given.retried == Some(true),
                };
                counting::feedback(connection, stored, &feedback)?;
            }
            Ok(false)
        })
    }

    /// Returns whether an experiment has ended since the last time.
    pub(crate) fn has_ended(&self) -> bool {
        self.inner.is_over.swap(false, Ordering::Relaxed)
    }

    /// Counts outcomes that are due, and looks after the router. Called each second.
    pub(crate) fn tend(&self) -> Result<()> {
        let inner = &self.inner;
        let seconds = inner.seconds.fetch_add(1, Ordering::Relaxed);
        if !inner.is_taken_up.load(Ordering::Acquire) {
            return if seconds.is_multiple_of(LOOK) { self.take_up() } else { Ok(()) };
        }
        let current = inner.current().clone();
        if let Some(id) = current {
            if seconds >= SETTLING {
                let now = inner.versions.host.now().as_millisecond();
                self.change(&id, |connection, stored| {
                    Ok(counting::close_due(connection, stored, now, AT_ONCE)? > 0)
                })?;
            }
            if seconds.is_multiple_of(LOOK) {
                self.look(&id)?;
            }
            if seconds.is_multiple_of(RENEWAL) {
                self.talk();
            }
        }
        if inner.is_unsettled.load(Ordering::Acquire) {
            self.talk();
        }
        Ok(())
    }

    /// Ends the experiment where it compares something else than it began with.
    fn look(&self, id: &str) -> Result<()> {
        let ledger = self.inner.versions.ledger()?;
        let Some(stored) = self.find(id)?.filter(|stored| stored.ended_at.is_none()) else {
            return Ok(());
        };
        if let Some(reason) = senseless(&stored, &ledger) {
            self.end(id, Actor::Lodestar, reason)?;
        }
        Ok(())
    }

    /// Changes the experiment that goes on; a finding ends it. `work` returns whether there is
    /// something to keep.
    fn change(
        &self,
        id: &str,
        work: impl FnOnce(&Connection, &mut Stored) -> rusqlite::Result<bool>,
    ) -> Result<()> {
        let inner = &self.inner;
        let ended = inner.versions.store.write(|transaction| {
            let going_on = store::going_on(transaction)?;
            let Some(mut stored) = going_on.filter(|it| it.id == id) else { return Ok(None) };
            if work(transaction, &mut stored)? {
                store::keep(transaction, &stored)?;
            }
            if stored.trial.verdict() == Verdict::Running {
                return Ok(None);
            }
            inner.end_within(transaction, &stored, Actor::Lodestar, &found(&stored)).map(Some)
        })?;
        if let Some(done) = ended {
            self.ended(done);
        }
        Ok(())
    }

    /// Begins an experiment, and changes the state of its version.
    ///
    /// # Errors
    ///
    /// When another one goes on, or the registry refuses.
    pub(crate) fn begin(&self, new: &Stored, by: &Request) -> Result<()> {
        let (inner, at) = (&self.inner, new.created_at);
        let done = inner.versions.store.write(|transaction| {
            if let Some(other) = store::going_on(transaction)? {
                return Ok(Err(busy(&other)));
            }
            let done = match inner.versions.registry.perform(transaction, by, at)? {
                Ok(done) => done,
                Err(refusal) => return Ok(Err(refused(&refusal))),
            };
            if !store::begin(transaction, new)? {
                return Err(rusqlite::Error::StatementChangedRows(0));
            }
            Ok(Ok(done))
        })??;
        *inner.current() = Some(new.id.clone());
        inner.versions.performed(&done);
        Ok(())
    }

    /// Ends the experiment that goes on.
    ///
    /// # Errors
    ///
    /// When it has ended already, or the database cannot be written.
    pub(crate) fn end(&self, id: &str, actor: Actor, reason: &str) -> Result<()> {
        let inner = &self.inner;
        let ended = inner.versions.store.write(|transaction| {
            let going_on = store::going_on(transaction)?;
            let Some(stored) = going_on.filter(|it| it.id == id) else { return Ok(None) };
            inner.end_within(transaction, &stored, actor, reason).map(Some)
        })?;
        match ended {
            None => Err(Error::of(ErrorKind::Refused, format!("experiment {id} has ended"))),
            // A name or a reason that the log does not take ends nothing.
            Some(Err(refusal)) if is_about_words(&refusal) => Err(refused(&refusal)),
            Some(done) => {
                self.ended(done);
                Ok(())
            }
        }
    }

    fn ended(&self, done: Result<Done, Refusal>) {
        let inner = &self.inner;
        *inner.current() = None;
        inner.is_over.store(true, Ordering::Relaxed);
        inner.is_unsettled.store(true, Ordering::Release);
        match done {
            Ok(done) => inner.versions.performed(&done),
            // Clients are led back all the same; the next start notes it.
            Err(refusal) => {
                tracing::error!(%refusal, "the end of an experiment is not in the log");
            }
        }
        self.talk();
    }

    /// Returns an experiment.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub(crate) fn find(&self, id: &str) -> Result<Option<Stored>> {
        self.inner.versions.store.read(|connection| store::load(connection, id))
    }

    /// Tells the router on the module's runtime what is to go on.
    fn talk(&self) {
        let inner = &self.inner;
        inner.has_news.store(true, Ordering::Release);
        if inner.is_talking.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = inner.clone();
        if let Err(error) = inner.versions.host.spawn(async move { shared.talk().await }) {
            inner.is_talking.store(false, Ordering::Release);
            tracing::warn!(%error, "the router cannot be told of an experiment");
        }
    }

    /// Tells the router now, on the thread of a job.
    ///
    /// # Errors
    ///
    /// When it cannot be reached, or refuses.
    pub(crate) fn settle(&self) -> Result<()> {
        let runtime = self.inner.versions.host.runtime()?;
        let shared = self.inner.clone();
        runtime.block_on(runtime.spawn(async move { shared.settle().await }))?
    }
}

impl Inner {
    fn current(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends an experiment within a transaction.
    fn end_within(
        &self,
        connection: &Connection,
        stored: &Stored,
        actor: Actor,
        reason: &str,
    ) -> rusqlite::Result<Result<Done, Refusal>> {
        let at = self.versions.host.now().as_millisecond();
        let request = Request {
            version: stored.challenger.clone(),
            actor,
            reason: reason.to_owned(),
            command: Command::Act(action(stored)),
        };
        let done = self.versions.registry.perform(connection, &request, at)?;
        if !done.as_ref().err().is_some_and(is_about_words) {
            store::finish(connection, &stored.id, reason, at)?;
        }
        Ok(done)
    }

    /// Leads versions out of the states of an experiment that does not go on.
    fn abandon_without(&self, goes_on: bool) -> Result<()> {
        if goes_on {
            return Ok(());
        }
        let ledger = self.versions.ledger()?;
        let Some(version) = ledger.challenger.as_deref().and_then(|id| ledger.versions.get(id))
        else {
            return Ok(());
        };
        let action = match version.state {
            State::Shadow => Action::EndShadow,
            State::AbRunning => Action::Undecided,
            _ => return Ok(()),
        };
        self.is_over.store(true, Ordering::Relaxed);
        self.versions
            .perform(&Request {
                version: version.id.clone(),
                actor: Actor::Lodestar,
                reason: "its experiment has ended".to_owned(),
                command: Command::Act(action),
            })
            .map(drop)
    }
}

/// Returns whether a refusal is about what a person typed.
const fn is_about_words(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Text { .. })
}

/// Returns the refusal while another experiment goes on.
pub(crate) fn busy(other: &Stored) -> Error {
    let Stored { id, challenger, .. } = other;
    let message = format!("experiment {id} of version {challenger} goes on");
    Error::of(ErrorKind::Refused, message)
        .hint(format!("`lodestar learning experiments stop {id} --reason TEXT` ends it"))
}

/// Returns the action by which a version leaves an experiment.
const fn action(stored: &Stored) -> Action {
    match (&stored.trial, stored.trial.verdict()) {
        (Trial::Shadow(_), _) => Action::EndShadow,
        (Trial::Split(_), Verdict::Passed) => Action::Pass,
        (Trial::Split(_), Verdict::Worse | Verdict::Guardrail) => Action::Worse,
        (Trial::Split(_), _) => Action::Undecided,
    }
}

/// Returns a finding in words.
fn found(stored: &Stored) -> String {
    match stored.trial.verdict() {
        Verdict::Running => "it goes on".to_owned(),
        Verdict::Passed => "the answer to its question is yes".to_owned(),
        Verdict::Worse => "it is worse than the champion by more than the margin".to_owned(),
        Verdict::Guardrail => {
            let name = stored.trial.exceeded().unwrap_or("unknown");
            format!("a guardrail was exceeded: {name}")
        }
        Verdict::WrongRatio => {
            "the sessions were not allotted in the ratio that was planned".into()
        }
        Verdict::Inconclusive => "as many sessions as were planned said neither".to_owned(),
    }
}

/// Returns why an experiment makes no sense any more.
fn senseless(stored: &Stored, ledger: &Ledger) -> Option<&'static str> {
    if ledger.versions.get(&stored.challenger).is_none_or(|version| version.tainted) {
        return Some("text that the version was learnt from was taken back");
    }
    (ledger.champion != stored.champion).then_some("another version serves than at its beginning")
}

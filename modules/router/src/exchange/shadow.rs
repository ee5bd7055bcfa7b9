//! Requests beside the answer: an experiment asks another model the same, and nobody gets what it
//! says.
//!
//! One is asked when the client's request is over, so that nothing of it is in the client's way:
//! neither a connection, nor the card of a local model. It is a request of the router's own, with
//! an event and a line of the journal; no key, session or project is charged for it.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use module_sdk::{CounterFamily, Host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::{
    Answered, Client, Plan, admission::estimate, attempt, failure::FailureClass, plan::Previous,
};
use crate::{
    app::App,
    daily_budget::DailyBudget,
    dialect::inspect,
    journal::Purpose,
    keys::Identity,
    limits::Scope,
    report::is_refusal,
    routing::{Decision, HedgeOptions, experiment::ShadowOptions},
    target::{Admission, Slot, Target, TargetName},
};

/// Requests beside answers, within their limits.
#[derive(Debug)]
pub(crate) struct Shadows {
    turns: Arc<Semaphore>,
    budget: DailyBudget,
    counts: [AtomicU64; Outcome::ALL.len()],
    counter: CounterFamily<1>,
}

/// Outcome of the wish to ask beside an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It is asked.
    Asked,
    /// Enough of them are under way, or the local model has something else to do.
    Busy,
    /// The money for it is used up, or the budget of all is.
    Budget,
    /// Nobody knows what it would cost.
    Unpriced,
    /// The model is left alone just now.
    Unavailable,
    /// The provider would charge the client's own account.
    Credentials,
    /// The request would do something a second time, or refers to what its provider keeps.
    Stateful,
}

impl Outcome {
    const ALL: [Self; 7] = [
        Self::Asked,
        Self::Busy,
        Self::Budget,
        Self::Unpriced,
        Self::Unavailable,
        Self::Credentials,
        Self::Stateful,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Busy => "busy",
            Self::Budget => "budget",
            Self::Unpriced => "unpriced",
            Self::Unavailable => "unavailable",
            Self::Credentials => "credentials",
            Self::Stateful => "stateful",
        }
    }
}

impl Shadows {
    /// Reads what was spent today.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub(crate) fn new(options: ShadowOptions, host: &Host) -> module_sdk::Result<Self> {
        let help = "Requests that experiments wanted to ask beside an answer, by what became of \
                    them.";
        let labels = [("outcome", Outcome::ALL.len())];
        Ok(Self {
            turns: Arc::new(Semaphore::new(options.in_flight as usize)),
            budget: DailyBudget::load("shadows", host, options.usd_per_day.nano())?,
            counts: Default::default(),
            counter: host.counter_family("lodestar_router_shadows_total", help, labels),
        })
    }

    fn count(&self, outcome: Outcome) {
        self.counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.counter.add([outcome.as_str()], 1.0);
    }

    /// Returns how often each outcome was met since the start.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Outcome::ALL.into_iter().map(Outcome::as_str).zip(counts)
    }
}

/// Place for the request beside a client's, which is asked when the client's is dropped.
#[derive(Debug, Default)]
pub(super) struct Beside(Mutex<Option<Box<Due>>>);

/// Request that is due when another one is over.
#[derive(Debug)]
struct Due {
    app: Arc<App>,
    plan: Plan,
    target: Arc<Target>,
}

/// Permission to ask, with what it holds until its end.
struct Permit {
    turn: OwnedSemaphorePermit,
    slot: Slot,
    /// Cost that is reserved, in nano-USD.
    reserved: i64,
}

/// Headers that are of the client's request alone: its credentials, its trace, its session, and
/// keys by which a provider knows a request again.
const OF_THE_CLIENT: [&str; 12] = [
    "authorization",
    "baggage",
    "cookie",
    "idempotency-key",
    "session_id",
    "traceparent",
    "tracestate",
    "x-api-key",
    "x-claude-code-session-id",
    "x-goog-api-key",
    "x-request-id",
    "x-session-id",
];

/// Asks the experiment's other model as soon as a request that was answered is over.
pub(super) fn when_over(app: &Arc<App>, plan: &Plan, answered: &Answered) {
    let Some(name) = &plan.decision.shadow else { return };
    let Some(target) = app.targets.get_or_add(name) else { return };
    // It may have stood in for the one that was chosen.
    if answered.target(plan).is_some_and(|answered| answered == name.to_string()) {
        return;
    }
    let due = Due { app: app.clone(), plan: plan.beside(app, name), target };
    *plan.shadow.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(due));
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(due) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            (*due).begin();
        }
    }
}

impl Due {
    /// Asks where that is possible, and counts where it is not. Returns at once.
    fn begin(self) {
        if self.app.is_draining() {
            return;
        }
        match self.permit() {
            Ok(permit) => {
                self.app.shadows.count(Outcome::Asked);
                let app = self.app.clone();
                // It is never waited for.
                drop(app.host.spawn(self.ask(permit)));
            }
            Err(outcome) => self.app.shadows.count(outcome),
        }
    }

    fn permit(&self) -> Result<Permit, Outcome> {
        let (app, target) = (&self.app, &self.target);
        if target.provider.takes_credentials {
            return Err(Outcome::Credentials);
        }
        if inspect::acts(&self.plan.body) {
            return Err(Outcome::Stateful);
        }
        let shadows = &app.shadows;
        let turn = shadows.turns.clone().try_acquire_owned().map_err(|_| Outcome::Busy)?;
        if target.is_local() && is_at_work(app, target) {
            return Err(Outcome::Busy);
        }
        let reserved = estimate(&self.plan, target).nano_usd.ok_or(Outcome::Unpriced)?;
        let reserved = i64::try_from(reserved).unwrap_or(i64::MAX);
        if reserved > 0 && app.limits.is_exceeded(&Scope::All) {
            return Err(Outcome::Budget);
        }
        let Admission::Admitted(slot) = target.admit() else { return Err(Outcome::Unavailable) };
        if !shadows.budget.reserve(app.host.now(), reserved) {
            return Err(Outcome::Budget);
        }
        Ok(Permit { turn, slot, reserved })
    }

    async fn ask(self, permit: Permit) {
        let Self { app, mut plan, target } = self;
        plan.begun = Instant::now();
        plan.started_at = app.host.now().as_millisecond();
        plan.tell(&app);
        plan.story.is_for(Purpose::Shadow);
        let plan = Arc::new(plan);
        let recorder = plan.recorder(&app, &target, 1, None);
        let key = recorder.key();
        let asked = attempt::make(&app, &plan, &target, permit.slot, recorder, false);
        let done = Box::pin(asked).await;
        // It may have another endpoint for the same.
        if done.is_err_and(|failed| failed.class == FailureClass::Endpoint)
            && let Admission::Admitted(slot) = target.admit()
        {
            let before = Previous { key, failed: Some(target.name.to_string()) };
            let recorder = plan.recorder(&app, &target, 2, Some(before));
            let asked = attempt::make(&app, &plan, &target, slot, recorder, false);
            // Its answer is for nobody: what it took and cost is in the story.
            drop(Box::pin(asked).await);
        }
        let attempt = plan.story.attempts().pop();
        // Of what went out and was not refused nobody knows the cost: what was reserved stays.
        let cost = attempt.map_or(0, |attempt| {
            let error = attempt.error.as_deref().unwrap_or_default();
            let was_refused = is_refusal(attempt.http_status, error);
            attempt.cost_nano_usd.unwrap_or(if was_refused { 0 } else { permit.reserved })
        });
        let more = cost.saturating_sub(permit.reserved);
        app.shadows.budget.spend(&app, more).await;
        drop(permit.turn);
    }
}

/// Returns whether a local model, or another one of its machine, is answering, or would have to be
/// loaded in the place of another one.
fn is_at_work(app: &App, target: &Target) -> bool {
    let list = app.targets.list();
    let mut of_same = list.iter().filter(|it| it.provider.id == target.provider.id);
    target.is_loaded() == Some(false) || of_same.any(|it| it.in_flight() > 0)
}

impl Plan {
    /// Returns the plan of the same request to another target, of the router's own.
    fn beside(&self, app: &App, name: &TargetName) -> Self {
        let mut headers = self.headers.clone();
        for name in OF_THE_CLIENT {
            headers.remove(name);
        }
        let variant = self.decision.variant.as_deref().unwrap_or_default();
        let experiment = variant.rsplit_once(':').map_or(variant, |(experiment, _)| experiment);
        let decision = Decision {
            order: vec![name.clone()],
            is_checked: false,
            second: None,
            rule: "shadow".to_owned(),
            strategy: "fixed",
            score: None,
            variant: Some(format!("{experiment}:shadow")),
            shadow: None,
            hedge: HedgeOptions::default(),
            reasons: Vec::new(),
            candidates: Vec::new(),
        };
        let client = Client { tool: Some("lodestar".to_owned()), ..Client::default() };
        Self {
            id: Uuid::now_v7().simple().to_string(),
            beside: Some(self.id.clone()),
            dialect: self.dialect,
            headers,
            query: self.query.clone(),
            body: self.body.clone(),
            places: self.places.clone(),
            model: self.model.clone(),
            is_stream: self.is_stream,
            includes_usage: self.includes_usage,
            choices: self.choices,
            estimated_tokens: self.estimated_tokens,
            max_tokens: self.max_tokens,
            answer_format: self.answer_format,
            requires_tool: self.requires_tool,
            expected: self.expected,
            wants_base64: self.wants_base64,
            client_tools: OnceLock::new(),
            lookup: None,
            leader: Mutex::default(),
            decision: Arc::new(decision),
            client: Arc::new(client),
            identity: Identity::Anonymous,
            tally: Arc::default(),
            story: Arc::default(),
            shadow: Beside::default(),
            begun: Instant::now(),
            started_at: app.host.now().as_millisecond(),
            share: self.share.clone(),
        }
    }
}

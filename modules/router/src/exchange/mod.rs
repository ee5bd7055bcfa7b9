//! One request from its first byte to its last: who asks, which target answers, what is sent, what
//! comes back, and what is reported of it.

mod admission;
mod attempt;
mod caching;
mod cascade;
mod client;
mod count;
mod failure;
mod head;
mod hedge;
mod own;
mod plan;
mod relay;
mod sending;
mod shadow;
mod tally;
mod whole;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use module_http::Share;
use module_sdk::events::RequestStatus;

pub(crate) use admission::identify;
pub(crate) use client::Client;
pub(crate) use count::count_tokens;
pub(crate) use head::of_fault as refused;
pub(crate) use own::{OwnAnswer, ask_once};
pub(crate) use plan::{Plan, features};
pub(crate) use shadow::Shadows;
pub(crate) use tally::Tally;

use crate::{
    app::App,
    dialect::{
        Dialect,
        fault::{Fault, FaultKind},
    },
    quality,
    report::{Race, Recorder, ReportKey, Runner},
    target::{Admission, Target},
};
use failure::{Failed, FailureClass};
use plan::Previous;
use plan::ToBeJudged;

/// Request as it came in.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// Id, `x-lodestar-request-id`.
    pub id: String,
    /// Dialect of the client.
    pub dialect: Dialect,
    /// Headers.
    pub headers: HeaderMap,
    /// Query of the URL, without its question mark.
    pub query: Option<String>,
    /// Body.
    pub body: Bytes,
    /// Memory that the body takes.
    pub share: Share,
    /// Model and streaming, where the URL says them (Gemini).
    pub in_path: Option<(String, bool)>,
    /// Address of the client.
    pub peer: Option<IpAddr>,
    /// Moment at which it came.
    pub begun: Instant,
    /// The same, in milliseconds since the Unix epoch.
    pub started_at: i64,
}

/// Answer of a target.
pub(crate) enum Answered {
    /// An answer that is there.
    Whole {
        /// Status.
        status: StatusCode,
        /// Headers.
        headers: HeaderMap,
        /// Body, in the client's dialect.
        body: Bytes,
    },
    /// A whole answer, written as the stream that the client asked for.
    Replayed {
        /// Headers.
        headers: HeaderMap,
        /// All of the stream.
        body: Bytes,
    },
    /// A stream that has begun.
    Stream {
        /// Headers.
        headers: HeaderMap,
        /// Stream, in the client's dialect.
        relay: Box<relay::Relay>,
    },
}

impl Answered {
    /// Returns the target that answered, `provider/model`; `None` for an answer from the cache.
    pub(crate) fn target(&self, plan: &Plan) -> Option<String> {
        if let Self::Stream { relay, .. } = self {
            return Some(relay.target().to_string());
        }
        let attempts = plan.story.attempts();
        let last = attempts.into_iter().rev().find(|attempt| !attempt.is_beaten());
        last.filter(|last| last.status == RequestStatus::Ok).and_then(|last| last.target)
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        match self {
            Self::Whole { headers, .. }
            | Self::Replayed { headers, .. }
            | Self::Stream { headers, .. } => headers,
        }
    }
}

/// Answers a request.
pub(crate) async fn answer(app: &Arc<App>, inbound: Inbound) -> Response {
    let (dialect, id) = (inbound.dialect, inbound.id.clone());
    let mut plan = match Plan::make(app, inbound, ToBeJudged(true)) {
        Ok(plan) => plan,
        Err(fault) => return head::of_fault(&fault, dialect, &id),
    };
    if let Err(fault) = admission::reserve(app, &mut plan).await {
        return head::of_fault(&fault, dialect, &id);
    }
    plan.tell(app);
    let plan = Arc::new(plan);
    if !plan.is_stream {
        let done = match caching::look_up(app, &plan).await {
            Some(known) => Ok(known),
            None => Box::pin(asked(app.clone(), plan.clone())).await,
        };
        return finished(done, &plan);
    }
    let mut work = Box::pin(known_or_run(app.clone(), plan.clone()));
    // One that waits for the answer to an equal request is silent as well.
    let patience = relay::silence(app).saturating_sub(plan.begun.elapsed());
    tokio::select! {
        biased;
        done = &mut work => finished(done, &plan),
        () = tokio::time::sleep(patience) => {
            // The client is not to take the silence for a dead connection.
            let body = relay::waiting(work, plan.clone(), relay::silence(app));
            head::of_stream(&plan, HeaderMap::new(), body)
        }
    }
}

async fn known_or_run(app: Arc<App>, plan: Arc<Plan>) -> Result<Answered, Failed> {
    match caching::look_up(&app, &plan).await {
        Some(known) => Ok(known),
        None => asked(app, plan).await,
    }
}

fn finished(done: Result<Answered, Failed>, plan: &Arc<Plan>) -> Response {
    match done {
        Ok(Answered::Whole { status, headers, body }) => {
            head::of_whole(plan, status, headers, Body::from(body))
        }
        Ok(Answered::Stream { headers, relay }) => {
            head::of_stream(plan, headers, relay::body(relay))
        }
        Ok(Answered::Replayed { headers, body }) => {
            head::of_stream(plan, headers, Body::from(body))
        }
        Err(failed) => head::of_failure(plan, failed),
    }
}

/// Asks until somebody answers. A sample of answers is checked, and another model is asked as well
/// where an experiment says so; what was known is neither.
async fn asked(app: Arc<App>, plan: Arc<Plan>) -> Result<Answered, Failed> {
    let done = run(app.clone(), plan.clone()).await;
    if let Ok(answered) = &done {
        quality::sample(&app, &plan, answered);
        shadow::when_over(&app, &plan, answered);
    }
    done
}

/// Tries the targets in their order until one answers.
async fn run(app: Arc<App>, plan: Arc<Plan>) -> Result<Answered, Failed> {
    let attempts = Attempts::default();
    let mut from = 0;
    if plan.decision.is_checked && cascade::can_check(&plan) {
        if let Some(answered) = cascade::first(&app, &plan, &attempts).await {
            return Ok(answered);
        }
        // Where there is no other one, its answer is better than none.
        from = usize::from(plan.decision.order.len() > 1);
    }
    let names = &plan.decision.order[from..];
    if plan.decision.hedge.is_on() && names.len() > 1 {
        if let Some(answered) = hedge::race(&app, &plan, &attempts, names).await {
            return answered;
        }
    } else {
        for (index, name) in names.iter().enumerate() {
            let Some(target) = app.targets.get_or_add(name) else { continue };
            let asking = Asking {
                is_last: index + 1 == names.len(),
                is_stream: plan.is_stream,
                ..Asking::default()
            };
            if let Some(answered) = attempts.at_target(&app, &plan, &target, asking).await {
                return answered;
            }
        }
    }
    Err(attempts.last().unwrap_or_else(|| Failed::own(nobody())))
}

fn nobody() -> Fault {
    let message = "no model is available just now; `lodestar router targets` shows why";
    Fault::new(FaultKind::Unavailable, message).after(Duration::from_secs(5))
}

/// The attempts of one request so far. Some of them may run at the same time.
#[derive(Default)]
struct Attempts {
    state: Mutex<AttemptsState>,
}

#[derive(Default)]
struct AttemptsState {
    /// Number of the last attempt.
    number: u16,
    /// Attempt that began last.
    previous: Option<Previous>,
    /// The failure that the client gets where no target answers.
    last: Option<Failed>,
}

/// Manner in which a target is asked.
#[derive(Default)]
struct Asking {
    /// `true` where there is no other one to turn to.
    is_last: bool,
    /// `true` when a stream is asked for.
    is_stream: bool,
    /// The race that it takes part in, where several may run at the same time.
    race: Option<Race>,
    /// `true` for one that is asked beside another: once, and with what it may use reserved.
    is_hedge: bool,
}

impl Attempts {
    fn state(&self) -> MutexGuard<'_, AttemptsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the failure that the client gets.
    fn last(&self) -> Option<Failed> {
        self.state().last.take()
    }

    /// Begins the report of an attempt at a target.
    fn begin(
        &self,
        app: &Arc<App>,
        plan: &Plan,
        target: &Arc<Target>,
        asking: &Asking,
        before: Option<Previous>,
    ) -> Recorder {
        let mut state = self.state();
        state.number += 1;
        let before = before.or_else(|| state.previous.take());
        let mut recorder = plan.recorder(app, target, state.number, before);
        state.previous = Some(Previous { key: recorder.key(), failed: None });
        drop(state);
        if let Some(race) = &asking.race {
            let reserved = admission::estimate(plan, target);
            let is_hedge = asking.is_hedge;
            recorder = recorder.racing(Runner { race: race.clone(), is_hedge, reserved });
        }
        recorder
    }

    /// Tries one target. Returns `None` where the next one is to be tried.
    async fn at_target(
        &self,
        app: &Arc<App>,
        plan: &Arc<Plan>,
        target: &Arc<Target>,
        asking: Asking,
    ) -> Option<Result<Answered, Failed>> {
        let retries = app.config.retries;
        if !asking.is_hedge
            && let Err(fault) = admission::reserve_more(app, plan, target).await
        {
            self.remember(Failed::own(fault));
            return None;
        }
        let further = if asking.is_hedge { 0 } else { retries.attempts };
        let mut before = None;
        let (mut attempt, mut has_turned) = (0, false);
        loop {
            let slot = match target.admit() {
                Admission::Admitted(slot) => slot,
                Admission::BreakerOpen => {
                    self.skip(target, "failed several times in a row and is left alone", None);
                    return None;
                }
                Admission::RateLimited(pause) => {
                    self.skip(target, "asked to be left alone for a while", Some(pause));
                    return None;
                }
            };
            let recorder = self.begin(app, plan, target, &asking, before.take());
            let key = recorder.key();
            let outcome = attempt::make(app, plan, target, slot, recorder, asking.is_stream).await;
            let failed = match outcome {
                Ok(answered) => return Some(Ok(answered)),
                Err(failed) => failed,
            };
            before = Some(self.failed(key, target));
            let class = failed.class;
            let pause = match class {
                FailureClass::Request => return Some(Err(failed)),
                // The other endpoint is tried at once, and once.
                FailureClass::Endpoint if !std::mem::replace(&mut has_turned, true) => continue,
                FailureClass::Endpoint | FailureClass::Target => None,
                FailureClass::RateLimited(pause) => {
                    // Another one can take it at once.
                    Some(pause).filter(|_| asking.is_last)
                }
                FailureClass::Transient => Some(None),
                FailureClass::Silent => Some(None).filter(|_| asking.is_last),
            };
            self.remember(failed);
            let pause = pause?;
            let longest = Duration::from_millis(u64::from(retries.max_backoff_ms));
            let pause = pause.unwrap_or_else(|| backoff(retries.backoff_ms, attempt, longest));
            if attempt == further || pause > longest {
                return None;
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Notes that an attempt failed, for the one that follows it.
    fn failed(&self, key: ReportKey, target: &Target) -> Previous {
        let failed = Some(target.name.to_string());
        self.state().previous = Some(Previous { key: key.clone(), failed: failed.clone() });
        Previous { key, failed }
    }

    fn skip(&self, target: &Target, why: &str, pause: Option<Duration>) {
        let message = format!("{} {why}; `lodestar router targets` shows it", target.name);
        let kind = if pause.is_some() { FaultKind::RateLimited } else { FaultKind::Unavailable };
        let fault = Fault::new(kind, message).after(pause.unwrap_or(Duration::from_secs(5)));
        self.state().last.get_or_insert_with(|| Failed::own(fault));
    }

    /// Keeps the failure that tells most: a provider's answer rather than none.
    fn remember(&self, failed: Failed) {
        let mut state = self.state();
        let had = state.last.as_ref().is_some_and(|last| last.passed.is_some());
        if !had || failed.passed.is_some() {
            state.last = Some(failed);
        }
    }
}

/// Returns the pause before an attempt: it doubles, and half of it is by chance.
fn backoff(first_ms: u32, attempt: u16, longest: Duration) -> Duration {
    let doubled = u64::from(first_ms) << attempt.min(20);
    let whole = Duration::from_millis(doubled).min(longest);
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}

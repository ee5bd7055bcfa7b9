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
mod own;
mod plan;
mod relay;
mod sending;
mod shadow;
mod tally;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use module_http::Share;

pub(crate) use admission::identify;
pub(crate) use client::Client;
pub(crate) use count::count_tokens;
pub(crate) use head::of_fault as refused;
pub(crate) use own::{OwnAnswer, ask_once};
pub(crate) use plan::Plan;
pub(crate) use shadow::Shadows;
pub(crate) use tally::Tally;

use crate::{
    app::App,
    dialect::{
        Dialect,
        fault::{Fault, FaultKind},
    },
    quality,
    target::{Admission, Target},
};
use failure::{Failed, FailureClass};
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
    if let Some(response) = caching::look_up(app, &plan).await {
        return response;
    }
    let is_stream = plan.is_stream;
    let mut work = Box::pin(asked(app.clone(), plan.clone()));
    if !is_stream {
        return finished(app, work.await, &plan);
    }
    tokio::select! {
        biased;
        done = &mut work => finished(app, done, &plan),
        () = tokio::time::sleep(relay::silence(app)) => {
            // The client is not to take the silence for a dead connection.
            let body = relay::waiting(work, plan.clone(), relay::silence(app));
            head::of_stream(&plan, &HeaderMap::new(), body)
        }
    }
}

fn finished(app: &Arc<App>, done: Result<Answered, Failed>, plan: &Arc<Plan>) -> Response {
    if let Ok(answered) = &done {
        quality::sample(app, plan, answered);
    }
    match done {
        Ok(Answered::Whole { status, headers, body }) => {
            head::of_whole(plan, status, &headers, Body::from(body))
        }
        Ok(Answered::Stream { headers, relay }) => {
            head::of_stream(plan, &headers, relay::body(relay))
        }
        Ok(Answered::Replayed { headers, body }) => {
            head::of_stream(plan, &headers, Body::from(body))
        }
        Err(failed) => head::of_failure(plan, failed),
    }
}

/// Asks until somebody answers, and has another one asked as well where an experiment says so.
async fn asked(app: Arc<App>, plan: Arc<Plan>) -> Result<Answered, Failed> {
    let done = run(app.clone(), plan.clone()).await;
    if done.is_ok() {
        shadow::when_over(&app, &plan);
    }
    done
}

/// Tries the targets in their order until one answers.
async fn run(app: Arc<App>, plan: Arc<Plan>) -> Result<Answered, Failed> {
    let mut state = Attempts { number: 0, previous: None, last: None };
    let mut from = 0;
    if plan.decision.is_checked && cascade::can_check(&plan) {
        if let Some(answered) = cascade::first(&app, &plan, &mut state).await {
            return Ok(answered);
        }
        // Where there is no other one, its answer is better than none.
        from = usize::from(plan.decision.order.len() > 1);
    }
    for (index, name) in plan.decision.order.iter().enumerate().skip(from) {
        let Some(target) = app.targets.get_or_add(name) else { continue };
        let is_last = index + 1 == plan.decision.order.len();
        if let Some(answered) = state.at_target(&app, &plan, &target, is_last, plan.is_stream).await
        {
            return answered;
        }
    }
    Err(state.last.unwrap_or_else(|| Failed::own(nobody())))
}

fn nobody() -> Fault {
    let message = "no model is available just now; `lodestar router targets` shows why";
    Fault::new(FaultKind::Unavailable, message).after(Duration::from_secs(5))
}

struct Attempts {
    /// Number of the last attempt.
    number: u16,
    /// Key and model of the attempt before.
    previous: Option<(String, String)>,
    /// The failure that the client gets where no target answers.
    last: Option<Failed>,
}

impl Attempts {
    /// Tries one target. Returns `None` where the next one is to be tried.
    async fn at_target(
        &mut self,
        app: &Arc<App>,
        plan: &Arc<Plan>,
        target: &Arc<Target>,
        is_last: bool,
        is_stream: bool,
    ) -> Option<Result<Answered, Failed>> {
        let retries = app.config.retries;
        if let Err(fault) = admission::reserve_more(app, plan, target).await {
            self.remember(Failed::own(fault));
            return None;
        }
        for attempt in 0..=retries.attempts {
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
            self.number += 1;
            let (recorder, key) = plan.recorder(app, target, self.number, self.previous.take());
            self.previous = Some((key, target.name.to_string()));
            let outcome = attempt::make(app, plan, target, slot, recorder, is_stream).await;
            let failed = match outcome {
                Ok(answered) => return Some(Ok(answered)),
                Err(failed) => failed,
            };
            let class = failed.class;
            let pause = match class {
                FailureClass::Request => return Some(Err(failed)),
                FailureClass::Target => None,
                FailureClass::RateLimited(pause) => {
                    // Another one can take it at once.
                    Some(pause).filter(|_| is_last)
                }
                FailureClass::Transient => Some(None),
            };
            self.remember(failed);
            let pause = pause?;
            let longest = Duration::from_millis(u64::from(retries.max_backoff_ms));
            let pause = pause.unwrap_or_else(|| backoff(retries.backoff_ms, attempt, longest));
            if attempt == retries.attempts || pause > longest {
                return None;
            }
            tokio::time::sleep(pause).await;
        }
        None
    }

    fn skip(&mut self, target: &Target, why: &str, pause: Option<Duration>) {
        let message = format!("{} {why}; `lodestar router targets` shows it", target.name);
        let kind = if pause.is_some() { FaultKind::RateLimited } else { FaultKind::Unavailable };
        let fault = Fault::new(kind, message).after(pause.unwrap_or(Duration::from_secs(5)));
        if self.last.is_none() {
            self.last = Some(Failed::own(fault));
        }
    }

    /// Keeps the failure that tells most: a provider's answer rather than none.
    fn remember(&mut self, failed: Failed) {
        let keeps =
            self.last.as_ref().is_some_and(|last| last.passed.is_some()) && failed.passed.is_none();
        if !keeps {
            self.last = Some(failed);
        }
    }
}

/// Returns the pause before an attempt: it doubles, and half of it is by chance.
fn backoff(first_ms: u32, attempt: u16, longest: Duration) -> Duration {
    let doubled = u64::from(first_ms) << attempt.min(20);
    let whole = Duration::from_millis(doubled).min(longest);
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}

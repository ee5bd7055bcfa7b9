//! Answers that are known, and answers that are kept.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Answered, Plan, sending};
use crate::{
    app::App,
    cache::{Form, Found, NotStored, Question, Sharers, Stored, Tier},
    dialect::{
        inspect::Inspected,
        observe::{Observed, Observer},
        said::Said,
        sse::Splitter,
    },
    target::TargetName,
};

const CACHE: HeaderName = HeaderName::from_static("x-lodestar-cache");

/// Returns where the answer to a request would lie; `None` where it is not looked for.
pub(super) fn place(
    app: &App,
    plan: &Plan,
    found: &Inspected<'_>,
    target: &TargetName,
) -> Option<crate::cache::Lookup> {
    let provider = app.targets.providers.get(&target.provider);
    let is_forwarded = provider.is_some_and(|state| state.takes_credentials);
    let credential = is_forwarded.then(|| {
        let all: Vec<&str> = ["authorization", "x-api-key", "x-goog-api-key"]
            .iter()
            .filter_map(|name| plan.headers.get(*name)?.to_str().ok())
            .collect();
        all.join("\n")
    });
    let query = sending::passed_query(plan.query.as_deref());
    let question = Question {
        sharers: Sharers {
            identity: plan.identity.id(),
            project: plan.client.project.as_deref(),
            credential: credential.as_deref(),
        },
        dialect: plan.dialect,
        target,
        headers: &plan.headers,
        query: query.as_deref(),
        body: &plan.body,
        inspected: found,
    };
    app.cache.key(question).ok()
}

/// Looks for the answer. Returns it, or keeps the duty to offer the one that comes.
pub(super) async fn look_up(app: &Arc<App>, plan: &Plan) -> Option<Answered> {
    let lookup = plan.lookup?;
    match app.cache.look_up(lookup).await {
        Found::Miss(leader) => {
            *plan.leader.lock().unwrap_or_else(PoisonError::into_inner) = Some(leader);
            None
        }
        Found::Hit(stored, tier) => answer(app, plan, &stored, tier),
    }
}

fn answer(app: &Arc<App>, plan: &Plan, stored: &Stored, tier: Tier) -> Option<Answered> {
    let form = if plan.is_stream { Form::Stream } else { Form::Whole };
    let replay = stored.replay(form)?;
    let target = app.targets.get_or_add(plan.decision.order.first()?)?;
    let mut recorder = plan.recorder(app, &target, 1, None);
    recorder.received(replay.body.len());
    let found = Observed {
        usage: stored.usage,
        model: stored.response_model.clone(),
        finish_reason: stored.finish_reason.clone(),
        said: recorder.wants_text().then(|| said(plan, &replay.body)),
        ..Observed::default()
    };
    recorder.finish_cached(&found);
    plan.tally.settle_free();
    let mut headers = HeaderMap::new();
    headers.insert(
        CACHE,
        HeaderValue::from_static(match tier {
            Tier::Memory => "hit; memory",
            Tier::Redis => "hit; redis",
            Tier::Flight => "hit; flight",
        }),
    );
    Some(if plan.is_stream {
        Answered::Replayed { headers, body: replay.body }
    } else {
        let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::OK);
        Answered::Whole { status, headers, body: replay.body }
    })
}

/// Returns the text of an answer that is given again.
fn said(plan: &Plan, body: &Bytes) -> Box<Said> {
    if !plan.is_stream {
        return Box::new(Said::of(plan.dialect, body));
    }
    let mut observer = Observer::new(plan.dialect);
    observer.keep_text();
    let is_json_lines = plan.dialect.is_json_lines();
    // It was split once before.
    let whole = Splitter::new(is_json_lines).push(body).unwrap_or_default();
    for (_, event) in Splitter::events(is_json_lines, &whole) {
        observer.event(&event);
    }
    observer.found.said.unwrap_or_default()
}

/// Says that an answer is not kept, so that those who wait for it ask for themselves.
pub(super) fn decline(plan: &Plan, reason: NotStored) {
    if let Some(leader) = plan.leader.lock().unwrap_or_else(PoisonError::into_inner).take() {
        leader.decline(reason);
    }
}

/// Offers an answer that came whole to the cache.
pub(super) fn keep(
    app: &App,
    plan: &Plan,
    target: &TargetName,
    form: Form,
    body: Bytes,
    found: &Observed,
    cost_nano_usd: Option<i64>,
) {
    // The place is that of the target that was chosen, not of one that stood in for it.
    if plan.decision.order.first() != Some(target) {
        return decline(plan, NotStored::NoAnswer);
    }
    let leader = plan.leader.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(leader) = leader else { return };
    let content_type = match form {
        Form::Whole => "application/json",
        Form::Stream if plan.dialect.is_json_lines() => "application/x-ndjson",
        Form::Stream => "text/event-stream",
    };
    let stored = Stored {
        status: 200,
        content_type: content_type.to_owned(),
        form,
        body,
        response_model: found.model.clone(),
        finish_reason: found.finish_reason.clone(),
        calls_tool: found.calls_tool,
        usage: found.usage,
        cost_nano_usd,
        stored_at: app.host.now().as_millisecond(),
    };
    // The cache counts why it keeps none.
    let _ = leader.offer(stored);
}

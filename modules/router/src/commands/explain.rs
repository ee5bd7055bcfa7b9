//! `lodestar router explain`.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use module_sdk::{Error, ErrorKind, Job, Reply, Result, Table, Usd};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::shown::{milliseconds, money, tokens, visible};
use crate::{
    Router,
    app::App,
    journal::{self, Attempt, CheckLine, FeedbackLine, Found, Line, RequestLine, bare_id},
};

/// Tells the story of one request: the decision with its reasons, all attempts, what it cost and
/// what would have been paid for it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainArgs {
    /// Id of the request (`x-lodestar-request-id`), or its beginning.
    #[schemars(extend("x-positional" = true))]
    id: String,
}

/// Time for which lines that are on their way are waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

impl Router {
    pub(crate) fn explain(&mut self, args: ExplainArgs) -> Result<Job> {
        let app = self.app.clone();
        Ok(Job::new(move |_| {
            let found = found(&app, &args.id)?;
            explained(&found)
        }))
    }
}

/// Finds the one request that an id, or its beginning, means.
pub(crate) fn found(app: &App, id: &str) -> Result<Found> {
    let Some(id) = bare_id(id) else {
        return Err(Error::usage("that is no id of a request").hint(
            "it has 32 hexadecimal digits, and stands in the header x-lodestar-request-id of every \
             answer; its first 6 or more will do",
        ));
    };
    app.journal.flush(PATIENCE);
    let found = journal::find(app.journal.directory(), &id)?;
    if found.ids().len() == 1 {
        return Ok(found);
    }
    match found.ids().as_slice() {
        [] => {
            let error = Error::of(ErrorKind::NotFound, format!("the journal has no request {id}"));
            Err(match &found.near {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None if app.config.journal_days == 0 => {
                    error.hint("none is kept, since router.journal_days is 0")
                }
                None => error.hint(format!(
                    "requests are kept for {} days (router.journal_days), and those that were \
                     refused before a model was chosen are not kept",
                    app.config.journal_days
                )),
            })
        }
        ids => Err(Error::usage(format!(
            "{id} is the beginning of {} requests: {}",
            ids.len(),
            ids.iter().take(3).copied().collect::<Vec<_>>().join(", ")
        ))
        .hint("write more of it")),
    }
}

fn explained(found: &Found) -> Result<Reply> {
    let (mut feedback, mut checks) = (Vec::new(), Vec::new());
    let mut request = None;
    for line in &found.lines {
        match line {
            Line::Request(line) => request = Some(&**line),
            Line::Feedback(line) => feedback.push(line),
            Line::Check(line) => checks.push(line),
        }
    }
    let Some(request) = request else {
        return Err(Error::of(ErrorKind::NotFound, "the journal has no such request"));
    };
    let mut data = data(request, &feedback, &checks);
    let mut table = table(request, &feedback, &checks);
    data["shadows"] = found.shadows.iter().map(shadow).collect();
    table.notes.extend(found.shadows.iter().map(shadow_note));
    Ok(Reply::json(&data)?.table(table))
}

fn cost(request: &RequestLine) -> Option<i64> {
    let costs = request.attempts.iter().filter_map(|attempt| attempt.cost_nano_usd);
    let is_known = !request.attempts.iter().any(Attempt::is_unpriced);
    is_known.then(|| costs.sum())
}

fn data(request: &RequestLine, feedback: &[&FeedbackLine], checks: &[&CheckLine]) -> Value {
    let usd = |nano: Option<i64>| nano.map(Usd::from_nano);
    let attempts: Vec<Value> = request.attempts.iter().map(attempt).collect();
    let candidates: Vec<Value> = request
        .decision
        .candidates
        .iter()
        .map(|candidate| {
            json!({
                "target": candidate.target,
                "allowed": candidate.allowed,
                "reason": candidate.reason,
                "estimated_cost_usd": usd(candidate.estimated_cost_nano_usd),
            })
        })
        .collect();
    let baseline = request.baseline_nano_usd;
    let saved = baseline.zip(cost(request)).map(|(there, here)| there.saturating_sub(here));
    json!({
        "id": request.id,
        "started_at": time(request.at).map(|at| at.to_string()),
        "ended_at": time(request.ended_at).map(|at| at.to_string()),
        "client": request.client,
        "key": request.key,
        "session_id": request.session,
        "project": request.project,
        "dialect": request.dialect,
        "operation": request.operation,
        "model": request.model,
        "stream": request.stream,
        "purpose": request.purpose,
        "beside": request.beside,
        "outcome": request.outcome,
        "rule": request.decision.rule,
        "strategy": request.decision.strategy,
        "score": request.decision.score,
        "variant": request.decision.variant,
        "shadow": request.decision.shadow,
        "reasons": request.decision.reasons,
        "candidates": candidates,
        "more_candidates": request.decision.more_candidates,
        "attempts": attempts,
        "cost_usd": usd(cost(request)),
        "baseline_model": request.baseline_model,
        "baseline_cost_usd": usd(baseline),
        "savings_usd": usd(saved),
        "feedback": feedback,
        "checks": checks,
    })
}

fn attempt(attempt: &Attempt) -> Value {
    json!({
        "number": attempt.number,
        "target": attempt.target,
        "local": attempt.local,
        "status": attempt.status,
        "error": attempt.error,
        "http_status": attempt.http_status,
        "duration_ms": attempt.duration_ms,
        "upstream_ms": attempt.upstream_ms,
        "ttft_ms": attempt.ttft_ms,
        "finish_reason": attempt.finish_reason,
        "tokens": attempt.tokens,
        "usage_source": attempt.usage_source,
        "cost_usd": attempt.cost_nano_usd.map(Usd::from_nano),
        "cost_source": attempt.cost_source,
        "cache": attempt.cache,
        "did_not_count": attempt.did_not_count,
        "hedge": attempt.hedge,
    })
}

/// Returns what an experiment asked beside a request.
fn shadow(request: &RequestLine) -> Value {
    json!({
        "id": request.id,
        "started_at": time(request.at).map(|at| at.to_string()),
        "variant": request.decision.variant,
        "outcome": request.outcome,
        "cost_usd": cost(request).map(Usd::from_nano),
        "attempts": request.attempts.iter().map(attempt).collect::<Vec<_>>(),
    })
}

fn shadow_note(request: &RequestLine) -> String {
    let last = request.attempts.last();
    let target = last.and_then(|last| last.target.as_deref()).unwrap_or("a model");
    let status = last.map(|last| last.status.to_string()).unwrap_or_default();
    format!(
        "{} was asked beside it for the experiment {}: {status}, {}; nobody got its answer",
        visible(target),
        visible(request.decision.variant.as_deref().unwrap_or_default()),
        money(cost(request)),
    )
}

fn time(ms: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(ms).ok()
}

fn table(request: &RequestLine, feedback: &[&FeedbackLine], checks: &[&CheckLine]) -> Table {
    let columns = ["#", "TARGET", "STATUS", "WHY", "TOOK#", "INPUT#", "OUTPUT#", "COST#"];
    let mut table = Table::new(columns);
    if let Some(first) = table.columns.first_mut() {
        "#".clone_into(&mut first.title);
    }
    let at = time(request.at).unwrap_or_default().to_zoned(TimeZone::system());
    table.title = format!(
        "{} asked for {} at {}: {}",
        visible(request.client.as_deref().unwrap_or("a client")),
        visible(if request.model.is_empty() { "no model" } else { &request.model }),
        at.strftime("%Y-%m-%d %H:%M:%S"),
        request.outcome.word(),
    );
    for attempt in &request.attempts {
        let checked = attempt.did_not_count.as_ref().map(|why| format!("did not count: {why}"));
        let beaten = attempt.is_beaten().then(|| "another one answered first".to_owned());
        let why = checked.or(beaten).or_else(|| attempt.error.clone());
        let why = why.or_else(|| attempt.finish_reason.clone());
        let target = attempt.target.as_deref().unwrap_or("(cache)");
        table.row([
            attempt.number.to_string(),
            visible(target),
            attempt.status.to_string(),
            visible(&why.unwrap_or_default()),
            milliseconds(attempt.upstream_ms.or(attempt.duration_ms)),
            tokens(attempt.tokens.map(|tokens| tokens.input)),
            tokens(attempt.tokens.map(|tokens| tokens.output)),
            money(attempt.cost_nano_usd),
        ]);
    }
    table.notes = notes(request);
    for line in feedback {
        let verdict = match (line.good, line.rating) {
            (Some(true), _) => "good".to_owned(),
            (Some(false), _) => "bad".to_owned(),
            (None, Some(rating)) => format!("rated {rating}"),
            (None, None) => "edited or asked again".to_owned(),
        };
        table.notes.push(format!("feedback ({}): {verdict}", visible(&line.origin)));
    }
    for line in checks {
        table.notes.push(format!("checked by {}: {:?}", visible(&line.judge), line.result));
    }
    table
}

fn notes(request: &RequestLine) -> Vec<String> {
    let decision = &request.decision;
    let mut notes = Vec::new();
    if request.attempts.is_empty() {
        notes.push("no target could be asked; `lodestar router targets` shows why".to_owned());
    }
    let score = decision.score.map(|score| format!(", score {score:.2}")).unwrap_or_default();
    notes.push(format!("rule {}, strategy {}{score}", visible(&decision.rule), decision.strategy));
    if let Some(variant) = &decision.variant {
        notes.push(format!("experiment {}", visible(variant)));
    }
    for reason in &decision.reasons {
        let (name, value) = (visible(&reason.name), visible(&reason.value.to_string()));
        notes.push(format!("{name} = {value} ({:+.2})", reason.weight));
    }
    for candidate in &decision.candidates {
        let word = if candidate.allowed { "could answer" } else { "could not answer" };
        let (target, reason) = (visible(&candidate.target), visible(&candidate.reason));
        let about = if reason.is_empty() { reason } else { format!(": {reason}") };
        notes.push(format!("{target} {word}{about}"));
    }
    if decision.more_candidates > 0 {
        notes.push(format!("and {} more", decision.more_candidates));
    }
    for hedge in request.attempts.iter().filter(|attempt| attempt.hedge) {
        let target = visible(hedge.target.as_deref().unwrap_or_default());
        notes.push(format!("{target} was asked too, since the one before was slow to begin"));
    }
    let baseline = visible(&request.baseline_model);
    notes.push(match request.baseline_nano_usd {
        Some(there) => format!(
            "it cost {}, and would have cost {} at {baseline}",
            money(cost(request)),
            money(Some(there))
        ),
        None => format!("it cost {}", money(cost(request))),
    });
    notes
}

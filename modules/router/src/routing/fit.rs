//! Limits of a target, known before it is asked.

use std::borrow::Cow;

use super::{Request, names};
use crate::{
    dialect::Dialect,
    glob,
    target::{Availability, TargetName, TargetView},
};

/// Ability of a target to answer a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fit {
    /// It can.
    Able,
    /// It can, but not now: it is asked where nothing else is left.
    Later(Cow<'static, str>),
    /// It cannot.
    Unable(Cow<'static, str>),
}

/// Limits that the configuration sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most requests under way at a local target.
    pub(super) local_in_flight: u32,
    /// `true` when a person named the target: its provider has the last word where what is known
    /// may be wrong.
    pub(super) is_named: bool,
}

/// Returns whether a target can answer a request, with the reason where it cannot.
pub(super) fn of(
    view: &TargetView,
    cost: Option<i64>,
    request: &Request<'_>,
    limits: Limits,
) -> Fit {
    let inspected = request.inspected;
    if !limits.is_named && !is_of_kind(&view.name.model, request.dialect) {
        return Fit::Unable("is for something else".into());
    }
    if inspected.tools > 0 && view.tools == Some(false) {
        return Fit::Unable("cannot call tools".into());
    }
    if inspected.has_images && view.images == Some(false) {
        return Fit::Unable("cannot see images".into());
    }
    if let Some(fit) = context(view, request, limits) {
        return fit;
    }
    if !limits.is_named
        && let Some(reason) = beyond_budget(view, cost, request)
    {
        return Fit::Unable(reason);
    }
    match &view.availability {
        Availability::Up => {}
        Availability::BreakerOpen => return Fit::Later("failed too often just now".into()),
        Availability::RateLimited => return Fit::Later("asked for a pause".into()),
        Availability::Down(reason) => return Fit::Later(format!("is down: {reason}").into()),
    }
    if view.is_local && !limits.is_named && view.in_flight >= limits.local_in_flight {
        return Fit::Later(format!("answers {} requests already", view.in_flight).into());
    }
    Fit::Able
}

/// Returns whether a key's list of models allows a target.
pub(super) fn is_allowed(patterns: &[String], name: &TargetName) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| names::is_of(pattern, name))
}

fn context(view: &TargetView, request: &Request<'_>, limits: Limits) -> Option<Fit> {
    let limit = view.context_tokens?;
    let input = request.inspected.estimated_tokens;
    let output = request.inspected.max_tokens.unwrap_or(0).into();
    // A limit of the answer is often far above what is needed: who names a model means it.
    let needed = if limits.is_named { input } else { input.saturating_add(output) };
    if needed <= limit {
        return None;
    }
    let reason = format!("takes {limit} tokens; about {needed} are needed").into();
    // The count is an estimate. A provider says so where it is too much; Ollama cuts the input.
    let has_last_word = limits.is_named && !view.is_local;
    Some(if has_last_word { Fit::Later(reason) } else { Fit::Unable(reason) })
}

/// Returns why a target costs more than the budget has left.
pub(super) fn beyond_budget(
    view: &TargetView,
    cost: Option<i64>,
    request: &Request<'_>,
) -> Option<Cow<'static, str>> {
    let left = request.budget_left_nano_usd.filter(|_| request.keeps_budget)?;
    let is_beyond = !view.is_local && (left <= 0 || cost.is_some_and(|cost| cost > left));
    is_beyond.then(|| "costs more than the budget has left".into())
}

/// Patterns of models that make vectors.
const EMBEDDING: &[&str] = &[
    "*embed*",
    "bge-*",
    "*/bge-*",
    "*minilm*",
    "e5-*",
    "*/e5-*",
    "gte-*",
    "*/gte-*",
    "paraphrase-*",
];
/// Patterns of models that neither write text nor make vectors.
const OTHER: &[&str] = &[
    "*whisper*",
    "tts-*",
    "*-tts*",
    "dall-e*",
    "*moderation*",
    "*-image*",
    "*transcribe*",
    "*rerank*",
    "sora*",
    "*imagen*",
    "veo-*",
    "*-realtime*",
    "*-audio*",
    "*guard*",
    "*diffusion*",
];

/// Returns whether a model, by its name, is of the kind that a dialect asks for.
fn is_of_kind(model: &str, dialect: Dialect) -> bool {
    let is = |patterns: &[&str]| patterns.iter().any(|pattern| glob::fits(pattern, model));
    match dialect {
        Dialect::Embeddings | Dialect::OllamaEmbed => is(EMBEDDING),
        _ => !is(EMBEDDING) && !is(OTHER),
    }
}

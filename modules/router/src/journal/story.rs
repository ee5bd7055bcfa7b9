//! The story of a request while it goes on.

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use module_prices::Price;
use module_sdk::events::{LlmRequestCompleted, RequestStatus};

use super::{
    Attempt, Journal, Outcome, Purpose, RequestLine,
    line::{CandidateLine, DecisionLine},
};
use crate::{dialect::Dialect, exchange::Client, routing::Decision};

/// Candidates that a line names.
const CANDIDATES: usize = 12;

/// Longest name that a line takes over.
const LONGEST: usize = 200;

/// Facts about a request before its first attempt.
#[derive(Debug)]
pub(crate) struct Told {
    /// Id, `x-lodestar-request-id`.
    pub id: String,
    /// Time at which it came, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Dialect of the client.
    pub dialect: Dialect,
    /// Model that was asked for.
    pub model: String,
    /// `true` when the answer is streamed.
    pub is_stream: bool,
    /// Client.
    pub client: Arc<Client>,
    /// Name of its virtual key.
    pub key: Option<String>,
    /// Decision.
    pub decision: Arc<Decision>,
    /// Id of the client's request beside which it is asked, for an experiment.
    pub beside: Option<String>,
}

/// The story of one request. Everything that has a part in the request holds it; when the last of
/// them lets it go the request is over, and its line is written.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// `None` for one that is not told: such as of a request that asks for no answer.
    told: Option<(Arc<Journal>, Told)>,
    attempts: Mutex<Vec<Attempt>>,
    purpose: AtomicU8,
}

/// A story that is over.
#[derive(Debug)]
pub(super) struct Ended {
    told: Told,
    attempts: Vec<Attempt>,
    purpose: Option<Purpose>,
}

/// Codes of [`Story::purpose`]: 0 for a client's request.
const PURPOSES: [Purpose; 4] = [Purpose::Test, Purpose::Compare, Purpose::Check, Purpose::Shadow];

impl Story {
    /// Begins a story.
    pub(crate) fn begin(journal: &Arc<Journal>, told: Told) -> Arc<Self> {
        Arc::new(Self {
            told: Some((journal.clone(), told)),
            attempts: Mutex::default(),
            purpose: AtomicU8::new(0),
        })
    }

    /// Adds an attempt that is over.
    pub(crate) fn attempted(&self, event: &LlmRequestCompleted, is_local: bool, is_hedge: bool) {
        let attempt = Attempt { hedge: is_hedge, ..Attempt::of(event, is_local) };
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
    }

    /// Says why the answers so far, of models whose answers are checked, did not count.
    pub(crate) fn did_not_count(&self, why: &str) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        for attempt in attempts.iter_mut().filter(|it| it.status == RequestStatus::Ok) {
            attempt.did_not_count = Some(why.to_owned());
        }
    }

    /// Returns the attempts so far, in the order in which they ended.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that the router asks for itself.
    pub(crate) fn is_for(&self, purpose: Purpose) {
        let code = PURPOSES.iter().zip(1..).find(|(it, _)| **it == purpose);
        self.purpose.store(code.map_or(0, |(_, code)| code), Ordering::Relaxed);
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        let code = *self.purpose.get_mut();
        let Some((journal, told)) = self.told.take() else { return };
        let attempts = mem::take(self.attempts.get_mut().unwrap_or_else(PoisonError::into_inner));
        let purpose = usize::from(code).checked_sub(1).and_then(|at| PURPOSES.get(at)).copied();
        journal.ended(Box::new(Ended { told, attempts, purpose }));
    }
}

impl Ended {
    /// Returns its line.
    pub(super) fn line(self, baseline_model: &str, baseline: &Price) -> RequestLine {
        let Self { told, mut attempts, purpose } = self;
        // The one that decided what the client got ended last of those that went to their end.
        let last = attempts.iter().rev().find(|attempt| !attempt.is_beaten());
        let outcome = last.map_or(Outcome::Failed, Attempt::outcome);
        let there = last.and_then(|last| cost_there(last, told.dialect, baseline));
        attempts.sort_by_key(|attempt| attempt.number);
        let took = attempts.iter().filter_map(|attempt| attempt.duration_ms).max().unwrap_or(0);
        RequestLine {
            ended_at: told.at + i64::from(took),
            at: told.at,
            client: told.client.tool.as_deref().map(short),
            key: told.key,
            session: told.client.session.clone(),
            project: told.client.project.as_deref().map(short),
            dialect: told.dialect.format(),
            operation: told.dialect.operation().to_owned(),
            model: short(&told.model),
            stream: told.is_stream,
            purpose,
            beside: told.beside,
            outcome,
            decision: decision(&told.decision),
            baseline_nano_usd: there,
            baseline_model: baseline_model.to_owned(),
            attempts,
            id: told.id,
        }
    }
}

/// Returns the cost of an answer at the baseline model. Embeddings cost there what they cost here:
/// no chat model makes them.
fn cost_there(last: &Attempt, dialect: Dialect, baseline: &Price) -> Option<i64> {
    use RequestStatus::{Cached, ClientAbort, Ok};
    if !matches!(last.status, Ok | Cached | ClientAbort) {
        return None;
    }
    if matches!(dialect, Dialect::Embeddings | Dialect::OllamaEmbed) {
        return last.cost_nano_usd;
    }
    last.tokens.map(|tokens| baseline.cost(&tokens.counted()))
}

fn decision(decision: &Decision) -> DecisionLine {
    let allowed = decision.candidates.iter().filter(|it| it.is_allowed);
    let others = decision.candidates.iter().filter(|it| !it.is_allowed);
    let shown = allowed.chain(others).take(CANDIDATES).map(|candidate| CandidateLine {
        target: short(&candidate.target.to_string()),
        allowed: candidate.is_allowed,
        reason: short(&candidate.reason),
        estimated_cost_nano_usd: candidate.estimated_cost_nano_usd,
    });
    DecisionLine {
        rule: decision.rule.clone(),
        strategy: decision.strategy.to_owned(),
        score: decision.score,
        variant: decision.variant.clone(),
        shadow: decision.shadow.as_ref().map(|name| short(&name.to_string())),
        reasons: decision.reasons.clone(),
        candidates: shown.collect(),
        more_candidates: decision.candidates.len().saturating_sub(CANDIDATES),
    }
}

fn short(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).collect()
}

//! Lines of the journal, as they are written and read.

use module_prices::Tokens;
use module_sdk::events::{
    ApiFormat, CacheOutcome, CostSource, LlmRequestCompleted, RequestStatus, UsageSource,
};
use serde::{Deserialize, Serialize};

use crate::{report::HEDGE_LOST, routing::Reason};

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Line {
    /// A request that has ended.
    Request(Box<RequestLine>),
    /// Feedback on a request.
    Feedback(FeedbackLine),
    /// Outcome of a check of a local answer.
    Check(CheckLine),
}

impl Line {
    /// Returns the id of the request that it is about.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Request(line) => &line.id,
            Self::Feedback(line) => &line.id,
            Self::Check(line) => &line.id,
        }
    }
}

/// A request that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RequestLine {
    /// Id, `x-lodestar-request-id`.
    pub id: String,
    /// Time at which it came, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Time at which it was over.
    pub ended_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Name of the client's virtual key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Session, a pseudonym.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    pub dialect: ApiFormat,
    pub operation: String,
    /// Model that was asked for.
    pub model: String,
    pub stream: bool,
    /// Purpose, where the router asked for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// Id of the client's request beside which it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    pub outcome: Outcome,
    pub decision: DecisionLine,
    pub attempts: Vec<Attempt>,
    /// Model that savings are counted against.
    pub baseline_model: String,
    /// Cost of the same tokens there, in nano-USD, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_nano_usd: Option<i64>,
}

/// Purpose of a request of the router itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// `lodestar router test`.
    Test,
    /// `lodestar router compare`.
    Compare,
    /// Check of a local answer.
    Check,
    /// Model that an experiment asks beside the answer.
    Shadow,
}

/// Outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Answered by a local model.
    Local,
    /// Answered from the cache.
    Cached,
    /// Answered by a provider elsewhere.
    Paid,
    /// Not answered, or not to the end.
    Failed,
    /// Given up by its client.
    Aborted,
}

impl Outcome {
    /// Returns the word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Cached => "cached",
            Self::Paid => "paid",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// Decision about a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DecisionLine {
    pub rule: String,
    pub strategy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Experiment, and the side of it: `bigger:variant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Target that the experiment asks beside the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// Targets that were looked at, those that could answer first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<CandidateLine>,
    /// Number of further candidates.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_candidates: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Target that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CandidateLine {
    pub target: String,
    pub allowed: bool,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_cost_nano_usd: Option<i64>,
}

/// An attempt at a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub number: u16,
    /// Target, `provider/model`; none for an answer from the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    pub local: bool,
    pub status: RequestStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Time from the request's beginning to the attempt's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u32>,
    /// Time that the provider took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokensLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_source: Option<UsageSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_nano_usd: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_source: Option<CostSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheOutcome>,
    /// Check that a whole answer failed, so that another model was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did_not_count: Option<String>,
    /// `true` where it was asked since another one was slow to begin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hedge: bool,
}

/// Tokens of an attempt; `input` includes those of the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TokensLine {
    pub input: u64,
    #[serde(skip_serializing_if = "none")]
    pub cache_read: u64,
    #[serde(skip_serializing_if = "none")]
    pub cache_write_5m: u64,
    #[serde(skip_serializing_if = "none")]
    pub cache_write_1h: u64,
    pub output: u64,
    #[serde(skip_serializing_if = "none")]
    pub reasoning: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn none(tokens: &u64) -> bool {
    *tokens == 0
}

impl TokensLine {
    /// Returns them as prices count them.
    pub(crate) const fn counted(self) -> Tokens {
        Tokens {
            input: self.input,
            cache_read: self.cache_read,
            cache_write_5m: self.cache_write_5m,
            cache_write_1h: self.cache_write_1h,
            output: self.output,
            reasoning: self.reasoning,
        }
    }
}

impl Attempt {
    /// Takes over what the report of an attempt says.
    pub(crate) fn of(event: &LlmRequestCompleted, is_local: bool) -> Self {
        let names = event.upstream.as_ref().zip(event.routed_model.as_ref());
        let tokens = Tokens::of(event).map(|tokens| TokensLine {
            input: tokens.input,
            cache_read: tokens.cache_read,
            cache_write_5m: tokens.cache_write_5m,
            cache_write_1h: tokens.cache_write_1h,
            output: tokens.output,
            reasoning: tokens.reasoning,
        });
        Self {
            number: event.attempt.unwrap_or(1),
            target: names.map(|(provider, model)| format!("{provider}/{model}")),
            local: is_local,
            status: event.status.unwrap_or(RequestStatus::Error),
            error: event.error_type.clone(),
            http_status: event.http_status,
            duration_ms: event.duration_ms,
            upstream_ms: event.upstream_ms,
            ttft_ms: event.ttft_ms,
            finish_reason: event.finish_reason.clone(),
            tokens,
            usage_source: event.usage_source,
            cost_nano_usd: event.cost_nano_usd,
            cost_source: event.cost_source,
            cache: event.cache,
            did_not_count: None,
            hedge: false,
        }
    }

    /// Returns what came of a request whose last attempt it is.
    pub(crate) const fn outcome(&self) -> Outcome {
        match self.status {
            RequestStatus::Cached => Outcome::Cached,
            RequestStatus::Ok if self.local => Outcome::Local,
            RequestStatus::Ok => Outcome::Paid,
            RequestStatus::ClientAbort => Outcome::Aborted,
            _ => Outcome::Failed,
        }
    }

    /// Returns whether it was cancelled since another attempt answered first.
    pub(crate) fn is_beaten(&self) -> bool {
        self.error.as_deref() == Some(HEDGE_LOST)
    }

    /// Returns whether it may have cost something that nobody knows.
    pub(crate) fn is_unpriced(&self) -> bool {
        let is_answer = matches!(self.status, RequestStatus::Ok | RequestStatus::Cached);
        let is_beaten = self.is_beaten() && !self.local;
        self.cost_nano_usd.is_none() && (is_answer || is_beaten || self.tokens.is_some())
    }
}

/// Feedback on a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FeedbackLine {
    pub id: String,
    pub at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried: Option<bool>,
    /// `true` when a comment was written; its text is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_comment: Option<bool>,
    pub origin: String,
}

/// Outcome of a check of a local answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CheckLine {
    pub id: String,
    pub at: i64,
    /// Judge: `exact`, `schema` or `model`.
    pub judge: String,
    pub result: Checked,
}

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Checked {
    /// The local answer is as good as the paid one.
    Kept,
    /// It is worse.
    Worse,
    /// The judge gave no verdict, or the paid model did not answer.
    Unknown,
}

//! Decides which target answers a request, and says why.

pub(crate) mod check;
pub(crate) mod experiment;
mod fit;
pub(crate) mod hedge;
pub(crate) mod learned;
mod look;
pub(crate) mod name_list;
pub(crate) mod names;
pub(crate) mod options;
pub(crate) mod policy;
mod refusal;
pub mod replay;
pub(crate) mod request;
mod rule;
pub(crate) mod running;
mod shown;
mod sign;
mod sorted;
mod strategy;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::target::TargetName;

pub(crate) use self::hedge::HedgeOptions;
pub(crate) use self::request::{Offer, Request};
pub(crate) use refusal::Refusal;

/// Decision about one request.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    /// Targets in the order in which they are tried: the chosen one first, then its fallbacks.
    pub order: Vec<TargetName>,
    /// `true` when the answer of the first target is checked before it counts, and the second one
    /// asked where it fails (strategy `cascade`).
    pub is_checked: bool,
    /// Target whose answer that of the first one is compared with, where the answer is checked and
    /// can be compared; the first one itself for another sample of it.
    pub second: Option<TargetName>,
    /// Delay after which another target is asked too, where one is slow to begin.
    pub hedge: HedgeOptions,
    /// Name of the rule that decided; `model` where the client named a model outright, `alias`
    /// where it named an alias, `default` where no rule fitted.
    pub rule: String,
    /// Name of the strategy that chose among the candidates.
    pub strategy: &'static str,
    /// Score of the strategy between 0 (a local model will do) and 1 (the best is needed); absent
    /// where it has none.
    pub score: Option<f64>,
    /// Name of the experiment and the side that the request is on, such as `bigger:variant`.
    pub variant: Option<String>,
    /// Target that is asked beside the answer, for an experiment.
    pub shadow: Option<TargetName>,
    /// Reasons, the weightiest first.
    pub reasons: Vec<Reason>,
    /// All targets that were looked at.
    pub candidates: Vec<Candidate>,
}

/// Feature of a request that counted in a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reason {
    /// Name of the feature: `code_words`, `estimated_tokens`.
    pub name: String,
    /// Value of the feature; never text of the request.
    pub value: serde_json::Value,
    /// Weight that it had in the score, 0 where it excluded or included outright.
    pub weight: f64,
}

/// Target that was looked at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    /// Name of the target.
    pub target: TargetName,
    /// `true` when it could answer.
    pub is_allowed: bool,
    /// Reason for not being allowed, or for its place; a few words.
    pub reason: Cow<'static, str>,
    /// Cost of the answer, estimated, in nano-USD; `None` where its price is not known.
    pub estimated_cost_nano_usd: Option<i64>,
}

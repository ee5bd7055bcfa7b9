//! Requests that no target can answer.

use super::Candidate;

/// Reason for which no target is chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No provider has the model.
    #[error("no provider has the model {model:?}{}", did_you_mean(.near.as_deref()))]
    UnknownModel {
        /// Model as it was asked for.
        model: String,
        /// Known name that is nearest.
        near: Option<String>,
    },
    /// No model is known of any provider.
    #[error("no model is known; name a provider in `providers`, or start Ollama")]
    NothingOffered,
    /// The key may ask none of the models.
    #[error("the key may not ask the model {model:?}")]
    NotAllowed {
        /// Model as it was asked for.
        model: String,
    },
    /// Models are there, and none can answer this request.
    #[error("no model can answer this request: {}", each_reason(.candidates))]
    Unfit {
        /// All targets that were looked at, each with its reason.
        candidates: Vec<Candidate>,
    },
}

/// Largest number of candidates that a message names.
const NAMED: usize = 5;

fn did_you_mean(name: Option<&str>) -> String {
    name.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

fn each_reason(candidates: &[Candidate]) -> String {
    let named = candidates.iter().take(NAMED);
    let mut parts: Vec<String> =
        named.map(|candidate| format!("{}: {}", candidate.target, candidate.reason)).collect();
    if let Some(more) = candidates.len().checked_sub(NAMED).filter(|more| *more > 0) {
        parts.push(format!("{more} more"));
    }
    parts.join("; ")
}

//! Targets: the models of the providers, each with its state.

pub(crate) mod breaker;
mod discovery;
pub(crate) mod endpoint;
mod samples;
mod state;

use std::sync::Arc;

use module_sdk::ProviderApi;

pub(crate) use state::{Admission, Model, ProviderState, Slot, Target, Targets};

/// Name of a target: a model of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TargetName {
    /// Id of the provider in the configuration.
    pub provider: Arc<str>,
    /// Model, as the provider calls it.
    pub model: Arc<str>,
}

impl std::fmt::Display for TargetName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

/// State of a target as routing sees it: a copy, taken when a request is decided.
#[derive(Debug, Clone)]
pub(crate) struct TargetView {
    /// Name of the target.
    pub name: TargetName,
    /// API of its provider.
    pub api: ProviderApi,
    /// `true` when an answer of it costs nothing.
    pub is_local: bool,
    /// Availability.
    pub availability: Availability,
    /// Tokens of input and output together that it takes; `None` where nobody says.
    pub context_tokens: Option<u64>,
    /// Ability to call tools; `None` where nobody says.
    pub tools: Option<bool>,
    /// Ability to see images; `None` where nobody says.
    pub images: Option<bool>,
    /// Median time to the whole answer, in milliseconds; `None` before the first one.
    pub latency_p50_ms: Option<f64>,
    /// Median time to the first content, in milliseconds; `None` before the first one.
    pub ttft_p50_ms: Option<f64>,
    /// Requests under way.
    pub in_flight: u32,
    /// `true` where it is in memory: no cold start (local models).
    pub is_loaded: Option<bool>,
}

/// Availability of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Availability {
    /// It answers, as far as is known.
    Up,
    /// It failed too often: none but a probe is sent before the time is over.
    BreakerOpen,
    /// Its provider asked to be left alone for a while (429 with `Retry-After`).
    RateLimited,
    /// `health_monitor` says that it is down, with the reason.
    Down(String),
}

//! The request, the targets and the prices that a decision is made from.

use std::sync::Arc;

use http::HeaderMap;
use module_sdk::ProviderApi;

use crate::{
    dialect::{Dialect, inspect::Inspected},
    target::{TargetName, TargetView},
};

/// Request as routing sees it.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    /// Findings in its body.
    pub inspected: &'a Inspected<'a>,
    /// API in which it is asked.
    pub dialect: Dialect,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Name of the virtual key.
    pub key: Option<&'a str>,
    /// Project.
    pub project: Option<&'a str>,
    /// Program that asks.
    pub client: Option<&'a str>,
    /// Session that it belongs to.
    pub session: Option<&'a str>,
    /// Person who asks, a pseudonym.
    pub user: Option<&'a str>,
    /// `true` when a sub-agent of a coding tool asks.
    pub is_sub_agent: bool,
    /// Target that answered the session before.
    pub sticky: Option<Sticky<'a>>,
    /// Rest of the tightest budget; `None` where there is none, or nothing is known of it.
    pub budget_left_nano_usd: Option<i64>,
    /// `true` when models that cost more than that are left out of the router's own choice.
    pub keeps_budget: bool,
    /// Patterns of the models that the key may ask; empty allows all.
    pub allowed_models: &'a [String],
    /// Prices of the targets.
    pub prices: &'a dyn Prices,
}

/// Target that answered a session before, and what its provider has cached of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sticky<'a> {
    /// The target.
    pub target: &'a TargetName,
    /// Tokens of the session in the prompt cache of its provider: another target reads them anew.
    pub cached_tokens: u64,
}

/// Prices of targets.
pub(crate) trait Prices {
    /// Returns the cost of an answer in nano-USD, with `cached` of the `input` tokens read from the
    /// provider's cache; `None` where the price is not known.
    fn estimate(&self, target: &TargetName, input: u64, output: u64, cached: u64) -> Option<i64>;
}

/// Targets and providers that a decision chooses among.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer<'a> {
    /// Targets that are known.
    pub targets: &'a [TargetView],
    /// Providers, in the order of the configuration.
    pub providers: &'a [ProviderView],
}

impl<'a> Offer<'a> {
    /// Returns the state of a target, where it is known.
    pub(super) fn view(&self, name: &TargetName) -> Option<&'a TargetView> {
        self.targets.iter().find(|view| view.name == *name)
    }

    /// Returns the provider with this id.
    pub(super) fn provider(&self, id: &str) -> Option<&'a ProviderView> {
        self.providers.iter().find(|provider| *provider.id == *id)
    }
}

/// Provider as routing sees it.
#[derive(Debug, Clone)]
pub(crate) struct ProviderView {
    /// Id in the configuration.
    pub id: Arc<str>,
    /// API that it offers.
    pub api: ProviderApi,
    /// `true` when an answer of it costs nothing.
    pub is_local: bool,
    /// `true` when the targets hold all its models: `false` where its list was refused or not
    /// answered.
    pub is_listed: bool,
}

//! Doors for the benchmark, which replays labelled prompts to the strategies.

use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;
use module_sdk::ProviderApi;

use super::{
    Offer, Request,
    learned::{Label, Learned, Sample},
    options::RoutingOptions,
    policy::Policy,
    request::{Prices, ProviderView},
    strategy::heuristic,
};
use crate::{
    dialect::{Dialect, inspect::Inspected},
    target::{Availability, TargetName, TargetView},
};

/// Strategy `learned` of one installation.
#[derive(Debug, Default)]
pub struct Learner(Learned);

impl Learner {
    /// Learns whether the local and the paid model answered a prompt right.
    pub fn learn(&self, prompt: &str, is_local_right: bool, is_paid_right: bool) {
        let label =
            Label { is_local_right: Some(is_local_right), is_paid_right: Some(is_paid_right) };
        with(prompt, |request| self.0.learn(&Sample::of(request), label));
    }

    /// Sets the share of the paid model's right answers that is to be kept.
    pub fn keep(&self, quality: f64) {
        self.0.keep(quality);
    }

    /// Returns the gain that it predicts for the paid model.
    #[must_use]
    pub fn gain(&self, prompt: &str) -> f64 {
        with(prompt, |request| {
            let (local, paid) = self.0.probabilities(&Sample::of(request));
            f64::from(paid - local)
        })
    }

    /// Returns whether it would leave a prompt to the local model.
    #[must_use]
    pub fn is_local_enough(&self, prompt: &str) -> bool {
        with(prompt, |request| {
            let opinion = self.0.opinion(&Sample::of(request), 0);
            opinion.is_some_and(|opinion| opinion.is_local_enough)
        })
    }
}

/// Returns the score of strategy `heuristic`: 0 is easy, 1 is hard.
#[must_use]
pub fn heuristic_score(prompt: &str) -> f64 {
    with(prompt, |request| heuristic::score(request).0)
}

/// A policy with targets to choose from.
#[derive(Debug)]
pub struct Site {
    policy: Policy,
    targets: Vec<TargetView>,
    providers: Vec<ProviderView>,
}

impl Site {
    /// Makes a site with a strategy, two local targets and some paid ones.
    ///
    /// # Panics
    ///
    /// Panics when there is no such strategy.
    #[must_use]
    pub fn new(strategy: &str, learner: &Learner) -> Self {
        let options = serde_json::json!({"strategy": strategy, "fallbacks": {"*": ["paid/*"]}});
        let options: RoutingOptions = serde_json::from_value(options).expect("a known strategy");
        let models = ["home/llama", "home/qwen"].into_iter().map(str::to_owned);
        let models = models.chain((0..14).map(|index| format!("paid/model-{index}")));
        let api = |is_local| if is_local { ProviderApi::Ollama } else { ProviderApi::Openai };
        let targets = models.map(|name| {
            let (provider, model) = name.split_once('/').expect("each has a provider");
            TargetView {
                name: TargetName { provider: provider.into(), model: model.into() },
                api: api(provider == "home"),
                is_local: provider == "home",
                availability: Availability::Up,
                context_tokens: Some(1_000_000),
                tools: Some(true),
                images: None,
                latency_p50_ms: Some(900.0),
                ttft_p50_ms: Some(200.0),
                in_flight: 0,
                is_loaded: None,
            }
        });
        let provider = |id: &str, is_local| ProviderView {
            id: Arc::from(id),
            api: api(is_local),
            is_local,
            is_listed: true,
        };
        Self {
            policy: Policy::new(&options, &learner.0).expect("it can be used"),
            targets: targets.collect(),
            providers: vec![provider("home", true), provider("paid", false)],
        }
    }

    /// Decides for a prompt, and returns how many targets are in the order.
    #[must_use]
    pub fn decide(&self, prompt: &str) -> usize {
        let offer = Offer { targets: &self.targets, providers: &self.providers };
        with(prompt, |request| {
            let decided = self.policy.decide(request, &offer, Timestamp::UNIX_EPOCH);
            decided.map_or(0, |decision| decision.order.len())
        })
    }
}

/// Prices by the number in the model's name.
struct ByName;

impl Prices for ByName {
    fn estimate(&self, target: &TargetName, input: u64, output: u64, _: u64) -> Option<i64> {
        let (_, number) = target.model.split_once('-')?;
        let price: i64 = number.parse().ok()?;
        Some((price + 1) * (input as i64 + 4 * output as i64))
    }
}

fn with<T>(prompt: &str, act: impl FnOnce(&Request<'_>) -> T) -> T {
    let inspected = Inspected {
        model: "auto".into(),
        messages: 1,
        choices: 1,
        last_words: prompt.into(),
        estimated_tokens: prompt.len() as u64 * 2 / 7,
        ..Inspected::default()
    };
    act(&Request {
        inspected: &inspected,
        dialect: Dialect::Chat,
        headers: &HeaderMap::new(),
        key: None,
        project: None,
        client: None,
        session: None,
        user: None,
        is_sub_agent: false,
        sticky: None,
        budget_left_nano_usd: None,
        keeps_budget: true,
        allowed_models: &[],
        prices: &ByName,
    })
}

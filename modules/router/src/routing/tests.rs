//! Decisions, in tables.

mod experiments;
mod names;
mod never_excluded;
mod rules;
mod strategies;

use std::collections::HashMap;

use http::HeaderMap;
use jiff::Timestamp;
use module_sdk::ProviderApi;

use super::{
    Decision, Offer, Refusal, Request,
    learned::Learned,
    options::RoutingOptions,
    policy::Policy,
    request::{Prices, ProviderView},
};
use crate::{
    dialect::{Dialect, inspect::Inspected},
    target::{Availability, TargetName, TargetView},
};

/// Prices per token in nano-USD: of the input, of what is read from the cache, of the output.
#[derive(Default)]
struct Table(HashMap<String, (i64, i64, i64)>);

impl Prices for Table {
    fn estimate(&self, target: &TargetName, input: u64, output: u64, cached: u64) -> Option<i64> {
        let (fresh, read, written) = *self.0.get(&target.to_string())?;
        let (input, output, cached) = (input as i64, output as i64, cached as i64);
        Some((input - cached) * fresh + cached * read + output * written)
    }
}

/// A site: an Ollama at home with two models, and two providers that cost.
struct Site {
    policy: Policy,
    targets: Vec<TargetView>,
    providers: Vec<ProviderView>,
    prices: Table,
    headers: HeaderMap,
    allowed: Vec<String>,
}

fn name(text: &str) -> TargetName {
    let (provider, model) = text.split_once('/').expect("provider/model");
    TargetName { provider: provider.into(), model: model.into() }
}

fn view(text: &str, api: ProviderApi) -> TargetView {
    TargetView {
        name: name(text),
        api,
        is_local: api == ProviderApi::Ollama,
        availability: Availability::Up,
        context_tokens: None,
        tools: None,
        images: None,
        latency_p50_ms: None,
        ttft_p50_ms: None,
        in_flight: 0,
        is_loaded: None,
    }
}

impl Site {
    /// Makes the site with this section of the configuration.
    fn new(options: serde_json::Value) -> Self {
        let options: RoutingOptions = serde_json::from_value(options).expect("options");
        options.check().expect("they can be used");
        let provider = |id: &str, api, is_listed| ProviderView {
            id: id.into(),
            api,
            is_local: api == ProviderApi::Ollama,
            is_listed,
        };
        let (ollama, openai) = (ProviderApi::Ollama, ProviderApi::Openai);
        let targets = vec![
            view("home/llama3:latest", ollama),
            view("home/qwen3:8b", ollama),
            view("home/nomic-embed-text:latest", ollama),
            view("cloud/mini", openai),
            view("cloud/big", openai),
            view("cloud/gpt-4o-2024-05-13", openai),
            view("cloud/gpt-4o-2024-08-06", openai),
            view("resale/anthropic/claude-opus-4.8:free", openai),
            view("resale/big", openai),
        ];
        let providers = vec![
            provider("home", ollama, true),
            provider("cloud", openai, true),
            provider("resale", openai, true),
            provider("claude", ProviderApi::Anthropic, false),
        ];
        let prices = [
            ("cloud/mini", (150, 75, 600)),
            ("cloud/big", (2_500, 250, 10_000)),
            ("cloud/gpt-4o-2024-08-06", (2_000, 1_000, 8_000)),
            ("resale/big", (2_400, 2_400, 9_000)),
        ];
        let prices = Table(prices.into_iter().map(|(it, price)| (it.to_owned(), price)).collect());
        Self {
            policy: Policy::new(&options, &Learned::default()).expect("a policy"),
            targets,
            providers,
            prices,
            headers: HeaderMap::new(),
            allowed: Vec::new(),
        }
    }

    fn with(mut self, target: &str, change: impl FnOnce(&mut TargetView)) -> Self {
        change(self.targets.iter_mut().find(|it| it.name == name(target)).expect("it is there"));
        self
    }

    fn request<'a>(&'a self, inspected: &'a Inspected<'a>) -> Request<'a> {
        Request {
            inspected,
            dialect: Dialect::Chat,
            headers: &self.headers,
            key: None,
            project: None,
            client: None,
            session: None,
            user: None,
            is_sub_agent: false,
            sticky: None,
            budget_left_nano_usd: None,
            keeps_budget: true,
            allowed_models: &self.allowed,
            prices: &self.prices,
        }
    }

    fn decide(&self, request: &Request<'_>) -> Result<Decision, Refusal> {
        self.decide_at(request, Timestamp::UNIX_EPOCH)
    }

    fn decide_at(&self, request: &Request<'_>, now: Timestamp) -> Result<Decision, Refusal> {
        let offer = Offer { targets: &self.targets, providers: &self.providers };
        self.policy.decide(request, &offer, now)
    }

    /// Decides for a model and the person's words.
    fn ask(&self, model: &str, words: &str) -> Result<Decision, Refusal> {
        self.decide(&self.request(&asked(model, words)))
    }
}

fn asked<'a>(model: &'a str, words: &'a str) -> Inspected<'a> {
    Inspected {
        model: model.into(),
        last_words: words.into(),
        estimated_tokens: words.len() as u64 * 2 / 7 + 1,
        messages: 1,
        choices: 1,
        ..Inspected::default()
    }
}

fn order(decision: &Decision) -> String {
    let names: Vec<String> = decision.order.iter().map(ToString::to_string).collect();
    names.join(" ")
}

fn first(decided: Result<Decision, Refusal>) -> String {
    decided.map_or_else(|refusal| refusal.to_string(), |decision| decision.order[0].to_string())
}

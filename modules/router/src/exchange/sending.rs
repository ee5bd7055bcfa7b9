//! Dialect, headers and query of a request to a provider, and the reading of its refusals.

use std::{sync::atomic::Ordering, time::Duration};

use http::{HeaderMap, HeaderName, header};
use module_sdk::ProviderApi;

use super::Plan;
use crate::{
    dialect::{Dialect, translate::AnswerContext},
    target::{Target, endpoint},
    upstream,
};

/// Returns the dialect in which a target is asked.
pub(super) fn spoken(client: Dialect, target: &Target) -> Dialect {
    let provider = &target.provider;
    let lacks_responses = provider.lacks_responses.load(Ordering::Relaxed);
    match (provider.provider.api, client) {
        (ProviderApi::Openai, Dialect::Responses) if lacks_responses => Dialect::Chat,
        (api, dialect) if dialect.is_of(api) => dialect,
        (ProviderApi::Openai, Dialect::OllamaEmbed) => Dialect::Embeddings,
        (ProviderApi::Openai, _) => Dialect::Chat,
        (ProviderApi::Anthropic, _) => Dialect::Messages,
        (ProviderApi::Ollama, Dialect::Embeddings) => Dialect::OllamaEmbed,
        // Ollama has it as OpenAI has, and no other form of it.
        (ProviderApi::Ollama, Dialect::Completions) => Dialect::Completions,
        (ProviderApi::Ollama, _) => Dialect::OllamaChat,
        (ProviderApi::Gemini, Dialect::Embeddings | Dialect::OllamaEmbed) => Dialect::Embeddings,
        (ProviderApi::Gemini, _) => Dialect::Chat,
    }
}

/// Returns what an answer is written with; `model` where the client named none.
pub(super) fn answer_context<'a>(plan: &'a Plan, model: &'a str) -> AnswerContext<'a> {
    AnswerContext {
        model: if plan.model.is_empty() { model } else { &plan.model },
        id: &plan.id,
        created: plan.started_at / 1000,
        include_usage: plan.includes_usage,
        base64_embeddings: plan.wants_base64,
    }
}

/// Returns the headers of a request to a target, its key among them.
pub(super) fn headers_for(plan: &Plan, target: &Target, is_same: bool) -> HeaderMap {
    let provider = &target.provider.provider;
    let mut headers = upstream::request_headers(&plan.headers, is_same);
    endpoint::authorize(provider, provider.key.as_ref(), &mut headers);
    if is_same && target.provider.takes_credentials {
        forward_credentials(&plan.headers, &mut headers);
    }
    headers
}

/// Returns the part of a query that goes on: what is known to be harmless.
pub(super) fn passed_query(query: Option<&str>) -> Option<String> {
    let is_passed = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        matches!(name, "alt" | "beta" | "api-version")
    };
    let passed: Vec<&str> = query?.split('&').filter(is_passed).collect();
    (!passed.is_empty()).then(|| passed.join("&"))
}

/// Passes on the client's own credentials, for a provider for which there is no key here.
pub(super) fn forward_credentials(from: &HeaderMap, to: &mut HeaderMap) {
    for name in [
        header::AUTHORIZATION,
        HeaderName::from_static("x-api-key"),
        HeaderName::from_static("x-goog-api-key"),
    ] {
        if let Some(value) = from.get(&name).filter(|value| !upstream::is_own_key(value)) {
            let mut value = value.clone();
            value.set_sensitive(true);
            to.insert(name, value);
        }
    }
}

/// Returns the time that a provider asks for.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| {
        let text = headers.get(name)?.to_str().ok()?;
        text.trim().parse::<f64>().ok().filter(|number| (0.0..1e7).contains(number))
    };
    // A day that somebody else has spent is no reason to forget a model.
    let longest = Duration::from_secs(60 * 60);
    let milliseconds = number("retry-after-ms").map(|ms| ms / 1000.0);
    let seconds = milliseconds.or_else(|| number("retry-after"));
    seconds.map(Duration::from_secs_f64).map(|pause| pause.min(longest))
}

/// Returns whether an error says that the request is too long for the model.
pub(super) fn names_context(body: &[u8]) -> bool {
    let start = &body[..body.len().min(4096)];
    let text = String::from_utf8_lossy(start).to_ascii_lowercase();
    ["context_length", "context length", "context window", "prompt is too long", "maximum context"]
        .iter()
        .any(|words| text.contains(words))
}

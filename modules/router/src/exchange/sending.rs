//! Dialect, headers and query of a request to a provider, and the reading of its refusals.

use std::{sync::atomic::Ordering, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use module_sdk::ProviderApi;

use super::Plan;
use crate::{
    app::App,
    dialect::{
        Dialect,
        translate::{AnswerContext, ClientTools},
    },
    glob,
    target::{Target, endpoint},
    upstream::{self, OF_ACCOUNT},
};

const BETAS: HeaderName = HeaderName::from_static("anthropic-beta");

/// Returns the dialect in which a target is asked.
pub(super) fn spoken(client: Dialect, target: &Target) -> Dialect {
    let provider = &target.provider;
    let lacks_responses = provider.lacks_responses.load(Ordering::Relaxed);
    let lacks_completions = target.lacks_completions.load(Ordering::Relaxed);
    match (provider.provider.api, client) {
        (ProviderApi::Openai, Dialect::Responses) if lacks_responses => Dialect::Chat,
        (ProviderApi::Openai, Dialect::Completions) if lacks_completions => Dialect::Chat,
        (api, dialect) if dialect.is_of(api) => dialect,
        (ProviderApi::Openai, Dialect::OllamaEmbed) => Dialect::Embeddings,
        (ProviderApi::Openai, _) => Dialect::Chat,
        (ProviderApi::Anthropic, _) => Dialect::Messages,
        (ProviderApi::Ollama, Dialect::Embeddings) => Dialect::OllamaEmbed,
        (ProviderApi::Ollama, Dialect::Completions) if lacks_completions => Dialect::OllamaChat,
        // Ollama has it as OpenAI has, and no other form of it.
        (ProviderApi::Ollama, Dialect::Completions) => Dialect::Completions,
        (ProviderApi::Ollama, _) => Dialect::OllamaChat,
        (ProviderApi::Gemini, Dialect::Embeddings | Dialect::OllamaEmbed) => Dialect::Embeddings,
        (ProviderApi::Gemini, _) => Dialect::Chat,
    }
}

/// Returns what an answer is written with; `model` where the client named none.
pub(super) fn answer_context<'a>(plan: &'a Plan, model: &'a str) -> AnswerContext<'a> {
    let tools = plan.client_tools.get_or_init(|| ClientTools::of(plan.dialect, &plan.body));
    AnswerContext {
        model: if plan.model.is_empty() { model } else { &plan.model },
        id: &plan.id,
        created: plan.started_at / 1000,
        include_usage: plan.includes_usage,
        base64_embeddings: plan.wants_base64,
        tools: Some(tools),
    }
}

/// Returns the headers of a request to a target, its key among them.
pub(super) fn headers_for(app: &App, plan: &Plan, target: &Target, is_same: bool) -> HeaderMap {
    let provider = &target.provider.provider;
    let mut headers = upstream::request_headers(&plan.headers, is_same);
    if !target.provider.takes_credentials {
        OF_ACCOUNT.iter().for_each(|name| drop(headers.remove(name)));
    }
    if let Some(known) = app.config.anthropic_betas.get(&*target.name.provider) {
        keep_betas(&mut headers, known);
    }
    endpoint::authorize(provider, provider.key.as_ref(), &mut headers);
    if is_same && target.provider.takes_credentials {
        forward_credentials(&plan.headers, &mut headers);
    }
    headers
}

/// Leaves those values of `anthropic-beta` that a provider knows.
fn keep_betas(headers: &mut HeaderMap, known: &[String]) {
    let values: Vec<HeaderValue> = headers.get_all(BETAS).iter().cloned().collect();
    headers.remove(BETAS);
    let texts = values.iter().filter_map(|value| value.to_str().ok());
    let kept = texts.flat_map(|text| text.split(',')).map(str::trim);
    let kept: Vec<&str> =
        kept.filter(|value| known.iter().any(|pattern| glob::fits(pattern, value))).collect();
    if let Ok(value) = HeaderValue::from_str(&kept.join(","))
        && !kept.is_empty()
    {
        headers.insert(BETAS, value);
    }
}

/// Returns whether a target is Anthropic, or what the client takes for it: it gets the client's own
/// credentials.
pub(super) fn is_anthropic(target: &Target) -> bool {
    target.provider.takes_credentials || target.provider.maker() == "anthropic"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_gets_the_betas_that_it_knows() {
        let check = |values: &[&'static str], known: &[&str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(BETAS, HeaderValue::from_static(value));
            }
            let known: Vec<String> = known.iter().map(|&it| it.to_owned()).collect();
            keep_betas(&mut headers, &known);
            assert_eq!(headers.get(BETAS).and_then(|it| it.to_str().ok()), expected, "{known:?}");
        };
        let all = ["context-1m-2025-08-07, oauth-2025-04-20", "fine-tools-1"];
        check(&all, &["context-1m-*", "fine-*"], Some("context-1m-2025-08-07,fine-tools-1"));
        check(&all, &["*"], Some("context-1m-2025-08-07,oauth-2025-04-20,fine-tools-1"));
        check(&all, &[], None);
        check(&[], &["*"], None);
    }
}

//! Addresses and headers of a provider's endpoints.

use http::{HeaderMap, HeaderName, HeaderValue};
use module_http_client::endpoint::base;
use module_sdk::{Provider, ProviderApi, Secret};

use crate::dialect::Dialect;

const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const GOOGLE_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// Version of Anthropic's API, where the client says none.
const DEFAULT_ANTHROPIC_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// Returns the URL at which a provider answers requests of a dialect. `model` and `is_stream` are
/// in the URL in Gemini's dialect alone.
pub(crate) fn url(provider: &Provider, dialect: Dialect, model: &str, is_stream: bool) -> String {
    let path = match dialect {
        Dialect::Chat => "chat/completions",
        Dialect::Responses => "responses",
        Dialect::Completions => "completions",
        Dialect::Embeddings => "embeddings",
        Dialect::Messages => "messages",
        Dialect::OllamaChat => "api/chat",
        Dialect::OllamaGenerate => "api/generate",
        Dialect::OllamaEmbed => "api/embed",
        Dialect::Gemini => {
            let method =
                if is_stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
            let model = escaped(model.strip_prefix("models/").unwrap_or(model));
            return format!("{}/models/{model}:{method}", base(provider));
        }
    };
    // Both have endpoints for OpenAI's clients as well.
    let below = match provider.api {
        ProviderApi::Ollama if !dialect.is_of(ProviderApi::Ollama) => "/v1",
        ProviderApi::Gemini => "/openai",
        _ => "",
    };
    format!("{}{below}/{path}", base(provider))
}

/// Returns the URL at which Anthropic counts the tokens of a request.
pub(crate) fn count_tokens(provider: &Provider) -> String {
    format!("{}/messages/count_tokens", base(provider))
}

/// Adds the headers by which a provider knows its customer.
pub(crate) fn authorize(provider: &Provider, key: Option<&Secret>, headers: &mut HeaderMap) {
    if provider.api == ProviderApi::Anthropic && !headers.contains_key(ANTHROPIC_VERSION) {
        headers.insert(ANTHROPIC_VERSION, DEFAULT_ANTHROPIC_VERSION);
    }
    let Some(key) = key else { return };
    let (name, text) = match provider.api {
        ProviderApi::Openai | ProviderApi::Ollama => {
            (http::header::AUTHORIZATION, format!("Bearer {}", key.expose()))
        }
        ProviderApi::Anthropic => (API_KEY, key.expose().to_owned()),
        ProviderApi::Gemini => (GOOGLE_KEY, key.expose().to_owned()),
    };
    // A key that no header can hold was refused when the module started.
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

/// Returns a name as a part of a path: what would lead to another one is escaped.
fn escaped(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn provider(api: &str, base_url: &str) -> Provider {
        from_value(json!({"api": api, "base_url": base_url})).expect("a provider")
    }

    #[test]
    fn base_urls_of_every_form_lead_to_the_endpoint() {
        let check = |api, base, dialect, expected: &str| {
            assert_eq!(url(&provider(api, base), dialect, "m:1", true), expected);
        };
        let root = "https://a.example";
        check("openai", root, Dialect::Chat, "https://a.example/v1/chat/completions");
        check("openai", "https://a/api/v1/", Dialect::Responses, "https://a/api/v1/responses");
        check("anthropic", root, Dialect::Messages, "https://a.example/v1/messages");
        check("anthropic", "https://a/v1", Dialect::Messages, "https://a/v1/messages");
        check("ollama", "http://h:1/v1", Dialect::OllamaChat, "http://h:1/api/chat");
        check("ollama", "http://h:1", Dialect::Chat, "http://h:1/v1/chat/completions");
        check(
            "gemini",
            root,
            Dialect::Gemini,
            "https://a.example/v1beta/models/m:1:streamGenerateContent?alt=sse",
        );
        check("gemini", root, Dialect::Chat, "https://a.example/v1beta/openai/chat/completions");
    }

    #[test]
    fn a_name_leads_to_no_other_path() {
        let url = url(&provider("gemini", "https://a"), Dialect::Gemini, "x/../y?z=#", false);
        assert_eq!(url, "https://a/v1beta/models/x%2F..%2Fy%3Fz%3D%23:generateContent");
    }

    #[test]
    fn every_api_has_its_own_header_for_the_key() {
        let key: Secret = serde_json::from_str("\"sk-canary\"").expect("a secret");
        for (api, name) in [
            ("openai", "authorization"),
            ("ollama", "authorization"),
            ("anthropic", "x-api-key"),
            ("gemini", "x-goog-api-key"),
        ] {
            let mut headers = HeaderMap::new();
            authorize(&provider(api, "https://a.example"), Some(&key), &mut headers);
            assert!(headers.contains_key(name), "{api}");
            assert!(!format!("{headers:?}").contains("canary"), "{headers:?}");
        }
    }
}

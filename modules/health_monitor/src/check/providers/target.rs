//! Providers as they are asked: which URL, with which headers.

use std::net::IpAddr;

use module_http_client::{Header, Request, endpoint};
use module_sdk::{Provider, ProviderApi};

/// Largest list of models that is read.
const LARGEST: usize = 4 * 1_024 * 1_024;

/// Returns the request for the list of a provider's models, without a deadline.
pub(super) fn list(provider: &Provider) -> Request {
    let mut request = Request::get(endpoint::models(provider));
    request.max_bytes = LARGEST;
    request.headers.push(Header::new("accept", "application/json"));
    let key = provider.key.as_ref();
    match provider.api {
        ProviderApi::Openai | ProviderApi::Ollama => {
            request.headers.extend(key.map(Header::bearer));
        }
        ProviderApi::Anthropic => {
            request.headers.extend(key.map(|key| Header::secret("x-api-key", key)));
            request.headers.push(Header::new("anthropic-version", "2023-06-01"));
        }
        ProviderApi::Gemini => {
            request.headers.extend(key.map(|key| Header::secret("x-goog-api-key", key)));
        }
    }
    request
}

/// Returns the request for the models that an Ollama has loaded, without a deadline.
pub(super) fn loaded(provider: &Provider) -> Request {
    let mut request = list(provider);
    request.url = format!("{}/api/ps", endpoint::base(provider));
    request
}

/// Returns whether a base URL itself says that it is of this machine or its network: `localhost`,
/// or an address of one.
pub(super) fn is_near(base_url: &str) -> bool {
    let rest = base_url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// Returns the path of a request's URL, for a message.
pub(super) fn path(request: &Request) -> &str {
    let url = request.url.split_once("://").map_or(request.url.as_str(), |(_, rest)| rest);
    let path = url.find('/').map_or("", |at| &url[at..]);
    path.split('?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn provider(api: &str, base_url: &str) -> Provider {
        from_value(json!({"api": api, "base_url": base_url, "key": "sk-canary"}))
            .expect("a provider")
    }

    #[test]
    fn an_address_that_is_written_down_is_near_and_a_name_is_not() {
        for url in [
            "http://localhost:11434",
            "http://127.0.0.1:8000/v1",
            "https://10.1.2.3",
            "http://[::1]:80/v1",
            "http://192.168.1.2?x",
        ] {
            assert!(is_near(url), "{url}");
        }
        for url in ["https://api.example.com", "https://1.1.1.1/v1", "http://169.254.169.254", ""] {
            assert!(!is_near(url), "{url}");
        }
    }

    #[test]
    fn requests_lead_to_the_lists_and_show_no_key() {
        let request = list(&provider("anthropic", "https://a.example"));
        assert_eq!(path(&request), "/v1/models");
        assert!(!format!("{request:?}").contains("canary"), "{request:?}");
        let loaded = loaded(&provider("ollama", "http://127.0.0.1:11434/v1"));
        assert_eq!(loaded.url, "http://127.0.0.1:11434/api/ps");
    }
}

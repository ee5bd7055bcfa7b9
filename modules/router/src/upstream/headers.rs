//! Headers that go on to a provider, and those of its answer that go back.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers of a client that never go on: of its connection, of its identity here, of browsers, and
/// those that this side sets itself.
const KEPT_BACK: [&str; 27] = [
    "accept-encoding",
    "api-key",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-api-key",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-goog-api-key",
    "x-real-ip",
];

/// Prefix of the headers that are for the router alone.
const OWN: &str = "x-lodestar-";

/// Returns the headers of a request to a provider. Those of the client go on where the provider
/// speaks the client's dialect (`is_same`); another one would not know them.
pub(crate) fn request_headers(from: &HeaderMap, is_same: bool) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(from.len() + 4);
    if is_same {
        for (name, value) in from {
            let word = name.as_str();
            let is_kept_back = KEPT_BACK.binary_search(&word).is_ok() || word.starts_with(OWN);
            if !is_kept_back && !is_own_key(value) {
                headers.append(name.clone(), value.clone());
            }
        }
    } else if let Some(agent) = from.get(header::USER_AGENT) {
        headers.insert(header::USER_AGENT, agent.clone());
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Counts are read on the way: no provider need compress.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
}

/// Returns whether a header holds a key of the router's own, which no provider gets.
pub(crate) fn is_own_key(value: &HeaderValue) -> bool {
    let text = value.to_str().unwrap_or_default();
    text.split([' ', ',', ';']).any(|word| word.starts_with(crate::keys::PREFIX))
}

/// Headers of an answer that clients act on.
const TOLD: [HeaderName; 6] = [
    HeaderName::from_static("request-id"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("retry-after"),
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("x-should-retry"),
    HeaderName::from_static("openai-processing-ms"),
];

/// Prefixes of further ones.
const TOLD_PREFIXES: [&str; 2] = ["x-ratelimit-", "anthropic-ratelimit-"];

/// Returns the headers of a provider's answer that go back to the client.
pub(crate) fn answer_headers(from: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in from {
        let word = name.as_str();
        if TOLD.contains(name) || TOLD_PREFIXES.iter().any(|prefix| word.starts_with(prefix)) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_is_kept_back_is_sorted() {
        assert!(KEPT_BACK.is_sorted());
    }

    #[test]
    fn a_providers_own_headers_go_on_and_no_others() {
        let from = map(&[
            ("anthropic-beta", "a,b"),
            ("authorization", "Bearer canary"),
            ("cookie", "canary"),
            ("host", "localhost"),
            ("user-agent", "claude-cli/2"),
            ("api-key", "canary"),
            ("x-api-key", "canary"),
            ("x-other", "Bearer lk_canary"),
            ("x-lodestar-project", "shop"),
            ("x-stainless-retry-count", "0"),
        ]);
        let same = request_headers(&from, true);
        assert!(!format!("{same:?}").contains("canary"), "{same:?}");
        for name in ["anthropic-beta", "user-agent", "x-stainless-retry-count"] {
            assert!(same.contains_key(name), "{name}");
        }
        assert!(!same.contains_key("x-lodestar-project") && !same.contains_key("host"));
        let other = request_headers(&from, false);
        assert!(!other.contains_key("anthropic-beta"));
        assert_eq!(other.get("accept-encoding").map(HeaderValue::as_bytes), Some(&b"identity"[..]));
    }

    #[test]
    fn limits_of_a_provider_go_back() {
        let from = map(&[
            ("anthropic-ratelimit-requests-remaining", "1"),
            ("retry-after", "3"),
            ("server", "x"),
            ("set-cookie", "canary"),
            ("transfer-encoding", "chunked"),
        ]);
        let told = answer_headers(&from);
        assert_eq!(told.len(), 2, "{told:?}");
    }
}

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
    let mut headers = HeaderMap::with_capacity(from.len().max(6) + 4);
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

/// Headers that say whose account at a provider is charged: they go with the client's own
/// credentials alone. With a key of the operator the account is the operator's.
pub(crate) static OF_ACCOUNT: [HeaderName; 4] = [
    HeaderName::from_static("chatgpt-account-id"),
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    HeaderName::from_static("x-goog-user-project"),
];

/// Headers that go on and change no answer: they say who asks, in which session, and how often.
const INERT: [&str; 29] = [
    "accept",
    "accept-language",
    "anthropic-dangerous-direct-browser-access",
    "baggage",
    "cache-control",
    "conversation_id",
    "dnt",
    "http-referer",
    "idempotency-key",
    "originator",
    "pragma",
    "priority",
    "sentry-trace",
    "session-id",
    "session_id",
    "thread-id",
    "traceparent",
    "tracestate",
    "user-agent",
    "version",
    "x-app",
    "x-claude-code-session-id",
    "x-client-request-id",
    "x-correlation-id",
    "x-openai-subagent",
    "x-request-id",
    "x-session-affinity",
    "x-session-id",
    "x-title",
];

/// Returns whether a header may change the answer: all that go on and are not known to change none.
pub(crate) fn counts(name: &str) -> bool {
    let goes_on = KEPT_BACK.binary_search(&name).is_err() && !name.starts_with(OWN);
    let is_inert = INERT.binary_search(&name).is_ok()
        || name.starts_with("sec-")
        || name.starts_with("x-stainless-");
    goes_on && !is_inert
}

/// Returns whether a header holds a key of the router's own, which no provider gets.
pub(crate) fn is_own_key(value: &HeaderValue) -> bool {
    let prefix = crate::keys::PREFIX;
    // Hardly any value has its letters at all.
    if memchr::memmem::find(value.as_bytes(), prefix.as_bytes()).is_none() {
        return false;
    }
    let text = value.to_str().unwrap_or_default();
    text.split([' ', ',', ';']).any(|word| word.starts_with(prefix))
}

/// Headers of an answer that clients act on.
static TOLD: [HeaderName; 6] = [
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
    // With those that are added on the way to the client, so that the map need not grow.
    let mut headers = HeaderMap::with_capacity(12);
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
        assert!(KEPT_BACK.is_sorted() && INERT.is_sorted());
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

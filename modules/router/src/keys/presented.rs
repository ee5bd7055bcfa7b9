//! The secret that a client presents, wherever its dialect puts it.

use http::{HeaderMap, HeaderName, header};

use super::secret::PREFIX;

/// Header of our own, for clients that send their own credentials for the provider as well.
pub(crate) const KEY_HEADER: &str = "x-lodestar-key";

/// Headers that a proxy adds.
static FORWARDED: [HeaderName; 8] = [
    HeaderName::from_static("cf-connecting-ip"),
    header::FORWARDED,
    HeaderName::from_static("true-client-ip"),
    header::VIA,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
];

/// The header of our own.
static OWN: HeaderName = HeaderName::from_static(KEY_HEADER);

/// Headers in which the dialects put a key: Anthropic's, Google's and Azure's.
static HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("api-key"),
];

/// Returns the secret that a client presents: a virtual key where there is one among the headers or
/// in the query (`?key=…`, Gemini), otherwise the first of its own credentials.
pub(crate) fn presented<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> Option<&'a str> {
    let text =
        |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = text(&header::AUTHORIZATION).and_then(bearer);
    let mut own = None;
    let all = [text(&OWN), bearer]
        .into_iter()
        .chain(HEADERS.iter().map(text))
        .chain([query.and_then(of_query)]);
    for secret in all.flatten().filter(|secret| !secret.is_empty()) {
        if secret.starts_with(PREFIX) {
            return Some(secret);
        }
        own = own.or(Some(secret));
    }
    own
}

/// Returns whether the headers say that a proxy passed the request on.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    FORWARDED.iter().any(|name| headers.contains_key(name))
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

fn of_query(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("key="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_key_is_found_wherever_it_is() {
        let check = |headers: &[(&'static str, &'static str)], query, expected| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().expect("it is visible ASCII"));
            }
            assert_eq!(presented(&map, query), expected, "{headers:?} {query:?}");
        };
        check(&[], None, None);
        check(&[("authorization", "Bearer lk_a")], None, Some("lk_a"));
        check(&[("authorization", "bearer  lk_a ")], None, Some("lk_a"));
        check(&[("authorization", "Basic abc")], None, None);
        check(&[("x-api-key", "lk_a")], None, Some("lk_a"));
        check(&[("x-api-key", "")], None, None);
        check(&[("x-goog-api-key", "lk_a")], None, Some("lk_a"));
        check(&[], Some("alt=sse&key=lk_a"), Some("lk_a"));
        let own = ("authorization", "Bearer sk-ant-oat01");
        check(&[own], None, Some("sk-ant-oat01"));
        check(&[own, ("x-lodestar-key", "lk_a")], None, Some("lk_a"));
        check(&[own, ("x-api-key", "lk_a")], None, Some("lk_a"));
    }

    #[test]
    fn a_proxy_is_noticed() {
        let mut map = HeaderMap::new();
        assert!(!is_forwarded(&map));
        map.insert("x-forwarded-for", "10.0.0.1".parse().expect("it is visible ASCII"));
        assert!(is_forwarded(&map));
    }
}

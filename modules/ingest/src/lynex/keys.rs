//! Admission of senders: the API keys of projects, and the rate limit.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _, net::IpAddr};

use axum::http::{HeaderMap, HeaderName, header};
use governor::{DefaultKeyedRateLimiter, Quota, clock::Clock as _};

use super::error::Failure;
use crate::config::{ApiKey, Config};

static API_KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// The projects' keys and the rate limit.
pub(crate) struct Keys {
    projects: Vec<(String, ApiKey)>,
    limiter: DefaultKeyedRateLimiter<u64>,
    clock: governor::clock::DefaultClock,
    hasher: RandomState,
}

/// A sender that was admitted.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    /// The project of its key; `None` where no key is needed.
    pub(crate) project: Option<&'a str>,
}

impl Keys {
    pub(crate) fn new(config: &Config) -> Self {
        let limit = config.rate_limit;
        let quota = Quota::per_second(limit.requests_per_second).allow_burst(limit.burst);
        let projects = config.projects.iter();
        Self {
            projects: projects.map(|(name, p)| (name.clone(), p.key.clone())).collect(),
            limiter: DefaultKeyedRateLimiter::keyed(quota),
            clock: governor::clock::DefaultClock::default(),
            hasher: RandomState::new(),
        }
    }

    /// Returns the project of the key in the headers, if it is a known key.
    pub(crate) fn project_of(&self, headers: &HeaderMap) -> Option<String> {
        self.project(&ApiKey::presented(presented(headers)?)).map(str::to_owned)
    }

    /// Forgets senders that have not sent anything for a while.
    pub(crate) fn forget_idle(&self) {
        self.limiter.retain_recent();
    }

    /// Checks the key and the rate.
    pub(crate) fn admit(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Admitted<'_>, Failure> {
        let key = presented(headers).map(ApiKey::presented);
        let project = key.as_ref().and_then(|key| self.project(key));
        // Guesses count against the address of the guesser.
        let payer = match (&project, &key) {
            (Some(_), Some(key)) => self.hasher.hash_one(key.digest()),
            _ => self.hasher.hash_one(peer),
        };
        self.limiter.check_key(&payer).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            Failure::too_many_requests(wait.as_secs().saturating_add(1))
        })?;
        match (project, key) {
            (Some(project), _) => Ok(Admitted { project: Some(project) }),
            (None, _) if self.projects.is_empty() => Ok(Admitted { project: None }),
            (None, None) => Err(Failure::missing_key()),
            (None, Some(_)) => Err(Failure::unknown_key()),
        }
    }

    /// Finds the project of a key. Compares with every key, so that the time reveals nothing.
    fn project(&self, key: &ApiKey) -> Option<&str> {
        self.projects.iter().fold(
            None,
            |found, (name, known)| {
                if known.equals(key) { Some(name.as_str()) } else { found }
            },
        )
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({} projects)", self.projects.len())
    }
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get(&API_KEY_HEADER) {
        return key.to_str().ok();
    }
    let stated = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = stated.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHOP: &str = "sk_live_abcdefghijklmnopqrstuvwx";

    fn keys(config: serde_json::Value) -> Keys {
        Keys::new(&serde_json::from_value(config).expect("a configuration"))
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header"));
        headers
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn a_key_is_needed_as_soon_as_there_is_one() {
        let keys = keys(json!({"projects": {"shop": {"key": SHOP}}}));
        let check = |headers: HeaderMap, expected: Result<Option<&str>, Failure>| {
            assert_eq!(keys.admit(&headers, peer(1)).map(|admitted| admitted.project), expected);
        };
        check(headers("x-api-key", SHOP), Ok(Some("shop")));
        check(headers("authorization", &format!("Bearer {SHOP}")), Ok(Some("shop")));
        check(headers("authorization", &format!("bearer {SHOP}")), Ok(Some("shop")));
        check(headers("authorization", &format!("Basic {SHOP}")), Err(Failure::missing_key()));
        check(headers("x-api-key", "sk_live_wrong"), Err(Failure::unknown_key()));
        check(HeaderMap::new(), Err(Failure::missing_key()));
    }

    #[test]
    fn without_keys_everybody_may() {
        let keys = keys(json!({}));
        let admitted = keys.admit(&HeaderMap::new(), peer(1)).expect("no key is needed");
        assert_eq!(admitted.project, None);
    }

    #[test]
    fn the_rate_is_limited_by_key_or_address() {
        let keys = keys(json!({
            "projects": {"shop": {"key": SHOP}},
            "rate_limit": {"requests_per_second": 1, "burst": 2},
        }));
        let good = headers("x-api-key", SHOP);
        assert!(keys.admit(&good, peer(1)).is_ok());
        assert!(keys.admit(&good, peer(2)).is_ok());
        let refused = keys.admit(&good, peer(3)).expect_err("the burst is over");
        assert_eq!(refused, Failure::too_many_requests(1));
        // Who guesses keys pays as an address.
        let bad = headers("x-api-key", "sk_live_wrong");
        assert_eq!(keys.admit(&bad, peer(4)).err(), Some(Failure::unknown_key()));
        assert_eq!(keys.admit(&bad, peer(4)).err(), Some(Failure::unknown_key()));
        assert!(
            matches!(keys.admit(&bad, peer(4)), Err(failure) if failure != Failure::unknown_key())
        );
        keys.forget_idle();
    }
}

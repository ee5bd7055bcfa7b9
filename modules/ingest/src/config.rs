//! The configuration of the module.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
};

use module_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Receives what AI tools report.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address to listen on, `host:port`. Port 0 takes a free one.
    pub listen: String,
    /// OTLP over gRPC.
    pub grpc: Grpc,
    /// The largest body of a request, bytes.
    pub max_body_bytes: NonZeroUsize,
    /// The largest body after decompression, bytes.
    pub max_inflated_bytes: NonZeroUsize,
    /// The most memory that all requests together may hold, bytes; a request beyond it is asked to
    /// try again later.
    pub max_buffered_bytes: NonZeroUsize,
    /// The most memory that the body of one request may take once it is decoded, bytes.
    pub max_decoded_bytes: NonZeroUsize,
    /// The most connections that may be open at once. Then the one that has been idle for longest
    /// gives way to a new one.
    pub max_connections: NonZeroU16,
    /// The time that a client may take for the head of a request, seconds.
    pub header_timeout_seconds: NonZeroU16,
    /// The time that a client may take for the body of a request, seconds.
    pub body_timeout_seconds: NonZeroU16,
    /// The time that a connection is kept between an answer and the next request, seconds.
    pub idle_timeout_seconds: NonZeroU16,
    /// The time that a client may take for any part of an answer, seconds.
    pub write_timeout_seconds: NonZeroU16,
    /// Host names besides those of the loopback under which clients may reach this listener.
    pub allowed_hosts: Vec<String>,
    /// Web origins (`https://app.example.org`) whose pages may post here. None by default: a web
    /// page must not reach the loopback.
    pub allowed_origins: Vec<String>,
    /// Projects with their API keys. As soon as there is one, Lynex events need a key.
    pub projects: BTreeMap<String, Project>,
    /// The number of Lynex requests that a key, or without keys an address, may make.
    pub rate_limit: RateLimit,
    /// Reports of different sources about the same session, model and counts are one request
    /// within this time, seconds.
    pub join_window_seconds: NonZeroU16,
    /// The time that a request is remembered so that later reports of it join, minutes.
    pub forget_after_minutes: NonZeroU16,
}

/// The listener for OTLP over gRPC. The limits are those of HTTP.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grpc {
    /// `false` to listen for HTTP only.
    pub enabled: bool,
    /// The address to listen on, `host:port`. Port 0 takes a free one.
    pub listen: String,
}

impl Default for Grpc {
    fn default() -> Self {
        Self { enabled: true, listen: "127.0.0.1:4317".to_owned() }
    }
}

/// A project.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Its API key, best as a reference such as `${LODESTAR_KEY_SHOP}`; at least 16 characters.
    pub key: ApiKey,
}

/// The number of requests per second, and the number at once after a pause.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// Requests per second in the long run.
    pub requests_per_second: NonZeroU32,
    /// Requests at once.
    pub burst: NonZeroU32,
}

/// The SHA-256 of an API key. The key itself is not stored.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct ApiKey([u8; 32]);

impl ApiKey {
    /// Returns the hash of a key that a client presents.
    pub(crate) fn presented(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Returns whether both are the same, in a time that does not depend on where they differ.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }

    pub(crate) const fn digest(&self) -> [u8; 32] {
        self.0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl TryFrom<String> for ApiKey {
    type Error = ApiKeyError;

    fn try_from(key: String) -> Result<Self, ApiKeyError> {
        if key.len() < 16 {
            return Err(ApiKeyError::TooShort);
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiKeyError::NoVisibleAscii);
        }
        Ok(Self::presented(&key))
    }
}

/// Reason for which a text is not an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// The text is so short that it could be guessed.
    #[error("an API key must have at least 16 characters")]
    TooShort,
    /// The text cannot be sent in a header.
    #[error("an API key must be visible ASCII, since it travels in a header")]
    NoVisibleAscii,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:4318".to_owned(),
            grpc: Grpc::default(),
            max_body_bytes: mebibytes(32),
            max_inflated_bytes: mebibytes(64),
            max_buffered_bytes: mebibytes(256),
            max_decoded_bytes: mebibytes(72),
            max_connections: small(256),
            header_timeout_seconds: small(10),
            body_timeout_seconds: small(60),
            idle_timeout_seconds: small(75),
            write_timeout_seconds: small(30),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            projects: BTreeMap::new(),
            rate_limit: RateLimit::default(),
            join_window_seconds: small(2),
            forget_after_minutes: small(60),
        }
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        const DEFAULT: RateLimit = RateLimit {
            requests_per_second: NonZeroU32::new(100).expect("100 is not 0"),
            burst: NonZeroU32::new(200).expect("200 is not 0"),
        };
        DEFAULT
    }
}

impl Config {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used, or that contradicts another.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_keys()?;
        self.check_listen()?;
        self.check_names()?;
        let refused = |key: &str, message: &str| Err(Error::config_at(key, message));
        if self.max_inflated_bytes < self.max_body_bytes {
            return refused("max_inflated_bytes", "is smaller than max_body_bytes; raise it");
        }
        if self.max_buffered_bytes < self.max_inflated_bytes {
            return refused("max_buffered_bytes", "is smaller than max_inflated_bytes; raise it");
        }
        if u32::from(self.join_window_seconds.get())
            > 60 * u32::from(self.forget_after_minutes.get())
        {
            return refused("join_window_seconds", "is longer than forget_after_minutes");
        }
        Ok(())
    }

    fn check_keys(&self) -> Result<()> {
        let mut known: Vec<(&str, [u8; 32])> = Vec::new();
        for (name, project) in &self.projects {
            let digest = project.key.digest();
            if let Some((other, _)) = known.iter().find(|(_, known)| *known == digest) {
                let message = format!("is also the key of {other}");
                return Err(Error::config_at(format!("projects.{name}.key"), message)
                    .hint("give each project its own"));
            }
            known.push((name, digest));
        }
        Ok(())
    }

    /// Checks that a listener open to the network has API keys, as anybody could otherwise send
    /// events in the name of others. The host decides whether the address is valid.
    fn check_listen(&self) -> Result<()> {
        let is_open = |listen: &str| {
            let address = listen.parse::<SocketAddr>();
            address.is_ok_and(|address| !address.ip().to_canonical().is_loopback())
        };
        let key = if is_open(&self.listen) {
            "listen"
        } else if self.grpc.enabled && is_open(&self.grpc.listen) {
            "grpc.listen"
        } else {
            return Ok(());
        };
        if !self.projects.is_empty() {
            return Ok(());
        }
        Err(Error::config_at(key, "is open to the network while no project has a key")
            .hint("add one under `projects`, or listen on 127.0.0.1"))
    }

    fn check_names(&self) -> Result<()> {
        let plain = |host: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            !host.is_empty() && host.chars().all(known)
        };
        if let Some(index) = self.allowed_hosts.iter().position(|host| !plain(host)) {
            return Err(Error::config_at(format!("allowed_hosts[{index}]"), "is no host name")
                .hint("write the name alone, without scheme, port and path"));
        }
        let is_origin = |origin: &str| {
            let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '*', '?', '#', '@']))
        };
        match self.allowed_origins.iter().position(|origin| !is_origin(origin)) {
            None => Ok(()),
            Some(index) => {
                Err(Error::config_at(format!("allowed_origins[{index}]"), "is no web origin")
                    .hint("write it as `https://app.example.org`, without a path"))
            }
        }
    }
}

const fn mebibytes(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number * 1024 * 1024).expect("no default is 0")
}

const fn small(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("no default is 0")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Result<Config, String> {
        let config: Config = serde_json::from_value(value).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn nothing_is_a_configuration() {
        let config = read(json!({})).expect("all keys have defaults");
        assert_eq!(config.listen, "127.0.0.1:4318");
        assert_eq!((config.grpc.enabled, config.grpc.listen.as_str()), (true, "127.0.0.1:4317"));
        assert_eq!(config.max_body_bytes.get(), 32 * 1024 * 1024);
        assert_eq!(config.rate_limit.burst.get(), 200);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |value: serde_json::Value, part: &str| {
            let error = read(value).expect_err("it is wrong");
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("sk_live"), "the key is told: {error}");
        };
        check(json!({"lisen": "x"}), "unknown field `lisen`");
        check(json!({"max_body_bytes": 0}), "nonzero");
        check(json!({"join_window_seconds": -1}), "invalid value");
        check(json!({"projects": {"a": {"key": "sk_live_short"}}}), "at least 16 characters");
        let key = "sk_live_0123456789";
        check(
            json!({"projects": {"a": {"key": key}, "b": {"key": key}}}),
            "projects.b.key: is also the key of a; give",
        );
        check(json!({"max_buffered_bytes": 1024}), "max_buffered_bytes: is smaller");
        check(json!({"max_inflated_bytes": 1024}), "max_inflated_bytes: is smaller");
        check(
            json!({"join_window_seconds": 61, "forget_after_minutes": 1}),
            "join_window_seconds: is longer",
        );
        check(json!({"allowed_hosts": ["a", "http://b"]}), "allowed_hosts[1]: is no host name");
        check(json!({"allowed_origins": ["app.example"]}), "allowed_origins[0]: is no web origin");
    }

    #[test]
    fn the_network_is_let_in_with_keys_only() {
        let check = |listen: &str, alone: bool| {
            assert_eq!(read(json!({"listen": listen})).is_ok(), alone, "{listen}");
            let projects = json!({"a": {"key": "sk_live_0123456789"}});
            assert!(read(json!({"listen": listen, "projects": projects})).is_ok(), "{listen}");
        };
        check("127.0.0.1:4318", true);
        check("localhost:4318", true);
        check("[::1]:0", true);
        check("no address", true);
        check("[::ffff:127.0.0.1]:0", true);
        check("0.0.0.0:4318", false);
        check("[::]:4318", false);
        check("192.168.1.7:4318", false);
        let grpc = |enabled: bool| json!({"grpc": {"enabled": enabled, "listen": "0.0.0.0:4317"}});
        let error = read(grpc(true)).expect_err("it is open");
        assert!(error.contains("grpc.listen: is open to the network"), "{error}");
        assert!(read(grpc(false)).is_ok());
    }

    #[test]
    fn keys_are_compared_and_never_shown() {
        let key = ApiKey::presented("sk_live_0123456789");
        assert!(key.equals(&ApiKey::presented("sk_live_0123456789")));
        assert!(!key.equals(&ApiKey::presented("sk_live_0123456780")));
        assert_eq!(format!("{key:?}"), "[redacted]");
    }

    #[test]
    fn the_shipped_file_holds_every_key_with_its_default() {
        let shipped = include_str!("../config.yaml");
        let schema = serde_json::to_value(schemars::schema_for!(Config)).expect("it serialises");
        let properties = schema["properties"].as_object().expect("the keys of the configuration");
        for key in properties.keys() {
            assert!(shipped.contains(&format!("# {key}:")), "{key} is not in config.yaml");
        }
    }
}

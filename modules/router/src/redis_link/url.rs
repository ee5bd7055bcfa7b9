//! The address of a Redis in a configuration.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use schemars::JsonSchema;
use serde::Deserialize;

/// Address of a Redis: `redis://[user][:password@]host[:port][/database]`, or `unix:///path`. It
/// may hold a password, so it is shown as the address alone.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub(crate) struct RedisUrl {
    info: ConnectionInfo,
    shown: String,
}

impl RedisUrl {
    /// Returns the address for the connection, with its password.
    pub(super) fn info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

impl std::fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

impl PartialEq for RedisUrl {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.info.redis_settings(), other.info.redis_settings());
        self.shown == other.shown && a.password() == b.password() && a.username() == b.username()
    }
}

/// Text that is no address of a Redis. It does not repeat the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RedisUrlError {
    /// The text is no such URL.
    #[error("is no address of a Redis; write `redis://host:6379`, or a reference to it")]
    Malformed,
    /// The connection would be encrypted.
    #[error("asks for TLS, which is not supported; use `redis://` within a network you trust")]
    Tls,
}

impl TryFrom<String> for RedisUrl {
    type Error = RedisUrlError;

    fn try_from(text: String) -> Result<Self, RedisUrlError> {
        if text.starts_with("rediss:") || text.starts_with("valkeys:") {
            return Err(RedisUrlError::Tls);
        }
        let info = text.into_connection_info().map_err(|_| RedisUrlError::Malformed)?;
        let database = info.redis_settings().db();
        let shown = match info.addr() {
            ConnectionAddr::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
            ConnectionAddr::Unix(path) => path.display().to_string(),
            _ => return Err(RedisUrlError::Tls),
        };
        let shown = if database == 0 { shown } else { format!("{shown}/{database}") };
        Ok(Self { info, shown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let check = |text: &str, expected: &str| {
            let url: RedisUrl = serde_json::from_value(text.into()).expect("it is an address");
            assert_eq!(url.to_string(), expected);
            assert!(!format!("{url:?}").contains("pa55"), "{url:?}");
        };
        check("redis://127.0.0.1", "127.0.0.1:6379");
        check("redis://:pa55@cache.example:7000/2", "cache.example:7000/2");
        check("redis://user:pa55@[::1]:7000", "[::1]:7000");
        check("unix:///run/redis.sock", "/run/redis.sock");
    }

    #[test]
    fn what_is_refused_is_not_repeated() {
        let check = |text: &str, expected: &str| {
            let url: Result<RedisUrl, _> = serde_json::from_value(text.into());
            let error = url.expect_err("it is refused").to_string();
            assert!(error.contains(expected) && !error.contains("pa55"), "{error}");
        };
        check("pa55", "is no address of a Redis");
        check("http://:pa55@host", "is no address of a Redis");
        check("rediss://:pa55@host", "asks for TLS");
        check("redis://:pa55@", "is no address of a Redis");
    }
}

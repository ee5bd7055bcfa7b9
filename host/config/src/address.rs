//! Addresses of listeners, as the configuration writes them.

use std::net::{IpAddr, Ipv6Addr};

use module_sdk::manifest::ListenerSection;
use serde_json::{Map, Value, json};

use super::{Config, ConfigError, error::InvalidValue};

/// Takes an IP address or `localhost`, a colon, and a port; port 0 picks a free one.
pub(super) fn listen_address(text: &str) -> Result<String, InvalidValue> {
    let wrong = |fragment| Err(InvalidValue::new(fragment));
    if text.parse::<Ipv6Addr>().is_ok() {
        return wrong("must have an IPv6 address in brackets and a port, such as `[::1]:0`");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return wrong(
            "must be an address with a port, such as `127.0.0.1:4318` or `[::1]:0` (port 0 takes a \
             free one)",
        );
    };
    if port.parse::<u16>().is_err() {
        return wrong("must end with a port, a number from 0 to 65535");
    }
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_address = match in_brackets {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None if host.parse::<Ipv6Addr>().is_ok() => {
            return wrong("must have its IPv6 address in brackets, such as `[::1]:0`");
        }
        None => host == "localhost" || host.parse::<IpAddr>().is_ok(),
    };
    match (is_address, host) {
        (true, _) => Ok(text.to_owned()),
        (false, "") => wrong(
            "must name a host before the port: `127.0.0.1` for this machine alone, `0.0.0.0` for \
             every network",
        ),
        (false, _) => wrong(
            "must be an IP address or `localhost`, and a port, such as `127.0.0.1:4318` or \
             `[::1]:0` (port 0 takes a free one)",
        ),
    }
}

/// Returns what the settings of a module say for one of its listeners, whose key may lie below
/// another one (`serving.listen`).
#[must_use]
pub fn given_address<'a>(
    listener: &ListenerSection,
    settings: &'a Map<String, Value>,
) -> Option<&'a Value> {
    let mut keys = listener.config_key.split('.');
    let first = settings.get(keys.next()?)?;
    keys.try_fold(first, |value, key| value.get(key))
}

impl Config {
    /// Returns the errors in the addresses of a module's listeners. `settings` are the module's
    /// own, with every reference resolved and `defaults` applied.
    #[must_use]
    pub fn wrong_addresses(
        &self,
        module: &str,
        listeners: &[ListenerSection],
        settings: &Map<String, Value>,
        defaults: Option<&str>,
    ) -> Vec<ConfigError> {
        let wrong = listeners.iter().filter_map(|listener| {
            let message = match given_address(listener, settings)? {
                Value::Null => return None,
                Value::String(text) => listen_address(text).err()?.to_string(),
                _ => "must be a text, an address such as `127.0.0.1:4318`".to_owned(),
            };
            let report = json!({"path": listener.config_key, "message": message}).to_string();
            Some(self.explain_with(module, &report, defaults))
        });
        wrong.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_what_is_none() {
        for good in ["127.0.0.1:0", "0.0.0.0:4318", "localhost:4318", "[::1]:0", "[::]:65535"] {
            assert_eq!(listen_address(good).as_deref(), Ok(good));
        }
        let check = |text: &str, part: &str| {
            let error = listen_address(text).expect_err("it is none").to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(error.starts_with("must "), "{error}");
        };
        check("127.0.0.1:99999", "from 0 to 65535");
        check("127.0.0.1:-1", "from 0 to 65535");
        check("127.0.0.1:", "from 0 to 65535");
        check("127.0.0.1", "with a port");
        check("localhost", "with a port");
        check("", "with a port");
        check("4318", "with a port");
        check(":4318", "`0.0.0.0` for every network");
        check("::1", "in brackets");
        check("fe80::1:2:3:4:5:6:4318", "in brackets");
        check("[::1]", "from 0 to 65535");
        check("[127.0.0.1]:1", "IP address or `localhost`");
        check("example.org:80", "IP address or `localhost`");
        check("http://127.0.0.1:80", "IP address or `localhost`");
        check("127.0.0.1:80/metrics", "from 0 to 65535");
    }

    #[test]
    fn the_key_of_an_address_may_lie_below_another() {
        let settings = json!({"listen": "a", "serving": {"listen": "b"}, "other": 3});
        let settings = settings.as_object().expect("an object");
        for (key, expected) in [
            ("listen", Some("a")),
            ("serving.listen", Some("b")),
            ("serving.other", None),
            ("other.listen", None),
            ("none.listen", None),
        ] {
            let (name, default) = ("http".to_owned(), "127.0.0.1:0".to_owned());
            let listener = ListenerSection { name, config_key: key.to_owned(), default };
            let given = given_address(&listener, settings).and_then(Value::as_str);
            assert_eq!(given, expected, "{key}");
        }
    }
}

//! Checks for listeners with the same address: only one of them can have it.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    Config, ConfigError,
    tree::{Entry, Node, SourceLocation},
};

/// An address to listen on, and the key that sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Dotted key from the top, `modules.ingest.listen`.
    pub key: String,
    /// Address in the form of [`listen`](super::Metrics::listen).
    pub address: String,
}

impl Config {
    /// Returns a warning for each listener whose address an earlier listener has as well.
    #[must_use]
    pub fn shared_addresses(&self, wanted: &[Wanted]) -> Vec<ConfigError> {
        let mut found = Vec::new();
        for (index, late) in wanted.iter().enumerate() {
            let early = wanted[..index].iter().find(|early| overlap(&early.address, &late.address));
            let Some(early) = early else { continue };
            // The error points at a line, where one of the two has any.
            let (late, early) = match self.entry(&late.key) {
                None if self.entry(&early.key).is_some() => (early, late),
                _ => (late, early),
            };
            let message = format!(
                "cannot listen at {}, which {} wants as well: only one of them gets it",
                late.address,
                self.named(early)
            );
            let hint = "give one of them another port";
            found.push(match self.entry(&late.key) {
                Some(entry) => entry.place.error(&self.path, &*late.key, message, hint),
                None => {
                    let key = late.key.clone();
                    ConfigError { key, ..ConfigError::of_file(&self.path, message, hint) }
                }
            });
        }
        found
    }

    /// Returns the key with its place: `metrics.listen (line 7, 127.0.0.1:9464)`.
    fn named(&self, wanted: &Wanted) -> String {
        let Wanted { key, address } = wanted;
        match self.entry(key).map(|entry| &entry.place) {
            Some(SourceLocation::File { line, .. }) => format!("{key} (line {line}, {address})"),
            Some(SourceLocation::Layer(layer)) => format!("{key} ({layer}, {address})"),
            None => format!("{key} ({address} by default)"),
        }
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        let mut steps = key.split('.');
        let first = self.tree.get(steps.next()?)?;
        steps.try_fold(first, |entry, step| Node::get(&entry.node, step))
    }
}

/// Returns whether two addresses cannot be used at the same time. Port 0 takes a free port.
fn overlap(one: &str, other: &str) -> bool {
    let (Some((one, port)), Some((other, other_port))) = (parts(one), parts(other)) else {
        return false;
    };
    // `[::]` takes IPv4 as well.
    let covers = |wide: IpAddr, narrow: IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    port != 0 && port == other_port && (one == other || covers(one, other) || covers(other, one))
}

fn parts(address: &str) -> Option<(IpAddr, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = match host {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse().ok()?,
    };
    Some((ip, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Layers;

    #[test]
    fn addresses_overlap_on_one_port() {
        let check = |one: &str, other: &str, expected: bool| {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        };
        check("127.0.0.1:4318", "127.0.0.1:4318", true);
        check("127.0.0.1:4318", "localhost:4318", true);
        check("127.0.0.1:4318", "0.0.0.0:4318", true);
        check("127.0.0.1:4318", "[::]:4318", true);
        check("[::1]:4318", "[::]:4318", true);
        check("[::1]:4318", "0.0.0.0:4318", false);
        check("127.0.0.1:4318", "127.0.0.2:4318", false);
        check("127.0.0.1:4318", "127.0.0.1:4319", false);
        check("127.0.0.1:0", "127.0.0.1:0", false);
        check("nonsense", "nonsense", false);
    }

    #[test]
    fn both_lines_are_named() {
        let text = "metrics:\n  listen: 127.0.0.1:4318\nmodules:\n  m:\n    listen: \
                    127.0.0.1:4318\n";
        let config = Config::parse(text, Path::new("m.yaml"), &Layers::default()).expect("valid");
        let wanted =
            |key: &str, address: &str| Wanted { key: key.to_owned(), address: address.to_owned() };
        let check = |wanted: &[Wanted], expected: &str| {
            let found = config.shared_addresses(wanted);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.join("\n"), expected);
        };
        let metrics = wanted("metrics.listen", "127.0.0.1:4318");
        check(
            &[metrics.clone(), wanted("modules.m.listen", "0.0.0.0:4318")],
            "m.yaml:5:5: modules.m.listen: cannot listen at 0.0.0.0:4318, which metrics.listen \
             (line 2, 127.0.0.1:4318) wants as well: only one of them gets it; give one of them \
             another port",
        );
        check(
            &[metrics.clone(), wanted("modules.other.listen", "127.0.0.1:4318")],
            "m.yaml:2:3: metrics.listen: cannot listen at 127.0.0.1:4318, which \
             modules.other.listen (127.0.0.1:4318 by default) wants as well: only one of them \
             gets it; give one of them another port",
        );
        check(&[metrics, wanted("modules.m.listen", "127.0.0.1:1")], "");
    }
}

//! Addresses that a request may reach.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use tokio::{sync::Semaphore, task};

use crate::ClientError;

/// Lookups of names under way at once, at most: each holds a thread as long as the system takes.
const LOOKUPS: usize = 8;

/// Names under which clouds tell a machine its keys, by whatever address.
const METADATA_NAMES: [&str; 5] = [
    "instance-data",
    "instance-data.ec2.internal",
    "metadata",
    "metadata.goog",
    "metadata.google.internal",
];

/// Addresses under which clouds do so, besides all link-local ones.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Reason why an address is not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A service that tells a cloud machine its keys.
    #[error("it is the metadata service of a cloud machine, or link-local, and is never asked")]
    Metadata,
    /// An address of this machine or its network.
    #[error("it is a private address, and nothing says `local: true`")]
    Private,
    /// An address of many machines, or of none.
    #[error("it is not the address of a machine")]
    NoMachine,
}

/// Addresses that a client may reach.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    is_local: bool,
    lookups: Arc<Semaphore>,
}

impl Guard {
    pub(crate) fn new(is_local: bool) -> Self {
        Self { is_local, lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }

    /// Checks what a URL says by itself; what its name leads to is checked when it is resolved.
    pub(crate) fn check(&self, url: &Url) -> Result<(), ClientError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ClientError::Url("it begins neither with http:// nor https://".to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let message = "credentials do not belong in it; give them as a header";
            return Err(ClientError::Url(message.to_owned()));
        }
        let refused = |refusal| {
            let host = url.host_str().unwrap_or_default().to_owned();
            Err(ClientError::Refused { host, refusal })
        };
        // Addresses in every spelling (`0x7f.1`, `2130706433`) are addresses by now.
        let literal = url.host_str().map(|host| host.trim_matches(['[', ']'])).unwrap_or_default();
        match literal.parse() {
            Ok(address) => match self.refusal(address) {
                Some(refusal) => refused(refusal),
                None => Ok(()),
            },
            Err(_) if is_metadata(literal) => refused(Refusal::Metadata),
            Err(_) => Ok(()),
        }
    }

    fn refusal(&self, address: IpAddr) -> Option<Refusal> {
        refusal(address).filter(|refusal| !(self.is_local && *refusal == Refusal::Private))
    }

    /// Returns the addresses of a name that may be reached.
    pub(crate) async fn addresses(self, host: String) -> Result<Vec<SocketAddr>, ClientError> {
        if is_metadata(&host) {
            return Err(ClientError::Refused { host, refusal: Refusal::Metadata });
        }
        let dns = |message: String| {
            let message = crate::error::plain(&message);
            ClientError::Dns { host: host.clone(), message }
        };
        let permit = self.lookups.clone().acquire_owned().await;
        let permit = permit.map_err(|error| dns(error.to_string()))?;
        let name = host.clone();
        let lookup = task::spawn_blocking(move || {
            let addresses = (name.as_str(), 0).to_socket_addrs().map(Vec::from_iter);
            drop(permit);
            addresses
        });
        let found = lookup.await.map_err(|error| dns(error.to_string()))?;
        let found = found.map_err(|error| dns(error.to_string()))?;
        let mut refused = None;
        let mut allowed = Vec::with_capacity(found.len());
        for address in found {
            match self.refusal(address.ip()) {
                Some(refusal) => refused = Some(refusal),
                None => allowed.push(address),
            }
        }
        match (allowed.is_empty(), refused) {
            (false, _) => Ok(allowed),
            (true, Some(refusal)) => Err(ClientError::Refused { host, refusal }),
            (true, None) => Err(dns("the name has none".to_owned())),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.clone().addresses(name.as_str().to_owned());
        Box::pin(async move { Ok(Box::new(addresses.await?.into_iter()) as Addrs) })
    }
}

fn is_metadata(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    METADATA_NAMES.iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// Returns why an address is reached only with leave, or never.
fn refusal(address: IpAddr) -> Option<Refusal> {
    match address {
        IpAddr::V4(address) => refusal_v4(address),
        IpAddr::V6(address) => refusal_v6(address),
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<Refusal> {
    let [a, b, c, _] = address.octets();
    if address.is_link_local() || METADATA_V4.contains(&address) {
        return Some(Refusal::Metadata);
    }
    if address.is_multicast() || a >= 240 {
        return Some(Refusal::NoMachine);
    }
    let is_private = address.is_private()
        || address.is_loopback()
        || address.is_documentation()
        // This machine, carriers' networks (Tailscale's too), protocols, benchmarks.
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a == 198 && (18..20).contains(&b));
    is_private.then_some(Refusal::Private)
}

fn refusal_v6(address: Ipv6Addr) -> Option<Refusal> {
    if let Some(inner) = embedded(address) {
        return refusal_v4(inner);
    }
    let first = address.segments()[0];
    if address.is_unicast_link_local() || METADATA_V6.contains(&address) {
        return Some(Refusal::Metadata);
    }
    if address.is_multicast() {
        return Some(Refusal::NoMachine);
    }
    let is_private = address.is_loopback()
        || address.is_unspecified()
        || address.is_unique_local()
        // Site-local, which some networks still have.
        || first & 0xffc0 == 0xfec0;
    is_private.then_some(Refusal::Private)
}

/// Returns the IPv4 address that an IPv6 one stands for.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match segments {
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Mapped, translated and compatible ones, and those of NAT64.
        [0, 0, 0, 0, 0 | 0xffff, 0 | 0xffff, high, low] | [0x64, 0xff9b, .., high, low] => {
            Some(of(high, low))
        }
        // 6to4.
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(is_local: bool, url: &str) -> Result<(), ClientError> {
        Guard::new(is_local).check(&Url::parse(url).expect("a URL"))
    }

    fn refused(is_local: bool, url: &str) -> Option<Refusal> {
        match check(is_local, url) {
            Err(ClientError::Refused { refusal, .. }) => Some(refusal),
            Err(error) => panic!("{url}: {error}"),
            Ok(()) => None,
        }
    }

    #[test]
    fn metadata_is_never_reached_by_whatever_spelling() {
        for host in [
            "169.254.169.254",
            "169.254.170.2",
            "2852039166",
            "0xa9fea9fe",
            "0xa9.0xfe.0xa9.0xfe",
            "0251.0376.0251.0376",
            "169.254.43518",
            "169.16689662",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[::169.254.169.254]",
            "[::ffff:0:169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[64:ff9b:1::169.254.169.254]",
            "[2002:a9fe:a9fe::1]",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
            "[fe80::a9fe:a9fe]",
            "100.100.100.200",
            "168.63.129.16",
            "metadata.google.internal",
            "METADATA.google.internal.",
            "metadata.goog",
            "instance-data",
            "１６９.254.169.254",
            "169。254。169。254",
        ] {
            for is_local in [false, true] {
                let url = format!("http://{host}/");
                assert_eq!(refused(is_local, &url), Some(Refusal::Metadata), "{url}");
            }
        }
    }

    #[test]
    fn private_addresses_are_reached_with_leave_only() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "[::1]",
            "[::]",
            "[::ffff:10.0.0.1]",
            "[fd12::1]",
            "[fec0::1]",
        ] {
            let url = format!("http://{host}/");
            assert_eq!(refused(false, &url), Some(Refusal::Private), "{url}");
            assert_eq!(refused(true, &url), None, "{url}");
        }
        for host in ["255.255.255.255", "224.0.0.1", "250.1.1.1", "[ff02::1]"] {
            let url = format!("http://{host}/");
            assert_eq!(refused(true, &url), Some(Refusal::NoMachine), "{url}");
        }
        for host in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "[2606:4700::1111]", "a.example"] {
            assert_eq!(refused(false, &format!("https://{host}/")), None, "{host}");
        }
    }

    #[test]
    fn a_url_is_of_the_web_and_without_credentials() {
        for url in ["file:///etc/passwd", "ftp://a.example/", "gopher://a.example/"] {
            assert!(matches!(check(true, url), Err(ClientError::Url(_))), "{url}");
        }
        let error = check(true, "https://me:sk-canary@a.example/").expect_err("credentials");
        assert!(!format!("{error} {error:?}").contains("sk-canary"), "{error:?}");
    }
}

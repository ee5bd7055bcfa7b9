//! Checks that refuse requests with a doubtful target (RFC 9112, section 3.2), and requests that a
//! web page in a browser may have sent.

use std::net::IpAddr;

use axum::http::{
    HeaderMap, StatusCode, Version,
    header::{HOST, HeaderName, ORIGIN},
    request::Parts,
    uri::Authority,
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Port of a host without one.
const HTTP_PORT: u16 = 80;

/// Rules of a listener for its requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// Hosts that requests may name.
    pub hosts: Hosts,
    /// Web origins whose pages may send requests.
    pub allowed_origins: Vec<String>,
}

/// Hosts that requests may name. A page whose own name resolves to this machine (DNS rebinding)
/// sends that name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Hosts {
    /// Any host: no browser reaches the socket.
    Any,
    /// Any address, and `localhost`.
    #[default]
    Addresses,
    /// The loopback, the address that the client connected to, and these names.
    Own(Vec<String>),
}

/// Reason for refusing a request. The text is for the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Missing or empty Host header.
    #[error("the request names no host; send one Host header")]
    NoHost,
    /// Several Host headers.
    #[error("the request has more than one Host header; send one")]
    ManyHosts,
    /// Host header that is not a host.
    #[error("the Host header is not `host` or `host:port`; send it so")]
    BadHost,
    /// Target of the request and Host header that name different hosts.
    #[error("the target of the request and its Host header name different hosts; send the same")]
    HostDiffers,
    /// Several Origin headers.
    #[error("the request has more than one Origin header; send at most one")]
    ManyOrigins,
    /// Host that is not one of the listener's.
    #[error("the host that the request names is not allowed here; use an address of this machine")]
    HostNotAllowed,
    /// Request of a web page.
    #[error("a web page may not ask here")]
    OriginNotAllowed,
}

impl Refused {
    /// Returns the status of the response.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::HostNotAllowed | Self::OriginNotAllowed => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns the code for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoHost => "host_missing",
            Self::ManyHosts => "host_repeated",
            Self::BadHost => "host_invalid",
            Self::HostDiffers => "host_differs",
            Self::ManyOrigins => "origin_repeated",
            Self::HostNotAllowed => "host_not_allowed",
            Self::OriginNotAllowed => "origin_not_allowed",
        }
    }
}

impl Guard {
    /// Checks a request that came in at the address `local`.
    ///
    /// # Errors
    ///
    /// Returns the reason for refusing the request.
    pub fn check(&self, request: &Parts, local: Option<IpAddr>) -> Result<(), Refused> {
        let header = host_header(&request.headers, request.version)?;
        // In absolute form (RFC 9112, section 3.2.2) the target counts.
        let target = request.uri.authority().map(|it| Host::parse(it.as_str())).transpose()?;
        if let Some(host) = target.as_ref().or(header.as_ref()) {
            self.check_host(host, local)?;
        } else if request.version >= Version::HTTP_2 {
            return Err(Refused::NoHost);
        } else if self.hosts != Hosts::Any {
            return Err(Refused::HostNotAllowed);
        }
        if let (Some(target), Some(header)) = (&target, &header)
            && target != header
        {
            return Err(Refused::HostDiffers);
        }
        self.check_origin(&request.headers)
    }

    fn check_host(&self, host: &Host, local: Option<IpAddr>) -> Result<(), Refused> {
        let name = host.name.as_str();
        let is_local = name == "localhost" || name.ends_with(".localhost");
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let fits = match &self.hosts {
            Hosts::Any => true,
            Hosts::Addresses => is_local || address.is_some(),
            Hosts::Own(names) => match address {
                Some(address) => {
                    address.is_loopback() || local.is_some_and(|it| it.to_canonical() == address)
                }
                None => is_local || names.iter().any(|known| known.eq_ignore_ascii_case(name)),
            },
        };
        if fits { Ok(()) } else { Err(Refused::HostNotAllowed) }
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = origins.next();
        if origins.next().is_some() {
            return Err(Refused::ManyOrigins);
        }
        let fits = match origin {
            Some(origin) => {
                self.allowed_origins.iter().any(|it| it.as_bytes() == origin.as_bytes())
            }
            // A simple request of a page may come without an Origin, but not without this.
            None => headers
                .get_all(SEC_FETCH_SITE)
                .iter()
                .all(|site| !matches!(site.as_bytes(), b"cross-site" | b"same-site")),
        };
        if fits { Ok(()) } else { Err(Refused::OriginNotAllowed) }
    }
}

/// Returns the host of the Host header; `None` for a request without one of HTTP/1.0, or of HTTP/2,
/// whose target names the host.
fn host_header(headers: &HeaderMap, version: Version) -> Result<Option<Host>, Refused> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refused::ManyHosts);
    }
    match host.map(|host| host.to_str().unwrap_or("?").trim()) {
        Some("") | None if version == Version::HTTP_11 => Err(Refused::NoHost),
        Some("") | None => Ok(None),
        Some(host) => Host::parse(host).map(Some),
    }
}

/// A host with its port.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    /// Name in lower case; an IPv6 address in brackets.
    name: String,
    port: u16,
}

impl Host {
    fn parse(text: &str) -> Result<Self, Refused> {
        let authority = text.parse::<Authority>().map_err(|_| Refused::BadHost)?;
        let name = authority.host();
        // What is neither name nor port is `user@`, or a colon with nothing behind it.
        let rest = text.strip_prefix(name).filter(|_| !name.is_empty());
        let port = match rest.ok_or(Refused::BadHost)?.strip_prefix(':') {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().map_err(|_| Refused::BadHost)?
            }
            None if text.len() == name.len() => HTTP_PORT,
            _ => return Err(Refused::BadHost),
        };
        Ok(Self { name: name.to_ascii_lowercase(), port })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn request(target: &str, version: Version, headers: &[(&str, &[u8])]) -> Parts {
        let mut request = Request::builder().uri(target).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("it is a request").into_parts().0
    }

    fn own() -> Guard {
        Guard {
            hosts: Hosts::Own(vec!["collector.lan".to_owned()]),
            allowed_origins: vec!["https://app.example".to_owned()],
        }
    }

    fn checked(guard: &Guard, target: &str, headers: &[(&str, &str)]) -> Result<(), Refused> {
        let headers: Vec<_> = headers.iter().map(|(name, it)| (*name, it.as_bytes())).collect();
        let local = "192.168.1.5".parse().expect("an address");
        guard.check(&request(target, Version::HTTP_11, &headers), Some(local))
    }

    #[test]
    fn only_names_of_this_machine_pass() {
        let refused = Err(Refused::HostNotAllowed);
        let check = |host: &str, own_hosts, addresses| {
            let headers = [("host", host)];
            assert_eq!(checked(&own(), "/", &headers), own_hosts, "{host}");
            assert_eq!(checked(&Guard::default(), "/", &headers), addresses, "{host}");
            let any = Guard { hosts: Hosts::Any, ..Guard::default() };
            assert_eq!(checked(&any, "/", &headers), Ok(()), "{host}");
        };
        check("127.0.0.1:4318", Ok(()), Ok(()));
        check("localhost", Ok(()), Ok(()));
        check("LOCALHOST:4318", Ok(()), Ok(()));
        check("[::1]:4318", Ok(()), Ok(()));
        check("[::1]", Ok(()), Ok(()));
        check("192.168.1.5:4318", Ok(()), Ok(()));
        check("Collector.lan:4318", Ok(()), refused);
        check("app.localhost:4318", Ok(()), Ok(()));
        check("192.168.1.6:4318", refused, Ok(()));
        check("evil.example", refused, refused);
        check("127.0.0.1.evil.example:4318", refused, refused);
        check("localhost.evil.example", refused, refused);
        check("evil.example:80", refused, refused);
    }

    #[test]
    fn a_doubtful_host_is_refused_everywhere() {
        let check = |headers: &[(&str, &str)], expected| {
            for hosts in [Hosts::Any, Hosts::Addresses, own().hosts] {
                let guard = Guard { hosts, ..Guard::default() };
                assert_eq!(checked(&guard, "/", headers), Err(expected), "{headers:?}");
            }
        };
        check(&[], Refused::NoHost);
        check(&[("host", "")], Refused::NoHost);
        check(&[("host", "  ")], Refused::NoHost);
        check(&[("host", "localhost"), ("host", "localhost")], Refused::ManyHosts);
        check(&[("host", "localhost"), ("host", "evil.example")], Refused::ManyHosts);
        check(&[("host", ""), ("host", "localhost")], Refused::ManyHosts);
        for host in [
            "me@localhost",
            "evil.example@127.0.0.1:9464",
            "localhost:",
            "localhost:99999",
            "localhost:9464:9464",
            "localhost:+80",
            "localhost/",
            "localhost, evil.example",
            "local host",
            "[::1",
            "::1",
            "[::1]9464",
            ":9464",
            "http://localhost",
        ] {
            check(&[("host", host)], Refused::BadHost);
        }
        let parts = request("/", Version::HTTP_11, &[("host", b"\xff")]);
        assert_eq!(own().check(&parts, None), Err(Refused::BadHost));
    }

    #[test]
    fn an_old_request_needs_no_header_but_a_host_where_hosts_count() {
        let parts = request("/", Version::HTTP_10, &[]);
        assert_eq!(Guard::default().check(&parts, None), Err(Refused::HostNotAllowed));
        let any = Guard { hosts: Hosts::Any, ..Guard::default() };
        assert_eq!(any.check(&parts, None), Ok(()));
    }

    #[test]
    fn over_http2_the_target_names_the_host() {
        let check = |target: &str, headers: &[(&str, &[u8])], expected| {
            let parts = request(target, Version::HTTP_2, headers);
            for guard in [Guard::default(), Guard { hosts: Hosts::Any, ..Guard::default() }] {
                let is_any = guard.hosts == Hosts::Any && expected == Err(Refused::HostNotAllowed);
                let expected = if is_any { Ok(()) } else { expected };
                assert_eq!(guard.check(&parts, None), expected, "{target} {headers:?}");
            }
        };
        check("http://localhost:4317/a", &[], Ok(()));
        check("http://localhost:4317/a", &[("host", b"localhost:4317")], Ok(()));
        check("http://localhost:4317/a", &[("host", b"evil.example")], Err(Refused::HostDiffers));
        check("http://evil.example/a", &[], Err(Refused::HostNotAllowed));
        check("/a", &[], Err(Refused::NoHost));
    }

    #[test]
    fn in_absolute_form_both_hosts_count() {
        let check = |target: &str, host: &str, expected| {
            let found = checked(&Guard::default(), target, &[("host", host)]);
            assert_eq!(found, expected, "{target} {host}");
        };
        check("http://localhost:9464/metrics", "localhost:9464", Ok(()));
        check("http://LOCALHOST/metrics", "localhost:80", Ok(()));
        let differs = Err(Refused::HostDiffers);
        check("http://localhost:9464/metrics", "localhost", differs);
        check("http://localhost/metrics", "evil.example", differs);
        check("http://127.0.0.1/metrics", "localhost", differs);
        let refused = Err(Refused::HostNotAllowed);
        check("http://evil.example/metrics", "localhost", refused);
        check("http://evil.example/metrics", "evil.example", refused);
        check("http://me@localhost/metrics", "localhost", Err(Refused::BadHost));
        let headers = [("host", "localhost"), ("host", "localhost")];
        let found = checked(&Guard::default(), "http://localhost/metrics", &headers);
        assert_eq!(found, Err(Refused::ManyHosts));
        assert_eq!(checked(&Guard::default(), "http://localhost/", &[]), Err(Refused::NoHost));
    }

    #[test]
    fn pages_do_not_pass() {
        let refused = Err(Refused::OriginNotAllowed);
        let check = |headers: &[(&str, &str)], expected| {
            let headers = [&[("host", "localhost")], headers].concat();
            assert_eq!(checked(&own(), "/", &headers), expected, "{headers:?}");
        };
        check(&[("origin", "https://evil.example")], refused);
        check(&[("origin", "null")], refused);
        check(&[("origin", "")], refused);
        check(&[("origin", "http://localhost:3000")], refused);
        check(&[("origin", "https://app.example")], Ok(()));
        let twice = [("origin", "https://app.example"), ("origin", "https://evil.example")];
        check(&twice, Err(Refused::ManyOrigins));
        check(&[("sec-fetch-site", "cross-site")], refused);
        check(&[("sec-fetch-site", "same-site")], refused);
        check(&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], refused);
        check(&[("sec-fetch-site", "none")], Ok(()));
        check(&[("user-agent", "OTel-OTLP-Exporter-Python/1.45.2")], Ok(()));
        let headers = [("host", "localhost"), ("origin", "https://app.example")];
        assert_eq!(checked(&Guard::default(), "/", &headers), refused, "none is allowed");
    }
}

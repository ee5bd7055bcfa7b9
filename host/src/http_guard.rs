//! What every HTTP listener of the daemon checks: a web page must not reach the loopback.

use std::net::{IpAddr, TcpListener};

use axum::{
    extract::Request,
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

/// Lets a request through whose host is an address or `localhost`, and which no web page sent: a
/// page can let a name of its own point here, but it cannot leave out its origin.
pub async fn check_host(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if headers.contains_key(header::ORIGIN) || !is_address(host) {
        let message = "ask by address or as localhost, and not from a web page\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    next.run(request).await
}

/// A socket for the daemon's runtime.
///
/// # Errors
///
/// When the system refuses.
pub fn into_tokio(socket: TcpListener) -> std::io::Result<tokio::net::TcpListener> {
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket)
}

fn is_address(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_addresses_from_names() {
        let check = |host: &str, expected| assert_eq!(is_address(host), expected, "{host}");
        check("127.0.0.1:9464", true);
        check("[::1]:9464", true);
        check("localhost", true);
        check("10.0.0.5", true);
        check("evil.example:9464", false);
        check("", false);
    }
}

//! What stands before every handler: the checks of Host and Origin, and the count of answers.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::Ends;
use crate::app::App;

/// Lets a request through that a web page in a browser cannot have sent.
pub(crate) async fn guard(
    State(app): State<Arc<App>>,
    axum::Extension(ends): axum::Extension<Ends>,
    request: Request,
    next: Next,
) -> Response {
    let endpoint = endpoint(request.uri().path());
    let refused = check_host(request.headers(), request.uri(), ends, &app.config.allowed_hosts)
        .or_else(|| check_origin(request.headers(), &app.config.allowed_origins));
    let mut response = match refused {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    if app.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    app.tally.request(endpoint, response.status().as_u16());
    response
}

/// An error in the form of all endpoints but OTLP's.
pub(crate) fn json_error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({"error": {"code": code, "message": message}});
    (status, Json(body)).into_response()
}

/// Answers a method that a path does not have.
pub(crate) async fn answer_wrong_method(uri: Uri) -> Response {
    let allowed = if uri.path() == "/healthz" { "GET" } else { "POST" };
    let message = format!("this path takes {allowed} only");
    let mut response = json_error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The label of a path in the metrics.
fn endpoint(path: &str) -> &'static str {
    match path {
        "/v1/logs" => "/v1/logs",
        "/v1/traces" => "/v1/traces",
        "/v1/metrics" => "/v1/metrics",
        "/api/v1/event" => "/api/v1/event",
        "/api/v1/events" => "/api/v1/events",
        "/api/v1/events/batch" => "/api/v1/events/batch",
        "/healthz" => "/healthz",
        _ => "other",
    }
}

/// A page that has its own host name resolve to the loopback (DNS rebinding) sends that name.
fn check_host(headers: &HeaderMap, uri: &Uri, ends: Ends, allowed: &[String]) -> Option<Response> {
    let stated = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    };
    let name = host_name(stated);
    let fits = match name.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address == ends.local.ip().to_canonical(),
        Err(_) => {
            name.eq_ignore_ascii_case("localhost")
                || name.to_ascii_lowercase().ends_with(".localhost")
                || allowed.iter().any(|host| host.eq_ignore_ascii_case(name))
        }
    };
    (!fits).then(|| {
        json_error(
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            "the Host header names neither this machine's loopback nor a host of \
             ingest.allowed_hosts; use http://127.0.0.1 or add the name there",
        )
    })
}

fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Option<Response> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let fits = match text("origin") {
        Some(origin) => allowed.iter().any(|known| known == origin),
        // A simple request of a page may come without an Origin, but not without this.
        None => !matches!(text("sec-fetch-site"), Some("cross-site" | "same-site")),
    };
    (!fits).then(|| {
        json_error(
            StatusCode::FORBIDDEN,
            "origin_not_allowed",
            "a web page may not post here; add its origin to ingest.allowed_origins if it should",
        )
    })
}

/// The host without its port.
fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        Ends {
            peer: "127.0.0.1:50000".parse().expect("an address"),
            local: "192.168.1.5:4318".parse().expect("an address"),
        }
    }

    #[test]
    fn only_names_of_this_machine_pass() {
        let check = |host: &str, passes: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a header"));
            let allowed = ["collector.lan".to_owned()];
            let refused = check_host(&headers, &Uri::from_static("/v1/logs"), ends(), &allowed);
            assert_eq!(refused.is_none(), passes, "{host}");
        };
        check("127.0.0.1:4318", true);
        check("localhost", true);
        check("LOCALHOST:4318", true);
        check("[::1]:4318", true);
        check("192.168.1.5:4318", true);
        check("collector.lan:4318", true);
        check("app.localhost:4318", true);
        check("192.168.1.6:4318", false);
        check("evil.example", false);
        check("127.0.0.1.evil.example:4318", false);
        check("localhost.evil.example", false);
        check("", false);
    }

    #[test]
    fn pages_do_not_pass() {
        let check = |name: &'static str, value: &str, passes: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            let allowed = ["https://app.example".to_owned()];
            assert_eq!(check_origin(&headers, &allowed).is_none(), passes, "{name}: {value}");
        };
        check("origin", "https://evil.example", false);
        check("origin", "null", false);
        check("origin", "http://localhost:3000", false);
        check("origin", "https://app.example", true);
        check("sec-fetch-site", "cross-site", false);
        check("sec-fetch-site", "none", true);
        check("user-agent", "OTel-OTLP-Exporter-Python/1.45.2", true);
    }
}

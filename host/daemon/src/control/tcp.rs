//! The control API over TCP, where the configuration asks for it: only with a token.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::header::AUTHORIZATION,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use lodestar_api::{Problem, ProblemCode};
use lodestar_platform::listeners::ListenerKey;
use module_http::{Hosts, Server, Tcp};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use crate::{
    http_guard::{CONTROL_OVER_TCP, guarded},
    refusal::Refusal,
    supervisor::{Daemon, OWN},
};

/// Serves the API at `control.listen`. An error is a warning only: the Unix socket is there in any
/// case.
pub fn start(daemon: &Arc<Daemon>) {
    let config = daemon.config();
    let (Some(address), Some(reference)) = (&config.control.listen, &config.control.token) else {
        return;
    };
    let key = ListenerKey::new(OWN, "control");
    let ready = || -> anyhow::Result<_> {
        let token = daemon.token(reference)?;
        let socket = Tcp::new(daemon.context.listeners.get(&key, address)?)?;
        Ok((socket, token))
    };
    match ready() {
        Ok((socket, token)) => {
            let router = locked(super::routes(daemon.clone()), &token);
            let server = Server::start(&Handle::current(), socket, router, CONTROL_OVER_TCP);
            daemon.servers.note("control", &server);
        }
        Err(error) => {
            let reason = error.to_string();
            tracing::warn!(reason, "the control API is not on TCP (control.listen)");
        }
    }
}

/// Makes a router answer only to clients with the token, and to no web page.
fn locked(router: Router, token: &str) -> Router {
    let expected: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    let router = router.layer(middleware::from_fn_with_state(expected, check_token));
    guarded(router, Hosts::Addresses)
}

async fn check_token(State(expected): State<[u8; 32]>, request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if is_same(&Sha256::digest(token.as_bytes()).into(), &expected) {
        return next.run(request).await;
    }
    let problem = Problem::new(ProblemCode::Refused, "the token is missing or wrong");
    Refusal(problem.help("send `Authorization: Bearer TOKEN` with the token of control.token"))
        .into_response()
}

/// Compares hashes without telling by the time how much of them agrees.
fn is_same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.iter().zip(right).fold(0, |difference, (left, right)| difference | (left ^ right)) == 0
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use hyper::StatusCode;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    async fn status(authorization: Option<&str>) -> StatusCode {
        use hyper::service::Service as _;
        let router = locked(Router::new().route("/", get(async || "in")), "correct horse");
        let mut request = Request::builder().uri("/").header("host", "localhost");
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Body::empty()).expect("it is valid");
        let service = TowerToHyperService::new(router);
        service.call(request).await.expect("it never fails").status()
    }

    #[tokio::test]
    async fn only_the_token_opens() {
        assert_eq!(status(Some("Bearer correct horse")).await, StatusCode::OK);
        assert_eq!(status(Some("Bearer wrong")).await, StatusCode::FORBIDDEN);
        assert_eq!(status(Some("correct horse")).await, StatusCode::FORBIDDEN);
        assert_eq!(status(None).await, StatusCode::FORBIDDEN);
    }
}

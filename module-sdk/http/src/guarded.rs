//! A router behind a guard.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};

use crate::{Ends, Guard, Refused};

/// Function that creates the response to a refused request.
type Refuse = fn(Refused) -> Response;

/// Restricts a router to requests that its [`Guard`] accepts; `refuse` answers the others: for
/// `application/problem+json` it is `|refused| Problem::from(refused).into_response()`.
pub fn guarded(router: Router, guard: Guard, refuse: Refuse) -> Router {
    router.layer(middleware::from_fn_with_state((Arc::new(guard), refuse), check))
}

async fn check(
    State((guard, refuse)): State<(Arc<Guard>, Refuse)>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    // A socket without addresses tells none.
    let local = parts.extensions.get::<Ends>().map(|ends| ends.local.ip());
    match guard.check(&parts, local) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refused) => refuse(refused),
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::StatusCode, response::IntoResponse as _, routing::get};
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    use super::*;
    use crate::{Hosts, Problem};

    #[tokio::test]
    async fn only_what_the_guard_lets_through_reaches_the_router() {
        let guard = Guard { hosts: Hosts::Own(Vec::new()), ..Guard::default() };
        let router = Router::new().route("/", get(async || "in"));
        let refuse = |refused| Problem::from(refused).into_response();
        let service = TowerToHyperService::new(guarded(router, guard, refuse));
        let ends = |local: &str| {
            let local = local.parse().expect("an address");
            Ends { peer: local, local }
        };
        let check = async |host: &str, at: Option<&str>, expected: StatusCode| {
            let request = Request::builder().uri("/").header("host", host);
            let mut request = request.body(Body::empty()).expect("it is valid");
            if let Some(at) = at {
                request.extensions_mut().insert(ends(at));
            }
            let answer = service.call(request).await.expect("it never fails");
            assert_eq!(answer.status(), expected, "{host} at {at:?}");
        };
        check("localhost", None, StatusCode::OK).await;
        check("10.0.0.5", Some("10.0.0.5:80"), StatusCode::OK).await;
        check("10.0.0.5", Some("10.0.0.6:80"), StatusCode::FORBIDDEN).await;
        check("10.0.0.5", None, StatusCode::FORBIDDEN).await;
        check("evil.example", Some("10.0.0.5:80"), StatusCode::FORBIDDEN).await;
    }
}

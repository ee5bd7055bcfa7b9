//! Checks of every HTTP listener of the daemon, and the number of connections of each.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    response::{IntoResponse as _, Response},
};
use lodestar_api::{Connections, Ended, Problem, ProblemCode};
use module_http::{Descriptors, End, Figures, Guard, Hosts, Limits, Refused, Server};

use crate::refusal::Refusal;

/// Limits for scrapers.
pub const METRICS: Limits = Limits { connections: 64, descriptors: Descriptors::More, ..USUAL };

/// Limits for clients of the control API over TCP.
pub const CONTROL_OVER_TCP: Limits = Limits { connections: 64, ..METRICS };

/// Limits for clients of the control socket. A reader of events or of a log may look at a page of
/// them for a while.
pub const CONTROL_SOCKET: Limits = Limits {
    connections: 128,
    descriptors: Descriptors::Nearly,
    write_timeout: Duration::from_secs(300),
    ..USUAL
};

const USUAL: Limits = Limits {
    connections: 0,
    descriptors: Descriptors::Most,
    header_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(75),
    write_timeout: Duration::from_secs(30),
};

/// Makes a router refuse what a web page may have sent: a page can let a name of its own point
/// here, but it cannot leave out its origin. A request that names no host, or several, is refused
/// as well.
pub fn guarded(router: Router, hosts: Hosts) -> Router {
    module_http::guarded(router, Guard { hosts, allowed_origins: Vec::new() }, refuse)
}

fn refuse(refused: Refused) -> Response {
    let mut problem = Problem::new(ProblemCode::Refused, refused.to_string());
    problem.status = refused.status().as_u16();
    Refusal(problem).into_response()
}

/// The daemon's own servers, by name, in the order in which they were started.
#[derive(Debug, Default)]
pub struct Servers(Mutex<Vec<(&'static str, Arc<Figures>)>>);

impl Servers {
    fn all(&self) -> MutexGuard<'_, Vec<(&'static str, Arc<Figures>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a server.
    pub fn note(&self, name: &'static str, server: &Server) {
        self.all().push((name, server.figures()));
    }

    /// Returns the connections of each server.
    #[must_use]
    pub fn connections(&self) -> Vec<Connections> {
        self.all().iter().map(|(name, figures)| connections(name, figures)).collect()
    }
}

fn connections(name: &str, figures: &Figures) -> Connections {
    let snapshot = figures.snapshot();
    let count = |end: End| snapshot.ended[end as usize];
    Connections {
        listener: name.to_owned(),
        open: snapshot.open as u64,
        limit: snapshot.limit as u64,
        accepted: snapshot.accepted,
        refused: snapshot.refused,
        accept_errors: snapshot.accept_errors,
        ended: Ended {
            done: count(End::Done),
            idle: count(End::Idle),
            slow_head: count(End::SlowHead),
            unread: count(End::Unread),
            displaced: count(End::Displaced),
        },
        trouble: figures.trouble(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request, http::StatusCode, routing::get};
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[tokio::test]
    async fn refusals_are_problems_with_the_status_of_their_kind() {
        let router = Router::new().route("/", get(async || "in"));
        let service = TowerToHyperService::new(guarded(router, Hosts::Addresses));
        for (hosts, expected) in [
            (&["localhost"][..], StatusCode::OK),
            (&["10.0.0.5:9464"], StatusCode::OK),
            (&["evil.example"], StatusCode::FORBIDDEN),
            (&["localhost", "localhost"], StatusCode::BAD_REQUEST),
            (&[], StatusCode::BAD_REQUEST),
        ] {
            let mut request = Request::builder().uri("/");
            for host in hosts {
                request = request.header("host", *host);
            }
            let request = request.body(Body::empty()).expect("it is valid");
            let answer = service.call(request).await.expect("it never fails");
            assert_eq!(answer.status(), expected, "{hosts:?}");
        }
    }
}

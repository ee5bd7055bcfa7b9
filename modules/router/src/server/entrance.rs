//! The way in, behind the guard: requests to models go straight to their handler, all others to
//! the router.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Body,
    http::{Method, Request},
    response::Response,
};
use module_http::{Ends, Guard};
use tower_service::Service;

use super::{ask, refusal, refuse_upgrade, wrong_method};
use crate::{app::App, dialect::Dialect};

type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// Service in front of the router. A request to a model passes through none of the router's layers:
/// each would box its future and copy the request.
#[derive(Debug, Clone)]
pub(super) struct Entrance {
    app: Arc<App>,
    guard: Arc<Guard>,
    /// The other endpoints.
    others: Router,
}

impl Entrance {
    pub(super) fn new(app: &Arc<App>, guard: Guard, others: Router) -> Self {
        Self { app: app.clone(), guard: Arc::new(guard), others }
    }
}

impl Service<Request<Body>> for Entrance {
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.others, context)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let local = parts.extensions.get::<Ends>().map(|ends| ends.local.ip());
        if let Err(refused) = self.guard.check(&parts, local) {
            return Box::pin(ready(Ok(refusal(refused))));
        }
        let request = Request::from_parts(parts, body);
        let Some(dialect) = dialect_asked(request.uri().path()) else {
            return Box::pin(self.others.call(request));
        };
        match (request.method(), dialect) {
            (&Method::POST, _) => {
                let app = self.app.clone();
                Box::pin(async move { Ok(ask(app, dialect, None, request).await) })
            }
            (&Method::GET, Dialect::Responses) => {
                Box::pin(async move { Ok(refuse_upgrade(request).await) })
            }
            _ => Box::pin(async move { Ok(wrong_method(request).await) }),
        }
    }
}

/// Returns the dialect of the requests to models that a path takes.
fn dialect_asked(path: &str) -> Option<Dialect> {
    Some(match path {
        "/v1/chat/completions" | "/chat/completions" => Dialect::Chat,
        "/v1/responses" | "/responses" => Dialect::Responses,
        "/v1/messages" => Dialect::Messages,
        "/v1/completions" | "/completions" => Dialect::Completions,
        "/v1/embeddings" | "/embeddings" => Dialect::Embeddings,
        "/api/chat" => Dialect::OllamaChat,
        "/api/generate" => Dialect::OllamaGenerate,
        "/api/embed" => Dialect::OllamaEmbed,
        _ => return None,
    })
}

//! `POST /v1/feedback`.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    response::Response,
};
use module_sdk::{Error, ErrorKind, events::LlmFeedbackGiven};
use serde_json::json;

use crate::{
    app::{App, COME_AGAIN},
    commands::explain,
    dialect::{
        Dialect,
        fault::{Fault, FaultKind},
    },
    exchange,
    feedback::{self, Given},
};

/// Largest body.
const LARGEST: usize = 64 * 1024;

/// Time within which the daemon takes the event.
const TAKEN: Duration = Duration::from_secs(5);

pub(super) async fn give(State(app): State<Arc<App>>, request: Request) -> Response {
    let inbound = match super::take(&app, Dialect::Chat, None, request).await {
        Ok(inbound) => inbound,
        Err(response) => return response,
    };
    let asks = exchange::identify(&app, &inbound.headers, inbound.query.as_deref(), inbound.peer);
    let key = match asks {
        Ok(identity) => identity.key().map(|key| key.name.to_string()),
        Err(fault) => return exchange::refused(&fault, Dialect::Chat, &inbound.id),
    };
    let taken = if inbound.body.len() > LARGEST {
        let message = "feedback is at most 64 KiB";
        Err(Fault::new(FaultKind::TooLarge, message))
    } else {
        take(&app, &inbound.body, key).await
    };
    match taken {
        Ok(event) => super::json(&json!({
            "request_id": event.request_id,
            "accepted": true,
        })),
        Err(fault) => exchange::refused(&fault, Dialect::Chat, &inbound.id),
    }
}

async fn take(app: &Arc<App>, body: &[u8], key: Option<String>) -> Result<LlmFeedbackGiven, Fault> {
    // The words of the parser may repeat what is in the body.
    let given: Given = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = format!(
            "that is no feedback (line {line}, column {column}): it has request_id, and good, \
             rating, edited, retried or comment"
        );
        Fault::new(FaultKind::InvalidRequest, message)
    })?;
    given.check().map_err(fault_of)?;
    // A part of an id would find the requests of others.
    let id = &given.request_id;
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message = "request_id has 32 digits, as x-lodestar-request-id said";
        return Err(Fault::new(FaultKind::InvalidRequest, message));
    }
    let (shared, event) = (app.clone(), given);
    // The journal is read from files.
    let read = tokio::task::spawn_blocking(move || {
        let found = explain::found(&shared, &event.request_id)?;
        if !found.is_of(key.as_deref()) {
            let message = "that request was made with another key";
            return Err(Error::of(ErrorKind::NotFound, message));
        }
        event.event(&found, &shared)
    });
    let event = read.await.map_err(|_| busy())?.map_err(fault_of)?;
    let accepted = app.host.accept(std::slice::from_ref(&event));
    if !matches!(tokio::time::timeout(TAKEN, accepted).await, Ok(Ok(()))) {
        return Err(busy());
    }
    feedback::note(app, &event);
    Ok(event)
}

fn busy() -> Fault {
    let message = "the daemon does not take the feedback just now; try again";
    Fault::new(FaultKind::Unavailable, message).after(COME_AGAIN)
}

fn fault_of(error: Error) -> Fault {
    let kind = match error.kind() {
        ErrorKind::NotFound => FaultKind::NotFound,
        ErrorKind::Usage => FaultKind::InvalidRequest,
        _ => FaultKind::Unavailable,
    };
    Fault::new(kind, error.to_string())
}

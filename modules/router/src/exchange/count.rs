//! Counting the tokens of a request without asking it.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use module_sdk::ProviderApi;
use serde_json::json;
use tokio::time::Instant;

use super::{Plan, admission, attempt, head, plan::ToBeJudged};
use crate::{
    app::App,
    config::seconds,
    dialect::{Dialect, rewrite::rewrite},
    server,
    target::endpoint,
    upstream::{self, Times},
};

/// Largest answer that is read.
const LARGEST: usize = 64 * 1024;

/// Answers `/v1/messages/count_tokens`: by the provider where it can count, else by an estimate
/// that is rather too high, and says so (`x-lodestar-estimated`).
pub(crate) async fn count_tokens(State(app): State<Arc<App>>, request: Request) -> Response {
    let inbound = match server::take(&app, Dialect::Messages, None, request).await {
        Ok(inbound) => inbound,
        Err(response) => return response,
    };
    let id = inbound.id.clone();
    let mut plan = match Plan::make(&app, inbound, ToBeJudged(false)) {
        Ok(plan) => plan,
        Err(fault) => return head::of_fault(&fault, Dialect::Messages, &id),
    };
    if let Err(fault) = admission::reserve_small(&app, &mut plan).await {
        return head::of_fault(&fault, Dialect::Messages, &id);
    }
    if let Some((status, body)) = by_provider(&app, &plan).await {
        return head::of_whole(&plan, status, http::HeaderMap::new(), body.into());
    }
    let body = json!({"input_tokens": plan.estimated_tokens.max(1)}).to_string();
    let mut response = head::of_whole(&plan, StatusCode::OK, http::HeaderMap::new(), body.into());
    response.headers_mut().insert("x-lodestar-estimated", HeaderValue::from_static("true"));
    response
}

async fn by_provider(app: &App, plan: &Plan) -> Option<(StatusCode, Bytes)> {
    let name = plan.decision.order.first()?;
    let target = app.targets.get_or_add(name)?;
    let provider = &target.provider.provider;
    if provider.api != ProviderApi::Anthropic {
        return None;
    }
    let headers = super::sending::headers_for(app, plan, &target, true);
    let body = rewrite(&plan.body, &plan.places, &name.model, false, false);
    let body = attempt::for_target(body.into(), plan, &target);
    let time = seconds(app.config.timeouts.first_byte_seconds);
    let times = Times { first_byte: time, idle: time, end: Instant::now() + time, whole: time };
    let url = endpoint::count_tokens(provider);
    let room = app.room();
    let answer = upstream::send(&app.pool, &url, headers, body, times, room).await.ok()?;
    let status = answer.status;
    let (body, _) = answer.body.whole(None, LARGEST).await.ok()?;
    // One that cannot count is no reason to fail.
    status.is_success().then_some((status, body))
}

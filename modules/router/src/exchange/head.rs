//! Heads of answers.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    Plan,
    failure::{Failed, FailureClass},
};
use crate::{
    dialect::{Dialect, fault::Fault},
    target::TargetName,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-lodestar-request-id");
const ROUTE: HeaderName = HeaderName::from_static("x-lodestar-route");
const ANTHROPIC_ID: HeaderName = HeaderName::from_static("request-id");

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Returns the answer for a request that was refused.
pub(crate) fn of_fault(fault: &Fault, dialect: Dialect, id: &str) -> Response {
    let mut response = Response::new(Body::from(fault.body(dialect, id)));
    *response.status_mut() = fault.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    identify(headers, id);
    if let Some(pause) = fault.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs().max(1)));
    }
    response
}

pub(super) fn of_failure(plan: &Plan, failed: Failed) -> Response {
    let Some((status, headers, body)) = failed.passed else {
        let mut response = of_fault(&failed.fault, plan.dialect, &plan.id);
        route(response.headers_mut(), plan);
        let is_final = matches!(failed.class, FailureClass::Target | FailureClass::Request);
        if is_final && failed.fault.retry_after.is_none() {
            // The official clients obey it: a key that is wrong is so the next time, too.
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        return response;
    };
    of_whole(plan, status, headers, Body::from(body))
}

pub(super) fn of_whole(plan: &Plan, status: StatusCode, told: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = told;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    identify(headers, &plan.id);
    route(headers, plan);
    response
}

pub(super) fn of_stream(plan: &Plan, told: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.headers_mut() = told;
    let headers = response.headers_mut();
    let kind = if plan.dialect.is_json_lines() { LINES } else { EVENTS };
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    identify(headers, &plan.id);
    route(headers, plan);
    response
}

fn identify(headers: &mut HeaderMap, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, value.clone());
        headers.entry(ANTHROPIC_ID).or_insert(value);
    }
}

/// Says who answers, and why.
fn route(headers: &mut HeaderMap, plan: &Plan) {
    if headers.contains_key(ROUTE) {
        return;
    }
    let Some(first) = plan.decision.order.first() else { return };
    headers.insert(ROUTE, value(plan, first));
}

/// Returns the value of `x-lodestar-route` for an answer of a target.
pub(super) fn value(plan: &Plan, target: &TargetName) -> HeaderValue {
    let decision = &plan.decision;
    let mut text = String::with_capacity(128);
    for part in [
        &*target.provider,
        "/",
        &*target.model,
        "; rule=",
        &decision.rule,
        "; strategy=",
        decision.strategy,
    ] {
        text.push_str(part);
    }
    if let Some(score) = decision.score {
        text.push_str(&format!("; score={score:.2}"));
    }
    for (index, reason) in decision.reasons.iter().take(3).enumerate() {
        text.push_str(if index == 0 { "; reasons=" } else { "," });
        text.push_str(&reason.name);
    }
    let plain = plain(text);
    HeaderValue::from_maybe_shared(Bytes::from(plain))
        .unwrap_or(HeaderValue::from_static("unknown"))
}

/// Returns a text as a header can hold it.
fn plain(text: String) -> String {
    let is_plain = |c: char| matches!(c, ' '..='~');
    if text.chars().all(is_plain) {
        return text;
    }
    text.chars().map(|c| if is_plain(c) { c } else { '?' }).collect()
}

/// Names the targets that were asked beside the one that answered.
pub(super) fn hedged(headers: &mut HeaderMap, others: &[String]) {
    add(headers, "hedged", &others.join(","));
}

/// Names the parts of a request that the target which answered has no word for.
pub(super) fn left_out(headers: &mut HeaderMap, parts: &[&str]) {
    if !parts.is_empty() {
        add(headers, "left_out", &parts.join(","));
    }
}

fn add(headers: &mut HeaderMap, key: &str, words: &str) {
    let Some(told) = headers.get(ROUTE).and_then(|value| value.to_str().ok()) else { return };
    let words = plain(words.to_owned());
    if let Ok(value) = HeaderValue::from_str(&format!("{told}; {key}={words}")) {
        headers.insert(ROUTE, value);
    }
}

/// Names the target that answered.
pub(super) fn answered_by(headers: &mut HeaderMap, plan: &Plan, target: &TargetName) {
    headers.insert(ROUTE, value(plan, target));
}

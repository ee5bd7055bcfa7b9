//! Lists of models, in the shape that the client knows.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::json;
use crate::{
    app::App,
    dialect::{
        Dialect,
        fault::{Fault, FaultKind},
    },
    exchange,
    target::{Target, TargetView},
};

/// Time that stands for one that is not known, 2024-01-01: clients want one.
const SOME_TIME: i64 = 1_704_067_200;

/// Names that leave the choice to the router.
const AUTO: [&str; 4] = ["auto", "auto:cheap", "auto:balanced", "auto:best"];

/// Lists the names of models: plain where one provider has it, else with the provider.
fn names(app: &App) -> Vec<(String, Option<Arc<Target>>)> {
    let list = app.targets.list();
    let mut names: Vec<(String, Option<Arc<Target>>)> =
        AUTO.iter().map(|name| ((*name).to_owned(), None)).collect();
    names.extend(app.policy.aliases().map(|alias| (alias.to_owned(), None)));
    for target in list.iter() {
        let model = &target.name.model;
        let is_alone = list.iter().filter(|other| other.name.model == *model).count() == 1;
        let name = if is_alone { model.to_string() } else { target.name.to_string() };
        names.push((name, Some(target.clone())));
    }
    names
}

fn openai(name: &str, target: Option<&Target>) -> Value {
    let owner = target.map_or("lodestar", |target| &*target.name.provider);
    json!({"id": name, "object": "model", "created": SOME_TIME, "owned_by": owner})
}

fn anthropic(name: &str, view: Option<&TargetView>) -> Value {
    json!({
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2024-01-01T00:00:00Z",
        "max_input_tokens": view.and_then(|view| view.context_tokens),
    })
}

/// Returns whether a client speaks Anthropic's dialect.
fn is_anthropic(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version") || headers.contains_key("anthropic-beta")
}

pub(super) async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let names = names(&app);
    if is_anthropic(&headers) {
        let data: Vec<Value> = names
            .iter()
            .map(|(name, target)| {
                anthropic(name, target.as_ref().map(|target| target.view()).as_ref())
            })
            .collect();
        let first = names.first().map(|(name, _)| name);
        let last = names.last().map(|(name, _)| name);
        return json(&json!({
            "data": data, "has_more": false, "first_id": first, "last_id": last,
        }));
    }
    let data: Vec<Value> =
        names.iter().map(|(name, target)| openai(name, target.as_deref())).collect();
    json(&json!({"object": "list", "data": data}))
}

pub(super) async fn one(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
    headers: HeaderMap,
) -> Response {
    let names = names(&app);
    let found = names.iter().find(|(name, target)| {
        *name == model || target.as_ref().is_some_and(|it| it.name.to_string() == model)
    });
    let is_anthropic = is_anthropic(&headers);
    let Some((_, target)) = found else {
        let dialect = if is_anthropic { Dialect::Messages } else { Dialect::Chat };
        return no_model(&names, &model, dialect);
    };
    if is_anthropic {
        return json(&anthropic(&model, target.as_ref().map(|it| it.view()).as_ref()));
    }
    json(&openai(&model, target.as_deref()))
}

fn no_model(names: &[(String, Option<Arc<Target>>)], model: &str, dialect: Dialect) -> Response {
    let near = module_sdk::nearest(model, names.iter().map(|(name, _)| name.as_str()));
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let shown: String = model.chars().take(100).flat_map(char::escape_debug).collect();
    let fault = Fault::new(FaultKind::NotFound, format!("no provider has `{shown}`{hint}"));
    exchange::refused(&fault, dialect, "")
}

pub(super) async fn gemini(State(app): State<Arc<App>>) -> Response {
    let models: Vec<Value> = names(&app)
        .iter()
        .map(|(name, _)| {
            json!({
                "name": format!("models/{name}"),
                "displayName": name,
                "supportedGenerationMethods": ["generateContent", "streamGenerateContent"],
            })
        })
        .collect();
    json(&json!({"models": models}))
}

/// Describes a model as Ollama does.
fn tag(name: &str, target: Option<&Target>) -> Value {
    json!({
        "name": name,
        "model": name,
        "modified_at": "2024-01-01T00:00:00Z",
        "size": 0,
        "digest": "",
        "details": {
            "format": "",
            "family": target.map_or("router", |target| &*target.name.provider),
            "families": null,
            "parameter_size": "",
            "quantization_level": "",
        },
    })
}

pub(super) async fn tags(State(app): State<Arc<App>>) -> Response {
    let names = names(&app);
    let models: Vec<Value> =
        names.iter().map(|(name, target)| tag(name, target.as_deref())).collect();
    json(&json!({"models": models}))
}

pub(super) async fn ps(State(app): State<Arc<App>>) -> Response {
    let loaded = names(&app).into_iter().filter(|(_, target)| {
        target.as_ref().is_some_and(|target| target.is_loaded() == Some(true))
    });
    let models: Vec<Value> = loaded
        .map(|(name, target)| {
            let mut tag = tag(&name, target.as_deref());
            let context = target.and_then(|target| target.view().context_tokens);
            tag["context_length"] = json!(context);
            tag["expires_at"] = json!("2100-01-01T00:00:00Z");
            tag
        })
        .collect();
    json(&json!({"models": models}))
}

#[derive(Deserialize)]
struct Shown {
    #[serde(alias = "name", default)]
    model: String,
}

pub(super) async fn show(State(app): State<Arc<App>>, body: Bytes) -> Response {
    let Ok(Shown { model }) = serde_json::from_slice(&body) else {
        let fault = Fault::new(FaultKind::InvalidRequest, "send {\"model\": \"NAME\"}");
        return exchange::refused(&fault, Dialect::OllamaChat, "");
    };
    let names = names(&app);
    let bare = model.strip_suffix(":latest").unwrap_or(&model);
    let found = names
        .iter()
        .find(|(name, _)| *name == model || name.strip_suffix(":latest").unwrap_or(name) == bare);
    let Some((_, target)) = found else { return no_model(&names, &model, Dialect::OllamaChat) };
    let view = target.as_ref().map(|target| target.view());
    let mut capabilities = vec!["completion"];
    if view.as_ref().is_none_or(|view| view.tools != Some(false)) {
        capabilities.push("tools");
    }
    if view.as_ref().is_some_and(|view| view.images == Some(true)) {
        capabilities.push("vision");
    }
    let context = view.and_then(|view| view.context_tokens);
    json(&json!({
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": tag(&model, target.as_deref())["details"],
        "model_info": {"general.architecture": "router", "router.context_length": context},
        "capabilities": capabilities,
    }))
}

pub(super) async fn version() -> Response {
    // The oldest version of Ollama that has all of these endpoints.
    json(&json!({"version": "0.14.0"}))
}

//! `llama-server`: the adapters that it was started with, of which one is on (`/lora-adapters` in
//! the README of llama.cpp's `tools/server`).

use std::path::Path;

use module_http_client::Request;
use serde_json::{Value, json};

use super::{Adapter, Answered, DeployError, Model, Server, Unreadable, WORK, is_same_file, read};

/// An adapter of the server.
struct Loaded {
    id: i64,
    path: String,
}

/// Finds the adapter among those that the server has.
pub(super) async fn install(server: &Server, adapter: &Adapter) -> Result<String, DeployError> {
    find(&loaded(server).await?, adapter)?;
    Ok(adapter.model())
}

/// Asks the base or a version, whatever is on for others.
pub(super) async fn answer(
    server: &Server,
    model: Model<'_>,
    messages: &Value,
    max_tokens: u32,
) -> Result<Answered, DeployError> {
    let body = json!({
        "messages": messages, "max_tokens": max_tokens, "temperature": 0, "seed": 0,
        "lora": scales_of(server, model).await?,
    });
    let answer = server.post("/v1/chat/completions", &body, WORK).await?;
    let text = read(&answer)?["choices"][0]["message"]["content"].as_str().map(str::to_owned);
    let text = text.ok_or(DeployError::Unreadable(Unreadable("an answer without a message")))?;
    Ok(Answered { text, elapsed: answer.elapsed })
}

/// Switches this adapter on and all others off; with none, all of them off.
pub(super) async fn switch_on(
    server: &Server,
    adapter: Option<&Adapter>,
) -> Result<(), DeployError> {
    let all = loaded(server).await?;
    let id = adapter.map(|adapter| find(&all, adapter)).transpose()?;
    server.post("/lora-adapters", &scales(&all, id), WORK).await.map(drop)
}

/// Returns the scales by which a request asks a model, whatever is on for others.
pub(super) async fn scales_of(server: &Server, model: Model<'_>) -> Result<Value, DeployError> {
    let all = loaded(server).await?;
    let id = match model {
        Model::Base(_) => None,
        Model::Version(adapter) => Some(find(&all, adapter)?),
    };
    Ok(scales(&all, id))
}

/// Returns a scale for every adapter: one that is not named keeps the scale it had.
fn scales(all: &[Loaded], on: Option<i64>) -> Value {
    let scale = |it: &Loaded| json!({"id": it.id, "scale": u8::from(Some(it.id) == on)});
    all.iter().map(scale).collect()
}

fn find(all: &[Loaded], adapter: &Adapter) -> Result<i64, DeployError> {
    let found = all.iter().find(|it| is_same_file(Path::new(&it.path), &adapter.file));
    found.map(|it| it.id).ok_or_else(|| DeployError::NotLoaded { file: adapter.file.clone() })
}

async fn loaded(server: &Server) -> Result<Vec<Loaded>, DeployError> {
    let answer = read(&server.send(Request::get(server.url("/lora-adapters"))).await?)?;
    let all = answer.as_array().and_then(|all| {
        let read = |it: &Value| {
            Some(Loaded { id: it["id"].as_i64()?, path: it["path"].as_str()?.to_owned() })
        };
        all.iter().map(read).collect()
    });
    all.ok_or(DeployError::Unreadable(Unreadable("no list of adapters")))
}

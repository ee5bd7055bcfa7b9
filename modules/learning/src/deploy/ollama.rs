//! Ollama: blobs, models made from a base and an adapter, and names that are copies of models
//! (`docs/api.md` of Ollama).

use module_http_client::{Header, Method, Request, StatusCode};
use serde_json::{Value, json};

use super::{Adapter, Answered, DeployError, Model, QUESTION, Server, Unreadable, WORK, read};

/// Sends the adapter and makes a model of the base and it.
pub(super) async fn install(
    server: &Server,
    adapter: &Adapter,
    bytes: Vec<u8>,
) -> Result<String, DeployError> {
    let digest = format!("sha256:{}", adapter.sha256);
    if !has_blob(server, &digest).await? {
        let mut upload = Request::get(server.url(&format!("/api/blobs/{digest}")));
        upload.method = Method::POST;
        upload.headers.push(Header::new("content-type", "application/octet-stream"));
        upload.body = bytes;
        upload.deadline = WORK;
        server.send(upload).await?;
    }
    let model = adapter.model();
    let body = json!({
        "model": model, "from": adapter.base, "adapters": {"adapter.gguf": digest},
        "stream": false,
    });
    let answer = read(&server.post("/api/create", &body, WORK).await?)?;
    // An error of the work itself comes with the status 200.
    if let Some(error) = answer["error"].as_str() {
        let words = super::words(error.as_bytes());
        return Err(DeployError::Refused { status: StatusCode::OK, words });
    }
    if answer["status"].as_str() != Some("success") {
        return Err(DeployError::Unreadable(Unreadable("no `success` after a model was made")));
    }
    Ok(model)
}

async fn has_blob(server: &Server, digest: &str) -> Result<bool, DeployError> {
    let mut question = Request::get(server.url(&format!("/api/blobs/{digest}")));
    question.method = Method::HEAD;
    question.deadline = QUESTION;
    match server.send(question).await {
        Ok(_) => Ok(true),
        Err(DeployError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Asks a model.
pub(super) async fn answer(
    server: &Server,
    model: Model<'_>,
    messages: &Value,
    max_tokens: u32,
) -> Result<Answered, DeployError> {
    let name = match model {
        Model::Base(name) => name.to_owned(),
        Model::Version(adapter) => adapter.model(),
    };
    let body = json!({
        "model": name, "messages": messages, "stream": false,
        "options": {"num_predict": max_tokens, "temperature": 0, "seed": 0},
    });
    let answer = server.post("/api/chat", &body, WORK).await?;
    let text = read(&answer)?["message"]["content"].as_str().map(str::to_owned);
    let text = text.ok_or(DeployError::Unreadable(Unreadable("an answer without a message")))?;
    Ok(Answered { text, elapsed: answer.elapsed })
}

/// Makes a name a copy of a model: who asks for the name from now on gets that model.
pub(super) async fn point(server: &Server, model: &str, alias: &str) -> Result<(), DeployError> {
    let body = json!({"source": model, "destination": alias});
    server.post("/api/copy", &body, QUESTION).await.map(drop)
}

//! Ollama: blobs, models made from a base and an adapter, and names that are copies of models
//! (`docs/api.md` of Ollama).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use module_http_client::{Header, Method, Request, StatusCode};
use serde_json::{Value, json};

use super::{
    Adapter, Answered, DeployError, Model, QUESTION, Server, Unreadable, WORK, read, upload,
};

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
    create(server, &body).await?;
    Ok(model)
}

/// Makes a model of the files of a base, once.
pub(super) async fn make_base(server: &Server, name: &str, base: &Path) -> Result<(), DeployError> {
    match server.post("/api/show", &json!({"model": name}), QUESTION).await {
        Ok(_) => return Ok(()),
        Err(DeployError::Refused { status: StatusCode::NOT_FOUND, .. }) => {}
        Err(error) => return Err(error),
    }
    let mut files = serde_json::Map::new();
    for file in files_of(base).map_err(|source| DeployError::Read { file: base.into(), source })? {
        let digest = upload::digest(&file)?;
        if !has_blob(server, &digest).await? {
            upload::send(&server.base_url, &format!("/api/blobs/{digest}"), &file).await?;
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, digest.into());
    }
    create(server, &json!({"model": name, "files": files, "stream": false})).await
}

/// Returns the files of a base: itself, or those of a folder that Ollama reads.
fn files_of(base: &Path) -> io::Result<Vec<PathBuf>> {
    if base.is_file() {
        return Ok(vec![base.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(base)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|it| it.to_str());
        let is_part = matches!(extension, Some("json" | "safetensors" | "model"));
        if is_part && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Makes a model.
async fn create(server: &Server, body: &Value) -> Result<(), DeployError> {
    let answer = read(&server.post("/api/create", body, WORK).await?)?;
    // An error of the work itself comes with the status 200.
    if let Some(error) = answer["error"].as_str() {
        let words = super::words(error.as_bytes());
        return Err(DeployError::Refused { status: StatusCode::OK, words });
    }
    match answer["status"].as_str() {
        Some("success") => Ok(()),
        _ => Err(DeployError::Unreadable(Unreadable("no `success` after a model was made"))),
    }
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

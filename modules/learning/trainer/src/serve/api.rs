//! The endpoints.

use std::{
    convert::Infallible,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, header, request::Parts, uri::Authority},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{
    adapters::{Adapters, Asker, Scale},
    chats::{ChatRequest, Completion},
    engine::{Ask, Ended, Engine, Piece},
    refusal::Refusal,
};
use crate::model::{Adapter, Shape};

/// State that the endpoints share.
#[derive(Clone)]
pub(super) struct App(Arc<Inner>);

struct Inner {
    engine: Engine,
    adapters: Adapters,
    shape: Shape,
    alias: String,
    /// Digest of the key of who decides.
    key: Option<[u8; 32]>,
    created: u64,
    answers: AtomicU64,
    asked: Mutex<Instant>,
}

impl App {
    pub(super) fn new(
        engine: Engine,
        adapters: Adapters,
        shape: Shape,
        alias: String,
        key: Option<String>,
    ) -> Self {
        let key = key.map(|key| Sha256::digest(key).into());
        let created = now();
        let answers = AtomicU64::default();
        let asked = Mutex::new(Instant::now());
        Self(Arc::new(Inner { engine, adapters, shape, alias, key, created, answers, asked }))
    }

    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/health", get(health))
            .route("/v1/models", get(models))
            .route("/lora-adapters", get(list).post(set))
            .route("/lora-adapters/load", post(load))
            .route("/lora-adapters/open", post(open))
            .route("/v1/chat/completions", post(chat))
            .route("/completion", post(completion))
            .fallback(|| async { Refusal::path() })
            // What comes this far was read within the limits of a connection.
            .layer(DefaultBodyLimit::disable())
            .with_state(self)
    }

    /// Returns the adapter that a request is answered with.
    fn adapter(
        &self,
        model: &str,
        lora: &[Scale],
        asker: Asker,
    ) -> Result<Option<Arc<Adapter>>, Refusal> {
        let it = &self.0;
        if !lora.is_empty() {
            // Scales reach everything that is loaded.
            keeper(asker)?;
            return it.adapters.with(lora);
        }
        if model.is_empty() || model == it.alias {
            return Ok(it.adapters.of_alias());
        }
        let name = model.strip_prefix(&it.alias).and_then(|rest| rest.strip_prefix(':'));
        if name == Some("base") {
            return Ok(None);
        }
        let found = name.and_then(|name| it.adapters.named(name, asker));
        found.map(Some).ok_or_else(|| Refusal::model(model, &self.names(asker)))
    }

    fn names(&self, asker: Asker) -> Vec<String> {
        let alias = &self.0.alias;
        let versions = self.0.adapters.names(asker).into_iter().map(|it| format!("{alias}:{it}"));
        [alias.clone(), format!("{alias}:base")].into_iter().chain(versions).collect()
    }

    /// Returns who asks, by the key of a request.
    fn asker(&self, headers: &HeaderMap) -> Asker {
        let Some(key) = self.0.key else { return Asker::Keeper };
        let given = headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
        let given = given.and_then(|it| it.strip_prefix("Bearer ")).unwrap_or_default();
        // Digests are compared: where they differ tells nothing of the key.
        let is_key = <[u8; 32]>::from(Sha256::digest(given)) == key;
        if is_key { Asker::Keeper } else { Asker::Anybody }
    }

    /// Checks the key of a request that needs it.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        keeper(self.asker(headers))
    }

    /// Puts a question into the queue, and returns its answer piece by piece.
    fn ask(
        &self,
        ask: impl FnOnce(tokio::sync::mpsc::UnboundedSender<Piece>) -> Ask,
    ) -> Result<UnboundedReceiver<Piece>, Refusal> {
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let (to, pieces) = unbounded_channel();
        self.0.engine.ask(ask(to))?;
        Ok(pieces)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn keeper(asker: Asker) -> Result<(), Refusal> {
    (asker == Asker::Keeper).then_some(()).ok_or_else(Refusal::key)
}

/// Keeps web pages out: their requests name where they come from, and after a name was led here
/// (DNS rebinding) they name another host.
pub(super) fn guard(request: &Parts) -> Result<(), Refusal> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|it| it.to_str().ok()).unwrap_or_default();
    // A target in absolute form counts beside the header (RFC 9112, section 3.2.2).
    let target = request.uri.authority().map_or(host, Authority::as_str);
    let is_one = hosts.next().is_none() && target.eq_ignore_ascii_case(host);
    let is_page = request.headers.contains_key(header::ORIGIN);
    (is_one && is_own(host) && !is_page).then_some(()).ok_or_else(Refusal::page)
}

/// Returns whether a `Host` names this machine.
fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

/// Returns a body as what it should be. An error quotes nothing of it.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::body(&error))
}

async fn health(State(app): State<App>) -> Json<Value> {
    let (waiting, is_answering) = app.0.engine.load();
    let idle = app.0.asked.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
    let idle = if is_answering { Duration::ZERO } else { idle };
    Json(json!({
        "status": "ok", "waiting": waiting, "answering": is_answering, "idle_s": idle.as_secs(),
    }))
}

async fn models(State(app): State<App>, headers: HeaderMap) -> Json<Value> {
    let meta = json!({
        "n_ctx_train": app.0.engine.context(), "n_vocab": app.0.shape.vocabulary,
    });
    let model = |name: String| {
        json!({
            "id": name, "object": "model", "created": app.0.created, "owned_by": "lodestar",
            "meta": meta,
        })
    };
    let all: Vec<Value> = app.names(app.asker(&headers)).into_iter().map(model).collect();
    Json(json!({"object": "list", "data": all}))
}

async fn list(State(app): State<App>, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    app.admit(&headers)?;
    Ok(Json(json!(app.0.adapters.list())))
}

async fn set(
    State(app): State<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    app.admit(&headers)?;
    app.0.adapters.set(&read::<Vec<Scale>>(&body)?)?;
    Ok(Json(json!({"success": true})))
}

/// An adapter that is to be loaded.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Load {
    name: String,
    path: PathBuf,
    sha256: String,
}

async fn load(
    State(app): State<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    app.admit(&headers)?;
    let Load { name, path, sha256 } = read(&body)?;
    let loading = tokio::task::spawn_blocking(move || {
        app.0.adapters.load(&app.0.shape, &name, &path, &sha256)
    });
    let id = loading.await.map_err(|_| Refusal::failed("the adapter cannot be loaded"))??;
    Ok(Json(json!({"id": id})))
}

/// Names of the adapters that are opened.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    names: Vec<String>,
}

async fn open(
    State(app): State<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    app.admit(&headers)?;
    app.0.adapters.open(&read::<Open>(&body)?.names)?;
    Ok(Json(json!({"success": true})))
}

async fn completion(
    State(app): State<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let request: Completion = read(&body)?;
    let adapter = app.adapter("", &request.lora, app.asker(&headers))?;
    let prompt = request.prompt(&app.0.engine)?;
    let count = prompt.len();
    let (most, sampling, stops) = (request.most(), request.sampling()?, request.stops()?);
    let pieces = app.ask(|to| Ask { prompt, adapter, most, sampling, stops, to })?;
    let (text, ended) = whole(pieces).await?;
    let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    let mut answer = json!({
        "content": text, "model": app.0.alias, "stop": true,
        "stop_type": if ended.is_whole { "eos" } else { "limit" },
        "tokens_evaluated": count, "tokens_predicted": ended.ids.len(),
        "timings": {
            "prompt_n": count, "prompt_ms": ended.prompt_time.as_secs_f64() * 1e3,
            "predicted_n": ended.ids.len(),
            "predicted_ms": ended.answer_time.as_secs_f64() * 1e3,
            "predicted_per_second": rate(ended.ids.len(), ended.answer_time),
        },
    });
    if request.return_tokens {
        answer["tokens"] = json!(ended.ids);
    }
    Ok(Json(answer))
}

async fn chat(
    State(app): State<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let request: ChatRequest = read(&body)?;
    request.check()?;
    let adapter = app.adapter(&request.model, &request.lora, app.asker(&headers))?;
    let prompt = app.0.engine.rendered(&request.messages()?, request.tools.as_ref())?;
    let count = prompt.len();
    let (most, sampling, stops) = (request.most(), request.sampling()?, request.stops()?);
    let pieces = app.ask(|to| Ask { prompt, adapter, most, sampling, stops, to })?;
    let number = app.0.answers.fetch_add(1, Ordering::Relaxed);
    let model = if request.model.is_empty() { app.0.alias.clone() } else { request.model.clone() };
    let head = Head { id: format!("chatcmpl-{:x}-{number}", app.0.created), created: now(), model };
    if request.stream {
        return Ok(stream(pieces, head, count, request.wants_usage()));
    }
    let (text, ended) = whole(pieces).await?;
    let mut answer = head.value("chat.completion");
    answer["choices"] = json!([{
        "index": 0, "message": {"role": "assistant", "content": text},
        "finish_reason": finish(&ended),
    }]);
    answer["usage"] = usage(count, &ended);
    Ok(Json(answer).into_response())
}

/// Beginning of all parts of an answer.
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn value(&self, object: &str) -> Value {
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
        })
    }

    fn part(&self, delta: &Value, finish: Option<&str>) -> Value {
        let mut part = self.value("chat.completion.chunk");
        part["choices"] = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        part
    }
}

const fn finish(ended: &Ended) -> &'static str {
    if ended.is_whole { "stop" } else { "length" }
}

fn usage(prompt: usize, ended: &Ended) -> Value {
    let answer = ended.ids.len();
    json!({
        "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer,
    })
}

/// Waits for all of an answer.
async fn whole(mut pieces: UnboundedReceiver<Piece>) -> Result<(String, Ended), Refusal> {
    let mut text = String::new();
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Text(more) => text.push_str(&more),
            Piece::End(ended) => return Ok((text, ended)),
            Piece::Failed(refusal) => return Err(refusal),
        }
    }
    Err(Refusal::failed("the answer was not computed to its end"))
}

/// Tells an answer as it comes. Once the client is gone nothing more is computed.
fn stream(
    mut pieces: UnboundedReceiver<Piece>,
    head: Head,
    prompt: usize,
    wants_usage: bool,
) -> Response {
    let (events, told) = unbounded_channel();
    tokio::spawn(async move {
        let tell = |data: String| events.send(Ok::<_, Infallible>(Event::default().data(data)));
        let begin = json!({"role": "assistant", "content": ""});
        let mut is_heard = tell(head.part(&begin, None).to_string()).is_ok();
        while is_heard {
            let piece = tokio::select! {
                piece = pieces.recv() => piece,
                () = events.closed() => return,
            };
            match piece {
                Some(Piece::Text(text)) => {
                    let part = head.part(&json!({"content": text}), None);
                    is_heard = tell(part.to_string()).is_ok();
                }
                Some(Piece::End(ended)) => {
                    let mut all = vec![head.part(&json!({}), Some(finish(&ended)))];
                    if wants_usage {
                        let mut last = head.value("chat.completion.chunk");
                        last["choices"] = json!([]);
                        last["usage"] = usage(prompt, &ended);
                        all.push(last);
                    }
                    let all = all.iter().map(Value::to_string).chain(["[DONE]".to_owned()]);
                    let _: Result<(), _> = { all }.try_for_each(tell);
                    return;
                }
                failed => {
                    let refusal = match failed {
                        Some(Piece::Failed(refusal)) => refusal,
                        _ => Refusal::failed("the answer was not computed to its end"),
                    };
                    let _: Result<(), _> = tell(refusal.body_of().to_string());
                    return;
                }
            }
        }
    });
    Sse::new(UnboundedReceiverStream::new(told)).keep_alive(KeepAlive::default()).into_response()
}

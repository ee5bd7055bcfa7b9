//! A daemon that answers what the test says, over hyper on a Unix socket.

use std::{
    collections::VecDeque,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use lodestar_api::Problem;
use serde::Serialize;
use serde_json::Value;
use tokio::{net::UnixListener, sync::mpsc};

/// Receiver of the pieces of a body.
type Pieces = mpsc::UnboundedReceiver<Bytes>;

/// An answer, used once.
struct Answer {
    request: String,
    status: u16,
    body: Pieces,
}

/// A daemon that answers each request with the next answer that was given for it.
pub(super) struct Daemon {
    pub(super) socket: PathBuf,
    state: Arc<Mutex<State>>,
    _directory: tempfile::TempDir,
}

#[derive(Default)]
struct State {
    answers: VecDeque<Answer>,
    asked: Vec<(String, Value)>,
    /// Body of the last request.
    last: Bytes,
}

impl Daemon {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("control.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let state = Arc::new(Mutex::new(State::default()));
        tokio::spawn(serve(listener, state.clone()));
        Self { socket, state, _directory: directory }
    }

    /// Answers `METHOD /path` with a value.
    pub(super) fn answer(&self, request: &str, value: &impl Serialize) -> &Self {
        let pieces = self.stream(request, 200);
        let body = serde_json::to_vec(value).expect("JSON");
        pieces.send(body.into()).expect("the body is open");
        self
    }

    /// Answers `METHOD /path` with lines, sent one by one.
    pub(super) fn lines(&self, request: &str, lines: &[Value]) -> &Self {
        let pieces = self.stream(request, 200);
        for line in lines {
            pieces.send(format!("{line}\n").into()).expect("the body is open");
        }
        self
    }

    /// Answers `METHOD /path` with a problem.
    pub(super) fn problem(&self, request: &str, problem: &Problem) -> &Self {
        let pieces = self.stream(request, problem.status);
        let body = serde_json::to_vec(problem).expect("JSON");
        pieces.send(body.into()).expect("the body is open");
        self
    }

    /// Answers `METHOD /path` with what is sent until the sender is dropped.
    pub(super) fn stream(&self, request: &str, status: u16) -> mpsc::UnboundedSender<Bytes> {
        let (sender, body) = mpsc::unbounded_channel();
        let answer = Answer { request: request.to_owned(), status, body };
        self.state.lock().unwrap_or_else(PoisonError::into_inner).answers.push_back(answer);
        sender
    }

    /// Returns the requests so far, with their bodies.
    pub(super) fn asked(&self) -> Vec<(String, Value)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }

    /// Returns the body of the last request, whatever it is.
    pub(super) fn last_body(&self) -> Bytes {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).last.clone()
    }

    pub(super) fn directory(&self) -> &Path {
        self._directory.path()
    }
}

async fn serve(listener: UnixListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        let service = service_fn(move |request| respond(request, state.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn respond(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let asked = format!("{} {}", request.method(), request.uri());
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let value = serde_json::from_slice(&body).unwrap_or_default();
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let found = state.answers.iter().position(|answer| answer.request == asked);
    let answer = found.and_then(|index| state.answers.remove(index));
    state.asked.push((asked, value));
    state.last = body;
    let (status, mut pieces) = match answer {
        Some(answer) => (answer.status, answer.body),
        None => (404, mpsc::unbounded_channel().1),
    };
    let frames = futures_util::stream::poll_fn(move |context| {
        pieces.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    });
    let mut response = Response::new(StreamBody::new(frames));
    *response.status_mut() = hyper::StatusCode::from_u16(status).expect("a status");
    Ok(response)
}

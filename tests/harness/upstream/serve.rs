//! Connections, requests, and bodies that end as the script says.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Sleep, sleep},
};

use super::{
    answer::Fault,
    dialect::Asked,
    ollama,
    record::{Outcome, Progress, Shared},
    render::{End, Rendered, render},
};

/// Accepts connections until it is dropped, and them with it.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    for number in 0.. {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // A client that is gone is none of ours.
        let _ = stream.set_nodelay(true);
        let mode = Arc::new(Mode::default());
        let io = Connection { stream: TokioIo::new(stream), mode: mode.clone() };
        let shared = shared.clone();
        let service = service_fn(move |request| {
            let (shared, mode) = (shared.clone(), mode.clone());
            async move { Ok::<_, Infallible>(exchange(request, number, &shared, &mode).await) }
        });
        let mut server = http1::Builder::new();
        // Some clients send heads of many kilobytes.
        server.timer(TokioTimer::new()).max_buf_size(1 << 20);
        connections.spawn(async move { server.serve_connection(io, service).await });
        while connections.try_join_next().is_some() {}
    }
}

/// Peculiarities of a connection, as the answer under way wants them.
#[derive(Debug, Default)]
struct Mode {
    bytewise: AtomicBool,
    reset: AtomicBool,
}

async fn exchange(
    request: Request<Incoming>,
    connection: u64,
    shared: &Arc<Shared>,
    mode: &Mode,
) -> Response<Pieces> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let asked = Asked::read(&head.method, path, query, &head.headers, &body);
    let managed = ollama::manage(path, &body, &mut shared.state().models);
    let (progress, id) = shared.begun(connection, &head, body, asked.as_ref());
    if let Some(told) = managed {
        let rendered = Rendered { end: End::Whole, ..Rendered::plain(200, told.into()) };
        return respond(rendered, &id, Duration::ZERO, progress);
    }
    let Some(asked) = asked else {
        let body = format!("{{\"error\":\"no dialect has {path}\"}}").into();
        return respond(Rendered::plain(404, body), &id, Duration::ZERO, progress);
    };
    let (answer, models) = shared.answer(&asked, progress.index());
    if answer.head_ms > 0 {
        sleep(Duration::from_millis(answer.head_ms)).await;
    }
    if answer.fault == Some(Fault::HangBeforeHead) {
        // Until the client goes.
        std::future::pending::<()>().await;
    }
    mode.bytewise.store(answer.wire.bytewise, Ordering::Relaxed);
    let rendered = render(&asked, &answer, &models, &id);
    mode.reset.store(rendered.reset, Ordering::Relaxed);
    progress.answered(&rendered, &answer, &asked);
    respond(rendered, &id, Duration::from_millis(answer.gap_ms), progress)
}

fn respond(rendered: Rendered, id: &str, gap: Duration, progress: Progress) -> Response<Pieces> {
    let mut response = Response::builder().status(rendered.status);
    for (name, value) in &rendered.headers {
        response = response.header(name, value);
    }
    for name in ["x-request-id", "request-id"] {
        response = response.header(name, format!("req_{id}"));
    }
    if let Some(length) = rendered.length {
        response = response.header("content-length", length);
    }
    let pieces = Pieces {
        rest: rendered.pieces.into(),
        end: rendered.end,
        gap,
        begun: false,
        pause: None,
        turns: 2,
        exact: rendered.length.is_some(),
        progress,
    };
    response.body(pieces).expect("a script has valid headers")
}

impl Rendered {
    fn plain(status: u16, body: Bytes) -> Self {
        let kind = ("content-type".to_owned(), "application/json".to_owned());
        Self {
            status,
            headers: vec![kind],
            length: Some(body.len()),
            pieces: vec![body],
            end: End::Short,
            reset: false,
            id: None,
        }
    }
}

/// A body.
pub(super) struct Pieces {
    rest: VecDeque<Bytes>,
    end: End,
    gap: Duration,
    begun: bool,
    pause: Option<Pin<Box<Sleep>>>,
    /// Number of times that the server gets to send what it has before the connection breaks.
    turns: u8,
    /// `true` where the head states a length.
    exact: bool,
    progress: Progress,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if !self.rest.is_empty() {
            if self.begun && self.gap > Duration::ZERO {
                let gap = self.gap;
                let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(gap)));
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            self.begun = true;
            let piece = self.rest.pop_front().unwrap_or_default();
            self.progress.sent(piece.len());
            if self.exact && self.rest.is_empty() && matches!(self.end, End::Whole | End::Short) {
                // The server does not ask for more than the length.
                self.finished();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match self.end {
            End::Whole | End::Short => {
                self.finished();
                Poll::Ready(None)
            }
            End::Hang => Poll::Pending,
            End::Broken if self.turns > 0 => {
                self.turns -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            End::Broken => {
                self.finished();
                Poll::Ready(Some(Err(std::io::Error::other("the script cuts the answer"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Pieces {
    fn finished(&mut self) {
        let whole = self.end == End::Whole;
        self.progress.finished(if whole { Outcome::Whole } else { Outcome::Faulted });
    }
}

/// A connection that writes byte by byte, or is reset, where the answer wants it.
struct Connection {
    stream: TokioIo<TcpStream>,
    mode: Arc<Mode>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.mode.reset.load(Ordering::Relaxed) {
            // Where it cannot be set the connection is closed, and the test that wants it tells.
            let _ = self.stream.inner().set_zero_linger();
        }
    }
}

impl Read for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let bytewise = self.mode.bytewise.load(Ordering::Relaxed);
        let most = if bytewise { buffer.len().min(1) } else { buffer.len() };
        Pin::new(&mut self.stream).poll_write(context, &buffer[..most])
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

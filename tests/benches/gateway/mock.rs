//! The provider of the figures: answers that are ready beforehand, each with an id of its own.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::{
    Method, Request, Response,
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::TcpListener,
    time::{Sleep, sleep},
};

use crate::process::announce;

/// Model whose streams take their time.
pub(crate) const SLOW: &str = "slow";

/// Gap between the chunks of such a stream.
const GAP: Duration = Duration::from_millis(2);

/// Chunks of text in a stream.
const CHUNKS: usize = 20;

/// Answers until the process ends.
pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs two descriptors").block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        announce(listener.local_addr().expect("it is bound"));
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            stream.set_nodelay(true).expect("it is a socket");
            let server = http1::Builder::new();
            tokio::spawn(async move {
                server.serve_connection(TokioIo::new(stream), service_fn(answer)).await
            });
        }
    });
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<Either<Full<Bytes>, Chunks>>, Infallible> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if request.method() == Method::GET {
        let models = Bytes::from_static(MODELS.as_bytes());
        let response = Response::builder().header("content-type", "application/json");
        return Ok(response.body(Either::Left(Full::new(models))).expect("the header is valid"));
    }
    let body = request.into_body().collect().await.map(|it| it.to_bytes()).unwrap_or_default();
    let holds = |part: &[u8]| memchr::memmem::find(&body, part).is_some();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let id = format!("{:x}-{number}", std::process::id());
    let response = Response::builder().header("x-request-id", format!("req_{id}"));
    let response = if holds(b"\"stream\":true") {
        let gap = if holds(b"\"model\":\"slow\"") { GAP } else { Duration::ZERO };
        response.header("content-type", "text/event-stream").body(Either::Right(Chunks {
            rest: stream(&id),
            gap,
            pause: None,
            sent: false,
        }))
    } else {
        response
            .header("content-type", "application/json")
            .body(Either::Left(Full::new(whole(&id).into())))
    };
    Ok(response.expect("the headers are valid"))
}

const MODELS: &str = "{\"object\":\"list\",\"data\":[{\"id\":\"m\"},{\"id\":\"slow\"}]}";
const USAGE: &str = "{\"prompt_tokens\":1200,\"completion_tokens\":34,\"total_tokens\":1234}";

/// Returns an answer of 1.4 KB.
fn whole(id: &str) -> String {
    const TEXT: &str = "forty-two is what it comes to, ";
    format!(
        "{{\"id\":\"chatcmpl-{id}\",\"object\":\"chat.completion\",\"created\":1790000000,\
         \"model\":\"m\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\
         \"content\":\"{}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{USAGE}}}",
        TEXT.repeat(38)
    )
}

fn stream(id: &str) -> VecDeque<Bytes> {
    let chunk = |choices: serde_json::Value| {
        json!({
            "id": format!("chatcmpl-{id}"), "object": "chat.completion.chunk",
            "created": 1_790_000_000, "model": "m", "choices": choices,
        })
    };
    let event = |data: String| Bytes::from(format!("data: {data}\n\n"));
    let mut events: VecDeque<Bytes> = (0..CHUNKS)
        .map(|_| {
            let delta = json!({"content": "forty-two "});
            let finish = serde_json::Value::Null;
            event(chunk(json!([{"index": 0, "delta": delta, "finish_reason": finish}])).to_string())
        })
        .collect();
    let end = json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]);
    events.push_back(event(chunk(end).to_string()));
    let mut last = chunk(json!([])).to_string();
    last.truncate(last.len() - 1);
    events.push_back(event(format!("{last},\"usage\":{USAGE}}}")));
    events.push_back(event("[DONE]".to_owned()));
    events
}

/// Events, each written on its own.
struct Chunks {
    rest: VecDeque<Bytes>,
    gap: Duration,
    pause: Option<Pin<Box<Sleep>>>,
    /// `true` where the last event has just been handed over.
    sent: bool,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent && !self.rest.is_empty() {
            if self.gap > Duration::ZERO {
                let gap = self.gap;
                ready!(
                    self.pause.get_or_insert_with(|| Box::pin(sleep(gap))).as_mut().poll(context)
                );
                self.pause = None;
            } else {
                // The server writes what it has, and asks again.
                self.sent = false;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        self.sent = true;
        Poll::Ready(self.rest.pop_front().map(|event| Ok(Frame::data(event))))
    }
}

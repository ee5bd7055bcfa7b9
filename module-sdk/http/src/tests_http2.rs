//! Tests of a server and its clients over HTTP/2 in memory, with their own clock.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, Version},
    routing::get,
};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    runtime::Handle,
    sync::{Mutex, Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    End, Figures, Limits, Server,
    tests::{Arrival, Door},
};

const SECOND: Duration = Duration::from_secs(1);

struct Site {
    arrivals: mpsc::UnboundedSender<Arrival>,
    figures: Arc<Figures>,
    server: Server,
    /// Requests of `/hang` that are at work, and permits for them to go on.
    begun: mpsc::UnboundedReceiver<()>,
    go_on: Arc<Semaphore>,
}

struct Client {
    requests: SendRequest<Body>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Site {
    fn start(requests_at_once: u32) -> Self {
        let (arrivals, received) = mpsc::unbounded_channel();
        let (begins, begun) = mpsc::unbounded_channel();
        let go_on = Arc::new(Semaphore::new(0));
        let waits = go_on.clone();
        let hang = async move || {
            begins.send(()).expect("the test listens");
            waits.acquire().await.expect("it is never closed").forget();
            "went on"
        };
        let router = Router::new()
            .route("/", get(async || "ok"))
            .route("/large", get(async || vec![b'x'; 256 * 1024]))
            .route("/hang", get(hang));
        let door = Door(Mutex::new(received));
        let (handle, limits) = (Handle::current(), Limits::default());
        let server = Server::start_with_http2(&handle, door, router, limits, requests_at_once);
        Self { arrivals, figures: server.figures(), server, begun, go_on }
    }

    fn stream(&self) -> DuplexStream {
        let (near, far) = duplex(64 * 1024);
        self.arrivals.send(Ok((far, 3))).expect("the server runs");
        near
    }

    async fn connect(&self, builder: &Builder<TokioExecutor>) -> Client {
        let handshake = builder.handshake(TokioIo::new(self.stream()));
        let (requests, connection) = handshake.await.expect("it speaks HTTP/2");
        Client { requests, connection: tokio::spawn(connection) }
    }

    async fn client(&self) -> Client {
        self.connect(&Builder::new(TokioExecutor::new())).await
    }

    fn ended(&self, end: End) -> u64 {
        self.figures.snapshot().ended[end as usize]
    }
}

impl Client {
    /// Sends a request; the returned task ends with its answer.
    fn ask(&mut self, path: &str) -> JoinHandle<hyper::Result<hyper::Response<Incoming>>> {
        let request = Request::get(format!("http://localhost{path}")).body(Body::empty());
        tokio::spawn(self.requests.send_request(request.expect("it is valid")))
    }

    async fn get(&mut self, path: &str) -> String {
        text(self.ask(path)).await
    }

    /// Returns the time until the server has ended the connection.
    async fn until_closed(self) -> Duration {
        let begin = Instant::now();
        // As if a client kept it for the next request.
        let kept = self.requests;
        drop(timeout(600 * SECOND, self.connection).await.expect("it ends some time"));
        drop(kept);
        begin.elapsed()
    }
}

async fn text(answer: JoinHandle<hyper::Result<hyper::Response<Incoming>>>) -> String {
    let answer = answer.await.expect("no panic").expect("an answer");
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    let body = answer.into_body().collect().await.expect("the whole body");
    String::from_utf8(body.to_bytes().to_vec()).expect("text")
}

#[tokio::test(start_paused = true)]
async fn both_versions_are_served() {
    let site = Site::start(32);
    assert_eq!(site.client().await.get("/").await, "ok");
    let mut old = site.stream();
    old.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .expect("it is open");
    let mut answer = String::new();
    old.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn so_many_requests_at_once_and_no_more() {
    let mut site = Site::start(2);
    let mut client = site.client().await;
    // Until now the client knows no limit.
    client.get("/").await;
    let answers = [(); 3].map(|()| client.ask("/hang"));
    for _ in 0..2 {
        site.begun.recv().await.expect("it begins");
    }
    assert!(timeout(SECOND, site.begun.recv()).await.is_err(), "the third waits");
    site.go_on.add_permits(1);
    site.begun.recv().await.expect("the third begins");
    site.go_on.add_permits(2);
    for answer in answers {
        assert_eq!(text(answer).await, "went on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_may_connect_long_before_it_asks() {
    let site = Site::start(32);
    let mut client = site.client().await;
    for pause in [60, 70, 75] {
        sleep(pause * SECOND).await;
        assert_eq!(client.get("/").await, "ok");
    }
    let closed = client.until_closed().await.as_secs();
    assert_eq!(closed, 77);
    sleep(SECOND).await;
    assert_eq!((site.figures.snapshot().open, site.ended(End::Idle)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn while_it_drains_what_is_under_way_is_answered_and_ends_the_connection() {
    let mut site = Site::start(32);
    let mut client = site.client().await;
    let hanging = client.ask("/hang");
    site.begun.recv().await.expect("it begins");
    site.server.drain();
    assert_eq!(client.get("/").await, "ok", "this answer ends the connection");
    site.go_on.add_permits(1);
    assert_eq!(text(hanging).await, "went on");
    assert!(client.until_closed().await < SECOND);
    assert_eq!(site.client().await.get("/").await, "ok", "new clients are taken");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_no_window_is_let_go() {
    let site = Site::start(32);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let mut deaf = site.connect(&builder).await;
    let answer = deaf.ask("/large").await.expect("no panic").expect("the head of an answer");
    let closed = deaf.until_closed().await.as_secs();
    assert_eq!(closed, 30);
    drop(answer);
    sleep(SECOND).await;
    assert_eq!((site.figures.snapshot().open, site.ended(End::Unread)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_resets_ends_its_connection() {
    let site = Site::start(32);
    let mut flood = site.stream();
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
    };
    // `:method: GET`, `:scheme: http`, `:path: /`, and the authority `a`.
    let headers = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    let mut bytes = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
    for stream in (1..20_000).step_by(2) {
        bytes.extend(frame(1, 5, stream, &headers));
        bytes.extend(frame(3, 0, stream, &8u32.to_be_bytes()));
    }
    let (mut read, mut write) = tokio::io::split(&mut flood);
    let mut answer = Vec::new();
    let sending = async move { drop(write.write_all(&bytes).await) };
    let reading = async { drop(read.read_to_end(&mut answer).await) };
    let both = async { tokio::join!(sending, reading) };
    timeout(60 * SECOND, both).await.expect("it does not go on for ever");
    let mut reason = None;
    let mut rest = answer.as_slice();
    while let [high, middle, low, kind, _, _, _, _, _, after @ ..] = rest {
        let length = u32::from_be_bytes([0, *high, *middle, *low]);
        let length = usize::try_from(length).expect("it is short").min(after.len());
        if *kind == 7 {
            reason = after.get(7).copied();
        }
        rest = &after[length..];
    }
    assert_eq!(reason, Some(11), "ENHANCE_YOUR_CALM");
    assert_eq!(site.client().await.get("/").await, "ok");
}

//! Clients that take their time, on a clock that goes on when nobody has anything to do.

use std::net::SocketAddr;

use axum::routing::{get, post};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::TcpStream,
    sync::{Semaphore, oneshot},
};

use super::*;

const ASKS: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

fn app() -> Router {
    let long = "x".repeat(1 << 16);
    Router::new()
        .route("/", get(|| async { "here" }))
        .route("/long", get(move || async move { long }))
        .route("/read", post(|body: String| async move { body.len().to_string() }))
}

/// Sends some bytes on a connection of its own, and returns all that comes back.
async fn told(limits: Limits, sent: &str) -> String {
    let (mut client, server) = duplex(1 << 20);
    let shared = Arc::new(Shared { app: app(), limits, unheard: Mutex::default() });
    let task = tokio::spawn(carry(server, shared, 1));
    client.write_all(sent.as_bytes()).await.expect("it is sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("it ends");
    drop(client);
    task.await.expect("it ends");
    answer
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_and_ends_its_connection() {
    let answer = told(Limits::default(), ASKS).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    let sent = "POST /read HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\nabc";
    assert!(told(Limits::default(), sent).await.ends_with("3"));
}

#[tokio::test(start_paused = true)]
async fn heads_and_bodies_have_their_time_and_their_size() {
    let limits = Limits { head_bytes: 8 << 10, body_bytes: 8, ..Limits::default() };
    let begins = "POST /read HTTP/1.1\r\nhost: localhost\r\n";
    for (sent, status) in [
        // No head, or half of one.
        (String::new(), ""),
        ("GET / HTTP/1.1\r\nhost: loc".to_owned(), ""),
        (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(9 << 10)), "431"),
        (format!("{begins}content-length: 8\r\n\r\nabc"), "408"),
        (format!("{begins}content-length: 9\r\n\r\n"), "413"),
        (format!("{begins}transfer-encoding: chunked\r\n\r\n9\r\n012345678\r\n"), "413"),
        (format!("{begins}host: localhost\r\n\r\n"), "403"),
        ("GET http://a.example/ HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), "403"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\norigin: null\r\n\r\n".to_owned(), "403"),
    ] {
        let answer = told(limits, &sent).await;
        assert_eq!(answer.split(' ').nth(1).unwrap_or_default(), status, "{sent:?}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_an_answer_is_ended() {
    // The answer does not fit into what is on its way.
    let (mut client, server): (DuplexStream, DuplexStream) = duplex(1 << 10);
    let limits = Limits::default();
    let shared = Arc::new(Shared { app: app(), limits, unheard: Mutex::default() });
    let task = tokio::spawn(carry(server, shared, 1));
    let sent = "GET /long HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.write_all(sent.as_bytes()).await.expect("it is sent");
    // It ends although nobody reads.
    task.await.expect("it ends");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("it ends");
    assert!(answer.len() < 1 << 16, "{} bytes", answer.len());
}

/// A server on a socket, for two connections at once.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn start(app: Router) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let (stop, stopped) = oneshot::channel();
    // Only newcomers and the end may end anybody here.
    let long = Duration::from_secs(3_600);
    let limits =
        Limits { connections: 2, head: long, body: long, unread: long, ..Limits::default() };
    let task = tokio::spawn(serve(listener, app, limits, async {
        drop(stopped.await);
    }));
    Running { address, stop, task }
}

async fn connect(address: SocketAddr, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(sent.as_bytes()).await.expect("it is sent");
    stream
}

async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _: Result<usize, _> = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn who_says_nothing_gives_way_and_who_waits_for_an_answer_does_not() {
    let (may_answer, entered) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (gate, told) = (may_answer.clone(), entered.clone());
    let slow = get(move || async move {
        told.add_permits(1);
        gate.acquire().await.expect("it is open").forget();
        "slow"
    });
    let running = start(app().route("/slow", slow)).await;
    let asks = ASKS.replace("GET /", "GET /slow");
    let waits = connect(running.address, &asks).await;
    entered.acquire().await.expect("it is open").forget();
    // One place is left: each newcomer takes it from who has said nothing, or half of something.
    let silent = connect(running.address, "").await;
    let half = connect(running.address, "GET / HTTP/1.1\r\nhost: ").await;
    assert_eq!(rest(silent).await, "");
    let answer = rest(connect(running.address, ASKS).await).await;
    assert!(answer.ends_with("here"), "{answer}");
    assert_eq!(rest(half).await, "");
    may_answer.add_permits(1);
    assert!(rest(waits).await.ends_with("slow"));
    // At the end nobody waits for who says nothing, and whoever asked is answered.
    let waits = connect(running.address, &asks).await;
    entered.acquire().await.expect("it is open").forget();
    let silent = connect(running.address, "").await;
    running.stop.send(()).expect("it runs");
    assert_eq!(rest(silent).await, "");
    may_answer.add_permits(1);
    assert!(rest(waits).await.ends_with("slow"));
    running.task.await.expect("it ends");
}

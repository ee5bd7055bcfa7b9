//! Tests of a server and its clients in memory, with their own clock.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Bytes,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    runtime::Handle,
    sync::{Mutex, Notify, mpsc},
    time::{Instant, sleep, timeout},
};

use crate::{Accepted, Descriptors, End, Figures, Limits, Listener, Server};

const SECOND: Duration = Duration::from_secs(1);

/// Time longer than any wait of a client here.
const LONG: Duration = Duration::from_secs(600);

/// Capacity of a connection for data that its reader has not read, in bytes.
const BUFFER: usize = 1024;

pub(crate) type Arrival = io::Result<(DuplexStream, i32)>;

/// A listening socket in memory.
pub(crate) struct Door(pub(crate) Mutex<mpsc::UnboundedReceiver<Arrival>>);

impl Listener for Door {
    type Stream = DuplexStream;
    type Ends = i32;

    async fn accept(&self) -> io::Result<Accepted<DuplexStream, i32>> {
        match self.0.lock().await.recv().await {
            Some(arrival) => {
                arrival.map(|(stream, descriptor)| Accepted { stream, ends: 7, descriptor })
            }
            None => std::future::pending().await,
        }
    }
}

struct Site {
    arrivals: mpsc::UnboundedSender<Arrival>,
    figures: Arc<Figures>,
    server: Server,
    /// Signal that lets one request of `/hang` go on.
    go_on: Arc<Notify>,
}

struct Client(DuplexStream);

impl Site {
    fn start(limits: Limits) -> Self {
        let (arrivals, received) = mpsc::unbounded_channel();
        let go_on = Arc::new(Notify::new());
        let hang = go_on.clone();
        let router = Router::new()
            .route("/", get(async || "ok"))
            .route("/ends", get(async |Extension(ends): Extension<i32>| ends.to_string()))
            .route("/large", get(async || vec![b'x'; 64 * BUFFER]))
            .route("/body", post(async |body: Bytes| body.len().to_string()))
            .route("/hang", get(async move || hang.notified().await));
        let door = Door(Mutex::new(received));
        let server = Server::start(&Handle::current(), door, router, limits);
        Self { arrivals, figures: server.figures(), server, go_on }
    }

    fn small(connections: usize) -> Self {
        Self::start(Limits { connections, ..Limits::default() })
    }

    fn connect(&self) -> Client {
        self.connect_as(3)
    }

    fn connect_as(&self, descriptor: i32) -> Client {
        let (near, far) = duplex(BUFFER);
        self.arrivals.send(Ok((far, descriptor))).expect("the server runs");
        Client(near)
    }

    /// Connects and sends one request.
    async fn kept_alive(&self) -> Client {
        let mut client = self.connect();
        let answer = client.get("/").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        client
    }

    fn ended(&self, end: End) -> u64 {
        self.figures.snapshot().ended[end as usize]
    }
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("it is open");
    }

    async fn get(&mut self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        self.answer().await
    }

    /// Reads one response; empty if the connection ended before it was complete.
    async fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") {
            if self.0.read(&mut byte).await.unwrap_or(0) == 0 {
                return String::new();
            }
            answer.push(byte[0]);
        }
        let mut answer = String::from_utf8(answer).expect("text");
        let length = answer.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().expect("a number"));
        let mut body = vec![0; length];
        match self.0.read_exact(&mut body).await {
            Ok(_) => answer.push_str(&String::from_utf8_lossy(&body)),
            Err(_) => answer.clear(),
        }
        answer
    }

    /// Returns the time until the server closes.
    async fn until_closed(&mut self) -> Duration {
        let begin = Instant::now();
        let mut rest = Vec::new();
        let read = timeout(LONG, self.0.read_to_end(&mut rest)).await;
        // A connection that is dropped in the midst ends as well.
        drop(read.expect("it is closed some time"));
        begin.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_now_and_then_keeps_its_connection() {
    let site = Site::start(Limits::default());
    let mut client = site.connect();
    for pause in [0, 10, 11, 30, 74, 75] {
        sleep(pause * SECOND).await;
        let answer = client.get("/").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
        assert!(answer.contains("keep-alive: timeout=75\r\n"), "{answer}");
    }
    assert!(client.get("/ends").await.ends_with("\r\n\r\n7"), "handlers know the connection");
    let closed = client.until_closed().await;
    assert_eq!(closed.as_secs(), 77, "a little later than told");
    drop(client);
    sleep(SECOND).await;
    let snapshot = site.figures.snapshot();
    assert_eq!((snapshot.accepted, snapshot.open, site.ended(End::Idle)), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_to_stay_is_not_said_to() {
    let site = Site::start(Limits::default());
    let mut client = site.connect();
    client.send("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    let answer = client.answer().await;
    assert!(answer.contains("connection: close") && !answer.contains("keep-alive"), "{answer}");
    assert_eq!(client.until_closed().await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_from_its_first_byte() {
    let site = Site::start(Limits::default());
    let mut silent = site.connect();
    assert_eq!(silent.until_closed().await, 10 * SECOND);
    let mut slow = site.kept_alive().await;
    sleep(40 * SECOND).await;
    let begin = Instant::now();
    for byte in "GET / HTTP/1.1\r\nhost: loc".chars() {
        if slow.0.write_all(byte.to_string().as_bytes()).await.is_err() {
            break;
        }
        sleep(SECOND).await;
    }
    slow.until_closed().await;
    // Each byte takes a second, and none gives more time.
    assert!((10..=11).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    sleep(SECOND).await;
    assert_eq!(site.ended(End::SlowHead), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_let_go() {
    let site = Site::start(Limits::default());
    let mut deaf = site.connect();
    let mut slow = site.connect();
    for client in [&mut deaf, &mut slow] {
        client.send("GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    }
    let mut piece = [0; BUFFER];
    let mut all = 0;
    while all < 64 * BUFFER {
        sleep(25 * SECOND).await;
        let read = slow.0.read(&mut piece).await.expect("it is still written to");
        assert!(read > 0, "closed after {all} bytes");
        all += read;
    }
    assert_eq!(site.ended(End::Unread), 1, "the other one");
    let closed = deaf.until_closed().await;
    assert_eq!(closed, Duration::ZERO, "long ago");
    assert!(slow.get("/").await.contains("200"));
}

#[tokio::test(start_paused = true)]
async fn answers_to_many_requests_that_nobody_reads_end_their_connection() {
    let site = Site::start(Limits::default());
    let mut deaf = site.connect();
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1000);
    let sending = timeout(LONG, deaf.0.write_all(request.as_bytes())).await;
    assert!(sending.expect("it ends").is_err(), "nobody reads the last of them");
    sleep(SECOND).await;
    assert_eq!((site.ended(End::Unread), site.figures.snapshot().open), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_longest_idle_gives_way_to_a_new_client() {
    let site = Site::small(4);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(site.kept_alive().await);
        sleep(SECOND).await;
    }
    // The first is not the one that has been idle for longest.
    assert!(clients[0].get("/").await.contains("200"));
    let begin = Instant::now();
    let mut new = site.kept_alive().await;
    assert!(begin.elapsed() < SECOND, "{:?}", begin.elapsed());
    assert!(clients[1].until_closed().await < SECOND);
    for index in [0, 2, 3] {
        timeout(SECOND, clients[index].0.read_u8()).await.expect_err("it stays open");
    }
    assert!(new.get("/").await.contains("200"));
    assert_eq!((site.ended(End::Displaced), site.figures.snapshot().refused), (1, 0));
    assert_eq!(site.figures.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_idle_clients_keeps_nobody_out() {
    let site = Site::small(16);
    let mut flood = Vec::new();
    for round in 0..100 {
        for _ in 0..10 {
            flood.push(site.kept_alive().await);
        }
        let begin = Instant::now();
        site.kept_alive().await;
        assert!(begin.elapsed() < SECOND, "round {round}: {:?}", begin.elapsed());
    }
    sleep(SECOND).await;
    // Seven eighths, of which the last one has left by itself.
    assert_eq!(site.figures.snapshot().open, 13, "there is room for new ones, and no more");
    assert_eq!(site.figures.snapshot().refused, 0);
}

/// Fills all connections with clients that send `request` and nothing more, and checks that a
/// further one is served.
async fn gets_through(request: &str) {
    let site = Site::small(4);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = site.connect();
        client.send(request).await;
        clients.push(client);
    }
    let begin = Instant::now();
    site.kept_alive().await;
    assert!(begin.elapsed() < 2 * SECOND, "{request}: {:?}", begin.elapsed());
    assert_eq!(site.ended(End::Displaced), 1, "{request}");
}

#[tokio::test(start_paused = true)]
async fn clients_that_hesitate_keep_nobody_out() {
    gets_through("").await;
    gets_through("GET / HT").await;
    gets_through("GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    gets_through("POST /body HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n123").await;
}

#[tokio::test(start_paused = true)]
async fn where_all_are_at_work_a_client_is_refused_and_told_so() {
    let site = Site::small(2);
    let mut busy = [site.connect(), site.connect()];
    for client in &mut busy {
        client.send("GET /hang HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    }
    let begin = Instant::now();
    for refused in 1..=3 {
        let answer = site.connect().get("/").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("retry-after: 1") && answer.ends_with("}\n"), "{answer}");
        assert_eq!(site.figures.snapshot().refused, refused);
    }
    assert!(begin.elapsed() < 3 * SECOND, "one waits, those behind it do not");
    let told = site.figures.trouble().expect("clients were refused");
    assert!(told.contains("all connections were in use: 3 clients"), "{told}");
    site.go_on.notify_waiters();
    assert!(busy[0].answer().await.contains("200"));
    site.kept_alive().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_soon_makes_room() {
    let site = Site::small(1);
    let mut busy = site.connect();
    busy.send("GET /hang HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut waiting = site.connect();
    let asking = async {
        waiting.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        waiting.answer().await
    };
    let ending = async {
        sleep(SECOND / 2).await;
        site.go_on.notify_waiters();
        busy.answer().await
    };
    let (answer, other) = tokio::join!(asking, ending);
    assert!(answer.contains("200") && other.contains("200"), "{answer} {other}");
    assert_eq!(site.figures.snapshot().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn where_it_is_crowded_the_longest_idle_leaves() {
    let site = Site::small(8);
    let mut clients = Vec::new();
    for _ in 0..7 {
        clients.push(site.kept_alive().await);
        sleep(SECOND).await;
    }
    let mut eighth = site.connect();
    let answer = eighth.get("/").await;
    assert!(answer.contains("keep-alive: timeout=75"), "{answer}");
    assert!(clients[0].until_closed().await < SECOND, "there was to be room for another one");
    sleep(SECOND).await;
    assert!(clients[1].get("/").await.contains("keep-alive: timeout=75"));
}

#[tokio::test(start_paused = true)]
async fn where_it_is_crowded_and_none_is_idle_answers_end_their_connection() {
    let site = Site::small(8);
    let mut busy = Vec::new();
    for _ in 0..7 {
        let mut client = site.connect();
        client.send("GET /hang HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        busy.push(client);
    }
    let mut eighth = site.connect();
    let answer = eighth.get("/").await;
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(eighth.until_closed().await, Duration::ZERO);
    site.go_on.notify_waiters();
    assert!(busy[0].answer().await.contains("keep-alive: timeout=75"), "it is crowded no more");
}

/// Number beyond the descriptors of any process.
const BEYOND: i32 = i32::MAX;

#[tokio::test(start_paused = true)]
async fn where_descriptors_are_scarce_a_listener_does_not_grow() {
    for descriptors in [Descriptors::Most, Descriptors::More, Descriptors::Nearly] {
        let site = Site::start(Limits { descriptors, ..Limits::default() });
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(site.kept_alive().await);
            sleep(SECOND).await;
        }
        for index in 0..4 {
            // The number of the one that made room is free for the next: so only the first has a
            // high one.
            let descriptor = if index == 0 { BEYOND } else { 3 };
            let mut client = site.connect_as(descriptor);
            assert!(client.get("/").await.contains("200"), "an idle one makes room");
            assert!(held[index].until_closed().await < SECOND);
            assert_eq!(site.figures.snapshot().open, 5, "{descriptors:?}");
            held.push(client);
        }
        assert_eq!(site.figures.snapshot().refused, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn however_scarce_descriptors_are_a_few_clients_are_served() {
    let site = Site::start(Limits::default());
    let mut busy = Vec::new();
    for _ in 0..4 {
        let mut client = site.connect_as(BEYOND);
        client.send("GET /hang HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        busy.push(client);
    }
    let answer = site.connect_as(BEYOND).get("/").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let told = site.figures.trouble().expect("a client was refused");
    assert!(told.contains("descriptors left: 1 clients were refused"), "{told}");
    site.go_on.notify_waiters();
    for client in &mut busy {
        assert!(client.answer().await.contains("200"));
    }
    assert!(site.connect_as(BEYOND).get("/").await.contains("200"));
}

#[tokio::test(start_paused = true)]
async fn errors_of_accept_are_counted_and_do_not_spin() {
    let site = Site::start(Limits::default());
    let mut idle = site.kept_alive().await;
    let begin = Instant::now();
    for error in [24, 23, 103, 24] {
        let error = io::Error::from_raw_os_error(error);
        site.arrivals.send(Err(error)).expect("the server runs");
    }
    let _client = site.kept_alive().await;
    assert!(begin.elapsed() >= 3 * (SECOND / 10), "{:?}", begin.elapsed());
    assert_eq!(site.figures.snapshot().accept_errors, 3, "103 is of one connection");
    let told = site.figures.trouble().expect("it failed");
    assert!(told.contains("no connection 3 times") && told.contains("Too many"), "{told}");
    assert!(idle.until_closed().await < SECOND, "it gave its descriptor back");
}

#[tokio::test(start_paused = true)]
async fn while_it_drains_each_answer_ends_its_connection_and_new_ones_are_taken() {
    let site = Site::small(8);
    let mut before = site.kept_alive().await;
    assert!(!site.server.is_draining());
    site.server.drain();
    assert!(site.server.is_draining());
    for client in [&mut before, &mut site.connect()] {
        let answer = client.get("/").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
        assert!(client.until_closed().await < SECOND);
    }
}

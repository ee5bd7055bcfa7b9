//! Requests: one after the other, or as many as a number of connections carries.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::reply::Reply;

/// Longest time for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the body of a request for a chat whose text has about this many bytes.
pub(crate) fn message(model: &str, bytes: usize, stream: bool) -> String {
    let text: String = "what is the answer? ".chars().cycle().take(bytes).collect();
    let mut body = json!({
        "model": model, "messages": [{"role": "user", "content": text}], "temperature": 1,
    });
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    }
    body.to_string()
}

/// Returns a request as it is written to a connection.
fn written(address: SocketAddr, body: &str) -> Vec<u8> {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer sk-bench\
         \r\nContent-Type: application/json\r\nUser-Agent: bench\r\nContent-Length: {}\r\n\r\n\
         {body}",
        body.len()
    )
    .into_bytes()
}

/// Times of one answer, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) first_ms: f64,
    pub(crate) all_ms: f64,
    pub(crate) widest_gap_ms: f64,
}

/// A client with one connection, which it keeps.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    stream: TcpStream,
    reply: Reply,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it accepts");
        stream.set_nodelay(true).expect("it is a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        Self { address, stream, reply: Reply::default() }
    }

    /// Asks and reads the whole answer.
    pub(crate) fn ask(&mut self, body: &str) -> Timing {
        let request = written(self.address, body);
        let mut bytes = [0; 65_536];
        self.reply.clear();
        let begin = Instant::now();
        self.stream.write_all(&request).expect("it reads");
        let (mut first, mut last, mut widest) = (None, begin, Duration::ZERO);
        loop {
            let count = self.stream.read(&mut bytes).expect("it answers");
            let now = Instant::now();
            assert!(count > 0, "cut: {}", self.reply.text());
            let whole = self.reply.take(&bytes[..count]);
            if self.reply.has_body() {
                first.get_or_insert(now);
            }
            widest = widest.max(now - last);
            last = now;
            if whole {
                break;
            }
        }
        assert_eq!(self.reply.status(), 200, "{}", self.reply.text());
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Timing {
            first_ms: ms(first.unwrap_or(last) - begin),
            all_ms: ms(last - begin),
            widest_gap_ms: ms(widest),
        }
    }
}

/// Keeps connections busy for a time; returns the number of answers and the seconds it took.
pub(crate) fn busy(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    body: &str,
) -> (u64, f64) {
    let request = written(address, body);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs two descriptors").block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        let begin = Instant::now();
        for _ in 0..connections {
            tasks.spawn(one_after_the_other(address, request.clone(), begin + time));
        }
        let count = tasks.join_all().await.into_iter().sum();
        (count, begin.elapsed().as_secs_f64())
    })
}

async fn one_after_the_other(address: SocketAddr, request: Vec<u8>, end: Instant) -> u64 {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it accepts");
    stream.set_nodelay(true).expect("it is a socket");
    let mut bytes = vec![0; 16_384];
    let mut reply = Reply::default();
    let mut count = 0;
    while Instant::now() < end {
        stream.write_all(&request).await.expect("it reads");
        reply.clear();
        loop {
            let read = stream.read(&mut bytes).await.expect("it answers");
            assert!(read > 0, "cut: {}", reply.text());
            if reply.take(&bytes[..read]) {
                break;
            }
        }
        assert_eq!(reply.status(), 200, "{}", reply.text());
        count += 1;
    }
    count
}

/// Asks once on a connection of its own; `Err` with what came where the connection broke.
pub(crate) async fn ask_once(address: SocketAddr, body: &str) -> Result<Reply, Reply> {
    let mut reply = Reply::default();
    let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return Err(reply) };
    if stream.write_all(&written(address, body)).await.is_err() {
        return Err(reply);
    }
    let mut bytes = vec![0; 16_384];
    loop {
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => return Err(reply),
            Ok(count) if reply.take(&bytes[..count]) => return Ok(reply),
            Ok(_) => {}
        }
    }
}

/// Returns the part of sorted times below which so many lie.
pub(crate) fn percentile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * part).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// Returns the median of sorted times.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    percentile(sorted, 0.5)
}

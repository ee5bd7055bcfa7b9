//! A client that sends exactly the bytes that a test specifies.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use ingest::Ingest;
use module_sdk::{
    events::{LlmRequestCompleted, LynexEvent},
    testing::Bench,
};
use serde_json::{Value, json};

/// A module in the test harness, with a client.
pub(crate) struct Site {
    pub(crate) bench: Bench<Ingest>,
    pub(crate) address: SocketAddr,
}

/// An answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn has_header(&self, name: &str) -> bool {
        self.header(name).is_some()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Site {
    pub(crate) fn start(config: Value) -> Self {
        let bench = Bench::start(config).expect("the module starts");
        let address = bench.host().listener_address("http").expect("it listens");
        Self { bench, address }
    }

    pub(crate) fn plain() -> Self {
        Self::start(json!({}))
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        request(&mut self.connect(), "POST", path, headers, body)
    }

    pub(crate) fn post_json(&self, path: &str, body: &Value) -> Answer {
        let body = serde_json::to_vec(body).expect("it serialises");
        self.post(path, &[("content-type", "application/json")], &body)
    }

    pub(crate) fn post_protobuf(&self, path: &str, message: &impl prost::Message) -> Answer {
        let headers = [("content-type", "application/x-protobuf")];
        self.post(path, &headers, &message.encode_to_vec())
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        request(&mut self.connect(), "GET", path, &[], &[])
    }

    pub(crate) fn requests(&self) -> Vec<LlmRequestCompleted> {
        self.bench.host().emitted_as().expect("the events of requests")
    }

    pub(crate) fn lynex_events(&self) -> Vec<LynexEvent> {
        self.bench.host().emitted_as().expect("the Lynex events")
    }

    /// Returns the number of requests that a subscriber that counts by key sees.
    pub(crate) fn distinct_requests(&self) -> usize {
        let requests = self.requests();
        let keys: std::collections::BTreeSet<_> = requests.iter().map(|r| &r.dedupe_key).collect();
        keys.len()
    }

    /// Returns everything that left the module, as one text.
    pub(crate) fn everything_told(&mut self) -> String {
        let sources = self.bench.command("sources", json!({})).expect("it answers");
        let health = self.bench.health();
        let host = self.bench.host();
        let (emitted, logged, metrics) = (host.emitted(), host.logged(), host.metrics());
        format!("{emitted:?}\n{logged:?}\n{metrics:?}\n{sources:?}\n{health:?}")
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it accepts");
    // A guard against a hanging test, not a measure.
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("it can be set");
    stream
}

/// Sends a request with a Host and a Content-Length, unless `headers` set them.
pub(crate) fn request(
    stream: &mut TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    let given = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    if !given("host") {
        head.push_str(&format!("host: {}\r\n", stream.peer_addr().expect("connected")));
    }
    if !given("transfer-encoding") && !given("content-length") {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).expect("it reads the head");
    // A server that refuses does not read the rest, and may close in the midst of it.
    let _ = stream.write_all(body);
    answer(stream)
}

/// Reads an answer with a Content-Length.
pub(crate) fn answer(stream: &mut TcpStream) -> Answer {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("it answers");
    let status = line.split(' ').nth(1).expect("a status line").parse().expect("a status");
    let mut headers = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("it answers");
        if line.trim().is_empty() {
            break;
        }
        headers.push_str(&line.replace('\r', ""));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    let length =
        answer.header("content-length").map_or(0, |length| length.parse().expect("a number"));
    answer.body = vec![0; length];
    reader.read_exact(&mut answer.body).expect("the whole body");
    answer
}

/// Returns a body in two chunks.
pub(crate) fn chunked(body: &[u8]) -> Vec<u8> {
    let (first, second) = body.split_at(body.len() / 2);
    let mut bytes = Vec::new();
    for chunk in [first, second, &[]] {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).expect("into memory");
    encoder.finish().expect("into memory")
}

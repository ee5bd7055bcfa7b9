//! A router on the bench, and a client of it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use module_sdk::{
    events::LlmRequestCompleted,
    testing::{Bench, FakeHost},
};
use router::Router;
use serde_json::{Value, json};

pub(crate) struct Gateway {
    pub bench: Bench<Router>,
    pub address: SocketAddr,
    _directory: Option<tempfile::TempDir>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

impl Gateway {
    pub(crate) fn start(providers: Value, config: Value) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let gateway = Self::start_in(directory.path(), providers, config);
        Self { _directory: Some(directory), ..gateway }
    }

    /// Starts a router with its data in a directory.
    pub(crate) fn start_in(directory: &Path, providers: Value, config: Value) -> Self {
        Self::start_with(directory, providers, config, |_| {})
    }

    /// Starts a router with its data in a directory, on a host that is prepared.
    pub(crate) fn start_with(
        directory: &Path,
        providers: Value,
        mut config: Value,
        prepare: impl FnOnce(&FakeHost),
    ) -> Self {
        let host = Arc::new(FakeHost::new(directory));
        host.set_providers(providers);
        prepare(&host);
        if config.get("discover_ollama").is_none() {
            config["discover_ollama"] = json!(false);
        }
        if config.get("cache").is_none() {
            // The same request is asked again by many tests.
            config["cache"] = json!({"enabled": false});
        }
        let bench = Bench::<Router>::start_on(host, config).expect("it starts");
        let address = bench.host().listener_address("http").expect("it listens");
        Self { bench, address, _directory: None }
    }

    /// Waits until the provider's models are known.
    pub(crate) fn knows(&self, model: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if self.get("/v1/models").body.contains(model) {
                return;
            }
            assert!(Instant::now() < end, "{model} is not known: {}", self.get("/v1/models").body);
            std::thread::yield_now();
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], &body.to_string())
    }

    pub(crate) fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send(&request(path, headers, body))
    }

    fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).expect("it accepts");
        stream.write_all(request.as_bytes()).expect("it takes it");
        read(&mut BufReader::new(stream))
    }

    /// Sends a request and returns its connection.
    pub(crate) fn open(&self, path: &str, body: &Value) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).expect("it accepts");
        stream.write_all(request(path, &[], &body.to_string()).as_bytes()).expect("it takes it");
        BufReader::new(stream)
    }

    /// Returns the reports, once there are so many.
    pub(crate) fn reports(&self, number: usize) -> Vec<LlmRequestCompleted> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let reports = self.bench.host().emitted_as().expect("they are reports");
            if reports.len() >= number {
                assert_eq!(reports.len(), number, "{reports:#?}");
                return reports;
            }
            assert!(Instant::now() < end, "{} of {number} reports", reports.len());
            std::thread::yield_now();
        }
    }
}

fn request(path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Reads an answer to its end.
pub(crate) fn read(reader: &mut BufReader<TcpStream>) -> Answer {
    let mut line = String::new();
    reader.read_line(&mut line).expect("an answer");
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("a status: {line:?}"));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let is_chunked = headers.iter().any(|(name, _)| name == "transfer-encoding");
    let mut body = Vec::new();
    if is_chunked {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).expect("a chunk");
            let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).expect("a chunk");
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else {
        reader.read_to_end(&mut body).expect("a body");
    }
    Answer { status, headers, body: String::from_utf8(body).expect("text") }
}

//! A receiver of notes over HTTP.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Time within which anything that is waited for has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::yield_now();
    }
}

/// A receiver of HTTP requests.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    answer: Option<Answer>,
    received: Vec<Received>,
}

/// Answer of the receiver to the requests from now on.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A status, with further lines of the head.
    Status(u16, &'static str),
    /// A connection that closes without an answer, after the request was taken.
    Lost,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Head, in lower case.
    pub(crate) head: String,
    pub(crate) body: serde_json::Value,
    /// Status of the answer, 0 for none.
    pub(crate) answered: u16,
}

impl Received {
    /// Returns the value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.strip_prefix(": "))
    }
}

impl Receiver {
    /// Begins to listen on a port of the loopback, and answers 200.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { address, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn answer(&self, answer: Answer) {
        self.state().answer = Some(answer);
    }

    /// Returns what came so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state().received.clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
}

fn answer(mut stream: TcpStream, shared: &Mutex<State>) -> Option<()> {
    let mut text = Vec::new();
    let mut buffer = [0; 4_096];
    let head_end = loop {
        if let Some(at) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        text.extend_from_slice(&buffer[..read]);
    };
    let head = String::from_utf8_lossy(&text[..head_end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    while text.len() < head_end + length {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        text.extend_from_slice(&buffer[..read]);
    }
    let body = serde_json::from_slice(&text[head_end..]).unwrap_or_default();
    let reply = {
        let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = state.answer.clone().unwrap_or(Answer::Status(200, ""));
        let answered = match reply {
            Answer::Status(status, _) => status,
            Answer::Lost => 0,
        };
        state.received.push(Received { head, body, answered });
        reply
    };
    if let Answer::Status(status, lines) = reply {
        let text = format!("HTTP/1.1 {status} x\r\n{lines}content-length: 0\r\n\r\n");
        stream.write_all(text.as_bytes()).ok()?;
    }
    Some(())
}

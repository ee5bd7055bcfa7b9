//! A provider that answers what a test wants.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Answer of a fake provider.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Text, whole.
    Text(String),
    /// None, while the connection stays open.
    Silence,
}

/// A provider on a port of the loopback, until it is dropped.
pub(crate) struct FakeProvider {
    address: SocketAddr,
    shared: Arc<Shared>,
    scheme: &'static str,
}

struct Shared {
    answer: Mutex<Answer>,
    requests: Mutex<Vec<String>>,
    accepted: AtomicU64,
    is_over: AtomicBool,
    /// Connections that get no answer.
    held: Mutex<Vec<TcpStream>>,
    tls: Option<Arc<ServerConfig>>,
}

/// Returns an answer with a status and a JSON body.
pub(crate) fn json(status: u16, body: &str) -> Answer {
    typed(status, "application/json", body)
}

/// Returns an answer with a status and a body of a type.
pub(crate) fn typed(status: u16, content_type: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Text(format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    ))
}

impl FakeProvider {
    pub(crate) fn start(answer: Answer) -> Self {
        Self::start_with(answer, None)
    }

    /// Starts a provider that encrypts.
    pub(crate) fn encrypted(answer: Answer, tls: ServerConfig) -> Self {
        Self::start_with(answer, Some(Arc::new(tls)))
    }

    fn start_with(answer: Answer, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            requests: Mutex::default(),
            accepted: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            held: Mutex::default(),
            tls,
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let serving = serving.clone();
                serving.accepted.fetch_add(1, Ordering::SeqCst);
                // A client that is not content ends the connection.
                thread::spawn(move || drop(serving.serve(stream.expect("a connection"))));
            }
        });
        Self { address, shared, scheme }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.address.port())
    }

    pub(crate) fn answer(&self, answer: Answer) {
        *lock(&self.shared.answer) = answer;
    }

    /// Returns the requests that came so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }

    /// Returns how many connections came so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for FakeProvider {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        lock(&self.shared.held).clear();
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let held = stream.try_clone()?;
        match &self.tls {
            None => self.answer(stream, held),
            Some(config) => {
                let connection = ServerConnection::new(config.clone());
                let connection = connection.map_err(io::Error::other)?;
                self.answer(StreamOwned::new(connection, stream), held)
            }
        }
    }

    fn answer(&self, mut stream: impl Read + Write, held: TcpStream) -> io::Result<()> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            request.push(byte[0]);
        }
        lock(&self.requests).push(String::from_utf8_lossy(&request).into_owned());
        let answer = lock(&self.answer).clone();
        match answer {
            Answer::Text(text) => {
                stream.write_all(text.as_bytes())?;
                stream.flush()
            }
            Answer::Silence => {
                lock(&self.held).push(held);
                Ok(())
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

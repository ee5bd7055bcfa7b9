//! A client that keeps its connection, as most do.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::PATIENCE;

/// Time after which a client does not use its connection any more: less than the 75 s after which
/// servers close it, as with real clients.
const IDLE: Duration = Duration::from_secs(30);

/// One client with one connection at a time. It connects anew only when the server said that it
/// closes the connection, or nobody used it for long, so that any other end counts as a failed
/// request.
#[derive(Debug)]
pub struct KeepAlive {
    address: String,
    /// The connection, with the time of its last use.
    stream: Option<(TcpStream, Instant)>,
    /// Number of times that it connected, but for those after a time without use.
    pub connections: u64,
}

impl KeepAlive {
    /// Creates a client of this address.
    #[must_use]
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None, connections: 0 }
    }

    /// Gets a page; returns the status.
    ///
    /// # Errors
    ///
    /// When the server is not reached, or ends the connection without having said so.
    pub fn get(&mut self, path: &str) -> std::io::Result<u16> {
        let mut stream = match self.stream.take() {
            Some((stream, used)) if used.elapsed() < IDLE => stream,
            Some(_) => self.connect()?,
            None => {
                self.connections += 1;
                self.connect()?
            }
        };
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address)?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let field = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let length = field("content-length").and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
        std::io::copy(&mut (&mut stream).take(length), &mut std::io::sink())?;
        if field("connection") != Some("close") {
            self.stream = Some((stream, Instant::now()));
        }
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| std::io::Error::other(format!("no HTTP: {head:?}")))
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

//! HTTP over the daemon's socket.

use std::{convert::Infallible, future::Future, path::PathBuf, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response,
    body::{Body, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use lodestar_api::{Problem, ProblemCode};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{CliError, Result},
    socket,
};

/// The largest answer that is read at once, and the longest line of a stream.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// A client of one daemon. Each request has a connection of its own: the daemon notices by its end
/// that the answer was dropped.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Paths of the sockets to try.
    pub(crate) sockets: Vec<PathBuf>,
    /// Longest time that the daemon may be silent.
    pub(crate) timeout: Duration,
}

/// A body that can be sent to the daemon.
pub(crate) trait RequestBody:
    Body<Data = Bytes, Error = Infallible> + Send + 'static
{
}

impl<B: Body<Data = Bytes, Error = Infallible> + Send + 'static> RequestBody for B {}

/// The lines of a streamed answer.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// Number of bytes of the buffer that are known to hold no line break.
    searched: usize,
    timeout: Option<Duration>,
}

impl Client {
    /// Gets a value from the daemon.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.value(Method::GET, path, Bytes::new(), self.timeout).await
    }

    /// Sends a value and returns the value of the answer.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.value(Method::POST, path, encode(body)?, self.timeout).await
    }

    /// Sends bytes and returns the value of the answer.
    pub(crate) async fn upload<T: DeserializeOwned>(&self, path: &str, body: Bytes) -> Result<T> {
        self.value(Method::POST, path, body, self.timeout).await
    }

    /// Asks for a value that the daemon may hold back for `wait` on purpose.
    pub(crate) async fn wait_for<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        wait: Duration,
    ) -> Result<T> {
        self.value(method, path, Bytes::new(), self.timeout + wait).await
    }

    /// Asks for a stream that may be silent for any time.
    pub(crate) async fn follow(&self, path: &str) -> Result<Lines> {
        let response = self.send(Method::GET, path, Full::default(), self.timeout).await?;
        Ok(Lines::new(response, None))
    }

    /// Sends a value and returns the stream of the answer.
    pub(crate) async fn stream(&self, path: &str, body: &impl Serialize) -> Result<Lines> {
        self.stream_body(path, Full::new(encode(body)?)).await
    }

    /// Sends a body, which goes on while the answer comes, and returns the stream of the answer.
    pub(crate) async fn stream_body<B: RequestBody>(&self, path: &str, body: B) -> Result<Lines> {
        let response = self.send(Method::POST, path, body, self.timeout).await?;
        Ok(Lines::new(response, Some(self.timeout)))
    }

    async fn value<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<T> {
        let response = self.send(method, path, Full::new(body), timeout).await?;
        let bytes = within(timeout, collect(response.into_body())).await??;
        serde_json::from_slice(&bytes).map_err(|error| not_understood(path, &error.to_string()))
    }

    /// Sends a request and waits for the head of a successful answer.
    async fn send<B: RequestBody>(
        &self,
        method: Method,
        path: &str,
        body: B,
        timeout: Duration,
    ) -> Result<Response<Incoming>> {
        let response = within(timeout, Box::pin(self.exchange(method, path, body))).await??;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let bytes = within(timeout, collect(response.into_body())).await??;
        let problem = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
            let detail = format!("lodestard answered {path} with HTTP status {status}");
            let help = "compare the versions with `lodestar doctor` and update the older one";
            Problem::new(ProblemCode::Failed, detail).help(help)
        });
        Err(CliError::from_problem(problem))
    }

    async fn exchange<B: RequestBody>(
        &self,
        method: Method,
        path: &str,
        body: B,
    ) -> Result<Response<Incoming>> {
        let (stream, socket) = socket::connect(&self.sockets).await?;
        let lost = |error: hyper::Error| {
            CliError::not_reachable(format!(
                "lodestard at {} ended the connection without an answer: {error}",
                socket.display()
            ))
            .help("see its log, and whether it still runs, with `journalctl -u lodestard`")
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // It ends when the answer is read or dropped; what failed there shows in the answer.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "lodestar")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("lodestar/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|error| CliError::failed(format!("cannot ask for {path}: {error}")))?;
        sender.send_request(request).await.map_err(lost)
    }
}

impl Lines {
    fn new(response: Response<Incoming>, timeout: Option<Duration>) -> Self {
        Self { body: response.into_body(), buffer: BytesMut::new(), searched: 0, timeout }
    }

    /// Returns the item in the next line, `None` at the end.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        while let Some(line) = self.next_bytes().await? {
            if !line.trim_ascii().is_empty() {
                let item = serde_json::from_slice(&line);
                return item
                    .map(Some)
                    .map_err(|error| not_understood("a stream", &error.to_string()));
            }
        }
        Ok(None)
    }

    async fn next_bytes(&mut self) -> Result<Option<Bytes>> {
        loop {
            let unread = &self.buffer[self.searched..];
            if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + end + 1);
                self.searched = 0;
                return Ok(Some(line.freeze()));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_BYTES {
                return Err(too_large());
            }
            let frame = match self.timeout {
                Some(timeout) => within(timeout, self.body.frame()).await?,
                None => self.body.frame().await,
            };
            match frame {
                Some(frame) => {
                    if let Ok(data) = frame.map_err(cut_off)?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
            }
        }
    }
}

/// Escapes a part of a path or a query (RFC 3986: all but the unreserved characters).
pub(crate) fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn encode(body: &impl Serialize) -> Result<Bytes> {
    let bytes = serde_json::to_vec(body)
        .map_err(|error| CliError::failed(format!("cannot write the request: {error}")))?;
    Ok(bytes.into())
}

async fn within<T>(timeout: Duration, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(timeout, future).await.map_err(|_| {
        let seconds = timeout.as_secs_f64();
        CliError::timed_out(format!("lodestard did not answer within {seconds} s"))
            .help("try again with a longer --timeout, or see its log")
    })
}

async fn collect(mut body: Incoming) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(cut_off)?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > MAX_BYTES {
            return Err(too_large());
        }
    }
    Ok(bytes.freeze())
}

fn cut_off(error: hyper::Error) -> CliError {
    CliError::failed(format!("lodestard broke off in the middle of its answer: {error}"))
        .help("see its log, and whether it still runs, with `lodestar status`")
}

fn too_large() -> CliError {
    CliError::failed("lodestard's answer is larger than 64 MiB")
        .help("ask for a smaller part of it")
}

fn not_understood(path: &str, error: &str) -> CliError {
    CliError::failed(format!("cannot read lodestard's answer to {path}: {error}"))
        .help("compare the versions with `lodestar doctor` and update the older one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_parts_of_a_path() {
        let check = |text, expected: &str| assert_eq!(escaped(text), expected);
        check("usage_tracker", "usage_tracker");
        check("llm.>", "llm.%3E");
        check("../a b?c", "..%2Fa%20b%3Fc");
        check("ü", "%C3%BC");
    }
}

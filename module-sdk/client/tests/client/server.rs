//! A server that answers what a test wants, byte by byte.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

/// A server on a port of the loopback, until it is dropped.
pub(crate) struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Server {
    /// Starts a server that answers every request with a text.
    pub(crate) async fn answering(text: &str) -> Self {
        Self::answering_each([text.to_owned()]).await
    }

    /// Starts a server that answers with one text after the other, and then with the last one.
    pub(crate) async fn answering_each<const N: usize>(texts: [String; N]) -> Self {
        Self::start(texts.to_vec(), false, None).await
    }

    /// Starts a server that reads requests and is silent.
    pub(crate) async fn hanging() -> Self {
        Self::hanging_after("").await
    }

    /// Starts a server that answers with a text, and then neither goes on nor ends.
    pub(crate) async fn hanging_after(text: &str) -> Self {
        Self::start(vec![text.to_owned()], true, None).await
    }

    /// Starts a server that encrypts.
    pub(crate) async fn encrypted(text: &str, acceptor: TlsAcceptor) -> Self {
        Self::start(vec![text.to_owned()], false, Some(acceptor)).await
    }

    async fn start(texts: Vec<String>, hangs: bool, acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let task = tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.expect("a connection");
                let text = texts[number.min(texts.len() - 1)].clone();
                let (seen, acceptor) = (seen.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => answer(stream, &text, hangs, &seen).await,
                        Some(acceptor) => {
                            // A client that refuses the certificate ends the connection.
                            if let Ok(stream) = acceptor.accept(stream).await {
                                answer(stream, &text, hangs, &seen).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, requests, task: task.abort_handle() }
    }

    /// Returns a port on which nobody listens.
    pub(crate) async fn closed_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("it is bound").port()
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Returns the requests that came, with their heads and bodies.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    text: &str,
    hangs: bool,
    seen: &Mutex<Vec<String>>,
) {
    let mut request = Vec::new();
    while !is_whole(&request) {
        let mut chunk = [0; 4_096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&chunk[..count]),
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    // A client that has read enough closes the connection.
    drop(stream.write_all(text.as_bytes()).await);
    drop(stream.flush().await);
    if hangs {
        std::future::pending::<()>().await;
    }
    drop(stream.shutdown().await);
}

fn is_whole(request: &[u8]) -> bool {
    // The greeting of TLS is all that a server without it gets to read.
    if request.first() == Some(&0x16) {
        return true;
    }
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

//! Files that are sent without being held in memory: a base may have gigabytes.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;

use super::{DeployError, WORK};

/// Size of a piece, in bytes.
const PIECE: usize = 1 << 16;

/// Sends a file to a path of a server without TLS.
pub(super) async fn send(base_url: &str, path: &str, file: &Path) -> Result<(), DeployError> {
    let failed = |reason: String| DeployError::Upload { file: file.to_owned(), reason };
    let words = |error: &dyn std::error::Error| failed(error.to_string());
    let place = base_url.strip_prefix("http://");
    let place = place.ok_or_else(|| failed("it is sent without TLS only".to_owned()))?;
    let (authority, prefix) = place.split_once('/').unwrap_or((place, ""));
    let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    let body =
        Pieces::open(file).map_err(|source| DeployError::Read { file: file.to_owned(), source })?;
    let length = body.left;
    let request = Request::post(format!("{prefix}{path}"))
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, length)
        .body(body)
        .map_err(|error| words(&error))?;
    let address =
        if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let sending = async {
        let stream = TcpStream::connect(address).await.map_err(|error| words(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| words(&error))?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(|error| words(&error));
        connection.abort();
        match answer?.status() {
            StatusCode::OK | StatusCode::CREATED => Ok(()),
            status => Err(failed(format!("the server says {status}"))),
        }
    };
    let late = || failed("it took too long".to_owned());
    tokio::time::timeout(WORK, sending).await.unwrap_or_else(|_| Err(late()))
}

/// Returns the digest of a file as Ollama writes it.
pub(super) fn digest(file: &Path) -> Result<String, DeployError> {
    let failed = |source| DeployError::Read { file: file.to_owned(), source };
    let mut reader = File::open(file).map_err(failed)?;
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE]);
    loop {
        let read = reader.read(&mut piece).map_err(failed)?;
        if read == 0 {
            break;
        }
        hasher.update(&piece[..read]);
    }
    Ok(format!("sha256:{}", crate::registry::Digest::from(<[u8; 32]>::from(hasher.finalize()))))
}

/// A file piece by piece.
struct Pieces {
    file: File,
    left: u64,
}

impl Pieces {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let left = file.metadata()?.len();
        Ok(Self { file, left })
    }

    fn next(&mut self) -> io::Result<Bytes> {
        let most = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; most];
        let read = self.file.read(&mut piece)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        piece.truncate(read);
        self.left -= read as u64;
        Ok(piece.into())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        // The runtime is that of a job, which does nothing else.
        Poll::Ready(Some(self.next().map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

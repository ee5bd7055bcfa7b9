//! Requests to providers: their headers, and answers as they come.

mod decode;
mod headers;
mod room;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use module_http_client::{ClientError, Pool};
use tokio::time::{Instant, timeout_at};

pub(crate) use decode::{DecodeError, Decoder};
pub(crate) use headers::{OF_ACCOUNT, answer_headers, counts, is_own_key, request_headers};
pub(crate) use room::Room;

/// Largest answer that is inflated, in bytes.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// Reason why an answer did not come, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// No connection, or none that holds.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// No first byte in time.
    #[error("it did not answer within {} s", .0.as_secs())]
    FirstByte(Duration),
    /// No further byte in time.
    #[error("it fell silent for {} s in the middle of its answer", .0.as_secs())]
    Idle(Duration),
    /// An answer that is not at its end in time.
    #[error("its answer was not at its end after {} s", .0.as_secs())]
    Whole(Duration),
    /// A body that cannot be read.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A body beyond this limit, in bytes.
    #[error("its answer is larger than {0} bytes (max_answer_bytes)")]
    TooLarge(usize),
    /// A body for which the others leave no memory.
    #[error("the answers under way take all the memory that they may (max_buffered_answer_bytes)")]
    NoRoom,
}

impl UpstreamError {
    /// Returns the word for it in events (`error.type`).
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Client(error) => error.reason(),
            Self::FirstByte(_) | Self::Idle(_) | Self::Whole(_) => "timeout",
            Self::Decode(_) => "encoding",
            Self::TooLarge(_) => "too_large",
            Self::NoRoom => "no_memory",
        }
    }

    /// Returns whether it is a matter of time.
    pub(crate) const fn is_timeout(&self) -> bool {
        matches!(self, Self::FirstByte(_) | Self::Idle(_) | Self::Whole(_))
    }
}

/// Times of one request to a provider.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Time until the first byte of the answer.
    pub first_byte: Duration,
    /// Time between two pieces of the answer.
    pub idle: Duration,
    /// Moment at which the answer must be at its end.
    pub end: Instant,
    /// The same, as the time that was given.
    pub whole: Duration,
}

/// Answer of a provider whose body is still to come.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Pieces,
}

/// Sends a request and waits for the head of the answer, whose body takes the memory of `room`.
pub(crate) async fn send(
    pool: &Pool,
    url: &str,
    headers: HeaderMap,
    body: Bytes,
    times: Times,
    room: Room,
) -> Result<Answer, UpstreamError> {
    let request = Request::builder().method(Method::POST).uri(url).body(Full::new(body));
    let mut request = request.map_err(ClientError::of_http)?;
    *request.headers_mut() = headers;
    let first = (Instant::now() + times.first_byte).min(times.end);
    let sent = timeout_at(first, pool.send(request)).await;
    let response = sent.map_err(|_| UpstreamError::FirstByte(times.first_byte))??;
    let (parts, body) = response.into_parts();
    let decoder = Decoder::of(parts.headers.get(header::CONTENT_ENCODING))?;
    let body = Pieces { body, decoder, times, quiet_until: None, room, kept: 0 };
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// Body of an answer, piece by piece.
#[derive(Debug)]
pub(crate) struct Pieces {
    body: Incoming,
    decoder: Decoder,
    times: Times,
    /// Moment at which the silence since the last piece is too long.
    quiet_until: Option<Instant>,
    room: Room,
    /// Bytes that are kept by others.
    kept: usize,
}

impl Pieces {
    /// Returns the next piece that is not empty; `None` at the end. A call that is dropped and
    /// made again goes on waiting: the silence counts from the last piece.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            match self.next_step().await? {
                Step::Piece(piece) => return Ok(Some(piece)),
                Step::End => return Ok(None),
                Step::More => {}
            }
        }
    }

    async fn next_step(&mut self) -> Result<Step, UpstreamError> {
        let idle = self.times.idle;
        let quiet_until = *self.quiet_until.get_or_insert_with(|| Instant::now() + idle);
        let at = quiet_until.min(self.times.end);
        let Ok(frame) = timeout_at(at, self.body.frame()).await else {
            return Err(if at == self.times.end {
                UpstreamError::Whole(self.times.whole)
            } else {
                UpstreamError::Idle(self.times.idle)
            });
        };
        self.quiet_until = None;
        let piece = match frame {
            None => {
                let rest = self.decoder.finish()?;
                return Ok(if rest.is_empty() { Step::End } else { Step::Piece(rest) });
            }
            Some(Err(error)) => return Err(ClientError::of_body(error).into()),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        let piece = self.decoder.push(piece)?;
        if piece.is_empty() {
            self.room.take(self.kept + self.decoder.held())?;
            return Ok(Step::More);
        }
        Ok(Step::Piece(piece))
    }

    /// Takes the memory for so many bytes of the answer that are kept by others.
    ///
    /// # Errors
    ///
    /// When there is no room for them.
    pub(crate) fn keep(&mut self, bytes: usize) -> Result<(), UpstreamError> {
        self.kept = bytes;
        self.room.take(bytes + self.decoder.held())
    }

    /// Returns the whole body, at most `largest` bytes, `first` before what is still to come; and
    /// the memory that it takes.
    ///
    /// # Errors
    ///
    /// When it does not come to its end, or is too large.
    pub(crate) async fn whole(
        mut self,
        first: Option<Bytes>,
        largest: usize,
    ) -> Result<(Bytes, Room), UpstreamError> {
        self.room.limit(largest);
        let first = match first {
            Some(first) => Some(first),
            None => self.next().await?,
        };
        let Some(first) = first else { return Ok((Bytes::new(), self.room)) };
        self.keep(first.len())?;
        let Some(second) = self.next().await? else { return Ok((first, self.room)) };
        let mut all = Vec::with_capacity(2 * first.len());
        all.extend_from_slice(&first);
        drop(first);
        let mut next = Some(second);
        while let Some(piece) = next {
            self.keep(all.len() + piece.len())?;
            all.extend_from_slice(&piece);
            next = self.next().await?;
        }
        Ok((all.into(), self.room))
    }
}

/// Step in the reading of a body.
enum Step {
    /// A piece that is not empty.
    Piece(Bytes),
    /// Nothing yet.
    More,
    /// The end.
    End,
}

//! Requests to providers: their headers, and answers as they come.

mod decode;
mod headers;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use module_http_client::{ClientError, Pool};
use tokio::time::{Instant, timeout_at};

pub(crate) use decode::{DecodeError, Decoder};
pub(crate) use headers::{OF_ACCOUNT, answer_headers, counts, is_own_key, request_headers};

/// Largest answer that is no stream, in bytes.
pub(crate) const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

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
    /// A body beyond the limit.
    #[error("its answer is larger than 64 MiB")]
    TooLarge,
}

impl UpstreamError {
    /// Returns the word for it in events (`error.type`).
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Client(error) => error.reason(),
            Self::FirstByte(_) | Self::Idle(_) | Self::Whole(_) => "timeout",
            Self::Decode(_) => "encoding",
            Self::TooLarge => "too_large",
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

/// Sends a request and waits for the head of the answer.
pub(crate) async fn send(
    pool: &Pool,
    url: &str,
    headers: HeaderMap,
    body: Bytes,
    times: Times,
) -> Result<Answer, UpstreamError> {
    let request = Request::builder().method(Method::POST).uri(url).body(Full::new(body));
    let mut request = request.map_err(ClientError::of_http)?;
    *request.headers_mut() = headers;
    let first = (Instant::now() + times.first_byte).min(times.end);
    let sent = timeout_at(first, pool.send(request)).await;
    let response = sent.map_err(|_| UpstreamError::FirstByte(times.first_byte))??;
    let (parts, body) = response.into_parts();
    let decoder = Decoder::of(parts.headers.get(header::CONTENT_ENCODING))?;
    let body = Pieces { body, decoder, times, quiet_until: None };
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
}

impl Pieces {
    /// Returns the next piece that is not empty; `None` at the end. A call that is dropped and
    /// made again goes on waiting: the silence counts from the last piece.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
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
                    return Ok((!rest.is_empty()).then_some(rest));
                }
                Some(Err(error)) => return Err(ClientError::of_body(error).into()),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            let piece = self.decoder.push(piece)?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    /// Returns the rest of the body, at most so many bytes of it.
    pub(crate) async fn whole(mut self, largest: usize) -> Result<Bytes, UpstreamError> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let mut second = match self.next().await? {
            None if first.len() <= largest => return Ok(first),
            None => return Err(UpstreamError::TooLarge),
            Some(second) => Some(second),
        };
        let mut all = Vec::with_capacity(2 * first.len());
        all.extend_from_slice(&first);
        while let Some(piece) = second {
            if all.len() + piece.len() > largest {
                return Err(UpstreamError::TooLarge);
            }
            all.extend_from_slice(&piece);
            second = self.next().await?;
        }
        Ok(all.into())
    }
}

//! Reads the body of a request within its limits: size while reading, size while inflating, time,
//! and the memory of all requests together.

use std::{io::Read as _, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits for the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Maximum size as received, in bytes.
    pub max_bytes: usize,
    /// Maximum size after decompression, in bytes.
    pub max_inflated_bytes: usize,
    /// Time until the whole body must be received.
    pub timeout: Duration,
}

/// Reason for refusing a body. The text is for the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Body of more bytes than this limit.
    #[error("the body is larger than {0} bytes (max_body_bytes); send smaller batches")]
    TooLarge(usize),
    /// Body of more bytes than this limit after decompression.
    #[error(
        "the body is larger than {0} bytes when inflated (max_inflated_bytes); send \
         smaller batches"
    )]
    InflatesTooFar(usize),
    /// Unknown compression.
    #[error("this Content-Encoding is not understood; send gzip or none")]
    UnknownCompression,
    /// Invalid or incomplete gzip.
    #[error("the body is not whole gzip; send it again, or without Content-Encoding")]
    NotGzip,
    /// Too deep nesting of lists.
    #[error("the body nests too deeply; send it flatter")]
    TooDeep,
    /// Connection that ended before the body was complete.
    #[error("the body broke off; send it again")]
    Broken,
    /// Body that took too long.
    #[error("the body did not arrive in time (body_timeout_seconds)")]
    Slow,
    /// Body that alone needs more memory than one body, or all of them, may have.
    #[error("the body needs more memory than {bytes} bytes ({key}); send smaller batches")]
    TooHeavy {
        /// The limit, in bytes.
        bytes: usize,
        /// Name of the limit.
        key: &'static str,
    },
    /// Body for which other requests leave too little memory.
    #[error("too much is being received at the moment; come again in a second")]
    Busy,
}

impl BodyError {
    /// Returns the status of the response.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) | Self::InflatesTooFar(_) | Self::TooHeavy { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::UnknownCompression => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotGzip | Self::TooDeep | Self::Broken => StatusCode::BAD_REQUEST,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) | Self::InflatesTooFar(_) | Self::TooHeavy { .. } => "too_large",
            Self::UnknownCompression => "unsupported_encoding",
            Self::NotGzip => "not_gzip",
            Self::TooDeep => "too_deep",
            Self::Broken => "broken_body",
            Self::Slow => "timeout",
            Self::Busy => "busy",
        }
    }
}

/// The memory that all bodies together may take.
#[derive(Debug)]
pub struct Budget {
    pieces: Arc<Semaphore>,
    all: usize,
    /// Maximum for one body, in pieces.
    one: usize,
}

/// Size of the pieces in which memory is given out, in bytes.
const PIECE: usize = 4096;

impl Budget {
    /// Creates a budget of `bytes` for all bodies, of which each may take `one`.
    #[must_use]
    pub fn new(bytes: usize, one: usize) -> Self {
        let all = (bytes / PIECE).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { pieces: Arc::new(Semaphore::new(all)), all, one: (one / PIECE).max(1) }
    }

    /// Returns an empty share of the budget.
    #[must_use]
    pub fn share(&self) -> Share {
        let (all, one) = (self.all, self.one);
        Share { budget: self.pieces.clone(), all, one, permit: None, taken: 0 }
    }
}

/// Part of the [`Budget`] that one request has taken; returned on drop.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Semaphore>,
    all: usize,
    one: usize,
    permit: Option<OwnedSemaphorePermit>,
    taken: usize,
}

impl Share {
    /// Returns the maximum that the share can take, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.all.min(self.one) * PIECE
    }

    /// Returns the error for a share beyond its limit.
    #[must_use]
    pub fn too_heavy(&self) -> BodyError {
        let key = if self.all < self.one { "max_buffered_bytes" } else { "max_decoded_bytes" };
        BodyError::TooHeavy { bytes: self.limit(), key }
    }

    /// Grows the share to `bytes` in all.
    ///
    /// # Errors
    ///
    /// Returns an error if the budget has not so much, or not at the moment.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), BodyError> {
        let pieces = bytes.div_ceil(PIECE);
        let Some(more) = pieces.checked_sub(self.taken).filter(|more| *more > 0) else {
            return Ok(());
        };
        let more = match u32::try_from(more) {
            Ok(more) if pieces <= self.all.min(self.one) => more,
            _ => return Err(self.too_heavy()),
        };
        let permit = self.budget.clone().try_acquire_many_owned(more);
        let permit = permit.map_err(|_| BodyError::Busy)?;
        self.taken = pieces;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        Ok(())
    }
}

/// Callback that checks a large body while it is received and inflated, so that one that will be
/// refused is not read to its end. It gets all bytes so far, and at last the whole body.
pub trait Probe: FnMut(&[u8], &mut Share) -> Result<(), BodyError> + Send + 'static {}

impl<P: FnMut(&[u8], &mut Share) -> Result<(), BodyError> + Send + 'static> Probe for P {}

/// Number of further bytes after which a body is probed again.
const PROBED: usize = 256 << 10;

/// Received part of a body, which is probed as it grows.
struct Probed<P> {
    bytes: Vec<u8>,
    probe: P,
    next: usize,
}

impl<P: Probe> Probed<P> {
    fn new(probe: P) -> Self {
        Self { bytes: Vec::new(), probe, next: PROBED }
    }

    fn append(&mut self, bytes: &[u8], share: &mut Share) -> Result<(), BodyError> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() < self.next {
            return Ok(());
        }
        self.next = self.bytes.len() + PROBED;
        (self.probe)(&self.bytes, share)
    }

    /// Returns the whole body; a small one is not probed.
    fn finish(mut self, share: &mut Share) -> Result<Vec<u8>, BodyError> {
        let is_probed = self.bytes.len() + PROBED == self.next;
        if self.bytes.len() >= PROBED && !is_probed {
            (self.probe)(&self.bytes, share)?;
        }
        Ok(self.bytes)
    }
}

/// Reads and inflates a body. The share must live as long as the bytes.
///
/// # Errors
///
/// Returns an error if the body breaks a limit, cannot be read, or others have the memory that it
/// needs.
pub async fn read(
    limits: &BodyLimits,
    budget: &Budget,
    headers: &HeaderMap,
    body: Body,
    probe: impl Probe,
) -> Result<(Bytes, Share), BodyError> {
    let gzip = match headers.get(header::CONTENT_ENCODING).map(|value| value.to_str()) {
        None => false,
        Some(Ok(name)) if matches!(name.trim(), "") || is_named(name, "identity") => false,
        Some(Ok(name)) if is_named(name, "gzip") || is_named(name, "x-gzip") => true,
        Some(_) => return Err(BodyError::UnknownCompression),
    };
    let mut share = budget.share();
    let limit = limits.max_bytes;
    if !gzip {
        let probed = in_time(limits, collect(headers, body, limit, &mut share, probe)).await?;
        return Ok((probed, share));
    }
    let whole = collect(headers, body, limit, &mut share, |_: &[u8], _: &mut Share| Ok(()));
    let bytes = in_time(limits, whole).await?;
    let limit = limits.max_inflated_bytes;
    // Inflating a large body takes a tenth of a second, in which other requests go on.
    let inflating = tokio::task::spawn_blocking(move || {
        let inflated = inflate(&bytes, limit, &mut share, probe)?;
        Ok((Bytes::from(inflated), share))
    });
    // It can only fail when the runtime ends.
    inflating.await.unwrap_or(Err(BodyError::Busy))
}

async fn in_time<T>(
    limits: &BodyLimits,
    reading: impl Future<Output = Result<T, BodyError>>,
) -> Result<T, BodyError> {
    tokio::time::timeout(limits.timeout, reading).await.map_err(|_| BodyError::Slow)?
}

fn is_named(stated: &str, name: &str) -> bool {
    stated.trim().eq_ignore_ascii_case(name)
}

async fn collect(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    share: &mut Share,
    probe: impl Probe,
) -> Result<Bytes, BodyError> {
    let stated = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if stated.and_then(|length| length.parse::<usize>().ok()).is_some_and(|bytes| bytes > limit) {
        return Err(BodyError::TooLarge(limit));
    }
    let mut so_far = Probed::new(probe);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        let length = so_far.bytes.len() + data.len();
        if length > limit {
            return Err(BodyError::TooLarge(limit));
        }
        share.grow_to(length)?;
        so_far.append(&data, share)?;
    }
    Ok(so_far.finish(share)?.into())
}

fn inflate(
    bytes: &[u8],
    limit: usize,
    share: &mut Share,
    probe: impl Probe,
) -> Result<Vec<u8>, BodyError> {
    let mut decoder = MultiGzDecoder::new(bytes);
    let mut inflated = Probed::new(probe);
    let mut piece = [0; 16 * 1024];
    loop {
        let read = decoder.read(&mut piece).map_err(|_| BodyError::NotGzip)?;
        if read == 0 {
            return inflated.finish(share);
        }
        let length = inflated.bytes.len() + read;
        if length > limit {
            return Err(BodyError::InflatesTooFar(limit));
        }
        share.grow_to(bytes.len() + length)?;
        inflated.append(&piece[..read], share)?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("into memory");
        encoder.finish().expect("into memory")
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let bomb = gzip(&vec![0; 1_000_000]);
        assert!(bomb.len() < 2000);
        let budget = Budget::new(10_000_000, 10_000_000);
        let check = |limit: usize, expected: Result<usize, BodyError>| {
            let inflated = inflate(&bomb, limit, &mut budget.share(), |_, _| Ok(()));
            assert_eq!(inflated.map(|bytes| bytes.len()), expected);
        };
        check(1_000_000, Ok(1_000_000));
        check(999_999, Err(BodyError::InflatesTooFar(999_999)));
    }

    #[test]
    fn a_large_body_is_looked_at_before_it_is_whole() {
        let body = gzip(&vec![0; 4 * PROBED + 1]);
        let mut share = Budget::new(8 * PROBED, 8 * PROBED).share();
        let (told, looks) = std::sync::mpsc::channel();
        let whole = inflate(&body, 8 * PROBED, &mut share, move |so_far, _| {
            told.send(so_far.len()).map_err(|_| BodyError::Busy)
        });
        assert_eq!(whole.map(|bytes| bytes.len()), Ok(4 * PROBED + 1));
        let lengths = [PROBED, 2 * PROBED, 3 * PROBED, 4 * PROBED, 4 * PROBED + 1];
        assert_eq!(looks.into_iter().collect::<Vec<_>>(), lengths);
        let refused = inflate(&body, 8 * PROBED, &mut share, |so_far, _| {
            assert_eq!(so_far.len(), PROBED);
            Err(BodyError::Busy)
        });
        assert_eq!(refused, Err(BodyError::Busy));
        let small = gzip(&vec![0; PROBED - 1]);
        let unseen = |_: &[u8], _: &mut Share| Err(BodyError::Busy);
        assert!(inflate(&small, PROBED, &mut share, unseen).is_ok());
    }

    #[tokio::test]
    async fn a_body_as_it_comes_is_looked_at_too() {
        let (limit, budget) = (8 * PROBED, Budget::new(8 * PROBED, 8 * PROBED));
        let limits = BodyLimits {
            max_bytes: limit,
            max_inflated_bytes: limit,
            timeout: Duration::from_secs(60),
        };
        let (headers, body) = (HeaderMap::new(), Body::from(vec![0; PROBED]));
        let refused = read(&limits, &budget, &headers, body, |so_far, _| {
            assert_eq!(so_far.len(), PROBED);
            Err(BodyError::TooDeep)
        });
        assert!(matches!(refused.await, Err(BodyError::TooDeep)));
    }

    #[test]
    fn what_is_not_gzip_is_said_to_be_so() {
        let whole = gzip(b"some bytes that are whole");
        let budget = Budget::new(100_000, 100_000);
        let check = |bytes: &[u8]| {
            let inflated = inflate(bytes, 1000, &mut budget.share(), |_, _| Ok(()));
            assert_eq!(inflated, Err(BodyError::NotGzip));
        };
        check(b"plain text");
        check(&whole[..whole.len() - 9]);
    }

    #[test]
    fn all_bodies_share_one_budget() {
        let budget = Budget::new(4 * PIECE, 4 * PIECE);
        let mut first = budget.share();
        first.grow_to(3 * PIECE).expect("there is room");
        let mut second = budget.share();
        assert_eq!(second.grow_to(2 * PIECE), Err(BodyError::Busy));
        second.grow_to(PIECE).expect("there is room");
        drop(first);
        second.grow_to(4 * PIECE).expect("the first has given back");
        let too_heavy = |bytes, key| Err(BodyError::TooHeavy { bytes, key });
        assert_eq!(second.grow_to(5 * PIECE), too_heavy(4 * PIECE, "max_decoded_bytes"));
        let mut third = Budget::new(4 * PIECE, 8 * PIECE).share();
        assert_eq!(third.grow_to(5 * PIECE), too_heavy(4 * PIECE, "max_buffered_bytes"));
    }
}

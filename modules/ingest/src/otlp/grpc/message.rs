//! The message of a call: its prefix, and its bytes as the body that they would be over HTTP.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::server::BodyError;

/// Length of the prefix: a flag for compression, and the length of the message in four bytes.
const PREFIX: usize = 5;

/// Reads the prefix. Returns whether the message is compressed, and the message.
pub(super) async fn open(body: Body, at_most: Duration) -> Result<(bool, Message), BodyError> {
    let opening = tokio::time::timeout(at_most, read_prefix(body));
    opening.await.map_err(|_| BodyError::Slow)?
}

async fn read_prefix(mut body: Body) -> Result<(bool, Message), BodyError> {
    let mut prefix = [0; PREFIX];
    let mut read = 0;
    let mut rest = Bytes::new();
    while read < PREFIX {
        if rest.is_empty() {
            let frame = body.frame().await.ok_or(BodyError::Broken)?;
            let frame = frame.map_err(|_| BodyError::Broken)?;
            // Else it is trailers, which no client sends; the body ends with them.
            rest = frame.into_data().map_err(|_| BodyError::Broken)?;
            continue;
        }
        let part = rest.split_to(rest.len().min(PREFIX - read));
        prefix[read..read + part.len()].copy_from_slice(&part);
        read += part.len();
    }
    let [flag, length @ ..] = prefix;
    let compressed = match flag {
        0 => false,
        1 => true,
        _ => return Err(BodyError::Broken),
    };
    let left = u32::from_be_bytes(length);
    Ok((compressed, Message { waiting: rest, body, left }))
}

/// The bytes of the one message of a call, behind the prefix.
pub(super) struct Message {
    /// Bytes that came with the prefix.
    waiting: Bytes,
    body: Body,
    left: u32,
}

/// Reason why a body is not one message.
#[derive(Debug, thiserror::Error)]
#[error("the call holds not exactly one message")]
pub(super) struct NotOneMessage;

impl Message {
    /// Returns the length that the prefix states.
    pub(super) fn length(&self) -> u32 {
        self.left
    }

    /// Takes the part of the message in some bytes.
    fn take(&mut self, bytes: Bytes) -> Result<Frame<Bytes>, NotOneMessage> {
        let length = u32::try_from(bytes.len()).map_err(|_| NotOneMessage)?;
        self.left = self.left.checked_sub(length).ok_or(NotOneMessage)?;
        Ok(Frame::data(bytes))
    }
}

impl HttpBody for Message {
    type Data = Bytes;
    type Error = NotOneMessage;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, NotOneMessage>>> {
        loop {
            let bytes = std::mem::take(&mut self.waiting);
            if !bytes.is_empty() {
                return Poll::Ready(Some(self.take(bytes)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                // What is no data are trailers, which no client sends.
                Some(Ok(frame)) => self.waiting = frame.into_data().unwrap_or_default(),
                None if self.left == 0 => return Poll::Ready(None),
                Some(Err(_)) | None => return Poll::Ready(Some(Err(NotOneMessage))),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::from(self.left))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A body that comes in pieces.
    struct Pieces(VecDeque<Bytes>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    async fn read(bytes: &[u8], size: usize) -> Option<(bool, Vec<u8>)> {
        let pieces = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
        let opened = open(Body::new(Pieces(pieces)), Duration::from_secs(60)).await;
        let (compressed, message) = opened.ok()?;
        let whole = message.collect().await.ok()?;
        Some((compressed, whole.to_bytes().to_vec()))
    }

    #[test]
    fn a_message_is_what_stands_behind_its_prefix() {
        let check = |bytes: &[u8], expected: Option<(bool, &[u8])>| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.expect("the system gives it");
            for size in 1..=8 {
                let found = runtime.block_on(read(bytes, size));
                let expected = expected.map(|(flag, message)| (flag, message.to_vec()));
                assert_eq!(found, expected, "{bytes:?} in pieces of {size}");
            }
        };
        check(b"\0\0\0\0\0", Some((false, b"")));
        check(b"\0\0\0\0\x03abc", Some((false, b"abc")));
        check(b"\x01\0\0\0\x03abc", Some((true, b"abc")));
        check(b"\x02\0\0\0\x03abc", None);
        check(b"\0\0\0\0\x03ab", None);
        check(b"\0\0\0\0\x03abcd", None);
        check(b"\0\0\0\0\x01a\0\0\0\0\x01b", None);
        check(b"\0\0\0", None);
        check(b"", None);
        // A length is believed when its bytes have come, and not before.
        check(b"\0\xff\xff\xff\xffabc", None);
    }
}

//! Recognises a connection that speaks HTTP/2 from its first byte, as gRPC exporters do, and
//! answers it in HTTP/2: a GOAWAY with the reason, instead of a closed connection.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use module_http::{Accepted, Ends, Listener, Tcp};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{app::App, misdirected::Misdirected};

/// The beginning of an HTTP/2 connection (RFC 9113, 3.4), as far as no other protocol shares it.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Number of bytes that are read after the answer, so that closing does not discard the answer.
const READ_AFTER: usize = 64 * 1024;

/// A socket whose connections may turn out to speak HTTP/2.
pub(crate) struct Prefaced {
    pub(crate) tcp: Tcp,
    pub(crate) app: Arc<App>,
}

impl Listener for Prefaced {
    type Stream = Preface<TcpStream>;
    type Ends = Ends;

    async fn accept(&self) -> io::Result<Accepted<Preface<TcpStream>, Ends>> {
        let Accepted { stream, ends, descriptor } = self.tcp.accept().await?;
        Ok(Accepted { stream: Preface::new(stream, &self.app), ends, descriptor })
    }
}

/// A connection that may turn out to speak HTTP/2.
pub(crate) struct Preface<S> {
    stream: S,
    app: Arc<App>,
    state: State,
}

enum State {
    /// Number of bytes that have matched the preface so far.
    Matching(usize),
    /// Another protocol; bytes are passed on.
    Passing,
    /// HTTP/2: the bytes left to write, and the number of bytes that may still be read.
    Refusing(Vec<u8>, usize),
}

impl<S> Preface<S> {
    pub(crate) fn new(stream: S, app: &Arc<App>) -> Self {
        Self { stream, app: app.clone(), state: State::Matching(0) }
    }

    fn look(&mut self, bytes: &[u8]) {
        let State::Matching(known) = self.state else { return };
        let expected = &PREFACE[known..];
        let length = bytes.len().min(expected.len());
        self.state = if bytes[..length] != expected[..length] {
            State::Passing
        } else if length == expected.len() {
            Misdirected::Http2.count(&self.app);
            State::Refusing(goaway(Misdirected::Http2.advice()), READ_AFTER)
        } else {
            State::Matching(known + length)
        };
    }
}

/// Returns an empty SETTINGS frame and a GOAWAY with the code `HTTP_1_1_REQUIRED` and a reason.
fn goaway(reason: &str) -> Vec<u8> {
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const HTTP_1_1_REQUIRED: u32 = 0xd;
    let frame = |kind: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
        // Length in 24 bits, kind, no flags, stream 0.
        [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    };
    let last_stream = 0u32.to_be_bytes();
    let code = HTTP_1_1_REQUIRED.to_be_bytes();
    let payload = [&last_stream[..], &code[..], reason.as_bytes()].concat();
    [frame(SETTINGS, &[]), frame(GOAWAY, &payload)].concat()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Preface<S> {
    /// Writes the answer, reads what still arrives, and ends.
    fn refuse(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let State::Refusing(answer, left) = &mut self.state else { return Poll::Ready(Ok(())) };
        while !answer.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, answer))?;
            if written == 0 {
                return Poll::Ready(Ok(()));
            }
            answer.drain(..written);
        }
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        loop {
            let mut room = [0; 1024];
            let mut buffer = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            let read = buffer.filled().len();
            *left = left.saturating_sub(read);
            if read == 0 || *left == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Preface<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let State::Matching(_) = this.state {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            this.look(&buffer.filled()[before..]);
            if !matches!(this.state, State::Refusing(..)) {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
        match this.state {
            State::Refusing(..) => this.refuse(context),
            _ => Pin::new(&mut this.stream).poll_read(context, buffer),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Preface<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.state {
            // An answer in HTTP/1.1 would say nothing to who speaks HTTP/2.
            State::Refusing(..) => Poll::Ready(Ok(bytes.len())),
            _ => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.state {
            State::Refusing(..) => Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum())),
            _ => Pin::new(&mut self.stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

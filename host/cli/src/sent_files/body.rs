//! The body of a request that sends files.

use std::{
    convert::Infallible,
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame};
use module_sdk::FILE_PART;
use tokio::sync::mpsc;

/// Number of parts that wait to be sent.
const PARTS_AHEAD: usize = 4;

/// Writer whose bytes are sent in parts.
pub(super) struct Parts {
    sender: mpsc::Sender<Bytes>,
    part: BytesMut,
}

/// Body of a request that sends files.
#[derive(Debug)]
pub(crate) struct FilesBody(pub(super) mpsc::Receiver<Bytes>);

impl Parts {
    /// Creates a writer, and the body of what is written.
    pub(super) fn new() -> (Self, FilesBody) {
        let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
        (Self { sender, part: BytesMut::new() }, FilesBody(receiver))
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.is_empty() {
            // What was sent meanwhile is used again.
            self.part.reserve(2 * FILE_PART);
        }
        self.part.extend_from_slice(bytes);
        if self.part.len() >= FILE_PART {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let part = self.part.split().freeze();
        self.sender.blocking_send(part).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Body for FilesBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

//! Frames over a socket, with a file descriptor where a frame needs one.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use postcard::ser_flavors::Flavor;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
    },
};
use serde::{Deserialize, Serialize};

use super::wire::MAX_FRAME;
use crate::module::{BUSY, MOMENT};

/// Length of the header before each frame, in bytes.
const HEAD: usize = 4;

/// Smallest room for one read, in bytes.
const READ: usize = 64 << 10;

/// Capacity in bytes beyond which a buffer that grew for one frame is released afterwards.
const KEPT: usize = 1 << 20;

/// Flags of a send that waits for nothing.
const AT_ONCE: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// Reason why a channel cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    /// The other end is closed.
    #[error("the other end is closed")]
    Closed,
    /// The time limit has passed.
    #[error("the other end does not answer in time")]
    TimedOut,
    /// The received bytes are no message.
    #[error("what came is no message: {0}")]
    Garbage(String),
    /// A message is too long to be sent.
    #[error("a message of {0} bytes is too long; the most is {MAX_FRAME}")]
    TooLong(usize),
    /// The system reported an error.
    #[error("{0}")]
    System(io::Error),
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::System(error),
        }
    }
}

/// Time limit of a call, for its request and its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    begin: Instant,
    patience: Duration,
}

impl Deadline {
    /// Creates a deadline that ends after `patience`.
    pub(super) fn after(patience: Duration) -> Self {
        Self { begin: Instant::now(), patience }
    }

    /// Waits until a socket is ready for the given operation.
    fn wait_for(self, stream: &UnixStream, what: PollFlags) -> Result<(), ChannelError> {
        loop {
            let left = self.patience.checked_sub(self.begin.elapsed());
            let left = left.ok_or(ChannelError::TimedOut)?;
            // A time that is too long for the kernel is unlimited.
            let left = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(stream, what)], left.as_ref()) {
                Ok(0) => return Err(ChannelError::TimedOut),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}

/// The sending half.
#[derive(Debug)]
pub(super) struct Writer {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Sends one message.
    pub(super) fn send(&mut self, message: &impl Serialize) -> Result<(), ChannelError> {
        encode(message, &mut self.buffer)?;
        self.stream.write_all(&self.buffer)?;
        self.forget_a_large_one();
        Ok(())
    }

    /// Sends one message within a deadline, which is not extended when the other end reads in
    /// parts.
    pub(super) fn send_within(
        &mut self,
        message: &impl Serialize,
        deadline: Deadline,
    ) -> Result<(), ChannelError> {
        encode(message, &mut self.buffer)?;
        self.send_rest_within(0, deadline)
    }

    /// Sends one message together with a file descriptor, within a deadline like
    /// [`send_within`](Self::send_within).
    pub(super) fn send_with(
        &mut self,
        message: &impl Serialize,
        descriptor: BorrowedFd<'_>,
        deadline: Deadline,
    ) -> Result<(), ChannelError> {
        encode(message, &mut self.buffer)?;
        let descriptors = [descriptor];
        let sent = loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            let parts = [IoSlice::new(&self.buffer)];
            match sendmsg(&self.stream, &parts, &mut ancillary, AT_ONCE) {
                Ok(count) => break count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => deadline.wait_for(&self.stream, PollFlags::OUT)?,
                Err(error) => return Err(io::Error::from(error).into()),
            }
        };
        self.send_rest_within(sent, deadline)
    }

    /// Sends what is left of the message in the buffer.
    fn send_rest_within(
        &mut self,
        mut sent: usize,
        deadline: Deadline,
    ) -> Result<(), ChannelError> {
        while sent < self.buffer.len() {
            match send(&self.stream, &self.buffer[sent..], AT_ONCE) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => deadline.wait_for(&self.stream, PollFlags::OUT)?,
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        self.forget_a_large_one();
        Ok(())
    }

    fn forget_a_large_one(&mut self) {
        if self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
    }
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct Reader {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// Start of the bytes in `buffer` that are not yet taken.
    start: usize,
    end: usize,
    /// Descriptors that were received; `None` where none is wanted, and the kernel closes those
    /// that come.
    descriptors: Option<VecDeque<OwnedFd>>,
    /// `true` when the previous message came at once.
    is_busy: bool,
}

impl Reader {
    /// Creates a reader of frames; descriptors that come with them are closed.
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new(), start: 0, end: 0, descriptors: None, is_busy: false }
    }

    /// Creates a reader of frames and of the descriptors that come with them.
    pub(super) fn with_descriptors(stream: UnixStream) -> Self {
        Self { descriptors: Some(VecDeque::new()), ..Self::new(stream) }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Returns the next message; waits for it.
    pub(super) fn next<'a, T: Deserialize<'a>>(&'a mut self) -> Result<T, ChannelError> {
        let frame = loop {
            match self.whole_frame()? {
                Some(frame) => break frame,
                None => self.fill()?,
            }
        };
        decode(&self.buffer[frame])
    }

    /// Returns the next message like [`next`](Self::next), but polls for a moment before it sleeps
    /// where the previous message came within such a moment as well: then one call follows another.
    pub(super) fn next_soon<'a, T: Deserialize<'a>>(&'a mut self) -> Result<T, ChannelError> {
        self.await_frame()?;
        self.next()
    }

    /// Returns the next message like [`next_soon`](Self::next_soon), and the descriptor that came
    /// with it.
    pub(super) fn next_with_descriptor<'a, T: Deserialize<'a>>(
        &'a mut self,
    ) -> Result<(T, Option<OwnedFd>), ChannelError> {
        self.await_frame()?;
        let descriptor = self.take_descriptor();
        Ok((self.next()?, descriptor))
    }

    /// Waits until a whole frame has come, and polls for a moment before it sleeps.
    fn await_frame(&mut self) -> Result<(), ChannelError> {
        let begin = Instant::now();
        while !self.has_frame()? {
            if self.is_busy {
                self.fill_soon()?;
            } else {
                self.fill()?;
            }
        }
        self.is_busy = begin.elapsed() < BUSY;
        Ok(())
    }

    /// Returns the next message, where one has come already.
    pub(super) fn next_here<'a, T: Deserialize<'a>>(
        &'a mut self,
    ) -> Result<Option<T>, ChannelError> {
        match self.whole_frame()? {
            Some(frame) => decode(&self.buffer[frame]).map(Some),
            None => Ok(None),
        }
    }

    /// Returns whether a whole frame has come.
    pub(super) fn has_frame(&mut self) -> Result<bool, ChannelError> {
        let start = self.start;
        let frame = self.whole_frame()?;
        self.start = start;
        Ok(frame.is_some())
    }

    /// Takes the descriptor that came with the last message.
    pub(super) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.as_mut()?.pop_front()
    }

    /// Takes the next frame out of the buffer, where it is whole.
    fn whole_frame(&mut self) -> Result<Option<std::ops::Range<usize>>, ChannelError> {
        let here = &self.buffer[self.start..self.end];
        let Some((head, _)) = here.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(ChannelError::Garbage(format!(
                "a frame of {length} bytes, where {MAX_FRAME} is the most"
            )));
        }
        if here.len() < HEAD + length {
            return Ok(None);
        }
        let from = self.start + HEAD;
        self.start = from + length;
        Ok(Some(from..from + length))
    }

    /// Reads once, at least one byte.
    pub(super) fn fill(&mut self) -> Result<(), ChannelError> {
        self.make_room();
        let count = self.receive(RecvFlags::empty())?;
        self.filled(count)
    }

    /// Reads once like [`fill`](Self::fill), but polls for a moment before it sleeps: to wake a
    /// thread on a processor that sleeps takes ten times as long as a call.
    pub(super) fn fill_soon(&mut self) -> Result<(), ChannelError> {
        if self.look()? { Ok(()) } else { self.fill() }
    }

    /// Reads once like [`fill_soon`](Self::fill_soon), within a deadline.
    pub(super) fn fill_within(&mut self, deadline: Deadline) -> Result<(), ChannelError> {
        while !self.look()? {
            deadline.wait_for(&self.stream, PollFlags::IN)?;
        }
        Ok(())
    }

    /// Polls the socket for a moment, and reads what comes; returns whether something came.
    fn look(&mut self) -> Result<bool, ChannelError> {
        self.make_room();
        let begin = Instant::now();
        while begin.elapsed() < MOMENT {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(count) => return self.filled(count).map(|()| true),
                // The other end may need this very processor.
                Err(ChannelError::TimedOut) => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn filled(&mut self, count: usize) -> Result<(), ChannelError> {
        if count == 0 {
            return Err(ChannelError::Closed);
        }
        self.end += count;
        Ok(())
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > KEPT {
                self.buffer = Vec::new();
            }
        } else if self.start > 0 && self.buffer.len() - self.end < READ {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buffer.len() - self.end < READ {
            // Doubling: the buffer grows with the bytes that come, not with the length that is
            // announced.
            self.buffer.resize((self.buffer.len() * 2).max(self.end + READ), 0);
        }
    }

    fn receive(&mut self, flags: RecvFlags) -> Result<usize, ChannelError> {
        let room = &mut self.buffer[self.end..];
        let Some(descriptors) = &mut self.descriptors else {
            return loop {
                match recv(&self.stream, &mut *room, flags) {
                    Err(Errno::INTR) => {}
                    other => break Ok(other.map_err(io::Error::from)?.0),
                }
            };
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(room)];
            let flags = flags | RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.stream, &mut parts, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                other => break other.map_err(io::Error::from)?,
            }
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                descriptors.extend(came);
            }
        }
        Ok(received.bytes)
    }
}

/// A buffer that takes slices whole: `postcard::to_extend` hands on an iterator over bytes, which
/// is a copy of memory only where the compiler sees through it.
struct Appended<'a>(&'a mut Vec<u8>);

impl Flavor for Appended<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Writes a frame into the buffer, in place of its content.
pub(super) fn encode(message: &impl Serialize, buffer: &mut Vec<u8>) -> Result<(), ChannelError> {
    buffer.clear();
    buffer.extend([0; HEAD]);
    postcard::serialize_with_flavor(message, Appended(buffer))
        .map_err(|error| ChannelError::Garbage(error.to_string()))?;
    let length = buffer.len() - HEAD;
    let number = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME);
    let number = number.ok_or(ChannelError::TooLong(length))?;
    buffer[..HEAD].copy_from_slice(&number.to_le_bytes());
    Ok(())
}

fn decode<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> Result<T, ChannelError> {
    match postcard::take_from_bytes(frame) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(ChannelError::Garbage(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(ChannelError::Garbage(error.to_string())),
    }
}

#[cfg(test)]
mod tests;

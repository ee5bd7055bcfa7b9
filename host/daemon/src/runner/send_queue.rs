//! Queue of responses to a runner, on which no sender waits.
//!
//! The bus tells a runner that its events are accepted from the thread that writes the ledger for
//! everybody: a runner that does not read must not hold that up. What the socket does not take at
//! once waits here, and the runner's service server sends it later.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    event::{EventfdFlags, PollFlags, eventfd},
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

use super::{
    channel::{ChannelError, encode},
    wire::HostResponse,
};

/// The most bytes that may wait: several times the largest value of the cache.
const MAX_WAITING: usize = 16 << 20;

/// The bytes that may wait besides for the ends of calls, which are small and must not be lost.
const MAX_ENDS: usize = 8 << 20;

/// The most descriptors that may wait: the daemon needs its own for others.
const MAX_DESCRIPTORS: usize = 32;

/// Queue of frames for one runner, sent as far as its socket takes them.
#[derive(Debug)]
pub(super) struct SendQueue {
    stream: UnixStream,
    waiting: Mutex<Waiting>,
    /// Event fd that is readable while something waits.
    event_fd: OwnedFd,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<PendingFrame>,
    bytes: usize,
    descriptors: usize,
}

#[derive(Debug)]
struct PendingFrame {
    frame: Vec<u8>,
    sent: usize,
    descriptor: Option<OwnedFd>,
}

impl SendQueue {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        let event_fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { stream, waiting: Mutex::default(), event_fd })
    }

    /// Sends a response, now or later.
    pub(super) fn send(&self, given: &HostResponse<'_>) -> Result<(), ChannelError> {
        self.post(given, None, MAX_WAITING)
    }

    /// Sends the end of a call, for which there is room when there is none for anything else.
    pub(super) fn send_end(&self, given: &HostResponse<'_>) -> Result<(), ChannelError> {
        self.post(given, None, MAX_WAITING + MAX_ENDS)
    }

    /// Sends a response together with a descriptor, now or later.
    pub(super) fn send_with(
        &self,
        given: &HostResponse<'_>,
        descriptor: OwnedFd,
    ) -> Result<(), ChannelError> {
        self.post(given, Some(descriptor), MAX_WAITING)
    }

    fn post(
        &self,
        given: &HostResponse<'_>,
        descriptor: Option<OwnedFd>,
        most: usize,
    ) -> Result<(), ChannelError> {
        let mut frame = Vec::new();
        encode(given, &mut frame)?;
        let mut waiting = self.waiting();
        let descriptors = waiting.descriptors + usize::from(descriptor.is_some());
        // One frame alone may be larger: the request that it answers would never be answered.
        let is_full = waiting.bytes > 0 && waiting.bytes + frame.len() > most;
        if is_full || descriptors > MAX_DESCRIPTORS {
            return Err(ChannelError::TimedOut);
        }
        waiting.bytes += frame.len();
        waiting.descriptors = descriptors;
        let was_empty = waiting.frames.is_empty();
        waiting.frames.push_back(PendingFrame { frame, sent: 0, descriptor });
        if was_empty {
            self.send_waiting(&mut waiting)?;
            if !waiting.frames.is_empty() {
                rustix::io::write(&self.event_fd, &1_u64.to_ne_bytes()).map_err(io::Error::from)?;
            }
        }
        Ok(())
    }

    /// Returns a descriptor that is readable while something waits.
    pub(super) fn event_fd(&self) -> BorrowedFd<'_> {
        self.event_fd.as_fd()
    }

    /// Returns the poll flags of the socket and of the event fd to wait for before
    /// [`catch_up`](Self::catch_up). The event fd is not polled while something waits for room: it
    /// would wake for ever.
    pub(super) fn awaits(&self) -> (PollFlags, PollFlags) {
        let is_behind = !self.waiting().frames.is_empty();
        if is_behind {
            (PollFlags::OUT, PollFlags::empty())
        } else {
            (PollFlags::empty(), PollFlags::IN)
        }
    }

    /// Sends the waiting frames, as far as the socket takes them.
    pub(super) fn catch_up(&self) -> Result<(), ChannelError> {
        let mut waiting = self.waiting();
        self.send_waiting(&mut waiting)?;
        if waiting.frames.is_empty() {
            // An error means that the event fd was not set.
            let _ = rustix::io::read(&self.event_fd, &mut [0; 8]);
        }
        Ok(())
    }

    fn send_waiting(&self, waiting: &mut Waiting) -> Result<(), ChannelError> {
        while let Some(frame) = waiting.frames.front_mut() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let descriptor = frame.descriptor.as_ref().map(|descriptor| [descriptor.as_fd()]);
            if let Some(descriptors) = &descriptor {
                ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let rest = [IoSlice::new(&frame.frame[frame.sent..])];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.stream, &rest, &mut ancillary, flags) {
                Ok(count) => {
                    frame.sent += count;
                    waiting.descriptors -= usize::from(frame.descriptor.take().is_some());
                    if frame.sent == frame.frame.len() {
                        waiting.bytes -= frame.sent;
                        waiting.frames.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, Timespec, poll};

    use super::*;
    use crate::runner::channel::Reader;

    #[test]
    fn who_does_not_read_holds_nobody_up() {
        let (left, right) = UnixStream::pair().expect("descriptors are left");
        let send_queue = SendQueue::new(left).expect("descriptors are left");
        let bytes = vec![7; 1 << 20];
        let mut sent = 0;
        while send_queue.send(&HostResponse::Bytes { ask: sent, bytes: &bytes }).is_ok() {
            sent += 1;
        }
        assert!((15..=17).contains(&sent), "{sent} of 1 MiB were taken, then it was full");
        let (socket, event_fd) = send_queue.awaits();
        let mut sources = [
            PollFd::new(&send_queue.stream, socket),
            PollFd::from_borrowed_fd(send_queue.event_fd(), event_fd),
        ];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(poll(&mut sources, Some(&now)), Ok(0), "there is nothing to wake for");
        let file = tempfile::tempfile().expect("a temporary file");
        let reader = std::thread::spawn(move || {
            let mut reader = Reader::with_descriptors(right);
            for number in 0..sent {
                let Ok(HostResponse::Bytes { ask, bytes }) = reader.next() else { panic!("bytes") };
                assert_eq!((ask, bytes.len()), (number, 1 << 20));
            }
            assert!(matches!(reader.next(), Ok(HostResponse::Listener { ask: 9 })));
            assert!(reader.take_descriptor().is_some());
        });
        while send_queue.awaits().0 == PollFlags::OUT {
            send_queue.catch_up().expect("it is read");
        }
        send_queue
            .send_with(&HostResponse::Listener { ask: 9 }, file.into())
            .expect("there is room");
        reader.join().expect("no panic");
    }
}

//! Answers on their way from the other end of the socket to the caller.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use lodestar_abi::{
    ModError, ReplySinkBox,
    abi_stable::std_types::{RResult, RSlice},
    error_kind,
};

use super::{error::ServeError, wire::Fault};
use crate::module::{WINDOW, is_reply};

/// A function that tells the other end that a frame of the answer of this number was read, and
/// whether anybody wants the next one.
pub(super) type Taken = Arc<dyn Fn(u64, bool) + Send + Sync>;

/// Starts a thread of this name that does this.
type StartThread = fn(String, Box<dyn FnOnce() + Send>) -> io::Result<()>;

/// The answers that are not at their end.
pub(super) struct Replies {
    open: Mutex<HashMap<u64, Reply>>,
    taken: Taken,
    start_thread: StartThread,
}

enum Reply {
    /// An answer of which nothing has come yet.
    Waiting(ReplySinkBox),
    /// An answer whose frames a thread hands on: the caller may be slow, and nobody else is to
    /// wait.
    Flowing(SyncSender<Part>),
}

impl std::fmt::Debug for Replies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replies({})", self.open().len())
    }
}

enum Part {
    Frame(Vec<u8>),
    End(Option<Fault>),
}

impl Replies {
    pub(super) fn new(taken: Taken) -> Self {
        let start_thread: StartThread =
            |name, work| std::thread::Builder::new().name(name).spawn(work).map(drop);
        Self { open: Mutex::default(), taken, start_thread }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Reply>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the sink of an answer that will come.
    pub(super) fn expect(&self, number: u64, sink: ReplySinkBox) {
        self.open().insert(number, Reply::Waiting(sink));
    }

    /// Hands a frame on. Fails when the runner sends more than it may.
    pub(super) fn frame(&self, module: &str, number: u64, bytes: &[u8]) -> Result<(), ServeError> {
        let mut open = self.open();
        let sender = match open.remove(&number) {
            // The answer has ended; a late frame is dropped.
            None => return Ok(()),
            Some(Reply::Flowing(sender)) => sender,
            Some(Reply::Waiting(sink)) => match self.flow(module, number, sink) {
                Ok(sender) => sender,
                Err(Unstarted { sink, error }) => {
                    drop(open);
                    let words = format!("no thread can be started for its answer: {error}");
                    finish(&sink, Some(Fault::new(error_kind::UNAVAILABLE, words)));
                    // The module is not to blame, and need not go on with it.
                    (self.taken)(number, false);
                    return Ok(());
                }
            },
        };
        let sent = sender.try_send(Part::Frame(bytes.to_vec()));
        if matches!(sent, Err(TrySendError::Full(_))) {
            return Err(ServeError::TooManyFrames);
        }
        open.insert(number, Reply::Flowing(sender));
        Ok(())
    }

    /// Hands the last frame of an answer on, and ends it. Fails as [`frame`](Self::frame) does.
    pub(super) fn answer(&self, module: &str, number: u64, bytes: &[u8]) -> Result<(), ServeError> {
        let mut open = self.open();
        match open.remove(&number) {
            // The answer has ended; a late frame is dropped.
            None => Ok(()),
            Some(Reply::Waiting(sink)) if is_reply(bytes) => {
                drop(open);
                // A whole answer finds room: nothing came before it.
                sink.frame(RSlice::from_slice(bytes));
                finish(&sink, None);
                Ok(())
            }
            Some(begun) => {
                open.insert(number, begun);
                drop(open);
                self.frame(module, number, bytes)?;
                self.finish(number, None);
                Ok(())
            }
        }
    }

    /// Starts the thread that hands one answer on.
    fn flow(
        &self,
        module: &str,
        number: u64,
        sink: ReplySinkBox,
    ) -> Result<SyncSender<Part>, Unstarted> {
        // Room for the frames under way and the end.
        let (sender, parts) = sync_channel(WINDOW + 1);
        // It is handed over once there is a thread: where there is none it is still here.
        let (hand_over, given) = sync_channel(1);
        let taken = self.taken.clone();
        let work = move || {
            if let Ok(sink) = given.recv() {
                hand_on(number, &sink, &parts, &taken);
            }
        };
        match (self.start_thread)(format!("reply:{module}"), Box::new(work)) {
            // It is as good as taken: the thread waits for nothing else.
            Ok(()) => drop(hand_over.send(sink)),
            Err(error) => return Err(Unstarted { sink, error }),
        }
        Ok(sender)
    }

    /// Ends an answer.
    pub(super) fn finish(&self, number: u64, fault: Option<Fault>) {
        match self.open().remove(&number) {
            Some(Reply::Waiting(sink)) => finish(&sink, fault),
            // The channel has room for the end; an error means that its thread has ended.
            Some(Reply::Flowing(sender)) => drop(sender.try_send(Part::End(fault))),
            None => {}
        }
    }

    /// Drops an answer that nobody wants.
    pub(super) fn forget(&self, number: u64) {
        let forgotten = self.open().remove(&number);
        // Not while it is locked: a sink that is dropped may have something to say.
        drop(forgotten);
    }

    /// Ends all answers with an error: nobody is left to send them, or to read them.
    pub(super) fn fail_all(&self, fault: &Fault) {
        let numbers: Vec<u64> = self.open().keys().copied().collect();
        for number in numbers {
            self.finish(number, Some(fault.clone()));
        }
    }
}

fn finish(sink: &ReplySinkBox, fault: Option<Fault>) {
    sink.finish(match fault {
        None => RResult::ROk(()),
        Some(fault) => RResult::RErr(ModError::from(fault)),
    });
}

/// An answer that no thread hands on.
struct Unstarted {
    sink: ReplySinkBox,
    error: io::Error,
}

fn hand_on(number: u64, sink: &ReplySinkBox, parts: &Receiver<Part>, taken: &Taken) {
    for part in parts {
        match part {
            Part::Frame(bytes) => {
                let wanted = sink.frame(RSlice::from_slice(&bytes));
                taken(number, wanted);
            }
            Part::End(fault) => return finish(sink, fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::module::{Answer, reply_channel};

    fn replies() -> (Replies, Receiver<(u64, bool)>) {
        let (sender, taken) = channel();
        let taking = move |number, wanted| sender.send((number, wanted)).unwrap_or(());
        (Replies::new(Arc::new(taking)), taken)
    }

    #[test]
    fn an_answer_arrives_in_order() {
        let (replies, taken) = replies();
        let (sink, mut answers, _) = reply_channel(Arc::default());
        replies.expect(1, sink);
        for number in 0..10_u8 {
            replies.frame("m", 1, &[number]).expect("it is within the window");
        }
        replies.finish(1, None);
        for number in 0..10_u8 {
            let Some(Answer::Frame(frame)) = answers.blocking_recv() else { panic!("a frame") };
            assert_eq!(frame, [number]);
            assert_eq!(taken.recv(), Ok((1, true)));
        }
        assert!(matches!(answers.blocking_recv(), Some(Answer::End(Ok(())))));
    }

    #[test]
    fn a_last_frame_is_the_end() {
        let (replies, taken) = replies();
        let last = br#"{"reply":{"data":1}}"#;
        for before in [&[][..], &[b"x"]] {
            let (sink, mut answers, _) = reply_channel(Arc::default());
            replies.expect(1, sink);
            for frame in before {
                replies.frame("m", 1, *frame).expect("it is within the window");
            }
            replies.answer("m", 1, last).expect("it is within the window");
            replies.answer("m", 1, last).expect("what is late is nobody's");
            for frame in before.iter().map(|frame| &frame[..]).chain([&last[..]]) {
                let Some(Answer::Frame(came)) = answers.blocking_recv() else { panic!("a frame") };
                assert_eq!(came, frame);
            }
            assert!(matches!(answers.blocking_recv(), Some(Answer::End(Ok(())))));
            assert!(answers.blocking_recv().is_none());
            // A frame that is the whole answer needs no word that it was taken.
            let told = if before.is_empty() { 0 } else { 2 };
            assert_eq!(taken.try_iter().count(), told);
        }
    }

    #[test]
    fn too_many_frames_are_refused_and_an_end_reaches_all() {
        let (replies, _taken) = replies();
        let (sink, answers, _) = reply_channel(Arc::default());
        let (other, mut others, _) = reply_channel(Arc::default());
        replies.expect(1, sink);
        replies.expect(2, other);
        // Nobody reads: 16 frames wait for the client, and as many for the thread.
        let refused = (0..200).find_map(|_| replies.frame("m", 1, b"x").err());
        assert!(refused.is_some_and(|reason| reason.to_string().contains("16 frames")));
        replies.fail_all(&Fault::new(error_kind::FAILED, "its process was ended"));
        let Some(Answer::End(Err(error))) = others.blocking_recv() else { panic!("the end") };
        assert_eq!(error.message, "its process was ended");
        drop(answers);
    }

    #[test]
    fn where_there_is_no_thread_whoever_asked_learns_why() {
        let (mut replies, taken) = replies();
        replies.start_thread = |_, _| Err(io::ErrorKind::WouldBlock.into());
        let (sink, mut answers, _) = reply_channel(Arc::default());
        replies.expect(1, sink);
        replies.frame("m", 1, b"part").expect("the module is not to blame");
        let Some(Answer::End(Err(error))) = answers.blocking_recv() else { panic!("the end") };
        let words = error.message.as_str();
        assert!(words.starts_with("no thread can be started for its answer: "), "{words}");
        assert_eq!(taken.recv(), Ok((1, false)), "the module need not go on");
        replies.frame("m", 1, b"late").expect("it is nobody's");
    }
}

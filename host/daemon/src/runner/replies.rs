//! Answers of commands on their way from a runner to whoever asked.

use std::{
    collections::HashMap,
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

use super::{
    back::Back,
    wire::{Fault, Given, WINDOW},
};

/// The answers that are not at their end.
#[derive(Debug, Default)]
pub(super) struct Replies {
    open: Mutex<HashMap<u64, Reply>>,
}

enum Reply {
    /// Nothing came yet.
    Waiting(ReplySinkBox),
    /// A thread hands the frames on: whoever asked may be slow, and nobody else shall wait.
    Flowing(SyncSender<Part>),
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiting(_) => "Waiting",
            Self::Flowing(_) => "Flowing",
        })
    }
}

enum Part {
    Frame(Vec<u8>),
    End(Option<Fault>),
}

impl Replies {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Reply>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expects an answer.
    pub(super) fn expect(&self, number: u64, sink: ReplySinkBox) {
        self.open().insert(number, Reply::Waiting(sink));
    }

    /// Hands a frame on. Fails when the runner sends more than it may.
    pub(super) fn frame(
        &self,
        module: &str,
        number: u64,
        bytes: &[u8],
        back: &Arc<Back>,
    ) -> Result<(), String> {
        let mut open = self.open();
        let sender = match open.remove(&number) {
            // Its answer has ended; what is late is nobody's.
            None => return Ok(()),
            Some(Reply::Flowing(sender)) => sender,
            Some(Reply::Waiting(sink)) => flow(module, number, sink, back.clone())?,
        };
        let sent = sender.try_send(Part::Frame(bytes.to_vec()));
        if matches!(sent, Err(TrySendError::Full(_))) {
            return Err(format!("it sent more than {WINDOW} frames of an answer at once"));
        }
        open.insert(number, Reply::Flowing(sender));
        Ok(())
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

    /// Ends all answers: nobody is left to give them.
    pub(super) fn fail_all(&self, reason: &str) {
        let numbers: Vec<u64> = self.open().keys().copied().collect();
        for number in numbers {
            self.finish(number, Some(Fault::new(error_kind::FAILED, reason)));
        }
    }
}

fn finish(sink: &ReplySinkBox, fault: Option<Fault>) {
    sink.finish(match fault {
        None => RResult::ROk(()),
        Some(fault) => RResult::RErr(ModError::from(fault)),
    });
}

/// Starts the thread that hands one answer on.
fn flow(
    module: &str,
    number: u64,
    sink: ReplySinkBox,
    back: Arc<Back>,
) -> Result<SyncSender<Part>, String> {
    // Room for the frames under way and the end.
    let (sender, parts) = sync_channel(WINDOW + 1);
    let thread = std::thread::Builder::new().name(format!("reply:{module}"));
    thread
        .spawn(move || hand_on(number, &sink, &parts, &back))
        .map_err(|error| format!("no thread can be started for an answer: {error}"))?;
    Ok(sender)
}

fn hand_on(number: u64, sink: &ReplySinkBox, parts: &Receiver<Part>, back: &Back) {
    for part in parts {
        match part {
            Part::Frame(bytes) => {
                let wanted = sink.frame(RSlice::from_slice(&bytes));
                let taken = Given::FrameTaken { number, wanted };
                // An error means that the runner is gone, which its desk sees as well.
                let _ = back.send(&taken);
            }
            Part::End(fault) => return finish(sink, fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::{
        module::{Answer, reply_channel},
        runner::channel::Reader,
    };

    fn back() -> (Arc<Back>, Reader) {
        let (left, right) = UnixStream::pair().expect("descriptors are left");
        (Arc::new(Back::new(left).expect("descriptors are left")), Reader::new(right))
    }

    #[test]
    fn an_answer_arrives_in_order() {
        let (replies, (back, mut reader)) = (Replies::default(), back());
        let (sink, mut answers, _) = reply_channel(Arc::default());
        replies.expect(1, sink);
        for number in 0..10_u8 {
            replies.frame("m", 1, &[number], &back).expect("it is within the window");
        }
        replies.finish(1, None);
        for number in 0..10_u8 {
            let Some(Answer::Frame(frame)) = answers.blocking_recv() else { panic!("a frame") };
            assert_eq!(frame, [number]);
            assert!(matches!(reader.next(), Ok(Given::FrameTaken { number: 1, wanted: true })));
        }
        assert!(matches!(answers.blocking_recv(), Some(Answer::End(Ok(())))));
    }

    #[test]
    fn too_many_frames_are_refused_and_an_end_reaches_all() {
        let (replies, (back, _reader)) = (Replies::default(), back());
        let (sink, answers, _) = reply_channel(Arc::default());
        let (other, mut others, _) = reply_channel(Arc::default());
        replies.expect(1, sink);
        replies.expect(2, other);
        // Nobody reads: 16 frames wait for the client, and as many for the thread.
        let refused = (0..200).find_map(|_| replies.frame("m", 1, b"x", &back).err());
        assert!(refused.is_some_and(|reason| reason.contains("16 frames")));
        replies.fail_all("its process was ended");
        let Some(Answer::End(Err(error))) = others.blocking_recv() else { panic!("the end") };
        assert_eq!(error.message, "its process was ended");
        drop(answers);
    }
}

//! Answers of commands, from the module's side.
//!
//! A short answer that is whole before the command returns goes with the reply to the call, which
//! saves waking two threads. It may not overtake what the module asked of the host before: where
//! something of that is on its way, the answer follows it over the same socket.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lodestar_abi::{
    ModError, ReplySink, ReplySink_TO, ReplySinkBox,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{RResult, RSlice},
    },
    error_kind,
};

use super::link::Link;
use crate::module::{Window, is_reply};
use crate::runner::{
    channel::ChannelError,
    wire::{Fault, HostRequest},
};

/// Largest answer in bytes that goes with the reply.
const MAX_RETURNED: usize = 64 << 10;

/// Creates the sink of a command's answer; `met` is the number of [`HostRequest`]s the daemon had
/// met when it asked.
pub(super) fn sink(link: &Arc<Link>, number: u64, met: u64) -> (ReplySinkBox, Arc<Answer>) {
    let state = State { phase: Phase::Called, fault: None, panic: None };
    let answer = Arc::new(Answer {
        link: link.clone(),
        number,
        met,
        window: link.windows.open(number),
        state: Mutex::new(state),
    });
    (ReplySink_TO::from_value(Sink(answer.clone()), TD_Opaque), answer)
}

/// State of an answer when its command returned.
pub(super) enum Returned {
    /// Its answer came, or will come, by itself.
    Nothing,
    /// This frame is its answer.
    Answer(Vec<u8>),
    /// It panicked; the answer that says so came by itself.
    Panic(Fault),
}

/// One answer.
pub(super) struct Answer {
    link: Arc<Link>,
    number: u64,
    met: u64,
    window: Arc<Window>,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Error of the answer that was found on the way.
    fault: Option<Fault>,
    panic: Option<Fault>,
}

/// Progress of an answer.
enum Phase {
    /// The command has not returned yet.
    Called,
    /// The command has not returned yet either, and this is its answer.
    Held(Vec<u8>),
    /// The command has returned.
    Returned,
    Ended,
}

impl Answer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the command left; from now on the answer comes by itself.
    pub(super) fn returned(&self) -> Returned {
        let mut state = self.state();
        if let Some(fault) = state.panic.take() {
            return Returned::Panic(fault);
        }
        match std::mem::replace(&mut state.phase, Phase::Ended) {
            Phase::Called => state.phase = Phase::Returned,
            Phase::Held(bytes) => {
                drop(state);
                self.link.windows.close(self.number, &self.window);
                return Returned::Answer(bytes);
            }
            phase @ (Phase::Returned | Phase::Ended) => state.phase = phase,
        }
        Returned::Nothing
    }

    fn frame(&self, bytes: &[u8]) -> bool {
        // What comes after the answer is read by nobody: it would fill the window for good. After
        // a lost part nothing follows but the error.
        if !self.is_open() || !self.window.enter() {
            return false;
        }
        let mut state = self.state();
        let (number, is_last) = (self.number, is_reply(bytes));
        if is_last
            && bytes.len() <= MAX_RETURNED
            && matches!(state.phase, Phase::Called)
            && self.link.is_met(self.met)
        {
            state.phase = Phase::Held(bytes.to_vec());
            return true;
        }
        drop(state);
        let need = match is_last {
            true => HostRequest::Answer { number, bytes },
            false => HostRequest::Frame { number, bytes },
        };
        match self.link.send(&need) {
            Ok(()) => {
                if is_last {
                    self.end_with(|_| ());
                }
                true
            }
            Err(ChannelError::TooLong(bytes)) => {
                let reason = format!("a frame of its answer has {bytes} bytes, which is too long");
                self.state().fault = Some(Fault::new(error_kind::FAILED, reason));
                false
            }
            Err(_) => false,
        }
    }

    /// Returns whether the answer may go on: it is neither held nor at its end, and lost no part.
    fn is_open(&self) -> bool {
        let state = self.state();
        matches!(state.phase, Phase::Called | Phase::Returned) && state.fault.is_none()
    }

    fn finish(&self, fault: Option<Fault>) {
        if let Some(fault) = &fault {
            let mut state = self.state();
            if fault.kind == error_kind::PANIC {
                state.panic.get_or_insert_with(|| fault.clone());
            }
            if matches!(state.phase, Phase::Held(_)) {
                state.phase = Phase::Called;
            }
        }
        self.end(fault);
    }

    fn end(&self, fault: Option<Fault>) {
        self.end_with(|found| {
            // An error means that the daemon is gone, and this process will be.
            let fault = found.or(fault);
            let _ = self.link.send(&HostRequest::Finish { number: self.number, fault });
        });
    }

    /// Ends the answer where it is not at its end; `tell` is told what was found to be wrong.
    fn end_with(&self, tell: impl FnOnce(Option<Fault>)) {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Called | Phase::Returned) {
            return;
        }
        state.phase = Phase::Ended;
        let found = state.fault.take();
        drop(state);
        self.link.windows.close(self.number, &self.window);
        tell(found);
    }
}

/// Sink that the module writes to.
struct Sink(Arc<Answer>);

impl ReplySink for Sink {
    fn frame(&self, frame: RSlice<'_, u8>) -> bool {
        self.0.frame(frame.as_slice())
    }

    fn finish(&self, result: RResult<(), ModError>) {
        self.0.finish(result.into_result().err().map(|error| Fault::from(&error)));
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Dropped without an end, the answer ends as it does in the daemon.
        self.0.end(None);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use module_sdk::manifest::Manifest;

    use super::*;
    use crate::runner::channel::Reader;

    const REPLY: &[u8] = br#"{"reply":{"data":1}}"#;

    fn link() -> (Arc<Link>, Reader) {
        let (here, daemon) = UnixStream::pair().expect("descriptors are left");
        let manifest = Manifest::parse(
            "[module]\nname = \"m\"\nversion = \"1.0.0\"\ndescription = \"A module.\"\n\
             [abi]\nepoch = 1\n",
        );
        (Link::new(here, manifest.expect("it is valid")), Reader::new(daemon))
    }

    fn answer(sink: &ReplySinkBox) {
        assert!(sink.frame(REPLY.into()));
        sink.finish(RResult::ROk(()));
    }

    /// Returns the number and the length of the answer that came.
    fn came(daemon: &mut Reader) -> (u64, usize) {
        match daemon.next().expect("something comes") {
            HostRequest::Answer { number, bytes } => (number, bytes.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_whole_answer_goes_with_the_reply() {
        let (link, mut daemon) = link();
        let (sink, left) = sink(&link, 1, 0);
        answer(&sink);
        assert!(matches!(left.returned(), Returned::Answer(bytes) if bytes == REPLY));
        drop(sink);
        link.send(&HostRequest::CancelCall(7)).expect("it is read");
        // Nothing came before.
        assert!(matches!(daemon.next(), Ok(HostRequest::CancelCall(7))));
    }

    #[test]
    fn an_answer_overtakes_nothing_that_was_asked_before() {
        let (link, mut daemon) = link();
        link.send(&HostRequest::CancelCall(7)).expect("it is read");
        for (number, met) in [(1, 0), (2, 1)] {
            let (sink, left) = sink(&link, number, met);
            answer(&sink);
            assert!(matches!(left.returned(), Returned::Nothing));
        }
        assert!(matches!(daemon.next(), Ok(HostRequest::CancelCall(7))));
        assert_eq!(came(&mut daemon), (1, REPLY.len()));
        assert_eq!(came(&mut daemon), (2, REPLY.len()), "the first answer was not met");
        let (sink, left) = sink(&link, 3, 3);
        answer(&sink);
        assert!(matches!(left.returned(), Returned::Answer(_)), "all was met");
    }

    #[test]
    fn what_comes_after_an_answer_is_refused() {
        let (link, mut daemon) = link();
        for (number, returns) in [(1, false), (2, true)] {
            let (sink, left) = sink(&link, number, 0);
            if returns {
                assert!(matches!(left.returned(), Returned::Nothing));
            }
            assert!(sink.frame(REPLY.into()));
            for _ in 0..32 {
                assert!(!sink.frame(RSlice::from_slice(b"more")));
            }
        }
        assert_eq!(came(&mut daemon), (2, REPLY.len()));
    }

    #[test]
    fn an_answer_that_lost_a_part_ends_with_its_error() {
        let (link, mut daemon) = link();
        let (sink, left) = sink(&link, 1, 0);
        assert!(!sink.frame(vec![b' '; crate::runner::wire::MAX_FRAME].as_slice().into()));
        assert!(!sink.frame(REPLY.into()));
        sink.finish(RResult::ROk(()));
        assert!(matches!(left.returned(), Returned::Nothing));
        let Ok(HostRequest::Finish { fault: Some(fault), .. }) = daemon.next() else {
            panic!("it ends with its error")
        };
        assert!(fault.message.contains("too long"), "{fault:?}");
    }

    #[test]
    fn a_late_or_long_answer_comes_by_itself() {
        let (link, mut daemon) = link();
        let (late, left) = sink(&link, 1, 0);
        assert!(matches!(left.returned(), Returned::Nothing));
        answer(&late);
        assert_eq!(came(&mut daemon), (1, REPLY.len()));
        let (long, left) = sink(&link, 2, 1);
        let bytes = [REPLY, &vec![b' '; MAX_RETURNED]].concat();
        assert!(long.frame(bytes.as_slice().into()));
        assert!(matches!(left.returned(), Returned::Nothing));
        assert_eq!(came(&mut daemon), (2, bytes.len()));
    }

    #[test]
    fn a_panic_is_told_and_is_no_answer() {
        let (link, mut daemon) = link();
        let (sink, left) = sink(&link, 1, 0);
        assert!(sink.frame(REPLY.into()));
        let error =
            ModError { kind: error_kind::PANIC, message: "no".into(), place: "echo".into() };
        sink.finish(RResult::RErr(error));
        assert!(matches!(left.returned(), Returned::Panic(fault) if fault.message == "no"));
        let Ok(HostRequest::Finish { number: 1, fault: Some(fault) }) = daemon.next() else {
            panic!("the end")
        };
        assert_eq!(fault.kind, error_kind::PANIC);
    }
}

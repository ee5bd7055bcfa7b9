//! The module's thread in a runner, which serves one call after the other.

use std::{os::fd::OwnedFd, sync::Arc};

use lodestar_abi::{
    BatchOutcome, CreateRequest, Event as AbiEvent, ModError, ModuleBox,
    abi_stable::std_types::{ROption, RSlice, RVec},
    error_kind,
};
use lodestar_library::Library;

use super::{
    answers::{self, Returned},
    end_at_once,
    link::Link,
};
use crate::{
    module::with_files,
    runner::{
        channel::{ChannelError, Reader, Writer},
        wire::{Event, Fault, Outcome, Reply, RunnerRequest},
    },
};

/// State of the thread.
pub(super) struct Calls {
    library: Arc<Library>,
    asks: Reader,
    replies: Writer,
    link: Arc<Link>,
}

/// Result of a call, before it is sent.
enum Done {
    Nothing,
    Bytes(RVec<u8>),
    /// The answer of a command.
    Answer(Vec<u8>),
    Batch(BatchOutcome),
    Refused(ModError),
}

impl Calls {
    pub(super) fn new(
        library: Arc<Library>,
        asks: Reader,
        replies: Writer,
        link: Arc<Link>,
    ) -> Self {
        Self { library, asks, replies, link }
    }

    /// Serves the daemon until it asks for the end.
    pub(super) fn run(self) -> ! {
        let Self { library, mut asks, mut replies, link } = self;
        link.is_served_by_this_thread();
        let mut module: Option<ModuleBox> = None;
        loop {
            let Ok((ask, files)) = asks.next_with_descriptor::<RunnerRequest<'_>>() else {
                end_at_once()
            };
            let is_last = matches!(ask, RunnerRequest::Stop(_));
            link.begin_call();
            let done = serve(&library, &link, &mut module, (ask, files));
            if is_last {
                module = None;
            }
            let (heap, records) = link.end_call();
            if reply(&mut replies, heap, records, &done).is_err() {
                end_at_once();
            }
            if is_last {
                drop(module);
                std::process::exit(0);
            }
        }
    }
}

fn serve(
    library: &Library,
    link: &Arc<Link>,
    module: &mut Option<ModuleBox>,
    (ask, files): (RunnerRequest<'_>, Option<OwnedFd>),
) -> Done {
    let root = library.root();
    let ask = match ask {
        RunnerRequest::Describe => return bytes((root.describe())().into_result()),
        RunnerRequest::Validate(config) => {
            return nothing((root.validate())(config.into()).into_result());
        }
        RunnerRequest::Create { config, restored, info } => {
            link.learn(info);
            let request = CreateRequest {
                config: RSlice::from_slice(config),
                restored: RSlice::from_slice(restored),
                reserved: [0; 4],
            };
            let created = (root.create())(request, link.to_abi()).into_result();
            return nothing(created.map(|created| *module = Some(created)));
        }
        ask => ask,
    };
    match module {
        Some(module) => call(module, link, ask, files),
        None => Done::Refused(ModError {
            kind: error_kind::UNAVAILABLE,
            message: "the module has not been started".into(),
            place: "".into(),
        }),
    }
}

fn call(
    module: &mut ModuleBox,
    link: &Arc<Link>,
    ask: RunnerRequest<'_>,
    files: Option<OwnedFd>,
) -> Done {
    match ask {
        RunnerRequest::Batch(events) => {
            let events: Vec<AbiEvent<'_>> = events.iter().map(Event::to_abi).collect();
            Done::Batch(module.on_batch(RSlice::from_slice(&events)))
        }
        RunnerRequest::Timer(index) => nothing(module.on_timer(index).into_result()),
        RunnerRequest::Command { files: true, .. } if files.is_none() => Done::Refused(ModError {
            kind: error_kind::UNAVAILABLE,
            message: "the files did not come; are descriptors left?".into(),
            place: "".into(),
        }),
        RunnerRequest::Command { number, met, request, .. } => {
            let (sink, answer) = answers::sink(link, number, met);
            module.command((&*with_files(request, files)).into(), sink);
            match answer.returned() {
                Returned::Nothing => Done::Nothing,
                Returned::Answer(bytes) => Done::Answer(bytes),
                // The daemon must know before the next call that this instance is of no more use.
                Returned::Panic(fault) => Done::Refused(fault.into()),
            }
        }
        RunnerRequest::Health => Done::Bytes(module.health()),
        RunnerRequest::LogLevel(level) => {
            link.set_log_level(level);
            module.log_level(level);
            Done::Nothing
        }
        RunnerRequest::Snapshot => bytes(module.snapshot().into_result()),
        RunnerRequest::Stop(grace) => nothing(module.stop(grace).into_result()),
        RunnerRequest::Describe | RunnerRequest::Validate(_) | RunnerRequest::Create { .. } => {
            Done::Nothing
        }
    }
}

fn nothing(result: Result<(), ModError>) -> Done {
    result.map_or_else(Done::Refused, |()| Done::Nothing)
}

fn bytes(result: Result<RVec<u8>, ModError>) -> Done {
    result.map_or_else(Done::Refused, Done::Bytes)
}

fn reply(
    replies: &mut Writer,
    heap: u64,
    records: Vec<(u64, f64)>,
    done: &Done,
) -> Result<(), ChannelError> {
    let outcome = match done {
        Done::Nothing => Outcome::Done,
        Done::Bytes(bytes) => Outcome::Bytes(bytes.as_slice()),
        Done::Answer(bytes) => Outcome::Answer(bytes),
        Done::Batch(BatchOutcome { handled, error }) => Outcome::Batch {
            handled: *handled,
            fault: match error {
                ROption::RSome(error) => Some(Fault::from(error)),
                ROption::RNone => None,
            },
        },
        Done::Refused(error) => Outcome::Refused(Fault::from(error)),
    };
    match replies.send(&Reply { heap, records, outcome }) {
        Err(ChannelError::TooLong(bytes)) => {
            let reason = format!("its answer of {bytes} bytes is too long");
            let outcome = Outcome::Refused(Fault::new(error_kind::FAILED, reason));
            replies.send(&Reply { heap, records: Vec::new(), outcome })
        }
        other => other,
    }
}

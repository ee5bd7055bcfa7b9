//! A module that runs in a process of its own, as its thread in the daemon sees it.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use lodestar_abi::{
    BatchOutcome, Event as AbiEvent, ModError, ReplySinkBox,
    abi_stable::std_types::{RNone, RSome},
    error_kind,
};
use module_sdk::Health;

use super::{
    channel::{ChannelError, Deadline, Reader, Writer},
    process_exit::ProcessExit,
    service_server::{BoundModule, Runner},
    wire::{Event, Fault, Outcome, Reply, RunnerRequest},
};
use crate::module::{GONE, Instance, ProcessView};

/// The most bytes of events in one frame; one event may be longer.
const BATCH_BYTES: usize = 8 << 20;

/// Time that a process may take to end once its socket is closed.
const REAP_DEADLINE: Duration = Duration::from_secs(5);

/// Time that a process may take to end once its module has stopped.
const EXIT: Duration = Duration::from_secs(1);

/// The daemon's end of one runner. Dropping it ends the process.
#[derive(Debug)]
pub struct Remote {
    runner: Arc<Runner>,
    writer: Writer,
    reader: Reader,
    /// Description of how far the sandbox holds.
    sandbox: String,
    deadline: Duration,
    commands: u64,
}

impl Remote {
    pub(super) fn new(
        runner: Arc<Runner>,
        writer: Writer,
        reader: Reader,
        sandbox: String,
        deadline: Duration,
    ) -> Self {
        Self { runner, writer, reader, sandbox, deadline, commands: 0 }
    }

    pub(super) fn exit(&self) -> Option<ProcessExit> {
        self.runner.process.exit()
    }

    pub(super) fn describe(&mut self, deadline: Duration) -> Result<Vec<u8>, ModError> {
        self.bytes("description", deadline, &RunnerRequest::Describe)
    }

    pub(super) fn validate(&mut self, config: &[u8], deadline: Duration) -> Result<(), ModError> {
        self.done("validation", deadline, &RunnerRequest::Validate(config))
    }

    /// Starts the module: from now on it may ask the host for its services.
    pub(super) fn create(
        &mut self,
        bound: BoundModule,
        (config, restored, info): (&[u8], &[u8], &[u8]),
        deadline: Duration,
    ) -> Result<(), ModError> {
        let (entry, generation) = (bound.entry.clone(), bound.services.generation());
        drop(self.runner.bound.set(bound));
        self.done("start", deadline, &RunnerRequest::Create { config, restored, info })?;
        let in_force = self.runner.process.in_force();
        entry.add_process(ProcessView {
            pid: self.runner.process.pid(),
            generation,
            memory_limit: in_force.memory_in_words(),
            cpu_limit: in_force.cpu_in_words(),
            tasks_limit: in_force.tasks_in_words(),
            data_limit: in_force.data_in_words(),
            limits_without_group: in_force.without_group(),
            sandbox: self.sandbox.clone(),
        });
        Ok(())
    }

    /// Makes one call: the runner replies within the deadline, or its process ends.
    fn ask<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        ask: &RunnerRequest<'_>,
        take: impl FnOnce(Outcome<'_>) -> Option<T>,
    ) -> Result<T, ModError> {
        self.ask_with(what, deadline, (ask, None), take)
    }

    /// Makes one call like [`ask`](Self::ask), with a descriptor for it.
    fn ask_with<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        (ask, descriptor): (&RunnerRequest<'_>, Option<OwnedFd>),
        take: impl FnOnce(Outcome<'_>) -> Option<T>,
    ) -> Result<T, ModError> {
        if let Some(exit) = self.exit() {
            return Err(error(&exit, what));
        }
        let Self { runner, writer, reader, .. } = self;
        let until = Deadline::after(deadline);
        let sent = match &descriptor {
            Some(descriptor) => writer.send_with(ask, descriptor.as_fd(), until),
            None => writer.send_within(ask, until),
        };
        // The runner has its own by now, and sees the end of a pipe only where nobody else has it.
        drop(descriptor);
        let replied = sent.and_then(|()| next_within(reader, until));
        match replied {
            Ok(Reply { heap, records, outcome }) => {
                if let Some(bound) = runner.bound.get() {
                    bound.host.heap_bytes(heap);
                    for (handle, value) in records {
                        runner.record(bound, handle, value);
                    }
                }
                if let Outcome::Refused(fault) = outcome {
                    return Err(fault.into());
                }
                take(outcome).ok_or_else(|| {
                    let wrong = ChannelError::Garbage("another answer than asked for".to_owned());
                    error(&lost(runner, what, &wrong), what)
                })
            }
            Err(ChannelError::TooLong(bytes)) => Err(ModError {
                kind: error_kind::FAILED,
                message: format!("{bytes} bytes are too much for a call of a module").into(),
                place: what.into(),
            }),
            Err(ChannelError::TimedOut) => {
                // A start and a stop have deadlines of their own.
                let limit =
                    if deadline == self.deadline { " (limits.call_deadline_ms)" } else { "" };
                let millis = deadline.as_millis();
                let reason = format!(
                    "it did not return within {millis} ms{limit}, and its process was ended"
                );
                runner.process.kill_with_reason(reason);
                Err(error(&await_exit(runner), what))
            }
            Err(wrong) => Err(error(&lost(runner, what, &wrong), what)),
        }
    }

    fn done(
        &mut self,
        what: &str,
        deadline: Duration,
        ask: &RunnerRequest<'_>,
    ) -> Result<(), ModError> {
        self.ask(what, deadline, ask, |outcome| matches!(outcome, Outcome::Done).then_some(()))
    }

    fn bytes(
        &mut self,
        what: &str,
        deadline: Duration,
        ask: &RunnerRequest<'_>,
    ) -> Result<Vec<u8>, ModError> {
        self.ask(what, deadline, ask, |outcome| match outcome {
            Outcome::Bytes(bytes) => Some(bytes.to_vec()),
            _ => None,
        })
    }

    /// Sends one frame of events; returns how many are handled, and the error of the next one.
    fn hand_over(&mut self, events: &[AbiEvent<'_>]) -> (u32, Option<ModError>) {
        let ask = RunnerRequest::Batch(events.iter().map(Event::from).collect());
        let outcome = self.ask("handler", self.deadline, &ask, |outcome| match outcome {
            Outcome::Batch { handled, fault } => Some((handled, fault)),
            _ => None,
        });
        match outcome {
            Ok((handled, fault)) => (handled, fault.map(Fault::into)),
            Err(error) => (0, Some(error)),
        }
    }
}

impl Instance for Remote {
    fn on_batch(&mut self, events: &[AbiEvent<'_>]) -> BatchOutcome {
        let mut done = 0;
        while done < events.len() {
            let rest = &events[done..];
            let count = how_many_fit(rest);
            let (handled, error) = self.hand_over(&rest[..count]);
            let handled = (handled as usize).min(count);
            done += handled;
            if let Some(error) = error {
                return outcome(done, Some(error));
            }
            if handled < count {
                // The reply says neither that they are handled nor why not: they come again.
                let reason = format!("{handled} of {count} events were handled, without a reason");
                let error = ModError {
                    kind: error_kind::FAILED,
                    message: reason.into(),
                    place: "handler".into(),
                };
                return outcome(done, Some(error));
            }
        }
        outcome(done, None)
    }

    fn on_timer(&mut self, index: u32) -> Result<(), ModError> {
        self.done("timer", self.deadline, &RunnerRequest::Timer(index))
    }

    fn command(
        &mut self,
        request: &[u8],
        sink: ReplySinkBox,
        files: Option<OwnedFd>,
    ) -> Result<(), ModError> {
        self.commands += 1;
        let number = self.commands;
        self.runner.replies.expect(number, sink);
        let met = self.runner.met.load(Ordering::Acquire);
        let ask = RunnerRequest::Command { number, met, request, files: files.is_some() };
        let ask = (&ask, files);
        let asked = self.ask_with("command", self.deadline, ask, |outcome| match outcome {
            Outcome::Done => Some(None),
            Outcome::Answer(bytes) => Some(Some(bytes.to_vec())),
            _ => None,
        });
        match asked {
            Ok(Some(bytes)) => {
                let Runner { name, replies, process, .. } = &*self.runner;
                if let Err(reason) = replies.answer(name, number, &bytes) {
                    process.kill_with_reason(reason.to_string());
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            // The answer that says so is on its way.
            Err(error) if error.kind == error_kind::PANIC && self.exit().is_none() => Err(error),
            Err(error) => {
                // A process that is gone is no panic: the end of the process is seen by itself.
                let fault = Fault::new(error_kind::FAILED, error.message.as_str());
                self.runner.replies.finish(number, Some(fault));
                Ok(())
            }
        }
    }

    fn health(&mut self) -> Vec<u8> {
        let health = self.bytes("health", self.deadline, &RunnerRequest::Health);
        health.unwrap_or_else(|error| {
            serde_json::to_vec(&Health::failed(error.message.as_str())).unwrap_or_default()
        })
    }

    fn log_level(&mut self, level: u32) {
        // An error means that its process has ended, which the next call reports.
        let _ = self.done("log level", self.deadline, &RunnerRequest::LogLevel(level));
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, ModError> {
        self.bytes("snapshot", self.deadline, &RunnerRequest::Snapshot)
    }

    fn stop(&mut self, grace: Duration) -> Result<(), ModError> {
        if self.exit().is_some() {
            return Ok(());
        }
        let millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let stopped = self.done("stop", grace, &RunnerRequest::Stop(millis));
        if self.exit().is_none() {
            self.runner.process.leave();
            if self.runner.process.wait_for_exit(EXIT).is_none() {
                self.runner.process.kill_with_reason("it did not end after its stop".to_owned());
                await_exit(&self.runner);
            }
        }
        stopped
    }

    fn gone(&self) -> Option<ModError> {
        self.exit().map(|exit| error(&exit, ""))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if self.exit().is_none() {
            self.runner.process.leave();
            self.runner.process.kill_with_reason("it is not needed any more".to_owned());
            await_exit(&self.runner);
        }
        if let Some(bound) = self.runner.bound.get() {
            bound.entry.forget_process(self.runner.process.pid());
        }
    }
}

/// Returns why a module's process ended, as an error of the call `what`.
fn error(exit: &ProcessExit, what: &str) -> ModError {
    let kind = if exit.blamed { error_kind::PANIC } else { GONE };
    ModError { kind, message: exit.reason.as_str().into(), place: what.into() }
}

/// Returns why the socket cannot be used any more, and makes sure that the process ends.
pub(super) fn lost(runner: &Runner, what: &str, error: &ChannelError) -> ProcessExit {
    match error {
        // It has ended, or its service server will end it.
        ChannelError::Closed | ChannelError::System(_) => {}
        ChannelError::TimedOut => {
            runner.process.kill_with_reason(format!("its {what} did not come in time"));
        }
        ChannelError::Garbage(_) | ChannelError::TooLong(_) => {
            runner.process.kill_with_reason(format!("it sent garbage: {error}"));
        }
    }
    await_exit(runner)
}

fn await_exit(runner: &Runner) -> ProcessExit {
    if let Some(exit) = runner.process.wait_for_exit(REAP_DEADLINE) {
        return exit;
    }
    runner.process.kill_with_reason("it closed its socket and went on".to_owned());
    let exit = runner.process.wait_for_exit(REAP_DEADLINE);
    exit.unwrap_or_else(|| ProcessExit {
        reason: format!("its process {} cannot be ended", runner.process.pid()),
        blamed: true,
    })
}

/// Returns the next reply; bytes that trickle in do not extend the deadline.
fn next_within(reader: &mut Reader, deadline: Deadline) -> Result<Reply<'_>, ChannelError> {
    while !reader.has_frame()? {
        reader.fill_within(deadline)?;
    }
    reader.next()
}

fn how_many_fit(events: &[AbiEvent<'_>]) -> usize {
    let mut bytes = 0;
    let fit = events.iter().take_while(|event| {
        bytes += event.data.len() + event.subject.len() + event.topic.len();
        bytes <= BATCH_BYTES
    });
    fit.count().max(1)
}

fn outcome(handled: usize, error: Option<ModError>) -> BatchOutcome {
    BatchOutcome {
        handled: u32::try_from(handled).unwrap_or(u32::MAX),
        error: error.map_or(RNone, RSome),
    }
}

//! Main loop of a running module: its calls, timers, events and health, in turn.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use lodestar_abi::{
    BatchOutcome, Event as AbiEvent, FLAG_LEDGER, ModError, abi_stable::std_types::ROption,
    error_kind,
};
use lodestar_bus::{Delivery, Failure, FailureKind};
use module_sdk::{Class, HealthStatus, manifest::ReloadMode};

use super::{
    Call, CommandCall, Entry, GONE, State, Tasks, Work, generation, handover::PauseRequest,
    image::Instance, thread::enter, worker::Worker,
};

/// The most events that one call hands over.
const BATCH: usize = 256;

/// Period of health checks for an idle module.
const HEALTH_PERIOD: Duration = Duration::from_secs(10);

/// Shortest time between two health checks of a busy module.
const HEALTH_SPACING: Duration = Duration::from_millis(500);

/// Time for which a thread that has ended may still be seen.
const EXIT_GRACE: Duration = Duration::from_millis(50);

/// Reason why a module's instance is left.
pub(super) enum ExitReason {
    Stop,
    Panic(String),
    /// End of the module's process by somebody else.
    Gone(String),
    /// A successor's request to pause.
    PauseRequest(PauseRequest),
    /// Stop of the module so that its successor can start, with the module's state.
    HandOver(PauseRequest, Vec<u8>),
    /// Start of the successor, which took over.
    Replaced,
}

/// A running module.
pub(super) struct EventLoop<'a, 'b> {
    worker: &'b mut Worker<'a>,
    instance: Box<dyn Instance>,
    /// Name, period and next time of each timer.
    timers: Vec<(String, Duration, Instant)>,
    next_health: Instant,
    last_health: Option<Instant>,
    /// Last word of the module on its health, as it gave it.
    said: Vec<u8>,
}

impl<'a, 'b> EventLoop<'a, 'b> {
    pub(super) fn new(worker: &'b mut Worker<'a>, instance: Box<dyn Instance>) -> Self {
        let now = Instant::now();
        let known = worker.entry().known();
        let timers = known.iter().flat_map(|known| &known.description.timers).map(|timer| {
            let period = Duration::from_millis(timer.every_ms);
            (timer.name.clone(), period, now + period)
        });
        let timers = timers.collect();
        Self { worker, instance, timers, next_health: now, last_health: None, said: Vec::new() }
    }

    pub(super) fn entry(&self) -> &'a Entry {
        self.worker.entry()
    }

    pub(super) fn run(&mut self) -> ExitReason {
        loop {
            if let Some(error) = self.instance.gone() {
                return self.gone(&error);
            }
            let work = self.calls().or_else(|| self.timers()).or_else(|| self.events());
            // What waited for the events just handled is answered before this thread sleeps.
            if let Some(leave) = work.or_else(|| self.calls()) {
                return leave;
            }
            self.refresh_health();
            let wake = self.next_wake();
            self.worker.look_at_probation();
            self.worker.inbox().wait(wake);
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let timers = self.timers.iter().map(|(_, _, due)| *due);
        let others =
            [Some(self.next_health), self.entry().calls.patience(), self.worker.probation_ends()];
        timers.chain(others.into_iter().flatten()).min()
    }

    /// Answers the calls that wait, as far as the events before them are handled.
    fn calls(&mut self) -> Option<ExitReason> {
        loop {
            let entry = self.entry();
            let inbox = &*self.worker.inbox();
            let ready = |call: &Call| match call {
                Call::Command(CommandCall { after: Some(mark), patience, .. }) => {
                    inbox.reached(mark) || *patience <= Instant::now()
                }
                _ => true,
            };
            match entry.calls.pop(ready)? {
                Call::Stop => return Some(ExitReason::Stop),
                Call::PauseRequest(hold) => return Some(ExitReason::PauseRequest(hold)),
                Call::LogLevel(level) => self.instance.log_level(level),
                Call::Health(asked) => {
                    self.last_health = None;
                    self.refresh_health();
                    // An error means that nobody waits any more.
                    let _ = asked.send(());
                }
                Call::Command(command) if command.is_over() => {}
                Call::Command(command) => {
                    let CommandCall { request, sink, panicked: answer, files, .. } = command;
                    let clock = self.worker.clock.clone();
                    let done = entry.meter.time(&clock, (Work::Command, 1), "command", || {
                        self.instance.command(&request, sink, files)
                    });
                    let panicked = done.map_err(|error| describe_error(self.worker, &error)).err();
                    if let Some(reason) = panicked.or_else(|| answer.get().cloned()) {
                        entry.meter.failed(Work::Command);
                        return Some(ExitReason::Panic(reason));
                    }
                    // Checked here, or the next call would be taken for the one that ended the
                    // process.
                    if let Some(mut error) = self.instance.gone() {
                        entry.meter.failed(Work::Command);
                        error.place = "command".into();
                        return Some(self.gone(&error));
                    }
                }
            }
        }
    }

    fn timers(&mut self) -> Option<ExitReason> {
        let (entry, now) = (self.entry(), Instant::now());
        for index in 0..self.timers.len() {
            let (name, period, due) = &mut self.timers[index];
            if *due > now {
                continue;
            }
            *due = now + *period;
            let name = name.clone();
            let clock = self.worker.clock.clone();
            let number = u32::try_from(index).unwrap_or(u32::MAX);
            let call = || self.instance.on_timer(number);
            let result = entry.meter.time(&clock, (Work::Timer, 1), name, call);
            if let Err(error) = result {
                entry.meter.failed(Work::Timer);
                let leave = self.complain(&error);
                if leave.is_some() {
                    return leave;
                }
            }
        }
        None
    }

    fn events(&mut self) -> Option<ExitReason> {
        let (clock, meter) = (self.worker.clock.clone(), &self.entry().meter);
        let events: Vec<AbiEvent<'_>> =
            self.worker.inbox().take(BATCH).iter().map(to_abi).collect();
        if events.is_empty() {
            return None;
        }
        let work = (Work::Events, events.len());
        let outcome = meter.time(&clock, work, "handler", || self.instance.on_batch(&events));
        let BatchOutcome { handled, error } = outcome;
        let handled = (handled as usize).min(events.len());
        let ROption::RSome(error) = error else {
            self.worker.inbox().settle(handled, None);
            return None;
        };
        meter.failed(Work::Events);
        let kind = match error.kind {
            error_kind::UNAVAILABLE | GONE => FailureKind::Unavailable,
            _ => FailureKind::Failed,
        };
        let message = describe_error(self.worker, &error);
        self.worker.inbox().settle(handled, Some(Failure { kind, message }));
        self.complain(&error)
    }

    /// Logs an error of a handler once; a panic ends the instance, whose state may be inconsistent.
    fn complain(&self, error: &ModError) -> Option<ExitReason> {
        let reason = describe_error(self.worker, error);
        if matches!(error.kind, error_kind::PANIC | GONE) {
            return Some(self.gone(error));
        }
        tracing::warn!(module = self.entry().name, reason, "a handler failed");
        None
    }

    /// Returns the reason to leave the instance, which is of no more use; the kind of the error
    /// says whether the module is at fault.
    fn gone(&self, error: &ModError) -> ExitReason {
        let reason = describe_error(self.worker, error);
        if error.kind == GONE { ExitReason::Gone(reason) } else { ExitReason::Panic(reason) }
    }

    fn refresh_health(&mut self) {
        let now = Instant::now();
        if self.last_health.is_some_and(|last| now < last + HEALTH_SPACING) {
            return;
        }
        let is_asked = self.last_health.replace(now).is_none();
        self.next_health = now + HEALTH_PERIOD;
        let clock = self.worker.clock.clone();
        let meter = &self.entry().meter;
        let bytes = meter.time(&clock, (Work::Health, 1), "health", || self.instance.health());
        // A module that says nothing new is as it was, unless a call was given up on meanwhile.
        if bytes == self.said && !is_asked && self.entry().state().is_running() {
            return;
        }
        let health = generation::health(&self.worker.start.context.redactor, &bytes);
        self.said = bytes;
        let (state, reason) = match health.status {
            HealthStatus::Ok => (State::Running, String::new()),
            _ => (State::Degraded, health.message.clone()),
        };
        enter(self.entry(), state, reason);
        self.entry().set_health(health);
    }

    /// Pauses for a successor. Returns `None` when this generation goes on.
    pub(super) fn hold(&mut self, hold: PauseRequest) -> Option<ExitReason> {
        if !hold.begin() {
            return None;
        }
        let entry = self.entry();
        enter(entry, State::Reloading, "a new generation starts".to_owned());
        let clock = self.worker.clock.clone();
        let leave = match clock.time("snapshot", || self.instance.snapshot()) {
            Ok(snapshot) if hold.mode() == ReloadMode::Handover => {
                return Some(ExitReason::HandOver(hold, snapshot));
            }
            Ok(snapshot) => {
                self.worker.await_verdict(hold, snapshot).then_some(ExitReason::Replaced)
            }
            Err(error) => {
                let reason = describe_error(self.worker, &error);
                hold.refuse(format!("the running generation cannot hand over its state: {reason}"));
                self.complain(&error)
            }
        };
        if leave.is_none() {
            enter(entry, State::Running, String::new());
            self.last_health = None;
        }
        leave
    }

    pub(super) fn stop(self) {
        let Self { worker, mut instance, .. } = self;
        let entry = worker.entry();
        let clock = &worker.clock;
        // The threads that end with it are seen once more.
        entry.used(&Tasks::now());
        let stopped = clock.time("stop", || instance.stop(worker.start.grace));
        if let Err(error) = stopped {
            let reason = describe_error(worker, &error);
            tracing::warn!(module = entry.name, reason, "the module did not stop well");
        }
        clock.time("drop", || drop(instance));
        // The threads of a successor bear the same names.
        if worker.is_replaced() {
            return;
        }
        let left = threads_left(entry);
        if left > 0 {
            tracing::warn!(
                module = entry.name,
                threads = left,
                "the module left threads behind, which run on until the daemon ends"
            );
        }
    }
}

/// Counts the threads that a module has left behind. The kernel shows a thread for a moment after
/// it was joined.
fn threads_left(entry: &Entry) -> usize {
    let until = Instant::now() + EXIT_GRACE;
    loop {
        let own = entry.host_threads.load(Ordering::Relaxed);
        let left = Tasks::now().count(&entry.name).saturating_sub(own);
        if left == 0 || Instant::now() >= until {
            return left;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns an error as states, events, the history and dead letters show it: without secrets.
fn describe_error(worker: &Worker<'_>, error: &ModError) -> String {
    let words = if error.place.is_empty() {
        error.message.to_string()
    } else {
        format!("{}: {}", error.place, error.message)
    };
    worker.start.context.redactor.redact(&words).into_owned()
}

/// Converts an event to the form that a module gets.
#[must_use]
pub fn to_abi<'a>(delivery: &Delivery<'a>) -> AbiEvent<'a> {
    let event = delivery.event;
    AbiEvent {
        id: *event.id.as_bytes(),
        time_ns: event.time_ns,
        sequence: event.sequence,
        attempt: delivery.attempt,
        flags: if event.class == Class::Ledger { FLAG_LEDGER } else { 0 },
        topic: (&*event.topic).into(),
        source: (&*event.source).into(),
        subject: (&*event.subject).into(),
        traceparent: (&*event.traceparent).into(),
        data: (&*event.data).into(),
        reserved: [0; 4],
    }
}

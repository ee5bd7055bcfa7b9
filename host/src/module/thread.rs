//! A module's thread: every call of the module comes from here, one at a time.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use lodestar_abi::{ModError, error_kind};
use module_sdk::Description;

use super::{
    Call, Entry, Grant, Image, Known, ServiceContext, Services, State, accounting::thread_name,
    calls::refuse, image::Instance, running::Running, state::lock,
};
use crate::{
    bus::Inbox,
    library::{Inspected, LoadError, Package, Shelf, inspect},
};

/// The time within which panics are counted for [`RestartPolicy::limit`].
const PANIC_WINDOW: Duration = Duration::from_secs(60);

/// Works out what a module gets.
pub type Configure = Box<dyn Fn(&Inspected) -> Result<Configured, String> + Send>;

/// What a module is started with.
pub struct Start {
    /// Its place in the table of modules.
    pub entry: Arc<Entry>,
    /// Where its library lies.
    pub package: Package,
    /// The libraries that are mapped.
    pub shelf: Arc<Shelf>,
    /// What all modules share.
    pub context: ServiceContext,
    /// Works out the configuration and the grant once the manifest is known.
    pub configure: Configure,
    /// Puts a report of the module's own validation into words, with the place in the file.
    pub explain: Box<dyn Fn(&str) -> String + Send>,
    /// How long the module may take to stop.
    pub grace: Duration,
    /// What happens after a panic.
    pub restart: RestartPolicy,
    /// Waits until every module that starts at the same time has subscribed.
    pub gate: Arc<StartGate>,
    /// Told once, when the thread ends.
    pub ended: Box<dyn FnOnce(Ended) + Send>,
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Start({})", self.entry.name)
    }
}

/// What happens after a module panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Restarts within a minute, after which it is not started again by itself.
    pub limit: usize,
    /// The longest pause before it starts again.
    pub max_backoff: Duration,
}

/// What a module gets.
pub struct Configured {
    /// Its configuration, JSON.
    pub config: Vec<u8>,
    /// What it may know and use.
    pub grant: Grant,
}

impl std::fmt::Debug for Configured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stand in it.
        f.write_str("Configured")
    }
}

/// How a module's thread ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// It could not start or go on; the reason is in its state.
    Failed,
}

/// Starts the thread of a module. It loads, configures and starts the module by itself, so that a
/// module that hangs delays nobody.
///
/// # Errors
///
/// When the system has no more threads.
pub fn spawn(start: Start) -> std::io::Result<JoinHandle<()>> {
    let name = thread_name(&start.entry.name);
    std::thread::Builder::new().name(name).spawn(move || run(start))
}

/// Holds modules back until all that start together have subscribed: what one of them emits first
/// must reach the others.
#[derive(Debug)]
pub struct StartGate {
    missing: std::sync::Mutex<usize>,
    open: std::sync::Condvar,
}

/// A file that takes longer to read than this is not waited for.
const GATE_PATIENCE: Duration = Duration::from_secs(2);

impl StartGate {
    /// A gate for so many modules.
    #[must_use]
    pub fn new(modules: usize) -> Arc<Self> {
        Arc::new(Self { missing: modules.into(), open: std::sync::Condvar::new() })
    }

    /// One of the modules has subscribed, or will not.
    pub fn arrive(&self) {
        let mut missing = lock(&self.missing);
        *missing = missing.saturating_sub(1);
        drop(missing);
        self.open.notify_all();
    }

    fn wait(&self) {
        let missing = lock(&self.missing);
        drop(self.open.wait_timeout_while(missing, GATE_PATIENCE, |missing| *missing > 0));
    }
}

fn run(start: Start) {
    let entry = start.entry.clone();
    let prepared = prepare(&start);
    start.gate.arrive();
    let outcome = prepared.and_then(|(image, configured, inbox)| {
        start.gate.wait();
        let mut life = Life::new(&start, image, configured, inbox);
        let outcome = life.live();
        entry.calls.close();
        outcome
    });
    let outcome = match outcome {
        Ok(()) => {
            enter(&entry, State::Stopped, String::new());
            Ended::Stopped
        }
        Err((state, reason)) => {
            tracing::error!(module = entry.name, reason, "the module does not run");
            enter(&entry, state, reason);
            Ended::Failed
        }
    };
    entry.heap_bytes.store(0, Ordering::Relaxed);
    (start.ended)(outcome);
}

type Refusal = (State, String);

fn failed(reason: impl Into<String>) -> Refusal {
    (State::Failed, reason.into())
}

/// Everything before the module's own code is asked to start.
fn prepare(start: &Start) -> Result<(Image, Configured, Inbox), Refusal> {
    let entry = &start.entry;
    let refused = |error: LoadError| {
        let state = if error.is_incompatible() { State::Incompatible } else { State::Failed };
        (state, error.to_string())
    };
    enter(entry, State::Loading, String::new());
    let inspected = inspect(&start.package).map_err(refused)?;
    enter(entry, State::Verified, String::new());
    let filters = inspected.manifest.bus.consumes.clone();
    let inbox = start.context.bus.subscribe(&entry.name, &filters);
    let inbox = inbox.map_err(|error| failed(format!("cannot subscribe: {error}")))?;
    let configured = (start.configure)(&inspected).map_err(failed)?;
    enter(entry, State::Loading, String::new());
    let clock = &entry.clock;
    let library = clock.time("load", || start.shelf.open(inspected)).map_err(refused)?;
    let image = Image::Mapped(library);
    entry.set_known(clock.time("description", || describe(&image))?);
    let validated = clock.time("validation", || image.validate(&configured.config));
    validated.map_err(|error| failed(explain(start, &error)))?;
    Ok((image, configured, inbox))
}

fn describe(image: &Image) -> Result<Known, Refusal> {
    let bytes = image
        .describe()
        .map_err(|error| failed(format!("cannot describe itself: {}", error.message)))?;
    let description: Description = serde_json::from_slice(&bytes)
        .map_err(|error| failed(format!("its description cannot be read: {error}")))?;
    let manifest = image.manifest().clone();
    for subscription in &description.subscriptions {
        if !manifest.bus.consumes.contains(&subscription.filter) {
            return Err(failed(format!(
                "it listens to {}, which its module.toml does not declare; add it to bus.consumes",
                subscription.filter
            )));
        }
    }
    Ok(Known {
        manifest,
        description,
        sha256: image.sha256().to_owned(),
        sdk_version: image.sdk_version(),
        path: image.path().to_owned(),
    })
}

fn explain(start: &Start, error: &ModError) -> String {
    if error.kind == error_kind::CONFIG {
        (start.explain)(error.message.as_str())
    } else if error.kind == error_kind::PANIC {
        format!("{} {}", error.place, error.message)
    } else {
        error.message.to_string()
    }
}

/// Notes a change of state, logs it and tells the bus.
pub(super) fn enter(entry: &Entry, state: State, reason: String) {
    if let Some(before) = entry.enter(state, reason.clone()) {
        tracing::debug!(module = entry.name, from = %before, to = %state, reason, "state");
    }
}

/// One thread's life: a module, made again after each panic.
pub(super) struct Life<'a> {
    pub(super) start: &'a Start,
    image: Image,
    config: Vec<u8>,
    grant: Option<Grant>,
    pub(super) inbox: Inbox,
    panics: Vec<Instant>,
}

/// Why a module's instance is left.
pub(super) enum Leave {
    Stop,
    Panic(String),
}

impl<'a> Life<'a> {
    fn new(start: &'a Start, image: Image, configured: Configured, inbox: Inbox) -> Self {
        let Configured { config, grant } = configured;
        Self { start, image, config, grant: Some(grant), inbox, panics: Vec::new() }
    }

    pub(super) fn entry(&self) -> &'a Entry {
        &self.start.entry
    }

    fn live(&mut self) -> Result<(), Refusal> {
        loop {
            let (instance, services) = self.create()?;
            self.entry().calls.open(self.inbox.poker());
            enter(self.entry(), State::Running, String::new());
            tracing::info!(
                module = self.entry().name,
                version = self.image.manifest().module.version,
                "the module runs"
            );
            let entry = self.entry();
            let mut running = Running::new(self, instance);
            let leave = running.run();
            if matches!(leave, Leave::Stop) {
                enter(entry, State::Draining, String::new());
            }
            running.stop();
            services.close();
            match leave {
                Leave::Stop => return Ok(()),
                Leave::Panic(reason) => {
                    if self.pause_after(&reason)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn create(&mut self) -> Result<(Box<dyn Instance>, Arc<Services>), Refusal> {
        let entry = self.start.entry.clone();
        let grant = match self.grant.take() {
            Some(grant) => grant,
            // The grant went with the generation before; work it out again.
            None => {
                let inspected = inspect(&self.start.package);
                let inspected = inspected.map_err(|error| failed(error.to_string()))?;
                (self.start.configure)(&inspected).map_err(failed)?.grant
            }
        };
        let services = Services::new(self.start.context.clone(), entry.clone(), grant);
        let create = || self.image.create(&self.config, &[], &services);
        let created = entry.clock.time("start", create);
        created.map(|instance| (instance, services.clone())).map_err(|error| {
            services.close();
            failed(explain(self.start, &error))
        })
    }

    /// Waits before the next try; answers whether the module was asked to stop meanwhile.
    fn pause_after(&mut self, reason: &str) -> Result<bool, Refusal> {
        let now = Instant::now();
        self.panics.retain(|panic| now.duration_since(*panic) < PANIC_WINDOW);
        self.panics.push(now);
        let entry = self.entry();
        tracing::error!(module = entry.name, reason, "the module panicked");
        let RestartPolicy { limit, max_backoff } = self.start.restart;
        if self.panics.len() > limit {
            let count = self.panics.len();
            return Err(failed(format!(
                "it panicked {count} times within {} s, the last time: {reason}; its events \
                 wait; `lodestar modules enable {}` starts it again",
                PANIC_WINDOW.as_secs(),
                entry.name
            )));
        }
        entry.restarts.fetch_add(1, Ordering::Relaxed);
        let pause = backoff(self.panics.len()).min(max_backoff);
        enter(entry, State::Backoff, format!("{reason}; starts again in {} s", pause.as_secs()));
        let until = now + pause;
        while Instant::now() < until {
            while let Some(call) = entry.calls.pop(|_| true) {
                if matches!(call, Call::Stop) {
                    return Ok(true);
                }
                refuse(call, "the module panicked and starts again in a moment");
            }
            entry.calls.wait(until);
        }
        Ok(false)
    }
}

/// The first restart is immediate, then after 1, 2, 4 … seconds.
fn backoff(panics: usize) -> Duration {
    match u32::try_from(panics).unwrap_or(u32::MAX) {
        0 | 1 => Duration::ZERO,
        more => Duration::from_secs(1_u64.checked_shl(more - 2).unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles() {
        let seconds = |panics| backoff(panics).as_secs();
        assert_eq!([1, 2, 3, 4, 5, 9].map(seconds), [0, 1, 2, 4, 8, 128]);
        assert!(seconds(200) > 1_000_000);
    }

    #[test]
    fn the_gate_opens_when_all_have_arrived() {
        let gate = StartGate::new(2);
        let other = gate.clone();
        let thread = std::thread::spawn(move || other.arrive());
        gate.arrive();
        gate.wait();
        assert_eq!(*lock(&gate.missing), 0);
        thread.join().expect("it ends");
    }
}

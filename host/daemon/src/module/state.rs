//! State of a module, with its reason.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use jiff::Timestamp;
use module_sdk::{Description, Health, manifest::Manifest};
use tokio::sync::watch;

use super::{
    CallClock, CpuTime, Meter, ProcessView,
    calls::CallQueue,
    refusals::{Refusal, Refusals},
};
use crate::logging::LogRate;

/// State of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Module that is in the configuration, but not on the module path.
    Absent,
    /// Module that is switched off.
    Disabled,
    /// Module whose file is read and checked, but not loaded yet.
    Verified,
    /// Module that is being mapped and started.
    Loading,
    /// Module that works.
    Running,
    /// Module that works in part, or has a call that takes too long.
    Degraded,
    /// Module with a call that does not return; its events wait.
    Stalled,
    /// Module whose new generation takes over.
    Reloading,
    /// Module that is being stopped.
    Draining,
    /// Module that was stopped, or not started yet.
    Stopped,
    /// Module that failed and starts again in a moment.
    Backoff,
    /// Module that failed or could not start.
    Failed,
    /// Module that failed too often and is left alone until it is enabled again.
    Quarantined,
    /// Module that does not fit this host.
    Incompatible,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 14] = [
        Self::Absent,
        Self::Disabled,
        Self::Verified,
        Self::Loading,
        Self::Running,
        Self::Degraded,
        Self::Stalled,
        Self::Reloading,
        Self::Draining,
        Self::Stopped,
        Self::Backoff,
        Self::Failed,
        Self::Quarantined,
        Self::Incompatible,
    ];

    /// Returns the name of the state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Disabled => "disabled",
            Self::Verified => "verified",
            Self::Loading => "loading",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Stalled => "stalled",
            Self::Reloading => "reloading",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
            Self::Incompatible => "incompatible",
        }
    }

    /// Returns whether the module has a thread that answers, or will soon.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        matches!(
            self,
            Self::Verified
                | Self::Loading
                | Self::Running
                | Self::Degraded
                | Self::Stalled
                | Self::Reloading
                | Self::Draining
                | Self::Backoff
        )
    }

    /// Returns whether an operation that led to this state has come to its end.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        !matches!(self, Self::Verified | Self::Loading | Self::Reloading | Self::Draining)
    }

    /// Returns whether the module does its work, wholly or in part.
    #[must_use]
    pub const fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Degraded | Self::Reloading)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of a module with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// State of the module.
    pub state: State,
    /// Reason for the state, in a sentence; empty while all is well.
    pub reason: String,
    /// Time when the module entered the state.
    pub since: Timestamp,
}

/// Facts about a module whose library was checked.
#[derive(Debug, Clone)]
pub struct Known {
    /// Manifest in the library.
    pub manifest: Manifest,
    /// Description that the module gave of itself, without the schema of its configuration.
    pub description: Description,
    /// Hash of its library.
    pub sha256: String,
    /// Version of the SDK that it was built with.
    pub sdk_version: String,
    /// Path of its library.
    pub path: std::path::PathBuf,
    /// `true` when it runs in a process of its own.
    pub isolated: bool,
}

/// A module of the configuration. Shared by its thread, the supervisor and the control API.
#[derive(Debug)]
pub struct Entry {
    /// Name of the module.
    pub name: String,
    /// Health as last reported.
    health: Mutex<Health>,
    transition: watch::Sender<Transition>,
    known: Mutex<Option<Arc<Known>>>,
    /// Its living processes, of any generation.
    processes: Mutex<Vec<Arc<ProcessView>>>,
    /// Calls that wait for its thread.
    pub(crate) calls: CallQueue,
    /// The call that the thread of the running generation is in, and since when.
    clock: Mutex<Arc<CallClock>>,
    /// The call that the thread of a successor is in.
    successor_clock: Mutex<Option<Arc<CallClock>>>,
    /// Number of the running generation.
    pub generation: AtomicU64,
    /// Number of the host's threads that run a generation of it now.
    pub(super) host_threads: AtomicUsize,
    /// Number of generations that were created, whether they took over or not.
    made: AtomicU64,
    /// Number of restarts after a failure.
    pub restarts: AtomicU64,
    /// Number of bytes that its allocator has handed out.
    pub heap_bytes: AtomicU64,
    /// Processor time that it used.
    pub(super) cpu: CpuTime,
    /// Statistics of its calls.
    pub meter: Meter,
    /// Number of events from which secrets were taken out.
    pub redacted: AtomicU64,
    /// Numbers of events that were refused.
    pub(crate) refusals: Refusals,
    /// Rate limit of its log records.
    pub log_rate: LogRate,
}

impl Entry {
    /// Creates the entry of a module that has not been checked yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let transition =
            Transition { state: State::Stopped, reason: String::new(), since: Timestamp::now() };
        Self {
            name: name.to_owned(),
            health: Mutex::new(Health::ok("")),
            transition: watch::Sender::new(transition),
            known: Mutex::default(),
            processes: Mutex::default(),
            calls: CallQueue::default(),
            clock: Mutex::default(),
            successor_clock: Mutex::default(),
            generation: AtomicU64::new(0),
            host_threads: AtomicUsize::new(0),
            made: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            heap_bytes: AtomicU64::new(0),
            cpu: CpuTime::default(),
            meter: Meter::default(),
            redacted: AtomicU64::new(0),
            refusals: Refusals::default(),
            log_rate: LogRate::default(),
        }
    }

    /// Returns the state with its reason.
    #[must_use]
    pub fn transition(&self) -> Transition {
        self.transition.borrow().clone()
    }

    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> State {
        self.transition.borrow().state
    }

    /// Returns a receiver of every change of state.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Transition> {
        self.transition.subscribe()
    }

    /// Sets the state; returns the state before when there was a change.
    pub fn enter(&self, state: State, reason: impl Into<String>) -> Option<State> {
        let reason = reason.into();
        let mut before = None;
        self.transition.send_if_modified(|current| {
            if current.state == state && current.reason == reason {
                return false;
            }
            before = Some(current.state);
            *current = Transition { state, reason, since: Timestamp::now() };
            true
        });
        before
    }

    /// Sets the state, unless it is no longer `from`.
    pub fn enter_from(&self, from: State, state: State, reason: String) {
        self.transition.send_if_modified(|current| {
            let still = current.state == from;
            if still {
                *current = Transition { state, reason, since: Timestamp::now() };
            }
            still
        });
    }

    /// Returns the health as last reported.
    #[must_use]
    pub fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    pub(crate) fn set_health(&self, health: Health) {
        *lock(&self.health) = health;
    }

    /// Returns the facts about the module as last loaded.
    #[must_use]
    pub fn known(&self) -> Option<Arc<Known>> {
        lock(&self.known).clone()
    }

    pub(crate) fn set_known(&self, known: Arc<Known>) {
        *lock(&self.known) = Some(known);
    }

    /// Returns the clock of the running generation's thread.
    #[must_use]
    pub fn clock(&self) -> Arc<CallClock> {
        lock(&self.clock).clone()
    }

    pub(super) fn set_clock(&self, clock: Arc<CallClock>) {
        *lock(&self.clock) = clock;
    }

    /// Returns the clock of the successor's thread, while there is a successor.
    #[must_use]
    pub fn successor_clock(&self) -> Option<Arc<CallClock>> {
        lock(&self.successor_clock).clone()
    }

    pub(super) fn set_successor_clock(&self, clock: Option<Arc<CallClock>>) {
        *lock(&self.successor_clock) = clock;
    }

    /// Returns the process of the running generation; while none runs, the newest process. A
    /// generation that runs in the daemon has none, although the previous one may still be ending.
    #[must_use]
    pub fn process(&self) -> Option<Arc<ProcessView>> {
        let is_in_daemon = |known: &Arc<Known>| !known.isolated && self.state().is_alive();
        if self.known().as_ref().is_some_and(is_in_daemon) {
            return None;
        }
        let generation = self.generation.load(Ordering::Relaxed);
        let processes = lock(&self.processes);
        let running = processes.iter().find(|process| process.generation == generation);
        running.or(processes.last()).cloned()
    }

    /// Returns every living process of the module: a generation that is starting has one as well.
    #[must_use]
    pub fn processes(&self) -> Vec<Arc<ProcessView>> {
        lock(&self.processes).clone()
    }

    pub(crate) fn add_process(&self, process: ProcessView) {
        lock(&self.processes).push(Arc::new(process));
    }

    /// Removes a process that has ended; those of other generations stay.
    pub(crate) fn forget_process(&self, pid: u32) {
        lock(&self.processes).retain(|process| process.pid != pid);
    }

    /// Returns the position in the inbox up to which events must be handled before a command, so
    /// that its answer includes them; `None` for a command that answers without waiting.
    #[must_use]
    pub fn barrier(&self, command: &str) -> Option<lodestar_bus::Mark> {
        let known = self.known();
        let mut commands = known.iter().flat_map(|known| &known.description.commands);
        let waits = commands.all(|it| it.name != command || !it.without_barrier);
        if waits { self.calls.mark() } else { None }
    }

    /// Counts an event from which secrets were taken out, and logs the first one.
    pub(super) fn note_redacted(&self, topic: &str) {
        if self.redacted.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                module = self.name,
                topic,
                "what looked like a secret was taken out of an event; who sends to this module \
                 puts keys in the place of names: find them, and give them out anew"
            );
        }
    }

    /// Counts an event that was refused, and logs the first of each kind.
    pub(super) fn note_refused(&self, topic: &str, refusal: Refusal) {
        if self.refusals.count(refusal) {
            tracing::warn!(module = self.name, topic, "an event was refused: {refusal}");
        }
    }

    /// Returns the number of the next generation.
    pub(crate) fn next_generation(&self) -> u64 {
        self.made.fetch_add(1, Ordering::Relaxed) + 1
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noted_once() {
        let entry = Entry::new("ingest");
        assert_eq!(entry.enter(State::Loading, ""), Some(State::Stopped));
        assert_eq!(entry.enter(State::Loading, ""), None);
        assert_eq!(entry.enter(State::Failed, "no port"), Some(State::Loading));
        assert_eq!(entry.transition().reason, "no port");
    }

    const MANIFEST: &str = "[module]\nname = \"gear\"\nversion = \"0.1.0\"\n\
                            description = \"Turns.\"\n[abi]\nepoch = 1\n";

    #[test]
    fn what_runs_in_the_daemon_has_no_process() {
        let entry = Entry::new("gear");
        entry.add_process(ProcessView {
            pid: 1,
            generation: 1,
            memory_limit: None,
            cpu_limit: None,
            tasks_limit: String::new(),
            data_limit: String::new(),
            limits_without_group: Vec::new(),
            sandbox: String::new(),
        });
        let known = |isolated| Known {
            manifest: Manifest::parse(MANIFEST).expect("it is one"),
            description: serde_json::from_value(serde_json::json!({
                "sdk_version": "0.1.0", "subscriptions": [], "timers": [], "commands": [],
                "config_schema": true,
            }))
            .expect("it is one"),
            sha256: String::new(),
            sdk_version: String::new(),
            path: std::path::PathBuf::new(),
            isolated,
        };
        let shown = || entry.process().map(|process| process.pid);
        entry.set_known(Arc::new(known(false)));
        assert_eq!(shown(), Some(1), "it has ended, and its process has not");
        entry.enter(State::Running, "");
        assert_eq!(shown(), None);
        entry.set_known(Arc::new(known(true)));
        assert_eq!(shown(), Some(1));
    }

    #[test]
    fn states_have_different_words() {
        let words: std::collections::HashSet<&str> =
            State::ALL.iter().map(|state| state.as_str()).collect();
        assert_eq!(words.len(), State::ALL.len());
    }
}

//! A module's thread: every call of the module comes from here, one at a time.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use lodestar_library::{self as library, Inspected, LoadedLibraries, Package, install::AdmitError};
use module_sdk::manifest::Manifest;

use super::{
    CallClock, ConfigureError, Entry, Grant, ServiceContext, State,
    accounting::{Tasks, thread_name},
    generation::{self, Refusal, failed},
    handover::OneShotFlag,
    state::lock,
    successor,
    worker::{End, Worker},
};
use crate::runner::{Bounds, ProcessSpec};

/// Works out what a module gets from its manifest and the place of its library.
pub type Configure =
    Arc<dyn Fn(&Manifest, &Path) -> Result<Configured, ConfigureError> + Send + Sync>;

/// Told what a module's thread came to.
pub type Notify = Box<dyn Fn(ModuleEvent) + Send>;

/// Told the hash of a library that takes over, and of the one to go back to, if there is one.
pub type NoteProbation = Box<dyn Fn(&str, Option<&str>) + Send>;

/// Says why a library that was read may not be loaded.
pub type Admit = Box<dyn Fn(&Inspected) -> Result<(), AdmitError> + Send>;

/// Says where a library that was read runs, `None` for in the daemon. Decided of the bytes and not
/// of the place where they were found: another version of them may lie there by now.
pub type Placing = Box<dyn Fn(&Inspected) -> Option<ProcessSpec> + Send>;

/// What a module is started with.
pub struct Start {
    /// Its place in the table of modules.
    pub entry: Arc<Entry>,
    /// Where its library lies.
    pub package: Package,
    /// Says why what was read may not be loaded, though it is a module that fits.
    pub admit: Admit,
    /// The libraries that are mapped.
    pub loaded_libraries: Arc<LoadedLibraries>,
    /// Decides where what was read runs.
    pub place: Placing,
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
    /// The state directory, where generations are kept.
    pub state_dir: PathBuf,
    /// Waits until every module that starts at the same time has subscribed.
    pub gate: Arc<StartGate>,
    /// It takes over from the generation that runs.
    pub successor: bool,
    /// Taken by a successor that takes over, or by whoever gives it up before.
    pub claim: Arc<OneShotFlag>,
    /// Writes down that a successor is on probation, before it gets any work that it may crash in.
    pub note_probation: NoteProbation,
    /// Told what comes of it.
    pub notify: Notify,
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Start({})", self.entry.name)
    }
}

/// What happens after a module panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Restarts within a minute, after which it is quarantined.
    pub limit: usize,
    /// The longest pause before it starts again.
    pub max_backoff: Duration,
    /// For how long a new generation is on probation: if it panics within, the one before it goes
    /// on.
    pub probation: Duration,
}

/// What a module gets.
pub struct Configured {
    /// Its configuration, JSON.
    pub config: Vec<u8>,
    /// What it may know and use.
    pub grant: Grant,
    /// Which paths may be opened to it in a process of its own.
    pub bounds: Bounds,
}

impl std::fmt::Debug for Configured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stand in it.
        f.write_str("Configured")
    }
}

/// What a module's thread tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleEvent {
    /// A generation runs. The last word on a reload that worked.
    Runs {
        /// The hash of its library.
        sha256: String,
        /// Its version.
        version: String,
        /// Its number.
        generation: u64,
        /// How it took over; `None` when there was none before it.
        took_over: Option<TakeOver>,
    },
    /// A successor was no good; the generation before it goes on.
    Rejected(String),
    /// A generation on probation failed; the last good one is back.
    RolledBack {
        /// The hash of the bad library.
        from: String,
        /// The hash of the one that is back.
        to: String,
        /// What the bad one did.
        reason: String,
    },
    /// It failed, and starts again after a pause.
    Restarts {
        /// What it did.
        reason: String,
        /// For how long it pauses.
        pause: Duration,
    },
    /// The thread ends.
    Ended(Ended),
}

/// How a generation took over from the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeOver {
    /// For how long events waited.
    pub switched_in: Duration,
}

/// How a module's thread ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// It could not start or go on. Whoever hears of it shows the state, once what follows from it
    /// is written down.
    Failed {
        /// The state that this leaves it in.
        state: State,
        /// Why.
        reason: String,
    },
    /// It gave way to its successor.
    Replaced,
    /// It was a successor and did not take over.
    Rejected,
}

/// Starts the thread of a module. It loads, configures and starts the module by itself, so that a
/// module that hangs delays nobody.
///
/// # Errors
///
/// When the system has no more threads.
pub fn spawn(start: Start) -> std::io::Result<JoinHandle<()>> {
    let name = thread_name(&start.entry.name);
    std::thread::Builder::new().name(name).spawn(move || {
        let _working = library::work_for(&start.entry.name);
        let count = &start.entry.host_threads;
        count.fetch_add(1, Ordering::Relaxed);
        run(&start);
        // The last look at what this thread used.
        start.entry.used(&Tasks::now());
        count.fetch_sub(1, Ordering::Relaxed);
    })
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

fn run(start: &Start) {
    let entry = &start.entry;
    let present = start.context.metrics.arrive(&entry.name);
    let prepared = if start.successor {
        match successor::take_over(start) {
            Ok(worker) => Ok(worker),
            Err(error) => {
                (start.notify)(ModuleEvent::Rejected(error.to_string()));
                return (start.notify)(ModuleEvent::Ended(Ended::Rejected));
            }
        }
    } else {
        let prepared = first(start);
        start.gate.arrive();
        prepared.inspect(|_| start.gate.wait())
    };
    let outcome = prepared.and_then(|mut worker| worker.live());
    // Before its end is told: whoever starts then may have the names of its metrics.
    drop(present);
    let ended = match outcome {
        Ok(End::Replaced) => return (start.notify)(ModuleEvent::Ended(Ended::Replaced)),
        Ok(End::Stopped) => {
            entry.calls.close();
            enter(entry, State::Stopped, String::new());
            Ended::Stopped
        }
        Err((state, reason)) => {
            entry.calls.close();
            tracing::error!(module = entry.name, reason, "the module does not run");
            Ended::Failed { state, reason }
        }
    };
    entry.heap_bytes.store(0, Ordering::Relaxed);
    (start.notify)(ModuleEvent::Ended(ended));
}

/// Prepares a generation that has none before it. It subscribes first: whatever happens later, its
/// events wait for it.
fn first(start: &Start) -> Result<Worker<'_>, Refusal> {
    let entry = &start.entry;
    let clock = Arc::new(CallClock::default());
    entry.set_clock(clock.clone());
    enter(entry, State::Loading, String::new());
    let inspected = generation::read(start)?;
    enter(entry, State::Verified, String::new());
    let filters = inspected.manifest.bus.consumes.clone();
    let inbox = start.context.bus.subscribe(&entry.name, &filters);
    let inbox = inbox.map_err(|error| failed(format!("cannot subscribe: {error}")))?;
    enter(entry, State::Loading, String::new());
    // A full disk must not keep a module from starting; it only has no way back then.
    let candidate = library::stage(&start.state_dir, &inspected)
        .inspect_err(|error| not_kept(entry, error))
        .ok();
    let generation = generation::load(start, &clock, inspected)?;
    entry.set_known(generation.known());
    let mut worker = Worker::new(start, clock, generation.image, generation.configured, inbox);
    worker.candidate = candidate;
    Ok(worker)
}

/// A generation that cannot be kept runs all the same.
pub(super) fn not_kept(entry: &Entry, error: &std::io::Error) {
    tracing::warn!(module = entry.name, %error, "this generation is not kept: no way back to it");
}

/// Notes a change of state, logs it and tells the bus.
pub(super) fn enter(entry: &Entry, state: State, reason: String) {
    if let Some(before) = entry.enter(state, reason.clone()) {
        tracing::debug!(module = entry.name, from = %before, to = %state, reason, "state");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! Thread of a module: every call of the module comes from here, one at a time.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use lodestar_library::{self as library, Inspected, LoadedLibraries, Package, install::AdmitError};
use module_sdk::manifest::Manifest;
use serde_json::{Map, Value};

use super::{
    CallClock, ConfigureError, Entry, Grant, ServiceContext, State,
    accounting::{Tasks, thread_name},
    generation::{self, Refusal, failed},
    handover::OneShotFlag,
    image::StartProcess,
    state::lock,
    successor,
    worker::{End, Worker},
};

/// Works out what a module gets from its manifest and the place of its library.
pub type Configure =
    Arc<dyn Fn(&Manifest, &Path) -> Result<Configured, ConfigureError> + Send + Sync>;

/// A function that takes the events of a module's thread.
pub type Notify = Box<dyn Fn(ModuleEvent) + Send>;

/// A function that takes the hash of a library that takes over, and of the one to go back to, if
/// there is one.
pub type NoteProbation = Box<dyn Fn(&str, Option<&str>) + Send>;

/// Says why a library that was read may not be loaded.
pub type Admit = Box<dyn Fn(&Inspected) -> Result<(), AdmitError> + Send>;

/// Says how a library that was read is started in a process of its own, `None` for in the daemon.
/// Decided of the bytes and not of the place where they were found: another version of them may lie
/// there by now.
pub type Placing = Box<dyn Fn(&Inspected) -> Option<StartProcess> + Send>;

/// Everything that a module is started with.
pub struct Start {
    /// Entry of the module in the table of modules.
    pub entry: Arc<Entry>,
    /// Package with its library.
    pub package: Package,
    /// Decision whether the library that was read may be loaded, though it is a module that fits.
    pub admit: Admit,
    /// The libraries that are mapped.
    pub loaded_libraries: Arc<LoadedLibraries>,
    /// Decision in which process the library that was read runs.
    pub place: Placing,
    /// Services that all modules share.
    pub context: ServiceContext,
    /// Function that works out the configuration and the grant once the manifest is known.
    pub configure: Configure,
    /// Function that turns a report of the module's own validation into a sentence, with the place
    /// in the file.
    pub explain: Box<dyn Fn(&str) -> String + Send>,
    /// Time that the module may take to stop.
    pub grace: Duration,
    /// Rules for restarts after a failure.
    pub restart: RestartPolicy,
    /// State directory, where generations are kept on disk.
    pub state_dir: PathBuf,
    /// Gate that opens when every module that starts at the same time has subscribed.
    pub gate: Arc<StartGate>,
    /// `true` when the module takes over from the running generation.
    pub successor: bool,
    /// Flag taken by a successor that takes over, or by the supervisor that gives it up before.
    pub claim: Arc<OneShotFlag>,
    /// Function that writes down that a successor is on probation, before it gets any work that it
    /// may crash in.
    pub note_probation: NoteProbation,
    /// Function that takes the events of the thread.
    pub notify: Notify,
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Start({})", self.entry.name)
    }
}

/// Rules for restarts after a failure of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// The most failures within a minute; one more puts the module into quarantine.
    pub limit: usize,
    /// Longest pause before a restart.
    pub max_backoff: Duration,
    /// Time for which a new generation is on probation: if it panics within it, the previous one
    /// comes back.
    pub probation: Duration,
}

/// Configuration and permissions of a module.
pub struct Configured {
    /// The configuration, JSON.
    pub config: Vec<u8>,
    /// Data and permissions of the module.
    pub grant: Grant,
    /// Limits on the paths that may be opened to it in a process of its own.
    pub bounds: Bounds,
}

impl std::fmt::Debug for Configured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stand in it.
        f.write_str("Configured")
    }
}

/// Limits on the paths that may be opened to a module's process.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// Its settings as the operator gave them, references replaced. What came with the module is
    /// not among them: it must not choose what is opened to it.
    pub given: Map<String, Value>,
    /// Paths of the daemon: nothing in them, and no directory that holds one of them, is opened.
    pub closed: Vec<PathBuf>,
}

/// Event of a module's thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleEvent {
    /// A generation runs. The last event of a reload that worked.
    Runs {
        /// Hash of its library.
        sha256: String,
        /// Version of the module.
        version: String,
        /// Number of the generation.
        generation: u64,
        /// Facts about the takeover; `None` when there was no previous generation.
        took_over: Option<TakeOver>,
    },
    /// A successor failed; the previous generation goes on.
    Rejected(String),
    /// A generation on probation failed; the last good one is back.
    RolledBack {
        /// Hash of the bad library.
        from: String,
        /// Hash of the library that is back.
        to: String,
        /// Failure of the bad one.
        reason: String,
    },
    /// The module failed, and starts again after a pause.
    Restarts {
        /// Description of the failure.
        reason: String,
        /// Length of the pause.
        pause: Duration,
    },
    /// The thread ends.
    Ended(Ended),
}

/// Facts about how a generation took over from the previous one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeOver {
    /// Time for which events waited.
    pub switched_in: Duration,
}

/// Way in which a module's thread ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The module was asked to stop.
    Stopped,
    /// The module could not start or go on. The receiver shows the state, once the consequences are
    /// written down.
    Failed {
        /// State that this leaves the module in.
        state: State,
        /// Reason for the failure.
        reason: String,
    },
    /// The generation gave way to its successor.
    Replaced,
    /// The generation was a successor and did not take over.
    Rejected,
}

/// Starts the thread of a module. The thread loads, configures and starts the module, so that a
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
        // Last measurement of what this thread used.
        start.entry.used(&Tasks::now());
        count.fetch_sub(1, Ordering::Relaxed);
    })
}

/// A gate that keeps modules back until all that start together have subscribed: what one of them
/// emits first must reach the others.
#[derive(Debug)]
pub struct StartGate {
    missing: std::sync::Mutex<usize>,
    open: std::sync::Condvar,
}

/// Time that modules wait at the gate for a library that takes long to read.
const GATE_PATIENCE: Duration = Duration::from_secs(2);

impl StartGate {
    /// Creates a gate for this many modules.
    #[must_use]
    pub fn new(modules: usize) -> Arc<Self> {
        Arc::new(Self { missing: modules.into(), open: std::sync::Condvar::new() })
    }

    /// Records that one of the modules has subscribed, or will not.
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
    // Before the end is reported: whoever starts then may have the names of its metrics.
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

/// Prepares a generation that has no previous one. It subscribes first: whatever happens later, its
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

/// Logs that a generation cannot be kept on disk; it runs all the same.
pub(super) fn not_kept(entry: &Entry, error: &std::io::Error) {
    tracing::warn!(module = entry.name, %error, "this generation is not kept: no way back to it");
}

/// Sets the state and logs a change.
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

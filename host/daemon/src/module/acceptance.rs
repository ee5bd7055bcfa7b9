//! Callbacks into a module that runs in the daemon: notices that its events are accepted, and
//! answers to its calls.
//!
//! Such code may leave values of the thread behind: the linker keeps a library for as long as a
//! thread lives that has such values of it. So callbacks run on a thread of the generation, which
//! ends with it, and never on the one that writes the ledger for everybody, or on the thread of
//! another module (adr/0041, adr/0061).

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, Weak,
        atomic::Ordering,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    time::{Duration, Instant},
};

use lodestar_abi::CompletionBox;
use lodestar_bus::PublishError;
use lodestar_library::{self as library, Library};

use super::{Entry, accounting::thread_name, services::unavailable, state::lock};
use crate::module::Tasks;

/// Time for which a thread looks before it sleeps.
pub(crate) const MOMENT: Duration = Duration::from_micros(50);

/// Longest wait of a thread that is in the middle of something.
pub(crate) const BUSY: Duration = Duration::from_micros(150);

/// Callbacks of one generation of a module. The reference to its library is dropped at the first
/// callback, and at the latest when this is closed.
#[derive(Debug, Default)]
pub(super) struct Acceptance(Mutex<Teller>);

#[derive(Debug, Default)]
enum Teller {
    /// The thread that has something to report: the callback is the host's own code.
    #[default]
    Anybody,
    /// Library whose callbacks need a thread, before the first callback.
    Nobody(Arc<Library>),
    /// Thread that runs the callbacks.
    Thread(Sender<Task>, Weak<Library>),
    /// State after closing: no callbacks but those that were promised.
    Closed,
}

/// A callback.
pub(super) type Task = Box<dyn FnOnce() + Send>;

/// Callback for the time when events are accepted or refused.
type Accepted = Box<dyn FnOnce(Result<(), PublishError>) + Send>;

/// Permission to call a generation back, valid for as long as it is held.
#[derive(Debug)]
pub(super) struct Promise {
    entry: Arc<Entry>,
    /// Thread of the callbacks; `None` where the caller's own thread may run them.
    thread: Option<(Sender<Task>, Weak<Library>)>,
}

impl Promise {
    /// Runs a short task that waits for nobody.
    pub(super) fn keep(&self, task: Task) {
        match &self.thread {
            // The thread is there for as long as somebody may send.
            Some((thread, _)) => drop(thread.send(task)),
            None => task(),
        }
    }

    /// Runs a task that may wait, on a thread of its own.
    ///
    /// # Errors
    ///
    /// When the system has no more threads.
    pub(super) fn keep_beside(&self, task: Task) -> io::Result<()> {
        let library = match &self.thread {
            Some((_, library)) => {
                let library = library.upgrade();
                Some(library.ok_or_else(|| io::Error::other("the module has stopped"))?)
            }
            None => None,
        };
        start(&self.entry, library.as_deref(), task)
    }
}

impl Acceptance {
    /// Sets the library that the callbacks are code of.
    pub(super) fn runs_in(&self, library: Arc<Library>) {
        *lock(&self.0) = Teller::Nobody(library);
    }

    /// Returns a way to call the module back.
    ///
    /// # Errors
    ///
    /// When it is closed, or the system has no more threads.
    pub(super) fn promise(&self, entry: &Arc<Entry>) -> io::Result<Promise> {
        let mut teller = lock(&self.0);
        if let Teller::Nobody(library) = &*teller {
            let (sender, tasks) = channel::<Task>();
            start(entry, Some(library), Box::new(move || tell(&tasks)))?;
            *teller = Teller::Thread(sender, Arc::downgrade(library));
        }
        let thread = match &*teller {
            Teller::Thread(thread, library) => Some((thread.clone(), library.clone())),
            Teller::Anybody => None,
            Teller::Nobody(_) | Teller::Closed => {
                return Err(io::Error::other("the module has stopped"));
            }
        };
        Ok(Promise { entry: entry.clone(), thread })
    }

    /// Returns a callback that reports to `done` that events are accepted.
    ///
    /// # Errors
    ///
    /// As those of [`promise`](Self::promise).
    pub(super) fn accepted(&self, entry: &Arc<Entry>, done: CompletionBox) -> io::Result<Accepted> {
        let promise = self.promise(entry)?;
        Ok(Box::new(move |result| {
            let result = result.map_err(|error| unavailable(error.to_string()));
            promise.keep(Box::new(move || contained(|| done.complete(result.into()))));
        }))
    }

    /// Makes callbacks run on a thread, beside which no other can be started.
    #[cfg(test)]
    pub(super) fn runs_without_library(&self) {
        let (sender, tasks) = channel::<Task>();
        std::thread::spawn(move || tell(&tasks));
        *lock(&self.0) = Teller::Thread(sender, Weak::new());
    }

    /// Ends the thread once the last promise is kept.
    pub(super) fn close(&self) {
        let mut teller = lock(&self.0);
        if !matches!(*teller, Teller::Anybody) {
            *teller = Teller::Closed;
        }
    }
}

/// Starts a thread of the module, which its library waits for before it is unmapped.
fn start(entry: &Arc<Entry>, library: Option<&Library>, task: Task) -> io::Result<()> {
    let entry = entry.clone();
    let thread = std::thread::Builder::new().name(thread_name(&entry.name));
    let Some(library) = library else {
        return thread.spawn(move || run(task)).map(drop);
    };
    let working = move || {
        let _working = library::work_for(&entry.name);
        entry.host_threads.fetch_add(1, Ordering::Relaxed);
        run(task);
        // Last measurement of what this thread used.
        entry.used(&Tasks::now());
        entry.host_threads.fetch_sub(1, Ordering::Relaxed);
    };
    library.run_by(thread.spawn(working)?);
    Ok(())
}

/// Runs what comes, until nobody is left who has something to tell.
fn tell(tasks: &Receiver<Task>) {
    let mut is_busy = false;
    loop {
        let begin = Instant::now();
        let soon = if is_busy { look(tasks, begin) } else { None };
        let Some(task) = soon.or_else(|| tasks.recv().ok()) else { return };
        is_busy = begin.elapsed() < BUSY;
        run(task);
    }
}

/// Looks for a moment whether something comes.
fn look(tasks: &Receiver<Task>, begin: Instant) -> Option<Task> {
    while begin.elapsed() < MOMENT {
        match tasks.try_recv() {
            Err(TryRecvError::Empty) => std::thread::yield_now(),
            came => return came.ok(),
        }
    }
    None
}

fn run(task: Task) {
    contained(task);
}

fn contained(work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        tracing::error!("a module panicked when it was called back");
    }
}

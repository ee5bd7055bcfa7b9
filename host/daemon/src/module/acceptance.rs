//! Telling a module in the daemon that its events are accepted.
//!
//! What is told runs code of the module, which may leave values of the thread behind: the linker
//! keeps a library for as long as a thread lives that has such values of it. So that code runs on
//! a thread of the generation, which ends with it, and never on the one that writes the ledger for
//! everybody (adr/0041).

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::Ordering,
        mpsc::{Receiver, Sender, channel},
    },
};

use lodestar_abi::CompletionBox;
use lodestar_bus::PublishError;
use lodestar_library::{self as library, Library};

use super::{Entry, accounting::thread_name, services::unavailable, state::lock};
use crate::module::Tasks;

/// Who tells one generation of a module. A library that it was given is let go of when the first
/// thing is told, and at the latest when this is closed.
#[derive(Debug, Default)]
pub(super) struct Acceptance(Mutex<Teller>);

#[derive(Debug, Default)]
enum Teller {
    /// Whoever accepts: what is told is the host's own code.
    #[default]
    Anybody,
    /// Nothing was to be told yet.
    Nobody(Arc<Library>),
    /// Its thread.
    Thread(Sender<Told>),
    /// Nothing more is told than what was promised.
    Closed,
}

/// What is called once events are accepted or refused.
type Accepted = Box<dyn FnOnce(Result<(), PublishError>) + Send>;

/// Something to tell.
struct Told {
    done: CompletionBox,
    result: Result<(), PublishError>,
}

impl Acceptance {
    /// What is told is code of this library.
    pub(super) fn runs_in(&self, library: Arc<Library>) {
        *lock(&self.0) = Teller::Nobody(library);
    }

    /// Who promises to tell `done`.
    ///
    /// # Errors
    ///
    /// When it is closed, or the system has no more threads.
    pub(super) fn promise(&self, entry: &Arc<Entry>, done: CompletionBox) -> io::Result<Accepted> {
        let mut teller = lock(&self.0);
        if let Teller::Nobody(library) = &*teller {
            *teller = Teller::Thread(start(entry, library)?);
        }
        Ok(match &*teller {
            Teller::Thread(thread) => {
                let thread = thread.clone();
                Box::new(move |result| {
                    // It is there for as long as somebody may send.
                    let _ = thread.send(Told { done, result });
                })
            }
            Teller::Anybody => Box::new(move |result| tell(&Told { done, result })),
            Teller::Nobody(_) | Teller::Closed => {
                return Err(io::Error::other("the module has stopped"));
            }
        })
    }

    /// The thread ends when the last promise is kept.
    pub(super) fn close(&self) {
        let mut teller = lock(&self.0);
        if !matches!(*teller, Teller::Anybody) {
            *teller = Teller::Closed;
        }
    }
}

/// Starts the thread, for which the library waits before it is unmapped.
fn start(entry: &Arc<Entry>, library: &Library) -> io::Result<Sender<Told>> {
    let (sender, receiver) = channel();
    let entry = entry.clone();
    let thread = std::thread::Builder::new().name(thread_name(&entry.name));
    library.run_by(thread.spawn(move || run(&entry, receiver))?);
    Ok(sender)
}

fn run(entry: &Entry, promised: Receiver<Told>) {
    let _working = library::work_for(&entry.name);
    entry.host_threads.fetch_add(1, Ordering::Relaxed);
    for told in promised {
        tell(&told);
    }
    // The last look at what this thread used.
    entry.used(&Tasks::now());
    entry.host_threads.fetch_sub(1, Ordering::Relaxed);
}

fn tell(Told { done, result }: &Told) {
    let result = result.clone().map_err(|error| unavailable(error.to_string()));
    if catch_unwind(AssertUnwindSafe(|| done.complete(result.into()))).is_err() {
        tracing::error!("a publisher panicked when it was told about its events");
    }
}

//! The journal: one line of JSON for each finished request, with its decision and all its attempts.
//!
//! Lines tell numbers and names, never text of a request or an answer. They are appended to
//! `journal/YYYY-MM-DD.jsonl` in the data directory, by the day on which the request began (UTC),
//! by a thread of their own: a request that ends puts its [`Story`] into a queue and goes on. Each
//! batch is one write at the end of the file, so that two generations of the module may write at
//! once. What cannot be written is lost and counted; a request never waits for it.

mod line;
mod reader;
mod savings;
mod story;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use module_prices::Price;
use module_sdk::{Host, Result};

pub(crate) use line::{
    Attempt, CheckLine, Checked, FeedbackLine, Line, Outcome, Purpose, RequestLine,
};
pub(crate) use reader::{Found, Reader, bare_id, begun_at, day_of, find};
pub(crate) use savings::Savings;
pub(crate) use story::{Story, Told};

use story::Ended;

/// Stories that wait for the writer at most; the next one is lost.
const MOST: usize = 8192;

/// Stories from which the writer gathers no more: they are larger than their lines.
const ENOUGH: usize = 256;

/// The journal of this installation.
#[derive(Debug)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Settings of the journal.
#[derive(Debug)]
pub(crate) struct JournalSettings {
    /// Days for which lines are kept; 0 keeps none.
    pub days: u16,
    /// Model that savings are counted against.
    pub baseline_model: String,
    /// Its price.
    pub baseline: Price,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    /// `false` where no line is wanted.
    is_kept: bool,
    queue: Mutex<Queue>,
    changed: Condvar,
    lost: AtomicU64,
    trouble: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Entry>,
    /// Entries that were ever taken in, and those of them that the writer is done with.
    taken: u64,
    done: u64,
    /// `true` where somebody waits for what is in the queue.
    is_urgent: bool,
    is_closed: bool,
}

/// A thing that the writer makes a line of.
#[derive(Debug)]
enum Entry {
    Ended(Box<Ended>),
    Line(Line),
}

impl Journal {
    /// Starts the thread that writes.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(crate) fn start(host: &Host, settings: JournalSettings) -> Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            directory: host.data_dir().join("journal"),
            is_kept: settings.days > 0,
            queue: Mutex::default(),
            changed: Condvar::new(),
            lost: AtomicU64::new(0),
            trouble: Mutex::default(),
        });
        let thread = if settings.days == 0 {
            None
        } else {
            let writer = writer::Writer::new(host.clone(), shared.clone(), settings);
            let named = std::thread::Builder::new().name("router:journal".to_owned());
            Some(named.spawn(move || writer.run())?)
        };
        Ok(Arc::new(Self { shared, thread: Mutex::new(thread) }))
    }

    /// Takes in a line that is no request's.
    pub(crate) fn add(&self, line: Line) {
        self.shared.push(Entry::Line(line));
    }

    fn ended(&self, story: Box<Ended>) {
        self.shared.push(Entry::Ended(story));
    }

    /// Waits until all that was taken in is written, or the time is over.
    pub(crate) fn flush(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let mut queue = self.shared.lock();
        let until = queue.taken;
        while queue.done < until {
            queue.is_urgent = true;
            self.shared.changed.notify_all();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.shared.changed.wait_timeout(queue, left);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes what waits and ends the thread. What comes later is lost.
    pub(crate) fn close(&self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the journal panicked");
        }
    }

    /// Returns how many lines were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Returns why lines cannot be written just now.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the directory of the files.
    pub(crate) fn directory(&self) -> &Path {
        &self.shared.directory
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, entry: Entry) {
        if !self.is_kept {
            return;
        }
        let mut queue = self.lock();
        if queue.is_closed || queue.waiting.len() >= MOST {
            drop(queue);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.waiting.push(entry);
        queue.taken += 1;
        // The writer is woken by the first of a batch, and waits for the others by itself.
        let wakes = queue.waiting.len() == 1 || queue.waiting.len() == ENOUGH;
        drop(queue);
        if wakes {
            self.changed.notify_all();
        }
    }
}

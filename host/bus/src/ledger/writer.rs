//! The one thread that writes the ledger, in groups.
//!
//! Whatever has gathered while one group was written is the next group: one `write`, and with
//! durability `power` one `fdatasync`, for all of it. A group is accepted whole or not at all.
//! Where one group follows another and nobody waits for the answer, the next one gathers for a
//! moment: a write and a wake-up for each event would cost more than the event.

use std::{
    collections::{HashSet, VecDeque},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    Audience, Entry, Event, Ledger, LedgerError, PublishError, SharedEvent,
    error::remedy,
    record::encode,
    segment::Segment,
    store::{Opened, now_ms},
};

/// Largest total size of the events that wait for the writer, in bytes.
const QUEUE_BYTES: u64 = 64 << 20;
/// Size of a group, in bytes; what exceeds it waits for the next group.
const GROUP_BYTES: usize = 4 << 20;
/// Part of the memory of a group that is kept for the next one, in bytes: most are smaller.
const KEPT_BYTES: usize = 256 << 10;
/// Time for which a group gathers that follows another one within it.
const GATHER: Duration = Duration::from_millis(4);
/// Number of calls from which a group is not waited for any longer.
const GATHERED: usize = 64;

/// Callback that is called once, on the writer's thread, with whether the events of a call were
/// accepted.
pub(crate) type Done = Box<dyn FnOnce(Result<(), PublishError>) + Send>;
/// Callback that hands accepted events on, on the writer's thread.
pub(crate) type Deliver = Box<dyn FnMut(&[Entry<SharedEvent>]) + Send>;

/// The events of one call.
pub(crate) struct Job {
    pub(crate) entries: Vec<Entry>,
    pub(crate) done: Option<Done>,
}

/// The queue before the writer thread, and the thread.
pub(crate) struct Writer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    bytes: u64,
    /// Calls among the jobs whose publishers wait for the answer.
    awaited: usize,
    sleeping: bool,
    /// True while a group gathers.
    gathering: bool,
    /// True when the active segment is to be sealed, whatever its size.
    seal: bool,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Writes what waits, then ends.
    Finish,
    /// Ends as after a kill.
    Abandon,
    /// Ended by a panic.
    Panic,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({} bytes wait)", self.queue.lock().bytes)
    }
}

impl Writer {
    /// Starts the writer thread.
    pub(crate) fn start(opened: Opened, deliver: Deliver) -> Result<Self, LedgerError> {
        let queue = Arc::new(Queue { state: Mutex::default(), wake: Condvar::new() });
        let worker = Worker {
            ledger: opened.ledger,
            queue: queue.clone(),
            active: opened.active,
            next: opened.next,
            first_ms: opened.first_ms,
            is_gone: false,
            wrote_at: None,
            buffer: Vec::new(),
            dones: Vec::new(),
            deliver,
        };
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || worker.run())
            .map_err(|cause| LedgerError::Thread { does: "writes the event ledger", cause })?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Queues the events of one call.
    pub(crate) fn submit(&self, job: Job) -> Result<(), PublishError> {
        let bytes = weight(&job);
        let mut state = self.queue.lock();
        if let Some(end) = state.end {
            return Err(end.refusal());
        }
        if state.bytes > 0 && state.bytes + bytes > QUEUE_BYTES {
            return Err(PublishError::Full { queued_bytes: state.bytes });
        }
        state.bytes += bytes;
        state.awaited += usize::from(job.done.is_some());
        state.jobs.push_back(job);
        let wakes = std::mem::take(&mut state.sleeping)
            || state.gathering && !state.gathers() && std::mem::take(&mut state.gathering);
        drop(state);
        if wakes {
            self.queue.wake.notify_one();
        }
        Ok(())
    }

    /// Seals the active segment if it has events, so that retention can reach it.
    pub(crate) fn seal(&self) {
        self.queue.lock().seal = true;
        self.queue.wake.notify_one();
    }

    /// Writes what waits and ends the thread; returns whether all that was written was handed on.
    pub(crate) fn finish(&self) -> bool {
        self.end(End::Finish);
        self.queue.lock().end == Some(End::Finish)
    }

    /// Ends the thread as a kill would, between two groups.
    pub(crate) fn abandon(&self) {
        self.end(End::Abandon);
    }

    fn end(&self, end: End) {
        self.queue.lock().end.get_or_insert(end);
        self.queue.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the ledger's writer ended by a panic");
        }
    }
}

impl End {
    /// Returns the error for calls that come after the end.
    const fn refusal(self) -> PublishError {
        match self {
            Self::Panic => PublishError::WriterEnded,
            Self::Finish | Self::Abandon => PublishError::Closed,
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Work {
    Group(Vec<Job>),
    Seal,
}

struct Worker {
    ledger: Arc<Ledger>,
    queue: Arc<Queue>,
    active: Segment,
    next: u64,
    first_ms: u64,
    /// True when somebody deleted the active segment, and no other one could be begun yet.
    is_gone: bool,
    /// Time of the last group.
    wrote_at: Option<Instant>,
    buffer: Vec<u8>,
    /// Callbacks of the publishers that wait for the group being written.
    dones: Vec<Done>,
    deliver: Deliver,
}

impl Worker {
    /// Works until the end; publishers that still wait are told, also after a panic.
    fn run(mut self) {
        if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            self.queue.lock().end = Some(End::Panic);
            self.ledger.wrote(Err(&PublishError::WriterEnded));
        }
        let (left, end) = {
            let mut state = self.queue.lock();
            (std::mem::take(&mut state.jobs), state.end)
        };
        let why = end.map_or(PublishError::Closed, End::refusal);
        let waiting = left.into_iter().filter_map(|job| job.done);
        for done in std::mem::take(&mut self.dones).into_iter().chain(waiting) {
            call(done, Err(why.clone()));
        }
    }

    fn work(&mut self) {
        while let Some(work) = self.next_work() {
            match work {
                Work::Group(jobs) => self.commit(jobs),
                Work::Seal => self.seal(),
            }
        }
    }

    fn next_work(&self) -> Option<Work> {
        let mut state = self.queue.lock();
        let mut may_gather = true;
        loop {
            if state.end == Some(End::Abandon) {
                return None;
            }
            if std::mem::take(&mut state.seal) {
                return Some(Work::Seal);
            }
            if !state.jobs.is_empty() {
                let begun = self.wrote_at.filter(|_| may_gather && state.gathers());
                if let Some(left) = begun.and_then(|it| GATHER.checked_sub(it.elapsed())) {
                    may_gather = false;
                    state.gathering = true;
                    let woken = self.queue.wake.wait_timeout(state, left);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                    state.gathering = false;
                    continue;
                }
                return Some(Work::Group(state.next_group()));
            }
            if state.end.is_some() {
                return None;
            }
            state.sleeping = true;
            state = self.queue.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping = false;
        }
    }

    /// Writes a group, hands it on and tells its publishers, or tells them the error.
    fn commit(&mut self, jobs: Vec<Job>) {
        let bytes: u64 = jobs.iter().map(weight).sum();
        let mut entries = Vec::with_capacity(jobs.iter().map(|job| job.entries.len()).sum());
        let mut sequence = self.next;
        let begun = self.leave_the_reserve().and_then(|()| self.begin_where_full());
        let framing = self.active.framing();
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        let mut relayed = HashSet::new();
        for job in jobs {
            self.dones.extend(job.done);
            for Entry { mut event, audience } in job.entries {
                if self.is_repeat(&event, &audience, &mut relayed) {
                    continue;
                }
                event.sequence = sequence;
                sequence += 1;
                encode(&event, &audience, framing, &mut self.buffer);
                entries.push(Entry { event: event.into(), audience });
            }
        }
        let is_empty = entries.is_empty();
        let result = begun.and_then(|()| if is_empty { Ok(()) } else { self.write() });
        if result.is_ok() && !is_empty {
            self.next = sequence;
            for id in relayed {
                self.ledger.relayed.insert(id);
            }
            (self.deliver)(&entries);
        }
        self.queue.lock().bytes -= bytes;
        self.wrote_at = Some(Instant::now());
        for done in self.dones.drain(..) {
            call(done, result.clone());
        }
    }

    /// Checks whether an event of another daemon was taken before, or is among those of this group.
    fn is_repeat(&self, event: &Event, audience: &Audience, group: &mut HashSet<Uuid>) -> bool {
        *audience == Audience::Subscribers
            && event.is_relayed()
            && (self.ledger.relayed.contains(event.id) || !group.insert(event.id))
    }

    /// Refuses events while some of the reserve for the counters has been given up.
    fn leave_the_reserve(&self) -> Result<(), PublishError> {
        if self.ledger.reserve.is_full_again() {
            return Ok(());
        }
        let what = "the disk is full, and what was kept of it is for the counters";
        let error = io::Error::new(io::ErrorKind::StorageFull, what);
        Err(self.refused(self.active.path(), &error))
    }

    /// Begins the next segment where the active one is full, or was deleted.
    fn begin_where_full(&mut self) -> Result<(), PublishError> {
        if self.active.bytes() < self.ledger.segment_bytes && !self.is_gone {
            return Ok(());
        }
        let begun = self.ledger.begin_segment(self.next);
        self.active = begun.map_err(|error| self.refused(&self.ledger.directory, &error))?;
        (self.first_ms, self.is_gone) = (0, false);
        Ok(())
    }

    fn write(&mut self) -> Result<(), PublishError> {
        let written = self.active.append(&self.buffer, self.ledger.is_power());
        written.map_err(|error| self.refused(self.active.path(), &error))?;
        if self.first_ms == 0 {
            self.first_ms = now_ms();
        }
        self.ledger.grown(self.active.bytes());
        self.ledger.wrote(Ok(()));
        Ok(())
    }

    fn refused(&self, path: &Path, error: &io::Error) -> PublishError {
        let (path, reason) = (path.display().to_string(), error.to_string());
        let error = PublishError::Io { what: "write", path, reason, remedy: remedy(error) };
        self.ledger.wrote(Err(&error));
        error
    }

    fn seal(&mut self) {
        // What is written to a file without a name survives nothing.
        self.is_gone = self.active.is_gone();
        if self.first_ms == 0 && !self.is_gone {
            return;
        }
        match self.ledger.begin_segment(self.next) {
            Ok(segment) => {
                self.active = segment;
                (self.first_ms, self.is_gone) = (0, false);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot begin a new event ledger segment, will try again");
            }
        }
    }
}

impl QueueState {
    /// Returns whether what waits may wait for more: nobody is told of it, and it is little.
    fn gathers(&self) -> bool {
        let is_little = self.jobs.len() < GATHERED && self.bytes < GROUP_BYTES as u64;
        self.awaited == 0 && is_little && self.end.is_none() && !self.seal
    }

    /// Takes whole calls from the front, as many as fit in one group.
    fn next_group(&mut self) -> Vec<Job> {
        let mut bytes = 0;
        let mut count = 0;
        for job in &self.jobs {
            bytes += usize::try_from(weight(job)).unwrap_or(usize::MAX);
            if count > 0 && bytes > GROUP_BYTES {
                break;
            }
            count += 1;
        }
        let group: Vec<Job> = self.jobs.drain(..count).collect();
        self.awaited -= group.iter().filter(|job| job.done.is_some()).count();
        group
    }
}

fn weight(job: &Job) -> u64 {
    job.entries.iter().map(|entry| entry.event.weight() as u64).sum()
}

/// Calls a publisher's callback; a panic of it is caught and logged.
fn call(done: Done, result: Result<(), PublishError>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("a publisher panicked when it was told about its events");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use module_sdk::Class;
    use uuid::Uuid;

    use super::*;
    use crate::ledger::{Audience, Durability, Event, Losses, Memory, Reserve};

    fn job(done: Option<Done>) -> Job {
        let event = Event {
            id: Uuid::now_v7(),
            time_ns: 1,
            sequence: 0,
            class: Class::Ledger,
            topic: "a.b".into(),
            source: "/lodestar/test".into(),
            subject: "".into(),
            traceparent: "".into(),
            data: b"1".to_vec().into(),
        };
        Job { entries: vec![Entry { event, audience: Audience::Subscribers }], done }
    }

    #[test]
    fn a_group_gathers_only_while_nobody_waits_for_it() {
        let mut state = QueueState::default();
        state.jobs.push_back(job(None));
        assert!(state.gathers());
        state.awaited = 1;
        assert!(!state.gathers(), "a publisher waits");
        state.awaited = 0;
        state.end = Some(End::Finish);
        assert!(!state.gathers(), "the end is near");
        state.end = None;
        state.jobs.extend((1..GATHERED).map(|_| job(None)));
        assert!(!state.gathers(), "it is large enough");
        assert_eq!((state.next_group().len(), state.jobs.len()), (GATHERED, 0));
    }

    #[test]
    fn whoever_waits_when_the_thread_ends_is_told_and_the_next_one_too() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, memory) = (directory.path(), Memory::default());
        let (losses, reserve) = (Losses::open(path), Reserve::open(path, 0));
        let opened = Ledger::open(path, Durability::Process, 1 << 20, &memory, losses, reserve);
        let opened = opened.expect("it opens");
        let ledger = opened.ledger.clone();
        let deliver: Deliver = Box::new(|_| panic!("a defect, as the test wants it"));
        let writer = Writer::start(opened, deliver).expect("a thread");
        let (sender, receiver) = mpsc::channel();
        let done = move |result| sender.send(result).expect("the test waits");
        writer.submit(job(Some(Box::new(done)))).expect("queued");
        let told = receiver.recv().expect("told").expect_err("nobody handed it on");
        assert_eq!(told, PublishError::WriterEnded);
        let refused = writer.submit(job(None)).expect_err("nobody would write it");
        assert_eq!(refused, PublishError::WriterEnded);
        let text = refused.to_string();
        assert!(text.contains("restart lodestard") && !text.contains("disk"), "{text}");
        let trouble = ledger.health().trouble.expect("it is told");
        assert!(trouble.remedy.contains("restart lodestard"), "{trouble:?}");
        assert!(!writer.finish(), "it did not end in order");
    }
}

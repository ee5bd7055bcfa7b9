//! The thread that keeps the servers which come with Lodestar: one on the address that everybody
//! knows (*front*), and one for measuring versions of another base (*side*).
//!
//! A server is a child of this thread and ends with it. The front's socket is kept here, too: where
//! nobody serves on it and somebody comes, a server is started for them.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use module_sdk::{Host, Secret};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    ServingError, block_on,
    board::{Board, News, Which, lock},
    process::{Process, Served, private_socket},
};
use crate::{
    deploy::{Kind, Server},
    run::Embedded,
};

/// Name of the listener in the manifest.
const LISTENER: &str = "serving";
/// Time without a request after which a server that nobody needs is ended.
const IDLE: Duration = Duration::from_secs(600);
/// Time between two looks at whether it is needed.
const LOOK: Duration = Duration::from_secs(30);
/// Time until a server that died is started again: the first one, and the longest.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);
/// Time after which a server is taken to be well.
const STEADY: Duration = Duration::from_secs(10);
/// Time that servers get for what they have begun when the module stops.
const GRACE: Duration = Duration::from_secs(5);

/// Time within which a server follows, or says that it is there.
const ASKED: Duration = Duration::from_secs(2);

/// Check of a base, made before each start: an error when it is not what it was, or once the module
/// stops, which does not wait for gigabytes.
pub(super) type Check = Box<dyn Fn(&Served, &AtomicBool) -> Result<(), ServingError> + Send>;

/// A place where a server answers or will answer, with the number of times that it died.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started {
    pub which: Which,
    pub address: SocketAddr,
    pub deaths: u64,
}

type Answer = Sender<Result<Started, ServingError>>;

enum Command {
    /// Serve this on the address that everybody knows; `keep` it also when nobody asks.
    Front { served: Served, keep: bool, answer: Answer },
    /// Serve this from the next start on, and `keep` it also when nobody asks.
    Settle { served: Served, keep: bool },
    /// Take a place where a base can be asked, as long as the lease is held.
    Measure { served: Served, lease: Weak<()>, answer: Answer },
    /// End.
    Leave,
}

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Supervisor {
    commands: Sender<Command>,
    wake: UnixStream,
    thread: Mutex<Option<JoinHandle<()>>>,
    board: Arc<Board>,
    /// Tells the thread in the midst of its work that the module stops.
    is_left: Arc<AtomicBool>,
}

impl Supervisor {
    pub(super) fn start(
        host: &Host,
        trainer: Embedded,
        key: Secret,
        check: Check,
    ) -> Result<Self, ServingError> {
        let (commands, received) = channel();
        let (wake, woken) = UnixStream::pair().map_err(ServingError::Socket)?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).map_err(ServingError::Socket)?;
        }
        let (board, is_left): (Arc<Board>, Arc<AtomicBool>) = Default::default();
        let folder = host.data_dir().join("serving");
        let mut keeper = Keeper {
            host: host.clone(),
            trainer,
            key,
            check,
            folder,
            front: None,
            retry_at: None,
            wanted: None,
            side: None,
            leases: Vec::new(),
            draining: Vec::new(),
            looked: Instant::now(),
            board: board.clone(),
            is_left: is_left.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("learning:serving".to_owned())
            .spawn(move || keeper.run(&received, &woken))
            .map_err(ServingError::Socket)?;
        Ok(Self { commands, wake, thread: Mutex::new(Some(thread)), board, is_left })
    }

    /// Serves on the address that everybody knows, from now on.
    pub(super) fn front(&self, served: Served, keep: bool) -> Result<Started, ServingError> {
        self.ask(|answer| Command::Front { served, keep, answer })
    }

    /// Serves as [`front`](Self::front) does, and does not wait for it.
    pub(super) fn begin(&self, served: Served, keep: bool) {
        let (answer, _) = channel();
        self.send(Command::Front { served, keep, answer });
    }

    /// Serves from the next start on, where the front has been asked for.
    pub(super) fn settle(&self, served: Served, keep: bool) {
        self.send(Command::Settle { served, keep });
    }

    /// Returns a place where a base can be asked as long as the lease is held.
    pub(super) fn measure(&self, served: Served, lease: &Arc<()>) -> Result<Started, ServingError> {
        let lease = Arc::downgrade(lease);
        self.ask(|answer| Command::Measure { served, lease, answer })
    }

    /// Returns the news of a server.
    pub(super) fn news(&self, which: Which) -> News {
        self.board.of(which).clone()
    }

    /// Waits for a while for the death of a server that was started; returns its news.
    pub(super) fn watch(&self, started: Started, time: Duration) -> News {
        self.board.watch(started.which, started.deaths, time)
    }

    /// Ends the servers and the thread.
    pub(super) fn leave(&self) {
        self.is_left.store(true, Ordering::Relaxed);
        self.send(Command::Leave);
        let thread = lock(&self.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that keeps servers panicked");
        }
    }

    fn ask(&self, command: impl FnOnce(Answer) -> Command) -> Result<Started, ServingError> {
        let (answer, answered) = channel();
        self.send(command(answer));
        answered.recv().unwrap_or(Err(ServingError::Left))
    }

    fn send(&self, command: Command) {
        // Where the thread is gone, whoever waits for an answer is told so.
        drop(self.commands.send(command));
        // A full pipe wakes as well.
        drop((&self.wake).write(&[1]));
    }
}

/// A socket with the server on it, if there is one.
#[derive(Debug)]
struct Slot {
    listener: TcpListener,
    address: SocketAddr,
    running: Option<(Process, Served)>,
    /// Time before which it is not started again, and the pause until then.
    retry_at: Option<Instant>,
    pause: Duration,
}

impl Slot {
    fn new(listener: TcpListener, address: SocketAddr) -> Self {
        Self { listener, address, running: None, retry_at: None, pause: SOONEST }
    }

    fn has(&self, base: &Path) -> bool {
        self.running.as_ref().is_some_and(|(_, served)| served.base == *base)
    }

    /// Lets some time pass until the next start, and more each time.
    fn pause(&mut self) {
        self.retry_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LATEST);
    }

    fn may_start(&self) -> bool {
        self.running.is_none() && self.retry_at.is_none_or(|at| at <= Instant::now())
    }
}

/// The thread.
struct Keeper {
    host: Host,
    trainer: Embedded,
    key: Secret,
    check: Check,
    folder: PathBuf,
    front: Option<Slot>,
    /// Time before which its address is not asked for again.
    retry_at: Option<Instant>,
    /// Base and adapters of the front, and whether it serves them while nobody asks.
    wanted: Option<(Served, bool)>,
    side: Option<Slot>,
    leases: Vec<Weak<()>>,
    draining: Vec<Process>,
    looked: Instant,
    board: Arc<Board>,
    is_left: Arc<AtomicBool>,
}

impl Keeper {
    fn run(&mut self, commands: &Receiver<Command>, woken: &UnixStream) {
        loop {
            self.wait(woken);
            // What woke it is of no interest.
            while matches!((&*woken).read(&mut [0; 64]), Ok(1..)) {}
            self.take_note();
            loop {
                match commands.try_recv() {
                    Ok(Command::Front { served, keep, answer }) => {
                        self.wanted = Some((served, keep));
                        drop(answer.send(self.serve_front()));
                    }
                    Ok(Command::Settle { served, keep }) if self.wanted.is_some() => {
                        self.follow(&served);
                        self.wanted = Some((served, keep));
                    }
                    Ok(Command::Settle { .. }) => {}
                    Ok(Command::Measure { served, lease, answer }) => {
                        drop(answer.send(self.measure(served, lease)));
                    }
                    Ok(Command::Leave) => return self.leave(),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return self.leave(),
                }
            }
            self.keep();
            self.end_idle();
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, woken: &UnixStream) {
        let mut events = vec![PollFd::new(woken, PollFlags::IN)];
        let slots = self.front.iter().chain(&self.side);
        let running = slots.clone().filter_map(|slot| slot.running.as_ref()).map(|it| &it.0);
        for process in running.chain(&self.draining) {
            events.push(PollFd::from_borrowed_fd(process.end(), PollFlags::IN));
        }
        // Somebody comes while nobody serves.
        if let Some(slot) = self.front.as_ref().filter(|it| it.may_start() && self.wanted.is_some())
        {
            events.push(PollFd::new(&slot.listener, PollFlags::IN));
        }
        let now = Instant::now();
        let retries = slots.filter_map(|slot| slot.retry_at).chain(self.retry_at);
        let first =
            retries.filter(|at| *at > now).map(|at| at.saturating_duration_since(now)).min();
        let timeout = first.unwrap_or(LOOK).min(LOOK) + Duration::from_millis(1);
        let timeout = Timespec::try_from(timeout).ok();
        // An interruption only makes it look around sooner.
        let _: Result<_, _> = poll(&mut events, timeout.as_ref());
    }

    /// Takes note of servers that ended, and of those that are well.
    fn take_note(&mut self) {
        self.draining.retain_mut(|process| !process.has_ended());
        let slots = [(Which::Front, &mut self.front), (Which::Side, &mut self.side)];
        for (which, slot) in slots {
            let Some(slot) = slot else { continue };
            let Some((process, _)) = &mut slot.running else { continue };
            if process.has_ended() {
                let words = process.last_words();
                tracing::warn!(reason = words, "the server of trained versions ended");
                slot.running = None;
                slot.pause();
                self.board.note(which, words);
            } else if process.age() >= STEADY {
                slot.pause = SOONEST;
                self.board.of(which).reason = None;
            }
        }
    }

    /// Starts the front where it should run and does not, or where somebody waits for it.
    fn keep(&mut self) {
        let Some((_, keep)) = self.wanted else { return };
        let is_due = match &self.front {
            None => keep && self.retry_at.is_none_or(|at| at <= Instant::now()),
            Some(slot) => slot.may_start() && (keep || somebody_waits(&slot.listener)),
        };
        if is_due && let Err(error) = self.serve_front() {
            tracing::warn!(%error, "trained versions are not served");
        }
    }

    /// Serves the base that is wanted on the front, and returns where.
    fn serve_front(&mut self) -> Result<Started, ServingError> {
        let Some((served, _)) = self.wanted.clone() else { return Err(ServingError::Left) };
        let done = self.try_front(served);
        if let Err(error) = &done {
            match &mut self.front {
                Some(slot) => slot.pause(),
                None => self.retry_at = Some(Instant::now() + LATEST / 4),
            }
            self.board.note(Which::Front, error.to_string());
        }
        done
    }

    /// Closes the version on trial at the front, where that is none any more, and notes what it
    /// serves. One that does not obey is ended: it must not answer with it.
    fn follow(&mut self, served: &Served) {
        let Some(slot) = &mut self.front else { return };
        let address = slot.address;
        let Some((_, of_running)) = slot.running.as_mut().filter(|it| it.1.base == served.base)
        else {
            return;
        };
        let is_over = of_running.on_trial.is_some() && of_running.on_trial != served.on_trial;
        // The adapter is switched by whoever asked; the next start begins with it.
        of_running.clone_from(served);
        let server = Server::new(Kind::Embedded, &format!("http://{address}"));
        let server = server.with_key(self.key.clone());
        if is_over
            && let Err(error) = block_on(server.open(&[], ASKED))
            && let Some((process, _)) = slot.running.take()
        {
            tracing::warn!(%error, "the server of trained versions is started anew");
            process.ask_to_stop();
            self.draining.push(process);
        }
    }

    fn try_front(&mut self, served: Served) -> Result<Started, ServingError> {
        self.follow(&served);
        if self.front.is_none() {
            let listener = self
                .host
                .listener(LISTENER)
                .map_err(|error| ServingError::Address(error.to_string()))?;
            listener.set_nonblocking(true).map_err(ServingError::Socket)?;
            let address = listener.local_addr().map_err(ServingError::Socket)?;
            self.front = Some(Slot::new(listener, address));
            self.board.of(Which::Front).address = Some(address);
        }
        let slot = self.front.as_mut().ok_or(ServingError::Left)?;
        if !slot.has(&served.base) {
            (self.check)(&served, &self.is_left)?;
            let program = self.trainer.find().map_err(ServingError::NoProgram)?;
            let log = self.folder.join("front.log");
            let new = Process::start(&program, &served, &slot.listener, &self.key, &log)?;
            // The one before answers what it has begun, and takes nothing new.
            if let Some((old, _)) = slot.running.replace((new, served)) {
                old.ask_to_stop();
                self.draining.push(old);
            }
            slot.retry_at = None;
        }
        let address = slot.address;
        Ok(self.started(Which::Front, address))
    }

    fn measure(&mut self, served: Served, lease: Weak<()>) -> Result<Started, ServingError> {
        self.leases.push(lease);
        if let Some(slot) = self.front.as_ref().filter(|slot| slot.has(&served.base)) {
            return Ok(self.started(Which::Front, slot.address));
        }
        if let Some(slot) = self.side.as_ref().filter(|slot| slot.has(&served.base)) {
            return Ok(self.started(Which::Side, slot.address));
        }
        (self.check)(&served, &self.is_left)?;
        let program = self.trainer.find().map_err(ServingError::NoProgram)?;
        let (listener, address) = private_socket()?;
        let log = self.folder.join("side.log");
        let process = Process::start(&program, &served, &listener, &self.key, &log)?;
        let mut slot = Slot::new(listener, address);
        slot.running = Some((process, served));
        if let Some((old, _)) = self.side.replace(slot).and_then(|old| old.running) {
            old.ask_to_stop();
            self.draining.push(old);
        }
        Ok(self.started(Which::Side, address))
    }

    fn started(&self, which: Which, address: SocketAddr) -> Started {
        Started { which, address, deaths: self.board.of(which).deaths }
    }

    /// Ends what nobody has needed for a while.
    fn end_idle(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        self.leases.retain(|lease| lease.strong_count() > 0);
        let is_free = |slot: &Slot| slot.running.is_some() && self.is_idle(slot.address);
        let ends_front = self.leases.is_empty()
            && self.wanted.as_ref().is_some_and(|(_, keep)| !keep)
            && self.front.as_ref().is_some_and(is_free);
        let ends_side = self.leases.is_empty()
            && self.side.as_ref().is_some_and(|it| it.running.is_none() || is_free(it));
        let front = self.front.as_mut().filter(|_| ends_front).and_then(|it| it.running.take());
        let side = self.side.take_if(|_| ends_side).and_then(|it| it.running);
        for (process, _) in front.into_iter().chain(side) {
            process.ask_to_stop();
            self.draining.push(process);
        }
    }

    fn is_idle(&self, address: SocketAddr) -> bool {
        let server = Server::new(Kind::Embedded, &format!("http://{address}"));
        block_on(server.idle(ASKED)).is_ok_and(|idle| idle >= IDLE)
    }

    fn leave(&mut self) {
        let slots = [self.front.take(), self.side.take()].into_iter().flatten();
        self.draining.extend(slots.filter_map(|slot| slot.running).map(|it| it.0));
        for process in &self.draining {
            process.ask_to_stop();
        }
        let until = Instant::now() + GRACE;
        while !self.draining.is_empty() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            wait_for_ends(&self.draining, left);
            self.draining.retain_mut(|process| !process.has_ended());
        }
        // What is left is ended at once.
        self.draining.clear();
    }
}

/// Waits until one of some processes ends, at most for a time.
fn wait_for_ends(processes: &[Process], most: Duration) {
    let ends = processes.iter().map(|it| PollFd::from_borrowed_fd(it.end(), PollFlags::IN));
    let mut ends: Vec<PollFd<'_>> = ends.collect();
    let _: Result<_, _> = poll(&mut ends, Timespec::try_from(most).ok().as_ref());
}

/// Returns `true` where a connection was made that nobody has taken.
fn somebody_waits(listener: &TcpListener) -> bool {
    let mut events = [PollFd::new(listener, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut events, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

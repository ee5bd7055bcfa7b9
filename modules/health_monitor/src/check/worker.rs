//! The threads of checks: each runs one check again and again, and is left behind when it hangs.

use std::{
    any::Any,
    collections::HashMap,
    os::fd::{AsFd as _, OwnedFd},
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use module_sdk::{Result, human};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::{Check, Plan, Progress};
use crate::{
    reading::{Component, Report},
    text,
};

/// Threads of one check that may hang at once; then it waits until one of them returns.
const HANGING: usize = 4;

/// The threads of all checks.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    inbox: Arc<Mutex<Vec<(&'static str, Report)>>>,
}

#[derive(Debug)]
struct Worker {
    plan: Arc<Plan>,
    progress: Arc<Progress>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Runs that were left behind and have not returned.
    left_behind: Arc<Mutex<HashMap<u64, Component>>>,
    number: u64,
    /// `true` once the check was told to be unknown as a whole.
    is_told: bool,
}

/// State of the thread that runs a check.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Run>,
    changed: Condvar,
    /// Descriptor that becomes readable with `changed`, made where a check waits for others too.
    event: OnceLock<Option<OwnedFd>>,
}

#[derive(Debug, Default)]
struct Run {
    /// Start of the run under way.
    begun: Option<Instant>,
    /// `true` once the thread is to end, or was left behind.
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Run> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for a change.
    fn notify(&self) {
        self.changed.notify_all();
        if let Some(Some(event)) = self.event.get() {
            // It fails only where it is readable already.
            let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
        }
    }
}

/// Time between two runs of a check. It is over early where no run follows.
#[derive(Debug)]
pub struct Pause<'a> {
    shared: &'a Shared,
    until: Instant,
}

impl Pause<'_> {
    /// Waits until it is over.
    pub fn wait(&self) {
        let left = self.until.saturating_duration_since(Instant::now());
        let run = self.shared.lock();
        drop(self.shared.changed.wait_timeout_while(run, left, |run| !run.is_over));
    }

    /// Waits until it is over, or until the kernel has something urgent to tell (`POLLPRI`) on one
    /// of the descriptors; those of which it will tell nothing any more are taken out.
    pub fn wait_for(&self, urgent: &mut Vec<OwnedFd>) {
        let event = self
            .shared
            .event
            .get_or_init(|| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok());
        let Some(event) = event.as_ref().filter(|_| !urgent.is_empty()) else { return self.wait() };
        if self.shared.lock().is_over {
            return;
        }
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let mut all = vec![PollFd::from_borrowed_fd(event.as_fd(), PollFlags::IN)];
            all.extend(
                urgent.iter().map(|it| PollFd::from_borrowed_fd(it.as_fd(), PollFlags::PRI)),
            );
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut all, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return self.wait(),
                Ok(_) => {
                    let _ = rustix::io::read(event, &mut [0; 8]);
                    let over = PollFlags::ERR | PollFlags::NVAL;
                    let states = all.iter().skip(1).map(PollFd::revents);
                    let mut states = states.collect::<Vec<_>>().into_iter();
                    urgent.retain(|_| states.next().is_none_or(|it| !it.intersects(over)));
                    return;
                }
            }
        }
    }
}

impl Workers {
    /// Starts a thread for each check.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started.
    pub fn start(plans: Vec<Plan>) -> Result<Self> {
        let inbox = Arc::default();
        let workers = plans
            .into_iter()
            .map(|plan| Worker::start(Arc::new(plan), &inbox))
            .collect::<Result<_>>()?;
        Ok(Self { workers, inbox })
    }

    /// Returns the reports that came since the last call, and those of the checks that hang.
    pub fn reports(&mut self) -> Vec<(&'static str, Report)> {
        let mut reports = self.take();
        for worker in &mut self.workers {
            if reports.iter().any(|(name, _)| *name == worker.plan.name) {
                worker.is_told = false;
            }
            if worker.is_overdue()
                && let Some(report) = worker.leave_behind(&self.inbox)
            {
                reports.push((worker.plan.name, report));
            }
        }
        reports
    }

    fn take(&self) -> Vec<(&'static str, Report)> {
        std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends all threads that do not hang.
    pub fn stop(&mut self, grace: Duration) {
        for worker in &self.workers {
            worker.progress.end();
            worker.shared.lock().is_over = true;
            worker.shared.notify();
        }
        let begun = Instant::now();
        for worker in &mut self.workers {
            let left = grace.saturating_sub(begun.elapsed());
            let run = worker.shared.lock();
            let waited =
                worker.shared.changed.wait_timeout_while(run, left, |run| run.begun.is_some());
            let hangs = waited.unwrap_or_else(PoisonError::into_inner).0.begun.is_some();
            let Some(thread) = worker.thread.take() else { continue };
            if hangs {
                tracing::warn!(check = worker.plan.name, "a check hangs and is left behind");
            } else if thread.join().is_err() {
                tracing::error!(check = worker.plan.name, "the thread of a check panicked");
            }
        }
    }
}

impl Worker {
    fn start(plan: Arc<Plan>, inbox: &Arc<Mutex<Vec<(&'static str, Report)>>>) -> Result<Self> {
        let mut worker = Self {
            plan,
            progress: Arc::default(),
            shared: Arc::default(),
            thread: None,
            left_behind: Arc::default(),
            number: 0,
            is_told: false,
        };
        worker.spawn(inbox)?;
        Ok(worker)
    }

    fn spawn(&mut self, inbox: &Arc<Mutex<Vec<(&'static str, Report)>>>) -> Result<()> {
        self.shared = Arc::default();
        self.number += 1;
        let (plan, progress, shared) =
            (self.plan.clone(), self.progress.clone(), self.shared.clone());
        let (inbox, left_behind, number) = (inbox.clone(), self.left_behind.clone(), self.number);
        // Linux keeps 15 bytes of a thread's name.
        let name = format!("hm:{}", plan.name);
        self.thread = Some(thread::Builder::new().name(name).spawn(move || {
            run(&plan, &progress, &shared, &inbox);
            // A run that was left behind has returned: its component is looked at again.
            let mut left_behind = left_behind.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(component) = left_behind.remove(&number) {
                progress
                    .state
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .hanging
                    .remove(&component);
            }
        })?);
        Ok(())
    }

    fn is_overdue(&self) -> bool {
        let run = self.shared.lock();
        run.begun.is_some_and(|begun| begun.elapsed() > self.plan.deadline)
    }

    /// Leaves a run behind that hangs, and goes on without the component that it hangs at.
    fn leave_behind(&mut self, inbox: &Arc<Mutex<Vec<(&'static str, Report)>>>) -> Option<Report> {
        let mut at = self.progress.state.lock().unwrap_or_else(PoisonError::into_inner);
        let component = at.component.take();
        let mut left_behind = self.left_behind.lock().unwrap_or_else(PoisonError::into_inner);
        let named = component.filter(|_| left_behind.len() < HANGING);
        if let Some(component) = named {
            at.hanging.insert(component.clone());
            left_behind.insert(self.number, component);
            drop((at, left_behind));
            self.shared.lock().is_over = true;
            self.is_told = false;
            if let Err(error) = self.spawn(inbox) {
                tracing::error!(check = self.plan.name, %error, "a check cannot go on");
            }
            // The components that do not hang follow with the next report.
            return None;
        }
        drop((at, left_behind));
        if std::mem::replace(&mut self.is_told, true) {
            return None;
        }
        let within = human::duration(self.plan.deadline);
        let hangs = format!("no answer within {within}; a call hangs in the system or a driver.");
        Some(Report { hangs: Some(hangs), ..Report::default() })
    }
}

/// Runs a check until it is over. One that panics is made anew for the next run.
fn run(
    plan: &Plan,
    progress: &Progress,
    shared: &Shared,
    inbox: &Mutex<Vec<(&'static str, Report)>>,
) {
    let mut check: Option<Box<dyn Check>> = None;
    loop {
        let begun = Instant::now();
        {
            let mut run = shared.lock();
            if run.is_over {
                return;
            }
            run.begun = Some(begun);
        }
        let report = contained(|| check.get_or_insert_with(|| (plan.make)()).run(progress));
        let report = report.unwrap_or_else(|message| {
            check = None;
            tracing::error!(check = plan.name, "a check panicked: {message}");
            let hangs = Some(format!("the check failed: {message}"));
            Report { hangs, ..Report::default() }
        });
        let mut run = shared.lock();
        run.begun = None;
        shared.changed.notify_all();
        if run.is_over {
            return;
        }
        drop(run);
        // Where it was left behind, the progress is that of the run which followed it.
        progress.leave();
        inbox.lock().unwrap_or_else(PoisonError::into_inner).push((plan.name, report));
        let pause = Pause { shared, until: begun + plan.interval };
        let waited = contained(|| match &mut check {
            Some(check) => check.wait(&pause),
            None => pause.wait(),
        });
        if waited.is_err() {
            check = None;
            pause.wait();
        }
    }
}

/// Does something that may panic; returns what the panic said.
fn contained<T>(work: impl FnOnce() -> T) -> std::result::Result<T, Said> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Said::of(panic.as_ref()))
}

/// Words of a panic.
struct Said(String);

impl Said {
    fn of(panic: &(dyn Any + Send)) -> Self {
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self(text::visible(said.unwrap_or("it says nothing")))
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;

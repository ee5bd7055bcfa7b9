//! The threads of checks: each runs one check again and again, or a few that share it, and is left
//! behind when one hangs.

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

/// Name of the thread that several checks share.
const SHARED: &str = "machine";

/// The threads of all checks.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    inbox: Arc<Mutex<Vec<(&'static str, Report)>>>,
}

#[derive(Debug)]
struct Worker {
    members: Vec<Member>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Runs that were left behind and have not returned.
    left_behind: Arc<Mutex<HashMap<u64, Component>>>,
    number: u64,
    /// `true` once the check was told to be unknown as a whole.
    is_told: bool,
}

/// A check that a thread runs.
#[derive(Debug, Clone)]
struct Member {
    plan: Arc<Plan>,
    progress: Arc<Progress>,
}

/// State of the thread that runs checks.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Run>,
    changed: Condvar,
    /// Descriptor that becomes readable with `changed`, made where a check waits for others too.
    event: OnceLock<Option<OwnedFd>>,
}

#[derive(Debug, Default)]
struct Run {
    /// Index of the member whose run is under way, and its start.
    begun: Option<(usize, Instant)>,
    /// `true` once the thread is to end, or was left behind.
    is_over: bool,
    /// Index of the member with which alone the thread is to go on.
    alone: Option<usize>,
    /// Names of the checks that are to run at once.
    woken: Vec<&'static str>,
}

impl Run {
    /// Returns whether a pause is over before its time.
    fn is_awake(&self) -> bool {
        self.is_over || !self.woken.is_empty()
    }
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

/// Time between two runs of a thread. It is over early where no run follows, or one at once.
#[derive(Debug)]
struct Pause<'a> {
    shared: &'a Shared,
    until: Instant,
}

impl Pause<'_> {
    /// Waits until it is over.
    fn wait(&self) {
        let left = self.until.saturating_duration_since(Instant::now());
        let run = self.shared.lock();
        drop(self.shared.changed.wait_timeout_while(run, left, |run| !run.is_awake()));
    }

    /// Waits until it is over, or until the kernel has something urgent to tell (`POLLPRI`) on one
    /// of the descriptors; those of which it will tell nothing any more are taken out.
    fn wait_for(&self, urgent: &mut Vec<OwnedFd>) {
        let event = self
            .shared
            .event
            .get_or_init(|| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok());
        let Some(event) = event.as_ref() else { return self.wait() };
        if self.shared.lock().is_awake() {
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
    /// Starts a thread for each check, and one for all that share one.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started.
    pub fn start(plans: Vec<Plan>) -> Result<Self> {
        let inbox = Arc::default();
        let members =
            plans.into_iter().map(|plan| Member { plan: Arc::new(plan), progress: Arc::default() });
        let (sharing, alone): (Vec<_>, Vec<_>) = members.partition(|member| member.plan.shares);
        let crews = alone.into_iter().map(|member| vec![member]).chain([sharing]);
        let workers = crews
            .filter(|members| !members.is_empty())
            .map(|members| Worker::start(members, &inbox))
            .collect::<Result<_>>()?;
        Ok(Self { workers, inbox })
    }

    /// Returns the reports that came since the last call, and those of the checks that hang.
    pub fn reports(&mut self) -> Vec<(&'static str, Report)> {
        let mut reports = self.take();
        let mut parted = Vec::new();
        for worker in &mut self.workers {
            if reports.iter().any(|(name, _)| *name == worker.name()) {
                worker.is_told = false;
            }
            let Some(hanging) = worker.overdue() else { continue };
            parted.extend(worker.part_from_others(hanging, &self.inbox));
            if let Some(report) = worker.leave_behind(&self.inbox) {
                reports.push((worker.name(), report));
            }
        }
        self.workers.extend(parted);
        reports
    }

    /// Lets a check run at once, where there is news for it.
    pub fn wake(&self, name: &'static str) {
        let runs = |worker: &&Worker| worker.members.iter().any(|it| it.plan.name == name);
        for worker in self.workers.iter().filter(runs) {
            let mut run = worker.shared.lock();
            if !run.woken.contains(&name) {
                run.woken.push(name);
            }
            drop(run);
            worker.shared.notify();
        }
    }

    fn take(&self) -> Vec<(&'static str, Report)> {
        std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends all threads that do not hang.
    pub fn stop(&mut self, grace: Duration) {
        for worker in &self.workers {
            worker.members.iter().for_each(|member| member.progress.end());
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
                tracing::warn!(check = worker.name(), "a check hangs and is left behind");
            } else if thread.join().is_err() {
                tracing::error!(check = worker.name(), "the thread of a check panicked");
            }
        }
    }
}

impl Worker {
    fn start(
        members: Vec<Member>,
        inbox: &Arc<Mutex<Vec<(&'static str, Report)>>>,
    ) -> Result<Self> {
        let mut worker = Self {
            members,
            shared: Arc::default(),
            thread: None,
            left_behind: Arc::default(),
            number: 0,
            is_told: false,
        };
        worker.spawn(inbox)?;
        Ok(worker)
    }

    /// Returns the name of its check, or of all that share its thread.
    fn name(&self) -> &'static str {
        match self.members.as_slice() {
            [member] => member.plan.name,
            _ => SHARED,
        }
    }

    fn spawn(&mut self, inbox: &Arc<Mutex<Vec<(&'static str, Report)>>>) -> Result<()> {
        self.shared = Arc::default();
        self.number += 1;
        let (members, shared) = (self.members.clone(), self.shared.clone());
        let (inbox, left_behind, number) = (inbox.clone(), self.left_behind.clone(), self.number);
        // Linux keeps 15 bytes of a thread's name.
        let name = format!("hm:{}", self.name());
        self.thread = Some(thread::Builder::new().name(name).spawn(move || {
            run(&members, &shared, &inbox);
            // A run that was left behind has returned: its component is looked at again.
            let mut left_behind = left_behind.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(component) = left_behind.remove(&number) {
                members.iter().for_each(|member| member.progress.found_again(&component));
            }
        })?);
        Ok(())
    }

    /// Returns the index of the member whose run has not ended in time.
    fn overdue(&self) -> Option<usize> {
        let (index, begun) = self.shared.lock().begun?;
        let is_late = begun.elapsed() > self.members.get(index)?.plan.deadline;
        is_late.then_some(index)
    }

    /// Makes the member that hangs the only one of this worker, for good; returns a worker for the
    /// others.
    fn part_from_others(
        &mut self,
        hanging: usize,
        inbox: &Arc<Mutex<Vec<(&'static str, Report)>>>,
    ) -> Option<Self> {
        if self.members.len() == 1 {
            return None;
        }
        let alone = self.members.remove(hanging);
        let others = std::mem::replace(&mut self.members, vec![alone]);
        {
            let mut run = self.shared.lock();
            run.alone = Some(hanging);
            run.begun = run.begun.map(|(_, begun)| (0, begun));
        }
        let others = Self::start(others, inbox);
        others.inspect_err(|error| tracing::error!(%error, "some checks cannot go on")).ok()
    }

    /// Leaves a run behind that hangs, and goes on without the component that it hangs at.
    fn leave_behind(&mut self, inbox: &Arc<Mutex<Vec<(&'static str, Report)>>>) -> Option<Report> {
        let Member { plan, progress } = self.members.first()?.clone();
        let mut at = progress.state.lock().unwrap_or_else(PoisonError::into_inner);
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
                tracing::error!(check = plan.name, %error, "a check cannot go on");
            }
            // The components that do not hang follow with the next report.
            return None;
        }
        drop((at, left_behind));
        if std::mem::replace(&mut self.is_told, true) {
            return None;
        }
        let within = human::duration(plan.deadline);
        let hangs = format!("no answer within {within}; a call hangs in the system or a driver.");
        Some(Report { hangs: Some(hangs), ..Report::default() })
    }
}

/// A member as its thread runs it.
struct Turn<'a> {
    member: &'a Member,
    check: Option<Box<dyn Check>>,
    due: Instant,
}

/// Runs checks until they are over, each when it is due. One that panics is made anew for the next
/// run.
fn run(members: &[Member], shared: &Shared, inbox: &Mutex<Vec<(&'static str, Report)>>) {
    let now = Instant::now();
    let mut turns: Vec<Turn<'_>> =
        members.iter().map(|member| Turn { member, check: None, due: now }).collect();
    'rounds: loop {
        for index in 0..turns.len() {
            let turn = &mut turns[index];
            if turn.due > Instant::now() {
                continue;
            }
            let Some(report) = turn.run(index, shared) else { return };
            let name = turn.member.plan.name;
            inbox.lock().unwrap_or_else(PoisonError::into_inner).push((name, report));
            if let Some(index) = shared.lock().alone.take() {
                turns.swap(0, index);
                turns.truncate(1);
                continue 'rounds;
            }
        }
        if shared.lock().is_over {
            return;
        }
        let Some(until) = turns.iter().map(|turn| turn.due).min() else { return };
        let pause = Pause { shared, until };
        let mut urgent = turns.iter_mut().filter_map(Turn::urgent);
        match urgent.next() {
            None => pause.wait(),
            Some((due, descriptors)) => {
                pause.wait_for(descriptors);
                // Over early: there is something to look at.
                *due = (*due).min(Instant::now());
            }
        }
        let woken = std::mem::take(&mut shared.lock().woken);
        for turn in turns.iter_mut().filter(|turn| woken.contains(&turn.member.plan.name)) {
            turn.due = Instant::now();
        }
    }
}

impl Turn<'_> {
    /// Runs the check once; `None` where its thread was left behind meanwhile.
    fn run(&mut self, index: usize, shared: &Shared) -> Option<Report> {
        let Member { plan, progress } = self.member;
        let begun = Instant::now();
        {
            let mut run = shared.lock();
            if run.is_over {
                return None;
            }
            run.begun = Some((index, begun));
        }
        let done = contained(|| {
            let check = self.check.get_or_insert_with(|| (plan.make)());
            (check.run(progress), check.idle())
        });
        let (report, idle) = done.unwrap_or_else(|message| {
            self.check = None;
            tracing::error!(check = plan.name, "a check panicked: {message}");
            let hangs = Some(format!("the check failed: {message}"));
            (Report { hangs, ..Report::default() }, Duration::ZERO)
        });
        self.due = begun + plan.interval.max(idle);
        let mut run = shared.lock();
        run.begun = None;
        shared.changed.notify_all();
        if run.is_over {
            return None;
        }
        drop(run);
        // Where it was left behind, the progress is that of the run which followed it.
        progress.leave();
        Some(report)
    }

    /// Returns the descriptors by which the kernel tells the check of something, with the time at
    /// which it runs next.
    fn urgent(&mut self) -> Option<(&mut Instant, &mut Vec<OwnedFd>)> {
        let descriptors = self.check.as_mut()?.urgent()?;
        Some((&mut self.due, descriptors)).filter(|(_, descriptors)| !descriptors.is_empty())
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

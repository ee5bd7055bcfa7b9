//! Training: one run at a time, followed by a thread of its own until it ends, whoever watches.

mod ending;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use module_sdk::{Error, ErrorKind, Result};

use crate::{
    config::Serving,
    lease::Lease,
    registry::{Action, Actor, Command, Lineage, Refusal, Request, State, Version},
    run::{
        self, Bounds, Control, Ending, Job, News, Outcome, Report, Run, RunError, RunState, Told,
        Trainer,
    },
    tell,
    trainers::Trainers,
    versions::{Versions, refused},
};

/// Time between two events about the progress of a run.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Beginning of the name of a folder in which a run was resumed.
const RESUMED: &str = "resumed-";

/// Progress of the run that is followed.
#[derive(Debug, Clone, Default)]
struct Progress {
    run: String,
    told: Told,
    state: Option<RunState>,
}

#[derive(Debug)]
struct Inner {
    versions: Versions,
    trainers: Trainers,
    bounds: Bounds,
    folder: PathBuf,
    lease: Lease,
    progress: Mutex<Progress>,
    changed: Condvar,
    follower: Mutex<Option<(Arc<Control>, JoinHandle<()>)>>,
    /// Held while a run gets its turn.
    beginning: Mutex<()>,
    /// `true` once the module stops: no run is followed any more.
    is_left: AtomicBool,
}

/// The training of versions.
#[derive(Debug, Clone)]
pub(crate) struct Training(Arc<Inner>);

/// A run with the version that comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    pub run: String,
    pub version: String,
}

impl Training {
    pub(crate) fn new(
        versions: Versions,
        trainers: Trainers,
        bounds: Bounds,
        serving: &Serving,
    ) -> Self {
        let folder = versions.host.data_dir().join("runs");
        let lease = Lease::new(&folder, serving, &versions.host);
        Self(Arc::new(Inner {
            versions,
            trainers,
            bounds,
            folder,
            lease,
            progress: Mutex::default(),
            changed: Condvar::new(),
            follower: Mutex::default(),
            beginning: Mutex::default(),
            is_left: AtomicBool::new(false),
        }))
    }

    /// Takes up the run that was going on when the daemon ended: a trainer that is still there is
    /// followed, of another one it is noted how it ended.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or no thread can be started.
    pub(crate) fn take_up(&self) -> Result<()> {
        let _beginning = self.0.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_following() {
            return Ok(());
        }
        self.fail_queued()?;
        let Some(run) = self.0.versions.store.read(run::unfinished)? else {
            return self.give_back();
        };
        let version = self.version_of(&run.id)?;
        self.follow(run.id.clone(), version, move |inner, control, news| {
            let trainer = inner
                .trainers
                .named(&run.trainer)
                .map_err(|_| RunError::NoTrainer { looked: run.trainer.clone() })?;
            let folder = inner.folder_of(&run.id);
            match run::find(&run) {
                Some(process) => {
                    inner.lease.go_on_for(&run.trainer, &inner.versions.host);
                    let at = (run.attempt.max(1), &process);
                    run::go_on(&*trainer, &run.job, &folder, inner.bounds, at, control, news)
                }
                None => Ok(Some(lost(&*trainer, &run, &folder, inner.bounds))),
            }
        })
    }

    /// Returns the programs that train.
    pub(crate) fn trainers(&self) -> &Trainers {
        &self.0.trainers
    }

    /// Gives back what a run had taken that a crash of the daemon ended. To load a model takes
    /// long, and the start does not wait for it.
    fn give_back(&self) -> Result<()> {
        if self.0.lease.is_taken() {
            let training = self.clone();
            let thread = std::thread::Builder::new().name("learning:lease".to_owned());
            let work = move || training.0.lease.give_back(&training.0.is_left);
            let handle = thread.spawn(work)?;
            let mut follower = self.0.follower.lock().unwrap_or_else(PoisonError::into_inner);
            *follower = Some((Arc::default(), handle));
        }
        Ok(())
    }

    fn is_following(&self) -> bool {
        let follower = self.0.follower.lock().unwrap_or_else(PoisonError::into_inner);
        follower.as_ref().is_some_and(|(_, thread)| !thread.is_finished())
    }

    /// Notes runs that never got their turn, since the daemon ended before that.
    fn fail_queued(&self) -> Result<()> {
        let versions = &self.0.versions;
        let waiting = |version: &Version| version.state == State::Queued;
        for version in versions.ledger()?.versions.into_values().filter(waiting) {
            let at = versions.host.now().as_millisecond();
            let report = failed("the daemon ended before it began".to_owned());
            let request = by_lodestar(&version.id, Command::Act(Action::Fail));
            let done = versions.store.write(|transaction| {
                run::ended(transaction, &version.lineage.run, &report, at)?;
                versions.registry.perform(transaction, &request, at)
            })?;
            versions.performed(&done.map_err(|refusal| refused(&refusal))?);
        }
        Ok(())
    }

    /// Stops the run whose version was learnt from what was taken back.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub(crate) fn stop_tainted(&self) -> Result<()> {
        let ledger = self.0.versions.ledger()?;
        for version in ledger.versions.values().filter(|version| version.tainted) {
            self.stop(&version.lineage.run);
        }
        Ok(())
    }

    /// Begins a run that makes a version.
    ///
    /// # Errors
    ///
    /// When another one is going on, or the trainer is not there.
    pub(crate) fn begin(&self, mut job: Job, trainer: &str, lineage: Lineage) -> Result<Begun> {
        let inner = &self.0;
        let program = inner.trainers.named(trainer)?;
        // Before anything is noted: a trainer that is not there is no run.
        program.check().map_err(|error| Error::new(error.to_string()))?;
        let id = uuid::Uuid::now_v7().simple().to_string();
        job.job_id.clone_from(&id);
        let _beginning = inner.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        let at = inner.versions.host.now().as_millisecond();
        let registry = inner.versions.registry.clone();
        let (version, done) = inner.versions.store.write(|transaction| {
            if let Some(other) = run::unfinished(transaction)? {
                return Ok(Err(busy(&other.id)));
            }
            let ledger = registry.audit(transaction)?.ledger;
            let version = (1..)
                .map(|number: u64| format!("v{number}"))
                .find(|id| !ledger.versions.contains_key(id))
                .unwrap_or_default();
            let lineage = Lineage { run: id.clone(), ..lineage };
            let request = by_lodestar(&version, Command::Create(lineage));
            match registry.perform(transaction, &request, at)? {
                Ok(done) => {
                    run::create(transaction, &job, trainer, at)?;
                    Ok(Ok((version, done)))
                }
                Err(refusal) => Ok(Err(refused(&refusal))),
            }
        })??;
        inner.versions.performed(&done);
        self.start(&job, &version)?;
        let begun = Begun { run: id.clone(), version: version.clone() };
        self.follow(id, version, move |inner, control, news| {
            let folder = inner.folder.join(&job.job_id);
            inner.lease.take_for(program.name(), &job.job_id, &inner.versions.host);
            run::run(&*program, &job, &folder, inner.bounds, control, news)
        })?;
        Ok(begun)
    }

    /// Resumes a run that stopped, from its last checkpoint.
    ///
    /// # Errors
    ///
    /// When there is no checkpoint, or another run is going on.
    pub(crate) fn resume(&self, run: &Run) -> Result<Begun> {
        let inner = &self.0;
        let no_checkpoint = || {
            Error::of(ErrorKind::Refused, "the run has no checkpoint to go on from")
                .hint("`lodestar learning train` begins another one")
        };
        let job = run.resumed().ok_or_else(no_checkpoint)?;
        let ledger = inner.versions.ledger()?;
        let made = ledger.versions.values().find(|version| version.lineage.run == run.id);
        if let Some(version) = made {
            if version.tainted {
                return Err(inner.versions.refused(&version.id, &Refusal::Tainted));
            }
            inner.versions.check_dataset(&version.lineage.dataset)?;
        }
        let trainer = inner.trainers.named(&run.trainer)?;
        trainer.check().map_err(|error| Error::new(error.to_string()))?;
        let version = self.version_of(&run.id)?;
        let _beginning = inner.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        let at = inner.versions.host.now().as_millisecond();
        self.start(&job, &version)?;
        let begun = Begun { run: run.id.clone(), version: version.clone() };
        let folder = inner.folder.join(&run.id).join(format!("{RESUMED}{at}"));
        self.follow(run.id.clone(), version, move |inner, control, news| {
            inner.lease.take_for(trainer.name(), &job.job_id, &inner.versions.host);
            run::run(&*trainer, &job, &folder, inner.bounds, control, news)
        })?;
        Ok(begun)
    }

    /// Gives a run its turn.
    fn start(&self, job: &Job, version: &str) -> Result<()> {
        let versions = &self.0.versions;
        let at = versions.host.now().as_millisecond();
        let done = versions.store.write(|transaction| {
            if let Some(other) = run::unfinished(transaction)? {
                return Ok(Err(busy(&other.id)));
            }
            let request = by_lodestar(version, Command::Act(Action::Start));
            match versions.registry.perform(transaction, &request, at)? {
                Ok(done) => run::begin(transaction, job, at).map(|_| Ok(done)),
                Err(refusal) => Ok(Err(refused(&refusal))),
            }
        })??;
        versions.performed(&done);
        Ok(())
    }

    /// Asks the run that is going on to stop with a checkpoint. Returns whether there is one.
    pub(crate) fn stop(&self, run: &str) -> bool {
        let is_followed = self.progress().run == run;
        let follower = self.0.follower.lock().unwrap_or_else(PoisonError::into_inner);
        match &*follower {
            Some((control, thread)) if is_followed && !thread.is_finished() => {
                control.stop.store(true, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    /// Waits until something is told of a run, at most for some time; returns what is known and its
    /// state once it ended.
    pub(crate) fn wait(&self, run: &str, time: Duration) -> (Told, Option<RunState>) {
        let progress = self.progress();
        let seen = progress.told.step;
        let waited = self.0.changed.wait_timeout_while(progress, time, |it| {
            it.run != run || (it.state.is_none() && it.told.step == seen)
        });
        let (progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if progress.run == run {
            (progress.told.clone(), progress.state)
        } else {
            (Told::default(), None)
        }
    }

    /// Returns whether the end of a run is still to be told, which is noted a moment before.
    pub(crate) fn is_followed(&self, run: &str) -> bool {
        let progress = self.progress();
        progress.run == run && progress.state.is_none() && !self.0.is_left.load(Ordering::Relaxed)
    }

    /// Returns a run with what its trainer has told so far, which the database gets at the end.
    pub(crate) fn up_to_date(&self, run: Run) -> Run {
        let progress = self.progress();
        if run.state == RunState::Training && progress.run == run.id && progress.told.step > 0 {
            return Run { told: progress.told.clone(), ..run };
        }
        run
    }

    /// Leaves the trainer to itself: the next generation of the module takes it up.
    pub(crate) fn leave(&self) {
        let mut follower = self.0.follower.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.is_left.store(true, Ordering::Relaxed);
        let follower = {
            let taken = follower.take();
            drop(follower);
            taken
        };
        if let Some((control, thread)) = follower {
            control.leave.store(true, Ordering::Relaxed);
            if thread.join().is_err() {
                tracing::error!("the thread that follows a run panicked");
            }
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn version_of(&self, run: &str) -> Result<String> {
        let ledger = self.0.versions.ledger()?;
        let found = ledger.versions.into_values().find(|version| version.lineage.run == run);
        found.map(|version| version.id).ok_or_else(|| Error::new("no version is made by the run"))
    }

    /// Starts the thread that follows a run.
    fn follow(
        &self,
        run: String,
        version: String,
        work: impl FnOnce(
            &Inner,
            &Control,
            &mut dyn FnMut(News<'_>),
        ) -> Result<Option<Report>, RunError>
        + Send
        + 'static,
    ) -> Result<()> {
        let control = Arc::new(Control::default());
        let mut follower = self.0.follower.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.is_left.load(Ordering::Relaxed) {
            // The next generation takes the run up.
            return Err(Error::of(ErrorKind::Cancelled, "learning is stopping"));
        }
        *self.progress() = Progress { run: run.clone(), ..Progress::default() };
        let (training, watched) = (self.clone(), control.clone());
        let thread = std::thread::Builder::new().name("learning:run".to_owned());
        let handle = thread.spawn(move || {
            let mut told_at = None::<Instant>;
            let ended = work(&training.0, &watched, &mut |news| {
                training.note(&run, &version, news, &mut told_at);
            });
            training.end(&run, &version, ended);
        })?;
        let before = follower.replace((control, handle));
        drop(follower);
        if let Some((_, thread)) = before {
            drop(thread.join());
        }
        Ok(())
    }

    fn note(&self, run: &str, version: &str, news: News<'_>, told_at: &mut Option<Instant>) {
        let versions = &self.0.versions;
        match news {
            News::Started { attempt, identity } => {
                let kept = versions
                    .store
                    .write(|transaction| run::spawned(transaction, run, attempt, identity));
                if let Err(error) = kept {
                    tracing::warn!(%error, "it cannot be noted which process trains");
                }
                if self.0.lease.is_held() {
                    // It takes the memory of the card long before its first step.
                    self.tell((run, version), RunState::Training, &self.progress().told.clone());
                }
            }
            News::Told(told) => {
                self.progress().told = told.clone();
                self.0.changed.notify_all();
                if told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                    *told_at = Some(Instant::now());
                    self.tell((run, version), RunState::Training, told);
                }
            }
        }
    }

    fn tell(&self, of: (&str, &str), state: RunState, told: &Told) {
        let on_card = self.0.lease.is_held();
        tell::run_progressed(&self.0.versions.host, of, state, on_card, told);
    }

    /// Notes the end of a run.
    fn end(&self, run: &str, version: &str, ended: Result<Option<Report>, RunError>) {
        let report = match ended {
            // It goes on, and the next generation follows it.
            Ok(None) => return,
            Ok(Some(report)) => report,
            Err(error) => {
                // It must not go on unwatched beside the next one.
                run::sweep(run);
                failed(error.to_string())
            }
        };
        // Before the next run can begin.
        self.0.lease.give_back(&self.0.is_left);
        let state = self.noted_end(run, version, &report);
        let state = state.unwrap_or_else(|error| {
            tracing::error!(run, %error, "the end of a run cannot be noted");
            RunState::Failed
        });
        let told = &report.ending.told;
        self.tell((run, version), state, told);
        let mut progress = self.progress();
        if progress.run == run {
            (progress.told, progress.state) = (told.clone(), Some(state));
        }
        drop(progress);
        self.0.changed.notify_all();
    }
}

impl Inner {
    /// Returns the folder in which a run was begun, or resumed the last time.
    fn folder_of(&self, run: &str) -> PathBuf {
        let folder = self.folder.join(run);
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let is_resumed = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(RESUMED)
        };
        // The names end with a time of thirteen digits.
        entries.map(|entry| entry.path()).filter(is_resumed).max().unwrap_or(folder)
    }
}

fn busy(run: &str) -> Error {
    let error = Error::of(ErrorKind::Refused, format!("another run is going on: {run}"));
    error.hint("wait for it, or stop it with `lodestar learning runs stop`")
}

fn by_lodestar(version: &str, command: Command) -> Request {
    let version = version.to_owned();
    Request { version, actor: Actor::Lodestar, reason: String::new(), command }
}

fn failed(message: String) -> Report {
    let ending =
        Ending { outcome: Outcome::Failed, message, told: Told::default(), left_behind: 0 };
    Report { ending, attempt: 1, smaller: None }
}

/// Returns the report on a run whose process is gone.
fn lost(trainer: &dyn Trainer, run: &Run, folder: &Path, bounds: Bounds) -> Report {
    let attempt = run.attempt.max(1);
    let ending = run::attempt(trainer, &run.job, folder, bounds, attempt).ending_of_lost();
    Report { ending, attempt, smaller: run.smaller.clone() }
}

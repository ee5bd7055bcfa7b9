//! An attempt at a job: started, watched, ended.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Checkpoint, Job, LastWord, Process, RunError, Told, Trainer,
    process::{EVENTS, Exit, LOG, cut, sweep},
    told::Lines,
};
use crate::registry::named;

named! {
    /// Outcome of an attempt.
    Outcome {
        /// The adapter is there.
        Done = "done",
        /// It was stopped, or stopped by itself.
        Stopped = "stopped",
        /// The trainer refused the job.
        BadJob = "bad_job",
        /// The trainer refused the examples.
        Data = "data",
        /// The memory was not enough.
        OutOfMemory = "out_of_memory",
        /// Something that the trainer needs is missing.
        Missing = "missing",
        /// A limit of time or size was reached.
        Limit = "limit",
        /// It showed no progress for too long.
        Hung = "hung",
        /// It did not keep the contract.
        Contract = "contract",
        /// It was ended by somebody else.
        Killed = "killed",
        /// It failed for a reason of its own.
        Failed = "failed",
    }
}

/// Bounds that a trainer is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Longest time without progress.
    pub heartbeat: Duration,
    /// Longest time in all.
    pub wall: Duration,
    /// Time between the request to stop and the end by force.
    pub grace: Duration,
    /// Largest output of events, in bytes.
    pub events: u64,
    /// Most lines that are no events or do not fit the job.
    pub faults: u64,
    /// Largest size of the folder of the attempt, in bytes.
    pub disk: u64,
}

impl Default for Bounds {
    /// Returns bounds for a small model on a slow machine.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15 * 60),
            wall: Duration::from_secs(24 * 3_600),
            grace: Duration::from_secs(60),
            events: 64 << 20,
            faults: 100,
            disk: 8 << 30,
        }
    }
}

/// Wishes of the module about an attempt that is watched.
#[derive(Debug, Default)]
pub struct Control {
    /// `true` when the training should stop with a checkpoint.
    pub stop: AtomicBool,
    /// `true` when nobody watches any more and the training should go on: a reload.
    pub leave: AtomicBool,
}

/// End of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Its outcome.
    pub outcome: Outcome,
    /// A sentence about it, without text of examples.
    pub message: String,
    /// All that the trainer told.
    pub told: Told,
    /// Number of processes that the trainer left behind, which were ended.
    pub left_behind: usize,
}

impl Ending {
    /// Returns the checkpoint from which the training can go on.
    #[must_use]
    pub fn resumable(&self) -> Option<&Checkpoint> {
        let can = matches!(
            self.outcome,
            Outcome::Stopped | Outcome::Killed | Outcome::Hung | Outcome::Limit | Outcome::Failed
        );
        let checkpoint = self.told.checkpoint.as_ref().filter(|_| can);
        checkpoint.filter(|checkpoint| checkpoint.path.exists())
    }
}

/// Longest time for which nothing is looked at.
const SLICE: Duration = Duration::from_millis(100);
/// Pieces of the events that are read in one look.
const PIECES: usize = 4;
/// Time between two looks at the size of the folder.
const MEASURE: Duration = Duration::from_secs(5);
/// Files without which there is no adapter.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// Signal of a file that grew too large.
const SIGXFSZ: i32 = 25;

/// An attempt at a job, in a folder of its own.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Id of the run.
    pub run: String,
    /// Folder of the attempt.
    pub folder: PathBuf,
    /// The job, with its output below the folder.
    pub job: Job,
    /// Bounds of the attempt.
    pub bounds: Bounds,
    /// `true` when the trainer's messages hold no text of examples.
    pub has_plain_messages: bool,
}

impl Attempt {
    /// Returns an attempt in a folder; its output goes to `output` below it.
    #[must_use]
    pub fn new(run: &str, folder: &Path, job: &Job, bounds: Bounds, trainer: &dyn Trainer) -> Self {
        let mut job = Job { output_dir: folder.join("output"), ..job.clone() };
        job.limits.wall_s = Some(bounds.wall.as_secs());
        job.limits.disk_mb = Some(bounds.disk >> 20);
        let has_plain_messages = trainer.has_plain_messages();
        Self { run: run.to_owned(), folder: folder.to_owned(), job, bounds, has_plain_messages }
    }

    /// Writes the job and starts its trainer.
    ///
    /// # Errors
    ///
    /// Returns an error when the folder cannot be written or the program cannot be started.
    pub fn start(&self, trainer: &dyn Trainer) -> Result<Process, RunError> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.folder).map_err(RunError::folder(&self.folder))?;
        builder.create(&self.job.output_dir).map_err(RunError::folder(&self.folder))?;
        let path = self.folder.join("job.json");
        let text = serde_json::to_vec_pretty(&self.job).map_err(|_| RunError::Lost)?;
        fs::write(&path, text).map_err(RunError::folder(&self.folder))?;
        // The events of a run that is resumed begin anew.
        fs::write(self.folder.join(EVENTS), []).map_err(RunError::folder(&self.folder))?;
        trainer.prepare(&self.folder).map_err(RunError::folder(&self.folder))?;
        let launch = trainer.launch(&path)?;
        Process::spawn(&launch, &self.run, &self.folder, Some(self.bounds.disk))
    }

    /// Watches a process until it ends, and ends it where it leaves its bounds. Returns none when
    /// it was left to go on. `news` is called after each look that brought something new.
    ///
    /// # Errors
    ///
    /// Returns an error when the process cannot be waited for.
    pub fn watch(
        &self,
        process: &Process,
        control: &Control,
        news: &mut dyn FnMut(&Told),
    ) -> Result<Option<Ending>, RunError> {
        let (mut told, mut lines) = (Told::of(&self.job), Lines::new(self.folder.join(EVENTS)));
        let (mut alive, mut measured) = (Instant::now(), Instant::now());
        // Reason for the end, and the time at which it is enforced.
        let mut ending: Option<(Outcome, Instant)> = None;
        loop {
            let exit = process.wait(if lines.bytes() == 0 { SLICE / 5 } else { SLICE })?;
            let mut is_new = false;
            for _ in 0..PIECES {
                is_new |= self.catch_up(&mut lines, &mut told, &mut alive);
            }
            if is_new {
                news(&told);
            }
            if let Some(exit) = exit {
                while self.catch_up(&mut lines, &mut told, &mut alive) {}
                news(&told);
                let left_behind = sweep(&self.run);
                self.shorten();
                let reason = ending.map(|(outcome, _)| outcome);
                return Ok(Some(self.ending(exit, reason, told, left_behind)));
            }
            if control.leave.load(Ordering::Acquire) {
                return Ok(None);
            }
            let now = Instant::now();
            let is_due = now - measured > MEASURE;
            if is_due {
                measured = now;
                let _: Result<(), _> = cut(&self.folder.join(LOG));
            }
            match ending {
                Some((_, by)) if now >= by => process.kill(),
                Some(_) => {}
                None => {
                    let found = self.fault(process, &told, alive, control, is_due);
                    if let Some((outcome, grace)) = found {
                        process.ask_to_stop();
                        ending = Some((outcome, now + grace));
                    }
                }
            }
        }
    }

    /// Reads what was written since then; returns whether there was any.
    fn catch_up(&self, lines: &mut Lines, told: &mut Told, alive: &mut Instant) -> bool {
        if lines.bytes() > self.bounds.events {
            return false;
        }
        // A file that cannot be read says nothing, which the heartbeat finds.
        let (is_new, is_alive) = lines.note(told, &self.job).unwrap_or_default();
        if is_alive {
            *alive = Instant::now();
        }
        is_new
    }

    /// Cuts off events beyond those that are ever read.
    fn shorten(&self) {
        let file = fs::File::options().write(true).open(self.folder.join(EVENTS));
        if let Ok(file) = file
            && file.metadata().is_ok_and(|it| it.len() > self.bounds.events)
        {
            let _: Result<(), _> = file.set_len(self.bounds.events);
        }
    }

    /// Returns a reason to end the process, and the time that it gets.
    fn fault(
        &self,
        process: &Process,
        told: &Told,
        alive: Instant,
        control: &Control,
        is_due: bool,
    ) -> Option<(Outcome, Duration)> {
        let bounds = &self.bounds;
        if control.stop.load(Ordering::Acquire) {
            return Some((Outcome::Stopped, bounds.grace));
        }
        let events = fs::metadata(self.folder.join(EVENTS)).map_or(0, |file| file.len());
        if events > bounds.events || told.faults > bounds.faults {
            return Some((Outcome::Contract, Duration::ZERO));
        }
        if alive.elapsed() > bounds.heartbeat {
            return Some((Outcome::Hung, bounds.grace));
        }
        if process.age() > bounds.wall {
            return Some((Outcome::Limit, bounds.grace));
        }
        let is_too_large = is_due && size(&self.folder, 8) > bounds.disk;
        is_too_large.then_some((Outcome::Limit, Duration::ZERO))
    }

    /// Returns the ending of a process that was gone when it was looked for.
    #[must_use]
    pub fn ending_of_lost(&self) -> Ending {
        let (mut told, mut lines) = (Told::of(&self.job), Lines::new(self.folder.join(EVENTS)));
        while self.catch_up(&mut lines, &mut told, &mut Instant::now()) {}
        let left_behind = sweep(&self.run);
        self.ending(Exit::Unknown, None, told, left_behind)
    }

    fn ending(
        &self,
        exit: Exit,
        reason: Option<Outcome>,
        told: Told,
        left_behind: usize,
    ) -> Ending {
        let outcome = self.outcome(exit, reason, &told);
        let message = self.message(outcome, exit, &told);
        let mut told = told;
        if let Some(LastWord::Error { message, .. }) = &mut told.last_word
            && !self.has_plain_messages
        {
            message.clear();
        }
        Ending { outcome, message, told, left_behind }
    }

    fn outcome(&self, exit: Exit, reason: Option<Outcome>, told: &Told) -> Outcome {
        let announced = match &told.last_word {
            Some(LastWord::Done) => Some(0),
            Some(LastWord::Stopped) => Some(5),
            Some(LastWord::Error { code, .. }) => code.and_then(|it| i32::try_from(it).ok()),
            None => None,
        };
        let is_done = matches!(told.last_word, Some(LastWord::Done)) && self.has_adapter();
        // One that was done before the request to stop reached it is done.
        if is_done && matches!(exit, Exit::Code(0) | Exit::Unknown) {
            return Outcome::Done;
        }
        if let Some(reason) = reason {
            return reason;
        }
        match exit {
            Exit::Signal(SIGXFSZ) => Outcome::Limit,
            Exit::Signal(_) => Outcome::Killed,
            Exit::Code(code) => by_code(code),
            // Its code went to a daemon that is gone: the last word has to do.
            Exit::Unknown => announced.map_or(Outcome::Killed, by_code),
        }
    }

    fn has_adapter(&self) -> bool {
        ADAPTER.iter().all(|name| self.job.output_dir.join(name).is_file())
    }

    fn message(&self, outcome: Outcome, exit: Exit, told: &Told) -> String {
        let log = self.folder.join(LOG);
        let log = log.display();
        let text = match outcome {
            Outcome::Done => return format!("{} steps are done", told.step),
            Outcome::Stopped => return format!("it was stopped after step {}", told.step),
            Outcome::BadJob => "the trainer refused the job",
            Outcome::Data => "the trainer refused the examples",
            Outcome::OutOfMemory => "the memory was not enough",
            Outcome::Missing => "something is missing that the trainer needs",
            Outcome::Limit => "a limit of time or size was reached",
            Outcome::Hung => "the trainer showed no progress for too long",
            Outcome::Contract => "the trainer does not keep the contract of trainers",
            Outcome::Killed => match exit {
                Exit::Signal(9) => "the trainer was killed, perhaps for want of memory",
                _ => "the trainer is gone without a word",
            },
            Outcome::Failed => "the trainer failed",
        };
        match &told.last_word {
            Some(LastWord::Error { message, .. })
                if self.has_plain_messages && !message.is_empty() =>
            {
                format!("{text}: {message}")
            }
            _ => format!("{text}; see {log}"),
        }
    }
}

/// Returns the outcome that the contract gives to an exit code.
const fn by_code(code: i32) -> Outcome {
    match code {
        // Done, but for the adapter or the word.
        0 => Outcome::Contract,
        2 => Outcome::BadJob,
        3 => Outcome::Data,
        4 => Outcome::OutOfMemory,
        5 => Outcome::Stopped,
        6 => Outcome::Missing,
        7 => Outcome::Limit,
        _ => Outcome::Failed,
    }
}

/// Returns the size of the files below a folder, without following links.
fn size(folder: &Path, depth: usize) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() && depth > 0 => size(&entry.path(), depth - 1),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

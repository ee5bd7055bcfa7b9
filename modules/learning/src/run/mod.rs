//! Runs: jobs that a trainer does in a process of its own.
//!
//! The contract with a trainer: its program gets the path of `job.json` ([`Job`]), writes lines of
//! JSON to its standard output and anything to its standard error, stops with a checkpoint on
//! SIGTERM, and ends with 0 (done), 2 (bad job), 3 (bad examples), 4 (out of memory), 5 (stopped,
//! can be resumed), 6 (something is missing), 7 (a limit) or another code (failed). Nothing that it
//! prints is believed unless it fits the job ([`Told`]).
//!
//! The output goes to files, so that a trainer goes on while the daemon restarts; the next daemon
//! finds it by its number, the time of its start and that of the machine ([`Identity`]).

mod attempt;
mod job;
mod process;
mod python;
mod short;
mod store;
mod told;
mod trainer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use attempt::{Attempt, Bounds, Control, Ending, Outcome};
pub use job::{Base, Examples, Job, Limits, Lora, Method, Train, VERSION};
pub use process::{Identity, Process, sweep};
pub(crate) use process::{quiet, step_back};
pub use python::{Python, Strategy, in_path};
pub use short::{Short, short};
pub use store::{MIGRATION, Run, RunState, begin, create, ended, load, runs, spawned, unfinished};
pub use told::{Checkpoint, LastWord, Told};
pub use trainer::{Custom, EMBEDDED, Embedded, Launch, Trainer};

/// Error of a run that never was.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The program of the trainer is not there.
    #[error(
        "there is no trainer at {looked}; install it, or name its program in the configuration"
    )]
    NoTrainer {
        /// Places that were looked at.
        looked: String,
    },
    /// The environment of a trainer in Python is not there.
    #[error(
        "there is no environment for the trainer {strategy}, or an older one; \
         `lodestar learning setup {strategy}` makes it"
    )]
    NoEnvironment {
        /// Name of the trainer.
        strategy: &'static str,
    },
    /// There is no Python.
    #[error("there is no python3 in the daemon's PATH; install it (Debian: `apt install python3`)")]
    NoPython,
    /// The program cannot be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The folder of the attempt cannot be written.
    #[error("cannot write into {}: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The process cannot be waited for.
    #[error("cannot wait for the trainer: {0}")]
    Watch(std::io::Error),
    /// The process was gone at once.
    #[error("the trainer was gone before it could be watched")]
    Lost,
}

impl RunError {
    fn folder(folder: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let folder = folder.to_owned();
        |source| Self::Folder { folder, source }
    }

    fn watch(error: rustix::io::Errno) -> Self {
        Self::Watch(error.into())
    }
}

/// News of a run that is being done.
#[derive(Debug)]
pub enum News<'a> {
    /// A process was started: keep its identity with the number of the attempt.
    Started {
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Identity of the process.
        identity: &'a Identity,
    },
    /// The trainer told something.
    Told(&'a Told),
}

/// Report on a run: its ending, and what was made smaller for it.
#[derive(Debug)]
pub struct Report {
    /// End of the last attempt.
    pub ending: Ending,
    /// Number of the last attempt.
    pub attempt: u32,
    /// Sizes that were made smaller after the memory was not enough.
    pub smaller: Option<String>,
}

/// Does a job from its beginning: one attempt, and once more with less memory where that was not
/// enough. Each attempt has a folder of its own below `folder`. Returns none when the run was left
/// to go on; [`go_on`] takes it up again.
///
/// # Errors
///
/// Returns an error when a trainer cannot be started or waited for.
pub fn run(
    trainer: &dyn Trainer,
    job: &Job,
    folder: &Path,
    bounds: Bounds,
    control: &Control,
    news: &mut dyn FnMut(News<'_>),
) -> Result<Option<Report>, RunError> {
    let attempt = attempt(trainer, job, folder, bounds, 1);
    let process = attempt.start(trainer)?;
    news(News::Started { attempt: 1, identity: process.identity() });
    go_on(trainer, job, folder, bounds, (1, &process), control, news)
}

/// Goes on with a process that was started for a job, in its attempt of this number.
///
/// # Errors
///
/// Returns an error when a trainer cannot be started or waited for.
pub fn go_on(
    trainer: &dyn Trainer,
    job: &Job,
    folder: &Path,
    bounds: Bounds,
    (number, process): (u32, &Process),
    control: &Control,
    news: &mut dyn FnMut(News<'_>),
) -> Result<Option<Report>, RunError> {
    // The second attempt is known to have been the smaller one.
    let (job, note) = match (number, job.smaller()) {
        (2, Some((job, note))) => (job, Some(note)),
        _ => (job.clone(), None),
    };
    let first = attempt(trainer, &job, folder, bounds, number);
    let watched = first.watch(process, control, &mut |told| news(News::Told(told)))?;
    let Some(ending) = watched else { return Ok(None) };
    let smaller = job.smaller().filter(|_| ending.outcome == Outcome::OutOfMemory && number == 1);
    let Some((job, note)) = smaller else {
        return Ok(Some(Report { ending, attempt: number, smaller: note }));
    };
    let second = attempt(trainer, &job, folder, bounds, 2);
    let process = second.start(trainer)?;
    news(News::Started { attempt: 2, identity: process.identity() });
    let watched = second.watch(&process, control, &mut |told| news(News::Told(told)))?;
    Ok(watched.map(|ending| Report { ending, attempt: 2, smaller: Some(note) }))
}

/// Returns the attempt of a number at a job.
#[must_use]
pub fn attempt(
    trainer: &dyn Trainer,
    job: &Job,
    folder: &Path,
    bounds: Bounds,
    number: u32,
) -> Attempt {
    let folder = folder.join(format!("attempt-{number}"));
    Attempt::new(&job.job_id, &folder, job, bounds, trainer)
}

/// Finds the process of a run that was going on when the daemon ended: by its identity, or by the
/// mark in its environment where the daemon was killed before it kept that. None means that it is
/// gone; [`Attempt::ending_of_lost`] then tells what became of it.
#[must_use]
pub fn find(run: &Run) -> Option<Process> {
    let known = run.identity.as_ref().and_then(Process::adopt);
    known.or_else(|| Process::find(&run.id))
}

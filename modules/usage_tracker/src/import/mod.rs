//! The import of transcripts: `lodestar usage import`.
//!
//! The command line sends the files that are new or have grown. One thread reads them and finds the
//! requests ([`crate::transcripts`]); another one writes these, a thousand at a time, together with
//! how far each file was read. They go into the database and not onto the bus: they are history,
//! and what watches over events must not wake up for last month.

mod answer;
mod file;
mod known;
mod local;
mod names;
mod read;
mod write;

use std::{
    panic::resume_unwind,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use module_sdk::{Error, ErrorKind, Files, Job, Output, Reply, Result, TimeRangeArgs};
use module_transcripts::Tool;
use schemars::JsonSchema;
use serde::Deserialize;

pub use local::{Local, LocalFile};
pub(crate) use names::{Names, Projects};
pub use write::SharedStore;

use read::{ReadFiles, Reading};
use write::{Imported, Writing};

use crate::{
    UsageTracker,
    clock::Arrival,
    store::{ImportedFile, Store},
    transcripts::{Found, Statement},
};

/// Imports what Claude Code, Codex, Gemini CLI, opencode, aider and others have written down of
/// their own use: numbers, never a text. What was imported before is not imported again.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ImportArgs {
    /// The tool: claude-code, codex, gemini, opencode, aider, … [default: all].
    #[schemars(extend("x-positional" = 1))]
    tool: Option<String>,
    /// A file, a folder, or `-` for standard input [default: where the tool keeps its files].
    #[schemars(extend(
        "x-positional" = 2,
        "x-files" = {
            "endings": ["jsonl", "json", "zst", "db"],
            "tools": "tool",
            "known": "import-known",
        }
    ))]
    path: Option<String>,
    /// Only requests of this time. How far files were read is then not remembered.
    #[serde(flatten)]
    range: TimeRangeArgs,
    /// Only show what would be imported.
    dry_run: bool,
}

/// Default start: before every request.
const SINCE: &str = "1971-01-01";
/// Word for all tools.
const ALL: &str = "all";
/// Number of batches that wait to be written.
const WAITING: usize = 2;

impl ImportArgs {
    /// Checks the name of the tool.
    fn check(&self) -> Result<()> {
        let Some(tool) = self.tool.as_deref().filter(|tool| *tool != ALL) else { return Ok(()) };
        if Tool::from_name(tool).is_some() {
            return Ok(());
        }
        let names = Tool::ALL.iter().map(|tool| tool.name());
        let list: Vec<&str> = names.clone().chain([ALL]).collect();
        let error = Error::usage(format!("there is no tool {tool:?}"));
        Err(error.hint(format!("name one of {}", list.join(", "))).near(tool, names))
    }
}

impl UsageTracker {
    pub(crate) fn import(&mut self, args: ImportArgs, files: Files) -> Result<Job> {
        args.check()?;
        let is_part = args.range.since.is_some() || args.range.until.is_some();
        let period = self.range(&args.range, SINCE)?;
        let import = Import {
            store: self.store.clone(),
            names: Names::new(self.host.clone(), self.anonymise, self.projects.clone()),
            stopping: self.stopping.clone(),
            arrival: self.arrival(),
            bounds: is_part.then(|| period.bounds_ms()),
            dry_run: args.dry_run,
        };
        Ok(Job::new(move |output| import.run(files, output)))
    }
}

/// An import.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) store: SharedStore,
    pub(crate) names: Names,
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) arrival: Arrival,
    /// Only requests that ended between these times, in milliseconds since the Unix epoch.
    pub(crate) bounds: Option<(i64, i64)>,
    pub(crate) dry_run: bool,
}

/// Part of a file that was read.
#[derive(Debug)]
struct Part {
    /// Name of the file.
    name: Arc<str>,
    found: Vec<Found>,
    statements: Vec<Statement>,
    /// Number of records that were read; some tell of one request.
    records: u64,
    /// Point up to which the file was read, with its last part.
    read: Option<ImportedFile>,
    is_last: bool,
}

impl Part {
    /// Returns an empty part of a file.
    fn of(name: Arc<str>) -> Self {
        let (found, statements) = (Vec::new(), Vec::new());
        Self { name, found, statements, records: 0, read: None, is_last: false }
    }
}

/// Parts of files of one tool that are written at once.
#[derive(Debug)]
struct Batch {
    tool: Tool,
    parts: Vec<Part>,
}

impl Import {
    /// Runs the import.
    fn run(self, mut files: Files, output: &mut Output) -> Result<Reply> {
        let (read, imported) = self.work(|reading| reading.sent(&mut files, output))?;
        answer::reply(&read, &imported, self.dry_run)
    }

    /// Reads files, and writes what is found beside that.
    fn work(
        &self,
        read: impl FnOnce(Reading<'_>) -> Result<ReadFiles>,
    ) -> Result<(ReadFiles, Imported)> {
        let (sender, receiver) = mpsc::sync_channel(WAITING);
        let reading = Reading::new(self, sender)?;
        let (read, written) = thread::scope(|scope| {
            let writer = scope.spawn(|| Writing::new(self).run(receiver));
            // Its end of the channel goes with it, which ends the writer.
            let read = read(reading);
            (read, writer.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        // Where nothing can be written the reader only knows that.
        let written = written?;
        Ok((read?, written))
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that the module goes on.
    fn goes_on(&self) -> Result<()> {
        if self.stopping.load(Ordering::Relaxed) {
            let error = Error::of(ErrorKind::Cancelled, "usage_tracker is stopping");
            return Err(error.hint("import it again: what was imported is not imported twice"));
        }
        Ok(())
    }
}

//! Files that this process may read itself: what `watch` sees, and what a benchmark has written.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use module_sdk::{FileMark, Host, Result};
use module_transcripts::{Tool, database};

use super::{Import, Names, Projects, SharedStore, file::About, known, read::Reading};
use crate::clock::Arrival;

/// A file on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Tool that wrote it, where that is known.
    pub tool: Option<Tool>,
    /// State of the file.
    pub mark: FileMark,
    /// `true` for a database.
    pub is_database: bool,
}

/// The import of files on this machine.
#[derive(Debug)]
pub struct Local(Import);

impl Local {
    /// Creates an import into a store. `now_ms` is the time, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(store: SharedStore, host: Host, now_ms: i64) -> Self {
        let names = Names::new(host, true, Projects::default());
        Self::of(store, names, Arc::default(), Arrival::now(now_ms, || None))
    }

    pub(crate) const fn of(
        store: SharedStore,
        names: Names,
        stopping: Arc<AtomicBool>,
        arrival: Arrival,
    ) -> Self {
        Self(Import { store, names, stopping, arrival, bounds: None, dry_run: false })
    }

    /// Imports files; those that are as they were before are not opened. Returns the number of new
    /// requests.
    ///
    /// # Errors
    ///
    /// When the database cannot be read or written.
    pub fn run(&self, files: &[LocalFile]) -> Result<u64> {
        let (read, imported) = self.0.work(|mut reading| {
            for file in files {
                self.file(&mut reading, file)?;
            }
            reading.finish()
        })?;
        for skipped in read.skipped.iter().filter(|skipped| skipped.line == 0) {
            // Its name may be that of a person.
            tracing::debug!(reason = skipped.reason, "a transcript could not be read");
        }
        Ok(imported.tools.values().map(|counts| counts.imported).sum())
    }

    fn file(&self, reading: &mut Reading<'_>, file: &LocalFile) -> Result<()> {
        let name = file.path.to_string_lossy();
        let known = reading.known(&name)?;
        let tool = file.tool.map(Tool::name);
        let Some(from) = known::from(tool, Some(&file.mark), known.as_ref()) else { return Ok(()) };
        let about = About {
            name: name.into_owned(),
            tool: file.tool,
            mark: Some(file.mark),
            changed_ms: file.mark.modified_ns / 1_000_000,
            ..About::default()
        };
        let quiet = &mut |_| Ok(());
        if file.is_database {
            return match database::Rows::open(&file.path) {
                Ok(mut rows) => {
                    let about = About { tool: Some(rows.tool()), ..about };
                    reading.file(about, &mut rows, quiet)
                }
                Err(error) => {
                    tracing::debug!(%error, "a database of a tool cannot be read");
                    Ok(())
                }
            };
        }
        match open(&file.path, &file.mark, &from) {
            Ok((mut content, from, head)) => {
                reading.file(About { from, head: Some(head), ..about }, &mut content, quiet)
            }
            Err(error) => {
                tracing::debug!(%error, "a transcript cannot be opened");
                Ok(())
            }
        }
    }
}

/// Opens a file at the position from which it is read.
fn open(path: &Path, mark: &FileMark, wanted: &known::SentFrom) -> io::Result<(File, u64, String)> {
    let mut file = File::open(path)?;
    let head = module_transcripts::head(&file, mark.bytes)?;
    let begins_alike = wanted.from > 0
        && wanted.from <= mark.bytes
        && wanted.head.as_deref()
            == Some(module_transcripts::head(&file, wanted.head_bytes)?.as_str());
    let from = if begins_alike { wanted.from } else { 0 };
    file.seek(SeekFrom::Start(from))?;
    Ok((file, from, head))
}

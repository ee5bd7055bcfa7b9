//! The reading of files: on the thread of the job.

use std::{
    io::Read,
    sync::{Arc, mpsc::SyncSender},
};

use module_sdk::{Error, Files, Output, Result};
use module_transcripts::Tool;
use serde::Serialize;

use super::{
    Batch, Import, Part,
    file::{self, About, Ended, Sink},
};
use crate::{
    store::{ImportedFile, ImportedFiles},
    transcripts::{Found, Harvest},
};

/// Requests that are written in one transaction.
const BATCH: usize = 1_000;
/// Files of which parts are written in one transaction.
const FILES: usize = 256;
/// Bytes that are read between two reports of progress.
const TOLD_EVERY: u64 = 4 << 20;
/// Lines that were left out and are listed; others are counted.
const LISTED: usize = 1_000;
/// Bytes that the hash of a file's beginning is of, at most.
const HEAD_BYTES: u64 = 4_096;

/// A line that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Skipped {
    /// The file.
    pub(crate) file: String,
    /// Number of the line, from 1; 0 for the file itself.
    pub(crate) line: u64,
    /// Fault of it.
    pub(crate) reason: String,
}

/// The result of reading.
#[derive(Debug, Default)]
pub(crate) struct ReadFiles {
    /// Number of files that were read.
    pub(crate) files: u64,
    /// Number of files that were as they had been before.
    pub(crate) unchanged: u64,
    /// Lines that were left out.
    pub(crate) skipped: Vec<Skipped>,
    /// Number of lines that were left out.
    pub(crate) skipped_lines: u64,
}

/// The reader.
pub(super) struct Reading<'a> {
    import: &'a Import,
    sender: SyncSender<Batch>,
    imported: ImportedFiles,
    batch: Option<Batch>,
    waiting: usize,
    read: ReadFiles,
}

/// Sink that puts what is found in one file into the batch.
struct FileSink<'a, 'r, 'p> {
    reading: &'a mut Reading<'r>,
    name: Arc<str>,
    /// Lines up to this one were imported before.
    known_line: u64,
    told: u64,
    progress: &'a mut (dyn FnMut(u64) -> Result<()> + 'p),
}

impl<'a> Reading<'a> {
    /// Creates a reader.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub(super) fn new(import: &'a Import, sender: SyncSender<Batch>) -> Result<Self> {
        let imported = import.store().imported()?;
        let (batch, waiting, read) = (None, 0, ReadFiles::default());
        Ok(Self { import, sender, imported, batch, waiting, read })
    }

    /// Returns what is known of a file.
    pub(super) fn known(&self, name: &str) -> Result<Option<ImportedFile>> {
        Ok(self.imported.find(&self.import.names.file_key(name))?)
    }

    /// Reads the files that were sent.
    pub(super) fn sent(mut self, files: &mut Files, output: &mut Output) -> Result<ReadFiles> {
        let sum = files.sum()?;
        self.read.unchanged = sum.unchanged;
        let total = (sum.bytes > 0).then_some(sum.bytes);
        let mut before = 0;
        output.progress(before, total, "bytes")?;
        while let Some(mut file) = files.next_file()? {
            let (about, mut of_this) = (About::of(&file), 0);
            self.file(about, &mut file, &mut |read| {
                of_this = read;
                output.progress(before + read, total, "bytes")
            })?;
            before += of_this;
        }
        self.finish()
    }

    /// Writes what is left, and returns what was read.
    pub(super) fn finish(mut self) -> Result<ReadFiles> {
        self.flush()?;
        Ok(self.read)
    }

    /// Reads a file.
    pub(super) fn file(
        &mut self,
        mut about: About,
        content: &mut dyn Read,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        self.import.goes_on()?;
        let key = self.import.names.file_key(&about.name);
        let known = about.mark.map(|_| self.imported.find(&key)).transpose()?.flatten();
        about.line = known
            .as_ref()
            .filter(|known| about.from > 0 && known.position == about.from)
            .map_or(0, |known| known.line);
        let known_line = known.as_ref().map_or(0, |known| self.known_line(known, &about));
        let name: Arc<str> = about.name.as_str().into();
        let mut sink =
            FileSink { reading: self, name: name.clone(), known_line, told: 0, progress };
        let Some(Ended { tool, position, line }) = file::read(&about, content, &mut sink)? else {
            return Ok(());
        };
        self.read.files += 1;
        let is_remembered = !self.import.dry_run && self.import.bounds.is_none();
        let read = about.mark.filter(|_| is_remembered).map(|mark| ImportedFile {
            key,
            tool: tool.name().to_owned(),
            mark,
            position,
            line,
            head: about.head,
            head_bytes: mark.bytes.min(HEAD_BYTES),
        });
        self.put(tool, Part { read, is_last: true, ..Part::of(name) })
    }

    /// Returns the number of the line up to which a file was imported before, though it is read
    /// from its beginning.
    fn known_line(&self, known: &ImportedFile, about: &About) -> u64 {
        let begins_alike = known.head.is_some()
            && known.head == about.head
            && known.head_bytes == HEAD_BYTES
            && about.mark.is_some_and(|mark| mark.bytes >= known.position);
        let is_same_tool = about.tool.is_none_or(|tool| tool.name() == known.tool);
        if begins_alike && is_same_tool && about.from == 0 { known.line } else { 0 }
    }

    fn put(&mut self, tool: Tool, part: Part) -> Result<()> {
        if self.batch.as_ref().is_some_and(|batch| batch.tool != tool) {
            self.flush()?;
        }
        self.waiting += part.found.len();
        let batch = self.batch.get_or_insert_with(|| Batch { tool, parts: Vec::new() });
        batch.parts.push(part);
        if self.waiting >= BATCH || batch.parts.len() >= FILES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.waiting = 0;
        let Some(batch) = self.batch.take() else { return Ok(()) };
        // Why it has ended the writer says itself.
        self.sender.send(batch).map_err(|_| Error::new("the requests cannot be written"))
    }

    fn is_wanted(&self, found: &Found) -> bool {
        let at = found.request.ended_at;
        self.import.bounds.is_none_or(|(from, to)| from <= at && at < to)
    }
}

impl Sink for FileSink<'_, '_, '_> {
    fn take(&mut self, tool: Tool, harvest: &mut Harvest) -> Result<()> {
        let Harvest { mut found, statements, mut records } = std::mem::take(harvest);
        let all = found.len();
        found.retain(|found| {
            let is_known = found.line != 0 && found.line <= self.known_line;
            !is_known && self.reading.is_wanted(found)
        });
        records = records.saturating_sub((all - found.len()) as u64);
        if found.is_empty() && statements.is_empty() && records == 0 {
            return Ok(());
        }
        let part = Part { found, statements, records, ..Part::of(self.name.clone()) };
        self.reading.put(tool, part)
    }

    fn skip(&mut self, line: u64, reason: String) {
        if line != 0 && line <= self.known_line {
            return;
        }
        let read = &mut self.reading.read;
        read.skipped_lines += 1;
        if read.skipped.len() < LISTED {
            read.skipped.push(Skipped { file: self.name.to_string(), line, reason });
        }
    }

    fn progress(&mut self, read: u64) -> Result<()> {
        if read < self.told + TOLD_EVERY {
            return Ok(());
        }
        self.told = read;
        self.reading.import.goes_on()?;
        (self.progress)(read)
    }
}

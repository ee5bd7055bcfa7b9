//! The thread that writes lines.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    mem,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use jiff::{civil::Date, tz::TimeZone};
use module_sdk::Host;

use super::{ENOUGH, Entry, JournalSettings, Line, Shared, day_of, reader::day_in_name};

/// Time for which a batch gathers.
const GATHER: Duration = Duration::from_millis(200);

pub(super) struct Writer {
    host: Host,
    shared: Arc<Shared>,
    settings: JournalSettings,
    /// Day on which old files were last removed.
    swept: Option<Date>,
}

impl Writer {
    pub(super) fn new(host: Host, shared: Arc<Shared>, settings: JournalSettings) -> Self {
        Self { host, shared, settings, swept: None }
    }

    /// Writes until the journal is closed and nothing waits.
    pub(super) fn run(mut self) {
        self.sweep();
        while let Some(batch) = self.next() {
            let number = batch.len() as u64;
            self.write(batch);
            let mut queue = self.shared.lock();
            queue.done += number;
            drop(queue);
            self.shared.changed.notify_all();
            self.sweep();
        }
    }

    /// Waits for a batch; `None` at the end.
    fn next(&self) -> Option<Vec<Entry>> {
        let mut queue = self.shared.lock();
        while queue.waiting.is_empty() {
            if queue.is_closed {
                return None;
            }
            let woken = self.shared.changed.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
        }
        let gathered = self.shared.changed.wait_timeout_while(queue, GATHER, |queue| {
            !queue.is_closed && !queue.is_urgent && queue.waiting.len() < ENOUGH
        });
        let mut queue = gathered.unwrap_or_else(PoisonError::into_inner).0;
        queue.is_urgent = false;
        Some(mem::take(&mut queue.waiting))
    }

    fn write(&self, batch: Vec<Entry>) {
        let mut days: BTreeMap<Date, (Vec<u8>, u64)> = BTreeMap::new();
        let today = self.today();
        for entry in batch {
            let line = match entry {
                Entry::Ended(story) => {
                    let settings = &self.settings;
                    let line = story.line(&settings.baseline_model, &settings.baseline);
                    Line::Request(Box::new(line))
                }
                Entry::Line(line) => line,
            };
            let (text, number) = days.entry(day_of(line.id()).unwrap_or(today)).or_default();
            // It has numbers and names alone, which can be written.
            if serde_json::to_writer(&mut *text, &line).is_ok() {
                text.push(b'\n');
                *number += 1;
            }
        }
        for (day, (text, number)) in days {
            let written = append(&self.shared.directory, day, &text);
            self.note(written.err(), number);
        }
    }

    fn note(&self, error: Option<io::Error>, number: u64) {
        let trouble = error.map(|error| {
            self.shared.lost.fetch_add(number, Ordering::Relaxed);
            format!("{} cannot be written: {error}", self.shared.directory.display())
        });
        let mut known = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none()
            && let Some(trouble) = &trouble
        {
            tracing::warn!(trouble, "requests are answered, but the journal is not kept");
        }
        *known = trouble;
    }

    fn today(&self) -> Date {
        self.host.now().to_zoned(TimeZone::UTC).date()
    }

    /// Removes the files of days that are over, once a day.
    fn sweep(&mut self) {
        let today = self.today();
        if self.swept == Some(today) {
            return;
        }
        self.swept = Some(today);
        let days = jiff::Span::new().days(i64::from(self.settings.days));
        let Ok(first) = today.checked_sub(days) else { return };
        let Ok(files) = fs::read_dir(&self.shared.directory) else { return };
        for file in files.flatten() {
            let day = file.file_name().to_str().and_then(day_in_name);
            if day.is_some_and(|day| day < first)
                && let Err(error) = fs::remove_file(file.path())
            {
                tracing::warn!(%error, "an old file of the journal cannot be removed");
            }
        }
    }
}

/// Appends whole lines to the file of a day, in one write.
fn append(directory: &Path, day: Date, text: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let path = directory.join(format!("{day}.jsonl"));
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    if is_torn(&file)? {
        // What was cut off by a full disk or a crash must not spoil the next line.
        let mut mended = Vec::with_capacity(text.len() + 1);
        mended.push(b'\n');
        mended.extend_from_slice(text);
        return file.write_all(&mended);
    }
    file.write_all(text)
}

fn is_torn(file: &File) -> io::Result<bool> {
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(false) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}

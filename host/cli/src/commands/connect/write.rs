//! Writing of what was planned: all files are prepared first, then the record, then each takes its
//! place.

use std::{fs, path::PathBuf};

use jiff::Timestamp;

use super::{
    environment::Environment,
    files::{self, Prepared},
    plan::FilePlan,
    record::{Before, FileRecord, Record, Records},
    tools::{FileSettings, Tool},
    undo::{self, UndoneFile},
};
use crate::error::Result;

/// Result of a write.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) plans: Vec<FilePlan>,
    /// The copies that were made.
    pub(super) backups: Vec<PathBuf>,
    /// Files of an earlier run that are no part of the connection any more.
    pub(super) left: Vec<UndoneFile>,
}

/// Merges settings into the files of a tool.
///
/// # Errors
///
/// When a file cannot be read, edited or written; then all are as they were.
pub(super) fn write(
    environment: &Environment,
    tool: &dyn Tool,
    wanted: &[FileSettings],
) -> Result<Written> {
    // Before anything is made: mistakes in the files.
    let earlier = super::record::peek(environment, tool.id())?;
    plan(wanted, earlier.as_ref())?;
    let records = Records::open(environment)?;
    let earlier = records.load(tool.id())?;
    let plans = plan(wanted, earlier.as_ref())?;
    let (prepared, made) = (Vec::new(), Vec::new());
    let mut write = Write { records: &records, tool, plans, prepared, made };
    let record = match write.prepare(earlier.as_ref()) {
        Ok(record) => record,
        Err(error) => {
            write.remove_copies();
            return Err(error);
        }
    };
    write.commit(record, earlier.unwrap_or_default())
}

fn plan(wanted: &[FileSettings], earlier: Option<&Record>) -> Result<Vec<FilePlan>> {
    wanted.iter().map(|file| FilePlan::new(file, earlier)).collect()
}

/// A write under way.
struct Write<'a> {
    records: &'a Records,
    tool: &'a dyn Tool,
    plans: Vec<FilePlan>,
    prepared: Vec<Prepared>,
    /// Copies that this run made.
    made: Vec<PathBuf>,
}

impl Write<'_> {
    /// Writes all new texts beside their files and copies the files. Returns the new record.
    fn prepare(&mut self, earlier: Option<&Record>) -> Result<Record> {
        let mut files = Vec::new();
        for plan in &mut self.plans {
            let Some(text) = plan.text.clone() else {
                let recorded = earlier.into_iter().flat_map(|record| &record.files);
                files.extend(recorded.filter(|file| file.path == plan.path).cloned());
                continue;
            };
            if plan.source.as_ref().is_some_and(|source| source.text == text) {
                continue;
            }
            let prepared = Prepared::new(&plan.path, plan.source.as_ref(), &text)?;
            plan.made.extend(prepared.made.iter().cloned());
            self.prepared.push(prepared);
            if let Some(source) = &plan.source
                && plan.before.is_none()
            {
                let backup = files::back_up(&plan.path, source)?;
                self.made.push(backup.clone());
                if !plan.is_recorded {
                    let hash = files::hash(&source.text);
                    plan.before = Some(Before::Kept { backup, hash });
                }
            }
            files.push(plan.record(&text));
        }
        Ok(Record { written_at: Timestamp::now().to_string(), files })
    }

    /// Stores the record, puts the files in their place, and takes out what is not wanted any more.
    fn commit(mut self, mut record: Record, earlier: Record) -> Result<Written> {
        let is_left = |file: &&FileRecord| self.plans.iter().all(|plan| plan.path != file.path);
        let left: Vec<FileRecord> = earlier.files.iter().filter(is_left).cloned().collect();
        let wanted = record.files.len();
        record.files.extend(left);
        if let Err(error) = self.records.store(self.tool.id(), &record) {
            self.remove_copies();
            return Err(error);
        }
        for (index, prepared) in std::mem::take(&mut self.prepared).into_iter().enumerate() {
            if let Err(error) = prepared.commit() {
                if index == 0 {
                    self.records.store(self.tool.id(), &earlier)?;
                    self.remove_copies();
                }
                return Err(error);
            }
        }
        let mut left = Vec::new();
        while record.files.len() > wanted {
            if let Some(file) = record.files.last() {
                left.push(undo::take_out(file)?);
            }
            record.files.pop();
            self.records.store(self.tool.id(), &record)?;
        }
        Ok(Written { plans: self.plans, backups: self.made, left })
    }

    fn remove_copies(&mut self) {
        for copy in self.made.drain(..) {
            // What cannot be removed does no harm.
            drop(fs::remove_file(copy));
        }
    }
}

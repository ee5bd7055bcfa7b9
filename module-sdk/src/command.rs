//! Answers to commands.

use std::io;

use lodestar_abi::ReplySinkBox;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// The answer to a command: JSON for programs, optionally a table for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Data that `--json` prints.
    pub data: serde_json::Value,
    /// Table that people see. Without it they see the JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Table>,
    /// The exit code of the command line.
    #[serde(default)]
    pub exit_code: u8,
}

impl Reply {
    /// Creates an answer with a value.
    ///
    /// # Errors
    ///
    /// When it cannot be written as JSON.
    pub fn json(data: &impl Serialize) -> Result<Self> {
        Ok(Self { data: serde_json::to_value(data)?, table: None, exit_code: 0 })
    }

    /// Adds the table that people see.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.table = Some(table);
        self
    }

    /// Sets the exit code of the command line.
    #[must_use]
    pub const fn exit_code(mut self, code: u8) -> Self {
        self.exit_code = code;
        self
    }
}

/// A table for people. The command line draws it and fits it to the terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The line above the table, empty for none.
    pub title: String,
    /// The columns.
    pub columns: Vec<Column>,
    /// The cells, as many per row as there are columns.
    pub rows: Vec<Vec<String>>,
    /// The last row, set apart: a total. Empty for none.
    pub total: Vec<String>,
    /// Lines below the table.
    pub notes: Vec<String>,
}

/// A column of a [`Table`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Head of the column.
    pub title: String,
    /// `true` when it holds numbers, which are aligned to the right.
    pub numeric: bool,
}

impl Table {
    /// Creates a table with these columns; a column whose title ends in `#` (which is not shown)
    /// holds numbers.
    ///
    /// ```
    /// let table = module_sdk::Table::new(["MODEL", "COST#"]);
    /// assert!(table.columns[1].numeric);
    /// assert_eq!(table.columns[1].title, "COST");
    /// ```
    pub fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Self {
        let columns = columns
            .into_iter()
            .map(|title| Column {
                title: title.trim_end_matches('#').to_owned(),
                numeric: title.ends_with('#'),
            })
            .collect();
        Self { columns, ..Self::default() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) -> &mut Self {
        self.rows.push(cells.into_iter().collect());
        self
    }
}

/// The arguments of a command that has none, and no help either: for that, use a type of your own
/// without fields, whose doc comment is the help.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
// The doc comment above is for authors, not for the caller of the command.
#[schemars(description = "")]
#[serde(deny_unknown_fields)]
pub struct NoArgs {}

type Work = Box<dyn FnOnce(&mut Output) -> Result<Reply> + Send>;

/// A long piece of work that a command began on the module's thread and leaves to another one.
///
/// ```
/// use std::io::Write;
/// use module_sdk::{Job, Reply};
///
/// let job = Job::new(|output| {
///     writeln!(output, "a line of the stream")?;
///     output.progress(1, Some(1), "rows")?;
///     Reply::json(&serde_json::json!({"rows": 1}))
/// });
/// # drop(job);
/// ```
pub struct Job {
    pub(crate) work: Work,
}

impl Job {
    /// Creates a job that runs on a thread of its own, writes to its [`Output`] and ends with a
    /// reply.
    pub fn new(work: impl FnOnce(&mut Output) -> Result<Reply> + Send + 'static) -> Self {
        Self { work: Box::new(work) }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// One frame of an answer, as it crosses to the host and on to the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// Progress of the work.
    Progress {
        /// Number of units that are done.
        done: u64,
        /// Number of units in all, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// Name of the unit.
        unit: String,
    },
    /// A piece of the stream.
    Chunk(String),
    /// The end of the answer.
    Reply(Reply),
}

/// Number of bytes of text that are gathered before they go to the host.
const CHUNK_BYTES: usize = 64 * 1024;

/// Output of a [`Job`]. Text only; it is sent in chunks, and a client that went away ends it.
pub struct Output {
    sink: ReplySinkBox,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Output({} bytes waiting)", self.buffer.len())
    }
}

impl Output {
    pub(crate) const fn new(sink: ReplySinkBox) -> Self {
        Self { sink, buffer: Vec::new() }
    }

    /// Reports the progress of the work.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cancelled`] when nobody listens any more.
    pub fn progress(&mut self, done: u64, total: Option<u64>, unit: &str) -> Result<()> {
        self.send(&Frame::Progress { done, total, unit: unit.to_owned() })
    }

    pub(crate) fn finish(mut self, result: Result<Reply>) {
        let result = result
            .and_then(|reply| self.send_chunk().map(|()| reply))
            .and_then(|reply| self.send(&Frame::Reply(reply)));
        self.sink.finish(result.map_err(Error::into_abi).into());
    }

    fn send(&self, frame: &Frame) -> Result<()> {
        let bytes = serde_json::to_vec(frame)?;
        if self.sink.frame(bytes.as_slice().into()) {
            Ok(())
        } else {
            Err(Error::of(ErrorKind::Cancelled, "the client went away"))
        }
    }

    fn send_chunk(&mut self) -> Result<()> {
        let whole = match std::str::from_utf8(&self.buffer) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(Error::new("a command's stream must be UTF-8")),
        };
        if whole == 0 {
            return Ok(());
        }
        let rest = self.buffer.split_off(whole);
        let text = String::from_utf8(std::mem::replace(&mut self.buffer, rest))?;
        self.send(&Frame::Chunk(text))
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_chunk().map_err(|error| match error.kind() {
            ErrorKind::Cancelled => io::Error::new(io::ErrorKind::BrokenPipe, error.to_string()),
            _ => io::Error::other(error.to_string()),
        })
    }
}

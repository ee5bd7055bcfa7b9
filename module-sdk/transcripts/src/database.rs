//! Transcripts that are SQLite databases: their rows as lines of JSON.
//!
//! A database is only read, and only those of its columns leave it that tell of usage. Where no
//! program has it open, nothing is created beside it either.

mod layout;

use std::{
    ffi::OsString,
    fmt, fs,
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use module_sdk::FileMark;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};

use crate::Tool;
use layout::Layout;

/// Beginning of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Time for which a lock of another program is waited for.
const BUSY: Duration = Duration::from_secs(1);

/// Number of rows that are read at once.
const PAGE: usize = 500;

/// Reason why a database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// Another program keeps others out.
    #[error("it is locked; try again when the program that writes it is idle or closed")]
    Locked,
    /// Its tables are not those of a tool that is known.
    #[error("its tables are of no form that is known here; a newer Lodestar may know it")]
    Form,
    /// It was written while it was read.
    #[error("it changed while it was read; try again")]
    Changed,
    /// SQLite refuses it.
    #[error("it cannot be read as a database: {0}")]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            _ => Self::Sqlite(error),
        }
    }
}

/// Checks whether a file begins as an SQLite database does.
#[must_use]
pub fn is_one(path: &Path) -> bool {
    let mut begin = [0; MAGIC.len()];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut begin).is_ok()) && begin == *MAGIC
}

/// Returns the state of a database, its write-ahead log counted in.
///
/// # Errors
///
/// When it cannot be looked at.
pub fn mark(path: &Path) -> io::Result<FileMark> {
    let mut mark = FileMark::from(&fs::metadata(path)?);
    // An empty log is left by a program that only looked.
    if let Some(log) = beside(path, "-wal").filter(|log| log.bytes > 0) {
        mark.bytes += log.bytes;
        mark.modified_ns = mark.modified_ns.max(log.modified_ns);
    }
    Ok(mark)
}

/// Reader of the rows of a database, each a line of JSON.
pub struct Rows {
    connection: Connection,
    path: PathBuf,
    /// State from which it must not change: where no lock holds the writers off.
    before: Option<FileMark>,
    layout: Layout,
    /// Number of the last row that was read.
    last: i64,
    lines: Vec<u8>,
    /// Number of bytes of the lines that were given out.
    given: usize,
    ended: bool,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rows({})", self.path.display())
    }
}

impl Rows {
    /// Opens a database.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is not that of a tool.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let path = std::path::absolute(path)?;
        let before = mark(&path)?;
        // Without a log there is nothing but the file; its locks would need files beside it.
        let is_alone = ["-wal", "-journal"]
            .iter()
            .all(|ending| beside(&path, ending).is_none_or(|log| log.bytes == 0));
        let connection = connect(&path, is_alone)?;
        // All rows are of one time.
        connection.execute_batch("BEGIN")?;
        let layout = Layout::of(&connection, &path)?.ok_or(DatabaseError::Form)?;
        Ok(Self {
            connection,
            path,
            before: is_alone.then_some(before),
            layout,
            last: i64::MIN,
            lines: Vec::new(),
            given: 0,
            ended: false,
        })
    }

    /// Returns the tool whose tables it has.
    #[must_use]
    pub const fn tool(&self) -> Tool {
        self.layout.tool
    }

    fn next_page(&mut self) -> Result<(), DatabaseError> {
        self.lines.clear();
        self.given = 0;
        let mut statement = self.connection.prepare_cached(&self.layout.sql)?;
        let mut rows = statement.query((self.last, PAGE as i64))?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            self.last = row.get(0)?;
            append(row, &mut self.lines)?;
            count += 1;
        }
        self.ended = count < PAGE;
        Ok(())
    }

    /// Checks whether the database was written though no lock held the writers off.
    fn is_changed(&self) -> bool {
        self.before.is_some_and(|before| mark(&self.path).ok() != Some(before))
    }
}

impl io::Read for Rows {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.lines.len() {
            if self.ended {
                return Ok(0);
            }
            let read = self.next_page();
            // Half of a change may look like anything, damage too.
            if (read.is_err() || self.ended) && self.is_changed() {
                return Err(io::Error::other(DatabaseError::Changed));
            }
            read.map_err(io::Error::other)?;
        }
        let count = buffer.len().min(self.lines.len() - self.given);
        buffer[..count].copy_from_slice(&self.lines[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

/// Appends the line of a row; a row that does not count has none, nor one that is no text.
fn append(row: &Row<'_>, lines: &mut Vec<u8>) -> rusqlite::Result<()> {
    if let Ok(line) = row.get_ref(1)?.as_str() {
        lines.extend_from_slice(line.as_bytes());
        lines.push(b'\n');
    }
    Ok(())
}

/// Opens a database for reading. Alone, it is taken for a file that nobody writes.
fn connect(path: &Path, is_alone: bool) -> Result<Connection, DatabaseError> {
    let escaped: String = path
        .as_os_str()
        .as_bytes()
        .iter()
        .map(|byte| match byte {
            b'/' | b'.' | b'-' | b'_' => char::from(*byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let immutable = if is_alone { "&immutable=1" } else { "" };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let uri = format!("file:{escaped}?mode=ro{immutable}");
    let connection = match Connection::open_with_flags(uri, flags) {
        Ok(connection) => connection,
        Err(error) => {
            // SQLite gives no reason. Otherwise the file stays closed: to close it would release
            // the locks of this process.
            File::open(path)?;
            return Err(error.into());
        }
    };
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// Returns the state of a file beside a database.
fn beside(path: &Path, ending: &str) -> Option<FileMark> {
    let mut name: OsString = path.into();
    name.push(ending);
    fs::metadata(name).ok().map(|about| (&about).into())
}

#[cfg(test)]
mod tests;

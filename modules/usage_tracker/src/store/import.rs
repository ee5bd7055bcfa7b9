//! The import of transcripts: reports of requests that are past, and how far each file was read.

use foldhash::HashSet;
use module_sdk::FileMark;
use module_sqlite::{Reader, raise};
use rusqlite::{Connection, OptionalExtension as _};

use super::{IMPORTED, Store, StoreError, Written, write};
use crate::sanitize::Report;

/// A file that was imported, as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImportedFile {
    /// Key of the file.
    pub(crate) key: FileKey,
    /// Name of the tool that wrote it.
    pub(crate) tool: String,
    /// State of the file.
    pub(crate) mark: FileMark,
    /// Position behind the last whole line, in bytes.
    pub(crate) position: u64,
    /// Number of lines up to there.
    pub(crate) line: u64,
    /// SHA-256 of the beginning of the file.
    pub(crate) head: Option<String>,
    /// Number of bytes that `head` is of.
    pub(crate) head_bytes: u64,
}

/// The files that were imported before.
#[derive(Debug)]
pub(crate) struct ImportedFiles {
    reader: Reader,
    has_table: bool,
}

/// Key of a file: it does not show its name.
pub(crate) type FileKey = [u8; 16];

/// Keys that a rehearsal has seen: what it found before is not in the database.
#[derive(Debug, Default)]
pub(crate) struct Rehearsed(HashSet<u64>);

/// SQL that makes the table of files.
const TABLE: &str = include_str!("import_file.sql");

impl Store {
    /// Writes reports of requests that are past, and how far files were read, in one transaction.
    /// No session is under way by them. `now_ms` is the time, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; nothing is written then.
    pub(crate) fn import(
        &mut self,
        reports: Vec<Report>,
        files: &[ImportedFile],
        now_ms: i64,
    ) -> Result<Written, StoreError> {
        self.in_batch(i64::MAX, |batch| {
            let connection = batch.connection();
            connection.prepare_cached(TABLE)?.execute([])?;
            raise(connection, IMPORTED, 1)?;
            for file in files {
                put(connection, file, now_ms)?;
            }
            batch.take_all(reports)
        })
    }

    /// Returns what [`import`](Self::import) would do, and does not do it.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub(crate) fn rehearse(
        &mut self,
        mut reports: Vec<Report>,
        seen: &mut Rehearsed,
    ) -> Result<Written, StoreError> {
        let all = reports.len();
        // What came in an earlier batch is only known by its keys.
        reports.retain(|report| write::keys(&report.request).all(|key| !seen.has(&key)));
        let repeated = all - reports.len();
        for report in &reports {
            seen.0.extend(write::keys(&report.request).map(|key| short(&key)));
        }
        let before = self.last_request;
        let rehearsed = self.in_batch(i64::MAX, |batch| {
            let connection = batch.connection();
            connection.execute_batch("SAVEPOINT rehearsal")?;
            let written = batch.take_all(reports);
            connection.execute_batch("ROLLBACK TO rehearsal; RELEASE rehearsal")?;
            written
        });
        // They know of rows that are not there.
        self.names.forget();
        self.sessions.forget();
        self.last_request = before;
        let mut written = rehearsed?;
        written.duplicates += repeated;
        Ok(written)
    }

    /// Returns the files that were imported, as they are known now.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub(crate) fn imported(&mut self) -> Result<ImportedFiles, StoreError> {
        let reader = self.database.reader()?;
        let has_table = reader.read(|connection| {
            let sql = "SELECT count(*) > 0 FROM sqlite_schema WHERE name = 'import_file'";
            connection.query_row(sql, [], |row| row.get(0))
        })?;
        Ok(ImportedFiles { reader, has_table })
    }
}

impl ImportedFiles {
    /// Returns what is known of a file.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub(crate) fn find(&self, key: &FileKey) -> Result<Option<ImportedFile>, StoreError> {
        if !self.has_table {
            return Ok(None);
        }
        self.reader.read(|connection| find(connection, key))
    }
}

impl Rehearsed {
    fn has(&self, key: &[u8; 16]) -> bool {
        self.0.contains(&short(key))
    }
}

fn short(key: &[u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *key;
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn put(connection: &Connection, file: &ImportedFile, now_ms: i64) -> rusqlite::Result<()> {
    let mark = &file.mark;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO import_file VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, \
             ?11)",
        )?
        .execute((
            file.key,
            &file.tool,
            mark.device.cast_signed(),
            mark.inode.cast_signed(),
            mark.bytes.cast_signed(),
            mark.modified_ns,
            file.position.cast_signed(),
            file.line.cast_signed(),
            &file.head,
            file.head_bytes.cast_signed(),
            now_ms,
        ))
        .map(drop)
}

fn find(connection: &Connection, key: &FileKey) -> rusqlite::Result<Option<ImportedFile>> {
    connection
        .prepare_cached(
            "SELECT tool, device, inode, bytes, modified_ns, position, line, head, head_bytes \
             FROM import_file WHERE key = ?1",
        )?
        .query_row([key], |row| {
            let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
            Ok(ImportedFile {
                key: *key,
                tool: row.get(0)?,
                mark: FileMark {
                    device: number(1)?,
                    inode: number(2)?,
                    bytes: number(3)?,
                    modified_ns: row.get(4)?,
                },
                position: number(5)?,
                line: number(6)?,
                head: row.get(7)?,
                head_bytes: number(8)?,
            })
        })
        .optional()
}

//! Files that the caller of a command opened: their reader, and the writer that the command line
//! has.
//!
//! A module never opens a path that a caller named: the daemon may be allowed to read what the
//! caller may not, or the other way round. The command line opens the files and sends them; they
//! are a stream of records, each of a kind (one byte), a length (four bytes, the highest first) and
//! so many bytes:
//!
//! | kind | content |
//! |---|---|
//! | `A` | the arguments of the command, JSON; the daemon takes this record out |
//! | `S` | number and size of all files, JSON: `{"files":2,"bytes":1024,"unchanged":0}` |
//! | `F` | the beginning of a file, JSON: [`FileHead`] |
//! | `D` | a part of its content |
//! | `E` | the end of the file; its content is the error that ended it early, empty for none |
//! | `Z` | the end of all |

mod mark;

use std::{
    fmt, fs,
    io::{self, BufRead as _, BufReader, Read, Write},
    time::{Duration, UNIX_EPOCH},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, ErrorKind, Result};
pub use mark::FileMark;

/// Kind of the record with the arguments of the command.
#[doc(hidden)]
pub const ARGUMENTS_RECORD: u8 = b'A';

/// Longest record but those of content, in bytes.
#[doc(hidden)]
pub const MAX_RECORD: usize = 2 << 20;

/// Size of the records of content, in bytes.
#[doc(hidden)]
pub const PART: usize = 256 << 10;

/// Kinds of the other records.
mod record {
    pub(super) const SUM: u8 = b'S';
    pub(super) const FILE: u8 = b'F';
    pub(super) const DATA: u8 = b'D';
    pub(super) const FILE_END: u8 = b'E';
    pub(super) const END: u8 = b'Z';
}

/// Number and size of the files of a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesSum {
    /// Number of files.
    pub files: u64,
    /// Their size in bytes when they were counted, less what is not sent of them; a pipe has none.
    pub bytes: u64,
    /// Number of files beside them that are not sent, since the module has read them as they are.
    #[serde(default)]
    pub unchanged: u64,
}

/// Head of a file, as it is sent.
#[doc(hidden)]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHead {
    /// Name for messages.
    pub name: String,
    /// Size in bytes when it was opened, 0 for a pipe.
    #[serde(default)]
    pub bytes: u64,
    /// Time of its last change, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_ms: Option<i64>,
    /// Name of the tool that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// State when it was opened; a pipe has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<FileMark>,
    /// Offset of the first byte that is sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub from: u64,
    /// SHA-256 of its first bytes, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
}

impl FileHead {
    /// Creates the head of what has a name only: a pipe, or what cannot be opened.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Creates the head of an open file.
    #[must_use]
    pub fn of(name: impl Into<String>, about: &fs::Metadata) -> Self {
        let is_file = about.is_file();
        Self {
            bytes: if is_file { about.len() } else { 0 },
            modified_ms: modified_ms(about),
            mark: is_file.then(|| about.into()),
            ..Self::new(name)
        }
    }
}

/// The files of a command, in the order in which they come: see
/// [`Wiring::job_with_files`](crate::Wiring::job_with_files).
///
/// They are read while they are sent, so that a large one takes no memory.
pub struct Files {
    records: BufReader<Box<dyn Read + Send>>,
    sum: Option<FilesSum>,
    /// Bytes that are left of the record of content that is being read.
    left: usize,
    /// `true` between the head of a file and its end.
    in_file: bool,
    ended: bool,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Files({:?})", self.sum)
    }
}

/// One of the [`Files`] of a command. It is read to its end, or skipped by asking for the next one.
#[derive(Debug)]
pub struct NamedFile<'a> {
    files: &'a mut Files,
    head: FileHead,
}

impl Files {
    pub(crate) fn new(records: impl Read + Send + 'static) -> Self {
        let records = BufReader::with_capacity(PART, Box::new(records) as Box<dyn Read + Send>);
        Self { records, sum: None, left: 0, in_file: false, ended: false }
    }

    /// Returns how many files there are, and their size.
    ///
    /// # Errors
    ///
    /// When the sender went away.
    pub fn sum(&mut self) -> Result<FilesSum> {
        if let Some(sum) = self.sum {
            return Ok(sum);
        }
        let (kind, length) = self.head()?;
        let sum = match kind {
            record::SUM => self.json(length)?,
            _ => return Err(not_expected(kind)),
        };
        self.sum = Some(sum);
        Ok(sum)
    }

    /// Returns the next file, `None` behind the last one.
    ///
    /// # Errors
    ///
    /// When the sender went away.
    pub fn next_file(&mut self) -> Result<Option<NamedFile<'_>>> {
        self.sum()?;
        // What was not read of the one before is of no interest, nor how it ended.
        while self.in_file {
            self.skip_part()?;
            if let (record::FILE_END, length) = self.part()? {
                self.bytes(length)?;
                self.in_file = false;
            }
        }
        if self.ended {
            return Ok(None);
        }
        match self.head()? {
            (record::FILE, length) => {
                let head = self.json(length)?;
                self.in_file = true;
                Ok(Some(NamedFile { files: self, head }))
            }
            (record::END, _) => {
                self.ended = true;
                Ok(None)
            }
            (kind, _) => Err(not_expected(kind)),
        }
    }

    /// Reads the head of a record: its kind and its length.
    fn head(&mut self) -> Result<(u8, usize)> {
        let mut head = [0; 5];
        self.records.read_exact(&mut head).map_err(broken)?;
        let [kind, length @ ..] = head;
        Ok((kind, u32::from_be_bytes(length) as usize))
    }

    /// Reads the head of a record within a file.
    fn part(&mut self) -> Result<(u8, usize)> {
        match self.head()? {
            (record::DATA, length) => {
                self.left = length;
                Ok((record::DATA, length))
            }
            (record::FILE_END, length) => Ok((record::FILE_END, length)),
            (kind, _) => Err(not_expected(kind)),
        }
    }

    /// Skips what is left of a record of content.
    fn skip_part(&mut self) -> Result<()> {
        while self.left > 0 {
            let here = self.records.fill_buf().map_err(broken)?.len().min(self.left);
            if here == 0 {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
            self.records.consume(here);
            self.left -= here;
        }
        Ok(())
    }

    fn json<T: DeserializeOwned>(&mut self, length: usize) -> Result<T> {
        Ok(serde_json::from_slice(&self.bytes(length)?)?)
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>> {
        if length > MAX_RECORD {
            return Err(Error::usage("a record of the files is too long"));
        }
        let mut bytes = vec![0; length];
        self.records.read_exact(&mut bytes).map_err(broken)?;
        Ok(bytes)
    }
}

impl NamedFile<'_> {
    /// Returns the name of the file, as the caller wrote it: for messages, and never to be opened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.head.name
    }

    /// Returns its size in bytes when it was opened, 0 for a pipe.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.head.bytes
    }

    /// Returns the time of its last change, where it has one.
    #[must_use]
    pub fn modified(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.head.modified_ms?).ok()
    }

    /// Returns the name of the tool that wrote the file, where the place that it is from or the
    /// caller told it.
    #[must_use]
    pub fn tool(&self) -> Option<&str> {
        self.head.tool.as_deref()
    }

    /// Returns the state of the file when it was opened; a pipe has none.
    #[must_use]
    pub const fn mark(&self) -> Option<&FileMark> {
        self.head.mark.as_ref()
    }

    /// Returns the offset in the file of the first byte that is read here: what is before it was
    /// read another time.
    #[must_use]
    pub const fn from(&self) -> u64 {
        self.head.from
    }

    /// Returns the SHA-256 of the first 4,096 bytes of the file, or of all where it has fewer, in
    /// hexadecimal digits. A pipe and a database have none.
    #[must_use]
    pub fn head(&self) -> Option<&str> {
        self.head.head.as_deref()
    }
}

impl Read for NamedFile<'_> {
    /// Reads on. An error that the sender met, such as a file that it may not read, is
    /// [`io::ErrorKind::Other`] with the words of the sender.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let files = &mut *self.files;
        while files.left == 0 {
            if !files.in_file {
                return Ok(0);
            }
            if let (record::FILE_END, length) = files.part().map_err(as_io)? {
                let error = files.bytes(length).map_err(as_io)?;
                files.in_file = false;
                if !error.is_empty() {
                    return Err(io::Error::other(String::from_utf8_lossy(&error).into_owned()));
                }
            }
        }
        let most = buffer.len().min(files.left);
        let count = files.records.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        files.left -= count;
        Ok(count)
    }
}

fn broken(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::of(ErrorKind::Cancelled, "the files broke off: their sender went away")
        }
        _ => Error::new(format!("the files cannot be read on: {error}")),
    }
}

fn as_io(error: Error) -> io::Error {
    match error.kind() {
        ErrorKind::Cancelled => io::ErrorKind::UnexpectedEof.into(),
        _ => io::Error::other(error.to_string()),
    }
}

fn not_expected(kind: u8) -> Error {
    let kind = char::from(kind).escape_default();
    Error::usage(format!("the files are out of order: a record of kind {kind}"))
}

/// Writer of the files of a command, as the command line sends them, with its buffer.
#[doc(hidden)]
#[derive(Debug)]
pub struct FilesWriter<W>(W, Vec<u8>);

impl<W: Write> FilesWriter<W> {
    /// Creates a writer and writes the arguments of the command.
    ///
    /// # Errors
    ///
    /// When they are too long, or the reader is gone.
    pub fn begin(mut out: W, arguments: &[u8], sum: FilesSum) -> io::Result<Self> {
        write(&mut out, ARGUMENTS_RECORD, arguments)?;
        Self::new(out, sum)
    }

    /// Creates a writer for files whose arguments go another way.
    ///
    /// # Errors
    ///
    /// When the reader is gone.
    pub fn new(out: W, sum: FilesSum) -> io::Result<Self> {
        let mut writer = Self(out, Vec::new());
        write(&mut writer.0, record::SUM, &serde_json::to_vec(&sum)?)?;
        Ok(writer)
    }

    /// Writes one file; an error while it is read is written in its place.
    ///
    /// # Errors
    ///
    /// When the reader is gone.
    pub fn file(&mut self, head: &FileHead, content: io::Result<impl Read>) -> io::Result<()> {
        write(&mut self.0, record::FILE, &serde_json::to_vec(head)?)?;
        // A pipe may let us wait for its first byte, and for each that follows.
        let waits = head.mark.is_none();
        if waits {
            self.0.flush()?;
        }
        let ended = match content {
            Ok(content) => self.content(content, waits)?,
            Err(error) => Err(error),
        };
        let words = ended.err().map(|error| error.to_string()).unwrap_or_default();
        write(&mut self.0, record::FILE_END, words.as_bytes())
    }

    /// Writes the content of a file, which may wait for its bytes. The inner result is that of
    /// reading it.
    fn content(&mut self, mut content: impl Read, waits: bool) -> io::Result<io::Result<()>> {
        self.1.resize(PART, 0);
        loop {
            match content.read(&mut self.1) {
                Ok(0) => return Ok(Ok(())),
                Ok(count) => {
                    write(&mut self.0, record::DATA, &self.1[..count])?;
                    if waits && count < PART {
                        // There is no more at the moment.
                        self.0.flush()?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Writes the end of all, and returns what was written to.
    ///
    /// # Errors
    ///
    /// When the reader is gone.
    pub fn finish(mut self) -> io::Result<W> {
        write(&mut self.0, record::END, b"")?;
        self.0.flush()?;
        Ok(self.0)
    }
}

fn write(out: &mut impl Write, kind: u8, content: &[u8]) -> io::Result<()> {
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    out.write_all(&[kind])?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(content)
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn modified_ms(about: &fs::Metadata) -> Option<i64> {
    let since: Duration = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests;

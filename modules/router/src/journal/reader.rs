//! Reading the journal, line by line.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use memchr::memmem::Finder;
use uuid::Uuid;

use super::{Line, RequestLine};

/// Ids that are compared with one that is not there.
const NEAR: usize = 20_000;

/// Time after a request within which another one is asked beside it, in milliseconds.
const AFTERWARDS_MS: i64 = 3_600_000;

/// Files of the journal, the oldest first, line by line.
#[derive(Debug)]
pub(crate) struct Reader {
    files: std::vec::IntoIter<PathBuf>,
    open: Option<BufReader<File>>,
    /// Lines that could not be read.
    pub damaged: u64,
    raw: Vec<u8>,
}

impl Reader {
    /// Opens the files of the days in which these moments lie, and of all days between them.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read; one that is not there has no files.
    pub(crate) fn open(directory: &Path, from_ms: i64, to_ms: i64) -> io::Result<Self> {
        let day = |ms: i64| Timestamp::from_millisecond(ms).ok().map(utc_day);
        let (from, to) = (day(from_ms), day(to_ms));
        let is_within =
            |it: Date| from.is_none_or(|from| from <= it) && to.is_none_or(|to| it <= to);
        let mut files = Vec::new();
        match fs::read_dir(directory) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    let day = entry.file_name().to_str().and_then(day_in_name);
                    files.extend(day.filter(|day| is_within(*day)).map(|_| entry.path()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        files.sort();
        Ok(Self { files: files.into_iter(), open: None, damaged: 0, raw: Vec::new() })
    }

    /// Returns the next line.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        while self.advance()? {
            match serde_json::from_slice(&self.raw) {
                Ok(line) => return Ok(Some(line)),
                Err(_) => self.damaged += 1,
            }
        }
        Ok(None)
    }

    /// Reads the next whole line into `raw`; `false` at the end. An unfinished last line is still
    /// being written.
    fn advance(&mut self) -> io::Result<bool> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(path) = self.files.next() else { return Ok(false) };
                match File::open(path) {
                    Ok(file) => self.open = Some(BufReader::with_capacity(64 * 1024, file)),
                    // Its days were over.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                continue;
            };
            self.raw.clear();
            open.read_until(b'\n', &mut self.raw)?;
            match self.raw.pop() {
                Some(b'\n') if self.raw.is_empty() => {}
                Some(b'\n') => return Ok(true),
                _ => self.open = None,
            }
        }
    }
}

/// Lines of the journal about one request.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Lines about requests whose id is the one that was asked for, or begins so.
    pub lines: Vec<Line>,
    /// Requests that experiments asked beside them.
    pub shadows: Vec<RequestLine>,
    /// The id that is nearest, where there is none.
    pub near: Option<String>,
}

impl Found {
    /// Returns whether the requests were made with a virtual key of this name, or with none.
    pub(crate) fn is_of(&self, key: Option<&str>) -> bool {
        self.lines.iter().all(|line| match line {
            Line::Request(line) => line.key.as_deref() == key,
            _ => true,
        })
    }

    /// Returns the ids of the requests, each once.
    pub(crate) fn ids(&self) -> Vec<&str> {
        let requests = self.lines.iter().filter(|line| matches!(line, Line::Request(_)));
        requests.map(Line::id).collect()
    }
}

/// Finds what there is about the request with an id, or about those whose ids begin so.
///
/// # Errors
///
/// When a file cannot be read.
pub(crate) fn find(directory: &Path, id: &str) -> io::Result<Found> {
    let (first, last) = window(id);
    // What was asked beside it came when its answer had ended: that may be the next day.
    let mut reader = Reader::open(directory, first, last.saturating_add(AFTERWARDS_MS))?;
    let finder = Finder::new(id.as_bytes());
    let mut found = Found::default();
    let mut others = Vec::new();
    while reader.advance()? {
        let line = finder.find(&reader.raw).map(|_| serde_json::from_slice::<Line>(&reader.raw));
        let line = line.and_then(Result::ok);
        match line {
            Some(line) if line.id().starts_with(id) => found.lines.push(line),
            Some(Line::Request(line))
                if line.beside.as_ref().is_some_and(|beside| beside.starts_with(id)) =>
            {
                found.shadows.push(*line);
            }
            _ if found.lines.is_empty() && others.len() < NEAR => {
                others.extend(id_in(&reader.raw).map(str::to_owned));
            }
            _ => {}
        }
    }
    if others.is_empty() && found.lines.is_empty() {
        // A slip in the time of an id leads to another day.
        let mut newest = Reader::open(directory, i64::MIN, i64::MAX)?;
        newest.files = newest.files.next_back().into_iter().collect::<Vec<_>>().into_iter();
        while others.len() < NEAR && newest.advance()? {
            others.extend(id_in(&newest.raw).map(str::to_owned));
        }
    }
    if found.lines.is_empty() {
        let slips = |other: &String| slips(id, other);
        let near = others.into_iter().filter(|other| slips(other) * 8 <= id.len());
        found.near = near.min_by_key(slips);
    }
    Ok(found)
}

/// Returns the number of places at which an id, or its beginning, differs from another one.
fn slips(id: &str, other: &str) -> usize {
    id.bytes().zip(other.bytes()).filter(|(one, other)| one != other).count()
}

/// Returns the id in a line without reading all of it.
fn id_in(raw: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(raw.get(..120)?).ok()?;
    let (_, rest) = text.split_once("\"id\":\"")?;
    rest.split('"').next().filter(|id| id.len() == DIGITS)
}

/// Hexadecimal digits of an id.
const DIGITS: usize = 32;

/// Returns an id as the journal spells it: lower case, without the dashes of a UUID and without
/// what reports put around it (`gateway:ID:2`). `None` for what is no part of an id.
pub(crate) fn bare_id(given: &str) -> Option<String> {
    let given = given.trim();
    let given = given.strip_prefix("gateway:").unwrap_or(given);
    let given = given.split(':').next().unwrap_or_default();
    let id: String = given.chars().filter(|c| *c != '-').collect();
    let id = id.to_ascii_lowercase();
    let is_id = (6..=DIGITS).contains(&id.len()) && id.bytes().all(|it| it.is_ascii_hexdigit());
    is_id.then_some(id)
}

/// Returns the time in an id (UUIDv7), in milliseconds since the Unix epoch.
pub(crate) fn begun_at(id: &str) -> Option<i64> {
    let uuid = Uuid::try_parse(id).ok().filter(|uuid| uuid.get_version_num() == 7)?;
    i64::try_from(uuid.as_u128() >> 80).ok()
}

/// Returns the day of the file in which a request is.
pub(crate) fn day_of(id: &str) -> Option<Date> {
    Some(utc_day(Timestamp::from_millisecond(begun_at(id)?).ok()?))
}

/// Returns the first and the last moment that an id that begins so can have.
fn window(id: &str) -> (i64, i64) {
    let digits: String = id.chars().take(12).collect();
    let filled = |with: &str| {
        let whole = format!("{digits}{}", with.repeat(12 - digits.len()));
        i64::from_str_radix(&whole, 16).unwrap_or(0)
    };
    (filled("0"), filled("f"))
}

/// Returns the day of a file of the journal.
pub(super) fn day_in_name(name: &str) -> Option<Date> {
    name.strip_suffix(".jsonl").filter(|day| day.len() == 10)?.parse().ok()
}

fn utc_day(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

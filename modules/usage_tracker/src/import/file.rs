//! The reading of one file.

use std::{
    cell::Cell,
    io::{self, Cursor, Read},
};

use module_sdk::{FileMark, NamedFile, Result};
use module_transcripts::Tool;
use ruzstd::decoding::StreamingDecoder;

use crate::transcripts::{
    Fault, Harvest, LARGEST_DOCUMENT, Line, LineReader, Lines, Origin, Reading, reading, tool_of,
};

/// Bytes at the beginning of a file by which its tool is found.
const LOOKED_AT: u64 = 64 << 10;
/// Beginning of what zstd has compressed.
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
/// Requests that are given out at once.
const AT_ONCE: usize = 256;

/// Knowledge of a file before it is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) tool: Option<Tool>,
    pub(crate) mark: Option<FileMark>,
    /// Position of the first byte that is read.
    pub(crate) from: u64,
    /// Number of lines before it.
    pub(crate) line: u64,
    /// SHA-256 of the beginning of the file.
    pub(crate) head: Option<String>,
    /// Time of its last change, in milliseconds since the Unix epoch; 0 for unknown.
    pub(crate) changed_ms: i64,
}

impl About {
    /// Returns what is known of a file that was sent.
    pub(super) fn of(file: &NamedFile<'_>) -> Self {
        Self {
            name: file.name().to_owned(),
            tool: file.tool().and_then(Tool::from_name),
            mark: file.mark().copied(),
            from: file.from(),
            line: 0,
            head: file.head().map(str::to_owned),
            changed_ms: file.modified().map_or(0, |time| time.as_millisecond()),
        }
    }
}

/// Point up to which a file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) tool: Tool,
    pub(super) position: u64,
    pub(super) line: u64,
}

/// Receiver of that which is found in a file.
pub(super) trait Sink {
    /// Takes what was found so far, of `read` bytes.
    fn take(&mut self, tool: Tool, harvest: &mut Harvest) -> Result<()>;

    /// Takes the fault of a line; 0 for the file.
    fn skip(&mut self, line: u64, reason: String);

    /// Tells how many bytes were read.
    fn progress(&mut self, read: u64) -> Result<()>;
}

/// A source that counts what is read of it.
struct Counted<'a>(&'a mut dyn Read, &'a Cell<u64>);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.set(self.1.get() + count as u64);
        Ok(count)
    }
}

/// Reads a file; `None` where it could not be read to its end, which the sink was told.
pub(super) fn read(
    about: &About,
    content: &mut dyn Read,
    sink: &mut dyn Sink,
) -> Result<Option<Ended>> {
    let count = Cell::new(0);
    let mut source = Counted(content, &count);
    let most = if about.tool.is_some() { ZSTD.len() as u64 } else { LOOKED_AT };
    let begin = match begin(&mut source, most) {
        Ok(begin) => begin,
        Err(error) => return told(sink, error.to_string()),
    };
    let is_packed = begin.starts_with(ZSTD);
    let mut whole = Cursor::new(begin.clone()).chain(source);
    if !is_packed {
        return unpacked(about, &begin, &mut whole, &count, sink);
    }
    let mut unpacking = match StreamingDecoder::new(&mut whole) {
        Ok(unpacking) => unpacking,
        Err(_) => return told(sink, "cannot be decompressed".to_owned()),
    };
    let begin = match self::begin(&mut unpacking, most) {
        Ok(begin) => begin,
        Err(_) => return told(sink, "cannot be decompressed".to_owned()),
    };
    let mut whole = Cursor::new(begin.clone()).chain(unpacking);
    let ended = unpacked(about, &begin, &mut whole, &count, sink)?;
    // Positions in what was unpacked are none in the file.
    Ok(ended.map(|ended| Ended { position: 0, line: 0, ..ended }))
}

fn unpacked(
    about: &About,
    begin: &[u8],
    source: &mut dyn Read,
    count: &Cell<u64>,
    sink: &mut dyn Sink,
) -> Result<Option<Ended>> {
    let Some(tool) = about.tool.or_else(|| tool_of(begin)) else {
        // There is nothing in it yet.
        if begin.trim_ascii().is_empty() {
            return Ok(None);
        }
        return told(sink, Fault::Unknown.to_string());
    };
    let origin = Origin { name: &about.name, changed_ms: about.changed_ms };
    let mut harvest = Harvest::default();
    match reading(tool, origin) {
        Reading::Lines(mut reader) => {
            let mut lines = Lines::new(source, about.from, about.line);
            let whole = each_line(&mut lines, (tool, &mut *reader), &mut harvest, count, sink)?;
            reader.end(&mut harvest);
            sink.take(tool, &mut harvest)?;
            sink.progress(count.get())?;
            let (position, line) = (lines.position(), lines.number());
            Ok(whole.then_some(Ended { tool, position, line }))
        }
        Reading::Document(read) => {
            let mut text = Vec::new();
            let whole = source.take(LARGEST_DOCUMENT as u64 + 1).read_to_end(&mut text);
            if let Err(error) = whole {
                return told(sink, error.to_string());
            }
            let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
            let read = if text.len() > LARGEST_DOCUMENT {
                Err(Fault::TooLarge)
            } else {
                read(text, origin, &mut harvest)
            };
            if let Err(fault) = read {
                sink.skip(0, fault.to_string());
            }
            sink.take(tool, &mut harvest)?;
            sink.progress(count.get())?;
            Ok(Some(Ended { tool, position: 0, line: 0 }))
        }
    }
}

/// Reads all lines; `false` where the file could not be read to its end.
fn each_line<R: Read>(
    lines: &mut Lines<R>,
    (tool, reader): (Tool, &mut dyn LineReader),
    harvest: &mut Harvest,
    count: &Cell<u64>,
    sink: &mut dyn Sink,
) -> Result<bool> {
    loop {
        let (number, line) = match lines.next_line() {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(true),
            Err(error) => {
                sink.skip(0, error.to_string());
                return Ok(false);
            }
        };
        let read = match line {
            Line::Whole(line) => form(line).and_then(|()| reader.line(line, number, harvest)),
            // One that is still written comes whole another time.
            Line::Last(line) => match form(line) {
                Ok(()) => reader.line(line, number, harvest).or(Ok(())),
                Err(_) => Ok(()),
            },
            Line::TooLong => Err(Fault::TooLong),
        };
        if let Err(fault) = read {
            sink.skip(number, fault.to_string());
        }
        if harvest.found.len() >= AT_ONCE {
            sink.take(tool, harvest)?;
        }
        sink.progress(count.get())?;
    }
}

/// Checks that a line has the form of an object, also where nothing of it is of interest.
fn form(line: &[u8]) -> std::result::Result<(), Fault> {
    match (line.first(), line.last()) {
        (Some(b'{'), Some(b'}')) => Ok(()),
        (Some(b'{'), _) => Err(Fault::Cut),
        _ => Err(Fault::NoJson(1)),
    }
}

/// Returns the beginning of what is read.
fn begin(source: &mut dyn Read, most: u64) -> io::Result<Vec<u8>> {
    let mut begin = Vec::new();
    source.take(most).read_to_end(&mut begin)?;
    Ok(begin)
}

fn told(sink: &mut dyn Sink, reason: String) -> Result<Option<Ended>> {
    sink.skip(0, reason);
    Ok(None)
}

//! The reader of one segment: from record to record, and over damage.

use std::{fs::File, io, ops::Range, path::Path};

use lodestar_platform::files;

use super::{
    record::{Framing, RawRecord},
    segment::{HEADER_BYTES, Header},
};

/// Number of bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Size of the block around a bad place that is taken as unreadable, in bytes.
const BLOCK_BYTES: u64 = 4 << 10;

/// Outcome of [`SegmentReader::next`].
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A whole record.
    Record(RawRecord<'a>),
    /// Records that are damaged; others follow, or the end.
    Gap { first: u64, last: u64 },
    /// The end of the file.
    End,
    /// Bytes that are no record, up to the end of the file.
    Torn(TornEnd),
}

/// Kind of an end of a file that is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TornEnd {
    /// The beginning of a record, or of its head.
    Begun,
    /// Zeros, which were never written.
    Zeros,
    /// Bytes that no unfinished write leaves behind.
    Damaged,
    /// Bytes of which the disk could not read some; they may be whole.
    Unread,
}

impl TornEnd {
    /// Returns whether a write that a kill or a power cut interrupted leaves such an end.
    pub(crate) fn is_unfinished_write(self) -> bool {
        matches!(self, Self::Begun | Self::Zeros)
    }
}

/// Reader of one segment file. It owns its descriptor, so a deleted segment can be read to its end.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    file: File,
    framing: Framing,
    /// Header of the segment, where a copy of it is damaged.
    damaged_header: Option<Header>,
    /// The sequence of the last record that was read or is known to be damaged.
    last: u64,
    buffer: Vec<u8>,
    /// Index in `buffer` at which the next record begins.
    start: usize,
    /// Offset in the file at which `buffer` begins.
    base: u64,
    /// Offset in the file up to which zeros stand for what the disk could not read.
    unread_upto: u64,
}

/// Bytes at a place of a segment, with the length of the payload.
enum RecordHead {
    /// A whole record.
    Record(usize),
    /// The head of a record whose payload is damaged.
    Damaged(usize),
    /// The head of a record that goes on beyond the end of the file.
    Begun,
    /// No head of a record.
    Other,
    /// Less than the head of a record.
    End,
}

/// Place at which [`SegmentReader::next`] arrived.
enum Found {
    Record { sequence: u64, payload: Range<usize> },
    Gap { first: u64, last: u64 },
    End,
    Torn(TornEnd),
}

impl SegmentReader {
    /// Opens a segment; `None` when its header is not whole.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        // A pipe in its place would be waited for.
        let file = files::open(path)?;
        let mut reader = Self {
            file,
            framing: Framing::Plain,
            damaged_header: None,
            last: 0,
            buffer: Vec::new(),
            start: 0,
            base: 0,
            unread_upto: 0,
        };
        reader.fill(HEADER_BYTES)?;
        let Some(header) = Header::read(&reader.buffer) else {
            let is_unread = reader.unread_upto > 0;
            return if is_unread { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(None) };
        };
        reader.damaged_header = (!header.is_whole(&reader.buffer)).then_some(header);
        reader.framing = header.framing;
        reader.last = header.base.saturating_sub(1);
        reader.start = usize::try_from(header.bytes).unwrap_or(HEADER_BYTES);
        Ok(Some(reader))
    }

    /// Returns the offset in the file at which the next record begins.
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Returns the framing of the records.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// Returns the header of the segment, where a copy of it is damaged.
    pub(crate) fn damaged_header(&self) -> Option<Header> {
        self.damaged_header
    }

    /// Discards what was read ahead: it may since have been cut off and written anew.
    pub(crate) fn forget_ahead(&mut self) {
        self.go_to(self.offset());
    }

    fn go_to(&mut self, offset: u64) {
        self.base = offset;
        self.start = 0;
        self.unread_upto = 0;
        self.buffer.clear();
    }

    /// Returns the next record. Damaged ones are passed over, each once.
    pub(crate) fn next(&mut self) -> io::Result<Step<'_>> {
        let (sequence, payload) = match self.find()? {
            Found::Record { sequence, payload } => (sequence, payload),
            Found::Gap { first, last } => return Ok(Step::Gap { first, last }),
            Found::End => return Ok(Step::End),
            Found::Torn(end) => return Ok(Step::Torn(end)),
        };
        self.last = sequence;
        self.start = payload.end;
        // Its checksum is right, and yet it is none: it is as good as damaged.
        let gap = Step::Gap { first: sequence, last: sequence };
        Ok(RawRecord::decode(&self.buffer[payload]).map_or(gap, Step::Record))
    }

    /// Finds the next record, from place to place, and behind damage from byte to byte.
    fn find(&mut self) -> io::Result<Found> {
        let begin = self.offset();
        let (mut lost_track, mut zeros) = (false, true);
        let end = loop {
            let place = self.place()?;
            match (place, self.framing) {
                (RecordHead::Record(length), _) => {
                    let payload = self.payload(length);
                    let first = self.last + 1;
                    let sequence = sequence(&self.buffer[payload.clone()]);
                    if sequence == first {
                        return Ok(Found::Record { sequence, payload });
                    }
                    if sequence > first {
                        self.last = sequence - 1;
                        return Ok(Found::Gap { first, last: self.last });
                    }
                    // It was read before: whatever brought it here, it comes once.
                    (self.start, lost_track, zeros) = (payload.end, true, false);
                }
                (RecordHead::Damaged(length), Framing::Salted(_)) => {
                    self.start = self.payload(length).end;
                    if !lost_track {
                        self.last += 1;
                        return Ok(Found::Gap { first: self.last, last: self.last });
                    }
                    zeros = false;
                }
                (RecordHead::Other, Framing::Salted(_)) => {
                    zeros &= self.buffer[self.start] == 0;
                    (self.start, lost_track) = (self.start + 1, true);
                }
                (RecordHead::Other | RecordHead::Damaged(_), Framing::Plain) => {
                    (lost_track, zeros) = (true, self.is_zero_to_end()?);
                    break TornEnd::Damaged;
                }
                (RecordHead::Begun, _) => {
                    zeros = false;
                    break TornEnd::Begun;
                }
                (RecordHead::End, _) => {
                    let rest = &self.buffer[self.start..];
                    if rest.is_empty() && !lost_track {
                        return Ok(Found::End);
                    }
                    zeros &= rest.iter().all(is_zero);
                    break TornEnd::Begun;
                }
            }
        };
        let is_unread = self.unread_upto > begin;
        self.go_to(begin);
        Ok(Found::Torn(match end {
            _ if is_unread => TornEnd::Unread,
            _ if zeros => TornEnd::Zeros,
            _ if lost_track => TornEnd::Damaged,
            end => end,
        }))
    }

    /// Returns whether nothing but zeros follows.
    fn is_zero_to_end(&mut self) -> io::Result<bool> {
        while self.buffer[self.start..].iter().all(is_zero) {
            self.start = self.buffer.len();
            if !self.fill(1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns what stands where the next record would begin.
    fn place(&mut self) -> io::Result<RecordHead> {
        let head = self.framing.bytes();
        if !self.fill(head)? {
            return Ok(RecordHead::End);
        }
        let Some((length, crc)) = self.framing.prefix(&self.buffer[self.start..]) else {
            return Ok(RecordHead::Other);
        };
        if !self.fill(head + length)? {
            return Ok(RecordHead::Begun);
        }
        let is_whole = crc32fast::hash(&self.buffer[self.payload(length)]) == crc;
        Ok(if is_whole { RecordHead::Record(length) } else { RecordHead::Damaged(length) })
    }

    /// Returns the range in `buffer` of the payload of the record that begins here.
    fn payload(&self, length: usize) -> Range<usize> {
        let begin = self.start + self.framing.bytes();
        begin..begin + length
    }

    /// Fills the buffer with at least `wanted` bytes; returns false when the file ends before.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        if self.buffer.len() - self.start >= wanted {
            return Ok(true);
        }
        self.base += self.start as u64;
        self.buffer.drain(..self.start);
        self.start = 0;
        let mut filled = self.buffer.len();
        self.buffer.resize(filled.max(wanted).max(CHUNK_BYTES), 0);
        while filled < wanted {
            let at = self.base + filled as u64;
            match read_at(&self.file, &mut self.buffer[filled..], at) {
                Ok(Read::Bytes(0)) => break,
                Ok(Read::Bytes(count)) => filled += count,
                Ok(Read::Unreadable(count)) => {
                    filled += count;
                    self.unread_upto = self.base + filled as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.truncate(filled);
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(filled);
        Ok(filled >= wanted)
    }
}

fn is_zero(byte: &u8) -> bool {
    *byte == 0
}

fn sequence(payload: &[u8]) -> u64 {
    payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Number of bytes read from a place.
enum Read {
    Bytes(usize),
    /// Zeros in place of bytes that the disk could not read.
    Unreadable(usize),
}

/// Reads from a place. Bytes that the disk cannot read become zeros, block by block: damage.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<Read> {
    let error = match disk::read_at(file, buffer, at) {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => error,
        read => return read.map(Read::Bytes),
    };
    let upto = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
    let block = usize::try_from(upto - at).unwrap_or(buffer.len()).min(buffer.len());
    if let Ok(count) = disk::read_at(file, &mut buffer[..block], at) {
        return Ok(Read::Bytes(count));
    }
    let left = file.metadata()?.len().saturating_sub(at);
    if left == 0 {
        return Err(error);
    }
    let block = block.min(usize::try_from(left).unwrap_or(block));
    buffer[..block].fill(0);
    Ok(Read::Unreadable(block))
}

#[cfg(not(test))]
mod disk {
    pub(super) fn read_at(
        file: &std::fs::File,
        buffer: &mut [u8],
        at: u64,
    ) -> std::io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(file, buffer, at)
    }
}

/// Reads as in production, on a disk that has a bad place where the test says.
#[cfg(test)]
pub(crate) mod disk {
    use std::{cell::RefCell, fs::File, io, ops::Range, os::unix::fs::FileExt as _};

    thread_local! {
        static BAD: RefCell<Range<u64>> = const { RefCell::new(0..0) };
    }

    /// Makes these bytes of any file unreadable for this thread.
    pub(crate) fn bad_place(place: Range<u64>) {
        BAD.with_borrow_mut(|bad| *bad = place);
    }

    pub(super) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let end = at + buffer.len() as u64;
        if BAD.with_borrow(|bad| at < bad.end && bad.start < end) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        file.read_at(buffer, at)
    }
}

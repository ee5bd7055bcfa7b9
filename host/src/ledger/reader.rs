//! Reading segments, from the beginning of one to the end of the last.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use super::{
    Ledger,
    record::{PREFIX_BYTES, RawRecord, prefix},
    segment::{HEADER_BYTES, check_header},
};

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A whole record.
    Record(RawRecord<'a>),
    /// Nothing more.
    End,
    /// Bytes that are no record: a torn tail, or damage.
    Torn,
}

/// Reads one segment file. It owns its descriptor, so a deleted segment can be read to its end.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    file: File,
    buffer: Vec<u8>,
    /// Where in `buffer` the next record begins.
    start: usize,
    /// Where in the file `buffer` begins.
    base: u64,
}

impl SegmentReader {
    /// Opens a segment; `None` when its header is not whole.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let mut header = [0; HEADER_BYTES];
        let whole = match file.read_exact_at(&mut header, 0) {
            Ok(()) => check_header(&header).is_some(),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        let base = HEADER_BYTES as u64;
        Ok(whole.then_some(Self { file, buffer: Vec::new(), start: 0, base }))
    }

    /// Where in the file the next record begins.
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Forgets what was read ahead: it may since have been taken back and written anew.
    fn forget_ahead(&mut self) {
        self.base = self.offset();
        self.start = 0;
        self.buffer.clear();
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> io::Result<Step<'_>> {
        if !self.fill(PREFIX_BYTES)? {
            let rest = self.buffer.len() - self.start;
            return Ok(if rest == 0 { Step::End } else { Step::Torn });
        }
        let Some((length, crc)) = prefix(&self.buffer[self.start..]) else {
            return Ok(Step::Torn);
        };
        if !self.fill(PREFIX_BYTES + length)? {
            return Ok(Step::Torn);
        }
        let payload = self.start + PREFIX_BYTES..self.start + PREFIX_BYTES + length;
        if crc32fast::hash(&self.buffer[payload.clone()]) != crc {
            return Ok(Step::Torn);
        }
        match RawRecord::decode(&self.buffer[payload.clone()]) {
            Some(record) => {
                self.start = payload.end;
                Ok(Step::Record(record))
            }
            None => Ok(Step::Torn),
        }
    }

    /// Has at least `wanted` bytes ready; false when the file ends before.
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
            match self.file.read_at(&mut self.buffer[filled..], at) {
                Ok(0) => break,
                Ok(count) => filled += count,
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

/// Reads the ledger onwards from a sequence, from segment to segment.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    segment: Option<(u64, SegmentReader)>,
    /// The sequence that comes next; what is before it was read.
    next: u64,
    /// Damaged places met so far.
    damaged: u64,
}

impl Reader {
    /// A reader whose first record is the first one kept with at least this sequence.
    pub(crate) fn at(next: u64) -> Self {
        Self { segment: None, next, damaged: 0 }
    }

    /// The sequence from which the next visit reads.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many damaged places were stepped over.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Calls `visit` for the records from `next` to `upto`, in order, until it answers false.
    /// Damage is stepped over, to the next segment. `upto` must have been committed.
    pub(crate) fn visit(
        &mut self,
        ledger: &Ledger,
        upto: u64,
        mut visit: impl FnMut(&RawRecord<'_>) -> bool,
    ) -> io::Result<()> {
        let result = self.read(ledger, upto, &mut visit);
        if let Some((_, segment)) = &mut self.segment {
            segment.forget_ahead();
        }
        self.next = self.next.min(upto.saturating_add(1));
        result
    }

    fn read(
        &mut self,
        ledger: &Ledger,
        upto: u64,
        visit: &mut dyn FnMut(&RawRecord<'_>) -> bool,
    ) -> io::Result<()> {
        while self.next <= upto {
            if self.segment.is_none() && !self.open_next(ledger, upto)? {
                self.next = u64::MAX;
                break;
            }
            let Some((_, segment)) = &mut self.segment else { break };
            match segment.next()? {
                Step::Record(record) if record.sequence < self.next => {}
                Step::Record(record) if record.sequence <= upto => {
                    self.next = record.sequence + 1;
                    if !visit(&record) {
                        return Ok(());
                    }
                }
                step => {
                    self.damaged += u64::from(matches!(step, Step::Torn));
                    self.leave_segment(ledger);
                }
            }
        }
        Ok(())
    }

    /// Opens the segment that holds `next`, or the first one after it.
    fn open_next(&mut self, ledger: &Ledger, upto: u64) -> io::Result<bool> {
        while let Some((base, path)) = ledger.segment_holding(self.next) {
            if base > upto {
                return Ok(false);
            }
            match SegmentReader::open(&path) {
                Ok(Some(reader)) => {
                    self.next = self.next.max(base);
                    self.segment = Some((base, reader));
                    return Ok(true);
                }
                Ok(None) => {
                    self.damaged += 1;
                    match ledger.segment_after(base) {
                        Some(after) => self.next = after,
                        None => return Ok(false),
                    }
                }
                // Retention was faster: look again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if ledger.segment_holding(self.next).is_some_and(|(again, _)| again == base) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn leave_segment(&mut self, ledger: &Ledger) {
        let Some((base, _)) = self.segment.take() else { return };
        self.next = match ledger.segment_after(base) {
            Some(after) => self.next.max(after),
            None => u64::MAX,
        };
    }
}

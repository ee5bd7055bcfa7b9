//! The reader of the ledger, from segment to segment.

use std::io;

use super::{
    Extent, Ledger, LossKind,
    error::stays,
    record::RawRecord,
    segment::segment_name,
    segment_reader::{SegmentReader, Step, TornEnd},
};

/// Reader of the ledger onwards from a sequence, from segment to segment.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    segment: Option<(u64, SegmentReader)>,
    /// Sequence of the next record to read.
    next: u64,
    /// Number of damaged places met so far.
    damaged: u64,
    /// True when events that were noted as lost are read as well, if they are there again.
    gives_back: bool,
}

impl Reader {
    /// Returns a reader whose first record is the first one kept with at least this sequence.
    pub(crate) fn at(next: u64) -> Self {
        Self { segment: None, next, damaged: 0, gives_back: false }
    }

    /// Returns a reader of the whole ledger that also reads events that were noted as lost and are
    /// there again.
    pub(crate) fn of_everything() -> Self {
        Self { gives_back: true, ..Self::at(0) }
    }

    /// Returns the sequence from which the next visit reads.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Returns the number of damaged places that were stepped over.
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
        let lost = if self.gives_back { Vec::new() } else { ledger.losses.ranges() };
        while self.next <= upto {
            if self.segment.is_none() && !self.open_next(ledger, upto)? {
                self.next = u64::MAX;
                break;
            }
            let Some((base, segment)) = &mut self.segment else { break };
            match segment.next()? {
                Step::Record(record) if record.sequence < self.next => {}
                Step::Record(record) if record.sequence <= upto => {
                    self.next = record.sequence + 1;
                    if lost.iter().any(|range| range.contains(&record.sequence)) {
                        self.damaged += 1;
                        continue;
                    }
                    if !visit(&record) {
                        return Ok(());
                    }
                }
                Step::Gap { first, last } if first <= upto => {
                    let base = *base;
                    self.lose(ledger, LossKind::Damaged, base, last.min(upto));
                }
                step => {
                    let kind = match step {
                        Step::End | Step::Torn(TornEnd::Begun) => LossKind::Cut,
                        Step::Torn(TornEnd::Unread) => LossKind::Unreadable,
                        _ => LossKind::Damaged,
                    };
                    self.leave_segment(ledger, kind, upto);
                }
            }
        }
        Ok(())
    }

    /// Steps over missing records, up to `last`, and notes them as lost.
    fn lose(&mut self, ledger: &Ledger, kind: LossKind, base: u64, last: u64) {
        if last >= self.next {
            self.damaged += 1;
            // What follows is there, or nothing was accepted behind it: the numbers are all.
            ledger.losses.note(kind, &segment_name(base), self.next, last, Extent::Exact);
            self.next = last + 1;
        }
    }

    /// Opens the segment that holds `next`, or the first one after it.
    fn open_next(&mut self, ledger: &Ledger, upto: u64) -> io::Result<bool> {
        while let Some((base, path)) = ledger.segment_holding(self.next) {
            // Whoever looks for a loss has found one: a segment before this one is not there.
            self.damaged += u64::from(base > self.next);
            if base > upto {
                return Ok(false);
            }
            self.next = self.next.max(base);
            let kind = match SegmentReader::open(&path) {
                Ok(Some(reader)) => {
                    self.segment = Some((base, reader));
                    return Ok(true);
                }
                Ok(None) => LossKind::Unreadable,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Retention was faster: look again.
                    if ledger.segment_holding(self.next).is_none_or(|(again, _)| again != base) {
                        continue;
                    }
                    LossKind::Missing
                }
                Err(error) if stays(&error) => LossKind::Unreadable,
                Err(error) => return Err(error),
            };
            let last = ledger.segment_after(base).map_or(upto, |after| upto.min(after - 1));
            self.lose(ledger, kind, base, last);
            if self.next > upto {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Goes on with the next segment; the records that this one should still have held are noted as
    /// lost.
    fn leave_segment(&mut self, ledger: &Ledger, kind: LossKind, upto: u64) {
        let Some((base, _)) = self.segment.take() else { return };
        let after = ledger.segment_after(base);
        let last = after.map_or(upto, |after| upto.min(after - 1));
        self.lose(ledger, kind, base, last);
        self.next = match after {
            Some(after) => self.next.max(after),
            None => u64::MAX,
        };
    }
}

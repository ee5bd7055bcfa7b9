//! Rewriting of a message: from JSON, or from protobuf that holds something odd.

use super::{
    decoded_size::REPORT,
    refused::{Fit, Refused, Step},
    schema::{Field, Kind, MessageId, Schema},
    wire,
};
use crate::server::{BodyError, Share};

/// Largest depth to which messages may nest, so that neither JSON's own limit (128 levels) nor
/// prost's (100) is reached.
pub(super) const MAX_DEPTH: usize = 80;

/// Size of the steps in which memory is requested from the budget, in bytes.
const STEP: usize = 64 * 1024;

/// A message that was rewritten.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) bytes: Vec<u8>,
    pub(super) refused: Refused,
}

/// The reason why a body cannot be rewritten.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Budget(#[from] BodyError),
    #[error("a value does not have the form that OTLP gives it")]
    Form,
    #[error(transparent)]
    Syntax(serde_json::Error),
}

/// A message while it is written.
#[derive(Debug)]
pub(super) struct Rewrite<'s> {
    pub(super) schema: &'static Schema,
    pub(super) bytes: Vec<u8>,
    pub(super) refused: Refused,
    pub(super) depth: usize,
    /// The error where there was no memory for more.
    pub(super) failed: Option<BodyError>,
    records: MessageId,
    /// For each message type, whether records can be in it.
    leads: Vec<bool>,
    /// True while a record is written, which is refused as a whole.
    in_record: bool,
    written: u64,
    place: Vec<Step>,
    share: &'s mut Share,
    /// Memory that is held besides what is written here, in bytes.
    held: usize,
    /// Memory that what is written so far will take once it is decoded, in bytes.
    decoded_size: usize,
    granted: usize,
}

impl<'s> Rewrite<'s> {
    /// Creates a rewrite beside `held` bytes that the caller holds.
    pub(super) fn new(records: MessageId, held: usize, share: &'s mut Share) -> Self {
        Self {
            schema: Schema::get(),
            bytes: Vec::new(),
            refused: Refused::default(),
            depth: 0,
            failed: None,
            records,
            leads: Schema::get().leading_to(records),
            in_record: false,
            written: 0,
            place: Vec::new(),
            share,
            held,
            decoded_size: 0,
            granted: 0,
        }
    }

    /// Counts the memory that an element takes once it is decoded, and checks whether all still
    /// fits.
    ///
    /// # Errors
    ///
    /// When there is not enough memory.
    pub(super) fn add_size(&mut self, more: usize) -> Result<(), BodyError> {
        self.decoded_size += more;
        let needed = self.held + self.decoded_size + self.bytes.len();
        if needed > self.granted {
            // More than is needed now, so that not every element asks.
            let ahead = (needed + STEP).min(self.share.limit().max(needed));
            self.share.grow_to(ahead)?;
            self.granted = ahead;
        }
        Ok(())
    }

    /// Writes a message with its tag; `content` writes what is in it.
    pub(super) fn nested<E>(
        &mut self,
        field: &Field,
        content: impl FnOnce(&mut Self) -> Result<Fit, E>,
    ) -> Result<Fit, E> {
        self.tag(field, 2);
        let start = wire::open(&mut self.bytes);
        self.depth += 1;
        let fit = content(self)?;
        self.depth -= 1;
        wire::close(start, &mut self.bytes);
        Ok(fit)
    }

    /// Writes a value at a step. A value that cannot be read is left out if it is a record or
    /// outside of records; within a record the error is passed on, and the record is left out.
    pub(super) fn attempt<E>(
        &mut self,
        field: &'static Field,
        index: Option<usize>,
        content: impl FnOnce(&mut Self) -> Result<Fit, E>,
    ) -> Result<Fit, E> {
        let step = Step { field: &field.json_name, index };
        if self.in_record {
            return Ok(content(self)?.map_err(|misfit| misfit.within(step)));
        }
        let (start, written, depth) = (self.bytes.len(), self.written, self.depth);
        self.in_record = field.kind == Kind::Message(self.records) && index.is_some();
        self.place.push(step);
        let fit = content(self)?;
        let is_record = std::mem::take(&mut self.in_record);
        // Behind the last element of a list nothing is written.
        self.written += u64::from(is_record && self.bytes.len() > start);
        let whole_body = self.place.len() == 1 && index.is_none();
        if let Err(misfit) = fit {
            if whole_body {
                return Ok(Err(misfit));
            }
            self.bytes.truncate(start);
            self.depth = depth;
            let lost = self.written - written;
            let leads = matches!(field.kind, Kind::Message(id) if self.leads[id]);
            self.written = written;
            self.refused.note(if leads { lost.max(1) } else { 0 }, &self.place, &misfit);
        }
        self.place.pop();
        Ok(Ok(()))
    }

    /// Returns the memory that an element takes besides its decoded form, in bytes.
    pub(super) fn besides(&self, kind: Kind) -> usize {
        if kind == Kind::Message(self.records) { REPORT } else { 0 }
    }

    /// Writes the tag of a field.
    pub(super) fn tag(&mut self, field: &Field, wire_type: u32) {
        if field.number > 0 {
            wire::put_varint(u64::from(field.number << 3 | wire_type), &mut self.bytes);
        }
    }

    /// Writes bytes after their length.
    pub(super) fn delimited(&mut self, bytes: &[u8]) {
        wire::put_varint(bytes.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(bytes);
    }
}

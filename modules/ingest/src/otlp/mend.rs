//! Repair of protobuf that holds something odd: the body is rewritten, with U+FFFD for what is no
//! character, and without the records that cannot be read.

use super::{
    refused::{Fit, Misfit},
    rewrite::{MAX_DEPTH, Rewrite, Rewritten, Unreadable},
    schema::{Field, Kind, MessageId, Schema},
    wire::{self, Payload, Piece},
};
use crate::server::{BodyError, Share};

const INVALID: &str = "is not valid protobuf";

/// Rewrites the request in `bytes`.
pub(super) fn rewrite(
    bytes: &[u8],
    request: MessageId,
    records: MessageId,
    share: &mut Share,
) -> Result<Rewritten, Unreadable> {
    let mut to = Rewrite::new(records, bytes.len(), share);
    match message(&mut to, request, bytes)? {
        Ok(()) => Ok(Rewritten { bytes: to.bytes, refused: to.refused }),
        Err(_) => Err(Unreadable::Form),
    }
}

fn message(to: &mut Rewrite<'_>, id: MessageId, mut bytes: &[u8]) -> Result<Fit, BodyError> {
    let message = Schema::get().message(id);
    let mut counts = vec![0; message.fields.len()];
    while !bytes.is_empty() {
        let Some(piece) = wire::next(&mut bytes) else {
            return Ok(Err(Misfit::new(INVALID)));
        };
        let Some(field) = message.field(piece.number) else { continue };
        let index = field.repeated.then(|| {
            counts[field.slot] += 1;
            counts[field.slot] - 1
        });
        let fit = match (field.kind, piece.payload, piece.wire_type) {
            (Kind::Message(inner), Payload::Bytes(bytes), 2) => {
                to.attempt(field, index, |to| nested(to, field, inner, bytes))?
            }
            // A request has nothing but its messages.
            _ if to.depth == 0 => Err(Misfit::new(INVALID)),
            _ => to.attempt(field, index, |to| value(to, field, piece))?,
        };
        if fit.is_err() {
            return Ok(fit);
        }
    }
    Ok(Ok(()))
}

fn nested(
    to: &mut Rewrite<'_>,
    field: &Field,
    id: MessageId,
    bytes: &[u8],
) -> Result<Fit, BodyError> {
    if to.depth >= MAX_DEPTH {
        return Ok(Err(Misfit::new("nests too deeply")));
    }
    to.add_size(0)?;
    to.nested(field, |to| message(to, id, bytes))
}

fn value(to: &mut Rewrite<'_>, field: &Field, piece: Piece<'_>) -> Result<Fit, BodyError> {
    let packed = field.repeated && field.kind.is_packable() && piece.wire_type == 2;
    match piece.payload {
        Payload::Number(number) if field.kind.wire_type() == 0 => {
            to.tag(field, 0);
            wire::put_varint(number, &mut to.bytes);
        }
        Payload::Bytes(bytes) if field.kind == Kind::Text && piece.wire_type == 2 => {
            to.add_size(3 * bytes.len())?;
            to.tag(field, 2);
            to.delimited(String::from_utf8_lossy(bytes).as_bytes());
        }
        Payload::Bytes(bytes) if packed && is_whole(field.kind, bytes) => {
            to.add_size(bytes.len())?;
            to.tag(field, 2);
            to.delimited(bytes);
        }
        Payload::Bytes(bytes) if !packed && piece.wire_type == field.kind.wire_type() => {
            to.add_size(bytes.len())?;
            to.tag(field, piece.wire_type);
            if piece.wire_type == 2 {
                to.delimited(bytes);
            } else {
                to.bytes.extend_from_slice(bytes);
            }
        }
        _ => return Ok(Err(Misfit::new(INVALID))),
    }
    Ok(Ok(()))
}

/// Returns whether the packed values in `bytes` can all be read.
fn is_whole(kind: Kind, mut bytes: &[u8]) -> bool {
    match kind.wire_type() {
        1 => bytes.len().is_multiple_of(8),
        5 => bytes.len().is_multiple_of(4),
        _ => {
            while !bytes.is_empty() {
                if wire::varint(&mut bytes).is_none() {
                    return false;
                }
            }
            true
        }
    }
}

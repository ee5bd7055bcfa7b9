//! The wire format of protobuf, as far as prost does not offer it.

/// A field of a message as it stands on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'b> {
    pub(super) number: u32,
    pub(super) wire_type: u32,
    pub(super) payload: Payload<'b>,
}

/// The content behind a tag.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'b> {
    /// The number in a varint.
    Number(u64),
    /// The bytes of a value of fixed width, or of one with a length.
    Bytes(&'b [u8]),
    /// A group, which OTLP does not have.
    Group,
}

/// Largest depth of nested groups that is followed; OTLP has no groups.
pub(super) const MAX_GROUPS: usize = 100;

/// The wire type of the tag that begins a group.
pub(super) const GROUP: u32 = 3;

/// The wire type of the tag that ends one.
pub(super) const GROUP_END: u32 = 4;

/// Takes the next field off `bytes`; `None` where none can be read.
pub(super) fn next<'b>(bytes: &mut &'b [u8]) -> Option<Piece<'b>> {
    let (number, wire_type) = tag(bytes)?;
    let payload = match wire_type {
        0 => Payload::Number(varint(bytes)?),
        1 => Payload::Bytes(take(bytes, 8)?),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Payload::Bytes(take(bytes, length)?)
        }
        3 => {
            skip_group(bytes)?;
            Payload::Group
        }
        5 => Payload::Bytes(take(bytes, 4)?),
        _ => return None,
    };
    Some(Piece { number, wire_type, payload })
}

/// The tag of a field and the extent of its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) number: u32,
    pub(super) wire_type: u32,
    /// Of the tag, and of a length or a varint behind it.
    pub(super) length: usize,
    /// Stated length of the content after `length`, in bytes.
    pub(super) payload: usize,
}

/// Reads where the next field stands, of which not all may have come; `None` where that cannot be
/// told. Of a group it is where it begins or ends.
pub(super) fn head(bytes: &[u8]) -> Option<Head> {
    let mut rest = bytes;
    let (number, wire_type) = tag(&mut rest)?;
    let payload = match wire_type {
        0 => varint(&mut rest).map(|_| 0)?,
        1 => 8,
        2 => usize::try_from(varint(&mut rest)?).ok()?,
        GROUP | GROUP_END => 0,
        5 => 4,
        _ => return None,
    };
    Some(Head { number, wire_type, length: bytes.len() - rest.len(), payload })
}

fn skip_group(bytes: &mut &[u8]) -> Option<()> {
    let mut open = 1;
    while open > 0 {
        match tag(bytes)?.1 {
            0 => drop(varint(bytes)?),
            1 => drop(take(bytes, 8)?),
            2 => {
                let length = usize::try_from(varint(bytes)?).ok()?;
                take(bytes, length)?;
            }
            3 if open < MAX_GROUPS => open += 1,
            4 => open -= 1,
            5 => drop(take(bytes, 4)?),
            _ => return None,
        }
    }
    Some(())
}

fn tag(bytes: &mut &[u8]) -> Option<(u32, u32)> {
    let key = u32::try_from(varint(bytes)?).ok()?;
    (key >> 3 > 0).then_some((key >> 3, key & 7))
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Takes a varint off `bytes`.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    // Most have one byte.
    if let [byte @ ..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Some(u64::from(*byte));
    }
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Appends a varint.
pub(super) fn put_varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Number of bytes reserved for a length that is written before it is known: enough for 32 GiB.
const LENGTH: usize = 5;

/// Leaves room for a length, and returns the offset at which its content begins.
pub(super) fn open(bytes: &mut Vec<u8>) -> usize {
    bytes.extend_from_slice(&[0; LENGTH]);
    bytes.len()
}

/// Writes the length of the content that begins at `start`.
pub(super) fn close(start: usize, bytes: &mut [u8]) {
    let mut length = bytes.len() - start;
    for (index, byte) in bytes[start - LENGTH..start].iter_mut().enumerate() {
        let more = if index + 1 < LENGTH { 0x80 } else { 0 };
        *byte = (length & 0x7f) as u8 | more;
        length >>= 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(value, &mut bytes);
            assert_eq!(varint(&mut bytes.as_slice()), Some(value));
        }
        let mut bytes = vec![0x0a];
        let start = open(&mut bytes);
        bytes.extend_from_slice(&[7; 300]);
        close(start, &mut bytes);
        let piece = next(&mut bytes.as_slice()).expect("a field");
        assert!(matches!(piece.payload, Payload::Bytes(inner) if inner == [7; 300]));
    }

    #[test]
    fn groups_are_skipped_and_garbage_ends() {
        // start 1 { start 2 { 3: 5 } }, then 4: 9.
        let bytes = [0x0b, 0x13, 0x18, 5, 0x14, 0x0c, 0x20, 9];
        let mut rest = &bytes[..];
        assert!(matches!(next(&mut rest).expect("a group").payload, Payload::Group));
        let piece = next(&mut rest).expect("a field");
        assert_eq!(piece.number, 4);
        assert!(matches!(piece.payload, Payload::Number(9)));
        let part = head(&[0x0a, 5, 1]).expect("a part of a field");
        assert_eq!((part.number, part.wire_type, part.length, part.payload), (1, 2, 2, 5));
        for garbage in [&[0xff; 11][..], &[0x0a, 5, 1], &[0x00, 1], &[0x0b], &[0x0c], &[0x0e]] {
            assert!(next(&mut &garbage[..]).is_none(), "{garbage:?}");
        }
    }
}

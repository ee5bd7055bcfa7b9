//! JSON files whose first line is the checksum of all that follows.

use std::io;

use serde::Serialize;

const BEFORE_CRC: &[u8] = b"{\"crc32\":\"";
const AFTER_CRC: &[u8] = b"\",\n";

/// Returns the content of such a file. `object` must serialize to an object that is not empty.
pub(super) fn encode(object: &impl Serialize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec_pretty(object)?;
    let rest = json.strip_prefix(b"{\n").unwrap_or(&json);
    let crc = format!("{:08x}", crc32fast::hash(rest));
    Ok([BEFORE_CRC, crc.as_bytes(), AFTER_CRC, rest].concat())
}

/// Returns whether a file begins with a checksum.
pub(super) fn is_meant(bytes: &[u8]) -> bool {
    bytes.starts_with(BEFORE_CRC)
}

/// Returns whether a file begins with a checksum that is right.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let crc = bytes.strip_prefix(BEFORE_CRC).and_then(|rest| rest.split_at_checked(8));
    crc.is_some_and(|(crc, rest)| {
        let rest = rest.strip_prefix(AFTER_CRC).unwrap_or_default();
        format!("{:08x}", crc32fast::hash(rest)).as_bytes() == crc
    })
}

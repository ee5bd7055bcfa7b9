//! Server-sent events as they are written.

use super::json::Json;

/// Writes an event with data alone.
pub(super) fn data<'a>(json: impl Into<Json<'a>>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    json.into().write(out);
    out.extend_from_slice(b"\n\n");
}

/// Writes an event with its name.
pub(super) fn named<'a>(name: &str, json: impl Into<Json<'a>>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\n");
    data(json, out);
}

/// Writes a line of JSON.
pub(super) fn line<'a>(json: impl Into<Json<'a>>, out: &mut Vec<u8>) {
    json.into().write(out);
    out.push(b'\n');
}

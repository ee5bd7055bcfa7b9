//! Events of a stream: server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>) or lines of JSON.

use std::{borrow::Cow, ops::Range};

/// Largest event that is taken, in bytes.
pub(crate) const LARGEST_EVENT: usize = 16 * 1024 * 1024;

/// An event beyond [`LARGEST_EVENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the provider's stream holds an event of more than 16 MiB")]
pub(crate) struct EventTooLarge;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// Name of the event (`event:`); none for lines of JSON.
    pub name: Option<&'a str>,
    /// Data of the event: its `data:` lines, or the line; empty for a comment.
    pub data: Cow<'a, [u8]>,
}

/// Splits a stream into whole events, whatever pieces it comes in.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    is_json_lines: bool,
    /// Bytes of the event that is not whole yet.
    rest: Vec<u8>,
    /// Bytes of `rest` in which no end was found.
    searched: usize,
}

impl Splitter {
    /// Creates a splitter of lines of JSON, or of server-sent events.
    pub(crate) fn new(is_json_lines: bool) -> Self {
        Self { is_json_lines, ..Self::default() }
    }

    /// Returns whether it splits lines of JSON.
    pub(crate) const fn is_json_lines(&self) -> bool {
        self.is_json_lines
    }

    /// Returns the bytes of the event that is not whole yet.
    pub(crate) const fn held(&self) -> usize {
        self.rest.len()
    }

    /// Takes a piece of the stream, and returns the whole events so far: their bytes, which
    /// [`events`](Self::events) takes apart. Empty where none became whole.
    pub(crate) fn push(&mut self, piece: &bytes::Bytes) -> Result<bytes::Bytes, EventTooLarge> {
        if self.rest.is_empty() {
            let end = self.last_end(piece, 0);
            self.keep(&piece[end..])?;
            return Ok(piece.slice(..end));
        }
        self.rest.extend_from_slice(piece);
        // An end may begin with the last three bytes that were searched.
        let end = self.last_end(&self.rest, self.searched.saturating_sub(3));
        if end == 0 {
            self.searched = self.rest.len();
            let is_small = self.rest.len() <= LARGEST_EVENT;
            return if is_small { Ok(bytes::Bytes::new()) } else { Err(EventTooLarge) };
        }
        let tail = self.rest.split_off(end);
        let whole = std::mem::replace(&mut self.rest, tail);
        self.searched = self.rest.len();
        if self.rest.len() > LARGEST_EVENT { Err(EventTooLarge) } else { Ok(whole.into()) }
    }

    /// Returns what is left at the end of the stream: an event without its end, or nothing.
    pub(crate) fn finish(&mut self) -> bytes::Bytes {
        self.searched = 0;
        std::mem::take(&mut self.rest).into()
    }

    fn keep(&mut self, rest: &[u8]) -> Result<(), EventTooLarge> {
        self.rest.extend_from_slice(rest);
        self.searched = self.rest.len();
        if self.rest.len() > LARGEST_EVENT { Err(EventTooLarge) } else { Ok(()) }
    }

    /// Returns the position after the last whole event.
    fn last_end(&self, bytes: &[u8], from: usize) -> usize {
        if self.is_json_lines {
            return memchr::memrchr(b'\n', &bytes[from..]).map_or(0, |at| from + at + 1);
        }
        for at in memchr::memrchr_iter(b'\n', &bytes[from..]).map(|at| from + at) {
            // An empty line: `\n\n`, `\r\n\r\n` and mixtures.
            let before = bytes[..at].strip_suffix(b"\r").unwrap_or(&bytes[..at]);
            if before.last() == Some(&b'\n') {
                return at + 1;
            }
        }
        0
    }

    /// Returns the events in bytes that [`push`](Self::push) returned, each with its position.
    pub(crate) fn events<'a>(
        is_json_lines: bool,
        whole: &'a [u8],
    ) -> impl Iterator<Item = (Range<usize>, Event<'a>)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < whole.len() {
                let start = at;
                let length = if is_json_lines {
                    memchr::memchr(b'\n', &whole[at..]).map_or(whole.len() - at, |end| end + 1)
                } else {
                    event_length(&whole[at..])
                };
                at += length;
                let bytes = &whole[start..at];
                let event = if is_json_lines { line(bytes) } else { parse(bytes) };
                if let Some(event) = event {
                    return Some((start..at, event));
                }
            }
            None
        })
    }
}

/// Returns the length of the first event, the empty line after it included.
fn event_length(bytes: &[u8]) -> usize {
    for at in memchr::memchr_iter(b'\n', bytes) {
        let before = bytes[..at].strip_suffix(b"\r").unwrap_or(&bytes[..at]);
        if before.last() == Some(&b'\n') || before.is_empty() {
            return at + 1;
        }
    }
    bytes.len()
}

fn line(bytes: &[u8]) -> Option<Event<'_>> {
    let data = bytes.trim_ascii();
    (!data.is_empty()).then_some(Event { name: None, data: Cow::Borrowed(data) })
}

/// Returns the event of a block of lines; `None` for one without data.
fn parse(block: &[u8]) -> Option<Event<'_>> {
    let mut name = None;
    let mut data: Option<Cow<'_, [u8]>> = None;
    for line in block.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let value = line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]);
        match &line[..colon] {
            b"event" => name = std::str::from_utf8(value).ok(),
            b"data" => {
                data = Some(match data {
                    None => Cow::Borrowed(value),
                    Some(before) => {
                        let mut joined: Vec<u8> = Cow::into_owned(before);
                        joined.push(b'\n');
                        joined.extend_from_slice(value);
                        Cow::Owned(joined)
                    }
                });
            }
            _ => {}
        }
    }
    data.map(|data| Event { name, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(is_json_lines: bool, pieces: &[&[u8]]) -> Vec<(Option<String>, String)> {
        let mut splitter = Splitter::new(is_json_lines);
        let mut found = Vec::new();
        let mut take = |whole: &[u8]| {
            for (_, event) in Splitter::events(is_json_lines, whole) {
                let data = String::from_utf8_lossy(&event.data).into_owned();
                found.push((event.name.map(str::to_owned), data));
            }
        };
        for piece in pieces {
            let piece = bytes::Bytes::copy_from_slice(piece);
            take(&splitter.push(&piece).expect("it is small"));
        }
        take(&splitter.finish());
        found
    }

    #[test]
    fn events_are_the_same_whatever_pieces_they_come_in() {
        let streams: [(bool, &[u8], usize); 6] = [
            (false, b"data: {\"a\":1}\n\ndata: [DONE]\n\n", 2),
            (false, b"event: ping\r\ndata: {}\r\n\r\nevent: x\r\ndata: 1\r\n\r\n", 2),
            (false, b": a comment\n\ndata: 1\ndata: 2\n\n", 1),
            (false, b"\n\n\ndata:1\n\nid: 7\nretry: 5\ndata: 2\n\ndata: unfinished", 3),
            (true, b"{\"a\":1}\n{\"b\":2}\r\n\n{\"c\":3}", 3),
            (false, b"data: a\n\r\ndata: b\r\n\n", 2),
        ];
        for (is_json_lines, stream, number) in streams {
            let whole = events(is_json_lines, &[stream]);
            assert_eq!(whole.len(), number, "{whole:?}");
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(events(is_json_lines, &bytes), whole);
            for at in 0..stream.len() {
                let (a, b) = stream.split_at(at);
                assert_eq!(events(is_json_lines, &[a, b]), whole, "split at {at}");
            }
        }
    }

    #[test]
    fn several_data_lines_are_one_text() {
        let found = events(false, &[b"event: a\ndata: 1\ndata: 2\n\n"]);
        assert_eq!(found, [(Some("a".to_owned()), "1\n2".to_owned())]);
    }

    #[test]
    fn an_event_without_end_is_bounded() {
        let mut splitter = Splitter::new(false);
        let piece = bytes::Bytes::from(vec![b'x'; 1024 * 1024]);
        let refused = (0..20).map(|_| splitter.push(&piece)).find(Result::is_err);
        assert_eq!(refused, Some(Err(EventTooLarge)));
    }
}

//! Lines of a file, within limits: a file that is hostile or huge takes no more memory than one
//! line may.

use std::{
    io::{self, Read},
    ops::Range,
};

use memchr::memchr;

/// Longest line, in bytes. The line of an answer is far shorter; images make the longest ones.
pub(crate) const LONGEST: usize = 16 << 20;
/// Size of the pieces in which a file is read.
const PIECE: usize = 256 << 10;

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A whole line, without its end and without spaces around it.
    Whole(&'a [u8]),
    /// The last line, whose end is not written yet.
    Last(&'a [u8]),
    /// A line that is longer than [`LONGEST`].
    TooLong,
}

/// The lines of a file, from a position on.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    source: R,
    buffer: Vec<u8>,
    /// Part of the buffer that was read and not given out yet.
    unread: Range<usize>,
    /// Position in the buffer up to which there is no end of a line.
    searched: usize,
    number: u64,
    position: u64,
    ended: bool,
}

/// Result of a step: the range of a line in the buffer.
enum Step {
    Line(Range<usize>),
    Last(Range<usize>),
    TooLong,
    End,
}

impl<R: Read> Lines<R> {
    /// Creates the lines of what is read: the first one begins at byte `position` of the file, and
    /// `number` lines are before it.
    pub(crate) fn new(source: R, position: u64, number: u64) -> Self {
        let (buffer, unread, searched) = (vec![0; PIECE], 0..0, 0);
        Self { source, buffer, unread, searched, number, position, ended: false }
    }

    /// Returns the position behind the last whole line, in bytes from the beginning of the file.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// Returns the number of lines up to that position.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Returns the next line that is not empty, with its number, which counts from 1.
    ///
    /// # Errors
    ///
    /// When the file cannot be read on.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<(u64, Line<'_>)>> {
        let step = loop {
            match self.step()? {
                Step::Line(range) if self.buffer[range.clone()].trim_ascii().is_empty() => {}
                step => break step,
            }
        };
        let number = self.number;
        Ok(match step {
            Step::Line(range) => Some((number, Line::Whole(clean(&self.buffer[range], number)))),
            Step::Last(range) => {
                let line = clean(&self.buffer[range], number + 1);
                (!line.is_empty()).then_some((number + 1, Line::Last(line)))
            }
            Step::TooLong => Some((number, Line::TooLong)),
            Step::End => None,
        })
    }

    fn step(&mut self) -> io::Result<Step> {
        let mut dropped = 0;
        loop {
            let new = self.searched..self.unread.end;
            if let Some(at) = memchr(b'\n', &self.buffer[new.clone()]) {
                let line = self.unread.start..new.start + at;
                self.unread.start = line.end + 1;
                self.searched = self.unread.start;
                self.number += 1;
                self.position += (line.len() + 1 + dropped) as u64;
                return Ok(if dropped > 0 || line.len() > LONGEST {
                    Step::TooLong
                } else {
                    Step::Line(line)
                });
            }
            self.searched = self.unread.end;
            if dropped > 0 || self.unread.len() > LONGEST {
                dropped += self.unread.len();
                self.forget();
            }
            if !self.fill()? {
                return Ok(self.end(dropped));
            }
        }
    }

    /// Returns what is left at the end of the file.
    fn end(&mut self, dropped: usize) -> Step {
        if self.ended {
            return Step::End;
        }
        self.ended = true;
        if dropped > 0 {
            // It has no end yet: it is told now, and looked at again another time.
            self.number += 1;
            return Step::TooLong;
        }
        let rest = self.unread.clone();
        self.unread.start = self.unread.end;
        if rest.is_empty() { Step::End } else { Step::Last(rest) }
    }

    /// Reads on; `false` at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.unread.is_empty() {
            (self.unread, self.searched) = (0..0, 0);
        }
        if self.unread.end == self.buffer.len() {
            if self.unread.start > 0 {
                self.buffer.copy_within(self.unread.clone(), 0);
                self.unread = 0..self.unread.len();
                self.searched = self.unread.end;
            }
            if self.unread.end == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        loop {
            match self.source.read(&mut self.buffer[self.unread.end..]) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.unread.end += count;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Forgets what was read, and gives back the memory that a long line took.
    fn forget(&mut self) {
        (self.unread, self.searched) = (0..0, 0);
        self.buffer.truncate(PIECE);
        self.buffer.shrink_to_fit();
    }
}

/// Returns a line without the mark at the beginning of a file, and without spaces around it.
fn clean(line: &[u8], number: u64) -> &[u8] {
    let begin: &[u8] = if number == 1 { b"\xef\xbb\xbf" } else { b"" };
    line.strip_prefix(begin).unwrap_or(line).trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that gives a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = self.1.min(buffer.len());
            self.0.read(&mut buffer[..most])
        }
    }

    fn all(bytes: &[u8], at_once: usize) -> (Vec<(u64, String)>, u64, u64) {
        let mut lines = Lines::new(Slow(bytes, at_once), 0, 0);
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next_line().expect("it is read") {
            found.push((
                number,
                match line {
                    Line::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    Line::Last(bytes) => format!("last {}", String::from_utf8_lossy(bytes)),
                    Line::TooLong => "too long".to_owned(),
                },
            ));
        }
        assert!(lines.next_line().expect("it is read").is_none(), "the end stays the end");
        (found, lines.position(), lines.number())
    }

    #[test]
    fn lines_are_numbered_and_their_ends_are_of_any_kind() {
        let check = |bytes: &[u8], expected: &[(u64, &str)], position: u64| {
            for at_once in [1, 2, 7, 1_000_000] {
                let (found, at, _) = all(bytes, at_once);
                let found: Vec<(u64, &str)> =
                    found.iter().map(|(number, line)| (*number, &**line)).collect();
                assert_eq!((&*found, at), (expected, position), "{at_once} at once");
            }
        };
        check(b"", &[], 0);
        check(b"\xef\xbb\xbf{a}\r\n\n  \n{b}\n", &[(1, "{a}"), (4, "{b}")], 16);
        check(b"{a}\n{\"half", &[(1, "{a}"), (2, "last {\"half")], 4);
        check(b"{a}\n   ", &[(1, "{a}")], 4);
    }

    #[test]
    fn a_line_of_fifty_megabytes_is_told_and_not_kept() {
        let mut bytes = vec![b'x'; 50 << 20];
        bytes.extend_from_slice(b"\n{b}\n");
        let mut lines = Lines::new(bytes.as_slice(), 0, 0);
        assert_eq!(lines.next_line().expect("it is read"), Some((1, Line::TooLong)));
        assert_eq!(lines.next_line().expect("it is read"), Some((2, Line::Whole(b"{b}"))));
        assert!(lines.buffer.capacity() <= 2 * LONGEST, "{}", lines.buffer.capacity());
        assert_eq!(lines.position(), bytes.len() as u64);
        // One that is still written is told as well, and read again another time.
        let (found, position, _) = all(&bytes[..50 << 20], 1 << 20);
        assert_eq!((found.len(), position), (1, 0));
    }

    #[test]
    fn lines_go_on_behind_what_was_read_before() {
        let mut lines = Lines::new(b"{c}\n".as_slice(), 100, 7);
        assert_eq!(lines.next_line().expect("it is read"), Some((8, Line::Whole(b"{c}"))));
        assert_eq!((lines.position(), lines.number()), (104, 8));
    }
}

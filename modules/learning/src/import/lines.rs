//! Lines of a file, within limits: a file that is hostile or huge takes no more memory than a line.

use std::io::{self, BufRead as _, BufReader, Read};

use super::LineError;

/// Longest line, in bytes.
pub(super) const LONGEST: usize = 8 << 20;

/// The lines of a file, numbered from 1.
pub struct Lines<'a> {
    reader: BufReader<&'a mut dyn Read>,
    buffer: Vec<u8>,
    number: u64,
}

impl std::fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lines(at {})", self.number)
    }
}

impl<'a> Lines<'a> {
    /// Creates the lines of what is read.
    pub fn new(reader: &'a mut dyn Read) -> Self {
        Self { reader: BufReader::new(reader), buffer: Vec::new(), number: 0 }
    }

    /// Returns the next line that is not empty, with its number.
    ///
    /// # Errors
    ///
    /// When the file cannot be read on.
    pub fn next_line(&mut self) -> io::Result<Option<(u64, Result<&str, LineError>)>> {
        loop {
            self.buffer.clear();
            let most = LONGEST as u64 + 1;
            let read = self.reader.by_ref().take(most).read_until(b'\n', &mut self.buffer)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.buffer.len() > LONGEST && !self.buffer.ends_with(b"\n") {
                self.skip_line()?;
                return Ok(Some((self.number, Err(LineError::TooLong))));
            }
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
        }
        let begin = if self.number == 1 { b"\xef\xbb\xbf".as_slice() } else { b"" };
        let bytes = self.buffer.strip_prefix(begin).unwrap_or(&self.buffer);
        let text = std::str::from_utf8(bytes).map_err(|_| LineError::NoText);
        Ok(Some((self.number, text.map(str::trim))))
    }

    /// Reads on to the end of the line without keeping it.
    fn skip_line(&mut self) -> io::Result<()> {
        self.buffer = Vec::new();
        loop {
            let bytes = self.reader.fill_buf()?;
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                let read = bytes.len();
                self.reader.consume(read);
                if read == 0 {
                    return Ok(());
                }
                continue;
            };
            self.reader.consume(end + 1);
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<(u64, Result<String, LineError>)> {
        let mut bytes = bytes;
        let mut lines = Lines::new(&mut bytes);
        let mut all = Vec::new();
        while let Some((number, line)) = lines.next_line().expect("it is read") {
            all.push((number, line.map(str::to_owned)));
        }
        all
    }

    #[test]
    fn lines_are_numbered_and_bad_ones_told() {
        let ok = |number, text: &str| (number, Ok(text.to_owned()));
        assert_eq!(read(b""), []);
        assert_eq!(read(b"\xef\xbb\xbfa\r\n\n  \nb"), [ok(1, "a"), ok(4, "b")]);
        assert_eq!(read(b"\xff\nb\n"), [(1, Err(LineError::NoText)), ok(2, "b")]);
        let mut long = vec![b'x'; LONGEST + 5];
        long.extend_from_slice(b"\nshort\n");
        assert_eq!(read(&long), [(1, Err(LineError::TooLong)), ok(2, "short")]);
        assert_eq!(read(&vec![b'x'; LONGEST + 5]), [(1, Err(LineError::TooLong))]);
    }
}

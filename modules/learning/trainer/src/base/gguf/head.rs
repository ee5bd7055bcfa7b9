//! A look at the head of a GGUF file before anything of it is allocated: whoever made the file
//! wrote its numbers, and the library that reads it believes them.

use std::{
    io::{self, BufRead, Seek, SeekFrom},
    path::Path,
};

use crate::failure::{Failure, Result};

/// Longest head, and the longest text within it, in bytes.
const MOST_BYTES: u64 = 256 << 20;
const LONGEST_TEXT: u64 = 4 << 20;
/// Most values, and most matrices.
const MOST_VALUES: u64 = 65_536;
/// Most items of a list: tokens of a vocabulary.
const MOST_ITEMS: u64 = 4 << 20;
/// Most sizes of a matrix.
const MOST_SIZES: u64 = 8;
/// Lists within lists. No model that is known has any.
const DEEPEST: u32 = 2;

/// Checks that a file has a head of moderate size, and goes back to its beginning.
///
/// # Errors
///
/// When it has none, or one that no model needs.
pub(super) fn check(file: &mut (impl BufRead + Seek), path: &Path) -> Result<()> {
    let mut head = Head { file: &mut *file, left: MOST_BYTES, wide: true };
    match head.check() {
        Ok(()) => {}
        Err(Wrong::Odd(what)) => {
            let name = path.display();
            return Err(Failure::job(format!("{name} is broken: {what}; fetch the model anew")));
        }
        Err(Wrong::Unread(error)) => return Err(Failure::file("read all of", path, &error)),
    }
    file.seek(SeekFrom::Start(0)).map_err(|error| Failure::file("read", path, &error))?;
    Ok(())
}

enum Wrong {
    Odd(&'static str),
    Unread(io::Error),
}

type Checked<T> = std::result::Result<T, Wrong>;

struct Head<'a, R> {
    file: &'a mut R,
    /// Bytes that it may still have.
    left: u64,
    /// `true` where lengths have 64 bits: since the second version.
    wide: bool,
}

impl<R: BufRead> Head<'_, R> {
    fn check(&mut self) -> Checked<()> {
        if self.number(4)? != u64::from(u32::from_le_bytes(*b"GGUF")) {
            return Err(Wrong::Odd("it is no GGUF file"));
        }
        self.wide = self.number(4)? != 1;
        let (matrices, values) = (self.length(MOST_VALUES)?, self.length(MOST_VALUES)?);
        for _ in 0..values {
            self.text()?;
            let kind = self.number(4)?;
            self.value(kind, 0)?;
        }
        for _ in 0..matrices {
            self.text()?;
            let sizes = self.number(4)?;
            if sizes > MOST_SIZES {
                return Err(Wrong::Odd("a matrix has too many sizes"));
            }
            let width = if self.wide { 8 } else { 4 };
            // Its sizes, its kind, and its place.
            self.skip(sizes * width + 4 + 8)?;
        }
        Ok(())
    }

    fn value(&mut self, kind: u64, depth: u32) -> Checked<()> {
        match width(kind) {
            Some(width) => self.skip(width),
            None if kind == 8 => self.text(),
            None if kind == 9 && depth < DEEPEST => {
                let kind = self.number(4)?;
                let items = self.length(MOST_ITEMS)?;
                match width(kind) {
                    Some(width) => self.skip(items * width),
                    None => (0..items).try_for_each(|_| self.value(kind, depth + 1)),
                }
            }
            None => Err(Wrong::Odd("a value is of an unknown kind")),
        }
    }

    fn text(&mut self) -> Checked<()> {
        let length = self.length(LONGEST_TEXT)?;
        self.skip(length)
    }

    fn length(&mut self, most: u64) -> Checked<u64> {
        let length = self.number(if self.wide { 8 } else { 4 })?;
        if length > most {
            return Err(Wrong::Odd("its head says that there is more than any model has"));
        }
        Ok(length)
    }

    fn number(&mut self, width: usize) -> Checked<u64> {
        let mut bytes = [0; 8];
        self.take(width as u64)?;
        self.file.read_exact(&mut bytes[..width]).map_err(unread)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn skip(&mut self, mut bytes: u64) -> Checked<()> {
        self.take(bytes)?;
        while bytes > 0 {
            let there = self.file.fill_buf().map_err(unread)?.len();
            if there == 0 {
                return Err(unread(io::ErrorKind::UnexpectedEof.into()));
            }
            let part = there.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.file.consume(part);
            bytes -= part as u64;
        }
        Ok(())
    }

    fn take(&mut self, bytes: u64) -> Checked<()> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or(Wrong::Odd("its head is too long"))?;
        Ok(())
    }
}

fn unread(error: io::Error) -> Wrong {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Wrong::Odd("it is cut"),
        _ => Wrong::Unread(error),
    }
}

/// Returns the bytes of a value of a kind; none for texts and lists, and for kinds that nobody
/// knows.
const fn width(kind: u64) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Checks bytes as if they were those of a file.
    fn checked(bytes: Vec<u8>) -> std::result::Result<u64, String> {
        let mut file = Cursor::new(bytes);
        check(&mut file, Path::new("/base.gguf")).map_err(|error| error.to_string())?;
        Ok(file.position())
    }

    fn head(matrices: u64, values: u64, rest: &[&[u8]]) -> Vec<u8> {
        let numbers = [3_u32.to_le_bytes().to_vec(), matrices.to_le_bytes().to_vec()].concat();
        [b"GGUF", &numbers[..], &values.to_le_bytes(), &rest.concat()].concat()
    }

    #[test]
    fn a_head_of_moderate_size_passes_and_another_does_not() {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let kind = |kind: u32| kind.to_le_bytes().to_vec();
        let long = |number: u64| number.to_le_bytes().to_vec();
        let list = [text("k"), kind(9), kind(8), long(2), text("a"), text("b")].concat();
        let value = [text("n"), kind(4), vec![0; 4]].concat();
        let matrix = [text("m"), kind(2), long(4), long(4), kind(0), long(0)].concat();
        assert_eq!(checked(head(1, 2, &[&list, &value, &matrix])), Ok(0));

        let check = |bytes: Vec<u8>, words: &str| {
            let error = checked(bytes).expect_err("it is refused");
            assert!(error.contains(words), "{error}");
        };
        check(b"GGML\0\0\0\0".to_vec(), "no GGUF file");
        check(head(1, 2, &[&list]), "it is cut");
        check(head(u64::MAX, 0, &[]), "more than any model");
        check(head(0, u64::MAX, &[]), "more than any model");
        check(head(0, 1, &[&long(1 << 40)]), "more than any model");
        let items = |number: u64| [text("k"), kind(9), kind(10), long(number)].concat();
        check(head(0, 1, &[&items(1 << 60)]), "more than any model");
        check(head(0, 1, &[&items(MOST_ITEMS)]), "it is cut");
        check(head(0, 1, &[&[text("k"), kind(13)].concat()]), "unknown kind");
        let nested: Vec<u8> = (0..100).flat_map(|_| [kind(9), long(1)].concat()).collect();
        check(head(0, 1, &[&[text("k"), kind(9), nested].concat()]), "unknown kind");
        check(head(1, 0, &[&[text("m"), kind(u32::MAX)].concat()]), "too many sizes");
    }
}

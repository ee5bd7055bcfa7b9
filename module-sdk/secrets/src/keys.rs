//! Private keys that come line by line.

use std::borrow::Cow;

use super::REPLACEMENT;

/// Number of lines that a key may have, with what others print between them: RSA keys of 16,384
/// bits have 200.
pub(super) const MAX_LINES: usize = 500;

/// Filter that leaves the lines of private keys (PEM, PGP) out of a text that comes line by line.
#[derive(Debug, Default)]
pub struct KeyLines {
    /// Number of lines that may still belong to a key that has begun.
    left: usize,
    /// Number of keys that have begun and not ended.
    open: usize,
    /// `true` when another line came since the last key began: then a word is no part of the key.
    is_mixed: bool,
}

impl KeyLines {
    /// Returns what is left of the next line, `None` for nothing.
    pub fn pass<'a>(&mut self, line: &'a str) -> Option<Cow<'a, str>> {
        if let Some(end) = marked(line, "-----END ") {
            return self.end(line, end);
        }
        if marked(line, "-----BEGIN ").is_some() {
            self.open += 1;
            (self.left, self.is_mixed) = (MAX_LINES, false);
            let before = line.find("-----BEGIN ").map_or("", |at| &line[..at]);
            return Some(Cow::Owned(format!("{before}{REPLACEMENT}")));
        }
        if self.left == 0 {
            return Some(Cow::Borrowed(line));
        }
        self.left -= 1;
        if self.left == 0 {
            self.open = 0;
        }
        if may_be_key(line) && !(self.is_mixed && is_word(line)) {
            return None;
        }
        self.is_mixed = true;
        Some(Cow::Borrowed(line))
    }

    /// Ends a key and returns what stands behind the mark, which is no part of it.
    fn end<'a>(&mut self, line: &'a str, end: usize) -> Option<Cow<'a, str>> {
        if self.left == 0 {
            return Some(Cow::Borrowed(line));
        }
        self.open = self.open.saturating_sub(1);
        match self.open {
            0 => self.left = 0,
            _ => self.is_mixed = true,
        }
        let rest = line[end..].trim();
        (!rest.is_empty()).then_some(Cow::Borrowed(rest))
    }
}

/// Finds the end of a mark of a private key: `-----BEGIN RSA PRIVATE KEY-----`.
fn marked(line: &str, begin: &str) -> Option<usize> {
    let at = line.rfind(begin)? + begin.len();
    let label = &line[at..];
    let end = label.find("-----")?;
    label[..end].contains("PRIVATE KEY").then_some(at + end + "-----".len())
}

/// Checks whether a line, with whatever stands before it, may be a part of a key: the last word is
/// in base 64, or it is empty or a header.
fn may_be_key(line: &str) -> bool {
    let line = line.trim();
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let (first, last) = (line.split(' ').next(), line.rsplit(' ').next());
    let headers = ["Proc-Type:", "DEK-Info:", "Version:", "Comment:", "Hash:"];
    let is_header = first.is_some_and(|word| headers.contains(&word));
    let whole = !line.contains(' ') && line.chars().all(is_base64);
    whole || is_header || last.is_some_and(|word| word.len() >= 32 && word.chars().all(is_base64))
}

/// Checks whether a line is empty, or a word as people write it.
fn is_word(line: &str) -> bool {
    let line = line.trim();
    let rest = line.get(1..).unwrap_or_default();
    line.len() < 32
        && line.bytes().all(|byte| byte.is_ascii_alphabetic())
        && rest.bytes().all(|byte| byte.is_ascii_lowercase())
}

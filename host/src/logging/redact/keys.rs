//! Private keys that come line by line.

use std::borrow::Cow;

use super::REPLACEMENT;

/// How many lines a key may have: RSA keys of 16,384 bits have 200.
const MAX_LINES: usize = 500;

/// Leaves the lines of a private key (PEM, PGP) out of a text that comes line by line.
#[derive(Debug, Default)]
pub struct KeyLines {
    /// How many more lines may belong to a key that has begun.
    left: usize,
}

impl KeyLines {
    /// Returns what is left of the next line, `None` for nothing.
    pub fn pass<'a>(&mut self, line: &'a str) -> Option<Cow<'a, str>> {
        if let Some(end) = marked(line, "-----END ") {
            let inside = std::mem::take(&mut self.left) > 0;
            let rest = line[end..].trim();
            return match inside {
                true if rest.is_empty() => None,
                true => Some(Cow::Borrowed(rest)),
                false => Some(Cow::Borrowed(line)),
            };
        }
        if marked(line, "-----BEGIN ").is_some() {
            self.left = MAX_LINES;
            let before = line.find("-----BEGIN ").map_or("", |at| &line[..at]);
            return Some(Cow::Owned(format!("{before}{REPLACEMENT}")));
        }
        if self.left == 0 {
            return Some(Cow::Borrowed(line));
        }
        self.left = if may_be_key(line) { self.left - 1 } else { 0 };
        (self.left == 0).then_some(Cow::Borrowed(line))
    }
}

/// Where a mark of a private key ends: `-----BEGIN RSA PRIVATE KEY-----`.
fn marked(line: &str, begin: &str) -> Option<usize> {
    let at = line.rfind(begin)? + begin.len();
    let label = &line[at..];
    let end = label.find("-----")?;
    label[..end].contains("PRIVATE KEY").then_some(at + end + "-----".len())
}

/// Whether a line, with whatever stands before it, may be a part of a key: the last word is in
/// base 64, or it is empty or a header.
fn may_be_key(line: &str) -> bool {
    let line = line.trim();
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let (first, last) = (line.split(' ').next(), line.rsplit(' ').next());
    let headers = ["Proc-Type:", "DEK-Info:", "Version:", "Comment:", "Hash:"];
    let is_header = first.is_some_and(|word| headers.contains(&word));
    let whole = !line.contains(' ') && line.chars().all(is_base64);
    whole || is_header || last.is_some_and(|word| word.len() >= 32 && word.chars().all(is_base64))
}

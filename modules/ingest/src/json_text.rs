//! JSON as senders write it: with lone surrogates, as where a text was cut in the middle of an
//! emoji. U+FFFD replaces what is no character, and the rest is as it was.

use std::borrow::Cow;

use crate::server::{BodyError, Share};

/// Returns a body as text; `share` grows where the text is not the body itself.
///
/// # Errors
///
/// When there is no memory for it.
pub(crate) fn readable<'b>(bytes: &'b [u8], share: &mut Share) -> Result<Cow<'b, str>, BodyError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Ok(Cow::Borrowed(text));
    }
    // More than U+FFFD takes, for the time.
    const MENDED: usize = 16;
    let mut needed = bytes.len();
    for chunk in bytes.utf8_chunks() {
        needed += chunk.valid().len() + MENDED;
        if needed > share.limit() {
            return Err(share.too_heavy());
        }
    }
    share.grow_to(needed)?;
    Ok(String::from_utf8_lossy(bytes))
}

/// Returns the most memory that the values of a JSON text take once they are parsed, in bytes.
pub(crate) fn weight_of_values(text: &[u8]) -> usize {
    /// Memory for an element: a value is 32 bytes, and a list may have room for twice as many as it
    /// holds.
    const ELEMENT: usize = 128;
    /// Memory for a list, which has room for four as soon as it has one element.
    const LIST: usize = 160;
    /// Memory for a map, which has room for eleven.
    const MAP: usize = 704;
    /// Memory for a quote: a text has two, and its bytes are counted apart.
    const QUOTE: usize = 24;
    let decoded_size = |byte: &u8| match byte {
        b'{' => MAP,
        b'[' => LIST,
        b',' => ELEMENT,
        b'"' => QUOTE,
        _ => 1,
    };
    text.iter().map(decoded_size).sum()
}

/// Returns the text with `\ufffd` in the place of each escape that is a lone surrogate; `None`
/// where there is none.
pub(crate) fn without_halves(text: &str) -> Option<String> {
    let mut mended = String::new();
    let (mut at, mut kept) = (0, 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        match (code_unit(text, at), code_unit(text, at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
            (Some(0xd800..=0xdfff), _) => {
                mended.push_str(&text[kept..at]);
                mended.push_str("\\ufffd");
                at += 6;
                kept = at;
            }
            (Some(_), _) => at += 6,
            (None, _) => at += 2,
        }
    }
    (kept > 0).then(|| mended + &text[kept..])
}

/// Returns the code unit of an escape such as `\ud83d` at a place.
fn code_unit(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    if digits.starts_with('+') { None } else { u16::from_str_radix(digits, 16).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Budget;

    #[test]
    fn halves_of_characters_give_way_and_nothing_else() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(without_halves(text).as_deref(), expected, "{text}");
        };
        check(r#"{"a":"\ud83d..."}"#, Some(r#"{"a":"\ufffd..."}"#));
        check(r#"{"a":"\ud83d"}"#, Some(r#"{"a":"\ufffd"}"#));
        check(r#"["\ude00\ud83d"]"#, Some(r#"["\ufffd\ufffd"]"#));
        check(r#"["\uD83D\uD83D\uDE00"]"#, Some(r#"["\ufffd\uD83D\uDE00"]"#));
        check(r#"{"\ude00":1}"#, Some(r#"{"\ufffd":1}"#));
        check(r#"["\\ud83d \ud83d\ude00 \u00e9 \n ü"]"#, None);
        check(r#"["\\\ud83d"]"#, Some(r#"["\\\ufffd"]"#));
        check("plain", None);
        check("\\", None);
        check("\\u", None);
        check("\\ü", None);
    }

    #[test]
    fn bytes_that_are_no_character_give_way() {
        let check = |bytes: &[u8], expected: &str| {
            let mut share = Budget::new(100_000, 100_000).share();
            assert_eq!(readable(bytes, &mut share).as_deref(), Ok(expected));
        };
        check(b"plain", "plain");
        check(b"\xef\xbb\xbf{}", "{}");
        check(b"a\xed\xa0\xbdb", "a\u{fffd}\u{fffd}\u{fffd}b");
        check(b"\xff", "\u{fffd}");
        let mut share = Budget::new(100_000, 100_000).share();
        assert!(readable(&[0xff; 40_000], &mut share).is_err());
    }
}

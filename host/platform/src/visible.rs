//! Safe display of text from elsewhere: characters that a terminal would obey, that change the
//! direction of writing or that are invisible are escaped as in JSON (`\u001b`). Text that is JSON
//! stays JSON with the same value.

use std::borrow::Cow;

/// Returns the text with hidden characters escaped. Line breaks stay, a tab becomes a space.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    written(text, |c, _| match c {
        '\n' => Some('\n'),
        '\t' => Some(' '),
        _ => None,
    })
}

/// Returns the text with hidden characters escaped on one line: line breaks are escaped as well, a
/// tab becomes a space.
#[must_use]
pub fn visible_line(text: &str) -> Cow<'_, str> {
    written(text, |c, _| (c == '\t').then_some(' '))
}

/// Returns the text with hidden characters escaped for a stream that programs may read: tabs and
/// line ends stay as they are.
#[must_use]
pub fn visible_stream(text: &str) -> Cow<'_, str> {
    written(text, |c, next| match c {
        '\n' | '\t' => Some(c),
        '\r' if next == Some('\n') => Some(c),
        _ => None,
    })
}

/// Escapes hidden characters, unless `instead` returns another character for them.
fn written(text: &str, instead: impl Fn(char, Option<char>) -> Option<char>) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut visible = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !is_hidden(c) {
            visible.push(c);
        } else if let Some(other) = instead(c, chars.peek().copied()) {
            visible.push(other);
        } else {
            write_out(c, &mut visible);
        }
    }
    Cow::Owned(visible)
}

fn write_out(c: char, visible: &mut String) {
    match c {
        '\n' => visible.push_str("\\n"),
        '\r' => visible.push_str("\\r"),
        '\t' => visible.push_str("\\t"),
        c => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                visible.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
}

/// Returns whether a character is hidden: control characters (C0, DEL, C1), line separators, format
/// characters of Unicode, and letters that are drawn as nothing. Variation selectors, which belong
/// to visible characters, are not hidden.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_written_out() {
        let check = |text, expected: &str| assert_eq!(visible(text), expected);
        check("plain, ü, 日本 and 👍🏽", "plain, ü, 日本 and 👍🏽");
        check("\u{1b}[2Jgone", "\\u001b[2Jgone");
        check("\u{9b}2J\u{7f}", "\\u009b2J\\u007f");
        check("\u{1b}]0;title\u{7}", "\\u001b]0;title\\u0007");
        check("a\tb\r", "a b\\r");
        check("\u{202e}abc\u{2066}", "\\u202eabc\\u2066");
        check("a\u{200b}b\u{feff}\u{2028}", "a\\u200bb\\ufeff\\u2028");
        check("\u{e0041}", "\\udb40\\udc41");
        check("two\nlines", "two\nlines");
        assert_eq!(visible_line("two\nlines\r\n"), "two\\nlines\\r\\n");
        assert_eq!(visible_stream("a\tb\r\nc\rd\u{1b}"), "a\tb\r\nc\\rd\\u001b");
    }

    #[test]
    fn json_keeps_its_value() {
        let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        let json = serde_json::to_string(&all).expect("it is text");
        for written in [visible(&json), visible_line(&json), visible_stream(&json)] {
            assert!(!written.contains(is_hidden));
            assert_eq!(serde_json::from_str::<String>(&written).expect("it is JSON"), all);
        }
    }

    #[test]
    fn nothing_hidden_is_left() {
        let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        assert!(!visible_line(&all).contains(is_hidden));
        assert!(!visible(&all).contains(|c| is_hidden(c) && c != '\n'));
    }
}

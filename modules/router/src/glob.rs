//! Patterns of names: `*` stands for any characters, also none; case does not count.

/// Returns whether a text fits a pattern.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut read) = (0, 0);
    // Position after the last `*`, and that in the text from which it was tried.
    let mut back: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                back = Some((at, read));
            }
            Some(byte) if byte.eq_ignore_ascii_case(&text[read]) => {
                at += 1;
                read += 1;
            }
            _ => match &mut back {
                Some((after, from)) => {
                    *from += 1;
                    (at, read) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Returns whether a text is a pattern, not a name.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains('*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        };
        check("claude-*", "claude-sonnet-4-5", true);
        check("claude-*", "Claude-Opus", true);
        check("*", "", true);
        check("*haiku*", "anthropic/claude-haiku-4-5", true);
        check("a*b*c", "aXbYbZc", true);
        check("a*b*c", "aXbYbZ", false);
        check("home/*", "home", false);
        check("", "", true);
        check("", "a", false);
        check("gpt-4", "gpt-4o", false);
        check("*a*b", "xaxb", true);
        check("*a*b", "xaxbc", false);
        check("ä*", "a", false);
        check("**o", "gpt-4o", true);
    }
}

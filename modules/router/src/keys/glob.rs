//! Patterns of model names.

/// Returns whether a name fits a pattern, in which `*` stands for any characters, also none. Case
/// does not count.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut read) = (0, 0);
    // Position after the last `*`, and that in the name from which it was tried.
    let mut back: Option<(usize, usize)> = None;
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                back = Some((at, read));
            }
            Some(byte) if byte.eq_ignore_ascii_case(&name[read]) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        };
        check("gpt-5-mini", "GPT-5-mini", true);
        check("gpt-5-mini", "gpt-5-mini-2", false);
        check("gpt-5*", "gpt-5-mini", true);
        check("home/*", "home/llama3:8b", true);
        check("home/*", "cloud/llama3:8b", false);
        check("*", "", true);
        check("*mini*", "gpt-5-mini", true);
        check("*a*b", "xaxb", true);
        check("*a*b", "xaxbc", false);
        check("ä*", "a", false);
        check("", "", true);
    }
}

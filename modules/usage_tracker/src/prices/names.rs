//! The many names under which one model is reported.

/// The plain name and what remains of it when dates and versions are taken from its end, longest
/// first: `us.anthropic.claude-sonnet-4-5-20250929-v1:0` gives
/// `claude-sonnet-4-5-20250929-v1:0`, …, `claude-sonnet-4-5`.
///
/// Only what is surely no part of the model's own name is taken off: `claude-opus-4-9` must not
/// become `claude-opus-4`, whose price is another.
pub(super) fn candidates(reported: &str) -> Vec<String> {
    let mut name = plain(reported);
    let mut names = vec![name.clone()];
    while let Some(shorter) = without_version(&name) {
        name.truncate(shorter);
        names.push(name.clone());
    }
    names
}

/// Lower case, without the path or prefix of a reseller (`openrouter/anthropic/…`, `models/…`,
/// `us.anthropic.…`) and without Claude Code's `[1m]`.
pub(super) fn plain(reported: &str) -> String {
    let name = reported.trim().to_ascii_lowercase().replace('@', "-");
    let name = name.rsplit('/').next().unwrap_or_default();
    let name = name.split('[').next().unwrap_or_default();
    let name = ["anthropic.", "openai.", "mistral.", "deepseek."]
        .iter()
        .find_map(|maker| name.split_once(maker).map(|(_, rest)| rest))
        .unwrap_or(name);
    name.to_owned()
}

/// Where the last part of a name begins, if it says nothing but which edition it is.
fn without_version(name: &str) -> Option<usize> {
    const WORDS: [&str; 5] = ["latest", "preview", "exp", "experimental", "beta"];
    let (rest, last) = name.rsplit_once(['-', ':'])?;
    let digits = |part: &str, count: usize| {
        part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    // `-v1`, and the `:0` behind it.
    let edition = last.strip_prefix('v').is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    let minor = name[rest.len()..].starts_with(':') && digits(last, 1);
    // 20250929, 0613, 001
    if WORDS.contains(&last) || edition || minor || [8, 4, 3].iter().any(|n| digits(last, *n)) {
        let before = rest.rsplit_once('-');
        return match before {
            // 10-2025
            Some((start, month)) if digits(last, 4) && digits(month, 2) => Some(start.len()),
            _ => Some(rest.len()),
        };
    }
    let (start, month) = rest.rsplit_once('-')?;
    if !(digits(last, 2) && digits(month, 2)) {
        return None;
    }
    match start.rsplit_once('-') {
        // 2024-08-06
        Some((model, year)) if digits(year, 4) => Some(model.len()),
        // preview-05-20
        Some((_, word)) if WORDS.contains(&word) => Some(start.len()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_line_is_the_model() {
        let check = |reported: &str, expected: &str| {
            assert_eq!(candidates(reported).last().map(String::as_str), Some(expected));
        };
        check("claude-sonnet-4-5", "claude-sonnet-4-5");
        check("claude-sonnet-4-5-20250929", "claude-sonnet-4-5");
        check("claude-sonnet-4-5@20250929", "claude-sonnet-4-5");
        check("claude-sonnet-4-5[1m]", "claude-sonnet-4-5");
        check("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5");
        check("openrouter/anthropic/Claude-Sonnet-4-5", "claude-sonnet-4-5");
        check("claude-opus-4-9", "claude-opus-4-9");
        check("gpt-4o-2024-08-06", "gpt-4o");
        check("gpt-4-0613", "gpt-4");
        check("gpt-5.1-codex-mini", "gpt-5.1-codex-mini");
        check("models/gemini-2.5-flash-preview-05-20", "gemini-2.5-flash");
        check("gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash");
        check("gemini-2.5-flash-001", "gemini-2.5-flash");
        check("grok-code-fast-1-0825", "grok-code-fast-1");
        check("llama3.2:3b", "llama3.2:3b");
        check("", "");
        check("-", "-");
    }
}

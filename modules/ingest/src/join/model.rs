//! The names of one model, brought to one.

/// Who stands before the name of a model where others serve it.
const REGIONS: &[&str] = &["us", "us-gov", "eu", "apac", "jp", "au", "ca", "global"];
const MAKERS: &[&str] = &[
    "ai21",
    "amazon",
    "anthropic",
    "cohere",
    "deepseek",
    "google",
    "meta",
    "mistral",
    "moonshot",
    "openai",
    "qwen",
    "writer",
    "xai",
];

/// The name without who serves it, where, since when and in which variant:
/// `us.anthropic.claude-sonnet-4-5-20250929-v1:0` and `anthropic/claude-sonnet-4.5` are one model.
pub(super) fn plain(model: &str) -> String {
    let model = model.to_ascii_lowercase();
    let mut name = model.rsplit('/').next().unwrap_or(&model);
    for before in [REGIONS, MAKERS] {
        if let Some((first, rest)) = name.split_once('.')
            && before.contains(&first)
        {
            name = rest;
        }
    }
    name = name.split(['@', '[']).next().unwrap_or(name);
    // `llama3.1:8b` is another model than `llama3.1:70b`; a word is a variant.
    if let Some((rest, variant)) = name.split_once(':')
        && !variant.starts_with(|first: char| first.is_ascii_digit())
    {
        name = rest;
    }
    if let Some((rest, "0" | "1" | "2")) = name.split_once(':') {
        name = rest;
    }
    if let Some((rest, version)) = name.rsplit_once("-v")
        && version.bytes().all(|byte| byte.is_ascii_digit())
        && !version.is_empty()
        && rest.len() > 8
    {
        name = rest;
    }
    name = name.strip_suffix("-latest").unwrap_or(name);
    undated(name).replace('.', "-")
}

fn undated(model: &str) -> &str {
    let digits = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if let Some((name, date)) = model.rsplit_once('-')
        && digits(date, 8)
    {
        return name;
    }
    match model.len().checked_sub(11).and_then(|at| model.split_at_checked(at)) {
        Some((name, date)) => {
            let parts: Vec<&str> = date.split('-').collect();
            match parts[..] {
                ["", year, month, day] if digits(year, 4) && digits(month, 2) && digits(day, 2) => {
                    name
                }
                _ => model,
            }
        }
        None => model,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_model_has_one_name() {
        let check = |model: &str, expected: &str| assert_eq!(plain(model), expected, "{model}");
        check("claude-sonnet-4-5-20250929", "claude-sonnet-4-5");
        check("claude-sonnet-4.5", "claude-sonnet-4-5");
        check("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5");
        check("openrouter/anthropic/claude-sonnet-4.5:beta", "claude-sonnet-4-5");
        check("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5");
        check("anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5");
        check("claude-sonnet-4-5@20250929", "claude-sonnet-4-5");
        check("claude-sonnet-4-5[1m]", "claude-sonnet-4-5");
        check("claude-3-5-sonnet-latest", "claude-3-5-sonnet");
        check("gpt-4o-2024-08-06", "gpt-4o");
        check("openai/gpt-4o", "gpt-4o");
        check("GPT-4o", "gpt-4o");
        check("gpt-5.1-codex", "gpt-5-1-codex");
        check("models/gemini-2.5-pro", "gemini-2-5-pro");
        check("deepseek-v3", "deepseek-v3");
        check("é-2024-08-06", "é");
        check("m", "m");
        check("", "");
    }

    #[test]
    fn other_models_keep_other_names() {
        let check = |one: &str, other: &str| assert_ne!(plain(one), plain(other));
        check("gpt-4o", "gpt-4o-mini");
        check("llama3.1:8b", "llama3.1:70b");
        check("claude-sonnet-4-5", "claude-sonnet-4-6");
        check("qwen2.5:0.5b", "qwen2.5:1.5b");
    }
}

use super::*;

/// Names as tools write them, each below `# model`.
const NAMES: &str = include_str!("names.txt");

fn named() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut model = "";
    NAMES.lines().filter(|line| !line.starts_with("//")).filter_map(move |line| {
        if let Some(next) = line.strip_prefix('#') {
            model = next.trim();
            return None;
        }
        Some((line, model))
    })
}

#[test]
fn names_as_tools_write_them_are_of_their_model() {
    let wrong: Vec<String> = named()
        .filter(|(name, model)| ModelName::of(name).model() != *model)
        .map(|(name, model)| format!("{name}: {}, not {model}", ModelName::of(name).model()))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
    assert!(named().count() >= 300, "{} names", named().count());
}

#[test]
fn a_model_is_called_by_its_own_name() {
    for (_, model) in named() {
        assert_eq!(ModelName::of(model).model(), model);
    }
}

#[test]
fn a_preview_has_no_price_but_its_own() {
    let check = |name: &str, editions: &[&str]| {
        assert_eq!(ModelName::of(name).editions(), editions, "{name}");
    };
    check("models/gemini-2.5-flash-preview-05-20", &["gemini-2-5-flash-preview-05-20"]);
    check("gemini-2.5-flash-preview-09-2025", &["gemini-2-5-flash-preview-09-2025"]);
    check("gemini-3.1-pro-preview", &["gemini-3-1-pro-preview"]);
    check("gemini-2.5-pro-exp-03-25", &["gemini-2-5-pro-exp-03-25"]);
    check("gpt-4-1106-preview", &["gpt-4-turbo-1106-preview"]);
    check("xai/grok-4.20-experimental-beta-0304", &["grok-4-20-experimental-beta-0304"]);
    // These are no previews of another.
    check("o1-preview-2024-09-12", &["o1-preview-2024-09-12", "o1-preview"]);
    check("gemini-2.0-flash-thinking", &["gemini-2-0-flash-thinking"]);
    // The length of a context is no date.
    check("llama3-70b-8192", &["llama3-70b-8192"]);
    check("gpt-4-131072", &["gpt-4-131072"]);
    check("gpt-4-20259999", &["gpt-4-20259999"]);
    // A date without such a word is an edition of the model, and a colon is a way to it.
    check("gpt-4o-2024-08-06", &["gpt-4o-2024-08-06", "gpt-4o"]);
    check("anthropic/claude-sonnet-4:beta", &["claude-sonnet-4"]);
    let latest = ["claude-3-7-sonnet-latest", "claude-3-7-sonnet"];
    check("claude-3-7-sonnet-latest", &latest);
}

#[test]
fn what_a_name_says_of_its_price_is_kept() {
    let check = |name: &str, tier: Option<&str>, free: bool| {
        let name = ModelName::of(name);
        assert_eq!((name.service_tier(), name.is_free()), (tier, free), "{name:?}");
    };
    check("github_copilot/claude-opus-4.8-fast", Some("fast"), false);
    check("gpt-5.5-high-fast", Some("fast"), false);
    check("gpt-5.5-priority", Some("priority"), false);
    check("gemini-2.5-flash-flex", Some("flex"), false);
    // These are called so.
    check("grok-code-fast-1", None, false);
    check("x-ai/grok-4-fast", None, false);
    check("deepseek/deepseek-r1:free", None, true);
    check("x-ai/grok-4-fast:free", None, true);
    check("claude-sonnet-4-5", None, false);
}

#[test]
fn no_text_is_too_odd_to_be_taken_apart() {
    let long = "a-2025".repeat(500);
    for name in [
        "",
        "-",
        "--",
        ":",
        "::",
        "/",
        "//",
        "@",
        ".",
        "ft:",
        "ft:-",
        "a:",
        ":a",
        "us.",
        "claude",
        "claude-",
        "claude-4",
        "claude--4",
        "é-2025-01-01",
        "-20250101",
        "\u{202e}x:free",
        &long,
    ] {
        let taken = ModelName::of(name);
        assert!(!taken.editions().is_empty(), "{name}");
        assert!(taken.editions().iter().all(|edition| edition.len() <= name.len() + 8), "{name}");
    }
}

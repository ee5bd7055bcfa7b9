//! Names of models: the many spellings under which one model is reported.

/// A reported name of a model, split into its parts.
///
/// Tools, resellers and clouds write one model in many ways: with the path of a reseller
/// (`openrouter/anthropic/…`), the region and maker of a cloud (`us.anthropic.…-v1:0`), dots
/// for dashes, a date, a variant (`:thinking`), an effort (`-high`) or a speed (`-fast`).
/// Only parts that surely do not belong to the model's own name are removed:
/// `claude-opus-4-9` is not `claude-opus-4`.
///
/// ```
/// use module_sdk::events::ModelName;
///
/// let name = ModelName::of("us.anthropic.claude-sonnet-4-5-20250929-v1:0");
/// assert_eq!(name.model(), "claude-sonnet-4-5");
/// assert_eq!(name.model(), ModelName::of("openrouter/anthropic/claude-4.5-sonnet").model());
/// assert_eq!(ModelName::of("github_copilot/claude-opus-4.8-fast").service_tier(), Some("fast"));
/// assert!(ModelName::of("deepseek/deepseek-chat:free").is_free());
/// // What a preview cost says nothing about what the model costs.
/// assert_eq!(ModelName::of("gemini-3.1-pro-preview").editions(), ["gemini-3-1-pro-preview"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// Names from the whole to the model alone.
    names: Vec<String>,
    /// Number of names, from the first, that are sold at one price.
    one_price: usize,
    service_tier: Option<&'static str>,
    free: bool,
}

impl ModelName {
    /// Splits a reported name into its parts.
    #[must_use]
    pub fn of(reported: &str) -> Self {
        let mut free = false;
        let mut service_tier = None;
        let name = last_segment(&reported.trim().to_ascii_lowercase());
        let (base, tag) = without_variants(&name, &mut free, &mut service_tier);
        let mut names = vec![match tag {
            Some(tag) => format!("{}:{tag}", spelt(&base)),
            None => spelt(&base),
        }];
        let mut one_price = None;
        while let Some((name, end)) = names.last().and_then(|name| shorter(name)) {
            match end {
                End::Preview => one_price = one_price.or(Some(names.len())),
                End::Tier(tier) => service_tier = service_tier.or(Some(tier)),
                End::Edition => {}
            }
            names.push(name);
        }
        Self { one_price: one_price.unwrap_or(names.len()), names, service_tier, free }
    }

    /// Returns the model alone, in one spelling: two names are of one model if this is the same.
    #[must_use]
    pub fn model(&self) -> &str {
        self.names.last().map_or("", String::as_str)
    }

    /// Returns the names under which a price of the model may be listed, the most exact first. A
    /// preview has none but its own.
    #[must_use]
    pub fn editions(&self) -> &[String] {
        &self.names[..self.one_price]
    }

    /// Returns the speed or tier of service that the name itself states.
    #[must_use]
    pub const fn service_tier(&self) -> Option<&'static str> {
        self.service_tier
    }

    /// Returns whether the model is offered for free (`:free` of OpenRouter).
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.free
    }
}

/// Prefixes that tools write before a colon: `anthropic:claude-…`, `openai-responses:gpt-…`.
const PROVIDERS: &[&str] = &[
    "anthropic",
    "azure",
    "azure-openai",
    "azure_ai",
    "azure_openai",
    "bedrock",
    "bedrock_converse",
    "copilot",
    "gateway",
    "gemini",
    "github",
    "github_copilot",
    "google",
    "google-gla",
    "google-vertex",
    "google_genai",
    "google_vertexai",
    "groq",
    "litellm",
    "mistralai",
    "ollama",
    "ollama_chat",
    "openai",
    "openai-chat",
    "openai-responses",
    "openrouter",
    "vertex",
    "vertex_ai",
    "vertexai",
    "xai",
];

/// Prefixes that clouds write before a dot: regions, and makers of models.
const LABELS: &[&str] = &[
    "us",
    "us-gov",
    "eu",
    "apac",
    "jp",
    "au",
    "ca",
    "uk",
    "sa",
    "in",
    "global",
    "ai",
    "ai21",
    "amazon",
    "anthropic",
    "cohere",
    "deepseek",
    "google",
    "meta",
    "minimax",
    "mistral",
    "moonshot",
    "moonshotai",
    "nvidia",
    "openai",
    "qwen",
    "system",
    "writer",
    "xai",
    "zai",
];

/// Returns the name without the path of a reseller, without region and maker, and without `[1m]`.
fn last_segment(name: &str) -> String {
    let name = name.trim_end_matches('/');
    let name = name.rsplit('/').next().unwrap_or_default();
    let name = name.split('[').next().unwrap_or_default().trim_end();
    let mut name = name.trim_start_matches('@');
    while let Some((before, rest)) = name.split_once(':')
        && !rest.is_empty()
        && (PROVIDERS.contains(&before) || rest.starts_with(before))
    {
        name = rest;
    }
    // Bedrock's `deepseek.v3.2` is one name.
    while let Some((label, rest)) = name.split_once('.')
        && !rest.is_empty()
        && !rest.strip_prefix('v').is_some_and(|version| version.starts_with(char::is_numeric))
        && LABELS.contains(&label)
    {
        name = rest;
    }
    // SAP, Databricks, DigitalOcean.
    let name = name.split_once("--").map_or(name, |(_, rest)| rest);
    let name = ["databricks-", "anthropic-", "openai-"]
        .iter()
        .find_map(|maker| name.strip_prefix(maker))
        .unwrap_or(name);
    name.replace(['@', ' '], "-").replace(['(', ')'], "")
}

/// Splits off the variants that follow a colon. Anything else there is the tag of an Ollama model
/// and a part of its name.
fn without_variants(
    name: &str,
    free: &mut bool,
    service_tier: &mut Option<&'static str>,
) -> (String, Option<String>) {
    // `ft:gpt-4o-mini:acme::id` belongs to acme alone, and has a price of its own.
    if let Some(tuned) = name.strip_prefix("ft:") {
        let base = tuned.split(':').next().unwrap_or_default();
        return (format!("ft:{base}"), None);
    }
    let mut parts = name.split(':');
    let base = parts.next().unwrap_or_default().to_owned();
    let mut tags = Vec::new();
    for part in parts {
        let size = part.strip_suffix('k').unwrap_or(part);
        match part {
            "free" => *free = true,
            "fast" => *service_tier = Some("fast"),
            "beta"
            | "default"
            | "exacto"
            | "extended"
            | "floor"
            | "nitro"
            | "online"
            | "thinking"
            | "high"
            | "low"
            | "max"
            | "medium"
            | "minimal"
            | "none"
            | "xhigh"
            | "generatecontent"
            | "streamgeneratecontent"
            | "rawpredict"
            | "streamrawpredict"
            | "predict"
            | "" => {}
            _ if digits(size) => {}
            tag => tags.push(tag),
        }
    }
    (base, (!tags.is_empty()).then(|| tags.join(":")))
}

/// Converts a name to one spelling: dashes for dots, Claude's family before its version from 4 on
/// and after it before that, `gpt-3-5` for `gpt-35`, `gpt-4-turbo-1106` for `gpt-4-1106`.
fn spelt(base: &str) -> String {
    let mut name = base.replace('.', "-");
    if let Some(rest) = name.strip_prefix("gpt-35-") {
        name = format!("gpt-3-5-{rest}");
    }
    // The first two of GPT-4 Turbo are called `gpt-4`.
    if let Some(rest) = name.strip_prefix("gpt-4-")
        && ["1106", "0125"].contains(&rest.split('-').next().unwrap_or_default())
    {
        name = format!("gpt-4-turbo-{rest}");
    }
    // Fireworks: `glm-5p1`.
    let bytes = name.as_bytes();
    let point = |at: usize| {
        at > 0
            && bytes[at] == b'p'
            && bytes[at - 1].is_ascii_digit()
            && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
    };
    let name: String = name
        .char_indices()
        .map(|(at, letter)| if letter == 'p' && point(at) { '-' } else { letter })
        .collect();
    claude(&name).unwrap_or(name)
}

fn claude(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('-').filter(|part| *part != "claude").collect();
    let families = ["opus", "sonnet", "haiku", "fable", "mythos"];
    let at = parts.iter().position(|part| families.contains(part))?;
    let version = |part: &&&str| part.len() <= 2 && digits(part);
    let before = parts[..at].iter().take_while(version).count();
    let after = parts[at + 1..].iter().take(2).take_while(version).count();
    let (numbers, rest) = match (before, after) {
        (1 | 2, _) if before == at => (&parts[..at], &parts[at + 1..]),
        (0, 1 | 2) if at == 0 => (&parts[1..=after], &parts[1 + after..]),
        _ => return None,
    };
    let family = parts[at];
    let mut version = numbers[0].to_owned();
    if let Some(minor) = numbers.get(1).filter(|minor| **minor != "0") {
        version = format!("{version}-{minor}");
    }
    let old = matches!(numbers[0], "1" | "2" | "3");
    let (first, second) = if old { (version.as_str(), family) } else { (family, &*version) };
    let rest: String = rest.iter().map(|part| format!("-{part}")).collect();
    Some(format!("claude-{first}-{second}{rest}"))
}

/// Part that was removed from the end of a name.
enum End {
    /// A date, a version, an effort: the price is the same.
    Edition,
    /// A preview, which had a price of its own.
    Preview,
    /// A speed, which has another price.
    Tier(&'static str),
}

const PREVIEWS: [&str; 4] = ["preview", "exp", "experimental", "beta"];

/// Names that end like an edition, but are those of models of their own.
const WHOLE: [&str; 3] = ["gemini-2-0-flash-thinking", "o1-preview", "qwq-32b-preview"];

/// Removes the last part of a name, if that does not tell which model it is.
fn shorter(name: &str) -> Option<(String, End)> {
    let cut = |rest: &str, end| Some((rest.to_owned(), end));
    if WHOLE.contains(&name) {
        return None;
    }
    if let Some((rest, tag)) = name.rsplit_once(':')
        && rest != "ft"
    {
        return if tag == "latest" { cut(rest, End::Edition) } else { None };
    }
    let (rest, last) = name.rsplit_once('-').filter(|(rest, _)| !rest.is_empty())?;
    if PREVIEWS.contains(&last) {
        return cut(rest, End::Preview);
    }
    if let Some(rest) = undated(rest, last) {
        let ends = rest.rsplit_once('-').is_some_and(|(_, word)| PREVIEWS.contains(&word));
        let preview = ends && !WHOLE.contains(&rest);
        return cut(rest, if preview { End::Preview } else { End::Edition });
    }
    let of = |families: &[&str]| families.iter().any(|family| name.starts_with(family));
    let ours = of(&["claude-", "gpt-", "o1", "o3", "o4", "gemini-", "grok-"]);
    match last {
        "latest" | "default" => cut(rest, End::Edition),
        "fast" if of(&["claude-", "gpt-"]) => cut(rest, End::Tier("fast")),
        "priority" if ours => cut(rest, End::Tier("priority")),
        "flex" if ours => cut(rest, End::Tier("flex")),
        "batch" if ours => cut(rest, End::Tier("batch")),
        "high" | "low" | "medium" | "minimal" | "none" | "think" | "thinking" | "xhigh" if ours => {
            cut(rest, End::Edition)
        }
        // Vertex AI.
        "maas" => cut(rest, End::Edition),
        "1m" | "v1" | "v2" | "v3" if name.starts_with("claude-") && rest != "claude" => {
            cut(rest, End::Edition)
        }
        // Bedrock: `openai.gpt-oss-120b-1:0`.
        "1" if name.starts_with("gpt-oss-") => cut(rest, End::Edition),
        _ => None,
    }
}

/// Returns the name before a date: `20250929`, `2024-08-06`, `10-2025`, `0613`, `2411`, `260628`,
/// `001`, and `05-20` after a preview. `8192` is no date.
fn undated<'a>(rest: &'a str, last: &str) -> Option<&'a str> {
    if !digits(last) {
        return None;
    }
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    let month = |text: &str| text.len() == 2 && (1..=12).contains(&number(text));
    let day = |text: &str| text.len() == 2 && (1..=31).contains(&number(text));
    let year = |text: &str| text.len() == 4 && text.starts_with("20") && digits(text);
    // `1024` is the size of a context or a vector.
    let short = |text: &str| {
        let (first, second) = text.split_at(2);
        let of_year = month(first) && day(second) && text != "1024";
        of_year || ((23..40).contains(&number(first)) && month(second))
    };
    let (before, word) = rest.rsplit_once('-').unwrap_or(("", rest));
    match last.len() {
        8 if year(&last[..4]) && month(&last[4..6]) && day(&last[6..]) => Some(rest),
        6 if last.starts_with('2') && month(&last[2..4]) && day(&last[4..]) => Some(rest),
        4 if year(last) && digits(word) && month(word) && !before.is_empty() => Some(before),
        4 if short(last) => Some(rest),
        3 if last.starts_with('0') && !rest.contains("embedding") => Some(rest),
        2 if day(last) && digits(word) && month(word) => match before.rsplit_once('-') {
            Some((model, first)) if year(first) => Some(model),
            Some((_, first)) if PREVIEWS.contains(&first) => Some(before),
            _ => None,
        },
        _ => None,
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;

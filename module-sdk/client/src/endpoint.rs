//! URLs of a provider, from a base URL in any of the forms that people write.

use module_sdk::{Provider, ProviderApi};

/// Returns the URL below which a provider's endpoints lie, without a slash at its end. It names the
/// version of the API where the provider's has one: `/v1`, or Gemini's `/v1beta`, unless the base
/// URL names one itself; for Ollama it is the root, also where the base URL is that of its `/api`
/// or of its endpoints for OpenAI's clients.
///
/// ```
/// use module_http_client::endpoint;
/// use module_sdk::Provider;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// let provider = |api, url| {
///     serde_json::from_value::<Provider>(serde_json::json!({"api": api, "base_url": url}))
/// };
/// assert_eq!(endpoint::base(&provider("openai", "https://a.example")?), "https://a.example/v1");
/// assert_eq!(endpoint::base(&provider("ollama", "http://h:11434/v1/")?), "http://h:11434");
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn base(provider: &Provider) -> String {
    let base = provider.base_url.trim_end_matches('/');
    let version = match provider.api {
        ProviderApi::Ollama => {
            let root = base.strip_suffix("/v1").or_else(|| base.strip_suffix("/api"));
            return root.unwrap_or(base).to_owned();
        }
        ProviderApi::Openai | ProviderApi::Anthropic => "v1",
        ProviderApi::Gemini => "v1beta",
    };
    if names_version(base) { base.to_owned() } else { format!("{base}/{version}") }
}

/// Returns the URL at which a provider lists its models, all of them on one page.
#[must_use]
pub fn models(provider: &Provider) -> String {
    let base = base(provider);
    match provider.api {
        ProviderApi::Openai => format!("{base}/models"),
        // Both list a page of a few unless told otherwise.
        ProviderApi::Anthropic => format!("{base}/models?limit=1000"),
        ProviderApi::Gemini => format!("{base}/models?pageSize=1000"),
        ProviderApi::Ollama => format!("{base}/api/tags"),
    }
}

/// Returns whether the path of a base URL names a version: `/v1`, `/openai/v1`, `/v1beta/openai`.
fn names_version(base: &str) -> bool {
    let path = base.split_once("://").map_or("", |(_, rest)| rest);
    path.split('/').skip(1).any(|segment| {
        let digits = segment.strip_prefix('v').unwrap_or_default();
        digits.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn base_urls_of_every_form_lead_to_the_list() {
        let check = |api: &str, base_url: &str, expected: &str| {
            let provider: Provider =
                from_value(json!({"api": api, "base_url": base_url})).expect("a provider");
            assert_eq!(models(&provider), expected, "{api} {base_url}");
        };
        check("openai", "https://api.openai.com", "https://api.openai.com/v1/models");
        check("openai", "https://api.openai.com/v1", "https://api.openai.com/v1/models");
        check("openai", "https://a.example/openai/v1/", "https://a.example/openai/v1/models");
        check(
            "openai",
            "https://a.example/v1beta/openai",
            "https://a.example/v1beta/openai/models",
        );
        check("openai", "http://v1.example:8000", "http://v1.example:8000/v1/models");
        check("anthropic", "https://a.example", "https://a.example/v1/models?limit=1000");
        check("gemini", "https://a.example", "https://a.example/v1beta/models?pageSize=1000");
        check("ollama", "http://127.0.0.1:11434", "http://127.0.0.1:11434/api/tags");
        check("ollama", "http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/api/tags");
        check("ollama", "http://127.0.0.1:11434/api", "http://127.0.0.1:11434/api/tags");
    }
}

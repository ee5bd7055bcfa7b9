//! Names of providers, and the keys of requests, as the other sources of reports write them.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

/// Returns the well-known name of a provider (`gen_ai.provider.name`) for the many names that tools
/// use.
pub(super) fn provider(name: &str) -> String {
    let known = match name.to_ascii_lowercase().as_str() {
        "firstparty" | "anthropic" | "claude" | "anthropic.messages" => "anthropic",
        "azure" | "az.ai.openai" | "azure_openai" | "azure-openai" => "azure.ai.openai",
        "az.ai.inference" | "azure_ai" | "foundry" => "azure.ai.inference",
        "bedrock" | "amazon-bedrock" | "aws_bedrock" | "anthropic_bedrock" => "aws.bedrock",
        "vertex"
        | "vertex_ai"
        | "vertexai"
        | "google-vertex"
        | "google-vertex-anthropic"
        | "vertex_ai_beta" => "gcp.vertex_ai",
        "gemini" | "google" | "google-gemini" | "google_genai" | "google_ai" => "gcp.gemini",
        "xai" | "grok" | "x-ai" => "x_ai",
        "mistral" | "mistralai" => "mistral_ai",
        "openai" | "openai-codex" | "openai.chat" | "openai.responses" => "openai",
        "ollama_chat" | "ollama" => "ollama",
        _ => name,
    };
    known.to_owned()
}

/// Returns the provider of a model by the family in its name; `None` where others offer the family
/// too.
pub(super) fn provider_of_model(model: &str) -> Option<&'static str> {
    const FAMILIES: &[(&str, &str)] = &[
        ("claude-", "anthropic"),
        ("gpt-", "openai"),
        ("chatgpt-", "openai"),
        ("o1", "openai"),
        ("o3", "openai"),
        ("o4", "openai"),
        ("codex-", "openai"),
        ("gemini-", "gcp.gemini"),
        ("grok-", "x_ai"),
    ];
    // `gpt-oss` is an open model that anybody serves.
    if model.starts_with("gpt-oss") {
        return None;
    }
    FAMILIES.iter().find(|(family, _)| model.starts_with(family)).map(|(_, provider)| *provider)
}

/// Returns the key of a request that a provider gave an id, as `ingest` writes it.
pub(super) fn key(provider: &str, id: &str) -> String {
    format!("{}:{}", readable(provider), readable(id))
}

/// Returns the key of a request without an id of its provider, by what tells it from the others of
/// its tool.
pub(super) fn key_of(tool: &str, parts: &[&str]) -> String {
    format!("{tool}:{}", hex(&digest(parts)))
}

/// Prefixes of the ids that providers assign, before a number or random characters.
const PREFIXES: [&str; 9] =
    ["req_", "msg_", "resp_", "chatcmpl-", "cmpl-", "gen-", "run_", "call_", "batch_"];

/// Length below which no id is taken for a secret, in bytes.
const SHORT: usize = 16;

/// Returns an id as it is shown in a key: one that is short, or has the form that providers give
/// theirs, as it is, and any other as its hash, as somebody may have put a secret there.
fn readable(id: &str) -> Cow<'_, str> {
    let rest = PREFIXES.iter().find_map(|prefix| id.strip_prefix(prefix));
    let (first, last) =
        rest.unwrap_or(id).rsplit_once(['-', '_']).unwrap_or(("", rest.unwrap_or(id)));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_random = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let are_numbers = first.split(['-', '_']).all(is_number);
    let ends_well = is_number(last) || rest.is_some() && is_random(last);
    if id.len() < SHORT || are_numbers && ends_well {
        return Cow::Borrowed(id);
    }
    Cow::Owned(format!("hash:{}", hex(&digest(&[id]))))
}

fn hex(digest: &[u8; 32]) -> String {
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_have_one_name() {
        let check = |given: &str, expected: &str| assert_eq!(provider(given), expected);
        check("Anthropic", "anthropic");
        check("google", "gcp.gemini");
        check("amazon-bedrock", "aws.bedrock");
        check("our-own", "our-own");
        assert_eq!(provider_of_model("claude-sonnet-4-5"), Some("anthropic"));
        assert_eq!(provider_of_model("gpt-oss:20b"), None);
    }

    #[test]
    fn keys_are_those_of_the_other_sources() {
        let check = |id: &str, expected: &str| assert_eq!(key("anthropic", id), expected);
        check("req_0c7ca1b2_0005", "anthropic:req_0c7ca1b2_0005");
        check("req_011CVpWz7TnX4bQeRsYt2uAa", "anthropic:req_011CVpWz7TnX4bQeRsYt2uAa");
        check("msg_1", "anthropic:msg_1");
        let hidden = key("anthropic", "please-write-me-a-poem");
        assert!(hidden.starts_with("anthropic:hash:") && !hidden.contains("poem"), "{hidden}");
    }

    #[test]
    fn parts_of_a_key_do_not_run_together() {
        assert_ne!(key_of("codex", &["ab", "c"]), key_of("codex", &["a", "bc"]));
    }
}

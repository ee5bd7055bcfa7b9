//! The names of providers, as OpenTelemetry's `gen_ai.provider.name` has them.

/// Returns the well-known name of a provider for the many names that tools use. An unknown name is
/// returned unchanged: with its case changed, a secret in its place would not be recognised.
pub(crate) fn canonical(provider: &str) -> String {
    let name = match provider.to_ascii_lowercase().as_str() {
        "firstparty" | "anthropic" => "anthropic",
        "azure" | "az.ai.openai" | "azure_openai" => "azure.ai.openai",
        "az.ai.inference" | "azure_ai" | "foundry" => "azure.ai.inference",
        "bedrock" | "amazon-bedrock" | "aws_bedrock" | "anthropic_bedrock" => "aws.bedrock",
        "vertex" | "vertex_ai" | "vertexai" | "google-vertex" | "vertex_ai_beta" => "gcp.vertex_ai",
        "gemini" | "google" | "google-gemini" | "google_genai" => "gcp.gemini",
        "xai" | "grok" => "x_ai",
        "mistral" | "mistralai" => "mistral_ai",
        "openai.chat" | "openai.responses" | "openai.completion" | "openai.embedding" => "openai",
        "anthropic.messages" => "anthropic",
        "openai" => "openai",
        _ => provider,
    };
    name.to_owned()
}

/// Returns the provider of a model by the family in its name; `None` where others offer the family
/// too.
pub(crate) fn of_model(model: &str) -> Option<&'static str> {
    const FAMILIES: &[(&str, &str)] = &[
        ("claude-", "anthropic"),
        ("gpt-", "openai"),
        ("chatgpt-", "openai"),
        ("o1", "openai"),
        ("o3", "openai"),
        ("o4", "openai"),
        ("text-embedding-", "openai"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_have_one_name() {
        let check = |given: &str, expected: &str| assert_eq!(canonical(given), expected);
        check("Anthropic", "anthropic");
        check("firstParty", "anthropic");
        check("az.ai.openai", "azure.ai.openai");
        check("OpenAI", "openai");
        check("lodestar.chat", "lodestar.chat");
        check("AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP");
    }

    #[test]
    fn models_tell_their_provider_only_where_it_is_certain() {
        let check = |model: &str, expected: Option<&str>| assert_eq!(of_model(model), expected);
        check("claude-sonnet-4-5", Some("anthropic"));
        check("gpt-5.1-codex", Some("openai"));
        check("gpt-oss:20b", None);
        check("llama3.1:8b", None);
    }
}

//! Providers, which answer requests to language models.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Secret, words::words};

words! {
    /// An API that providers offer.
    ProviderApi {
        /// OpenAI's API, and those compatible with it.
        Openai = "openai",
        /// Anthropic's API.
        Anthropic = "anthropic",
        /// Google's Gemini.
        Gemini = "gemini",
        /// Ollama's own API.
        Ollama = "ollama",
    }
}

/// An entry of `providers` in the configuration, as [`Host::providers`](crate::Host::providers)
/// returns it.
///
/// ```
/// use module_sdk::{Host, Provider, ProviderApi, Result};
///
/// fn local_models(host: &Host) -> Result<Vec<Provider>> {
///     let all = host.providers()?.into_iter();
///     Ok(all.filter(|it| it.local && it.api == ProviderApi::Ollama).collect())
/// }
/// ```
#[derive(Debug, Clone, Deserialize)]
pub struct Provider {
    /// The operator's name for the provider.
    #[serde(skip)]
    pub id: String,
    /// Base URL, `http://` or `https://`, without credentials and without a slash at the end.
    pub base_url: String,
    /// API that it offers.
    pub api: ProviderApi,
    /// `true` when it runs on hardware of one's own, so that an answer costs nothing.
    #[serde(default)]
    pub local: bool,
    /// API key; `None` where there is none, or the operator gives this module none
    /// (`provider_keys`).
    #[serde(default)]
    pub key: Option<Secret>,
    /// Models that it is to be asked for; none where the operator names none.
    #[serde(default)]
    pub models: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_read_from_what_a_host_of_any_age_tells() {
        let told = r#"{"base_url": "https://a.example", "api": "openai", "dialect": "openai",
                       "local": false, "key": "sk-1", "later": true}"#;
        let provider: Provider = serde_json::from_str(told).expect("it is one");
        assert_eq!((provider.api, provider.local), (ProviderApi::Openai, false));
        assert!(provider.models.is_empty());
        assert_eq!(provider.key.as_ref().map(Secret::expose), Some("sk-1"));
        let shown = format!("{provider:?}");
        assert!(!shown.contains("sk-1"), "{shown}");
    }
}

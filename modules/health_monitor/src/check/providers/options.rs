//! Settings of the check of providers.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use module_sdk::{Provider, ProviderApi, Secret};

use crate::check::CheckOptions;

/// Settings of the check of providers.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderOptions {
    /// Settings that every check has; a probe has to be answered within its deadline.
    #[serde(flatten)]
    pub check: CheckOptions,
    /// Time between two probes of a provider that is not `local` and is well, in milliseconds.
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub remote_interval_ms: u64,
    /// Providers that are watched besides those of the section `providers:`.
    pub extra: BTreeMap<String, ExtraProvider>,
    /// File with certificates in PEM that are trusted besides those of the system.
    pub certificates: Option<PathBuf>,
}

/// A provider that only this check knows.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtraProvider {
    /// Base URL, `http://` or `https://`, without credentials.
    pub base_url: String,
    /// API that it offers.
    pub api: ProviderApi,
    /// API key, as a reference: `${NAME}` or `file:/path`.
    #[schemars(with = "Option<String>")]
    #[serde(default)]
    pub key: Option<Secret>,
    /// `true` where it runs on hardware of one's own: it may have a private address, and is asked
    /// at every run.
    #[serde(default)]
    pub local: bool,
    /// Models that it has to list.
    #[serde(default)]
    pub models: Vec<String>,
}

impl Default for ProviderOptions {
    fn default() -> Self {
        Self {
            check: CheckOptions::default(),
            remote_interval_ms: 30_000,
            extra: BTreeMap::new(),
            certificates: None,
        }
    }
}

impl ExtraProvider {
    pub(super) fn provider(&self, id: &str) -> Provider {
        Provider {
            id: id.to_owned(),
            base_url: self.base_url.clone(),
            api: self.api,
            local: self.local,
            key: self.key.clone(),
            models: self.models.clone(),
        }
    }
}

impl ProviderOptions {
    /// Reads the certificates that are trusted besides those of the system.
    pub(super) fn trusted(&self) -> Result<Vec<String>, ProvidersError> {
        let read = |path: &PathBuf| {
            let error = |source| ProvidersError::Certificates { path: path.clone(), source };
            fs::read_to_string(path).map_err(error)
        };
        self.certificates.iter().map(read).collect()
    }
}

/// Reason why no provider is watched.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProvidersError {
    /// Providers that this module does not understand.
    #[error("the providers cannot be read: {0}")]
    Told(module_sdk::Error),
    /// Certificates that cannot be read.
    #[error("the certificates in {} cannot be read: {source}", path.display())]
    Certificates {
        /// Path of the file.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
}

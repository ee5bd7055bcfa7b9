//! Keys as they lie in the state file.

use module_sdk::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::secret::Digest;
use crate::limits::Allowance;

/// Name of the state.
pub(super) const STATE: &str = "keys";
/// Version of the state.
pub(super) const VERSION: u32 = 1;

/// All keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredKeys {
    /// Version of the form.
    pub version: u32,
    /// Keys, the oldest first.
    pub keys: Vec<StoredKey>,
}

impl Default for StoredKeys {
    fn default() -> Self {
        Self { version: VERSION, keys: Vec::new() }
    }
}

/// A key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredKey {
    /// Id, which stays when the key is rotated: limits and cached answers belong to it.
    pub id: String,
    /// Name that a person gave it, unique among those that are not revoked.
    pub name: String,
    /// Project of its requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Patterns of the models that it may use, none for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Limits.
    #[serde(default)]
    pub limits: Allowance,
    /// Secrets, the newest last; all but that one are in their grace.
    pub secrets: Vec<StoredSecret>,
    /// Time of its creation.
    pub created_at: Timestamp,
    /// End of its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Time of its revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

/// A secret of a key, hashed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredSecret {
    /// Its SHA-256.
    pub sha256: Digest,
    /// Its beginning, to tell it from others.
    pub prefix: String,
    /// End of its grace, where the key was rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
}

/// State of a key at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyState {
    Active,
    Expired,
    Revoked,
}

impl KeyState {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl StoredKey {
    /// Returns its state.
    pub(super) fn state(&self, now: Timestamp) -> KeyState {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => KeyState::Revoked,
            (None, Some(end)) if end <= now => KeyState::Expired,
            _ => KeyState::Active,
        }
    }

    /// Returns the beginning of its newest secret.
    pub(super) fn prefix(&self) -> &str {
        self.secrets.last().map_or("", |secret| &secret.prefix)
    }
}

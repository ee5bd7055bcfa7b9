//! The part of the configuration about keys.

use module_sdk::Result;
use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of virtual keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KeyOptions {
    /// Clients that may ask without a virtual key: `loopback` those on this machine, `never` none,
    /// `always` everybody who reaches the address.
    pub anonymous: Anonymous,
    /// For how many hours the former secret of a key that was rotated still counts.
    #[schemars(range(max = 8_760))]
    pub rotation_grace_hours: u32,
}

/// Clients that may ask without a virtual key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Anonymous {
    /// Those on this machine, but for what a proxy passes on.
    #[default]
    Loopback,
    /// None.
    Never,
    /// Everybody who reaches the address.
    Always,
}

impl Default for KeyOptions {
    fn default() -> Self {
        Self { anonymous: Anonymous::default(), rotation_grace_hours: 24 }
    }
}

impl KeyOptions {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// None so far: the ranges stand in the types.
    pub(crate) fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Returns what the operator should know about these settings, for the log and the health.
    pub(crate) fn warning(&self) -> Option<&'static str> {
        (self.anonymous == Anonymous::Always).then_some(
            "keys.anonymous is `always`: whoever reaches the address spends your money; \
             set `loopback`, and make keys with `lodestar router keys create NAME`",
        )
    }
}

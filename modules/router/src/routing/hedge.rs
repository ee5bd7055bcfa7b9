//! Hedging: when another model is asked too, since the first one is slow to begin.

use module_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of hedging. Without a delay nobody is asked twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HedgeOptions {
    /// Delay without any content after which the next model in line is asked too, milliseconds.
    /// Default: none, which means never.
    #[schemars(range(min = 1, max = 600_000))]
    pub after_ms: Option<u32>,
    /// Delay by what is usual for the model: the quantile of its own times to the first content,
    /// once 20 of them are known. Until then `after_ms` counts.
    pub after: Option<Quantile>,
    /// Further models that are asked at the same time, at most.
    #[schemars(range(min = 1, max = 3))]
    pub most: u8,
}

/// Quantile of the times of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Quantile {
    /// The median.
    P50,
    /// The time within which 95 of 100 begin.
    P95,
}

impl Default for HedgeOptions {
    fn default() -> Self {
        Self { after_ms: None, after: None, most: 1 }
    }
}

impl HedgeOptions {
    /// Returns whether another model may be asked too.
    pub(crate) const fn is_on(&self) -> bool {
        self.after_ms.is_some() || self.after.is_some()
    }

    /// Checks what the types cannot express; `key` is the place of the settings.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub(super) fn check(&self, key: &str) -> Result<()> {
        if self.after_ms.is_some_and(|after| !(1..=600_000).contains(&after)) {
            let message = "must be from 1 to 600000 milliseconds";
            return Err(Error::config_at(format!("{key}.after_ms"), message));
        }
        if !(1..=3).contains(&self.most) {
            return Err(Error::config_at(format!("{key}.most"), "must be from 1 to 3"));
        }
        Ok(())
    }
}

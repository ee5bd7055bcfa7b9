//! The part of the configuration about checked quality.

use module_sdk::{Error, Result, Usd};
use schemars::JsonSchema;
use serde::Deserialize;

/// Checks of the answers of local models against those of `baseline_model`. The requests that are
/// checked go to its provider too.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QualityOptions {
    /// Share of local answers that is checked, from 0 (none) to 1 (all).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
    /// Judge of two answers: `exact` whether they are the same, but for case and spaces; `schema`
    /// whether both are JSON of the same form; `model` whether another model finds the local one as
    /// good.
    pub judge: Judge,
    /// Model that judges; without one it is `baseline_model`.
    pub judge_model: Option<String>,
    /// Most that the checks of a day may cost, US dollars.
    pub usd_per_day: Usd,
}

/// Judge of two answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Judge {
    /// They are the same, but for case and spaces.
    #[default]
    Exact,
    /// Both are JSON of the same form.
    Schema,
    /// A model finds the local one as good.
    Model,
}

impl Judge {
    /// Returns the word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Schema => "schema",
            Self::Model => "model",
        }
    }
}

impl Default for QualityOptions {
    fn default() -> Self {
        Self {
            sample: 0.0,
            judge: Judge::default(),
            judge_model: None,
            usd_per_day: Usd::from_nano(1_000_000_000),
        }
    }
}

impl QualityOptions {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// When a value makes no sense.
    pub(crate) fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.sample) {
            return Err(Error::config_at("sample", "must be from 0 to 1"));
        }
        if self.usd_per_day.nano() < 0 {
            return Err(Error::config_at("usd_per_day", "must not be negative"));
        }
        if self.judge_model.is_some() && self.judge != Judge::Model {
            let error = Error::config_at("judge_model", "is asked by no other judge than `model`");
            return Err(error.hint("set `judge: model`, or leave it out"));
        }
        Ok(())
    }
}

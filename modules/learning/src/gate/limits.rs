//! Limits of the gates, as the operator sets them.

use std::path::PathBuf;

use module_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Ratio of `slower_p95` to `slower` where it is not set: the slow end of a few answers is noisier
/// than their middle.
const TAIL: f64 = 1.25;

/// Limits of the gates.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Number of examples that a version has to be learnt from at least.
    #[schemars(range(min = 1))]
    pub examples: u64,
    /// Number of held-out questions that are asked at most.
    #[schemars(range(min = 1, max = 1_000))]
    pub questions: u32,
    /// Difference to the base, from 0 to 1, by which the answers may be worse: the lower end of the
    /// interval of 95 % must not be below it.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub worse_by: f64,
    /// Ratio of the median time of the version to that of the base at most.
    #[schemars(range(min = 1.0))]
    pub slower: f64,
    /// Ratio of the times that 95 % of the answers keep to. Default: `slower` and a quarter.
    #[schemars(range(min = 1.0))]
    pub slower_p95: Option<f64>,
    /// Points, of a hundred, by which fewer of the shipped questions may be answered rightly than
    /// by the base.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub forgotten: f64,
    /// Memory of the server with the version, in MB. Default: the memory of this machine, where the
    /// server runs on it.
    #[schemars(range(min = 1))]
    pub memory_mb: Option<u64>,
    /// A file of questions with the checks that their answers have to pass, a line of JSON each.
    /// Default: none, and there is no such gate.
    pub prompts: Option<PathBuf>,
    /// Longest time of a measuring, in minutes. What was not measured by then stays shut.
    #[schemars(range(min = 1, max = 1_440))]
    pub minutes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            examples: 50,
            questions: 100,
            worse_by: 0.05,
            slower: 1.2,
            slower_p95: None,
            forgotten: 2.0,
            memory_mb: None,
            prompts: None,
            minutes: 60,
        }
    }
}

impl Limits {
    /// Returns the ratio that the slow end of the answers keeps to.
    #[must_use]
    pub fn slower_p95(&self) -> f64 {
        self.slower_p95.unwrap_or(self.slower * TAIL)
    }

    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.prompts {
            Some(path) if !path.is_absolute() => {
                Err(Error::config_at("prompts", "must be an absolute path"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_end_has_a_quarter_more_unless_it_is_set() {
        assert!((Limits::default().slower_p95() - 1.5).abs() < 1e-9);
        let set = Limits { slower_p95: Some(1.3), ..Limits::default() };
        assert!((set.slower_p95() - 1.3).abs() < 1e-9);
    }

    #[test]
    fn a_file_is_named_wholly() {
        let prompts = |path: &str| Limits { prompts: Some(path.into()), ..Limits::default() };
        assert!(prompts("/etc/prompts.jsonl").check().is_ok());
        let error = prompts("prompts.jsonl").check().expect_err("it is relative").to_string();
        assert!(error.contains("prompts: must be an absolute path"), "{error}");
    }
}

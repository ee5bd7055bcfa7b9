//! Objectives as they are written, and what can be wrong with them.

use std::{collections::BTreeMap, time::Duration};

use module_sdk::manifest::valid_name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Scope, Slo};
use crate::{
    metric::Unit,
    quantity::{Quantity, Span},
    requests::steady_ms,
    rule::Pattern,
};

/// An objective: the part of the requests that has to be good, over a time.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SloOptions {
    /// `false` switches the objective off.
    pub enabled: bool,
    /// Part of the requests that has to be good: `99%`, `0.995`.
    pub objective: Quantity,
    /// Kind of a good request: an answer at all, or one within `threshold`.
    pub kind: SloKind,
    /// Time within which an answer is good: `5s`.
    pub threshold: Option<Span>,
    /// Response time that `threshold` is about.
    pub measure: Measure,
    /// Requests that count. Default: all.
    pub scope: ScopeOptions,
    /// Time over which the error budget lasts.
    pub window: Span,
}

impl Default for SloOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            objective: Quantity { value: 0.99, unit: Some(Unit::Ratio) },
            kind: SloKind::default(),
            threshold: None,
            measure: Measure::default(),
            scope: ScopeOptions::default(),
            window: Span(30 * DAY),
        }
    }
}

/// Kind of a good request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SloKind {
    /// A whole answer.
    #[default]
    Availability,
    /// An answer within a time.
    Latency,
}

/// Response time that is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Time to the end of the answer.
    #[default]
    Duration,
    /// Time to its first content.
    FirstToken,
}

/// Patterns of the requests that count, with `*` for any characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScopeOptions {
    /// Models.
    pub model: Option<String>,
    /// Providers.
    pub provider: Option<String>,
    /// Projects.
    pub project: Option<String>,
}

const DAY: Duration = Duration::from_secs(86_400);
/// Bounds of the time over which a budget lasts: the longest burn rate is of three days.
const SHORTEST: Duration = DAY.saturating_mul(3);
const LONGEST: Duration = DAY.saturating_mul(90);
/// Objectives at most.
const MOST: usize = 50;

/// Reason why an objective cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SloError {
    name: String,
    key: &'static str,
    message: String,
}

impl SloError {
    /// Returns the key in the module's section that is wrong.
    #[must_use]
    pub fn key(&self) -> String {
        match (&*self.name, self.key) {
            ("", _) => "slos".to_owned(),
            (name, "") => format!("slos.{name}"),
            (name, key) => format!("slos.{name}.{key}"),
        }
    }
}

/// Returns the objectives in force: those that are given, and `requests` where it is not.
///
/// # Errors
///
/// The first objective that cannot be used.
pub fn all(given: &BTreeMap<String, SloOptions>) -> Result<Vec<Slo>, SloError> {
    let mut all = given.clone();
    all.entry("requests".to_owned()).or_default();
    if all.len() > MOST {
        let message = format!("there may be at most {MOST} objectives");
        return Err(SloError { name: String::new(), key: "", message });
    }
    let enabled = all.iter().filter(|(_, options)| options.enabled);
    enabled.map(|(name, options)| options.slo(name)).collect()
}

impl SloOptions {
    fn slo(&self, name: &str) -> Result<Slo, SloError> {
        let wrong = |key: &'static str, message: String| {
            Err(SloError { name: name.to_owned(), key, message })
        };
        if !valid_name(name) {
            let message = format!(
                "{name:?} cannot be the name of an objective: 1 to 32 of a-z, 0-9 and _, beginning \
                 with a letter"
            );
            return wrong("", message);
        }
        let objective = self.objective.value;
        let is_ratio = self.objective.unit.is_none_or(|unit| unit == Unit::Ratio);
        if !(is_ratio && objective > 0.0 && objective < 1.0) {
            let message = "the objective lies between 0% and 100%: write `99%` or `0.99`";
            return wrong("objective", message.to_owned());
        }
        let threshold_ms = match (self.kind, self.threshold) {
            (SloKind::Availability, None) => None,
            (SloKind::Availability, Some(_)) => {
                let message = "a threshold belongs to `kind: latency`";
                return wrong("threshold", message.to_owned());
            }
            (SloKind::Latency, None) => {
                let message = "`kind: latency` needs a time: `threshold: 5s`";
                return wrong("threshold", message.to_owned());
            }
            (SloKind::Latency, Some(threshold)) => match u32::try_from(threshold.ms()) {
                Ok(ms) if ms > 0 => Some(ms),
                _ => return wrong("threshold", "the time must lie between 1ms and 49d".to_owned()),
            },
        };
        if !(SHORTEST..=LONGEST).contains(&self.window.0) {
            let (shortest, longest) = (Span(SHORTEST), Span(LONGEST));
            let message = format!("the window must lie between {shortest} and {longest}");
            return wrong("window", message);
        }
        let pattern = |text: &Option<String>| text.clone().map(Pattern::new);
        Ok(Slo {
            name: name.into(),
            objective,
            kind: self.kind,
            threshold_ms,
            measure: self.measure,
            scope: Scope {
                model: pattern(&self.scope.model),
                provider: pattern(&self.scope.provider),
                project: pattern(&self.scope.project),
            },
            window_ms: steady_ms(self.window.ms()),
        })
    }
}

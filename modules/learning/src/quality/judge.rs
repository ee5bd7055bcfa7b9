//! The score that a judge gave an answer, where it may drop some.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    config::ConfigError,
    filter::{Candidate, Filter, Reason, Work, each},
};
use crate::deploy::Kind;

/// A model that rates answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeConfig {
    /// The model, as its server names it.
    pub model: String,
    /// Kind of the server.
    #[serde(default = "ollama")]
    pub kind: Kind,
    /// Base URL of the server.
    #[serde(default = "local")]
    pub base_url: String,
    /// `true` where the server may be on another machine: the text of answers goes there.
    #[serde(default)]
    pub remote: bool,
    /// The score, from 0 to 1, below which an answer is left out.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_score: f64,
    /// Agreement with people beyond chance (Cohen's kappa) that it needs before it drops anything.
    #[serde(default = "least_kappa")]
    #[schemars(range(min = 0.2, max = 1.0))]
    pub least_kappa: f64,
    /// Number of answers that are rated within a day at most.
    #[serde(default = "per_day")]
    #[schemars(range(min = 1, max = 100_000))]
    pub per_day: u32,
}

const fn ollama() -> Kind {
    Kind::Ollama
}

fn local() -> String {
    "http://127.0.0.1:11434".to_owned()
}

const fn half() -> f64 {
    0.5
}

const fn least_kappa() -> f64 {
    0.4
}

const fn per_day() -> u32 {
    500
}

impl JudgeConfig {
    /// Returns the settings of a model on this machine.
    #[must_use]
    pub fn named(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            kind: ollama(),
            base_url: local(),
            remote: false,
            min_score: half(),
            least_kappa: least_kappa(),
            per_day: per_day(),
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let fault = |fault: &'static str| Err(ConfigError::Judge { fault });
        if self.model.trim().is_empty() {
            return fault("has no model");
        }
        for (key, value) in
            [("judge.min_score", self.min_score), ("judge.least_kappa", self.least_kappa)]
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(ConfigError::Share { key, value });
            }
        }
        let rest = ["http://", "https://"].iter().find_map(|it| self.base_url.strip_prefix(it));
        let Some(rest) = rest else { return fault("has a base_url without http:// or https://") };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if !is_here(host) && !self.remote {
            return fault("is on another machine, where text would go; `remote: true` allows that");
        }
        Ok(())
    }
}

/// Returns whether the host of a URL is this machine.
fn is_here(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address: Option<std::net::IpAddr> = name.parse().ok();
    // Before an `@` stands who asks, and behind it another host.
    !host.contains('@') && (name == "localhost" || address.is_some_and(|it| it.is_loopback()))
}

/// Filter for answers that a judge found good enough. Before it agrees with people examples have no
/// score and stay.
pub(super) struct Judge {
    min_score: f64,
}

impl Judge {
    pub(super) const fn new(config: &JudgeConfig) -> Self {
        Self { min_score: config.min_score }
    }
}

impl Filter for Judge {
    fn name(&self) -> &'static str {
        "judge"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        each(candidates, work, |example| {
            let score = example.outcome.judged?;
            (score < self.min_score).then_some("judged_low")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_on_this_machine_unless_somebody_allows_more() {
        let check = |url: &str, remote: bool, expected: Option<&str>| {
            let base_url = url.to_owned();
            let judge = JudgeConfig { base_url, remote, ..JudgeConfig::named("m") };
            let found = judge.check().map_err(|error| error.to_string()).err();
            let is_expected = expected
                .is_none_or(|part| found.as_ref().is_some_and(|error| error.contains(part)));
            assert!(is_expected && found.is_some() == expected.is_some(), "{url}: {found:?}");
        };
        for here in ["http://localhost:1", "http://[::1]:80/v1", "https://127.0.0.9/x"] {
            check(here, false, None);
        }
        let elsewhere = Some("on another machine");
        for far in [
            "http://10.0.0.7:11434",
            "https://judge.example.com",
            "http://localhost@evil.example",
            "http://localhost.evil.example",
            "http://evil.example#@localhost",
        ] {
            check(far, false, elsewhere);
        }
        check("https://judge.example.com", true, None);
        check("ftp://localhost", true, Some("without http:// or https://"));
    }
}

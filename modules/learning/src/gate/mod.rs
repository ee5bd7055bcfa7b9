//! Gates: measured values beside their limits, before a person is asked to approve a version.
//!
//! Data gates look at what a version was learnt from. The others ask the server that will serve it,
//! the base and the version the same held-out questions, and compare them in pairs.

mod pairs;
mod similarity;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use pairs::{Interval, interval};
pub use similarity::{is_exact, overlap};

use crate::registry::Gate;

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
    /// Ratio of the times of the version to those of the base at most.
    #[schemars(range(min = 1.0))]
    pub slower: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { examples: 50, questions: 100, worse_by: 0.05, slower: 1.2 }
    }
}

/// Facts about the dataset that a version was learnt from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataFacts {
    /// Number of examples to train on.
    pub examples: u64,
    /// Number of examples that were forgotten since.
    pub forgotten: u64,
    /// Number of examples whose consent was taken back since.
    pub without_consent: u64,
    /// Faults of its files, in words.
    pub problems: Vec<String>,
}

/// A question that both were asked, with the answer that a person found good.
#[derive(Clone)]
pub struct Pair {
    /// The answer that was kept.
    pub reference: String,
    /// Answer of the base, and its time.
    pub base: (String, Duration),
    /// Answer of the version, and its time.
    pub version: (String, Duration),
}

/// Returns the gates of the data: enough of it, all of it still agreed to, and unchanged.
#[must_use]
pub fn of_data(facts: &DataFacts, limits: &Limits) -> Vec<Gate> {
    let gone = facts.forgotten + facts.without_consent;
    let faults = facts.problems.len() as u64;
    vec![
        at_least("data_examples", facts.examples as f64, limits.examples as f64, json!({})),
        at_most("data_withdrawn", gone as f64, 0.0, json!(facts)),
        at_most("data_problems", faults as f64, 0.0, json!({"problems": facts.problems})),
    ]
}

/// Returns the gates of what both answered: not worse than the base by more than the limit, and not
/// slower.
#[must_use]
pub fn of_answers(pairs: &[Pair], limits: &Limits, seed: u64) -> Vec<Gate> {
    let score = |pair: &Pair, answer: &str| overlap(&pair.reference, answer);
    let differences: Vec<f64> =
        pairs.iter().map(|it| score(it, &it.version.0) - score(it, &it.base.0)).collect();
    let mean = |of: &dyn Fn(&Pair) -> f64| {
        let all = pairs.iter().map(of).sum::<f64>();
        if pairs.is_empty() { 0.0 } else { all / pairs.len() as f64 }
    };
    let exact = |answer: &dyn Fn(&Pair) -> String| {
        pairs.iter().filter(|it| is_exact(&it.reference, &answer(it))).count()
    };
    let mut evidence = json!({
        "questions": pairs.len(),
        "base": mean(&|it| score(it, &it.base.0)),
        "version": mean(&|it| score(it, &it.version.0)),
        "exact_base": exact(&|it| it.base.0.clone()),
        "exact_version": exact(&|it| it.version.0.clone()),
        "measure": "overlap of words with the answer that was kept (F1)",
    });
    let task = match interval(&differences, seed) {
        Some(Interval { mean, low, high }) => {
            evidence["difference"] = json!({"mean": mean, "low": low, "high": high});
            at_least("task", low, -limits.worse_by, evidence)
        }
        None => not_measured("task", -limits.worse_by, "too few held-out questions"),
    };
    vec![task, of_times(pairs, limits)]
}

fn of_times(pairs: &[Pair], limits: &Limits) -> Gate {
    let median = |of: &dyn Fn(&Pair) -> Duration| {
        let mut all: Vec<Duration> = pairs.iter().map(of).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    let (base, version) = (median(&|it| it.base.1), median(&|it| it.version.1));
    if base <= 0.0 {
        return not_measured("latency", limits.slower, "no times were measured");
    }
    let evidence = json!({"base_ms": base, "version_ms": version});
    at_most("latency", version / base, limits.slower, evidence)
}

fn at_least(name: &str, value: f64, limit: f64, evidence: Value) -> Gate {
    gate(name, value >= limit, Some(value), limit, evidence)
}

fn at_most(name: &str, value: f64, limit: f64, evidence: Value) -> Gate {
    gate(name, value <= limit, Some(value), limit, evidence)
}

/// Returns a gate that stays shut, since nothing could be measured.
#[must_use]
pub fn not_measured(name: &str, limit: f64, reason: &str) -> Gate {
    gate(name, false, None, limit, json!({"not_measured": reason}))
}

fn gate(name: &str, passed: bool, value: Option<f64>, limit: f64, evidence: Value) -> Gate {
    Gate { name: name.to_owned(), passed, value, limit: Some(limit), evidence, overridden: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> DataFacts {
        DataFacts { examples: 60, forgotten: 0, without_consent: 0, problems: Vec::new() }
    }

    fn pair(reference: &str, base: &str, version: &str, slower: u64) -> Pair {
        Pair {
            reference: reference.to_owned(),
            base: (base.to_owned(), Duration::from_millis(100)),
            version: (version.to_owned(), Duration::from_millis(100 + slower)),
        }
    }

    fn passed(gates: &[Gate]) -> Vec<(&str, bool)> {
        gates.iter().map(|it| (it.name.as_str(), it.passed)).collect()
    }

    #[test]
    fn data_has_to_be_enough_and_agreed_to() {
        let check = |facts: DataFacts, expected: [bool; 3]| {
            let gates = of_data(&facts, &Limits::default());
            assert_eq!(gates.iter().map(|it| it.passed).collect::<Vec<_>>(), expected, "{facts:?}");
        };
        check(facts(), [true, true, true]);
        check(DataFacts { examples: 49, ..facts() }, [false, true, true]);
        check(DataFacts { forgotten: 1, ..facts() }, [true, false, true]);
        check(DataFacts { without_consent: 2, ..facts() }, [true, false, true]);
        let problems = vec!["train.jsonl was changed".to_owned()];
        check(DataFacts { problems, ..facts() }, [true, true, false]);
    }

    #[test]
    fn a_version_that_learnt_passes_and_one_that_forgot_does_not() {
        let limits = Limits::default();
        let learnt: Vec<Pair> = (0..40)
            .map(|it| pair("it costs 7 euros", "I do not know", "it costs 7 euros", it % 3))
            .collect();
        assert_eq!(passed(&of_answers(&learnt, &limits, 1)), [("task", true), ("latency", true)]);
        let forgot: Vec<Pair> = learnt
            .iter()
            .map(|it| Pair { base: it.version.clone(), version: it.base.clone(), ..it.clone() })
            .collect();
        let gates = of_answers(&forgot, &limits, 1);
        assert_eq!(passed(&gates), [("task", false), ("latency", true)]);
        assert_eq!(gates[0].evidence["exact_base"], 40);
        assert_eq!(gates[0].evidence["exact_version"], 0);
    }

    #[test]
    fn one_that_is_slow_does_not_pass() {
        let slow: Vec<Pair> = (0..40).map(|_| pair("a b", "a b", "a b", 30)).collect();
        let gates = of_answers(&slow, &Limits::default(), 1);
        assert_eq!(passed(&gates), [("task", true), ("latency", false)]);
        assert!(gates[1].value.is_some_and(|value| (value - 1.3).abs() < 1e-9), "{gates:?}");
    }

    #[test]
    fn what_was_not_measured_stays_shut() {
        let gates = of_answers(&[], &Limits::default(), 1);
        assert_eq!(passed(&gates), [("task", false), ("latency", false)]);
        assert!(gates.iter().all(|it| it.value.is_none()));
    }
}

//! Gates: measured values beside their limits, before a person is asked to approve a version.
//!
//! Each gate is a [`Strategy`] that measures one thing in a [`Session`]. They run one after the
//! other in the order of [`strategies`], the quick ones first; answers of the base are asked for
//! once and kept for all of them. A gate that does not apply to a version says why and stands in
//! nobody's way; one that could not be measured stays shut.

mod answers;
mod check;
mod data;
mod forgetting;
mod limits;
mod memory;
mod pairs;
mod parity;
mod prompts;
mod questions;
mod safety;
mod session;
mod similarity;
mod tools;

use module_sdk::{Error, ErrorKind};
use serde_json::{Value, json};

pub use data::DataFacts;
pub(crate) use data::files_of;
pub use limits::Limits;
pub use pairs::{Interval, interval};
pub use parity::{Prompt, Reference, Step};
pub use questions::{QuestionsError, benchmarks, digest};
pub(crate) use session::{HeldOut, Session, Target};
pub use similarity::{is_exact, overlap};

use crate::{
    deploy::{DeployError, is_for_all},
    registry::Gate,
};

/// A gate before it is measured.
trait Strategy {
    /// Returns the name, as it stands in lists and in the log.
    fn name(&self) -> &'static str;

    /// Returns the limit that is known before anything is measured.
    fn limit(&self, limits: &Limits) -> Option<f64>;

    /// Measures it.
    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault>;
}

/// A value that was measured.
#[derive(Debug, PartialEq)]
struct Measured {
    passed: bool,
    value: f64,
    limit: Option<f64>,
    /// Facts that the value was computed from, without text of examples or answers.
    evidence: Value,
}

impl Measured {
    fn at_least(value: f64, limit: f64, evidence: Value) -> Self {
        Self { passed: value >= limit, value, limit: Some(limit), evidence }
    }

    fn at_most(value: f64, limit: f64, evidence: Value) -> Self {
        Self { passed: value <= limit, value, limit: Some(limit), evidence }
    }
}

/// Reason why a gate has no value.
#[derive(Debug)]
pub(crate) enum Fault {
    /// There is nothing to measure about this version.
    NotApplicable(String),
    /// It could not be measured.
    NotMeasured(String),
    /// No gate can be measured any more.
    Ends(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Ends(error)
    }
}

impl From<DeployError> for Fault {
    fn from(error: DeployError) -> Self {
        let words = error.to_string();
        match error {
            DeployError::Unreachable(_) => Self::Ends(Error::of(ErrorKind::Unavailable, words)),
            error if is_for_all(&error) => Self::Ends(Error::of(ErrorKind::Failed, words)),
            _ => Self::NotMeasured(words),
        }
    }
}

/// Returns the gates in the order in which they are measured.
fn strategies(limits: &Limits) -> Vec<Box<dyn Strategy>> {
    let mut all: Vec<Box<dyn Strategy>> = vec![
        Box::new(data::Trainer),
        Box::new(data::Examples),
        Box::new(data::Withdrawn),
        Box::new(data::Problems),
        Box::new(data::Files),
        Box::new(answers::Task),
        Box::new(answers::Latency { is_tail: false }),
        Box::new(answers::Latency { is_tail: true }),
        Box::new(tools::Tools),
    ];
    if let Some(path) = &limits.prompts {
        all.push(Box::new(prompts::Prompts { path: path.clone() }));
    }
    all.push(Box::new(forgetting::Forgetting));
    all.push(Box::new(safety::Safety));
    all.push(Box::new(parity::ServingParity));
    all.push(Box::new(memory::Memory));
    all
}

/// Measures all gates. Those of these names have to be measured: that one does not apply is no
/// excuse for it.
///
/// # Errors
///
/// When somebody ended it, or the server is not there any more.
pub(crate) fn measure(
    session: &mut Session<'_>,
    required: &[String],
) -> module_sdk::Result<Vec<Gate>> {
    let mut gates = Vec::new();
    for strategy in strategies(session.limits()) {
        let (name, limit) = (strategy.name(), strategy.limit(session.limits()));
        session.begin(name)?;
        let is_required = required.iter().any(|it| it == name);
        let gate = |passed, value, limit, evidence| Gate {
            name: name.to_owned(),
            passed,
            value,
            limit,
            evidence,
            overridden: None,
        };
        gates.push(match strategy.measure(session) {
            Ok(it) => gate(it.passed, Some(it.value), it.limit, it.evidence),
            Err(Fault::NotApplicable(reason)) => {
                gate(!is_required, None, limit, json!({"not_applicable": reason}))
            }
            Err(Fault::NotMeasured(reason)) => {
                gate(false, None, limit, json!({"not_measured": reason}))
            }
            Err(Fault::Ends(error)) => return Err(error),
        });
    }
    Ok(gates)
}

/// Returns a gate whose value must not be below its limit.
pub(crate) fn at_least(name: &str, value: f64, limit: f64, evidence: Value) -> Gate {
    gate(name, value >= limit, Some(value), limit, evidence)
}

/// Returns a gate whose value must not be above its limit.
pub(crate) fn at_most(name: &str, value: f64, limit: f64, evidence: Value) -> Gate {
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

    fn measured(
        limits: &Limits,
        required: &[&str],
        has_ended: bool,
    ) -> module_sdk::Result<Vec<Gate>> {
        let mut reckon = |_: std::time::Instant, _: &mut dyn FnMut() -> module_sdk::Result<()>| {
            Err(Fault::NotApplicable("nobody is asked".to_owned()))
        };
        let mut watch = |_: u64, _: Option<u64>, _: &str| match has_ended {
            true => Err(Error::of(ErrorKind::Cancelled, "it is enough")),
            false => Ok(()),
        };
        let facts = DataFacts { examples: 60, ..DataFacts::default() };
        let mut session =
            Session::new(limits, facts, Vec::new(), 1, None, &mut reckon, &mut watch)?;
        let required: Vec<String> = required.iter().map(|it| (*it).to_owned()).collect();
        measure(&mut session, &required)
    }

    fn reason<'a>(gates: &'a [Gate], name: &str) -> (bool, &'a str) {
        let gate = gates.iter().find(|it| it.name == name).expect("it is there");
        let reasons = ["not_measured", "not_applicable"].map(|key| gate.evidence[key].as_str());
        (gate.passed, reasons.into_iter().flatten().next().unwrap_or_default())
    }

    #[test]
    fn without_a_server_what_is_asked_stays_shut() {
        let gates = measured(&Limits::default(), &[], false).expect("they are measured");
        let data = ["data_examples", "data_withdrawn", "data_problems", "adapter_files"];
        for name in data {
            assert_eq!(reason(&gates, name), (true, ""), "{name}");
        }
        let asked = ["task", "latency", "latency_p95", "forgetting", "safety", "serving_parity"];
        for name in asked {
            assert_eq!(
                reason(&gates, name),
                (false, "no server is configured (`serving`)"),
                "{name}"
            );
        }
        assert!(reason(&gates, "tools").0, "{gates:?}");
        assert!(!gates.iter().any(|gate| gate.name == "prompts"), "there is no such file");
    }

    #[test]
    fn a_gate_that_is_required_has_to_apply() {
        let gates = measured(&Limits::default(), &["tools"], false).expect("they are measured");
        let (passed, reason) = reason(&gates, "tools");
        assert!(!passed && reason.contains("no held-out answer"), "{reason}");
    }

    #[test]
    fn a_file_that_is_named_makes_a_gate() {
        let limits = Limits { prompts: Some("/nowhere.jsonl".into()), ..Limits::default() };
        let gates = measured(&limits, &[], false).expect("they are measured");
        assert!(!reason(&gates, "prompts").0);
    }

    #[test]
    fn who_ends_it_ends_all_of_it() {
        let error = measured(&Limits::default(), &[], true).expect_err("it is ended");
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
}

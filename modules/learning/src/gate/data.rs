//! Gates of what a version was learnt from, and of the files that training wrote.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::{Fault, Limits, Measured, Session, Strategy};
use crate::{registry::Gate, run};

/// Facts about the dataset that a version was learnt from, and about its files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DataFacts {
    /// Number of examples to train on.
    pub examples: u64,
    /// Number of examples that were forgotten since.
    pub forgotten: u64,
    /// Number of examples whose consent was taken back since.
    pub without_consent: u64,
    /// Faults of the dataset's files, in words.
    pub problems: Vec<String>,
    /// Digests of the adapter's files by their names.
    pub files: BTreeMap<String, String>,
    /// Number of those that are not as training wrote them.
    pub changed: u64,
    /// Name of the trainer.
    pub trainer: String,
}

/// A trainer that learns: a version of one that only pretends to is deployed only where a person
/// overrides the gate.
pub(super) struct Trainer;

impl Strategy for Trainer {
    fn name(&self) -> &'static str {
        "trainer"
    }

    fn limit(&self, _: &Limits) -> Option<f64> {
        Some(1.0)
    }

    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault> {
        let trainer = &session.facts().trainer;
        let learns = trainer != run::Strategy::Fake.as_str();
        let evidence = json!({"trainer": trainer, "learns": learns});
        Ok(Measured::at_least(f64::from(u8::from(learns)), 1.0, evidence))
    }
}

/// Enough examples.
pub(super) struct Examples;

impl Strategy for Examples {
    fn name(&self) -> &'static str {
        "data_examples"
    }

    fn limit(&self, limits: &Limits) -> Option<f64> {
        Some(limits.examples as f64)
    }

    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault> {
        let limit = session.limits().examples as f64;
        Ok(Measured::at_least(session.facts().examples as f64, limit, json!({})))
    }
}

/// No example that is not agreed to any more.
pub(super) struct Withdrawn;

impl Strategy for Withdrawn {
    fn name(&self) -> &'static str {
        "data_withdrawn"
    }

    fn limit(&self, _: &Limits) -> Option<f64> {
        Some(0.0)
    }

    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault> {
        let DataFacts { forgotten, without_consent, .. } = session.facts();
        let evidence = json!({"forgotten": forgotten, "without_consent": without_consent});
        Ok(Measured::at_most((forgotten + without_consent) as f64, 0.0, evidence))
    }
}

/// No file of the dataset that is not as it was built.
pub(super) struct Problems;

impl Strategy for Problems {
    fn name(&self) -> &'static str {
        "data_problems"
    }

    fn limit(&self, _: &Limits) -> Option<f64> {
        Some(0.0)
    }

    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault> {
        let problems = &session.facts().problems;
        Ok(Measured::at_most(problems.len() as f64, 0.0, json!({"problems": problems})))
    }
}

/// No file of the adapter that is not as training wrote it. The digests are kept as evidence: a
/// server that reads other files than the one that an approval is about is held to them.
pub(super) struct Files;

/// Name of the gate whose evidence has the digests of the adapter's files.
const FILES: &str = "adapter_files";

/// Returns the digests of an adapter's files by their names, as they were measured.
pub(crate) fn files_of(gates: &[Gate]) -> BTreeMap<String, String> {
    let gate = gates.iter().find(|gate| gate.name == FILES);
    let files = gate.map(|gate| gate.evidence["files"].clone()).unwrap_or_default();
    serde_json::from_value(files).unwrap_or_default()
}

impl Strategy for Files {
    fn name(&self) -> &'static str {
        FILES
    }

    fn limit(&self, _: &Limits) -> Option<f64> {
        Some(0.0)
    }

    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault> {
        let DataFacts { files, changed, .. } = session.facts();
        Ok(Measured::at_most(*changed as f64, 0.0, json!({"files": files})))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_in_the_evidence() {
        let gate = |name: &str, evidence| Gate {
            name: name.to_owned(),
            passed: true,
            value: Some(0.0),
            limit: Some(0.0),
            evidence,
            overridden: None,
        };
        let files = json!({"files": {"adapter.gguf": "ab"}});
        let gates = [gate("task", json!({"files": {"x": "y"}})), gate(FILES, files)];
        assert_eq!(files_of(&gates), BTreeMap::from([("adapter.gguf".into(), "ab".into())]));
        assert!(files_of(&gates[..1]).is_empty());
        assert!(files_of(&[gate(FILES, json!({"files": 7}))]).is_empty());
    }
}

//! Gate of questions whose checks a person wrote.

use std::path::PathBuf;

use serde_json::json;

use super::{Fault, Limits, Measured, Session, Strategy, questions, session::Who};

/// The operator's questions, each of which every version has to pass.
pub(super) struct Prompts {
    pub(super) path: PathBuf,
}

impl Strategy for Prompts {
    fn name(&self) -> &'static str {
        "prompts"
    }

    fn limit(&self, _: &Limits) -> Option<f64> {
        Some(0.0)
    }

    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault> {
        let most = session.target()?.most;
        let questions = questions::prompts(&self.path)
            .map_err(|error| Fault::NotMeasured(format!("`gates.prompts`: {error}")))?;
        session.expect(2 * questions.len());
        let (mut base, mut version) = (Vec::new(), Vec::new());
        for (number, question) in (1..).zip(&questions) {
            for (who, failed) in [(Who::Base, &mut base), (Who::Version, &mut version)] {
                let answer = session.answer(who, &question.messages, most)?;
                if !question.checks.iter().all(|check| check.passes(&answer.text)) {
                    failed.push(number);
                }
            }
        }
        let evidence = json!({
            "questions": questions.len(), "failed": version, "base_failed": base,
        });
        Ok(Measured::at_most(version.len() as f64, 0.0, evidence))
    }
}

//! The end of a run, as it is noted.

use module_sdk::Result;

use super::{Training, by_lodestar, failed};
use crate::{
    registry::{Action, Command},
    run::{self, Outcome, Report, RunState},
};

impl Training {
    /// Takes over the adapter of a run that is done, and notes the end of the run and what becomes
    /// of its version.
    pub(super) fn noted_end(&self, run: &str, version: &str, report: &Report) -> Result<RunState> {
        let versions = &self.0.versions;
        let mut report = Report {
            ending: report.ending.clone(),
            attempt: report.attempt,
            smaller: report.smaller.clone(),
        };
        let mut command = None;
        if report.ending.outcome == Outcome::Done {
            let attempt = format!("attempt-{}", report.attempt);
            let output = self.0.folder_of(run).join(attempt).join("output");
            match versions.adopt(version, &output) {
                Ok(artifact) => command = Some(Command::Finish(artifact)),
                Err(error) => {
                    report = failed(format!("the adapter cannot be taken over: {error}"));
                }
            }
        }
        let at = versions.host.now().as_millisecond();
        let registry = versions.registry.clone();
        let (state, done) = versions.store.write(|transaction| {
            let state = run::ended(transaction, run, &report, at)?;
            let action = if state == RunState::Stopped { Action::Stop } else { Action::Fail };
            let command = command.unwrap_or(Command::Act(action));
            let done = registry.perform(transaction, &by_lodestar(version, command), at)?;
            Ok((state, done))
        })?;
        match done {
            Ok(done) => versions.performed(&done),
            Err(refusal) => tracing::error!(version, %refusal, "the version stays as it was"),
        }
        Ok(state)
    }
}

//! Experiments: does the challenger do as well as the champion? The answer is valid at every look.
//!
//! The unit is a session or a user, never a request, and it stays in its arm ([`arm`]). The
//! question is by default whether the challenger is not worse by more than a margin; it is answered
//! by exact e-processes ([`EProcess`]). The ratio of the arms is checked ([`Ratio`]), and
//! guardrails may stop a challenger early. Nothing here promotes one: a [`Verdict`] ends the
//! experiment, and a person decides.
//!
//! ```
//! use learning::experiment::{Arm, Experiment, Plan, Verdict};
//!
//! let mut experiment = Experiment::new(Plan { margin: 0.1, ..Plan::default() })?;
//! for _ in 0..500 {
//!     experiment.assigned(Arm::Champion);
//!     experiment.assigned(Arm::Challenger);
//!     experiment.outcome(Arm::Champion, true);
//!     experiment.outcome(Arm::Challenger, true);
//! }
//! assert_eq!(experiment.verdict(), Verdict::Passed);
//! # Ok::<(), learning::experiment::PlanError>(())
//! ```

mod allocation;
pub mod counting;
mod eprocess;
mod means;
mod observation;
mod paired;
pub mod store;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use allocation::{Arm, Ratio, arm, block, bucket};
pub use eprocess::{Count, EProcess, Null};
pub use means::{FEWEST, Mean, Means};
pub use observation::{COST, ERROR, LATENCY, Observation, REFUSAL, Side, Sign, Unit};
pub use paired::{Paired, PairedSummary};
pub use store::MIGRATION;

use crate::registry::named;

/// Level at which a wrong ratio of the arms ends an experiment.
const RATIO_ALPHA: f64 = 0.001;

/// The plan of an experiment, which is not changed while it goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// Share of the units that get the challenger, in percent.
    #[schemars(range(min = 1, max = 99))]
    pub challenger_percent: u32,
    /// Margin by which the challenger may be worse, as a difference of the shares of good outcomes.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub margin: f64,
    /// Question that is asked.
    pub question: Question,
    /// Probability of a wrong answer.
    #[schemars(range(min = 0.000_1, max = 0.2))]
    pub alpha: f64,
    /// Number of units with an outcome after which it ends without a finding.
    #[schemars(range(min = 2))]
    pub most_units: u64,
    /// Guardrails by the names of their measures.
    pub guardrails: BTreeMap<String, Guardrail>,
}

impl Default for Plan {
    /// Returns the plan of a small team: half of the sessions, not worse by more than a tenth.
    fn default() -> Self {
        Self {
            challenger_percent: 50,
            margin: 0.1,
            question: Question::NotWorse,
            alpha: 0.05,
            most_units: 4_000,
            guardrails: BTreeMap::new(),
        }
    }
}

/// A question about the challenger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Is it not worse than the champion by more than the margin?
    #[default]
    #[serde(rename = "not-worse")]
    NotWorse,
    /// Is it better than the champion? Worse by more than the margin ends it as well.
    Better,
}

/// A guardrail: what a challenger may not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Guardrail {
    /// The mean of a value, as a multiple of the champion's: 1.2 for latency or cost.
    MeanTimes(f64),
    /// The share of units in which something bad happened, above the champion's: 0.05 for errors.
    RatePlus(f64),
}

/// Fault of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{key} {fault}")]
pub struct PlanError {
    /// The key.
    pub key: &'static str,
    /// Its fault.
    pub fault: &'static str,
}

impl Plan {
    /// Returns the hypothesis whose rejection answers the question with yes.
    const fn null(&self) -> Null {
        match self.question {
            Question::NotWorse => Null::WorseBy(self.margin),
            Question::Better => Null::WorseBy(0.0),
        }
    }

    /// Returns the level of each guardrail: they share that of the plan (Bonferroni).
    #[expect(clippy::cast_precision_loss, reason = "there are few guardrails")]
    fn alpha_each(&self) -> f64 {
        self.alpha / self.guardrails.len().max(1) as f64
    }

    /// Checks the plan.
    ///
    /// # Errors
    ///
    /// Returns the first fault.
    pub fn check(&self) -> Result<(), PlanError> {
        let faults = [
            (
                (1..=99).contains(&self.challenger_percent),
                "challenger_percent",
                "must be from 1 to 99",
            ),
            ((0.0..=0.5).contains(&self.margin), "margin", "must be from 0 to 0.5"),
            ((0.000_1..=0.2).contains(&self.alpha), "alpha", "must be from 0.0001 to 0.2"),
            (self.most_units >= 2, "most_units", "must be 2 or more"),
            (
                self.guardrails.values().all(|guardrail| match guardrail {
                    Guardrail::MeanTimes(times) => (1.0..=100.0).contains(times),
                    Guardrail::RatePlus(margin) => (0.0..=0.5).contains(margin),
                }),
                "guardrails",
                "must be mean_times from 1 to 100, or rate_plus from 0 to 0.5",
            ),
        ];
        let fault = faults.into_iter().find(|(is_right, _, _)| !is_right);
        fault.map_or(Ok(()), |(_, key, fault)| Err(PlanError { key, fault }))
    }
}

impl Guardrail {
    /// Returns what a guardrail allows beside a value of the champion.
    fn allowed(self, champion: f64) -> f64 {
        match self {
            Self::MeanTimes(times) => times * champion,
            Self::RatePlus(margin) => margin + champion,
        }
    }
}

/// Returns whether what exceeds a guardrail is more than chance: whether all of its interval is
/// above 0.
fn is_above_zero(interval: Option<[f64; 2]>) -> bool {
    interval.is_some_and(|[low, _]| low > 0.0)
}

named! {
    /// Finding of an experiment.
    Verdict {
        /// It goes on.
        Running = "running",
        /// The answer to the question is yes.
        Passed = "passed",
        /// The challenger is worse by more than the margin.
        Worse = "worse",
        /// A guardrail was exceeded.
        Guardrail = "guardrail",
        /// The units are not allotted in the ratio of the plan, so that nothing can be said.
        WrongRatio = "wrong_ratio",
        /// Neither was found with as many units as were planned.
        Inconclusive = "inconclusive",
    }
}

/// State of a guardrail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Guard {
    Mean(f64, Means),
    Rate(EProcess),
}

/// An experiment: its plan, and all that was observed, in a form that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    plan: Plan,
    ratio: Ratio,
    not_worse: EProcess,
    worse: EProcess,
    guards: BTreeMap<String, Guard>,
    units: u64,
    /// The first finding: a later look does not take it back.
    verdict: Verdict,
    /// Measure of the guardrail that was exceeded.
    exceeded: Option<String>,
}

impl Experiment {
    /// Begins an experiment.
    ///
    /// # Errors
    ///
    /// Returns the fault of the plan.
    pub fn new(plan: Plan) -> Result<Self, PlanError> {
        plan.check()?;
        let sizes = block(plan.challenger_percent);
        let guard = |(name, guardrail): (&String, &Guardrail)| {
            let guard = match guardrail {
                Guardrail::MeanTimes(times) => Guard::Mean(*times, Means::default()),
                // What happens is bad: the arms change their parts.
                Guardrail::RatePlus(margin) => {
                    Guard::Rate(EProcess::new(Null::NotWorseBy(*margin), sizes))
                }
            };
            (name.clone(), guard)
        };
        Ok(Self {
            ratio: Ratio::new(plan.challenger_percent),
            not_worse: EProcess::new(plan.null(), sizes),
            worse: EProcess::new(Null::NotWorseBy(plan.margin), sizes),
            guards: plan.guardrails.iter().map(guard).collect(),
            units: 0,
            verdict: Verdict::Running,
            exceeded: None,
            plan,
        })
    }

    /// Returns the plan.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Notes that a unit was assigned to an arm, once per unit.
    pub fn assigned(&mut self, arm: Arm) {
        self.ratio.note(arm);
        if self.ratio.is_wrong(RATIO_ALPHA) {
            self.find(Verdict::WrongRatio);
        }
    }

    /// Notes the outcome of a unit in the arm that it was assigned to, whatever answered in the
    /// end; once per unit.
    pub fn outcome(&mut self, arm: Arm, is_good: bool) {
        if self.verdict != Verdict::Running {
            return;
        }
        self.units += 1;
        self.not_worse.note(arm, is_good);
        self.worse.note(arm, is_good);
        if self.not_worse.is_rejected(self.plan.alpha) {
            self.find(Verdict::Passed);
        } else if self.worse.is_rejected(self.plan.alpha) {
            self.find(Verdict::Worse);
        } else if self.units >= self.plan.most_units {
            self.find(Verdict::Inconclusive);
        }
    }

    /// Notes a value of a unit for a guardrail: for a share, 1 where it happened and 0 where not.
    /// Measures that are not in the plan are left out.
    pub fn measure(&mut self, arm: Arm, name: &str, value: f64) {
        let alpha = self.plan.alpha_each();
        let is_exceeded = match self.guards.get_mut(name) {
            None => return,
            Some(Guard::Mean(times, means)) => {
                means.note(arm, value);
                is_above_zero(means.interval(*times, alpha))
            }
            Some(Guard::Rate(process)) => {
                process.note(arm, value <= 0.5);
                process.is_rejected(alpha)
            }
        };
        if is_exceeded && self.verdict == Verdict::Running {
            self.exceeded = Some(name.to_owned());
            self.find(Verdict::Guardrail);
        }
    }

    fn find(&mut self, verdict: Verdict) {
        if self.verdict == Verdict::Running {
            self.verdict = verdict;
        }
    }

    /// Returns the finding.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Returns the measure of the guardrail that was exceeded.
    #[must_use]
    pub fn exceeded(&self) -> Option<&str> {
        self.exceeded.as_deref()
    }

    /// Returns a summary for lists.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            verdict: self.verdict,
            exceeded: self.exceeded.clone(),
            units: self.units,
            assigned: self.ratio.counts(),
            outcomes: self.not_worse.counts(),
            p_not_worse: self.not_worse.p_value(),
            p_worse: self.worse.p_value(),
            guards: self.guards.iter().map(|(name, guard)| guard.shown(name, &self.plan)).collect(),
        }
    }
}

/// A summary of an experiment. Pairs are champion and challenger.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The finding.
    pub verdict: Verdict,
    /// Measure of the guardrail that was exceeded.
    pub exceeded: Option<String>,
    /// Number of units with an outcome.
    pub units: u64,
    /// Numbers of units that were assigned.
    pub assigned: [u64; 2],
    /// Outcomes of whole blocks.
    pub outcomes: [Count; 2],
    /// P-value, valid at every look, of the answer yes: against being worse by the margin, or
    /// against not being better.
    pub p_not_worse: f64,
    /// P-value, valid at every look, against not being worse by the margin.
    pub p_worse: f64,
    /// Guardrails with what was measured.
    pub guards: Vec<GuardSummary>,
}

/// A guardrail with what was measured. Pairs are champion and challenger.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GuardSummary {
    /// Name of the measure.
    pub name: String,
    /// The guardrail.
    pub limit: Guardrail,
    /// Means, or shares of units; none before there is a value.
    pub values: [Option<f64>; 2],
}

impl Guard {
    #[expect(clippy::cast_precision_loss, reason = "numbers of sessions are small")]
    fn shown(&self, name: &str, plan: &Plan) -> GuardSummary {
        let values = match self {
            Self::Mean(_, means) => means.arms().map(|it| (it.count > 0).then_some(it.mean)),
            // What is good of a share is that it did not happen.
            Self::Rate(process) => process
                .counts()
                .map(|it| (it.all > 0).then(|| (it.all - it.good) as f64 / it.all as f64)),
        };
        let limit = plan.guardrails.get(name).copied().unwrap_or(Guardrail::RatePlus(0.0));
        GuardSummary { name: name.to_owned(), limit, values }
    }
}

#[cfg(test)]
mod tests;

//! Shadows: a challenger that is asked beside each answer, compared pair by pair.
//!
//! Nobody gets what it says, so there is no outcome to compare: it ends with numbers, or at a
//! guardrail. The intervals are those of [`Mean`]: asymptotic, and valid at every look.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Mean, Plan, PlanError, Verdict, is_above_zero};

/// Observations of a measure.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Measure {
    served: Mean,
    beside: Mean,
    /// Differences: the one asked beside less the one that was served.
    difference: Mean,
    /// Differences that a guardrail is about, in which what it allows is taken off.
    excess: Mean,
}

/// A shadow: its plan and all that was observed, in a form that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    plan: Plan,
    measures: BTreeMap<String, Measure>,
    pairs: u64,
    verdict: Verdict,
    exceeded: Option<String>,
}

/// A measure of a shadow, for lists.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairedSummary {
    /// Name of the measure.
    pub name: String,
    /// Number of pairs in which both have it.
    pub pairs: u64,
    /// Mean of what was served.
    pub served: f64,
    /// Mean of what was asked beside it.
    pub beside: f64,
    /// Interval of 95 % for the difference, valid at every look; none while there are few pairs.
    pub difference: Option<[f64; 2]>,
}

/// Level of the intervals that are shown.
const SHOWN_ALPHA: f64 = 0.05;

impl Paired {
    /// Begins a shadow.
    ///
    /// # Errors
    ///
    /// Returns the fault of the plan.
    pub fn new(plan: Plan) -> Result<Self, PlanError> {
        plan.check()?;
        Ok(Self {
            plan,
            measures: BTreeMap::new(),
            pairs: 0,
            verdict: Verdict::Running,
            exceeded: None,
        })
    }

    /// Returns the plan.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Notes a pair: the measures of what was served, and of what was asked beside it.
    pub fn note(&mut self, served: &BTreeMap<String, f64>, beside: &BTreeMap<String, f64>) {
        if self.verdict != Verdict::Running {
            return;
        }
        self.pairs += 1;
        let alpha = self.plan.alpha_each();
        for (name, served) in served {
            let Some(beside) = beside.get(name) else { continue };
            let measure = self.measures.entry(name.clone()).or_default();
            measure.served.note(*served);
            measure.beside.note(*beside);
            measure.difference.note(beside - served);
            let Some(guardrail) = self.plan.guardrails.get(name) else { continue };
            measure.excess.note(beside - guardrail.allowed(*served));
            if is_above_zero(measure.excess.interval(alpha)) {
                self.exceeded = Some(name.clone());
                self.verdict = Verdict::Guardrail;
                return;
            }
        }
        if self.pairs >= self.plan.most_units {
            self.verdict = Verdict::Inconclusive;
        }
    }

    /// Returns the finding: a guardrail, or that there are as many pairs as were planned.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Returns the measure of the guardrail that was exceeded.
    #[must_use]
    pub fn exceeded(&self) -> Option<&str> {
        self.exceeded.as_deref()
    }

    /// Returns the number of pairs.
    #[must_use]
    pub const fn pairs(&self) -> u64 {
        self.pairs
    }

    /// Returns the measures.
    #[must_use]
    pub fn summary(&self) -> Vec<PairedSummary> {
        let shown = |(name, measure): (&String, &Measure)| PairedSummary {
            name: name.clone(),
            pairs: measure.difference.count,
            served: measure.served.mean,
            beside: measure.beside.mean,
            difference: measure.difference.interval(SHOWN_ALPHA),
        };
        self.measures.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Guardrail, LATENCY},
        *,
    };

    fn run(guardrails: &[(&str, Guardrail)], slower: f64, errors: f64) -> Paired {
        let guardrails = guardrails.iter().map(|(name, it)| ((*name).to_owned(), *it)).collect();
        let plan = Plan { guardrails, most_units: 400, ..Plan::default() };
        let mut paired = Paired::new(plan).expect("the plan is valid");
        let mut random = fastrand::Rng::with_seed(4);
        while paired.verdict() == Verdict::Running {
            let base = 100.0 + 400.0 * random.f64();
            let of = |latency: f64, is_error: bool| {
                let error = f64::from(u8::from(is_error));
                BTreeMap::from([(LATENCY.to_owned(), latency), ("error".to_owned(), error)])
            };
            let fails = random.f64() < errors;
            paired.note(&of(base, false), &of(base * slower + random.f64(), fails));
        }
        paired
    }

    #[test]
    fn a_shadow_ends_with_numbers_or_at_a_guardrail() {
        let guardrails =
            [(LATENCY, Guardrail::MeanTimes(1.2)), ("error", Guardrail::RatePlus(0.05))];
        for (slower, errors, exceeded) in
            [(1.0, 0.02, None), (1.5, 0.0, Some(LATENCY)), (1.0, 0.4, Some("error"))]
        {
            let paired = run(&guardrails, slower, errors);
            assert_eq!(paired.exceeded(), exceeded, "{slower} {errors}");
            assert_eq!(paired.verdict() == Verdict::Guardrail, exceeded.is_some());
            assert!(paired.pairs() >= 30, "{}", paired.pairs());
        }
        let paired = run(&[], 1.5, 0.0);
        assert_eq!((paired.verdict(), paired.pairs()), (Verdict::Inconclusive, 400));
        let latency = paired.summary().into_iter().find(|it| it.name == LATENCY);
        let latency = latency.expect("it was measured");
        let [low, high] = latency.difference.expect("there are enough pairs");
        assert!(low < 150.0 && 150.0 < high, "{low} to {high}");
        assert!((latency.beside / latency.served - 1.5).abs() < 0.01, "{latency:?}");
    }

    #[test]
    fn what_only_one_has_is_no_pair() {
        let mut paired = Paired::new(Plan::default()).expect("the plan is valid");
        paired.note(&BTreeMap::from([("cost".to_owned(), 1.0)]), &BTreeMap::new());
        assert_eq!((paired.pairs(), paired.summary()), (1, Vec::new()));
        let text = serde_json::to_string(&paired).expect("it is written");
        assert_eq!(serde_json::from_str::<Paired>(&text).expect("it is read"), paired);
    }
}

//! Rules: which values are a trouble, how bad it is, and what a person is told.
//!
//! The shipped rules lie in `rules.toml`; the section `rules:` of the configuration changes them
//! key by key and adds others. [`RuleSet::new`] checks both and makes [`Rule`]s of them.

mod options;
pub(crate) mod words;

use std::{collections::BTreeMap, sync::Arc};

use module_sdk::events::{AlertSeverity, CheckStatus};

pub use options::{ConditionOptions, RuleError, RuleOptions};

use crate::{
    metric::{self, Metric, Unit},
    reading::Series,
};

/// A rule, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Name: `disk_low`.
    pub name: Arc<str>,
    /// Trouble that it looks for.
    pub condition: Condition,
    /// Time for which the condition has to hold before an alert is raised, in milliseconds.
    pub for_ms: u64,
    /// Time after which the alert ends once the condition no longer holds, in milliseconds.
    pub keep_ms: u64,
    /// Severity of the alert.
    pub severity: AlertSeverity,
    /// Labels that are added to those of the series.
    pub labels: BTreeMap<String, String>,
    /// Text of the alert, with `{component}`, `{value}`, `{threshold}`, `{reason}` (what the check
    /// says) and `{label.NAME}`.
    pub message: String,
    /// Command or step that comes next, with the same placeholders; empty for none.
    pub next_step: String,
    /// Address of the runbook; empty for the shipped page of that name.
    pub runbook: String,
    /// Rules whose alerts hide those of this one: nobody is told of what follows from them.
    pub hidden_by: Vec<String>,
}

impl Rule {
    /// Returns the unit of the values of a series, as the rule sees them.
    #[must_use]
    pub fn unit(&self, series: &Series) -> Unit {
        match &self.condition.subject {
            Subject::Metric { function: Some((Function::Count, _)), .. } => Unit::Count,
            _ => series.metric.unit,
        }
    }
}

/// Trouble that a rule looks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Number among all conditions of the rules in force.
    pub number: usize,
    /// Thing that is judged.
    pub subject: Subject,
    /// Further conditions on the same component, all of which have to hold as well.
    pub and: Vec<Condition>,
    /// Conditions on the same component, each of which is enough.
    pub or: Vec<Condition>,
}

/// Thing that a condition judges.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// Values of a metric.
    Metric {
        /// The metric.
        metric: &'static Metric,
        /// Labels that a series has to have, with patterns for their values.
        labels: Vec<(&'static str, Pattern)>,
        /// Components whose series are judged.
        component: Pattern,
        /// Function over a time, in milliseconds; the latest value where there is none.
        function: Option<(Function, u64)>,
        /// Comparison with a threshold.
        test: Test,
    },
    /// State of a component by itself: unknown or absent.
    Check {
        /// Components that are judged.
        component: Pattern,
        /// State that is a trouble.
        status: CheckStatus,
    },
    /// An event; the alert fires for `keep_firing_for` after the last one.
    Event {
        /// Filter of its topic.
        topic: String,
        /// Fields that it has to have, with patterns for their values.
        fields: Vec<(String, Pattern)>,
    },
}

/// Comparison with a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Test {
    /// Kind of the comparison.
    pub comparison: Comparison,
    /// Value from which on it is a trouble.
    pub threshold: f64,
    /// Value that a firing alert has to pass to be over: the threshold where none is given.
    pub clear: f64,
}

/// Kind of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Trouble above the threshold.
    Above,
    /// Trouble below the threshold.
    Below,
    /// Trouble at the very value.
    Is,
}

impl Test {
    /// Returns whether a value is a trouble; `is_firing` says whether it already was.
    #[must_use]
    #[expect(clippy::float_cmp, reason = "values such as 0 and 1 are compared as they are")]
    pub fn holds(&self, value: f64, is_firing: bool) -> bool {
        let limit = if is_firing { self.clear } else { self.threshold };
        match self.comparison {
            Comparison::Above => value > limit,
            Comparison::Below => value < limit,
            Comparison::Is => value == self.threshold,
        }
    }
}

/// Function of the values within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// Growth of a counter.
    Increase,
    /// Growth of a counter per second.
    Rate,
    /// Mean.
    Avg,
    /// Largest value.
    Max,
    /// Smallest value.
    Min,
    /// Sum over requests.
    Sum,
    /// Number of requests.
    Count,
    /// Median of requests.
    P50,
    /// 95th percentile of requests.
    P95,
    /// 99th percentile of requests.
    P99,
}

/// Pattern of a name: `*` stands for any number of characters, `|` separates alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Creates a pattern.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the pattern that everything fits.
    #[must_use]
    pub fn any() -> Self {
        Self::new("*")
    }

    /// Returns whether a name fits.
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        self.0.split('|').any(|pattern| fits(pattern.as_bytes(), name.as_bytes()))
    }

    /// Returns the text of the pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Compares in time that grows with the product of the lengths, whatever the pattern.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, from));
            at += 1;
        } else if pattern.get(at) == Some(&name[from]) {
            (at, from) = (at + 1, from + 1);
        } else if let Some((star_at, star_from)) = star {
            star = Some((star_at, star_from + 1));
            (at, from) = (star_at + 1, star_from + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// The rules in force, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RuleSet {
    rules: Arc<[Arc<Rule>]>,
    /// Longest times over which rules look at a metric, in milliseconds, by its slot.
    windows: Arc<[u64]>,
}

/// The shipped rules.
const SHIPPED: &str = include_str!("../../rules.toml");

impl RuleSet {
    /// Returns the shipped rules with the changes of the configuration.
    ///
    /// # Errors
    ///
    /// The first rule that cannot be used.
    pub fn new(changes: &BTreeMap<String, RuleOptions>) -> Result<Self, RuleError> {
        let mut all = Self::shipped()?;
        for (name, change) in changes {
            match all.get_mut(name) {
                Some(rule) => rule.change(change),
                None => drop(all.insert(name.clone(), change.clone())),
            }
        }
        let known: Vec<&str> = all.keys().map(String::as_str).collect();
        let enabled = all.iter().filter(|(_, options)| options.enabled != Some(false));
        let mut number = 0;
        let rules = enabled
            .map(|(name, options)| {
                let mut rule = options.rule(name, &known)?;
                rule.condition.number_from(&mut number);
                Ok(Arc::new(rule))
            })
            .collect::<Result<Arc<[Arc<Rule>]>, RuleError>>()?;
        let window = |metric: &&'static Metric| {
            let each = rules.iter().map(|rule| rule.condition.window_ms(metric));
            each.max().unwrap_or(0)
        };
        Ok(Self { windows: metric::ALL.iter().map(window).collect(), rules })
    }

    fn shipped() -> Result<BTreeMap<String, RuleOptions>, RuleError> {
        toml::from_str(SHIPPED).map_err(|error| RuleError::Shipped(error.to_string()))
    }

    /// Returns the rules.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Rule>> {
        self.rules.iter()
    }

    /// Returns a rule by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| &*rule.name == name)
    }

    /// Returns the longest time, in milliseconds, over which a rule looks at a metric.
    #[must_use]
    pub fn window_ms(&self, metric: &Metric) -> u64 {
        self.windows.get(metric.slot).copied().unwrap_or(0)
    }

    /// Returns the numbers of the conditions that judge a series.
    #[must_use]
    pub fn judging(&self, series: &Series) -> Box<[usize]> {
        let mut all = Vec::new();
        for rule in self.iter() {
            rule.condition.walk(&mut |condition| {
                if condition.is_about(series) {
                    all.push(condition.number);
                }
            });
        }
        all.into()
    }

    /// Returns the limit of a series nearest to being passed: the threshold of the mildest rule
    /// that judges its latest value.
    #[must_use]
    pub fn limit(&self, series: &Series) -> Option<f64> {
        let mut nearest: Option<Test> = None;
        for rule in self.iter() {
            if let Subject::Metric { metric, component, function: None, test, .. } =
                &rule.condition.subject
                && metric.slot == series.metric.slot
                && component.fits(&series.component)
            {
                let is_nearer = nearest.is_none_or(|nearest| match test.comparison {
                    Comparison::Below => test.threshold > nearest.threshold,
                    _ => test.threshold < nearest.threshold,
                });
                if is_nearer {
                    nearest = Some(*test);
                }
            }
        }
        nearest.map(|test| test.threshold)
    }
}

impl Condition {
    /// Calls a function with this condition and all further ones.
    pub(crate) fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        visit(self);
        self.and.iter().chain(&self.or).for_each(|other| other.walk(visit));
    }

    /// Returns whether it judges a series, by its metric, component and labels.
    pub(crate) fn is_about(&self, series: &Series) -> bool {
        let Subject::Metric { metric, labels, component, .. } = &self.subject else { return false };
        metric.slot == series.metric.slot
            && component.fits(&series.component)
            && labels.iter().all(|(name, pattern)| {
                series.pairs().any(|(label, value)| label == *name && pattern.fits(value))
            })
    }

    fn number_from(&mut self, next: &mut usize) {
        self.number = *next;
        *next += 1;
        self.and.iter_mut().chain(&mut self.or).for_each(|other| other.number_from(next));
    }

    fn window_ms(&self, metric: &Metric) -> u64 {
        let own = match &self.subject {
            Subject::Metric { metric: own, function: Some((_, over)), .. }
                if own.slot == metric.slot =>
            {
                *over
            }
            _ => 0,
        };
        let others = self.and.iter().chain(&self.or).map(|other| other.window_ms(metric));
        others.max().unwrap_or(0).max(own)
    }
}

#[cfg(test)]
mod tests;

//! Rules as they are written, and what can be wrong with them.

use std::{collections::BTreeMap, time::Duration};

use module_sdk::events::{AlertSeverity, CheckStatus};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Comparison, Condition, Function, Pattern, Rule, Subject, Test, words::word};
use crate::{
    metric::{self, Kind, UnknownMetric},
    quantity::{Quantity, Span},
    requests,
};

/// A rule: a condition, and what follows from it. In the configuration it changes the shipped rule
/// of its name key by key, or is a rule of its own.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuleOptions {
    /// `false` switches the rule off.
    pub enabled: Option<bool>,
    /// Metric that is judged.
    pub metric: Option<String>,
    /// Component or components that are judged: `disk.*`, `gpu.0|gpu.1`. Default: all.
    pub component: Option<String>,
    /// State of the component that is a trouble, instead of a metric: `unknown` or `absent`.
    pub check: Option<CheckStatus>,
    /// Topic of the events that are a trouble, instead of a metric: `usage.budget.exceeded`.
    pub event: Option<String>,
    /// Labels of the series, or fields of the event, that are judged, with patterns.
    #[serde(rename = "match")]
    pub matching: Option<BTreeMap<String, String>>,
    /// Function of the values over a time: `avg`, `max`, `min`, `increase`, `rate`; of requests
    /// `sum`, `count`, `p50`, `p95`, `p99`.
    pub function: Option<Function>,
    /// Time that the function looks at: `5m`.
    pub over: Option<Span>,
    /// Value above which it is a trouble.
    pub above: Option<Quantity>,
    /// Value below which it is a trouble.
    pub below: Option<Quantity>,
    /// Value at which it is a trouble.
    pub is: Option<Quantity>,
    /// Value that has to be passed for the trouble to be over; between it and the threshold an
    /// alert goes on, but none begins.
    pub clear: Option<Quantity>,
    /// Conditions on the same component that have to hold as well.
    pub and: Option<Vec<ConditionOptions>>,
    /// Conditions on the same component, each of which is enough.
    pub or: Option<Vec<ConditionOptions>>,
    /// Time for which the condition has to hold before an alert is raised.
    #[serde(rename = "for")]
    pub hold: Option<Span>,
    /// Time after which an alert ends once the condition no longer holds.
    pub keep_firing_for: Option<Span>,
    /// `critical` (the system is down), `warning` (degraded) or `info`.
    pub severity: Option<AlertSeverity>,
    /// Labels that are added to the alert.
    pub labels: Option<BTreeMap<String, String>>,
    /// Text of the alert: `{component}`, `{value}`, `{threshold}`, `{reason}` (what the check says)
    /// and `{label.NAME}` are replaced.
    pub message: Option<String>,
    /// Command or step that comes next.
    pub next_step: Option<String>,
    /// Address of a page that says what to do.
    pub runbook: Option<String>,
    /// Rules whose alerts hide those of this one.
    pub hidden_by: Option<Vec<String>>,
}

/// A further condition of a rule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConditionOptions {
    /// Metric that is judged.
    pub metric: Option<String>,
    /// Labels of the series that are judged, with patterns.
    #[serde(rename = "match")]
    pub matching: Option<BTreeMap<String, String>>,
    /// Function of the values over a time.
    pub function: Option<Function>,
    /// Time that the function looks at.
    pub over: Option<Span>,
    /// Value above which it holds.
    pub above: Option<Quantity>,
    /// Value below which it holds.
    pub below: Option<Quantity>,
    /// Value at which it holds.
    pub is: Option<Quantity>,
    /// Value that has to be passed for it to be over.
    pub clear: Option<Quantity>,
    /// Conditions that have to hold as well.
    pub and: Option<Vec<ConditionOptions>>,
}

/// Reason why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Shipped rules that cannot be read.
    #[error("the shipped rules cannot be read: {0}")]
    Shipped(String),
    /// A key of a rule.
    #[error("{message}")]
    At {
        /// Name of the rule.
        rule: String,
        /// Key of the rule, empty for the rule itself.
        key: String,
        /// Explanation of the mistake, and the remedy.
        message: String,
    },
}

impl RuleError {
    /// Returns the key in the module's section that is wrong.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Shipped(_) => "rules".to_owned(),
            Self::At { rule, key, .. } if key.is_empty() => format!("rules.{rule}"),
            Self::At { rule, key, .. } => format!("rules.{rule}.{key}"),
        }
    }
}

/// Problem with a key.
struct Wrong(&'static str, String);

impl RuleOptions {
    /// Changes this rule by the keys that another one has. A rule that gets another subject loses
    /// what belonged to the former one.
    pub(super) fn change(&mut self, by: &Self) {
        if by.metric.is_some() || by.event.is_some() || by.check.is_some() {
            *self = Self {
                severity: self.severity,
                message: self.message.take(),
                next_step: self.next_step.take(),
                runbook: self.runbook.take(),
                hold: self.hold,
                keep_firing_for: self.keep_firing_for,
                ..Self::default()
            };
        }
        if by.above.is_some() || by.below.is_some() || by.is.is_some() {
            // A hysteresis belongs to its threshold.
            (self.above, self.below, self.is, self.clear) = (None, None, None, None);
        }
        macro_rules! take {
            ($($key:ident),+) => { $(if by.$key.is_some() { self.$key.clone_from(&by.$key); })+ };
        }
        take!(
            enabled,
            metric,
            component,
            check,
            event,
            matching,
            function,
            over,
            above,
            below,
            is,
            clear,
            and,
            or,
            hold,
            keep_firing_for,
            severity,
            labels,
            message,
            next_step,
            runbook,
            hidden_by
        );
    }

    /// Checks the rule.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub(super) fn rule(&self, name: &str, known: &[&str]) -> Result<Rule, RuleError> {
        self.checked(name, known).map_err(|Wrong(key, message)| RuleError::At {
            rule: name.to_owned(),
            key: key.to_owned(),
            message,
        })
    }

    fn checked(&self, name: &str, known: &[&str]) -> Result<Rule, Wrong> {
        if !module_sdk::manifest::valid_name(name) {
            let message = format!(
                "{name:?} cannot be the name of a rule: 1 to 32 of a-z, 0-9 and _, beginning with \
                 a letter"
            );
            return Err(Wrong("", message));
        }
        for hidden_by in self.hidden_by.iter().flatten() {
            if !known.contains(&hidden_by.as_str()) {
                let near = module_sdk::nearest(hidden_by, known.iter().copied());
                let near = near.map_or(String::new(), |near| format!("; is {near} meant?"));
                return Err(Wrong("hidden_by", format!("no rule is called {hidden_by:?}{near}")));
            }
        }
        Ok(Rule {
            name: name.into(),
            condition: self.condition()?,
            for_ms: self.hold.unwrap_or_default().ms(),
            keep_ms: self.keep_firing_for.unwrap_or_default().ms(),
            severity: self.severity.unwrap_or(AlertSeverity::Warning),
            labels: self.labels.clone().unwrap_or_default(),
            message: match &self.message {
                Some(message) => message.clone(),
                None if self.metric.is_some() => "{component} is at {value}.".to_owned(),
                None if self.check.is_some() => "{component}: {reason}".to_owned(),
                None => "{component} : it was announced.".to_owned(),
            },
            next_step: self.next_step.clone().unwrap_or_default(),
            runbook: self.runbook.clone().unwrap_or_default(),
            hidden_by: self.hidden_by.clone().unwrap_or_default(),
        })
    }

    fn condition(&self) -> Result<Condition, Wrong> {
        let component = self.component.clone().map_or_else(Pattern::any, Pattern::new);
        let subjects = [self.metric.is_some(), self.event.is_some(), self.check.is_some()];
        if subjects.iter().filter(|is_given| **is_given).count() != 1 {
            let message = "a rule judges one thing: write `metric`, `event` or `check`";
            return Err(Wrong("", message.to_owned()));
        }
        let main = ConditionOptions {
            metric: self.metric.clone(),
            matching: self.matching.clone(),
            function: self.function,
            over: self.over,
            above: self.above,
            below: self.below,
            is: self.is,
            clear: self.clear,
            and: None,
        };
        if self.metric.is_some() {
            let mut condition = main.condition(component)?;
            condition.and = further(self.and.as_deref(), "and")?;
            condition.or = further(self.or.as_deref(), "or")?;
            return Ok(condition);
        }
        if main.tests() > 0 || self.function.is_some() || self.over.is_some() {
            let message = "thresholds and functions belong to a rule with a `metric`";
            return Err(Wrong("", message.to_owned()));
        }
        if self.and.is_some() || self.or.is_some() {
            let message = "further conditions belong to a rule with a `metric`";
            return Err(Wrong("", message.to_owned()));
        }
        let subject = match (&self.event, self.check) {
            (Some(topic), _) => {
                Subject::Event { topic: topic.clone(), fields: patterns(self.matching.as_ref()) }
            }
            (None, Some(status @ (CheckStatus::Unknown | CheckStatus::Absent))) => {
                Subject::Check { component, status }
            }
            (None, _) => {
                let message =
                    "`check` is `unknown` or `absent`: the other states follow from rules";
                return Err(Wrong("check", message.to_owned()));
            }
        };
        Ok(Condition { number: 0, subject, and: Vec::new(), or: Vec::new() })
    }
}

fn further(
    conditions: Option<&[ConditionOptions]>,
    key: &'static str,
) -> Result<Vec<Condition>, Wrong> {
    let conditions = conditions.unwrap_or_default().iter();
    conditions
        .map(|condition| {
            let Wrong(inner, message) = match condition.condition(Pattern::any()) {
                Ok(condition) => return Ok(condition),
                Err(wrong) => wrong,
            };
            let inner = if inner.is_empty() { String::new() } else { format!("`{inner}`: ") };
            Err(Wrong(key, format!("{inner}{message}")))
        })
        .collect()
}

impl ConditionOptions {
    fn tests(&self) -> usize {
        [self.above, self.below, self.is].iter().flatten().count()
    }

    fn condition(&self, component: Pattern) -> Result<Condition, Wrong> {
        let name = self.metric.as_deref().unwrap_or_default();
        let metric = metric::find(name)
            .map_err(|error: UnknownMetric| Wrong("metric", error.to_string()))?;
        let mut labels = Vec::new();
        for (label, pattern) in self.matching.iter().flatten() {
            let Some(label) = metric.labels.iter().find(|known| *known == label) else {
                let known = if metric.labels.is_empty() {
                    "it has none".to_owned()
                } else {
                    format!("it has {}", metric.labels.join(", "))
                };
                return Err(Wrong("match", format!("{name} has no label {label:?}: {known}")));
            };
            labels.push((*label, Pattern::new(pattern.clone())));
        }
        let function = self.function(metric)?;
        let test = self.test(metric, function)?;
        let subject = Subject::Metric { metric, labels, component, function, test };
        let and = further(self.and.as_deref(), "and")?;
        Ok(Condition { number: 0, subject, and, or: Vec::new() })
    }

    fn function(&self, metric: &'static metric::Metric) -> Result<Option<(Function, u64)>, Wrong> {
        use Function::{Avg, Increase, Max, Min, Rate};

        let (Some(function), Some(over)) = (self.function, self.over) else {
            return match (self.function, self.over, metric.kind) {
                (Some(_), None, _) => {
                    Err(Wrong("over", "the function needs a time: `over: 5m`".into()))
                }
                (None, Some(_), _) => {
                    Err(Wrong("function", "`over` needs a function: `function: avg`".into()))
                }
                (None, None, Kind::Counter) => {
                    let message = format!(
                        "{} only grows; write `function: increase` and `over: 10m`",
                        metric.name
                    );
                    Err(Wrong("function", message))
                }
                (None, None, Kind::Requests) => {
                    let usual = requests::functions(metric).first().map(|it| word(*it));
                    let message = format!(
                        "{} is of single requests; write `function: {}` and `over: 10m`",
                        metric.name,
                        usual.unwrap_or_default()
                    );
                    Err(Wrong("function", message))
                }
                _ => Ok(None),
            };
        };
        let fitting: &[Function] = match metric.kind {
            Kind::Gauge | Kind::Histogram => &[Avg, Max, Min],
            Kind::Counter => &[Increase, Rate],
            Kind::Requests => requests::functions(metric),
        };
        if !fitting.contains(&function) {
            let names: Vec<&str> = fitting.iter().map(|it| word(*it)).collect();
            let message = format!("{} can be asked for {}", metric.name, names.join(", "));
            return Err(Wrong("function", message));
        }
        if over.ms() == 0 {
            return Err(Wrong("over", "the time must be longer than 0s".into()));
        }
        let longest = requests::longest_ms(function);
        if metric.kind == Kind::Requests && over.ms() > longest {
            let longest = Span(Duration::from_millis(longest));
            let message = format!("{} of requests is known over at most {longest}", word(function));
            return Err(Wrong("over", message));
        }
        Ok(Some((function, over.ms())))
    }

    fn test(
        &self,
        metric: &'static metric::Metric,
        function: Option<(Function, u64)>,
    ) -> Result<Test, Wrong> {
        let given = [
            ("above", Comparison::Above, self.above),
            ("below", Comparison::Below, self.below),
            ("is", Comparison::Is, self.is),
        ];
        let mut given = given.into_iter().filter_map(|(key, comparison, quantity)| {
            quantity.map(|quantity| (key, comparison, quantity))
        });
        let (key, comparison, threshold) = given
            .next()
            .ok_or_else(|| Wrong("", "a condition needs `above`, `below` or `is`".to_owned()))?;
        if let Some((other, ..)) = given.next() {
            let message = format!("`{key}` and `{other}` contradict each other; write one of them");
            return Err(Wrong(other, message));
        }
        let counts = matches!(function, Some((Function::Count | Function::Rate, _)));
        for (key, quantity) in [(key, Some(threshold)), ("clear", self.clear)] {
            if let Some(unit) = quantity.and_then(|quantity| quantity.unit)
                && (unit != metric.unit || counts)
            {
                let message = format!(
                    "{} is in {}, not in {}",
                    metric.name,
                    if counts { "numbers" } else { metric.unit.as_str() },
                    unit.as_str()
                );
                return Err(Wrong(key, message));
            }
        }
        let clear = self.clear.unwrap_or(threshold).value;
        let contradicts = match comparison {
            Comparison::Above => clear > threshold.value,
            Comparison::Below => clear < threshold.value,
            Comparison::Is => self.clear.is_some(),
        };
        if contradicts {
            let message = match comparison {
                Comparison::Above => "`clear` must not be above the threshold `above`",
                Comparison::Below => "`clear` must not be below the threshold `below`",
                Comparison::Is => "`clear` does not go with `is`",
            };
            return Err(Wrong("clear", message.to_owned()));
        }
        Ok(Test { comparison, threshold: threshold.value, clear })
    }
}

fn patterns(fields: Option<&BTreeMap<String, String>>) -> Vec<(String, Pattern)> {
    let fields = fields.into_iter().flatten();
    fields.map(|(name, pattern)| (name.clone(), Pattern::new(pattern.clone()))).collect()
}

//! Conditions in words, with the names that the configuration has for them.

use std::{fmt, time::Duration};

use module_sdk::events::CheckStatus;

use super::{Comparison, Condition, Function, Pattern, Subject, Test};
use crate::{
    metric::{Metric, Unit},
    quantity::Span,
    text,
};

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subject)?;
        for other in &self.and {
            write!(f, " and {other}")?;
        }
        for other in &self.or {
            write!(f, ", or {other}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metric { metric, labels, component, function, test } => {
                if let Some((function, _)) = function {
                    write!(f, "{} of ", word(*function))?;
                }
                f.write_str(metric.name)?;
                matching(f, labels.iter().map(|(label, pattern)| (*label, pattern)))?;
                if *component != Pattern::any() {
                    write!(f, " of {}", text::visible(component.as_str()))?;
                }
                if let Some((_, over_ms)) = function {
                    write!(f, " over {}", span(*over_ms))?;
                }
                compared(f, *test, metric, function.map(|(function, _)| function))
            }
            Self::Check { component, status } => {
                let state = if *status == CheckStatus::Absent { "absent" } else { "unknown" };
                write!(f, "{} is {state}", text::visible(component.as_str()))
            }
            Self::Event { topic, fields } => {
                write!(f, "an event {}", text::visible(topic))?;
                matching(f, fields.iter().map(|(name, pattern)| (name.as_str(), pattern)))
            }
        }
    }
}

/// Returns a length of time as a rule has it.
pub(crate) fn span(ms: u64) -> Span {
    Span(Duration::from_millis(ms))
}

fn matching<'a>(
    f: &mut fmt::Formatter<'_>,
    patterns: impl Iterator<Item = (&'a str, &'a Pattern)>,
) -> fmt::Result {
    let all: Vec<String> = patterns
        .map(|(name, pattern)| {
            format!("{}: {}", text::visible(name), text::visible(pattern.as_str()))
        })
        .collect();
    if all.is_empty() { Ok(()) } else { write!(f, " {{{}}}", all.join(", ")) }
}

fn compared(
    f: &mut fmt::Formatter<'_>,
    test: Test,
    metric: &Metric,
    function: Option<Function>,
) -> fmt::Result {
    let unit = if function == Some(Function::Count) { Unit::Count } else { metric.unit };
    let shown = |value: f64| match (unit, function) {
        // The words for these are of a thing that is up or down, which a limit is not.
        (Unit::Flag, _) => format!("{value}"),
        (_, Some(Function::Rate)) => format!("{} per second", text::show(unit, value)),
        _ => text::show(unit, value),
    };
    let comparison = match test.comparison {
        Comparison::Above => "above",
        Comparison::Below => "below",
        Comparison::Is => "is",
    };
    write!(f, " {comparison} {}", shown(test.threshold))?;
    let has_hysteresis = (test.clear - test.threshold).abs() > f64::EPSILON;
    if has_hysteresis { write!(f, " (until {})", shown(test.clear)) } else { Ok(()) }
}

/// Returns the word for a function, as a rule has it.
pub(super) const fn word(function: Function) -> &'static str {
    match function {
        Function::Increase => "increase",
        Function::Rate => "rate",
        Function::Avg => "avg",
        Function::Max => "max",
        Function::Min => "min",
        Function::Sum => "sum",
        Function::Count => "count",
        Function::P50 => "p50",
        Function::P95 => "p95",
        Function::P99 => "p99",
    }
}

#[cfg(test)]
mod tests {
    use crate::rule::RuleSet;

    #[test]
    fn conditions_have_words() {
        let check = |rule: serde_json::Value, expected: &str| {
            let rules = serde_json::from_value(serde_json::json!({"mine": rule})).expect("rules");
            let rules = RuleSet::new(&rules).expect("it is valid");
            let rule = rules.get("mine").expect("it is there");
            assert_eq!(rule.condition.to_string(), expected);
        };
        let memory = "system_memory_utilization_ratio";
        check(
            serde_json::json!({
                "metric": memory, "above": "90%", "clear": "85%",
                "and": [{"metric": "lodestar_filesystem_free_bytes", "below": "2GiB"}],
                "or": [{"metric": "lodestar_component_up", "is": 0}],
            }),
            "system_memory_utilization_ratio above 90% (until 85%) \
             and lodestar_filesystem_free_bytes below 2 GiB, or lodestar_component_up is 0",
        );
        check(
            serde_json::json!({
                "metric": "lodestar_oom_kills_total", "function": "increase", "over": "10m",
                "above": 0, "component": "memory",
            }),
            "increase of lodestar_oom_kills_total of memory over 10m above 0",
        );
        check(
            serde_json::json!({
                "metric": "lodestar_component_up", "match": {"component": "router"}, "is": 0,
            }),
            "lodestar_component_up {component: router} is 0",
        );
        check(serde_json::json!({"check": "unknown", "component": "disk.*"}), "disk.* is unknown");
        check(
            serde_json::json!({"event": "usage.budget.*", "match": {"name": "a\u{1b}[m"}}),
            "an event usage.budget.* {name: a\\u{1b}[m}",
        );
    }
}

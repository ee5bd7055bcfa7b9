//! Dependencies: alerts that follow from another one that fires, and of which nobody is told.

use std::collections::{BTreeMap, BTreeSet};

use module_sdk::events::AlertSeverity;

use super::note::Subject;
use crate::rule::RuleSet;

/// Returns the keys of the alerts that others hide: by `hidden_by` of their rules, also by way of
/// rules whose own alerts do not fire, and a critical alert hides the milder ones of its component.
///
/// Of alerts that hide each other in a circle none is hidden: somebody has to be told.
pub(super) fn hidden<'a>(
    alerts: &BTreeMap<&'a str, &'a Subject>,
    rules: &RuleSet,
) -> BTreeSet<&'a str> {
    let mut by_rule: BTreeMap<&str, Vec<&'a str>> = BTreeMap::new();
    let mut critical: BTreeMap<&str, Vec<&'a str>> = BTreeMap::new();
    for (key, alert) in alerts {
        by_rule.entry(&alert.name).or_default().push(key);
        if alert.severity == AlertSeverity::Critical {
            critical.entry(&alert.component).or_default().push(key);
        }
    }
    let mut hides: BTreeMap<&'a str, Vec<&'a str>> = BTreeMap::new();
    let mut roots: Vec<&'a str> = Vec::new();
    for (key, alert) in alerts {
        let mut causes: BTreeSet<&'a str> = BTreeSet::new();
        for rule in above(&alert.name, rules) {
            let of_rule = by_rule.get(rule).into_iter().flatten();
            causes.extend(of_rule.filter(|cause| concerns(alerts[*cause], alert)));
        }
        if alert.severity != AlertSeverity::Critical {
            causes.extend(critical.get(alert.component.as_str()).into_iter().flatten());
        }
        causes.remove(key);
        if causes.is_empty() {
            roots.push(key);
        }
        for cause in causes {
            hides.entry(cause).or_default().push(key);
        }
    }
    let mut hidden = BTreeSet::new();
    while let Some(cause) = roots.pop() {
        for key in hides.get(cause).into_iter().flatten() {
            if hidden.insert(*key) {
                roots.push(key);
            }
        }
    }
    hidden
}

/// Returns the rules whose alerts hide those of a rule, also by way of others.
fn above<'a>(rule: &str, rules: &'a RuleSet) -> BTreeSet<&'a str> {
    let mut above: BTreeSet<&'a str> = BTreeSet::new();
    let mut open: Vec<&str> = vec![rule];
    while let Some(rule) = open.pop() {
        for name in rules.get(rule).into_iter().flat_map(|rule| &rule.hidden_by) {
            if above.insert(name) {
                open.push(name);
            }
        }
    }
    above
}

/// Returns whether one alert can be the cause of another one: one of the whole, or of the same
/// thing. A full `disk./` hides nothing of `disk./home`, and a lost provider no model of another.
fn concerns(cause: &Subject, alert: &Subject) -> bool {
    let kind = |component: &str| component.split('.').next().map(str::to_owned);
    if cause.component.contains('.') && kind(&cause.component) == kind(&alert.component) {
        return cause.component == alert.component;
    }
    let is_other = |(name, value): (&String, &String)| {
        name != "component" && alert.labels.get(name).is_some_and(|own| own != value)
    };
    if cause.labels.iter().any(is_other) {
        return false;
    }
    let provider = cause.component.strip_prefix("provider.");
    let own = alert.labels.get("gen_ai_provider_name");
    provider.zip(own).is_none_or(|(provider, own)| provider == own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::note::tests::subject;

    fn rules() -> RuleSet {
        let rule = |hidden_by: &[&str]| {
            serde_json::json!({
                "metric": "system_memory_utilization_ratio", "above": 1, "hidden_by": hidden_by,
            })
        };
        let rules = serde_json::from_value(serde_json::json!({
            "router_down": rule(&[]),
            "model_down": rule(&["router_down", "gpu_lost"]),
            "model_slow": rule(&["model_down"]),
            "gpu_lost": rule(&[]),
            "egg": rule(&["hen"]),
            "hen": rule(&["egg"]),
        }));
        RuleSet::new(&rules.expect("they are rules")).expect("they are valid")
    }

    fn check(alerts: &[&Subject], expected: &[&str]) {
        let alerts = alerts.iter().map(|alert| (alert.component.as_str(), *alert));
        let hidden = hidden(&alerts.collect(), &rules());
        assert_eq!(hidden.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_follows_from_another_alert_is_hidden() {
        let router = subject("router_down", "router", "critical");
        let down = subject("model_down", "model.a", "warning");
        let slow = subject("model_slow", "model.b", "warning");
        check(&[&router, &down, &slow], &["model.a", "model.b"]);
        // The rule between them does not fire.
        check(&[&router, &slow], &["model.b"]);
        // A model that is down slows itself down, and no other one.
        check(&[&down, &slow], &[]);
        check(&[&down], &[]);
    }

    #[test]
    fn alerts_of_another_thing_are_not_hidden() {
        let full = subject("disk_almost_full", "disk./", "critical");
        let home = subject("disk_low", "disk./home", "warning");
        check(&[&full, &home], &[]);
        let mut low = subject("disk_low", "disk./", "warning");
        low.id = "x".to_owned();
        let both = BTreeMap::from([("full", &full), ("low", &low)]);
        assert_eq!(hidden(&both, &rules()), ["low"].into());
        let of = |alert: Subject, name: &str, value: &str| {
            let mut alert = alert;
            alert.labels.insert(name.to_owned(), value.to_owned());
            alert
        };
        let lost = of(subject("gpu_lost", "gpu", "critical"), "gen_ai_provider_name", "ollama");
        let down = |provider| {
            of(subject("model_down", "model.a", "warning"), "gen_ai_provider_name", provider)
        };
        check(&[&lost, &down("ollama")], &["model.a"]);
        check(&[&lost, &down("openai")], &[]);
    }

    #[test]
    fn of_a_circle_somebody_is_told() {
        check(&[&subject("egg", "a", "warning"), &subject("hen", "b", "warning")], &[]);
    }
}

//! Experiments as they are shown.

use module_sdk::{Table, human::count};
use serde_json::{Value, json};

use crate::commands::time;
use crate::experiment::{
    Question, Verdict,
    store::{Stored, Trial},
};

/// Returns the state: that of the version while it goes on, and the one that it led to.
pub(super) fn state(stored: &Stored) -> &'static str {
    match (&stored.trial, stored.ended_at.is_some(), stored.trial.verdict()) {
        (Trial::Shadow(_), false, _) => "shadow",
        (Trial::Shadow(_), true, _) => "ended",
        (Trial::Split(_), false, _) => "ab_running",
        (Trial::Split(_), true, Verdict::Passed) => "ab_passed",
        (Trial::Split(_), true, Verdict::Worse | Verdict::Guardrail) => "ab_failed",
        (Trial::Split(_), true, _) => "inconclusive",
    }
}

pub(super) fn data(stored: &Stored) -> Value {
    let plan = stored.trial.plan();
    let mut shown = json!({
        "id": stored.id, "state": state(stored), "created_at": time(stored.created_at),
        "version": stored.challenger, "champion": stored.champion,
        "started_by": stored.started_by, "reason": stored.reason,
        "ended_at": stored.ended_at.and_then(time), "end_reason": stored.end_reason,
        "share_percent": stored.route.percent, "unit": stored.route.unit,
        "models": stored.route.models, "model": stored.route.model,
        "provider": stored.route.provider,
        "outcome_seconds": stored.route.outcome_seconds,
        "verdict": stored.trial.verdict(), "exceeded": stored.trial.exceeded(),
        "alpha": plan.alpha, "most_units": plan.most_units,
    });
    let more = match &stored.trial {
        Trial::Split(experiment) => {
            let summary = experiment.summary();
            let pair = |values: [Value; 2]| {
                let [champion, challenger] = values;
                json!({"champion": champion, "challenger": challenger})
            };
            let guards = summary.guards.iter().map(|guard| {
                json!({
                    "name": guard.name, "limit": guard.limit,
                    "champion": guard.values[0], "challenger": guard.values[1],
                })
            });
            json!({
                "kind": "split", "question": plan.question, "margin": plan.margin,
                "units": summary.units,
                "assigned": pair(summary.assigned.map(Value::from)),
                "outcomes": pair(summary.outcomes.map(|it| json!(it))),
                "p_value": summary.p_not_worse, "p_worse": summary.p_worse,
                "guardrails": guards.collect::<Vec<_>>(),
            })
        }
        Trial::Shadow(paired) => json!({
            "kind": "shadow", "pairs": paired.pairs(), "measures": paired.summary(),
            "guardrails": plan.guardrails,
        }),
    };
    if let (Some(shown), Some(more)) = (shown.as_object_mut(), more.as_object()) {
        shown.extend(more.clone());
    }
    shown
}

/// Returns the table of what was measured.
pub(super) fn measures(shown: &Value) -> Table {
    let number = |value: &Value| match value.as_f64() {
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.4}"),
        None => "-".to_owned(),
    };
    let mut table = Table::new(["MEASURE", "CHAMPION#", "CHALLENGER#"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if shown["kind"] == "shadow" {
        for it in shown["measures"].as_array().into_iter().flatten() {
            table.row([text(&it["name"]), number(&it["served"]), number(&it["beside"])]);
        }
        return table;
    }
    let whole = |key: &str, arm: &str| shown[key][arm].as_u64().unwrap_or_default();
    let count_of = |arm: &str| count(whole("assigned", arm));
    table.row(["units".to_owned(), count_of("champion"), count_of("challenger")]);
    let good = |arm: &str| {
        let outcomes = &shown["outcomes"][arm];
        let of = |key: &str| count(outcomes[key].as_u64().unwrap_or_default());
        format!("{} of {}", of("good"), of("all"))
    };
    table.row(["good".to_owned(), good("champion"), good("challenger")]);
    for it in shown["guardrails"].as_array().into_iter().flatten() {
        table.row([text(&it["name"]), number(&it["champion"]), number(&it["challenger"])]);
    }
    table
}

pub(super) fn notes(stored: &Stored, waiting: u64) -> Vec<String> {
    let mut notes = Vec::new();
    let unit = stored.route.unit.as_str();
    if let (Trial::Split(experiment), Verdict::Running, None) =
        (&stored.trial, stored.trial.verdict(), stored.ended_at)
    {
        let summary = experiment.summary();
        let question = match experiment.plan().question {
            Question::NotWorse => "not worse by more than the margin",
            Question::Better => "better",
        };
        notes.push(format!(
            "{question}: p = {:.3}; worse: p = {:.3}; each holds at every look",
            summary.p_not_worse, summary.p_worse
        ));
        if waiting > 0 {
            notes.push(format!("{} {unit}s wait for their outcome", count(waiting)));
        }
    }
    match &stored.end_reason {
        Some(reason) => notes.push(format!("ended: {reason}")),
        None => notes.push(format!(
            "`lodestar learning experiments stop {} --reason TEXT` ends it",
            stored.id
        )),
    }
    notes
}

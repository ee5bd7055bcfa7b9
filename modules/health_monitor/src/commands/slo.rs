//! `lodestar health slo`.

use module_sdk::{Reply, Result, Table, human, jiff::ToSpan as _};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::status::millisecond;
use crate::{HealthMonitor, metric::Unit, quantity::Span, slo::Standing, text, time::Moment};

/// Shows what is left of the error budget of each objective, how fast it is used up, and when
/// nothing will be left.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SloArgs {}

impl HealthMonitor {
    pub(crate) fn slo(&mut self, _: SloArgs) -> Result<Reply> {
        self.look()?;
        let standings = self.objectives.standings(self.now);
        let data: Vec<Value> =
            standings.iter().map(|standing| standing_json(standing, self.now)).collect();
        let head =
            ["SLO", "OBJECTIVE", "WINDOW#", "REQ#", "BAD#", "LEFT#", "5M#", "1H#", "6H#", "BUDGET"];
        let mut table = Table::new(head);
        for standing in &standings {
            table.row(row(standing));
        }
        if standings.is_empty() {
            table.notes.push("No objective is switched on.".to_owned());
        } else {
            let note = "5M, 1H, 6H: burn rates; 1 uses up the budget in the window.";
            table.notes.push(note.to_owned());
        }
        Ok(Reply::json(&data)?.table(table))
    }
}

fn row(standing: &Standing) -> [String; 10] {
    let rate = |name: &str| {
        let burn = standing.windows.iter().find(|burn| burn.window == name);
        let rate = burn.and_then(|burn| burn.burn_rate);
        rate.map_or_else(|| "-".to_owned(), |rate| text::show(Unit::Count, rate))
    };
    [
        standing.slo.name.to_string(),
        standing.objective_text(),
        window(standing),
        human::count(standing.requests),
        human::count(standing.errors),
        text::show(Unit::Ratio, standing.budget_remaining),
        rate("5m"),
        rate("1h"),
        rate("6h"),
        standing.used_up_text(),
    ]
}

fn window(standing: &Standing) -> String {
    let ms = u64::try_from(standing.slo.window_ms).unwrap_or(0);
    Span(std::time::Duration::from_millis(ms)).to_string()
}

fn standing_json(standing: &Standing, now: Moment) -> Value {
    let rates: Map<String, Value> = standing
        .windows
        .iter()
        .map(|burn| {
            let (requests, errors) = (burn.requests, burn.errors);
            let rate = json!({"burn_rate": burn.burn_rate, "requests": requests, "errors": errors});
            (burn.window.to_owned(), rate)
        })
        .collect();
    let used_up_at =
        standing.used_up_in_ms.and_then(|ms| now.at.checked_add(ms.milliseconds()).ok());
    let slo = &standing.slo;
    json!({
        "name": &*slo.name,
        "objective": slo.objective,
        "kind": slo.kind,
        "threshold_ms": slo.threshold_ms,
        "measure": slo.measure,
        "scope": text::visible(&slo.scope.to_string()),
        "window_s": slo.window_ms / 1_000,
        "requests": standing.requests,
        "errors": standing.errors,
        "budget_remaining": standing.budget_remaining,
        "windows": rates,
        "used_up_at": used_up_at.map(millisecond),
    })
}

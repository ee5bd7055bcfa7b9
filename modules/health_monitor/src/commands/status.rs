//! `lodestar health` and `lodestar health checks`.

use std::time::Duration;

use module_sdk::{Reply, Result, Table, events::CheckStatus, human, jiff::Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    HealthMonitor,
    alert::Alert,
    board::{Board, Entry},
    text,
};

/// Shows the state of everything. The exit code is 0 for healthy, 1 for degraded, 2 for down and 3
/// where nothing is known, as monitoring plugins answer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusArgs {}

/// Shows every check with its value and its limit.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChecksArgs {}

impl HealthMonitor {
    pub(crate) fn status(&mut self, _: StatusArgs) -> Result<Reply> {
        self.look()?;
        let (board, now) = (self.monitor.board(), self.host.now());
        let overall = board.overall();
        let alerts: Vec<Value> = self.monitor.alerts().into_iter().map(alert_json).collect();
        let firing = alerts.len();
        let data = json!({
            "status": overall.as_str(),
            "checks": checks_json(board),
            "alerts": alerts,
        });
        // What is well needs no row each: the troubles, then one line per check.
        let mut table = table(board, now);
        table.title = match firing {
            0 => overall.as_str().to_owned(),
            1 => format!("{}: 1 alert", overall.as_str()),
            firing => format!("{}: {firing} alerts", overall.as_str()),
        };
        table.notes.extend(explained(&self.monitor.alerts()));
        Ok(Reply::json(&data)?.table(table).exit_code(overall.exit_code()))
    }

    pub(crate) fn checks(&mut self, _: ChecksArgs) -> Result<Reply> {
        self.look()?;
        let board = self.monitor.board();
        Ok(Reply::json(&checks_json(board))?.table(table(board, self.host.now())))
    }
}

/// Returns the checks as JSON, by name.
pub(crate) fn checks_json(board: &Board) -> Vec<Value> {
    let all = board.iter();
    all.map(|(component, entry)| {
        json!({
            "name": &**component,
            "status": entry.status,
            "value": entry.value.filter(|value| value.is_finite()),
            "unit": entry.unit.map(crate::metric::Unit::as_str),
            "threshold": entry.threshold,
            "since": millisecond(entry.since),
            "message": entry.message,
        })
    })
    .collect()
}

/// Returns an alert as JSON.
pub(crate) fn alert_json(alert: &Alert) -> Value {
    json!({
        "id": alert.id,
        "severity": alert.severity,
        "name": &*alert.name,
        "since": millisecond(alert.since),
        "message": alert.message,
        "labels": alert.labels,
    })
}

/// Rules that a line names at most.
const NAMED: usize = 5;

/// Returns the line below a table that names the rules of alerts, the worst first, and the command
/// that explains them; `None` where nothing fires.
pub(crate) fn explained(alerts: &[&Alert]) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for alert in alerts {
        if !names.contains(&&*alert.name) {
            names.push(&alert.name);
        }
    }
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names.truncate(NAMED);
    match names.as_slice() {
        [] => None,
        [name] => Some(format!("`lodestar health explain {name}` tells more.")),
        names => Some(format!(
            "`lodestar health explain NAME` tells more of {}{more}.",
            names.join(", ")
        )),
    }
}

/// Returns a time in UTC, to the millisecond.
pub(crate) fn millisecond(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// Returns how long ago a time was, for a table.
pub(crate) fn ago(time: Timestamp, now: Timestamp) -> String {
    let ms = now.as_millisecond().saturating_sub(time.as_millisecond());
    human::duration(Duration::from_millis(u64::try_from(ms).unwrap_or(0) / 1_000 * 1_000))
}

fn table(board: &Board, now: Timestamp) -> Table {
    let mut table = Table::new(["COMPONENT", "STATE", "SINCE#", "VALUE#", "LIMIT#", "WHAT TO DO"]);
    let mut entries: Vec<_> = board.iter().collect();
    entries.sort_by_key(|(_, entry)| rank(entry.status));
    for (component, entry) in entries {
        table.row(row(component, entry, now));
    }
    table
}

fn row(component: &str, entry: &Entry, now: Timestamp) -> [String; 6] {
    let shown = |value: Option<f64>| match (value, entry.unit) {
        (Some(value), Some(unit)) => text::show(unit, value),
        _ => "-".to_owned(),
    };
    [
        component.to_owned(),
        entry.status.to_string(),
        ago(entry.since, now),
        shown(entry.value),
        shown(entry.threshold),
        entry.message.clone(),
    ]
}

/// Returns the place of a state in a list: the worst first.
const fn rank(status: CheckStatus) -> u8 {
    match status {
        CheckStatus::Critical => 0,
        CheckStatus::Warning => 1,
        CheckStatus::Unknown => 2,
        CheckStatus::Ok => 3,
        CheckStatus::Absent => 4,
    }
}

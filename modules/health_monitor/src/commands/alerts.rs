//! `lodestar health alerts` and `lodestar health history`.

use module_sdk::{Reply, Result, Table, TimeRangeArgs, Zone};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::status::{ago, alert_json, explained, millisecond};
use crate::{HealthMonitor, alert::Alert, store::Recorded};

/// Shows the alerts that fire.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlertsArgs {
    /// Show those that ended within the last day as well.
    #[serde(default)]
    all: bool,
}

/// Shows the alerts of a time, the newest first.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryArgs {
    #[serde(flatten)]
    range: TimeRangeArgs,
    /// Largest number of alerts.
    #[serde(default = "HistoryArgs::limit")]
    #[schemars(range(min = 1, max = 10_000))]
    limit: u32,
}

impl HistoryArgs {
    const fn limit() -> u32 {
        200
    }
}

/// Time for which `--all` looks back, in milliseconds.
const DAY_MS: i64 = 86_400_000;

impl HealthMonitor {
    pub(crate) fn alerts(&mut self, args: AlertsArgs) -> Result<Reply> {
        self.look()?;
        if args.all {
            let now = self.host.now().as_millisecond();
            return self.listed(now - DAY_MS, now + 1, HistoryArgs::limit());
        }
        let now = self.host.now();
        let alerts = self.monitor.alerts();
        let mut data: Vec<Value> = Vec::new();
        let mut table = Table::new(["ID", "SEVERITY", "SINCE#", "MESSAGE"]);
        for alert in &alerts {
            table.row(cells(alert, ago(alert.since, now)));
            let by = self.notify.acknowledged_by(&alert.id);
            table.notes.extend(by.map(|by| format!("{by} works on {}.", alert.id)));
            let mut alert = alert_json(alert);
            alert["acknowledged_by"] = json!(by);
            data.push(alert);
        }
        if alerts.is_empty() {
            table.notes.push("No alert fires.".to_owned());
        }
        table.notes.extend(explained(&alerts));
        if !self.notify.silences().is_empty() {
            let note = "Some are silenced: `lodestar health silence --list` shows which.";
            table.notes.push(note.to_owned());
        }
        Ok(Reply::json(&data)?.table(table))
    }

    pub(crate) fn history(&mut self, args: HistoryArgs) -> Result<Reply> {
        self.look()?;
        let range = args.range.resolve("7d", self.host.now(), &Zone::default())?;
        let (from, to) = range.bounds_ms();
        self.listed(from, to, args.limit)
    }

    fn listed(&mut self, from_ms: i64, to_ms: i64, limit: u32) -> Result<Reply> {
        let recorded = self.store.history(from_ms, to_ms, limit)?;
        let data: Vec<Value> = recorded.iter().map(recorded_json).collect();
        let mut table = Table::new(["ID", "SEVERITY", "RAISED", "LASTED#", "MESSAGE"]);
        let now = self.host.now();
        for Recorded { alert, resolved_at, .. } in &recorded {
            let lasted = match resolved_at {
                Some(end) => ago(alert.since, *end),
                None => format!("{} so far", ago(alert.since, now)),
            };
            let [id, severity, _, message] = cells(alert, String::new());
            table.row([id, severity, format!("{:.0}", alert.since), lasted, message]);
        }
        if recorded.is_empty() {
            table.notes.push("No alert was raised in this time.".to_owned());
        }
        Ok(Reply::json(&data)?.table(table))
    }
}

fn recorded_json(recorded: &Recorded) -> Value {
    let mut data = alert_json(&recorded.alert);
    data["resolved_at"] = json!(recorded.resolved_at.map(millisecond));
    data["acknowledged_by"] = json!(recorded.acknowledged_by);
    data
}

fn cells(alert: &Alert, since: String) -> [String; 4] {
    [alert.id.clone(), alert.severity.to_string(), since, alert.message.clone()]
}

//! `lodestar health explain`.

use module_sdk::{Error, ErrorKind, Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::status::{ago, alert_json};
use crate::{
    HealthMonitor,
    alert::Alert,
    rule::{Rule, words::span},
    runbook, text,
};

/// Explains an alert or a rule: its condition, what it means, and what to do. Without a name it
/// lists the rules.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainArgs {
    /// Name of a rule, `disk_low`, or id of an alert, `disk_low-1a2b3c4d`.
    #[schemars(extend("x-positional" = true))]
    name: Option<String>,
}

impl HealthMonitor {
    pub(crate) fn explain(&mut self, args: ExplainArgs) -> Result<Reply> {
        self.look()?;
        match args.name {
            Some(name) => self.explained(&name),
            None => self.rules(),
        }
    }

    fn explained(&self, name: &str) -> Result<Reply> {
        let rule = self.rule(name)?;
        let firing = self.firing(rule);
        let page = runbook::page(&rule.name);
        let data = json!({
            "name": &*rule.name,
            "severity": rule.severity,
            "condition": rule.condition.to_string(),
            "for": span(rule.for_ms).to_string(),
            "keep_firing_for": span(rule.keep_ms).to_string(),
            "hidden_by": rule.hidden_by,
            "runbook": address(rule),
            "page": page,
            "firing": firing.iter().map(|alert| alert_json(alert)).collect::<Vec<Value>>(),
        });
        let mut table = Table::new(["RULE", &*rule.name]);
        for (key, value) in self.described(rule) {
            table.row([key.to_owned(), value]);
        }
        if let Some(page) = page {
            table.notes = runbook::flowing(page);
        }
        Ok(Reply::json(&data)?.table(table))
    }

    fn rules(&self) -> Result<Reply> {
        let mut data = Vec::new();
        let mut table = Table::new(["RULE", "SEVERITY", "FOR#", "FIRES#", "CONDITION"]);
        for rule in self.monitor.rules().iter() {
            let firing = self.firing(rule);
            let condition = rule.condition.to_string();
            data.push(json!({
                "name": &*rule.name,
                "severity": rule.severity,
                "condition": condition,
                "for": span(rule.for_ms).to_string(),
                "keep_firing_for": span(rule.keep_ms).to_string(),
                "hidden_by": rule.hidden_by,
                "runbook": address(rule),
                "firing": firing.iter().map(|alert| alert_json(alert)).collect::<Vec<Value>>(),
            }));
            let fires = if firing.is_empty() { "-".to_owned() } else { firing.len().to_string() };
            table.row([
                rule.name.to_string(),
                rule.severity.to_string(),
                span(rule.for_ms).to_string(),
                fires,
                condition,
            ]);
        }
        table.notes.push("`lodestar health explain NAME` says what to do.".to_owned());
        Ok(Reply::json(&data)?.table(table))
    }

    /// Returns the rule that a name or the id of an alert stands for.
    fn rule(&self, name: &str) -> Result<&Rule> {
        let rules = self.monitor.rules();
        let of_alert = rule_of(name);
        let found = rules.get(name).or_else(|| of_alert.and_then(|rule| rules.get(rule)));
        if let Some(rule) = found {
            return Ok(rule);
        }
        let rule = of_alert.unwrap_or(name);
        if runbook::page(rule).is_some() {
            let error = Error::of(ErrorKind::NotFound, format!("the rule {rule} is switched off"));
            return Err(error.hint(format!(
                "take `rules: {{{rule}: {{enabled: false}}}}` out of the section of health_monitor"
            )));
        }
        let shown = text::visible(name);
        let error = Error::of(ErrorKind::NotFound, format!("there is no rule or alert {shown:?}"))
            .hint("`lodestar health explain` lists the rules");
        Err(error.near(rule, rules.iter().map(|rule| &*rule.name)))
    }

    fn firing(&self, rule: &Rule) -> Vec<&Alert> {
        let alerts = self.monitor.alerts().into_iter();
        alerts.filter(|alert| alert.name == rule.name).collect()
    }

    fn described(&self, rule: &Rule) -> Vec<(&'static str, String)> {
        let now = self.host.now();
        let mut rows = vec![
            ("severity", rule.severity.to_string()),
            ("condition", rule.condition.to_string()),
            ("begins", begins(rule.for_ms)),
            ("ends", ends(rule.keep_ms)),
        ];
        if !rule.hidden_by.is_empty() {
            rows.push(("hidden by", rule.hidden_by.join(", ")));
        }
        if let Some(address) = address(rule) {
            rows.push(("runbook", text::visible(address)));
        }
        let firing = self.firing(rule);
        if firing.is_empty() {
            rows.push(("now", "does not fire".to_owned()));
        }
        for (index, alert) in firing.into_iter().enumerate() {
            let since = ago(alert.since, now);
            let head = if index == 0 { "now" } else { "" };
            rows.push((head, format!("{}, for {since}: {}", alert.id, alert.message)));
        }
        rows
    }
}

fn begins(for_ms: u64) -> String {
    match for_ms {
        0 => "at once".to_owned(),
        ms => format!("when it has held for {}", span(ms)),
    }
}

fn ends(keep_ms: u64) -> String {
    match keep_ms {
        0 => "as soon as it is over".to_owned(),
        ms => format!("when it has been over for {}", span(ms)),
    }
}

/// Returns the address of a page that the configuration names.
fn address(rule: &Rule) -> Option<&str> {
    Some(rule.runbook.as_str()).filter(|address| !address.is_empty())
}

/// Returns the rule in the id of an alert: `disk_low` of `disk_low-1a2b3c4d`.
fn rule_of(id: &str) -> Option<&str> {
    let (rule, digits) = id.rsplit_once('-')?;
    let is_id = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_an_alert_has_its_rule() {
        assert_eq!(rule_of("disk_low-1a2b3c4d"), Some("disk_low"));
        for name in ["disk_low", "disk-low", "disk_low-1a2b3c4", "disk_low-1a2b3c4g", ""] {
            assert_eq!(rule_of(name), None, "{name}");
        }
    }
}

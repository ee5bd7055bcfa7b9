//! The state of every component, as `lodestar health` shows it.

use std::{collections::BTreeMap, sync::Arc};

use module_sdk::{
    events::{AlertSeverity, CheckStatus},
    jiff::Timestamp,
};

use crate::{
    metric::Unit,
    reading::{Component, Found, Presence, Series},
    requests,
};

/// Components by name.
#[derive(Debug, Default)]
pub struct Board {
    entries: BTreeMap<Component, Entry>,
    /// Count of the reports.
    round: u64,
}

/// State of a component.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Name of the check that it comes from.
    pub check: &'static str,
    /// Its presence.
    pub presence: Presence,
    /// Its state.
    pub status: CheckStatus,
    /// Time since which it has this state.
    pub since: Timestamp,
    /// Value that stands for it.
    pub value: Option<f64>,
    /// Unit of the value and the threshold.
    pub unit: Option<Unit>,
    /// Limit of the value: that which it is beyond, or the nearest one.
    pub threshold: Option<f64>,
    /// Text for a person: the trouble and the next step, or the explanation by the check.
    pub message: String,
    /// Details for a command of its own.
    pub details: Option<Arc<serde_json::Value>>,
    headline: Option<Arc<Series>>,
    /// Limit of the headline by itself; `None` until it is asked for.
    limit: Option<Option<f64>>,
    /// Report in which its check found it last.
    round: u64,
    /// Explanation by the check, empty for none.
    pub said: String,
}

/// Trouble of a component, from a rule whose condition holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    /// Severity of the rule.
    pub severity: AlertSeverity,
    /// Unit of the value and the threshold.
    pub unit: Unit,
    /// Value as the rule sees it.
    pub value: Option<f64>,
    /// Threshold that it is beyond.
    pub threshold: Option<f64>,
    /// Text for a person: the trouble and the next step.
    pub message: String,
}

/// Change of the state of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The component.
    pub component: Component,
    /// State before.
    pub from: CheckStatus,
    /// State now.
    pub to: CheckStatus,
    /// Explanation.
    pub message: String,
}

impl Board {
    /// Takes what a check has found; returns the components that are gone.
    pub fn take(
        &mut self,
        check: &'static str,
        found: Vec<Found>,
        at: Timestamp,
    ) -> Vec<Component> {
        self.round += 1;
        for Found { component, presence, headline, message, details } in found {
            let entry = self.entries.entry(component).or_insert_with(|| Entry {
                check,
                presence,
                status: status(presence, None),
                since: at,
                value: None,
                unit: None,
                threshold: None,
                message: String::new(),
                details: None,
                headline: None,
                limit: None,
                round: self.round,
                said: String::new(),
            });
            if entry.check != check {
                // A component belongs to the check that looks at it, also where requests told of it
                // before.
                if check == requests::CHECK {
                    continue;
                }
                entry.check = check;
            }
            if entry.headline != headline {
                (entry.headline, entry.limit) = (headline, None);
            }
            (entry.presence, entry.said, entry.round) = (presence, message, self.round);
            // What is not known now was known once.
            let former = entry.details.take().filter(|_| presence == Presence::Unknown);
            entry.details = details.or(former);
        }
        let is_gone = |entry: &Entry| entry.check == check && entry.round != self.round;
        let gone = self.entries.iter().filter(|(_, entry)| is_gone(entry));
        let gone: Vec<Component> = gone.map(|(name, _)| name.clone()).collect();
        for component in &gone {
            self.entries.remove(component);
        }
        gone
    }

    /// Notes that nothing is known of any component of a check.
    pub fn hang(&mut self, check: &'static str, message: &str, at: Timestamp) {
        let known = self.entries.iter().filter(|(_, entry)| entry.check == check);
        let mut names: Vec<Component> = known.map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            names.push(check.into());
        }
        let found = names.iter().map(|name| Found::unknown(name, message)).collect();
        self.take(check, found, at);
    }

    /// Judges all components by the troubles that they have; returns what changed.
    pub fn judge(
        &mut self,
        troubles: &BTreeMap<Component, Trouble>,
        value_of: impl Fn(&Series) -> Option<f64>,
        limit_of: impl Fn(&Series) -> Option<f64>,
        at: Timestamp,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for (component, entry) in &mut self.entries {
            let trouble = troubles.get(component);
            let status = status(entry.presence, trouble);
            let headline = entry.headline.as_deref();
            (entry.value, entry.unit) =
                (headline.and_then(&value_of), headline.map(|series| series.metric.unit));
            entry.threshold =
                headline.and_then(|series| *entry.limit.get_or_insert_with(|| limit_of(series)));
            entry.message.clone_from(&entry.said);
            if let Some(trouble) = trouble
                && matches!(status, CheckStatus::Critical | CheckStatus::Warning)
            {
                // What the check says may be the reason.
                entry.message = match entry.said.as_str() {
                    said if trouble.message.contains(said) => trouble.message.clone(),
                    said => format!("{} ({said})", trouble.message),
                };
                if trouble.value.is_some() {
                    (entry.value, entry.threshold) = (trouble.value, trouble.threshold);
                    entry.unit = Some(trouble.unit);
                }
            }
            if status != entry.status {
                changes.push(Change {
                    component: component.clone(),
                    from: entry.status,
                    to: status,
                    message: entry.message.clone(),
                });
                (entry.status, entry.since) = (status, at);
            }
        }
        changes
    }

    /// Returns the components with their states, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Component, &Entry)> {
        self.entries.iter()
    }

    /// Returns the state of a component.
    #[must_use]
    pub fn get(&self, component: &str) -> Option<&Entry> {
        self.entries.get(component)
    }

    /// Returns the state of everything together.
    #[must_use]
    pub fn overall(&self) -> Overall {
        let worst = self.entries.values().map(|entry| match entry.status {
            CheckStatus::Ok | CheckStatus::Absent => Overall::Healthy,
            CheckStatus::Warning | CheckStatus::Unknown => Overall::Degraded,
            CheckStatus::Critical => Overall::Down,
        });
        worst.max().unwrap_or(Overall::Healthy)
    }
}

/// State of everything together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overall {
    /// Everything is within its limits.
    Healthy,
    /// Something is not.
    Degraded,
    /// Something that all depends on is not.
    Down,
}

impl Overall {
    /// Returns the exit code, as monitoring plugins have it.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Degraded => 1,
            Self::Down => 2,
        }
    }

    /// Returns the word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

fn status(presence: Presence, trouble: Option<&Trouble>) -> CheckStatus {
    match (presence, trouble.map(|trouble| trouble.severity)) {
        (_, Some(AlertSeverity::Critical)) => CheckStatus::Critical,
        (Presence::Absent, _) => CheckStatus::Absent,
        (Presence::Unknown, _) => CheckStatus::Unknown,
        (Presence::Present, Some(AlertSeverity::Warning)) => CheckStatus::Warning,
        (Presence::Present, Some(AlertSeverity::Info) | None) => CheckStatus::Ok,
    }
}

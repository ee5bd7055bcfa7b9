//! Notes: what a channel tells people, and in which words.

use std::collections::BTreeMap;

use module_sdk::{events::AlertSeverity, human, jiff::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{alert::Alert, text};

/// An alert as notes keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Id of the alert.
    pub id: String,
    /// Name of its rule.
    pub name: String,
    /// Severity.
    pub severity: AlertSeverity,
    /// The component.
    pub component: String,
    /// Labels, the component among them.
    pub labels: BTreeMap<String, String>,
    /// Trouble, and the remedy.
    pub message: String,
    /// Time at which it was raised.
    pub since: Timestamp,
}

impl From<&Alert> for Subject {
    fn from(alert: &Alert) -> Self {
        Self {
            id: alert.id.clone(),
            name: alert.name.to_string(),
            severity: alert.severity,
            component: alert.component.to_string(),
            labels: alert.labels.clone(),
            message: alert.message.clone(),
            since: alert.since,
        }
    }
}

/// News about an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// It fires.
    Firing,
    /// It fires still.
    Reminder,
    /// It begins and ends again and again.
    Flapping,
    /// It is over.
    Resolved,
    /// It is none: a person tests the channel.
    Test,
}

/// An alert in a note.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// News about it.
    pub news: News,
    /// The alert.
    #[serde(flatten)]
    pub alert: Subject,
    /// End of the alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

/// Kind of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// News about alerts.
    Alerts,
    /// News that were held back, because the channel had told as much as it may in an hour.
    Digest,
    /// A test by a person.
    Test,
}

/// A note for one channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Kind.
    pub kind: Kind,
    /// Time at which it was written.
    pub at: Timestamp,
    /// Alerts, the worst first.
    pub items: Vec<Item>,
    /// Number of further alerts that have no room in it.
    pub more: usize,
}

/// Alerts that a note names at most.
const ITEMS: usize = 50;

impl Note {
    /// Writes a note about alerts.
    #[must_use]
    pub fn new(kind: Kind, at: Timestamp, mut items: Vec<Item>) -> Self {
        items.sort_by(|left, right| {
            let key = |item: &Item| (item.news == News::Resolved, rank(item.alert.severity));
            (key(left), left.alert.since).cmp(&(key(right), right.alert.since))
        });
        let more = items.len().saturating_sub(ITEMS);
        items.truncate(ITEMS);
        Self { kind, at, items, more }
    }

    /// Writes a note that tests a channel.
    #[must_use]
    pub fn test(at: Timestamp) -> Self {
        let alert = Subject {
            id: "test".to_owned(),
            name: "test_notification".to_owned(),
            severity: AlertSeverity::Info,
            component: "channel".to_owned(),
            labels: [("component".to_owned(), "channel".to_owned())].into(),
            message: "This is a test of Lodestar's notifications: nothing is wrong.".to_owned(),
            since: at,
        };
        Self {
            kind: Kind::Test,
            at,
            items: vec![Item { news: News::Test, alert, ended_at: Some(at) }],
            more: 0,
        }
    }

    /// Returns the severity of the note: that of its worst alert that is not over; `None` where all
    /// are.
    #[must_use]
    pub fn severity(&self) -> Option<AlertSeverity> {
        let lasting = self.items.iter().filter(|item| item.news != News::Resolved);
        lasting.map(|item| item.alert.severity).min_by_key(|severity| rank(*severity))
    }

    /// Returns the title in one line.
    #[must_use]
    pub fn title(&self) -> String {
        if self.kind == Kind::Test {
            return "Lodestar: test".to_owned();
        }
        let of = |news: &[News]| self.items.iter().filter(|item| news.contains(&item.news)).count();
        let parts = [
            (of(&[News::Firing]), "firing"),
            (of(&[News::Reminder]), "still firing"),
            (of(&[News::Flapping]), "flapping"),
            (of(&[News::Resolved]), "resolved"),
        ];
        let counts = match self.items.as_slice() {
            [one] if self.more == 0 => {
                let word = parts.iter().find(|(count, _)| *count > 0).map_or("", |(_, word)| word);
                format!("{} {word}", text::visible(&one.alert.component))
            }
            _ => {
                let parts = parts.iter().filter(|(count, _)| *count > 0);
                let parts: Vec<_> = parts.map(|(count, word)| format!("{count} {word}")).collect();
                match self.more {
                    0 => parts.join(", "),
                    more => format!("{}, {more} more", parts.join(", ")),
                }
            }
        };
        let severity = match self.severity() {
            Some(AlertSeverity::Critical) => "CRITICAL: ",
            Some(AlertSeverity::Warning) => "warning: ",
            Some(AlertSeverity::Info) | None => "",
        };
        let digest = if self.kind == Kind::Digest { " (held back before)" } else { "" };
        format!("Lodestar: {severity}{counts}{digest}")
    }

    /// Returns a line for each alert.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.items.iter().map(Item::line).collect();
        if self.more > 0 {
            lines.push(format!("{} more: `lodestar health history` shows them.", self.more));
        }
        lines
    }
}

impl Item {
    /// Returns the alert in a line, without its severity for one that is over.
    #[must_use]
    pub fn line(&self) -> String {
        let alert = &self.alert;
        let message = clean(&alert.message);
        let severity = alert.severity;
        match (self.news, self.ended_at) {
            (News::Firing, _) => format!("[{severity}] {message}"),
            (News::Reminder, _) => {
                format!("[{severity}] since {:.0}: {message}", alert.since)
            }
            (News::Flapping, _) => format!(
                "[{severity}] begins and ends again and again; the next note comes when it is \
                 steady: {message}"
            ),
            (News::Resolved, Some(end)) => {
                let lasted = end.duration_since(alert.since).try_into().unwrap_or_default();
                format!("[resolved after {}] {message}", human::duration(lasted))
            }
            (News::Resolved, None) => format!("[resolved] {message}"),
            (News::Test, _) => message,
        }
    }
}

/// Returns the place of a severity in a list: the worst first.
pub(crate) const fn rank(severity: AlertSeverity) -> u8 {
    match severity {
        AlertSeverity::Critical => 0,
        AlertSeverity::Warning => 1,
        AlertSeverity::Info => 2,
    }
}

/// Longest message of an alert in a note, in characters.
const MESSAGE: usize = 1_000;

/// Returns a message in one line without anything that a terminal would obey.
#[must_use]
pub fn clean(message: &str) -> String {
    let mut clean = String::with_capacity(message.len());
    let mut characters = message.chars();
    // `visible` shortens to the length of a name, so it is asked piece by piece.
    let mut rest: String = characters.by_ref().take(MESSAGE).collect();
    if characters.next().is_some() {
        rest.push('…');
    }
    for c in rest.chars() {
        let mut buffer = [0; 4];
        clean.push_str(&text::visible(c.encode_utf8(&mut buffer)));
    }
    clean
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn subject(name: &str, component: &str, severity: &str) -> Subject {
        Subject {
            id: format!("{name}-1"),
            name: name.to_owned(),
            severity: severity.parse().expect("a severity"),
            component: component.to_owned(),
            labels: [("component".to_owned(), component.to_owned())].into(),
            message: format!("{component} is in trouble."),
            since: "2026-11-20T10:00:00Z".parse().expect("a time"),
        }
    }

    pub(crate) fn item(news: News, alert: Subject) -> Item {
        let ended_at =
            (news == News::Resolved).then(|| alert.since + module_sdk::jiff::ToSpan::minutes(10));
        Item { news, alert, ended_at }
    }

    #[test]
    fn a_note_says_what_is_wrong_in_a_line_each() {
        let at = "2026-11-20T10:10:00Z".parse().expect("a time");
        let items = vec![
            item(News::Resolved, subject("disk_low", "disk./", "warning")),
            item(News::Firing, subject("memory_low", "memory\u{1b}[31m", "warning")),
            item(News::Firing, subject("gpu_lost", "gpu.0", "critical")),
        ];
        let note = Note::new(Kind::Alerts, at, items);
        assert_eq!(note.title(), "Lodestar: CRITICAL: 2 firing, 1 resolved");
        assert_eq!(
            note.lines(),
            [
                "[critical] gpu.0 is in trouble.",
                "[warning] memory\\u{1b}[31m is in trouble.",
                "[resolved after 10m 0s] disk./ is in trouble.",
            ]
        );
        let one = vec![item(News::Flapping, subject("model_down", "model.x", "warning"))];
        let note = Note::new(Kind::Digest, at, one);
        assert_eq!(note.title(), "Lodestar: warning: model.x flapping (held back before)");
        let many = (0..60).map(|_| item(News::Firing, subject("a", "b", "info"))).collect();
        let note = Note::new(Kind::Alerts, at, many);
        assert_eq!(note.title(), "Lodestar: 50 firing, 10 more");
        assert_eq!(note.lines().len(), 51);
        let read = serde_json::to_string(&note).and_then(|json| serde_json::from_str(&json));
        assert_eq!(read.map_err(|error| error.to_string()), Ok(note));
    }
}

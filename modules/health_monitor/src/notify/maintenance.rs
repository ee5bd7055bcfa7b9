//! Maintenance windows: times by the calendar within which nobody is told.

use std::collections::BTreeMap;

use module_sdk::{
    Zone,
    jiff::{
        Timestamp,
        civil::{Time, Weekday},
    },
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{matcher::Matcher, note::Subject};

/// A time that comes again each week, within which nobody is told of the alerts that fit.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowOptions {
    /// Days on which it begins: `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`. Default: all.
    #[serde(default)]
    pub days: Vec<Day>,
    /// Time of day at which it begins: `02:00`.
    pub from: String,
    /// Time of day at which it ends: `04:30`; on the next day where it is not after the beginning.
    pub to: String,
    /// Time zone. Default: that of the system.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub zone: Zone,
    /// Alerts that are meant, with patterns: `{component: "disk.*"}`. Default: all.
    #[serde(default, rename = "match")]
    pub matching: BTreeMap<String, String>,
}

/// Day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A maintenance window, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    days: Vec<Weekday>,
    from: Time,
    to: Time,
    zone: Zone,
    matcher: Matcher,
}

/// A time of day that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no time of day; write `02:00`")]
pub struct WindowError {
    /// Key of the window that is wrong.
    pub key: &'static str,
}

impl Window {
    /// Checks a window.
    ///
    /// # Errors
    ///
    /// The time that is none.
    pub fn new(options: &WindowOptions) -> Result<Self, WindowError> {
        let time = |key, text: &str| {
            let form = text.len() == 5 && text.as_bytes()[2] == b':';
            let time = Time::strptime("%H:%M", text).ok().filter(|_| form);
            time.ok_or(WindowError { key })
        };
        Ok(Self {
            days: options.days.iter().map(|day| weekday(*day)).collect(),
            from: time("from", &options.from)?,
            to: time("to", &options.to)?,
            zone: options.zone.clone(),
            matcher: Matcher::of(&options.matching),
        })
    }

    /// Returns whether an alert falls into the window at a time.
    #[must_use]
    pub fn covers(&self, alert: &Subject, at: Timestamp) -> bool {
        self.is_open(at) && self.matcher.fits(alert)
    }

    fn is_open(&self, at: Timestamp) -> bool {
        let local = at.to_zoned(self.zone.time_zone().clone());
        let (today, time) = (local.weekday(), local.time());
        let begins = |day: Weekday| self.days.is_empty() || self.days.contains(&day);
        if self.from < self.to {
            return begins(today) && self.from <= time && time < self.to;
        }
        // It goes on past midnight.
        (begins(today) && time >= self.from) || (begins(today.previous()) && time < self.to)
    }
}

const fn weekday(day: Day) -> Weekday {
    match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::note::tests::subject;

    fn window(json: serde_json::Value) -> Window {
        let options = serde_json::from_value(json).expect("it has the form");
        Window::new(&options).expect("it is valid")
    }

    #[test]
    fn windows_open_by_the_calendar_of_their_zone() {
        let at_night = window(serde_json::json!({
            "days": ["fri"], "from": "23:00", "to": "01:30", "zone": "Europe/Vienna",
            "match": {"component": "disk.*"},
        }));
        let disk = subject("disk_low", "disk./", "warning");
        let check = |time: &str, expected: bool| {
            let at = time.parse().expect("a time");
            assert_eq!(at_night.covers(&disk, at), expected, "{time}");
        };
        // The 20th of November 2026 is a Friday; Vienna is an hour ahead.
        check("2026-11-20T21:59:59Z", false);
        check("2026-11-20T22:00:00Z", true);
        check("2026-11-21T00:29:59Z", true);
        check("2026-11-21T00:30:00Z", false);
        check("2026-11-21T22:00:00Z", false);
        let at = "2026-11-20T22:00:00Z".parse().expect("a time");
        assert!(!at_night.covers(&subject("gpu_lost", "gpu.0", "critical"), at));
        let daily = window(serde_json::json!({"from": "02:00", "to": "04:00", "zone": "UTC"}));
        assert!(daily.covers(&disk, "2026-11-22T03:00:00Z".parse().expect("a time")));
        assert!(!daily.covers(&disk, "2026-11-22T04:00:00Z".parse().expect("a time")));
        let wrong = serde_json::json!({"from": "2 am", "to": "04:00"});
        let wrong = serde_json::from_value(wrong).expect("it has the form");
        assert_eq!(Window::new(&wrong), Err(WindowError { key: "from" }));
    }
}

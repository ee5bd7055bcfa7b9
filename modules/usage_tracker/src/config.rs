//! The module's section of `modules.yaml`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::tz::TimeZone;
use module_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    prices::{PriceOverride, PriceTable, Pricer},
    store::{Durability, Options},
};

/// Settings of `usage_tracker`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The database file. Default: `usage.db` in the module's data directory; a relative path
    /// starts there.
    pub database: Option<PathBuf>,
    /// For how many days single requests are kept. Totals per hour, day and session stay for
    /// ever. 0 keeps the requests for ever, too.
    #[schemars(range(max = 36_500))]
    pub retention_days: u32,
    /// The model that savings are measured against. Empty for no savings.
    pub baseline_model: String,
    /// Prices of your own, by model or `provider/model`, in US dollars per million tokens. They win
    /// over the shipped table.
    pub prices: BTreeMap<String, PriceOverride>,
    /// The IANA time zone of days and hours, `Europe/Vienna`. Default: that of the system.
    pub timezone: Option<String>,
    /// After how many minutes of silence a session has ended.
    #[schemars(range(min = 1, max = 10_080))]
    pub session_idle_minutes: u32,
    /// What may be stored of people.
    pub privacy: Privacy,
    /// When a write is safe: `process` survives a killed daemon, `power` a power cut as well, more
    /// slowly.
    pub durability: Durability,
}

/// What may be stored of people.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Privacy {
    /// Whether sessions, turns and users are stored as pseudonyms that only this installation can
    /// compute.
    pub anonymise: bool,
}

impl Default for Privacy {
    fn default() -> Self {
        Self { anonymise: true }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database: None,
            retention_days: 90,
            baseline_model: "claude-sonnet-4-5".to_owned(),
            prices: BTreeMap::new(),
            timezone: None,
            session_idle_minutes: 30,
            privacy: Privacy::default(),
            durability: Durability::default(),
        }
    }
}

impl Config {
    /// Where the database lies.
    pub(crate) fn database(&self, data_dir: &Path) -> PathBuf {
        data_dir.join(self.database.as_deref().unwrap_or_else(|| Path::new("usage.db")))
    }

    /// The time zone of days and hours.
    ///
    /// # Errors
    ///
    /// When there is no such time zone.
    pub(crate) fn timezone(&self) -> Result<TimeZone> {
        match &self.timezone {
            None => Ok(TimeZone::system()),
            Some(name) => TimeZone::get(name).map_err(|_| {
                Error::config(format!(
                    "timezone {name:?} is not known; write an IANA name such as Europe/Vienna, or \
                     leave it out for the zone of the system"
                ))
            }),
        }
    }

    /// How the store is opened.
    ///
    /// # Errors
    ///
    /// When a value is out of its range or a price cannot be used.
    pub(crate) fn options(&self) -> Result<Options> {
        if self.retention_days > 36_500 {
            let days = self.retention_days;
            return Err(Error::config(format!(
                "retention_days is {days}, it must be 0 (for ever) to 36500"
            )));
        }
        if !(1..=10_080).contains(&self.session_idle_minutes) {
            let minutes = self.session_idle_minutes;
            return Err(Error::config(format!(
                "session_idle_minutes is {minutes}, it must be 1 to 10080 (a week)"
            )));
        }
        let refused = |error: crate::prices::PriceError| Error::config(error.to_string());
        let table = PriceTable::built_in().with(&self.prices).map_err(refused)?;
        let baseline = Some(self.baseline_model.as_str()).filter(|model| !model.is_empty());
        Ok(Options {
            durability: self.durability,
            pricer: Pricer::new(table, baseline).map_err(refused)?,
            session_idle_ms: i64::from(self.session_idle_minutes) * 60_000,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Config {
        serde_json::from_value(json).expect("it has the form of a configuration")
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(read(serde_json::json!({})), Config::default());
        assert!(Config::default().options().is_ok());
    }

    #[test]
    fn the_commented_defaults_are_the_defaults() {
        let text = include_str!("../config.yaml");
        for line in [
            "# retention_days: 90",
            "# baseline_model: claude-sonnet-4-5",
            "# session_idle_minutes: 30",
            "#   anonymise: true",
            "# durability: process",
            "# database: ",
            "# timezone: ",
            "# prices:",
        ] {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line}");
        }
        let set = |line: &str| !line.is_empty() && !line.starts_with('#');
        assert!(!text.lines().any(set), "the shipped file sets nothing");
    }

    #[test]
    fn a_bad_value_is_named_with_its_remedy() {
        let check = |json: serde_json::Value, part: &str| {
            let config = read(json);
            let error = config.options().map(drop).and(config.timezone().map(drop));
            let error = error.expect_err("it is refused").to_string();
            assert!(error.contains(part), "{error}");
        };
        check(serde_json::json!({"retention_days": 99_999}), "0 (for ever) to 36500");
        check(serde_json::json!({"session_idle_minutes": 0}), "1 to 10080");
        check(serde_json::json!({"baseline_model": "gpt-99"}), "gpt-99");
        check(serde_json::json!({"timezone": "Mars/Olympus"}), "Europe/Vienna");
        check(serde_json::json!({"prices": {"m": {"input": -1, "output": 1}}}), "\"m\"");
    }

    #[test]
    fn a_relative_database_lies_in_the_data_directory() {
        let check = |database: Option<&str>, expected: &str| {
            let config = Config { database: database.map(PathBuf::from), ..Config::default() };
            assert_eq!(config.database(Path::new("/data")), Path::new(expected));
        };
        check(None, "/data/usage.db");
        check(Some("other.db"), "/data/other.db");
        check(Some("/var/u.db"), "/var/u.db");
    }
}

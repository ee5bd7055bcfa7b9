//! The module's section of `modules.yaml`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use module_prices::{MOST_USD, PriceError, PriceOverride, PriceTable};
use module_sdk::{Error, Result, Zone};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    prices::Pricer,
    store::{Durability, Options, SPEC, Store},
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
    #[schemars(range(max = 36_500), extend("x-hint" = "0 keeps them for ever"))]
    pub retention_days: u32,
    /// The model that savings are measured against. Empty for no savings.
    pub baseline_model: String,
    /// Prices of your own, by model or `provider/model`, in US dollars per million tokens. They win
    /// over the shipped table.
    pub prices: BTreeMap<String, PriceOverride>,
    /// The IANA time zone of days and hours, `Europe/Vienna`. Default: that of the system.
    pub timezone: Zone,
    /// After how many minutes of silence a session has ended.
    #[schemars(range(min = 1, max = 10_080))]
    pub session_idle_minutes: u32,
    /// The folders of each project. What a tool did in another folder is of a project with a
    /// pseudonym for a name.
    pub projects: BTreeMap<String, Vec<PathBuf>>,
    /// `true` when the transcripts of the tools are imported as they grow: those that the daemon's
    /// user may read.
    pub watch: bool,
    /// The personal data that may be stored.
    pub privacy: Privacy,
    /// The durability of a write: `process` survives a killed daemon, `power` a power cut as well,
    /// more slowly.
    pub durability: Durability,
}

/// The personal data that may be stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Privacy {
    /// `true` when sessions, turns and users are stored as pseudonyms that only this installation
    /// can compute.
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
            timezone: Zone::default(),
            session_idle_minutes: 30,
            projects: BTreeMap::new(),
            watch: false,
            privacy: Privacy::default(),
            durability: Durability::default(),
        }
    }
}

impl Config {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, folders) in &self.projects {
            if let Some(folder) = folders.iter().find(|folder| !folder.is_absolute()) {
                let what = format!("is {}, which must be an absolute path", folder.display());
                return Err(Error::config_at(format!("projects.{name}"), what));
            }
        }
        self.options().map(drop)
    }

    /// Returns the path and options of the database.
    pub(crate) fn database(&self, data_dir: &Path) -> module_sqlite::Options {
        let usual = module_sqlite::Options::in_directory(data_dir, &SPEC);
        match &self.database {
            Some(path) => module_sqlite::Options { path: data_dir.join(path), ..usual },
            None => usual,
        }
    }

    /// Opens the database.
    ///
    /// # Errors
    ///
    /// When a value cannot be used, or the file cannot be used: damaged, newer, another program's.
    pub(crate) fn open(&self, data_dir: &Path) -> Result<Store> {
        let opened = Store::open_as(self.database(data_dir), self.options()?);
        opened.map_err(|error| Error::new(error.to_string()))
    }

    /// Returns the options of the store.
    ///
    /// # Errors
    ///
    /// When a price cannot be used or the baseline has none.
    pub(crate) fn options(&self) -> Result<Options> {
        let table = PriceTable::built_in().with(&self.prices).map_err(|error| refused(&error))?;
        if !self.baseline_model.is_empty() && table.find(None, &self.baseline_model).is_none() {
            return Err(unpriced(&self.baseline_model, &table));
        }
        let baseline = Some(self.baseline_model.as_str()).filter(|model| !model.is_empty());
        Ok(Options {
            durability: self.durability,
            pricer: Pricer::new(table, baseline).map_err(|error| refused(&error))?,
            session_idle_ms: i64::from(self.session_idle_minutes) * 60_000,
        })
    }
}

fn unpriced(baseline: &str, table: &PriceTable) -> Error {
    Error::config_at("baseline_model", "has no price")
        .hint(
            "name a model of the price table (`lodestar usage models` shows those in use), add it \
             under `prices`, or write \"\" for no savings",
        )
        .near(baseline, table.names())
}

fn refused(error: &PriceError) -> Error {
    match error {
        PriceError::Value { model, key, value } => Error::config_at(
            format!("prices.{model}.{key}"),
            format!("is {value}, it must be US dollars per million tokens, from 0 to {MOST_USD}"),
        ),
        PriceError::Nested(tier) => Error::config_at(
            format!("prices.{tier}.service_tiers"),
            "stands within a tier of service; put it beside that tier",
        ),
        PriceError::Table(_) | PriceError::Baseline(_) => Error::config(error.to_string()),
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
            "# watch: false",
            "# projects:",
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
            let error = config.check().expect_err("it is refused").to_string();
            assert!(error.starts_with(part), "{error}");
        };
        check(serde_json::json!({"baseline_model": "zzz"}), "baseline_model: has no price; name");
        check(
            serde_json::json!({"baseline_model": "claude-sonet-4-5"}),
            "baseline_model: has no price; did you mean `claude-sonnet-4-5`?",
        );
        check(
            serde_json::json!({"prices": {"m.1": {"input": -1, "output": 1}}}),
            "prices.m.1.input: is -1, it must be US dollars per million tokens",
        );
        let fast = serde_json::json!({"input": 1, "output": -1});
        let price = serde_json::json!({"input": 1, "output": 1, "service_tiers": {"fast": fast}});
        check(
            serde_json::json!({"prices": {"m": price}}),
            "prices.m.service_tiers.fast.output: is -1, it must be US dollars",
        );
        let mut nested = serde_json::json!({"input": 1, "output": 1});
        for tier in ["slow", "fast"] {
            nested = serde_json::json!({"input": 1, "output": 1, "service_tiers": {tier: nested}});
        }
        check(
            serde_json::json!({"prices": {"m": nested}}),
            "prices.m.service_tiers.fast.service_tiers: stands within a tier of service",
        );
    }

    #[test]
    fn a_relative_database_lies_in_the_data_directory() {
        let check = |database: Option<&str>, expected: &str| {
            let config = Config { database: database.map(PathBuf::from), ..Config::default() };
            assert_eq!(config.database(Path::new("/data")).path, Path::new(expected));
        };
        check(None, "/data/usage.db");
        check(Some("other.db"), "/data/other.db");
        check(Some("/var/u.db"), "/var/u.db");
    }
}

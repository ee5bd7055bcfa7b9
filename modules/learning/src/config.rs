//! Settings of `learning`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use module_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    deploy::Kind,
    experiments::ExperimentConfig,
    gate::Limits,
    labels,
    licence::Licences,
    quality,
    registry::Policy,
    run::{Bounds, Custom, Embedded},
    setup::Environments,
    store::Weights,
    trainers::Trainers,
};

/// Settings of `learning`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The database file. Default: `learning.db` in the module's data directory; a relative path
    /// starts there.
    pub database: Option<PathBuf>,
    /// For how many days text is kept.
    #[schemars(range(min = 1, max = 90), extend("x-hint" = "text is kept for 90 days at most"))]
    pub retention_days: u32,
    /// For how many days the text of a dataset is kept after it was built.
    #[schemars(range(min = 1, max = 90), extend("x-hint" = "text is kept for 90 days at most"))]
    pub dataset_days: u32,
    /// Share of a dataset's examples that is held out for evaluation.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub eval_share: f64,
    /// Terms of models, by name with `*` for any characters; they win over the shipped list.
    pub licences: Licences,
    /// Weights of the origins of feedback.
    pub feedback: Weights,
    /// The programs that train.
    pub trainer: TrainerConfig,
    /// Limits of the gates that a version has to pass before it is approved.
    pub gates: Limits,
    /// Rules for approvals.
    pub approval: Policy,
    /// The server that deployed versions are served by.
    pub serving: Serving,
    /// Experiments on a share of the sessions.
    pub experiments: ExperimentConfig,
    /// Thresholds of the filters that examples pass on their way into a dataset.
    pub quality: quality::Config,
    /// Settings of what the router learns.
    pub labels: labels::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database: None,
            retention_days: 30,
            dataset_days: 90,
            eval_share: 0.1,
            licences: Licences::default(),
            feedback: Weights::default(),
            trainer: TrainerConfig::default(),
            gates: Limits::default(),
            approval: Policy::default(),
            serving: Serving::default(),
            experiments: ExperimentConfig::default(),
            quality: quality::Config::default(),
            labels: labels::Config::default(),
        }
    }
}

/// The programs that train.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainerConfig {
    /// The trainer that comes with Lodestar. Default: `lodestar-trainer` beside the daemon, or in
    /// the daemon's `PATH`.
    pub program: Option<PathBuf>,
    /// A trainer of your own: a program and its arguments, to which the path of the job is added.
    pub command: Vec<String>,
    /// Longest time of a run, in hours.
    #[schemars(range(min = 1, max = 720))]
    pub hours: u32,
    /// Time without progress after which a trainer is ended, in minutes.
    #[schemars(range(min = 1, max = 1_440))]
    pub silent_minutes: u32,
    /// Largest size of all that a run writes, in GB.
    #[schemars(range(min = 1, max = 1_000))]
    pub disk_gb: u32,
}

impl Default for TrainerConfig {
    fn default() -> Self {
        Self { program: None, command: Vec::new(), hours: 24, silent_minutes: 15, disk_gb: 8 }
    }
}

impl TrainerConfig {
    /// Returns the trainers that can be named, with their environments below the data directory.
    pub(crate) fn programs(&self, data: &Path) -> Trainers {
        let beside = std::env::current_exe().ok().and_then(|it| Some(it.parent()?.to_owned()));
        let command = self
            .command
            .split_first()
            .map(|(program, args)| Custom { program: program.into(), args: args.to_vec() });
        Trainers {
            embedded: Embedded {
                program: self.program.clone(),
                folders: beside.into_iter().collect(),
                path: std::env::var_os("PATH"),
            },
            command,
            environments: Environments::within(data),
        }
    }

    /// Returns what a trainer is held to.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            heartbeat: Duration::from_secs(u64::from(self.silent_minutes) * 60),
            wall: Duration::from_secs(u64::from(self.hours) * 3_600),
            disk: u64::from(self.disk_gb) * 1_000_000_000,
            ..Bounds::default()
        }
    }
}

/// A server of models.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Serving {
    /// Kind of the server. Default: `ollama` where one of the `providers` is a local Ollama, else
    /// `embedded`, which is started when it is needed.
    pub kind: Option<Kind>,
    /// Its base URL. Default for Ollama: that of the provider, or `http://127.0.0.1:11434`.
    pub base_url: String,
    /// The base model as the server names it. Default for Ollama: it is made there from the files
    /// that a version was trained on.
    pub base: String,
    /// Address of the embedded server, of this machine alone. Port 0 takes a free one.
    pub listen: String,
    /// Name under which the version that serves is asked.
    pub alias: String,
    /// Longest answer when the gates are measured, in tokens.
    #[schemars(range(min = 1, max = 8_192))]
    pub max_answer_tokens: u32,
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            kind: None,
            base_url: String::new(),
            base: String::new(),
            listen: "127.0.0.1:4011".to_owned(),
            alias: "lodestar".to_owned(),
            max_answer_tokens: 256,
        }
    }
}

impl Serving {
    fn check(&self) -> Result<()> {
        let is_url = ["http://", "https://"].iter().any(|begin| self.base_url.starts_with(begin));
        match self.kind {
            None | Some(Kind::Embedded) if !self.base_url.is_empty() => {
                let error = Error::config_at("base_url", "names a server, and `kind` does not");
                return Err(error.hint("set `kind: ollama` or `kind: llama_server` beside it"));
            }
            None | Some(Kind::Embedded | Kind::Ollama) if self.base_url.is_empty() => {}
            _ if is_url => {}
            _ => return Err(Error::config_at("base_url", "must begin with http:// or https://")),
        }
        let listen: Option<SocketAddr> = self.listen.replace("localhost", "127.0.0.1").parse().ok();
        if !listen.is_some_and(|address| address.ip().is_loopback()) {
            let error = Error::config_at("listen", "must be an address of this machine alone");
            return Err(error.hint("write one such as 127.0.0.1:4011"));
        }
        if self.base.split(':').next() == Some(&self.alias) {
            let error =
                Error::config_at("alias", "is the base itself, which a version would replace");
            return Err(error);
        }
        // A name that every server takes; the version is added to it.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.alias.is_empty() || self.alias.len() > 60 || !self.alias.chars().all(is_plain) {
            return Err(Error::config_at("alias", "must be letters, digits, `-`, `_` and `.`"));
        }
        Ok(())
    }
}

impl Config {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub(crate) fn check(&self) -> Result<()> {
        let Licences { own, restricted, open_weights } = &self.licences;
        let lists = [("own", own), ("restricted", restricted), ("open_weights", open_weights)];
        for (key, list) in lists {
            if list.iter().any(|pattern| pattern.trim().is_empty()) {
                return Err(Error::config_at(format!("licences.{key}"), "has an empty name"));
            }
        }
        self.serving.check().map_err(|error| error.below("serving"))?;
        self.gates.check().map_err(|error| error.below("gates"))?;
        if self.trainer.command.first().is_some_and(|program| !program.starts_with('/')) {
            let error = Error::config_at("trainer.command", "must begin with an absolute path");
            return Err(error);
        }
        self.quality.check().map_err(|error| Error::config_at("quality", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_given_is_the_default() {
        let read: Config = serde_json::from_value(json!({})).expect("a configuration");
        assert_eq!(read, Config::default());
        assert!(Config::default().check().is_ok());
    }

    #[test]
    fn the_commented_defaults_are_the_defaults() {
        let text = include_str!("../config.yaml");
        for line in [
            "# retention_days: 30",
            "# dataset_days: 90",
            "# eval_share: 0.1",
            "# licences:",
            "# feedback:",
            "# quality:",
            "# database: ",
        ] {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line}");
        }
        let set = |line: &str| !line.is_empty() && !line.starts_with('#');
        assert!(!text.lines().any(set), "the shipped file sets nothing");
    }

    #[test]
    fn a_bad_value_is_named() {
        let check = |config: serde_json::Value, part: &str| {
            let config: Config = serde_json::from_value(config).expect("it has the form");
            let error = config.check().expect_err("it is refused").to_string();
            assert!(error.starts_with(part), "{error}");
        };
        check(json!({"licences": {"own": [" "]}}), "licences.own: has an empty name");
        let quality = json!({"quality": {"min_chars": 9, "max_chars": 8}});
        check(quality, "quality: min_chars is 9 and max_chars 8");
        check(json!({"serving": {"base_url": "http://a"}}), "serving.base_url: names a server");
        check(json!({"serving": {"kind": "ollama", "base_url": "a"}}), "serving.base_url: must");
        check(json!({"serving": {"kind": "llama_server"}}), "serving.base_url: must begin");
        check(json!({"serving": {"listen": "0.0.0.0:1"}}), "serving.listen: must be");
        check(json!({"serving": {"alias": "a b"}}), "serving.alias: must be");
        check(json!({"serving": {"base": "lodestar:1b"}}), "serving.alias: is the base itself");
    }
}

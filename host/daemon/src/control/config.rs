//! `/v1/config`: what runs, what the file says, and what in it is valid but perhaps not meant.

use std::sync::Arc;

use axum::{Json, extract::State};
use lodestar_api::{Change, ConfigCheck, ConfigProblem, ConfigReport, ConfigView, Setting};
use lodestar_config::{self as config, Config, ConfigError, ModuleSection, Wanted};
use lodestar_library as library;
use serde_json::Value;

use super::{blocking, modules::unknown, name::ModuleName, problem::Refusal};
use crate::supervisor::{Daemon, config_problem};

pub(super) async fn show(State(daemon): State<Arc<Daemon>>) -> Result<Json<ConfigView>, Refusal> {
    blocking(&daemon, Daemon::config_view).await.map(Json)
}

pub(super) async fn diff(State(daemon): State<Arc<Daemon>>) -> Result<Json<Vec<Change>>, Refusal> {
    let changes = blocking(&daemon, Daemon::config_diff).await?;
    changes.map(Json).map_err(|errors| Refusal::invalid(errors.to_string()))
}

pub(super) async fn check(
    State(daemon): State<Arc<Daemon>>,
    Json(check): Json<ConfigCheck>,
) -> Result<Json<ConfigReport>, Refusal> {
    let check = move |daemon: &Daemon| daemon.check_config(&check);
    blocking(&daemon, check).await.map(Json)
}

pub(super) async fn settings(
    State(daemon): State<Arc<Daemon>>,
    ModuleName(name): ModuleName,
) -> Result<Json<Vec<Setting>>, Refusal> {
    let answer = blocking(&daemon, move |daemon| settings_of(daemon, &name)).await?;
    answer.map(Json)
}

/// Returns the settings of a module that the configuration names, as they count now.
fn settings_of(daemon: &Daemon, name: &str) -> Result<Vec<Setting>, Refusal> {
    let config = daemon.config();
    let section = config.module(name).ok_or_else(|| unknown(daemon, name))?;
    let package = daemon.package(section);
    let schema = package.as_ref().and_then(|package| daemon.config_schema(package));
    let defaults = package.map_or(Ok(None), |package| package.defaults());
    let defaults = defaults.map_err(|error| Refusal::failed(error.to_string()))?;
    let origins = config.origins(name, &schema.unwrap_or_default(), defaults.as_deref());
    let origins = origins.map_err(|errors| Refusal::failed(errors.to_string()))?;
    let setting = |(key, (value, origin))| Setting { key, value, origin };
    Ok(origins.into_iter().map(setting).collect())
}

impl Daemon {
    /// Returns warnings about what is valid in a configuration but perhaps not meant. `open` is the
    /// change of mode that keeps others from reading the file that it stands in, where they can.
    pub(crate) fn config_warnings(
        &self,
        config: &Config,
        open: Option<&str>,
    ) -> Vec<ConfigProblem> {
        let packages = library::list(&self.places.module_path);
        let installed: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        let mut found = config::literal_secrets(config, open);
        found.extend(config.outdated.iter().cloned());
        if config.modules.is_empty() && !installed.is_empty() {
            let names = installed.join(", ");
            let message =
                format!("names no module, so that none would run ({names} are installed)");
            let hint = "write their sections below `modules:`";
            found.push(ConfigError::of_file(&config.path, message, hint));
        }
        for section in &config.modules {
            match self.package(section) {
                Some(package) => found.extend(self.open_secrets(config, &package)),
                None => found.extend(self.missing(config, section, &installed)),
            }
        }
        found.extend(config.shared_addresses(&self.wanted_addresses(config)));
        found.extend(self.would_stop(config));
        found.iter().map(config_problem).collect()
    }

    /// Returns warnings about files with secrets of a module that are open to others. A reference
    /// that leads nowhere is an error, and reported as one.
    fn open_secrets(&self, config: &Config, package: &library::Package) -> Vec<ConfigError> {
        self.resolved(config, package).map(|resolved| resolved.warnings).unwrap_or_default()
    }

    fn resolved(&self, config: &Config, package: &library::Package) -> Option<config::Resolved> {
        let written = config.effective(&package.name, package.defaults().ok()?.as_deref()).ok()?;
        config.resolve(&package.name, &written, &self.layers.environment).ok()
    }

    /// Returns the addresses at which the daemon and the enabled modules of this configuration
    /// listen.
    fn wanted_addresses(&self, config: &Config) -> Vec<Wanted> {
        let wanted = |key: &str, address: &str| {
            let (key, address) = (key.to_owned(), address.to_owned());
            Wanted { key, address }
        };
        let metrics = config.metrics.enabled.then_some(config.metrics.listen.as_str());
        let control = config.control.listen.as_deref();
        let mut all: Vec<Wanted> =
            metrics.map(|it| wanted("metrics.listen", it)).into_iter().collect();
        all.extend(control.map(|address| wanted("control.listen", address)));
        for section in config.modules.iter().filter(|section| section.enabled) {
            let Some(package) = self.package(section) else { continue };
            let settings =
                self.resolved(config, &package).map(|it| it.settings).unwrap_or_default();
            let manifest = self.manifest(&section.name);
            for listener in manifest.map(|it| it.listeners).unwrap_or_default() {
                let given = settings.get(&listener.config_key).and_then(Value::as_str);
                let key = format!("modules.{}.{}", section.name, listener.config_key);
                all.push(wanted(&key, given.unwrap_or(&listener.default)));
            }
        }
        all
    }

    /// Returns a warning about a section whose module is not installed. One that is switched off
    /// and resembles no other may wait for its module to be installed.
    fn missing(
        &self,
        config: &Config,
        section: &ModuleSection,
        installed: &[&str],
    ) -> Option<ConfigError> {
        let name = &section.name;
        let free = installed.iter().copied().filter(|other| config.module(other).is_none());
        let near = config::nearest(name, free);
        if !section.enabled && near.is_none() {
            return None;
        }
        let place = match &section.path {
            Some(path) => path.display().to_string(),
            None => {
                let places = self.places.module_path.iter().map(|path| path.display().to_string());
                places.collect::<Vec<_>>().join(", ")
            }
        };
        let message = format!("there is no module {name} in {place}, so that it would not run");
        let mut warning = config.explain(name, &message);
        warning.hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "install it there, or remove its section".to_owned(),
        };
        Some(warning)
    }

    /// Returns a warning with the modules that run and would stop under this configuration,
    /// although nobody switched them off.
    fn would_stop(&self, config: &Config) -> Option<ConfigError> {
        let slots = self.slots();
        let gone = slots
            .iter()
            .map(|slot| &slot.entry)
            .filter(|entry| entry.state().is_alive() && config.module(&entry.name).is_none());
        let names: Vec<&str> = gone.map(|entry| entry.name.as_str()).collect();
        if names.is_empty() {
            return None;
        }
        let message = format!("these running modules would stop: {}", names.join(", "));
        let hint = "keep their sections, with `enabled: false` where that is meant";
        Some(ConfigError::of_file(&config.path, message, hint))
    }
}

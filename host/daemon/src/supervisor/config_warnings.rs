//! Warnings about a valid configuration that may not be meant as it is.

use lodestar_api::ConfigProblem;
use lodestar_config::{self as config, Config, ConfigError, ModuleSection, Wanted, given_address};
use lodestar_library as library;
use serde_json::Value;

use super::{Daemon, packages::package_of, probe::config_problem, status::manifest_of};

/// Returns the warnings about a valid configuration. `open` is the change of mode that keeps others
/// from reading its file, where they can.
pub(crate) fn config_warnings(
    daemon: &Daemon,
    config: &Config,
    open: Option<&str>,
) -> Vec<ConfigProblem> {
    let packages = library::list(&daemon.places.module_path);
    let installed: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut found = config::literal_secrets(config, open);
    found.extend(config.outdated.iter().cloned());
    if config.modules.is_empty() && !installed.is_empty() {
        let names = installed.join(", ");
        let message = format!("names no module, so that none would run ({names} are installed)");
        let hint = "write their sections below `modules:`";
        found.push(ConfigError::of_file(&config.path, message, hint));
    }
    for section in &config.modules {
        match package_of(daemon, section) {
            Some(package) => found.extend(open_secrets(daemon, config, &package)),
            None => found.extend(missing(daemon, config, section, &installed)),
        }
    }
    found.extend(config.shared_addresses(&wanted_addresses(daemon, config)));
    found.extend(would_stop(daemon, config));
    found.iter().map(config_problem).collect()
}

/// Returns a warning for each file with secrets of a module that others can read. A reference that
/// cannot be resolved is an error, and reported elsewhere.
fn open_secrets(daemon: &Daemon, config: &Config, package: &library::Package) -> Vec<ConfigError> {
    resolved(daemon, config, package).map(|resolved| resolved.warnings).unwrap_or_default()
}

fn resolved(
    daemon: &Daemon,
    config: &Config,
    package: &library::Package,
) -> Option<config::Resolved> {
    let written = config.effective(&package.name, package.defaults().ok()?.as_deref()).ok()?;
    config.resolve(&package.name, &written, &daemon.configuration.layers.environment).ok()
}

/// Returns the addresses on which the daemon and the enabled modules would listen.
fn wanted_addresses(daemon: &Daemon, config: &Config) -> Vec<Wanted> {
    let wanted = |key: &str, address: &str| {
        let (key, address) = (key.to_owned(), address.to_owned());
        Wanted { key, address }
    };
    let metrics = config.metrics.enabled.then_some(config.metrics.listen.as_str());
    let control = config.control.listen.as_deref();
    let mut all: Vec<Wanted> = metrics.map(|it| wanted("metrics.listen", it)).into_iter().collect();
    all.extend(control.map(|address| wanted("control.listen", address)));
    for section in config.modules.iter().filter(|section| section.enabled) {
        let Some(package) = package_of(daemon, section) else { continue };
        let settings = resolved(daemon, config, &package).map(|it| it.settings).unwrap_or_default();
        let manifest = manifest_of(daemon, &section.name);
        for listener in manifest.map(|it| it.listeners).unwrap_or_default() {
            let given = given_address(&listener, &settings).and_then(Value::as_str);
            let key = format!("modules.{}.{}", section.name, listener.config_key);
            all.push(wanted(&key, given.unwrap_or(&listener.default)));
        }
    }
    all
}

/// Returns a warning for a section whose module is not there. A disabled one whose name resembles
/// no other gets none: it may be waiting for its module to be installed.
fn missing(
    daemon: &Daemon,
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
            let places = daemon.places.module_path.iter().map(|path| path.display().to_string());
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

/// Returns a warning of running modules that this configuration would stop because it has no
/// section for them.
fn would_stop(daemon: &Daemon, config: &Config) -> Option<ConfigError> {
    let slots = daemon.modules.all();
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

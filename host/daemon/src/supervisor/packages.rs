//! Lookup of the packages of modules.

use std::path::PathBuf;

use lodestar_api::{Problem, ProblemCode};
use lodestar_config::{self as config, ModuleSection};
use lodestar_library::{self as library, Package};

use super::{Daemon, Refused, daemon::asked_for, probe::ask, shown};

/// Returns the package of a module: from the path in its section, or from the module path.
pub(crate) fn package_of(daemon: &Daemon, section: &ModuleSection) -> Option<Package> {
    match &section.path {
        Some(directory) => {
            let directory =
                config::expand_path(directory, &daemon.configuration.layers.environment).ok()?;
            let package = Package { name: section.name.clone(), directory };
            package.directory.is_dir().then_some(package)
        }
        None => library::find(&daemon.places.module_path, &section.name),
    }
}

/// Returns the package that a start loads: the one in its place, or, where that proved bad, the
/// generation kept on disk with the refusal.
pub(super) fn to_start(
    daemon: &Daemon,
    section: &ModuleSection,
) -> Option<(Package, Option<Refused>)> {
    let package = package_of(daemon, section)?;
    let name = &section.name;
    let refused = daemon.histories.decisions(name).refused;
    let lies_there = || library::hash(&package).unwrap_or_default();
    let Some(refused) = refused.filter(|it| lies_there() == it.sha256) else {
        return Some((package, None));
    };
    match library::find_generation(&daemon.places.state_dir, name, &refused.instead) {
        Some(kept) => Some((kept, Some(refused))),
        None => Some((package, None)),
    }
}

/// Returns every directory in which libraries are watched.
#[must_use]
pub fn library_directories(daemon: &Daemon) -> Vec<PathBuf> {
    let config = daemon.config();
    let own = config.modules.iter().filter(|section| section.path.is_some());
    let own = own.filter_map(|section| Some(package_of(daemon, section)?.directory));
    daemon.places.module_path.iter().cloned().chain(own).collect()
}

/// Returns the JSON schema of a module's configuration; `None` where its library cannot be asked.
pub(crate) fn config_schema(daemon: &Daemon, package: &Package) -> Option<serde_json::Value> {
    let ask = |package: &Package| ask(daemon, package, b"");
    Some(daemon.descriptions.of(package, ask)?.description.config_schema.clone().to_value())
}

/// Returns the message for a module that is absent.
pub(super) fn where_looked(daemon: &Daemon, name: &str) -> String {
    let places: Vec<String> =
        daemon.places.module_path.iter().map(|path| path.display().to_string()).collect();
    let packages = library::list(&daemon.places.module_path);
    let names = packages.iter().map(|package| package.name.as_str());
    let hint = config::nearest(name, names)
        .map(|nearest| format!("; did you mean {nearest}?"))
        .unwrap_or_default();
    format!("there is no module {name} in {}{hint}", places.join(", "))
}

/// Returns the answer to a request about an unknown module.
#[must_use]
pub fn unknown_module(daemon: &Daemon, name: &str) -> Problem {
    let packages = library::list(&daemon.places.module_path);
    let mut names: Vec<String> = packages.into_iter().map(|package| package.name).collect();
    names.extend(daemon.modules.all().iter().map(|slot| slot.entry.name.clone()));
    names.sort();
    names.dedup();
    let asked = asked_for(name);
    let problem = Problem::new(
        ProblemCode::NotFound,
        format!("there is no module {asked} in {}", shown(&daemon.places.config)),
    );
    match config::nearest(name, names.iter().map(String::as_str)) {
        Some(nearest) => problem.help(format!("did you mean {nearest}?")),
        None => problem.help(format!("there are: {}", names.join(", "))),
    }
}

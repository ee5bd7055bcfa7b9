//! Warnings about the daemon itself and its surroundings, as long as each holds.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use lodestar_api::Warning;
use lodestar_library::{Package, install::Keys};
use lodestar_platform::Trouble;
use lodestar_platform::file_trust::{Accepted, Also, Exposed, Survey};

use super::ledger::{ledger_unkept, text_on_disk};
use super::{Daemon, data_dirs::lost_data_dirs, packages::package_of};

/// Problems of the daemon that last, by subject.
#[derive(Debug, Default)]
pub struct Noted(Mutex<BTreeMap<&'static str, Warning>>);

impl Noted {
    /// Notes a problem under a name, or with `None` that it is over. Each change is logged once.
    pub fn note(&self, name: &'static str, trouble: Option<Trouble>) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = noted.get(name).map(|it| &it.message);
        match trouble {
            Some((message, remedy)) => {
                if before != Some(&message) {
                    tracing::warn!(remedy, "{name}: {message}");
                }
                noted.insert(name, Warning { name: name.to_owned(), message, remedy });
            }
            None if before.is_some() => {
                tracing::info!("{name}: all is well again");
                noted.remove(name);
            }
            None => {}
        }
    }

    fn all(&self) -> Vec<Warning> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// Returns all warnings: problems that were noted, and those that are found by checks now.
/// `packages` are those of the module path.
#[must_use]
pub fn warnings(daemon: &Daemon, packages: &[Package]) -> Vec<Warning> {
    let mut warnings = daemon.noted.all();
    warnings.extend(permissions(daemon, packages));
    warnings.extend(lost_data_dirs(daemon));
    let warning = |name: &str, (message, remedy): Trouble| {
        let name = name.to_owned();
        Warning { name, message, remedy }
    };
    let trouble = daemon.context.pseudonyms.trouble();
    warnings.extend(trouble.map(|trouble| warning("pseudonym key", trouble)));
    warnings.extend(accepted().map(|trouble| warning("trusted files", trouble)));
    warnings.extend(ledger_unkept(daemon).map(|trouble| warning("event ledger", trouble)));
    warnings.extend(text_on_disk(daemon).map(|trouble| warning("full logging", trouble)));
    warnings
}

/// Returns a warning for each path that decides what the daemon does and that another user can
/// change. What runs goes on; nothing is read from such a path any more.
fn permissions(daemon: &Daemon, packages: &[Package]) -> Vec<Warning> {
    let mut found: Vec<Exposed> = Vec::new();
    let mut survey = Survey::new(Also::OwnGroup);
    let on_the_way = |place: PathBuf| survey.on_the_way(&place);
    let mut exposed: Vec<Exposed> =
        deciding(daemon, packages).into_iter().filter_map(on_the_way).collect();
    exposed.extend(survey.above(&daemon.places.socket));
    for exposed in exposed {
        if !found.contains(&exposed) {
            found.push(exposed);
        }
    }
    let warning = |exposed: &Exposed| Warning {
        name: "permissions".to_owned(),
        message: format!("{exposed}; what runs goes on, and nothing is read from there"),
        remedy: exposed.remedy(),
    };
    found.iter().map(warning).collect()
}

/// Returns the paths that no other user may change.
fn deciding(daemon: &Daemon, packages: &[Package]) -> Vec<PathBuf> {
    let state_dir = &daemon.places.state_dir;
    let in_state = ["pseudonym.key", "modules.lock", "ledger", "data", "supervision"];
    let mut places = vec![daemon.places.config.clone(), state_dir.clone()];
    places.extend(in_state.map(|name| state_dir.join(name)));
    places.push(Keys::beside(&daemon.places.config).directory().to_owned());
    places.extend(daemon.places.module_path.iter().cloned());
    let config = daemon.config();
    let own = config.modules.iter().filter_map(|section| package_of(daemon, section));
    let own = own.filter(|package| !packages.contains(package));
    for package in packages.iter().cloned().chain(own) {
        let config = package.directory.join("config.yaml");
        places.extend([package.library_path(), config, daemon.data_dir(&package.name)]);
    }
    places
}

/// Returns a warning of the users whose files are trusted by `--trust-files`, if any.
fn accepted() -> Option<Trouble> {
    let accepted = Accepted::current();
    let message = format!("{accepted} may change what lodestard runs and keeps (--trust-files)");
    let remedy = "give the files to its user alone, and start it without --trust-files";
    (!accepted.is_nobody()).then(|| (message, remedy.to_owned()))
}

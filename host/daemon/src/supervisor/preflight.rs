//! Preflight checks of a package before it is put in place.

use std::{cell::Cell, fmt::Display};

use lodestar_api::{Problem, ProblemCode};
use lodestar_config::{self as config, Config, ConfigErrors, reserved_names};
use lodestar_library::{self as library, Inspected, Package, install::InstallDir};
use module_sdk::manifest::Manifest;

use super::{
    Daemon,
    error::NameTaken,
    probe::{Judged, judge_package, probe},
    status::manifest_of,
};

/// Checks a staged package before it is put in place: whether it fits this host, its name and
/// command are free, and it accepts the settings that it would get.
pub(super) fn preflight(
    daemon: &Daemon,
    package: &Package,
    config: &Config,
) -> Result<Inspected, Problem> {
    // The reason names where it lies for now, which says nothing to anybody.
    let place = format!("{}/", package.directory.display());
    let refused = |reason: &dyn Display| {
        Problem::new(ProblemCode::Refused, reason.to_string().replace(&place, ""))
            .help("nothing was installed, and nothing has changed")
    };
    let inspected = library::inspect(package).map_err(|error| refused(&error))?;
    names_are_free(daemon, &inspected.manifest).map_err(|error| refused(&error))?;
    if let Some(defaults) = &inspected.defaults {
        config::check_defaults(defaults, &package.name).map_err(|error| refused(&error))?;
    }
    let data_dir = daemon.data_dir(&package.name);
    let was_asked = Cell::new(false);
    let Judged { refusals, mute } = judge_package(daemon, config, package, |settings| {
        was_asked.set(true);
        probe(package, settings, Some(&data_dir))
    });
    if let Some(mute) = mute {
        return Err(refused(&mute.message));
    }
    if !was_asked.get() {
        probe(package, b"", Some(&data_dir)).map_err(|error| refused(&error))?;
    }
    let is_enabled = config.module(&package.name).is_some_and(|section| section.enabled);
    // What a section that is switched off refers to need not be there yet.
    if was_asked.get() || is_enabled {
        takes_its_settings(&package.name, refusals)?;
    }
    Ok(inspected)
}

/// Refuses a name of a module that lies elsewhere than among the installed modules.
pub(super) fn is_free(daemon: &Daemon, name: &str, place: &InstallDir) -> Result<(), Problem> {
    let path = daemon.places.module_path.iter().filter(|path| *path != place.modules());
    let elsewhere: Vec<_> = path.cloned().collect();
    let own = daemon.config().module(name).and_then(|section| section.path.clone());
    let taken = library::find(&elsewhere, name).map(|package| package.directory).or(own);
    let Some(directory) = taken else { return Ok(()) };
    let what = format!("there is a module {name} in {} already", directory.display());
    let help = "a module cannot be installed in the place of another; give it another name";
    Err(Problem::new(ProblemCode::Refused, what).help(help))
}

/// Returns whether the name of a module and its word on the command line mean nothing else yet.
fn names_are_free(daemon: &Daemon, manifest: &Manifest) -> Result<(), NameTaken> {
    let config = daemon.config();
    let listed = config.modules.iter().map(|section| section.name.clone());
    let lying = library::list(&daemon.places.module_path).into_iter().map(|it| it.name);
    let others: Vec<Manifest> =
        listed.chain(lying).filter_map(|name| manifest_of(daemon, &name)).collect();
    let command = manifest.cli.command.as_deref();
    let taken = reserved_names::why_taken(&manifest.module.name, command, &others);
    taken.map_or(Ok(()), |reason| Err(NameTaken(reason)))
}

fn takes_its_settings(module: &str, refusals: Vec<config::ConfigError>) -> Result<(), Problem> {
    ConfigErrors::or(refusals, ()).map_err(|errors| {
        let what = format!("{module} does not take its settings: {errors}");
        Problem::new(ProblemCode::Refused, what).help(
            "correct it there, or give the key in modules.yaml, and install it again; nothing has \
             changed",
        )
    })
}

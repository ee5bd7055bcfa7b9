//! Installation of modules: runs every check before anything is put in place.

use std::{io, path::Path};

use jiff::Timestamp;
use lodestar_api::{Declares, InstallQuery, Problem, ProblemCode, Verified};
use lodestar_library::{
    self as library, Inspected, Package,
    install::{self, Bundle, InstallDir, Keys, Lock, Locked, Signed},
};
use module_sdk::manifest::CapabilitiesSection;
use semver::Version;

use super::{
    Daemon,
    configure::Defaults,
    daemon::asked_for,
    preflight::{is_free, preflight},
    probe::ask,
};
use crate::{install_lock::InstallLock, module::Admit};

/// A module that was put in place, in a transaction that is not decided yet.
#[derive(Debug)]
pub struct Put {
    /// Install lock of the module, held until the transaction is decided.
    pub install_lock: InstallLock,
    /// Name of the module.
    pub name: String,
    /// Its entry in the lock.
    pub locked: Locked,
    /// Permissions and listeners that its manifest declares.
    pub declares: Declares,
    /// The version that was there before.
    pub previous: Option<String>,
    /// Path of its package.
    pub directory: String,
    /// Lines for its section in the file.
    pub notes: Vec<String>,
    /// Warnings about its signature and the trusted keys.
    pub warnings: Vec<String>,
}

/// Checks a package and puts it in place, in a transaction that activation commits or rolls back.
/// The running modules and the configuration file stay as they are.
///
/// # Errors
///
/// Returns the reason why the package is not installed; nothing has changed then.
pub fn install(daemon: &Daemon, bundle: &Bundle, query: &InstallQuery) -> Result<Put, Problem> {
    let install_lock = daemon.installer.install_lock(&bundle.name)?;
    let disk = |error: io::Error| on_disk(&daemon.places.state_dir, &error);
    // What an earlier one could not undo for want of room.
    daemon.installer.undo(&bundle.name).map_err(disk)?;
    let previous = daemon.installer.lock()?.modules.remove(&bundle.name);
    let place = InstallDir::of(&daemon.places.state_dir);
    is_free(daemon, &bundle.name, &place)?;
    // A module is to get its section; a file that has errors cannot take one.
    let config = daemon.configuration.load().map_err(|errors| {
        Problem::new(ProblemCode::Invalid, errors.to_string())
            .help("correct the file first; nothing was installed")
    })?;
    let keys = Keys::beside(&daemon.places.config);
    let signed = keys.signer(bundle)?;
    if !query.unsigned {
        is_as_trusted(&bundle.name, previous.as_ref(), signed.as_ref())?;
    }
    let staged = place.stage(bundle).map_err(disk)?;
    let inspected = preflight(daemon, &staged.package, &config)?;
    let manifest = toml::to_string(&inspected.manifest).unwrap_or_default();
    staged.write("module.toml", manifest.as_bytes()).map_err(disk)?;
    let locked = locked(bundle, &inspected, signed, query);
    daemon.installer.begin(staged, &locked).map_err(disk)?;
    Ok(Put {
        install_lock,
        name: bundle.name.clone(),
        notes: notes(bundle, &inspected, &locked),
        declares: declares(&inspected),
        previous: previous.map(|previous| previous.version),
        warnings: warnings(bundle, &locked, keys),
        locked,
        directory: place.package(&bundle.name).directory.display().to_string(),
    })
}

/// Compares the installed modules with the lock file.
///
/// # Errors
///
/// Returns an error when the lock file cannot be read, or `module` is not installed.
pub fn verify(daemon: &Daemon, module: Option<&str>) -> Result<Vec<Verified>, Problem> {
    let lock = daemon.installer.lock()?;
    if let Some(name) = module.filter(|name| !lock.modules.contains_key(*name)) {
        let problem =
            Problem::new(ProblemCode::NotFound, format!("{} is not installed", asked_for(name)));
        return Err(problem.help("`lodestar modules verify` shows what is"));
    }
    let place = InstallDir::of(&daemon.places.state_dir);
    let keys = Keys::beside(&daemon.places.config);
    let fits = |package: &Package| ask(daemon, package, b"").map(drop);
    Ok(install::verify(&lock, &place, &keys, module, fits))
}

/// Rolls back the installs that the last run of the daemon left undecided.
pub fn recover_installs(daemon: &Daemon) {
    match daemon.installer.recover() {
        Ok(undone) => {
            for module in undone {
                let what = "lodestard ended before it had proved good";
                tracing::warn!(module, "an install was undone: {what}");
                daemon.histories.record(&module, "undone", what);
            }
        }
        Err(error) => tracing::error!(%error, "installed modules are not loaded"),
    }
}

/// Returns the check of a library before it is loaded. It admits installed modules and generations
/// kept on disk only where they are unmodified, and notes the defaults of the library that it
/// admits.
pub(super) fn admission(daemon: &Daemon, defaults: Defaults) -> Admit {
    let state_dir = daemon.places.state_dir.clone();
    Box::new(move |inspected: &Inspected| {
        let package = Package::of(&inspected.path, &inspected.manifest.module.name);
        library::expect_unmodified(&state_dir, inspected)?;
        let given = inspected.defaults.clone();
        if InstallDir::of(&state_dir).holds(&package) {
            let config_sha256 = given.as_deref().map(|it| library::sha256(it.as_bytes()));
            let lock = Lock::read(&state_dir)?;
            lock.admit(&package, &inspected.sha256, config_sha256.as_deref())?;
        }
        // Read once: it was set already where this generation starts again.
        let _ = defaults.set(given);
        Ok(())
    })
}

/// Refuses to replace a module with a trusted signature by one without.
fn is_as_trusted(
    name: &str,
    previous: Option<&Locked>,
    signed: Option<&Signed>,
) -> Result<(), Problem> {
    let Some(before) = previous.and_then(|previous| previous.signer.as_deref()) else {
        return Ok(());
    };
    if signed.is_some() {
        return Ok(());
    }
    let what = format!("{name} is installed with a signature by {before}, this one has none");
    let help = "get the signed module from its publisher, or accept this one with --unsigned";
    Err(Problem::new(ProblemCode::Refused, what).help(help))
}

fn locked(
    bundle: &Bundle,
    inspected: &Inspected,
    signed: Option<Signed>,
    query: &InstallQuery,
) -> Locked {
    Locked {
        version: inspected.manifest.module.version.clone(),
        sha256: inspected.sha256.clone(),
        config_sha256: bundle.config.as_deref().map(library::sha256),
        signer: signed.as_ref().map(|signed| signed.by.clone()),
        key: signed.map(|signed| signed.key),
        source: query.source.chars().filter(|c| !c.is_control()).take(1024).collect(),
        installed_at: format!("{:.0}", Timestamp::now()),
    }
}

fn warnings(bundle: &Bundle, locked: &Locked, keys: Keys) -> Vec<String> {
    let mut warnings = keys.passed_over.clone();
    if locked.signer.is_none() && bundle.signature.is_some() {
        let place = keys.directory().display();
        warnings.push(format!(
            "its signature is by no key in {place}, so it counts as unsigned; put its publisher's \
             key there and install it again if you trust it"
        ));
    }
    warnings
}

fn declares(inspected: &Inspected) -> Declares {
    let capabilities = inspected.manifest.capabilities.clone();
    let CapabilitiesSection { secrets, providers, relays, paths_read, .. } = capabilities;
    let CapabilitiesSection { paths_write, calls, control, .. } = capabilities;
    let listeners = inspected.manifest.listeners.iter();
    let listeners = listeners.map(|it| format!("{} ({} without it)", it.config_key, it.default));
    let (listeners, operate) = (listeners.collect(), control.is_some());
    Declares { secrets, providers, relays, paths_read, paths_write, listeners, calls, operate }
}

/// Returns the comments of a new section: version, description and signer of the module, and its
/// defaults.
fn notes(bundle: &Bundle, inspected: &Inspected, locked: &Locked) -> Vec<String> {
    let module = &inspected.manifest.module;
    let signer = match &locked.signer {
        Some(signer) => format!("signed by {signer}"),
        None => "unsigned, so it runs in a process of its own".to_owned(),
    };
    let name = &module.name;
    let mut notes = vec![
        format!("{name} {}: {}", module.version, module.description),
        format!("Installed on {}, {signer}.", locked.installed_at.get(..10).unwrap_or_default()),
    ];
    let defaults = bundle.config.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let lines: Vec<&str> = defaults.lines().filter(|line| !line.trim().is_empty()).collect();
    if !lines.is_empty() {
        notes.push("Its settings, as they are without being written here:".to_owned());
    }
    notes.extend(lines.into_iter().map(|line| line.trim_end().to_owned()));
    notes
}

pub(super) fn on_disk(state_dir: &Path, error: &io::Error) -> Problem {
    let what = format!("cannot install below {}: {error}", state_dir.display());
    let help = match error.kind() {
        io::ErrorKind::StorageFull => "make room on its file system; nothing has changed",
        io::ErrorKind::InvalidInput => "its file system cannot replace a directory in one step",
        _ => "see that lodestard's user may write there; nothing has changed",
    };
    Problem::new(ProblemCode::Unavailable, what).help(help)
}

/// Returns the kind of a change of version: `new`, `upgrade`, `downgrade` or `same version`.
#[must_use]
pub fn change(previous: Option<&str>, version: &str) -> &'static str {
    let Some(previous) = previous else { return "new" };
    match (Version::parse(previous), Version::parse(version)) {
        (Ok(before), Ok(after)) if after > before => "upgrade",
        (Ok(before), Ok(after)) if after < before => "downgrade",
        _ if previous == version => "same version",
        _ => "upgrade",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_up_from_down() {
        let check = |before, after, expected| assert_eq!(change(before, after), expected);
        check(None, "0.1.0", "new");
        check(Some("0.9.0"), "0.10.0", "upgrade");
        check(Some("1.0.0"), "1.0.0-rc.1", "downgrade");
        check(Some("1.0.0"), "1.0.0", "same version");
    }
}

//! Installing modules: every check before anything is put in place.

use std::{io, path::Path, sync::PoisonError};

use jiff::Timestamp;
use module_sdk::manifest::CapabilitiesSection;
use semver::Version;

use super::{Daemon, probe::probe};
use crate::{
    config,
    control::api::{Declares, InstallQuery, Problem, ProblemCode, Verified},
    install::{self, Bundle, Keys, Lock, Locked, Place, Signed, Staged},
    library::{self, Inspected, Package},
    module::Admit,
};

/// A module that was put in its place.
#[derive(Debug)]
pub struct Put {
    /// Its name.
    pub name: String,
    /// Its entry in the lock.
    pub locked: Locked,
    /// What it asks for.
    pub declares: Declares,
    /// The version that was there before.
    pub previous: Option<String>,
    /// Where it lies.
    pub directory: String,
    /// Lines for its section in the file.
    pub notes: Vec<String>,
    /// What there is to be known beside that.
    pub warnings: Vec<String>,
}

impl Daemon {
    /// Checks a package and puts it in its place. What is running and the file stay as they are.
    ///
    /// # Errors
    ///
    /// Why it is not installed; nothing has changed then.
    pub fn install(&self, bundle: &Bundle, query: &InstallQuery) -> Result<Put, Problem> {
        let _installing = self.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place::of(&self.places.state_dir);
        place.clear();
        let mut lock = self.lock()?;
        lock.settle(place.modules());
        let previous = lock.modules.get(&bundle.name).cloned();
        self.is_free(&bundle.name, &place)?;
        // A module is to get its section; a file that has errors cannot take one.
        self.load_config().map_err(|errors| {
            Problem::new(ProblemCode::Invalid, errors.to_string())
                .help("correct the file first; nothing was installed")
        })?;
        let keys = Keys::beside(&self.places.config);
        let signed = keys.signer(bundle)?;
        if !query.unsigned {
            is_as_trusted(&bundle.name, previous.as_ref(), signed.as_ref())?;
        }
        let disk = |error: io::Error| on_disk(&self.places.state_dir, &error);
        let staged = place.stage(bundle).map_err(disk)?;
        let inspected = examine(&staged, bundle, &self.data_dir(&bundle.name))?;
        let manifest = toml::to_string(&inspected.manifest).unwrap_or_default();
        staged.write("module.toml", manifest.as_bytes()).map_err(disk)?;
        let locked = locked(bundle, &inspected, signed, query);
        self.put(&place, lock, staged, &locked)?;
        let directory = place.package(&bundle.name).directory.display().to_string();
        tracing::info!(
            module = bundle.name,
            version = locked.version,
            sha256 = locked.sha256,
            signer = locked.signer.as_deref().unwrap_or("unsigned"),
            "a module was installed"
        );
        Ok(Put {
            name: bundle.name.clone(),
            notes: notes(bundle, &inspected, &locked),
            declares: declares(&inspected),
            previous: previous.map(|previous| previous.version),
            warnings: warnings(bundle, &locked, keys),
            locked,
            directory,
        })
    }

    /// Puts a module in its place so that a kill at any time leaves it or the one before, known.
    fn put(
        &self,
        place: &Place,
        mut lock: Lock,
        staged: Staged,
        locked: &Locked,
    ) -> Result<(), Problem> {
        let state_dir = &self.places.state_dir;
        let disk = |error: io::Error| on_disk(state_dir, &error);
        lock.coming.insert(staged.package.name.clone(), locked.clone());
        lock.write(state_dir).map_err(disk)?;
        let put = place.put(staged);
        lock.settle(place.modules());
        lock.write(state_dir).map_err(disk)?;
        put.map_err(disk)
    }

    /// Compares what is installed with the lock.
    ///
    /// # Errors
    ///
    /// When the lock cannot be read, or `module` is not installed.
    pub fn verify(&self, module: Option<&str>) -> Result<Vec<Verified>, Problem> {
        let lock = self.lock()?;
        if let Some(name) = module.filter(|name| !lock.modules.contains_key(*name)) {
            let problem = Problem::new(ProblemCode::NotFound, format!("{name} is not installed"));
            return Err(problem.help("`lodestar modules verify` shows what is"));
        }
        let place = Place::of(&self.places.state_dir);
        let keys = Keys::beside(&self.places.config);
        let fits = |package: &Package| self.ask(package, b"").map(drop);
        Ok(install::verify(&lock, &place, &keys, module, fits))
    }

    /// Takes note of what a kill in the middle of an install left.
    pub fn settle_installs(&self) {
        let _installing = self.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place::of(&self.places.state_dir);
        place.clear();
        let settled = Lock::read(&self.places.state_dir).and_then(|mut lock| {
            let unsettled = lock.settle(place.modules());
            let write = || lock.write(&self.places.state_dir).map_err(|error| error.to_string());
            if unsettled { write() } else { Ok(()) }
        });
        if let Err(error) = settled {
            tracing::error!(error, "installed modules are not loaded");
        }
    }

    /// The lock, or that it cannot be read.
    pub(super) fn lock(&self) -> Result<Lock, Problem> {
        Lock::read(&self.places.state_dir).map_err(|error| Problem::new(ProblemCode::Failed, error))
    }

    /// Lets only those installed modules and kept generations through that are as they were.
    pub(super) fn admission(&self) -> Admit {
        let state_dir = self.places.state_dir.clone();
        Box::new(move |inspected: &Inspected| {
            let package = Package::of(&inspected.path, &inspected.manifest.module.name);
            if let Some(sha256) = library::kept_as(&state_dir, &package) {
                return is_as_kept(&package, inspected, &sha256);
            }
            if !Place::of(&state_dir).holds(&package) {
                return Ok(());
            }
            Lock::read(&state_dir)?.admit(&package, &inspected.sha256)
        })
    }

    /// A name that belongs to a module elsewhere cannot be taken over.
    fn is_free(&self, name: &str, place: &Place) -> Result<(), Problem> {
        let path = self.places.module_path.iter().filter(|path| *path != place.modules());
        let elsewhere: Vec<_> = path.cloned().collect();
        let own = self.config().module(name).and_then(|section| section.path.clone());
        let taken = library::find(&elsewhere, name).map(|package| package.directory).or(own);
        let Some(directory) = taken else { return Ok(()) };
        let what = format!("there is a module {name} in {} already", directory.display());
        let help = "a module cannot be installed in the place of another; give it another name";
        Err(Problem::new(ProblemCode::Refused, what).help(help))
    }
}

/// Asks everything of a library that can be asked before it is in its place.
fn examine(staged: &Staged, bundle: &Bundle, data_dir: &Path) -> Result<Inspected, Problem> {
    let package = &staged.package;
    // The reason names where it lies for now, which says nothing to anybody.
    let place = format!("{}/", package.directory.display());
    let refused = |reason: String| {
        Problem::new(ProblemCode::Refused, reason.replace(&place, ""))
            .help("nothing was installed, and nothing has changed")
    };
    let inspected = library::inspect(package).map_err(|error| refused(error.to_string()))?;
    if let Some(config) = &bundle.config {
        let text = std::str::from_utf8(config)
            .map_err(|_| refused("its config.yaml is not UTF-8 text".to_owned()))?;
        config::check_defaults(text, &bundle.name).map_err(|e| refused(e.to_string()))?;
    }
    probe(package, b"", Some(data_dir)).map_err(refused)?;
    Ok(inspected)
}

/// A kept generation is named after the hash of its library.
fn is_as_kept(package: &Package, inspected: &Inspected, sha256: &str) -> Result<(), String> {
    if inspected.sha256 == sha256 {
        return Ok(());
    }
    Err(format!(
        "{} was modified since it was kept; remove it, and install or reload {} again",
        package.directory.display(),
        package.name
    ))
}

/// A module that carries a trusted signature does not give way to one that does not by itself.
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
    let CapabilitiesSection { secrets, providers, paths_read, paths_write } =
        inspected.manifest.capabilities.clone();
    let listeners = inspected.manifest.listeners.iter();
    let listeners = listeners.map(|it| format!("{} ({} without it)", it.config_key, it.default));
    Declares { secrets, providers, paths_read, paths_write, listeners: listeners.collect() }
}

/// What stands in a new section: who it is, and its defaults as comments.
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

fn on_disk(state_dir: &Path, error: &io::Error) -> Problem {
    let what = format!("cannot install below {}: {error}", state_dir.display());
    let help = match error.kind() {
        io::ErrorKind::StorageFull => "make room on its file system; nothing has changed",
        io::ErrorKind::InvalidInput => "its file system cannot replace a directory in one step",
        _ => "see that lodestard's user may write there; nothing has changed",
    };
    Problem::new(ProblemCode::Unavailable, what).help(help)
}

/// How one version follows another, in a word or two.
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

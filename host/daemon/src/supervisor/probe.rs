//! Probes of libraries and checks of configurations: a short-lived process loads the library, so
//! that it is never mapped into the daemon.

use std::{
    io::Read as _, os::unix::fs::MetadataExt as _, panic::resume_unwind, path::Path,
    process::Command, time::Duration,
};

use lodestar_api::{Change, ConfigCheck, ConfigProblem, ConfigReport, ConfigView};
use lodestar_config::{self as config, Config, ConfigError, ConfigErrors, ModuleSection};
use lodestar_library::{
    self as library, LoadedLibraries, Package, inspect,
    install::{AdmitError, Lock},
};
use lodestar_platform::file_trust::Accepted;
use module_sdk::{Description, manifest::Manifest};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::{
    Daemon,
    config_warnings::config_warnings,
    configure,
    error::{DescribeError, ProbeError},
    isolation::was_installed,
    packages::{package_of, to_start},
};
use crate::runner::{self, SubprocessOutput};

/// Time that a library may take to describe itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answer of a library that was probed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// Manifest in the library.
    pub manifest: Manifest,
    /// Description that the library returns: subscriptions, timers, commands, schema.
    pub description: Description,
    /// Refusal of the configuration that the library was asked about, as JSON; `None` when it
    /// accepts it.
    pub refusal: Option<String>,
}

/// Runs `lodestard --describe DIR --named NAME`: loads one library, and prints its manifest, its
/// description and its verdict on the configuration from standard input. The name is that of the
/// directory, except for a generation kept on disk, whose directory is named by its hash.
/// `confined` is the data directory of a module that was installed: its code reaches no other file
/// of the daemon's user.
///
/// # Errors
///
/// When the library cannot be loaded, with the reason as a sentence.
pub fn describe_for_parent(
    package: &Package,
    confined: Option<&Path>,
) -> Result<String, DescribeError> {
    let mut config = Vec::new();
    std::io::stdin().read_to_end(&mut config)?;
    let inspected = inspect(package)?;
    let manifest = inspected.manifest.clone();
    if let Some(data_dir) = confined {
        runner::confine(&[data_dir.to_owned()]);
    }
    let library = LoadedLibraries::default().open(inspected, false)?;
    let description = (library.root().describe())().into_result();
    let description =
        description.map_err(|error| DescribeError::Refused(error.message.into_string()))?;
    let description =
        serde_json::from_slice(description.as_slice()).map_err(DescribeError::Damaged)?;
    let refusal = if config.is_empty() {
        None
    } else {
        let validated = (library.root().validate())(config.as_slice().into());
        validated.into_result().err().map(|error| error.message.into_string())
    };
    serde_json::to_string(&Probe { manifest, description, refusal }).map_err(DescribeError::Json)
}

/// Probes a library in a process of its own.
///
/// # Errors
///
/// Returns the reason why the library cannot be loaded, or that it did not answer in time.
pub(super) fn probe(
    package: &Package,
    config: &[u8],
    confined: Option<&Path>,
) -> Result<Probe, ProbeError> {
    // Also the right one when its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg("--describe").arg(&package.directory).env_clear();
    command.arg("--named").arg(&package.name);
    command.arg(format!("--trust-files={}", Accepted::current()));
    command.arg("--asked-by").arg(std::process::id().to_string());
    if let Some(data_dir) = confined {
        command.arg("--confined-to").arg(data_dir);
    }
    let answered = runner::ask(command, config, PATIENCE).map_err(ProbeError::NoProcess)?;
    let Some(SubprocessOutput { status, output, complaints }) = answered else {
        return Err(ProbeError::NoAnswer(PATIENCE));
    };
    if status.success() {
        return Ok(serde_json::from_slice(&output)?);
    }
    let complaints = String::from_utf8_lossy(&complaints);
    let gave_up = reason(&complaints).map(|reason| ProbeError::GaveUp(reason.to_owned()));
    Err(gave_up.unwrap_or(ProbeError::Ended(status)))
}

/// Returns the error of the process, among other output on standard error: the library may write
/// there before and, as it is unloaded, after.
fn reason(complaints: &str) -> Option<&str> {
    let own = complaints.lines().rev().find_map(|line| line.strip_prefix("lodestard: "));
    own.or_else(|| complaints.lines().rev().find(|line| !line.trim().is_empty()))
}

/// Verdict of a module on its section.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Errors of the section.
    pub(super) refusals: Vec<ConfigError>,
    /// Reason why the module cannot be asked. It refuses nothing then; an error shows when it
    /// starts.
    pub(super) mute: Option<ConfigError>,
}

/// Asks a module, in a process of its own, whether it accepts its section of `config`.
pub(super) fn judge(daemon: &Daemon, config: &Config, section: &ModuleSection) -> Judged {
    // A module that is not installed is no error of the file.
    let Some((package, _)) = to_start(daemon, section) else { return Judged::default() };
    judge_package(daemon, config, &package, |settings| ask(daemon, &package, settings))
}

/// Asks the module of `package` by way of `ask`, which is given its settings in `config`.
pub(super) fn judge_package(
    daemon: &Daemon,
    config: &Config,
    package: &Package,
    ask: impl Fn(&[u8]) -> Result<Probe, ProbeError>,
) -> Judged {
    let name = &package.name;
    let mute = |reason: &str| {
        let reason = daemon.logging.redactor.redact(reason);
        Judged { refusals: Vec::new(), mute: Some(config.explain(name, &reason)) }
    };
    let defaults = match package.defaults() {
        Ok(defaults) => defaults,
        Err(error) => return mute(&error.to_string()),
    };
    let defaults = defaults.as_deref();
    let settings = match configure::settings(daemon, config, name, defaults) {
        Ok(settings) => settings,
        Err(errors) => return Judged { refusals: errors.into_iter().collect(), mute: None },
    };
    let bytes = serde_json::Value::Object(settings.clone()).to_string();
    let redactor = &daemon.logging.redactor;
    match ask(bytes.as_bytes()) {
        Ok(Probe { manifest: Manifest { listeners, .. }, description, refusal }) => {
            let mut refusals = config.wrong_addresses(name, &listeners, &settings, defaults);
            if let Some(report) = refusal {
                let told = config.explain_with(name, &report, defaults);
                let schema = description.config_schema.as_value();
                refusals.extend(config.refusals(name, schema, &settings, defaults, told));
            }
            for text in refusals.iter_mut().flat_map(|it| [&mut it.message, &mut it.hint]) {
                *text = redactor.redact(text).into_owned();
            }
            Judged { refusals, mute: None }
        }
        Err(error) => mute(&error.to_string()),
    }
}

/// Asks several modules at the same time, so that one that hangs does not delay the others. Returns
/// the verdicts in the order of the sections.
pub(super) fn judge_all<'a>(
    daemon: &Daemon,
    config: &Config,
    sections: impl Iterator<Item = &'a ModuleSection>,
) -> Vec<Judged> {
    std::thread::scope(|scope| {
        let asking: Vec<_> =
            sections.map(|section| scope.spawn(move || judge(daemon, config, section))).collect();
        let judged = asking.into_iter().map(|asking| asking.join());
        judged.map(|judged| judged.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Asks a library on the module path what it is. One that was installed must be as it was, and
/// is held to its own files.
pub(super) fn ask(daemon: &Daemon, package: &Package, config: &[u8]) -> Result<Probe, ProbeError> {
    let state_dir = &daemon.places.state_dir;
    let lock = Lock::read(state_dir);
    if !was_installed(daemon, package, lock.as_ref().unwrap_or(&Lock::default())) {
        return probe(package, config, None);
    }
    if library::generation_of(state_dir, package).is_some() {
        let inspected = inspect(package)?;
        library::expect_unmodified(state_dir, &inspected)?;
        return probe(package, config, Some(&daemon.data_dir(&package.name)));
    }
    let sha256 = library::hash(package).unwrap_or_default();
    let config_sha256 = package.defaults()?;
    let config_sha256 = config_sha256.map(|text| library::sha256(text.as_bytes()));
    let lock = lock.map_err(AdmitError::from)?;
    lock.admit(package, &sha256, config_sha256.as_deref())?;
    probe(package, config, Some(&daemon.data_dir(&package.name)))
}

/// Returns all errors and warnings of a configuration, the modules' sections included. Checks the
/// file on the disk when no text is given.
#[must_use]
pub fn check_config(daemon: &Daemon, check: &ConfigCheck) -> ConfigReport {
    let text = check.text.as_deref();
    let config = match text {
        Some(text) => Config::parse(text, &daemon.places.config, &daemon.configuration.layers),
        None => {
            Config::load(&daemon.places.config, &daemon.configuration.layers).and_then(|on_disk| {
                on_disk.expect_whole(&daemon.config())?;
                Ok(on_disk)
            })
        }
    };
    let config = match config {
        Ok(config) => config,
        Err(errors) => {
            return report(&errors);
        }
    };
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    if let Some(exposed) = config::expect_ours(&config.path).err().filter(|_| text.is_none()) {
        // What is another user's to somebody else may be the daemon's own.
        let state_dir = daemon.places.state_dir.metadata();
        let is_daemon = state_dir.is_ok_and(|it| it.uid() == geteuid().as_raw());
        if is_daemon { &mut errors } else { &mut warnings }.push(exposed);
    }
    let counts = daemon.config();
    let decides = |section: &&ModuleSection| {
        section.enabled && counts.module(&section.name) != Some(*section)
    };
    let asked: Vec<&ModuleSection> =
        config.modules.iter().filter(|it| !check.changed || decides(it)).collect();
    let judged = judge_all(daemon, &config, asked.iter().copied());
    for (section, judged) in asked.into_iter().zip(judged) {
        errors.extend(judged.refusals);
        // What cannot be asked is no error of a section that is switched off, and does not keep
        // the file from being taken.
        errors.extend(judged.mute.filter(|_| section.enabled && !check.changed));
    }
    let errors = errors.iter().map(config_problem).collect();
    let read_from_file = text.is_none();
    let open = read_from_file.then(|| lodestar_config::open_to_others(&config.path)).flatten();
    let mut warnings: Vec<_> = warnings.iter().map(config_problem).collect();
    warnings.extend(config_warnings(daemon, &config, open));
    ConfigReport { errors, warnings }
}

/// Returns the configuration that runs, without secrets.
#[must_use]
pub fn config_view(daemon: &Daemon) -> ConfigView {
    let config = daemon.config();
    let modules = config.modules.iter().map(|section| {
        let defaults = package_of(daemon, section).and_then(|it| it.defaults().ok().flatten());
        let settings = config.effective(&section.name, defaults.as_deref());
        let settings = lodestar_config::redacted(&settings.unwrap_or_default());
        (section.name.clone(), serde_json::Value::Object(settings))
    });
    ConfigView {
        path: daemon.places.config.display().to_string(),
        text: daemon.logging.redactor.redact(&config.text).into_owned(),
        modules: modules.collect(),
    }
}

/// Returns the changes that applying the file now would make.
///
/// # Errors
///
/// Returns all errors of the file.
pub fn config_diff(daemon: &Daemon) -> Result<Vec<Change>, lodestar_config::ConfigErrors> {
    let after = daemon.configuration.load()?;
    let mut changes = lodestar_config::diff(&daemon.config(), &after);
    // What was taken and waits for a restart does not run either.
    changes.retain(|change| !lodestar_config::needs_a_restart(&change.path));
    let mut others = lodestar_config::diff(&daemon.configuration.of_start, &after);
    others.retain(|change| lodestar_config::needs_a_restart(&change.path));
    changes.append(&mut others);
    let change = |change: lodestar_config::Change| Change {
        path: change.path,
        before: change.before.unwrap_or_default(),
        after: change.after.unwrap_or_default(),
    };
    Ok(changes.into_iter().map(change).collect())
}

/// Returns errors as the control API shows them.
#[must_use]
pub fn report(errors: &ConfigErrors) -> ConfigReport {
    ConfigReport {
        errors: errors.as_slice().iter().map(config_problem).collect(),
        warnings: Vec::new(),
    }
}

/// Returns one error as the control API shows it.
pub(crate) fn config_problem(error: &ConfigError) -> ConfigProblem {
    ConfigProblem {
        file: error.path.clone(),
        line: error.line.into(),
        column: error.column.into(),
        key: error.key.clone(),
        message: error.message.clone(),
        hint: (!error.hint.is_empty()).then(|| error.hint.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_among_what_else_was_written() {
        let check = |complaints, expected| assert_eq!(reason(complaints), expected);
        check("", None);
        check("\n", None);
        check("lodestard: it is no library\n", Some("it is no library"));
        check("hello\nlodestard: no\nLLVM Profile Error: cannot write x\n", Some("no"));
        check("lodestard: first\nlodestard: last\n", Some("last"));
        check("killed\n\n", Some("killed"));
    }
}

//! Asking a library what it is without mapping it into the daemon: a process of its own does it
//! and ends.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use module_sdk::Description;
use serde::{Deserialize, Serialize};

use super::{Daemon, configure};
use crate::{
    config::{Config, ConfigError, ConfigErrors},
    control::api::{Change, ConfigProblem, ConfigReport, ConfigView},
    library::{Package, Shelf, inspect},
};

/// How long a library may take to describe itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a library says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// What it declares.
    pub description: Description,
    /// Its refusal of the configuration that it was shown, JSON; `None` when it would take it.
    pub refusal: Option<String>,
}

/// `lodestard --describe DIR`: loads one library, prints what it says of itself and of the
/// configuration on standard input.
///
/// # Errors
///
/// Why it cannot be loaded, a sentence.
pub fn describe_for_parent(directory: &Path) -> Result<String, String> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let package = Package { name, directory: directory.to_owned() };
    let mut config = Vec::new();
    std::io::stdin().read_to_end(&mut config).map_err(|error| error.to_string())?;
    let library = inspect(&package).and_then(|inspected| Shelf::default().open(inspected, false));
    let library = library.map_err(|error| error.to_string())?;
    let description = (library.root().describe())().into_result();
    let description = description.map_err(|error| error.message.into_string())?;
    let description = serde_json::from_slice(description.as_slice())
        .map_err(|error| format!("its description cannot be read: {error}"))?;
    let refusal = if config.is_empty() {
        None
    } else {
        let validated = (library.root().validate())(config.as_slice().into());
        validated.into_result().err().map(|error| error.message.into_string())
    };
    serde_json::to_string(&Probe { description, refusal }).map_err(|error| error.to_string())
}

/// Asks a library in a process of its own.
///
/// # Errors
///
/// Why it cannot be loaded, or that it did not answer in time.
pub(super) fn probe(package: &Package, config: &[u8]) -> Result<Probe, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .arg("--describe")
        .arg(&package.directory)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start a process to look at it: {error}"))?;
    let mut input = child.stdin.take().ok_or("the process has no standard input")?;
    // A library that fails before it reads closes the pipe; its exit tells why.
    let _ = input.write_all(config);
    drop(input);
    let id = child.id();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // An error means that nobody waits any more.
        let _ = sender.send(child.wait_with_output());
    });
    let Ok(output) = receiver.recv_timeout(PATIENCE) else {
        if let Some(process) = rustix::process::Pid::from_raw(i32::try_from(id).unwrap_or(0)) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
        return Err(format!("it did not describe itself within {} s", PATIENCE.as_secs()));
    };
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    } else {
        let text = String::from_utf8_lossy(&output.stderr);
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("lodestard: ");
        Err(if reason.is_empty() {
            format!("it ended with {}", output.status)
        } else {
            reason.into()
        })
    }
}

impl Daemon {
    /// Everything that is wrong with a configuration, the modules' sections included; with the
    /// file on the disk when no text is given.
    #[must_use]
    pub fn check_config(&self, text: Option<&str>) -> ConfigReport {
        let config = match text {
            Some(text) => Config::parse(text, &self.places.config, &self.layers),
            None => Config::load(&self.places.config, &self.layers),
        };
        let config = match config {
            Ok(config) => config,
            Err(errors) => {
                return report(&errors);
            }
        };
        let mut errors = Vec::new();
        for section in &config.modules {
            // A module that is not installed is no error of the file.
            let Some(package) = self.package(section) else { continue };
            match configure::settings(self, &config, &package) {
                Ok(settings) => {
                    let bytes = serde_json::Value::Object(settings).to_string();
                    match probe(&package, bytes.as_bytes()) {
                        Ok(Probe { refusal: Some(report), .. }) => {
                            errors.push(problem(&config.explain(&section.name, &report)));
                        }
                        Ok(_) => {}
                        Err(reason) if section.enabled => {
                            errors.push(problem(&config.explain(&section.name, &reason)));
                        }
                        Err(_) => {}
                    }
                }
                Err(wrong) => errors.extend(wrong.as_slice().iter().map(problem)),
            }
        }
        ConfigReport { errors }
    }

    /// The configuration that runs, secrets left out.
    #[must_use]
    pub fn config_view(&self) -> ConfigView {
        let config = self.config();
        let modules = config.modules.iter().map(|section| {
            let defaults = self.package(section).and_then(|package| package.default_config());
            let settings = config.effective(&section.name, defaults.as_deref());
            let settings = crate::config::redacted(&settings.unwrap_or_default());
            (section.name.clone(), serde_json::Value::Object(settings))
        });
        ConfigView {
            path: self.places.config.display().to_string(),
            text: self.logging.redactor.redact(&config.text).into_owned(),
            modules: modules.collect(),
        }
    }

    /// What would change if the file were taken now.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the file.
    pub fn config_diff(&self) -> Result<Vec<Change>, crate::config::ConfigErrors> {
        let after = self.load_config()?;
        let changes = crate::config::diff(&self.config(), &after).into_iter();
        let change = |change: crate::config::Change| Change {
            path: change.path,
            before: change.before.unwrap_or_default(),
            after: change.after.unwrap_or_default(),
        };
        Ok(changes.map(change).collect())
    }
}

/// Errors as the control API shows them.
#[must_use]
pub fn report(errors: &ConfigErrors) -> ConfigReport {
    ConfigReport { errors: errors.as_slice().iter().map(problem).collect() }
}

fn problem(error: &ConfigError) -> ConfigProblem {
    ConfigProblem {
        file: error.path.clone(),
        line: error.line.into(),
        column: error.column.into(),
        key: error.key.clone(),
        message: error.message.clone(),
        hint: (!error.hint.is_empty()).then(|| error.hint.clone()),
    }
}

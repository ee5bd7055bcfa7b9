//! A private daemon: a temporary state directory, socket and ports, gone when it is dropped.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use module_sdk::manifest::Manifest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::install;
use crate::{
    client::Client,
    error::{CliError, InvalidValue, Result},
};

/// Longest time until the daemon's socket answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest time that the daemon's modules have to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Time between two checks while the daemon starts or stops.
const TURN: Duration = Duration::from_millis(5);

/// A daemon that runs one module under development, and the modules that go with it.
#[derive(Debug)]
pub(crate) struct PrivateDaemon {
    child: Child,
    folder: TempDir,
    overrides: Vec<String>,
}

impl PrivateDaemon {
    /// Lays out the daemon's folder and starts it. The module itself is disabled until it is
    /// installed.
    ///
    /// # Errors
    ///
    /// When a module of `with` is not installed here, or `lodestard` cannot be started.
    pub(crate) fn start(manifest: &Manifest, with: &[String], set: &[String]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lodestar-dev-").tempdir()?;
        let name = &manifest.module.name;
        let mut overrides: Vec<String> = set.iter().map(|set| format!("{name}.{set}")).collect();
        // What the author gives comes last and wins.
        overrides.splice(0..0, free_ports(manifest));
        let mut text = format!(
            "# Written by `lodestar modules dev`; gone when it ends.\nmodules:\n  {name}:\n    \
             enabled: false\n    unload: true\n"
        );
        for other in with.iter().filter(|other| *other != name) {
            let beside = install::copy_installed(other, &modules_in(folder.path()))?;
            overrides.splice(0..0, free_ports(&beside));
            text.push_str(&format!("  {other}:\n    enabled: true\n"));
        }
        text.push_str("metrics:\n  listen: 127.0.0.1:0\nlog:\n  modules:\n");
        text.push_str(&format!("    {name}: debug\n"));
        fs::create_dir_all(modules_in(folder.path()))?;
        fs::write(folder.path().join("modules.yaml"), text)?;
        let child = spawn(folder.path(), &overrides)?;
        Ok(Self { child, folder, overrides })
    }

    /// Starts the daemon again after it has ended, with the same folder and settings.
    ///
    /// # Errors
    ///
    /// When `lodestard` cannot be started.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.child = spawn(self.folder.path(), &self.overrides)?;
        Ok(())
    }

    /// Waits until the daemon answers.
    ///
    /// # Errors
    ///
    /// When the daemon ends instead, or does not answer in time, with the last line of its log.
    pub(crate) async fn answers(&mut self, client: &Client) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            if client.get::<serde_json::Value>("/v1/healthz").await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.ended() {
                let message = format!("the private lodestard ended with {status}");
                return Err(CliError::failed(message).help(self.last_words()));
            }
            if Instant::now() > until {
                return Err(CliError::timed_out("the private lodestard does not answer")
                    .help(self.last_words()));
            }
            tokio::time::sleep(TURN).await;
        }
    }

    /// Returns the exit status of the daemon, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Returns the path of the daemon's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Returns the directory of the daemon's modules.
    pub(crate) fn modules(&self) -> PathBuf {
        modules_in(self.folder.path())
    }

    /// Returns the last line of the daemon's log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("lodestard.log"));
        let log = log.unwrap_or_default();
        log.lines().last().unwrap_or("it said nothing").to_owned()
    }
}

impl Drop for PrivateDaemon {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.ended().is_none()) {
            // An error means that it is gone.
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + GRACE;
        while self.ended().is_none() && Instant::now() < until {
            thread::sleep(TURN);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path, overrides: &[String]) -> Result<Child> {
    let program = super::lodestard()?;
    let log = fs::File::options().create(true).append(true).open(folder.join("lodestard.log"))?;
    let mut command = Command::new(&program);
    command.arg("--config").arg(folder.join("modules.yaml"));
    command.arg("--state-dir").arg(folder.join("state"));
    command.arg("--module-path").arg(modules_in(folder));
    command.arg("--socket").arg(folder.join("control.sock")).arg("--end-with-parent");
    for setting in overrides {
        command.arg("--set").arg(setting);
    }
    // Ctrl-C is for the command line, which then ends the daemon in good order.
    command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().map_err(|error| {
        CliError::failed(format!("cannot start {}: {error}", program.display()))
            .help("install lodestard again")
    })
}

fn modules_in(folder: &Path) -> PathBuf {
    folder.join("modules")
}

/// Returns settings that give every listener of a module a free port.
fn free_ports(manifest: &Manifest) -> Vec<String> {
    let name = &manifest.module.name;
    let listeners = manifest.listeners.iter();
    listeners.map(|listener| format!("{name}.{}=127.0.0.1:0", listener.config_key)).collect()
}

/// Checks a setting of the module, as `--set` takes it: a key with its value.
///
/// # Errors
///
/// When it is none.
pub(crate) fn setting(text: &str) -> Result<String, InvalidValue> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err(InvalidValue::setting()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_key_with_its_value() {
        for text in ["limit=30", "deep.key=", "text=a=b"] {
            assert_eq!(setting(text).expect("it is one"), text);
        }
        for text in ["limit", "=30", ""] {
            assert!(
                setting(text).is_err_and(|error| error.to_string().contains("KEY=VALUE")),
                "{text}"
            );
        }
    }
}

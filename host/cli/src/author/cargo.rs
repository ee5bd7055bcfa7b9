//! Builds of a module with cargo.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::error::{CliError, LockError, Result};

/// A library that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Built {
    /// The name of the module.
    pub(crate) name: String,
    /// Path of the library.
    pub(crate) library: PathBuf,
    /// Duration of the build.
    pub(crate) took: Duration,
}

/// A running build, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Build {
    child: Child,
    folder: PathBuf,
    begun: Instant,
}

impl Build {
    /// Starts cargo in the folder of a crate. Its progress goes to standard error.
    ///
    /// # Errors
    ///
    /// When there is no cargo.
    pub(crate) fn start(folder: &Path, release: bool, colour: bool) -> Result<Self> {
        let format = if colour { "json-diagnostic-rendered-ansi" } else { "json" };
        let mut command = cargo();
        command.args(["build", "--lib", "--message-format", format]).current_dir(folder);
        command.args(release.then_some("--release")).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|error| no_cargo(&error))?;
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        Ok(Self { child, folder, begun: Instant::now() })
    }

    /// Waits until the build ends, and passes the compiler's messages to `show` as they come.
    ///
    /// # Errors
    ///
    /// When the crate does not compile, or is no module.
    pub(crate) fn finish(&mut self, mut show: impl FnMut(&str)) -> Result<Built> {
        let manifest = self.folder.join("Cargo.toml");
        let mut found = None;
        let output = self.child.stdout.take();
        let lines =
            output.into_iter().flat_map(|it| BufReader::new(it).lines()).map_while(Result::ok);
        for line in lines {
            // What a build script prints by itself is no message.
            let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
            if let Some(text) = message["message"]["rendered"].as_str() {
                show(text.trim_end());
            }
            found = library(&message, &manifest).or(found);
        }
        let status = self.child.wait().map_err(|error| no_cargo(&error))?;
        let place = self.folder.display();
        if !status.success() {
            return Err(CliError::failed(format!("{place} does not build ({status})"))
                .help("correct what cargo says above"));
        }
        let (name, library) = found.ok_or_else(|| {
            CliError::failed(format!("{place} builds, but is no module"))
                .help("write `crate-type = [\"cdylib\"]` under [lib] in its Cargo.toml")
        })?;
        Ok(Built { name, library, took: self.begun.elapsed() })
    }

    /// Returns the id of cargo's process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the module's name and library from cargo's message about it, `None` for others.
fn library(message: &Value, manifest: &Path) -> Option<(String, PathBuf)> {
    let target = &message["target"];
    let is_library = target["kind"].as_array()?.iter().any(|kind| kind == "cdylib");
    let is_ours = message["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest);
    if message["reason"] != "compiler-artifact" || !is_library || !is_ours {
        return None;
    }
    let files = message["filenames"].as_array()?.iter().filter_map(Value::as_str);
    let library = files.into_iter().find(|file| file.ends_with(".so"))?;
    Some((target["name"].as_str()?.replace('-', "_"), library.into()))
}

/// Writes the `Cargo.lock` of a crate, offline where earlier downloads are enough.
///
/// # Errors
///
/// When cargo fails, with the first sentence of what it says.
pub(crate) fn lock(folder: &Path) -> Result<(), LockError> {
    let mut last = String::new();
    for network in [&["--offline"][..], &[]] {
        let mut command = cargo();
        command.args(["metadata", "--format-version", "1"]).args(network).current_dir(folder);
        let output = command.output().map_err(LockError::NoCargo)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| line.starts_with("error"));
        last = line.unwrap_or("cargo failed").trim_start_matches("error: ").to_owned();
    }
    Err(LockError::Refused(last))
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn no_cargo(error: &std::io::Error) -> CliError {
    CliError::failed(format!("cannot run cargo: {error}"))
        .help("install the Rust toolchain from https://rustup.rs")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_the_library_among_cargos_messages() {
        let manifest = Path::new("/m/Cargo.toml");
        let message = |reason: &str, path: &str, kind: &str| {
            json!({"reason": reason, "manifest_path": path,
                "target": {"kind": [kind], "name": "budget-guard"},
                "filenames": ["/m/target/release/libbudget_guard.so"]})
        };
        let check = |message: Value, expected: Option<&str>| {
            let name = library(&message, manifest).map(|(name, _)| name);
            assert_eq!(name.as_deref(), expected, "{message}");
        };
        check(message("compiler-artifact", "/m/Cargo.toml", "cdylib"), Some("budget_guard"));
        check(message("compiler-artifact", "/n/Cargo.toml", "cdylib"), None);
        check(message("compiler-artifact", "/m/Cargo.toml", "lib"), None);
        check(message("compiler-message", "/m/Cargo.toml", "cdylib"), None);
        check(json!({"reason": "build-finished", "success": true}), None);
    }
}

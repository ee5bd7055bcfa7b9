//! The workspace as cargo describes it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

/// The workspace, from `cargo metadata`.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// A member of the workspace.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    /// Name of its library, where it has one.
    pub(crate) library: Option<String>,
    /// Names of its benchmark programs.
    pub(crate) benches: Vec<String>,
    /// Names of the packages in this repository that it depends on, tests included.
    pub(crate) ours: Vec<String>,
}

impl Workspace {
    /// Reads the workspace from cargo.
    pub(crate) fn read() -> Result<Self> {
        let mut metadata = process::cargo();
        metadata.args(["metadata", "--format-version", "1", "--no-deps"]);
        metadata.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let metadata = process::capture(&mut metadata)?;
        Self::parse(&metadata).context("`cargo metadata` has an unknown form")
    }

    fn parse(metadata: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(metadata)?;
        let packages = metadata["packages"].as_array().context("it lacks packages")?;
        Ok(Self {
            root: text(&metadata["workspace_root"])?.into(),
            target: text(&metadata["target_directory"])?.into(),
            packages: packages.iter().map(package).collect::<Result<_>>()?,
        })
    }

    /// Returns the directory in which `build` lays out what is installed.
    pub(crate) fn stage(&self) -> PathBuf {
        self.target.join("stage")
    }

    /// Returns the modules that we ship: the members under `modules/`.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &Package> {
        let modules = self.root.join("modules");
        self.packages.iter().filter(move |package| package.directory.parent() == Some(&modules))
    }

    /// Returns a path as seen from the root.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

fn package(package: &Value) -> Result<Package> {
    let manifest = PathBuf::from(text(&package["manifest_path"])?);
    let targets = package["targets"].as_array().context("a package lacks targets")?;
    let named = |kinds: &[&str]| -> Result<Vec<String>> {
        let mut names = Vec::new();
        for target in targets {
            let of = target["kind"].as_array().map(Vec::as_slice).unwrap_or_default();
            if of.iter().filter_map(Value::as_str).any(|kind| kinds.contains(&kind)) {
                names.push(text(&target["name"])?.to_owned());
            }
        }
        Ok(names)
    };
    let dependencies =
        package["dependencies"].as_array().context("a package lacks dependencies")?;
    Ok(Package {
        name: text(&package["name"])?.to_owned(),
        directory: manifest.parent().context("a manifest lies nowhere")?.to_owned(),
        library: named(&["lib", "rlib", "cdylib"])?.into_iter().next(),
        benches: named(&["bench"])?,
        ours: dependencies
            .iter()
            .filter(|dependency| dependency["path"].is_string())
            .map(|dependency| text(&dependency["name"]).map(str::to_owned))
            .collect::<Result<_>>()?,
    })
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("a name is missing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_this_workspace() {
        let workspace = Workspace::read().expect("cargo runs the tests");
        let ingest = workspace.modules().find(|package| package.name == "ingest");
        let ingest = ingest.expect("ingest is a module");
        assert_eq!(ingest.library.as_deref(), Some("ingest"));
        assert!(ingest.ours.iter().any(|name| name == "lodestar-module-sdk"));
        assert!(workspace.modules().all(|package| package.name != "lodestard"));
    }
}

//! `cargo xtask build`: release build of everything, laid out as it is installed.

use std::{fs, path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result};

use crate::{
    process,
    workspace::{Package, Workspace},
};

/// Names of the programs that are installed.
const PROGRAMS: [&str; 2] = ["lodestard", "lodestar"];

/// Program that trains, with the folder of its own workspace. It is installed as well; the
/// demonstration does without it, as it is as much to compile as half of the rest.
pub(crate) const TRAINER: (&str, &str) = ("lodestar-trainer", "modules/learning/trainer");

/// Package that a module is built with.
const SDK: &str = "lodestar-module-sdk";

/// Builds and stages everything, and returns the workspace.
pub(crate) fn run() -> Result<Workspace> {
    let workspace = Workspace::read()?;
    let begin = Instant::now();
    compile(&workspace)?;
    stage(&workspace)?;
    trainer(&workspace)?;
    eprintln!(
        "staged in {} after {:.1} s",
        workspace.stage().display(),
        begin.elapsed().as_secs_f64()
    );
    Ok(workspace)
}

/// Builds and stages what is installed and nothing else, and returns the workspace.
///
/// # Errors
///
/// When it does not compile, or cannot be copied.
pub(crate) fn shipped() -> Result<Workspace> {
    let workspace = Workspace::read()?;
    let mut build = process::cargo();
    build.args(["build", "--release", "--locked"]).args(selection(&workspace));
    process::run(build.current_dir(&workspace.root))?;
    stage(&workspace)?;
    Ok(workspace)
}

/// Returns cargo's options for the packages of what is installed, with the features that a build of
/// all members picks.
fn selection(workspace: &Workspace) -> Vec<String> {
    let modules = workspace.modules().map(|module| module.name.as_str());
    let packages = ["lodestard", "lodestar-cli", SDK].into_iter().chain(modules);
    let mut words: Vec<String> = packages.map(|name| format!("--package={name}")).collect();
    // What the tests ask for beyond that; none of it costs where it is not used.
    words.push(format!("--features={SDK}/testing,tokio/test-util"));
    words
}

/// Compiles all members at once: cargo then picks the same features as for the tests, and
/// nothing is compiled twice (adr/0030).
pub(crate) fn compile(workspace: &Workspace) -> Result<()> {
    let mut build = process::cargo();
    build.args(["build", "--release", "--workspace", "--locked"]).current_dir(&workspace.root);
    process::run(&mut build)
}

/// Builds the trainer and stages it beside the daemon.
///
/// # Errors
///
/// When it does not compile, or cannot be copied.
pub(crate) fn trainer(workspace: &Workspace) -> Result<()> {
    process::run(of_trainer(workspace, "build").args(["--release", "--locked"]))?;
    let (name, _) = TRAINER;
    let built = workspace.target.join("trainer/release").join(name);
    place(&built, &workspace.stage().join("bin").join(name))
}

/// Returns a command of cargo in the workspace of the trainer, which has a target folder of its own
/// below that of the others.
pub(crate) fn of_trainer(workspace: &Workspace, verb: &str) -> Command {
    let mut cargo = process::cargo();
    cargo.arg(verb).current_dir(workspace.root.join(TRAINER.1));
    cargo.env("CARGO_TARGET_DIR", workspace.target.join("trainer"));
    cargo
}

/// Copies programs and modules to where they would be installed.
pub(crate) fn stage(workspace: &Workspace) -> Result<()> {
    let (stage, built) = (workspace.stage(), workspace.target.join("release"));
    for program in PROGRAMS {
        place(&built.join(program), &stage.join("bin").join(program))?;
    }
    let modules = stage.join("modules");
    for module in workspace.modules() {
        stage_module(module, &built, &modules.join(&module.name))?;
    }
    forget_removed(workspace, &modules)
}

fn stage_module(module: &Package, built: &Path, to: &Path) -> Result<()> {
    let library = format!("lib{}.so", module.name);
    place(&built.join(&library), &to.join(&library))?;
    for file in ["module.toml", "config.yaml"] {
        place(&module.directory.join(file), &to.join(file))?;
    }
    Ok(())
}

/// Removes modules from the stage that have left the repository.
fn forget_removed(workspace: &Workspace, modules: &Path) -> Result<()> {
    for entry in
        fs::read_dir(modules).with_context(|| format!("cannot list {}", modules.display()))?
    {
        let entry = entry?;
        if !workspace.modules().any(|module| entry.file_name() == *module.name) {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Copies a file beside its place and renames it there: a program that runs keeps the old one.
pub(crate) fn place(from: &Path, to: &Path) -> Result<()> {
    let copy = || -> std::io::Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        let new = to.with_extension("new");
        fs::copy(from, &new)?;
        fs::rename(&new, to)
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Returns the features of every package in cargo's tree.
    fn features(workspace: &Workspace, selected: &[String]) -> BTreeMap<String, String> {
        let mut tree = process::cargo();
        tree.args(["tree", "--locked", "--edges=normal", "--prefix=none", "--format={p}|{f}"]);
        tree.args(selected).current_dir(&workspace.root);
        let tree = process::capture(&mut tree).expect("cargo runs the tests");
        let lines = tree.lines().filter_map(|line| line.trim_end_matches(" (*)").split_once('|'));
        lines.map(|(package, features)| (package.to_owned(), features.to_owned())).collect()
    }

    #[test]
    fn what_is_shipped_is_compiled_as_for_the_tests() {
        let workspace = Workspace::read().expect("cargo runs the tests");
        let all = features(&workspace, &["--workspace".to_owned()]);
        let shipped = features(&workspace, &selection(&workspace));
        assert!(shipped.len() > 100 && shipped.len() < all.len(), "{}", shipped.len());
        for (package, features) in &shipped {
            assert_eq!(all.get(package), Some(features), "{package} would be compiled twice");
        }
    }

    #[test]
    fn a_file_is_replaced_and_not_overwritten() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (from, to) = (directory.path().join("a"), directory.path().join("deep/b"));
        fs::write(&from, "one").expect("it is writable");
        place(&from, &to).expect("it copies");
        let held = fs::File::open(&to).expect("it is there");
        fs::write(&from, "two").expect("it is writable");
        place(&from, &to).expect("it copies");
        assert_eq!(std::io::read_to_string(held).expect("it reads"), "one");
        assert_eq!(fs::read_to_string(&to).expect("it reads"), "two");
        let error = place(&directory.path().join("none"), &to).expect_err("nothing is there");
        assert!(error.to_string().contains("none"), "{error}");
    }
}

//! `cargo xtask dist`: the staged files, packed with all that an installation needs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{build, process, workspace::Workspace};

/// Builds and packs; prints the path of the archive.
pub(crate) fn run() -> Result<()> {
    let workspace = build::shipped()?;
    build::trainer(&workspace)?;
    let name = format!("lodestar-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let dist = workspace.target.join("dist");
    let tree = dist.join(&name);
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("cannot empty {}", tree.display()))?;
    }
    programs(&workspace, &tree)?;
    documents(&workspace, &tree)?;
    generated(&tree)?;
    pack(&dist, &name)
}

/// Copies programs and modules, as they were staged.
fn programs(workspace: &Workspace, tree: &Path) -> Result<()> {
    let stage = workspace.stage();
    for program in ["lodestard", "lodestar", build::TRAINER.0] {
        build::place(&stage.join("bin").join(program), &tree.join("usr/bin").join(program))?;
    }
    for module in workspace.modules() {
        let from = stage.join("modules").join(&module.name);
        let to = tree.join("usr/lib/lodestar/modules").join(&module.name);
        let library = format!("lib{}.so", module.name);
        for file in [library.as_str(), "module.toml", "config.yaml"] {
            build::place(&from.join(file), &to.join(file))?;
        }
    }
    Ok(())
}

/// Copies units, the example of a configuration and pages, as they are in the repository.
fn documents(workspace: &Workspace, tree: &Path) -> Result<()> {
    let config = workspace.root.join("config");
    for name in listed(&config)? {
        let (from, to) = (config.join(&name), tree.join(place_of(&name)).join(&name));
        if !from.is_dir() {
            build::place(&from, &to)?;
            continue;
        }
        for inner in listed(&from)? {
            build::place(&from.join(&inner), &to.join(&inner))?;
        }
    }
    for page in ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        if workspace.root.join(page).exists() {
            build::place(
                &workspace.root.join(page),
                &tree.join("usr/share/doc/lodestar").join(page),
            )?;
        }
    }
    Ok(())
}

/// Returns the names in a directory.
fn listed(directory: &Path) -> Result<Vec<PathBuf>> {
    let list = || fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().into())).collect();
    let listed: std::io::Result<Vec<PathBuf>> = list();
    listed.with_context(|| format!("cannot list {}", directory.display()))
}

/// Returns the directory in which a file or a directory of `config` is installed. Nothing goes to
/// `/etc`: what is unpacked over an older version must leave the operator's configuration alone,
/// and the daemon writes one where there is none.
fn place_of(name: &Path) -> &'static str {
    match name.extension().and_then(|it| it.to_str()) {
        Some("service" | "socket") => "usr/lib/systemd/system",
        Some("yaml") => "usr/share/doc/lodestar",
        _ => "usr/share/lodestar",
    }
}

/// Generates completions and manual with the program that they are about.
fn generated(tree: &Path) -> Result<()> {
    let lodestar = tree.join("usr/bin/lodestar");
    let completions = [
        ("bash", "usr/share/bash-completion/completions/lodestar"),
        ("zsh", "usr/share/zsh/vendor-completions/_lodestar"),
        ("fish", "usr/share/fish/vendor_completions.d/lodestar.fish"),
    ];
    for (shell, place) in completions {
        let text = process::capture(Command::new(&lodestar).args(["completions", shell]))?;
        let file = tree.join(place);
        fs::create_dir_all(file.parent().unwrap_or(tree))?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let manual = tree.join("usr/share/man/man1");
    fs::create_dir_all(&manual)?;
    process::capture(Command::new(&lodestar).args(["man", "--out"]).arg(&manual)).map(drop)
}

/// Packs the tree so that the same tree gives the same bytes: names sorted, no owner, one time.
fn pack(dist: &Path, name: &str) -> Result<()> {
    let archive = dist.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]);
    tar.arg("--use-compress-program=gzip -n").arg("-C").arg(dist);
    process::capture(tar.arg("-cf").arg(&archive).arg(name))?;
    println!("{}", archive.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_leaves_the_configuration_alone() {
        let workspace = Workspace::read().expect("cargo runs the tests");
        let directory = tempfile::tempdir().expect("a temporary directory");
        documents(&workspace, directory.path()).expect("it is writable");
        let packed = |file: &str| directory.path().join(file).exists();
        for file in [
            "usr/lib/systemd/system/lodestard.service",
            "usr/lib/systemd/system/lodestard.socket",
            "usr/share/doc/lodestar/modules.yaml",
            "usr/share/doc/lodestar/README.md",
            "usr/share/lodestar/grafana/lodestar.json",
            "usr/share/lodestar/prices.toml",
            "usr/share/lodestar/prometheus/lodestar.rules.test.yml",
            "usr/share/lodestar/prometheus/lodestar.rules.yml",
            "usr/share/lodestar/runbooks/disk_low.md",
        ] {
            assert!(packed(file), "{file}");
        }
        assert!(!packed("etc"), "what lies there is the operator's");
    }
}

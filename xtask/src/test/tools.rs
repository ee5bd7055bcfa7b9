//! Programs of others that some tests need.

use std::process::Command;

use anyhow::{Result, bail};

use super::Tally;
use crate::process;

/// Programs, each with the Debian package that holds it and what is checked with it.
const TOOLS: [(&str, &str, &str); 5] = [
    ("promtool", "prometheus", "the metrics page"),
    ("redis-server", "redis-server", "what instances of the router share"),
    ("python3", "python3", "trainers in Python"),
    ("systemd-analyze", "systemd", "the hardening of the unit"),
    ("setpriv", "util-linux", "what happens without permissions"),
];

/// Installs missing tools in continuous integration (`CI=true`); elsewhere each is a named skip,
/// which the tests themselves report.
///
/// # Errors
///
/// When something is missing in continuous integration and cannot be installed.
pub(super) fn prepare(tally: &mut Tally) -> Result<()> {
    let missing = TOOLS.iter().filter(|(program, ..)| !process::installed(program));
    let missing = missing.collect::<Vec<_>>();
    if missing.is_empty() {
        return Ok(());
    }
    if !in_ci() {
        for (program, package, what) in missing {
            eprintln!("{program} is missing ({what}); install it by `apt-get install {package}`");
        }
        return Ok(());
    }
    let packages = missing.iter().map(|(_, package, _)| *package).collect::<Vec<_>>();
    if !is_root()? {
        bail!("tests need the packages {}; install them, or run as root", packages.join(", "));
    }
    let mut update = Command::new("apt-get");
    process::run(update.args(["-q", "update"]))?;
    let mut install = Command::new("apt-get");
    install.args(["-q", "install", "-y", "--no-install-recommends"]).args(packages);
    process::run(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    tally.passed += 1;
    Ok(())
}

/// Returns whether this runs in continuous integration, where nothing may be skipped.
fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

fn is_root() -> Result<bool> {
    Ok(process::capture(Command::new("id").arg("-u"))?.trim() == "0")
}

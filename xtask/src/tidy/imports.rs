//! The rules for imports between packages, and for the place of versions.

use std::fs;

use anyhow::{Context as _, Result};

use super::Problem;
use crate::workspace::{Package, Workspace};

const ABI: &str = "lodestar-abi";
const SDK: &str = "lodestar-module-sdk";
/// Name of a kit: the kits are what several modules and the host share, on top of the SDK.
const HTTP: &str = "lodestar-http";
const CLIENT: &str = "lodestar-http-client";
const PRICES: &str = "lodestar-prices";
const SECRETS: &str = "lodestar-secrets";
const SQLITE: &str = "lodestar-sqlite";
const TRANSCRIPTS: &str = "lodestar-transcripts";
/// Name of the fixture that stands in for the library of a driver.
const FAKE_NVML: &str = "fake_nvml";
/// Name of a crate of the host.
const API: &str = "lodestar-api";
const PLATFORM: &str = "lodestar-platform";
const CONFIG: &str = "lodestar-config";
const BUS: &str = "lodestar-bus";
const LIBRARY: &str = "lodestar-library";

pub(super) fn check(workspace: &Workspace, problems: &mut Vec<Problem>) -> Result<()> {
    for package in &workspace.packages {
        check_imports(workspace, package, problems);
        let manifest = package.directory.join("Cargo.toml");
        let text = fs::read_to_string(&manifest)
            .with_context(|| format!("cannot read {}", manifest.display()))?;
        let place = workspace.relative(&manifest).to_string();
        check_versions(&place, &text, problems)?;
    }
    Ok(())
}

fn check_imports(workspace: &Workspace, package: &Package, problems: &mut Vec<Problem>) {
    let room = workspace.relative(&package.directory).to_string();
    let Some(allowed) = allowed(&room) else {
        problems.push(format!(
            "{room}: a package outside the rooms of the house; move it or add its room to tidy"
        ));
        return;
    };
    for import in &package.ours {
        if !allowed.contains(&import.as_str()) {
            problems.push(format!("{room}: imports {import}; it may import {}", shown(allowed)));
        }
    }
}

/// Returns our own packages that a package in this folder may import.
fn allowed(room: &str) -> Option<&'static [&'static str]> {
    match room {
        "module-sdk/abi" | "xtask" => Some(&[]),
        "module-sdk" => Some(&[ABI]),
        "module-sdk/secrets" => Some(&[]),
        "host/platform" => Some(&[]),
        "host/api" => Some(&[SDK]),
        "host/config" | "host/bus" => Some(&[SDK, PLATFORM]),
        "host/library" => Some(&[ABI, SDK, API, PLATFORM, CONFIG]),
        "host/cli" => Some(&[ABI, SDK, TRANSCRIPTS, API, PLATFORM, CONFIG, LIBRARY]),
        "host/daemon" => Some(&[ABI, SDK, HTTP, SECRETS, API, PLATFORM, CONFIG, BUS, LIBRARY]),
        "module-sdk/client"
        | "module-sdk/http"
        | "module-sdk/prices"
        | "module-sdk/sqlite"
        | "module-sdk/transcripts"
        | "tests" => Some(&[SDK]),
        "modules/health_monitor" => {
            Some(&[SDK, CLIENT, HTTP, PRICES, SECRETS, SQLITE, TRANSCRIPTS, FAKE_NVML])
        }
        _ if room.starts_with("modules/") || room.starts_with("module-sdk/examples/") => {
            Some(&[SDK, CLIENT, HTTP, PRICES, SECRETS, SQLITE, TRANSCRIPTS])
        }
        _ if room.starts_with("tests/fixtures/") => Some(&[SDK]),
        _ => None,
    }
}

fn shown(allowed: &[&str]) -> String {
    if allowed.is_empty() { "none of ours".to_owned() } else { allowed.join(" and ") }
}

fn check_versions(place: &str, text: &str, problems: &mut Vec<Problem>) -> Result<()> {
    let manifest: toml::Table = text.parse().with_context(|| format!("{place} is no TOML"))?;
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(dependencies) = manifest.get(section).and_then(toml::Value::as_table) else {
            continue;
        };
        for (name, dependency) in dependencies {
            let inherited = dependency.get("workspace").and_then(toml::Value::as_bool);
            if inherited != Some(true) {
                problems.push(format!(
                    "{place}: {section}.{name} has a version of its own; \
                     write `{name}.workspace = true` and the version in the root's table"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_have_their_imports() {
        let check = |room, expected: Option<&[&str]>| assert_eq!(allowed(room), expected, "{room}");
        check("module-sdk/abi", Some(&[]));
        check("module-sdk/http", Some(&[SDK]));
        check("module-sdk/secrets", Some(&[]));
        check("host/platform", Some(&[]));
        check("host/bus", Some(&[SDK, PLATFORM]));
        check("host/daemon", Some(&[ABI, SDK, HTTP, SECRETS, API, PLATFORM, CONFIG, BUS, LIBRARY]));
        check("host/cli", Some(&[ABI, SDK, TRANSCRIPTS, API, PLATFORM, CONFIG, LIBRARY]));
        check("module-sdk/client", Some(&[SDK]));
        check("module-sdk/prices", Some(&[SDK]));
        check("module-sdk/sqlite", Some(&[SDK]));
        check("module-sdk/transcripts", Some(&[SDK]));
        let kits = [SDK, CLIENT, HTTP, PRICES, SECRETS, SQLITE, TRANSCRIPTS];
        check("module-sdk/examples/meter", Some(&kits));
        check("modules/health_monitor", Some(&[&kits[..], &[FAKE_NVML]].concat()));
        check("modules/ingest", Some(&kits));
        check("tests", Some(&[SDK]));
        check("attic", None);
    }

    #[test]
    fn versions_stand_in_one_table() {
        let check = |text: &str, expected: usize| {
            let mut problems = Vec::new();
            check_versions("host/bus/Cargo.toml", text, &mut problems).expect("it is TOML");
            assert_eq!(problems.len(), expected, "{problems:?}");
        };
        check("[dependencies]\nserde.workspace = true\n", 0);
        check("[dependencies]\nserde = { workspace = true, features = [\"rc\"] }\n", 0);
        check("[dependencies]\nserde = \"1\"\n", 1);
        check("[dev-dependencies]\nserde = { version = \"1\" }\nb = { path = \"../b\" }\n", 2);
    }

    #[test]
    fn an_import_across_rooms_is_a_problem() {
        let workspace =
            Workspace { root: "/r".into(), target: "/r/target".into(), packages: Vec::new() };
        let package = Package {
            name: "ingest".into(),
            directory: "/r/modules/ingest".into(),
            library: None,
            benches: Vec::new(),
            ours: vec![SDK.into(), "lodestard".into()],
        };
        let mut problems = Vec::new();
        check_imports(&workspace, &package, &mut problems);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("modules/ingest: imports lodestard;"), "{problems:?}");
    }
}

//! `lodestar modules install`

use std::path::{Path, PathBuf};

use lodestar_api::{Declares, Installed, OperationState};
use lodestar_library::{
    self as library,
    install::{self, Bundle},
};

use super::check;
use crate::{
    client::{Client, escaped},
    error::{CliError, Result},
    human, operation, reserved_names,
    terminal::Terminal,
};

/// Install a module, or another version of one: check it, put it in place, add a disabled section
///
/// Takes a library lib<name>.so, a folder with one and its config.yaml, a .tar.gz of such a folder,
/// or the folder of a crate, which is built as for a release. Nothing is changed unless every check
/// passes. A module that runs is reloaded; if the new build does not start, the one before goes on,
/// and stays installed.
#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    /// The library, folder, .tar.gz or crate
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Accept an unsigned module in the place of a signed one
    #[arg(long)]
    unsigned: bool,
}

impl Install {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let bundle = if self.path.join("Cargo.toml").is_file() {
            let built = check::build(&self.path, true, terminal)?;
            install::open_built(&built.library, &self.path)
        } else {
            install::open(&self.path)
        };
        let bundle = bundle.map_err(CliError::from_problem)?;
        let mut installed = send(bundle, &self.path, self.unsigned, client).await?;
        let reloaded = installed.operation.state == OperationState::Pending;
        installed.operation = operation::ended(installed.operation, client).await?;
        if terminal.json {
            terminal.json_document(&installed)?;
        } else if installed.operation.state != OperationState::Failed {
            for line in lines(&installed, reloaded) {
                terminal.line(&human::plain(&line))?;
            }
        }
        operation::outcome(installed.operation)
    }
}

/// Sends a package to the daemon; the operation that follows may still be under way.
pub(crate) async fn send(
    bundle: Bundle,
    source: &Path,
    unsigned: bool,
    client: &Client,
) -> Result<Installed> {
    if let Some(manifest) = library::manifest_of(&bundle.library) {
        // Those of other modules are known to the daemon.
        reserved_names::check(&manifest, &[])?;
    }
    let package = bundle.to_archive().map_err(|error| CliError::failed(error.to_string()))?;
    drop(bundle);
    let source = std::path::absolute(source).unwrap_or_else(|_| source.to_owned());
    let source = escaped(&source.to_string_lossy());
    let path = format!("/v1/modules/install?source={source}&unsigned={unsigned}");
    client.upload(&path, package.into()).await
}

fn lines(installed: &Installed, reloaded: bool) -> Vec<String> {
    let Installed { name, version, sha256, directory, isolation, .. } = installed;
    let change = match (&installed.previous_version, installed.change.as_str()) {
        (Some(previous), change @ ("upgrade" | "downgrade")) => {
            format!("{change}d from {previous}")
        }
        (Some(_), change) => format!("{change} as before"),
        (None, _) => "new".to_owned(),
    };
    let signer = match &installed.signer {
        Some(signer) => format!("signed by {signer}; runs {isolation}"),
        None => format!("unsigned; runs {isolation}"),
    };
    let mut lines =
        vec![format!("{name} {version} ({change}) in {directory}"), format!("sha256 {sha256}")];
    lines.push(signer);
    lines.extend(declared(&installed.declares));
    lines.extend(installed.notes.iter().cloned());
    lines.extend(operation::lines(&installed.operation));
    if !reloaded {
        lines.push(format!("start it with `lodestar modules enable {name}`"));
    }
    lines
}

/// Returns what a module asks for, a line each, before anybody enables it.
fn declared(declares: &Declares) -> Vec<String> {
    let Declares { secrets, providers, relays, paths_read, paths_write, .. } = declares;
    let Declares { listeners, calls, operate, .. } = declares;
    let asks = [
        ("for the secrets", secrets),
        ("to read the paths in", paths_read),
        ("to write the paths in", paths_write),
        ("to listen at", listeners),
        ("to call", calls),
    ];
    let asks = asks.into_iter().filter(|(_, names)| !names.is_empty());
    let mut lines: Vec<String> =
        asks.map(|(what, names)| format!("asks {what} {}", names.join(", "))).collect();
    if *providers {
        let what = "asks for the providers; their keys only with `provider_keys: true`";
        lines.push(what.to_owned());
    }
    if *relays {
        lines.push("asks to publish events of other daemons".to_owned());
    }
    if *operate {
        let what = "asks to switch modules on and off; only with `control: operate`";
        lines.push(what.to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn says_what_was_installed() {
        let mut installed: Installed = serde_json::from_value(json!({
            "name": "tiny", "version": "0.2.0", "previous_version": null, "change": "new",
            "sha256": "ab12", "signer": null, "isolation": "process",
            "directory": "/s/modules/tiny",
            "operation": {
                "id": "1", "kind": "install", "module": "tiny", "state": "done",
                "message": "tiny is installed", "started_at": "",
                "config_line": "modules.yaml:3 tiny added, disabled",
            },
        }))
        .expect("an answer");
        installed.declares = Declares {
            secrets: vec!["token".to_owned(), "key".to_owned()],
            providers: true,
            relays: true,
            operate: true,
            calls: vec!["usage_tracker.summary".to_owned(), "host.modules.*".to_owned()],
            paths_write: vec!["database".to_owned()],
            listeners: vec!["listen (127.0.0.1:4318 without it)".to_owned()],
            ..Declares::default()
        };
        assert_eq!(
            lines(&installed, false).join("\n"),
            "\
tiny 0.2.0 (new) in /s/modules/tiny
sha256 ab12
unsigned; runs process
asks for the secrets token, key
asks to write the paths in database
asks to listen at listen (127.0.0.1:4318 without it)
asks to call usage_tracker.summary, host.modules.*
asks for the providers; their keys only with `provider_keys: true`
asks to publish events of other daemons
asks to switch modules on and off; only with `control: operate`
modules.yaml:3 tiny added, disabled
tiny is installed
start it with `lodestar modules enable tiny`"
        );
        installed.previous_version = Some("0.3.0".to_owned());
        installed.change = "downgrade".to_owned();
        installed.signer = Some("acme".to_owned());
        installed.isolation = "in_process".to_owned();
        let text = lines(&installed, true).join("\n");
        assert!(text.contains("(downgraded from 0.3.0)"), "{text}");
        assert!(text.contains("signed by acme; runs in_process"), "{text}");
        assert!(!text.contains("start it"), "{text}");
    }
}

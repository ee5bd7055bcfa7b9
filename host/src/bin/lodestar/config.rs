//! `lodestar config …`

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use lodestar::control::api::{Change, ConfigCheck, ConfigProblem, ConfigReport, ConfigView};
use serde_json::Value;

use crate::{
    client::Client,
    error::{CliError, Result},
    exit_codes, human,
    terminal::{Terminal, Tone},
};

/// Check and show the configuration, and how it differs from what runs
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Config {
    Check(Check),
    Show(Show),
    Diff(Diff),
}

/// Check a configuration file; exit code 4 if it is not valid
///
/// The daemon is asked where it runs; otherwise `lodestard --check` is called.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The file; the daemon's own where none is named
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Show the configuration file as it runs, or the effective settings of one module
///
/// References to secrets are shown as they are written, never what they stand for.
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The module whose effective settings to show
    #[arg(value_name = "MODULE")]
    module: Option<String>,
}

/// Show what would change if the configuration file were read now
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {}

impl Config {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        match self {
            Self::Check(verb) => verb.run(client, terminal).await,
            Self::Show(verb) => verb.run(client, terminal).await,
            Self::Diff(_) => diff(client, terminal).await,
        }
    }
}

impl Check {
    async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let report = check(self.file.as_deref(), client).await?;
        if terminal.json {
            terminal.json_document(&report)?;
        } else {
            for error in &report.errors {
                terminal.line(&problem_line(error))?;
            }
            let file = self.file.as_ref().map(|file| format!("{} ", file.display()));
            let verdict = match report.errors.len() {
                0 => terminal.paint_state("valid", Tone::Good),
                1 => terminal.paint_state("1 error", Tone::Bad),
                number => terminal.paint_state(&format!("{number} errors"), Tone::Bad),
            };
            terminal.line(
                &format!("configuration {}: {verdict}", file.unwrap_or_default().trim())
                    .replace(" :", ":"),
            )?;
        }
        Ok(if report.errors.is_empty() { exit_codes::DONE } else { exit_codes::REFUSED })
    }
}

/// Checks a file, or the daemon's own, by the daemon or, where none runs, by `lodestard --check`.
pub(crate) async fn check(file: Option<&Path>, client: &Client) -> Result<ConfigReport> {
    let text = file.map(read).transpose()?;
    let asked = client.post("/v1/config/check", &ConfigCheck { text }).await;
    let mut report: ConfigReport = match asked {
        Err(error) if error.is_not_reachable() => match crate::daemon_executable() {
            Some(executable) => return check_offline(&executable, file),
            None => return Err(error),
        },
        other => other?,
    };
    if let Some(file) = file {
        for error in &mut report.errors {
            error.file = file.display().to_string();
        }
    }
    Ok(report)
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|error| {
        CliError::failed(format!("cannot read {}: {error}", file.display()))
            .help("name a readable text file")
    })
}

fn check_offline(executable: &Path, file: Option<&Path>) -> Result<ConfigReport> {
    let mut command = Command::new(executable);
    command.args(["--check", "--json"]);
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    let called = format!("{} --check --json", executable.display());
    let output = command.output().map_err(|error| {
        CliError::failed(format!("cannot run {called}: {error}")).help("install lodestard again")
    })?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().last().unwrap_or("nothing").to_owned();
        CliError::failed(format!("{called} gave no report ({}) and said: {last}", output.status))
    })
}

impl Show {
    async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let view: ConfigView = client.get("/v1/config").await?;
        match self.module {
            Some(module) => show_module(&module, &view, terminal)?,
            None if terminal.json => terminal.json_document(&view)?,
            None => {
                terminal.note(&terminal.paint_dim(&format!("# {}", human::plain(&view.path))));
                terminal.raw(&human::plain(&view.text))?;
            }
        }
        Ok(exit_codes::DONE)
    }
}

fn show_module(module: &str, view: &ConfigView, terminal: &mut Terminal) -> Result<()> {
    let Some(settings) = view.modules.get(module) else {
        let known: Vec<&str> = view.modules.keys().map(String::as_str).collect();
        return Err(CliError::failed(format!("{} has no module {module:?}", view.path))
            .help(format!("it has {}", known.join(", "))));
    };
    if terminal.json {
        return terminal.json_document(settings);
    }
    let yaml = serde_saphyr::to_string(settings)
        .map_err(|error| CliError::failed(format!("cannot write the settings as YAML: {error}")))?;
    terminal.raw(&human::plain(&yaml))
}

async fn diff(client: &Client, terminal: &mut Terminal) -> Result<u8> {
    let changes: Vec<Change> = client.get("/v1/config/diff").await?;
    if terminal.json {
        terminal.json_document(&changes)?;
        return Ok(exit_codes::DONE);
    }
    for change in &changes {
        terminal.line(&change_line(change))?;
    }
    if changes.is_empty() {
        terminal.line("The configuration file is what runs.")?;
    }
    Ok(exit_codes::DONE)
}

fn change_line(change: &Change) -> String {
    let shown = |value: &Value| match value {
        Value::Null => "(absent)".to_owned(),
        value => value.to_string(),
    };
    let line = format!("{}: {} -> {}", change.path, shown(&change.before), shown(&change.after));
    human::plain(&line).into_owned()
}

/// `modules.yaml:7:5: modules.usage_tracker.databse: unknown key; did you mean …`
pub(crate) fn problem_line(problem: &ConfigProblem) -> String {
    let mut line = problem.file.clone();
    if problem.line > 0 {
        line.push_str(&format!(":{}", problem.line));
        if problem.column > 0 {
            line.push_str(&format!(":{}", problem.column));
        }
    }
    for part in [&problem.key, &problem.message] {
        if !part.is_empty() {
            line.push_str(if line.is_empty() { "" } else { ": " });
            line.push_str(part);
        }
    }
    if let Some(hint) = &problem.hint {
        line.push_str(&format!("; {hint}"));
    }
    human::plain(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn writes_problems_as_compilers_do() {
        let check = |problem: Value, expected: &str| {
            let problem: ConfigProblem = serde_json::from_value(problem).expect("a problem");
            assert_eq!(problem_line(&problem), expected);
        };
        check(
            json!({"file": "modules.yaml", "line": 7, "column": 5, "message": "unknown key",
                   "key": "modules.usage_tracker.databse", "hint": "did you mean `database`?"}),
            "modules.yaml:7:5: modules.usage_tracker.databse: unknown key; did you mean \
             `database`?",
        );
        check(
            json!({"file": "a.yaml", "line": 0, "column": 0, "key": "", "message": "is empty"}),
            "a.yaml: is empty",
        );
    }

    #[test]
    fn writes_changes() {
        let check = |before: Value, after: Value, expected: &str| {
            let change = Change { path: "modules.ingest.enabled".to_owned(), before, after };
            assert_eq!(change_line(&change), expected);
        };
        check(json!(false), json!(true), "modules.ingest.enabled: false -> true");
        check(Value::Null, json!("x"), "modules.ingest.enabled: (absent) -> \"x\"");
    }

    #[test]
    fn a_check_without_the_daemon_reads_its_report() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let fake = directory.path().join("lodestard");
        let run = |script: &str| {
            std::fs::write(&fake, format!("#!/bin/sh\n{script}\n")).expect("a script");
            std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o700)).expect("ours");
            check_offline(&fake, Some(Path::new("/etc/x.yaml")))
        };
        let report = run(
            r#"echo '{"errors":[{"file":"'$4'","line":1,"column":2,"key":"'$1'","message":"m"}]}'
            exit 4"#,
        )
        .expect("a report");
        assert_eq!(problem_line(&report.errors[0]), "/etc/x.yaml:1:2: --check: m");
        let error = run("echo no such library >&2; exit 1").expect_err("no report");
        let failure = error.failure().expect("a failure");
        assert!(failure.message.ends_with("said: no such library"), "{}", failure.message);
    }
}

//! `lodestar config …`

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use lodestar_api::{Change, ConfigCheck, ConfigReport, ConfigView, Setting, Status};
use lodestar_config::{needs_a_restart, needs_reloads};
use lodestar_platform::files;
use serde_json::Value;

use crate::{
    client::{Client, escaped},
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
///
/// Exit code 4 if nothing would: a mistake in what changes holds all of it back.
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
                terminal.line(&human::plain(&error.to_string()))?;
            }
            for warning in warnings(&report, terminal) {
                terminal.line(&warning)?;
            }
            let file = self.file.as_ref().map(|file| format!(" {}", file.display()));
            let verdict = verdict(&report, terminal);
            terminal.line(&format!("configuration{}: {verdict}", file.unwrap_or_default()))?;
        }
        Ok(if report.errors.is_empty() { exit_codes::DONE } else { exit_codes::REFUSED })
    }
}

/// Formats the result of a check: `valid`, `valid, 2 warnings`, `1 error`.
fn verdict(report: &ConfigReport, terminal: &Terminal) -> String {
    let counted = |number: usize, what: &str| {
        let ending = if number == 1 { "" } else { "s" };
        format!("{number} {what}{ending}")
    };
    let first = match report.errors.len() {
        0 => terminal.paint_state("valid", Tone::Good),
        number => terminal.paint_state(&counted(number, "error"), Tone::Bad),
    };
    match report.warnings.len() {
        0 => first,
        number => format!("{first}, {}", counted(number, "warning")),
    }
}

/// Formats the warnings of a report, a line for each.
fn warnings(report: &ConfigReport, terminal: &Terminal) -> Vec<String> {
    let label = terminal.paint_state("warning:", Tone::Warning);
    let warnings = report.warnings.iter();
    warnings.map(|warning| format!("{label} {}", human::plain(&warning.to_string()))).collect()
}

/// Checks a file, or the daemon's own, by the daemon or, where none runs, by `lodestard --check`.
pub(crate) async fn check(file: Option<&Path>, client: &Client) -> Result<ConfigReport> {
    let text = file.map(read).transpose()?;
    let asked = client.post("/v1/config/check", &ConfigCheck { text, changed: false }).await;
    let mut report: ConfigReport = match asked {
        Err(error) if error.is_not_reachable() => match crate::daemon_executable() {
            Some(executable) => return check_offline(&executable, file),
            None => return Err(error),
        },
        other => other?,
    };
    if let Some(file) = file {
        for problem in report.errors.iter_mut().chain(&mut report.warnings) {
            problem.file = file.display().to_string();
        }
    }
    Ok(report)
}

fn read(file: &Path) -> Result<String> {
    files::read_text(file).map_err(|error| {
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
        if let Some(module) = self.module {
            return show_module(&module, client, terminal).await;
        }
        let view: ConfigView = client.get("/v1/config").await?;
        match terminal.json {
            true => terminal.json_document(&view)?,
            false => {
                terminal.note(&terminal.paint_dim(&format!("# {}", human::plain(&view.path))));
                terminal.text(&human::plain(&view.text))?;
            }
        }
        Ok(exit_codes::DONE)
    }
}

async fn show_module(module: &str, client: &Client, terminal: &mut Terminal) -> Result<u8> {
    let path = format!("/v1/config/modules/{}", escaped(module));
    let settings: Vec<Setting> = client.get(&path).await?;
    if terminal.json {
        terminal.json_document(&settings)?;
    } else {
        let lines = setting_lines(&settings);
        lines.into_iter().try_for_each(|line| terminal.line(&line))?;
    }
    Ok(exit_codes::DONE)
}

/// Formats settings as `retention_days: 90    # default`, the comments below each other.
fn setting_lines(settings: &[Setting]) -> Vec<String> {
    let shown = |setting: &Setting| match &setting.value {
        Value::Null => format!("{}:", setting.key),
        Value::String(text) if is_plain(text) => format!("{}: {text}", setting.key),
        value => format!("{}: {value}", setting.key),
    };
    let lines: Vec<String> = settings.iter().map(shown).collect();
    let width = lines.iter().map(|line| line.chars().count()).filter(|width| *width <= 48).max();
    let width = width.unwrap_or_default();
    let lines = lines.iter().zip(settings);
    lines
        .map(|(line, setting)| format!("{line:<width$}    # {}", setting.origin))
        .map(|line| human::plain(&line).replace('\n', "\\n"))
        .collect()
}

/// Checks whether YAML reads the text as itself without quotes.
fn is_plain(text: &str) -> bool {
    serde_saphyr::from_str::<Value>(text).is_ok_and(|value| value.as_str() == Some(text))
        && !text.contains(['#', '\n'])
}

async fn diff(client: &Client, terminal: &mut Terminal) -> Result<u8> {
    let changes: Vec<Change> = client.get("/v1/config/diff").await?;
    let what = ConfigCheck { text: None, changed: true };
    let report: ConfigReport = client.post("/v1/config/check", &what).await?;
    for warning in warnings(&report, terminal) {
        terminal.note(&warning);
    }
    if terminal.json {
        terminal.json_document(&changes)?;
    } else {
        changes.iter().try_for_each(|change| terminal.line(&change_line(change)))?;
    }
    if !changes.is_empty() && !report.errors.is_empty() {
        return Err(not_taken(&report));
    }
    if terminal.json {
        return Ok(exit_codes::DONE);
    }
    let behind = behind(client).await;
    for (module, reason) in &behind {
        terminal.note(&human::plain(&format!("{module}: {reason}")));
    }
    if changes.is_empty() {
        let word = if behind.is_empty() { "is what runs" } else { "was taken" };
        terminal.line(&format!("The configuration file {word}."))?;
    }
    if changes.iter().any(|it| needs_a_restart(&it.path)) {
        terminal.note(
            "what is outside `modules`, `log` and `providers` waits until lodestard is restarted",
        );
    }
    if changes.iter().any(|it| needs_reloads(&it.path)) {
        terminal.note("modules that run are told of `providers` when they are reloaded");
    }
    Ok(exit_codes::DONE)
}

/// Returns the modules that run otherwise than their sections say, with the reason.
async fn behind(client: &Client) -> Vec<(String, String)> {
    // Without an answer the difference is shown all the same.
    let status: Option<Status> = client.get("/v1/status").await.ok();
    let modules = status.map(|status| status.modules).unwrap_or_default().into_iter();
    let running = modules.filter(|module| module.state == "running");
    running.filter_map(|module| Some((module.name, module.reason?))).collect()
}

/// Creates the error for a change of which nothing is taken, since a part of it is not valid.
fn not_taken(report: &ConfigReport) -> CliError {
    let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    CliError::refused(format!("nothing of this is taken: {}", errors.join("\n")))
        .help("correct the file and save it; what runs goes on until then")
}

fn change_line(change: &Change) -> String {
    let shown = |value: &Value| match value {
        Value::Null => "(absent)".to_owned(),
        value => value.to_string(),
    };
    let line = format!("{}: {} -> {}", change.path, shown(&change.before), shown(&change.after));
    human::plain(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_name_their_origin() {
        let setting = |key: &str, value: Value, origin: &str| {
            let (key, origin) = (key.to_owned(), origin.to_owned());
            Setting { key, value, origin }
        };
        let settings = [
            setting("database", Value::Null, "default"),
            setting("days", json!(7), "m.yaml:3"),
            setting("listen", json!("127.0.0.1:0"), "config.yaml of m"),
            setting("name", json!("yes: no"), "--set m.name"),
            setting("on", json!("true"), "default"),
        ];
        assert_eq!(
            setting_lines(&settings),
            [
                "database:              # default",
                "days: 7                # m.yaml:3",
                "listen: 127.0.0.1:0    # config.yaml of m",
                "name: \"yes: no\"        # --set m.name",
                "on: \"true\"             # default",
            ]
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
        assert_eq!(report.errors[0].to_string(), "/etc/x.yaml:1:2: --check: m");
        let error = run("echo no such library >&2; exit 1").expect_err("no report");
        let failure = error.failure().expect("a failure");
        assert!(failure.message.ends_with("said: no such library"), "{}", failure.message);
    }
}

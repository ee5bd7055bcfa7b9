//! `lodestar doctor`

mod checks;

use std::{io, path::Path};

use lodestar_api::{self as api, ConfigReport, Lag};
use serde::Serialize;

use crate::{
    client::Client,
    commands::config,
    error::{CliError, Result},
    exit_codes, human,
    terminal::{Terminal, Tone},
};

/// Look for what is wrong and say what to do; exit code 1 if there is a problem, 3 without a daemon
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Name of the thing that was checked.
    name: String,
    /// Verdict of the check.
    status: Verdict,
    /// The result in a sentence.
    message: String,
    /// Remedy, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// Verdict on something; a later variant is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Ok,
    Warning,
    Problem,
}

#[derive(Debug, Serialize)]
struct Report {
    status: Verdict,
    checks: Vec<Finding>,
}

impl Doctor {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let (mut findings, mut is_reachable) = (Vec::new(), true);
        match client.get::<api::Status>("/v1/status").await {
            Ok(status) => examine(&status, client, &mut findings).await,
            Err(error) => {
                is_reachable = !error.is_not_reachable();
                findings.push(unreachable(&error));
            }
        }
        findings.insert(1, configuration(client, is_reachable).await);
        let worst = findings.iter().map(|finding| finding.status).max().unwrap_or(Verdict::Ok);
        if terminal.json {
            terminal.json_document(&Report { status: worst, checks: findings })?;
        } else {
            for finding in &findings {
                show(finding, terminal)?;
            }
        }
        Ok(match worst {
            _ if !is_reachable => exit_codes::NOT_REACHABLE,
            Verdict::Problem => exit_codes::FAILED,
            Verdict::Ok | Verdict::Warning => exit_codes::DONE,
        })
    }
}

impl Finding {
    fn new(name: &str, status: Verdict, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status, message: message.into(), remedy: None }
    }

    fn ok(name: &str, message: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, message)
    }

    fn warning(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { remedy, ..Self::new(name, Verdict::Warning, message) }
    }

    fn problem(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { remedy, ..Self::new(name, Verdict::Problem, message) }
    }
}

async fn examine(status: &api::Status, client: &Client, findings: &mut Vec<Finding>) {
    findings.push(checks::daemon(status));
    findings.extend(checks::root(status));
    for socket in client.sockets.iter().filter(|socket| socket.exists()) {
        findings.extend(checks::socket(socket));
    }
    findings.extend(checks::state_dir(status));
    findings.extend(checks::warnings(status));
    findings.push(checks::ledger(status));
    findings.extend(checks::losses(&status.ledger.losses));
    findings.push(checks::listeners(status));
    findings.push(checks::connections(status));
    findings.extend(status.modules.iter().map(checks::module));
    findings.extend(checks::sandbox(status, lodestar_platform::kernel::landlock_works()));
    for module in status.modules.iter().filter(|module| module.isolation == "process") {
        // What is gone meanwhile has no limits.
        if let Ok(info) = client.get(&format!("/v1/modules/{}", module.name)).await {
            findings.extend(checks::limits(&info));
        }
    }
    match client.get::<Vec<Lag>>("/v1/events/lag").await {
        Ok(lag) => findings.push(checks::events(&lag)),
        Err(error) => findings.push(could_not("events", &error)),
    }
}

async fn configuration(client: &Client, is_reachable: bool) -> Finding {
    match config::check(None, client).await {
        Ok(report) if !is_reachable => {
            not_written_yet(&report).unwrap_or_else(|| verdict_on(&report))
        }
        Ok(report) => verdict_on(&report),
        Err(error) if error.is_not_reachable() => Finding::warning(
            "configuration",
            "not checked: lodestard neither runs nor lies beside this lodestar",
            "start lodestard, or install both in one directory",
        ),
        Err(error) => could_not("configuration", &error),
    }
}

/// Returns the finding for a configuration file that is missing since no daemon has ever started.
fn not_written_yet(report: &ConfigReport) -> Option<Finding> {
    let [only] = report.errors.as_slice() else { return None };
    let looked = Path::new(&only.file).symlink_metadata();
    let is_missing = looked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    is_missing.then(|| {
        let message = format!("there is no {} yet: lodestard writes it when it starts", only.file);
        Finding::ok("configuration", message)
    })
}

fn verdict_on(report: &ConfigReport) -> Finding {
    let all = report.errors.iter().chain(&report.warnings);
    let lines = all.map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let name = "configuration";
    if !report.errors.is_empty() {
        let remedy = "correct the file; what runs stays as it is until then";
        return Finding::problem(name, lines, remedy);
    }
    if !report.warnings.is_empty() {
        let remedy = "the file is valid: correct what is not meant";
        return Finding::warning(name, lines, remedy);
    }
    Finding::ok(name, "the file is valid")
}

fn unreachable(error: &CliError) -> Finding {
    let finding = could_not("daemon", error);
    Finding { status: Verdict::Problem, ..finding }
}

/// Creates the warning for a check that could not be made.
fn could_not(name: &str, error: &CliError) -> Finding {
    let (message, remedy) = match error.failure() {
        Some(failure) => (failure.message.clone(), failure.help.clone()),
        None => ("this could not be checked".to_owned(), None),
    };
    Finding { remedy, ..Finding::new(name, Verdict::Warning, message) }
}

fn show(finding: &Finding, terminal: &mut Terminal) -> Result<()> {
    let (word, tone) = match finding.status {
        Verdict::Ok => ("ok", Tone::Good),
        Verdict::Warning => ("warning", Tone::Warning),
        Verdict::Problem => ("problem", Tone::Bad),
    };
    let word = terminal.paint_state(&format!("{word:<8}"), tone);
    let message = human::plain(&finding.message).replace('\n', "\n        ");
    terminal.line(&format!("{word}{}: {message}", finding.name))?;
    match &finding.remedy {
        Some(remedy) => terminal.line(&format!("        -> {}", human::plain(remedy))),
        None => Ok(()),
    }
}

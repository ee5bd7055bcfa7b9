//! `lodestar connect --list`: the tools that are installed here, and which are connected.

use std::path::PathBuf;

use module_sdk::Table;
use serde::Serialize;

use super::{
    addresses::Addresses,
    environment::Environment,
    plan::{Change, FilePlan, Kind},
    record,
    tools::{ALL, Part, Tool, Wish},
};
use crate::{error::Result, terminal::Terminal};

/// State of a tool.
#[derive(Debug, Serialize)]
struct Line {
    tool: &'static str,
    name: &'static str,
    /// The program, if it is on the PATH.
    program: Option<PathBuf>,
    installed: bool,
    telemetry: State,
    router: State,
    /// Time when this command connected it, if it did.
    written_at: Option<String>,
    files: Vec<PathBuf>,
    /// Reason for an unknown state.
    error: Option<String>,
}

/// State of a part of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Every setting is there.
    Connected,
    /// Some settings are there.
    Partly,
    /// Something else is set.
    Elsewhere,
    No,
    /// The settings cannot be read.
    Unknown,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Partly => "partly",
            Self::Elsewhere => "elsewhere",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the state of a part.
    fn of<'a>(changes: impl Iterator<Item = &'a Change>, part: Part) -> Self {
        let kinds: Vec<Kind> =
            changes.filter(|change| change.part == part).map(Change::kind).collect();
        let all = |kind: Kind| kinds.iter().all(|other| *other == kind);
        match () {
            () if all(Kind::New) => Self::No,
            () if all(Kind::Same) => Self::Connected,
            () if kinds.contains(&Kind::Replaces) => Self::Elsewhere,
            () => Self::Partly,
        }
    }
}

/// Shows the tools.
pub(super) fn list(
    environment: &Environment,
    addresses: &Addresses,
    terminal: &mut Terminal,
) -> Result<()> {
    let wish = Wish {
        ingest: addresses.ingest.clone(),
        router: addresses.router.clone(),
        is_default: false,
        project: None,
    };
    let lines: Vec<Line> =
        ALL.into_iter().map(|tool| line(environment, tool, &wish)).collect::<Result<_>>()?;
    if terminal.json {
        return terminal.json_document(&lines);
    }
    let mut table = Table::new(["TOOL", "INSTALLED", "TELEMETRY", "ROUTER", "SETTINGS"]);
    for line in &lines {
        let installed = if line.installed { "yes" } else { "no" };
        let files = line.files.iter().map(|path| path.display().to_string());
        let files = files.collect::<Vec<_>>().join(" ");
        let (telemetry, router) = (line.telemetry.word(), line.router.word());
        table.row([line.tool, installed, telemetry, router, &files].map(str::to_owned));
        table.notes.extend(line.error.iter().map(|error| format!("{}: {error}", line.name)));
    }
    if !addresses.are_known {
        table.notes.extend(addresses.notes.iter().cloned());
    }
    table.notes.push("`lodestar connect TOOL` shows what connects a tool.".to_owned());
    terminal.table(&table)
}

fn line(environment: &Environment, tool: &'static dyn Tool, wish: &Wish) -> Result<Line> {
    let settings = tool.settings(environment, wish)?;
    let program = environment.program(tool.program());
    let files: Vec<PathBuf> = settings.iter().map(|file| file.path.clone()).collect();
    let has_settings = files.iter().any(|path| path.symlink_metadata().is_ok());
    let mut line = Line {
        tool: tool.id(),
        name: tool.name(),
        installed: program.is_some() || has_settings,
        program,
        telemetry: State::Unknown,
        router: State::Unknown,
        written_at: None,
        files,
        error: None,
    };
    let plans: Result<Vec<FilePlan>> =
        settings.iter().map(|file| FilePlan::new(file, None)).collect();
    let record = record::peek(environment, tool.id());
    match (plans, record) {
        (Ok(plans), Ok(record)) => {
            let changes = || plans.iter().flat_map(|plan| &plan.changes);
            line.telemetry = State::of(changes(), Part::Telemetry);
            line.router = State::of(changes(), Part::Router);
            line.written_at = record.map(|record| record.written_at);
        }
        (Err(error), _) | (_, Err(error)) => {
            line.error = error.failure().map(|failure| failure.message.clone());
        }
    }
    Ok(line)
}

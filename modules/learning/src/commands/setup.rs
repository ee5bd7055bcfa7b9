//! `lodestar learning setup`.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use module_sdk::{Error, ErrorKind, Job, Output, Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{minute, time};
use crate::{
    Learning,
    run::{self, Strategy},
    setup::{
        Environments, MAKING, Making, ROOM, SetupError, find_python, find_uv, free_bytes, make,
        sizes,
    },
};

/// Makes the Python environment of a trainer, or shows which there are: `setup`, `setup trl`.
/// Gigabytes are fetched; `--dry-run` says how many.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetupArgs {
    /// Trainer: `trl`, `peft-plain`, `unsloth` or `llama-factory` [default: show all].
    #[serde(default)]
    #[schemars(extend("x-positional" = 1))]
    trainer: Option<String>,
    /// Show what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Python to make it of, from 3.11 on [default: the first one in the daemon's PATH].
    #[serde(default)]
    #[schemars(extend("x-path" = true))]
    python: Option<PathBuf>,
}

impl Learning {
    pub(crate) fn setup(&mut self, args: SetupArgs) -> Result<Job> {
        let environments = self.training.trainers().environments.clone();
        let store = self.store.clone();
        let (now, stopping) = (self.now(), Arc::clone(&self.stopping));
        Ok(Job::new(move |output| {
            let Some(name) = &args.trainer else { return list(&environments) };
            let strategy = Strategy::named(name).filter(|it| it.requirements().is_some());
            let strategy = strategy.ok_or_else(|| unknown(name))?;
            let path = std::env::var_os("PATH");
            let uv = find_uv(path.as_deref(), std::env::var_os("HOME").as_deref());
            let python =
                find_python(args.python.as_deref(), path.as_deref(), strategy.newest_python());
            let folder = environments.of(strategy);
            let (fetched, kept) = sizes(strategy);
            let free = free_bytes(&folder).unwrap_or(u64::MAX);
            // What was begun takes room already.
            let needed = ROOM.max(kept + kept / 4);
            let room = if free < needed {
                Err(SetupError::NoRoom { folder: folder.display().to_string(), free, needed })
            } else {
                Ok(())
            };
            if args.dry_run {
                let problems: Vec<String> = [
                    uv.as_ref().err().map(ToString::to_string),
                    python.as_ref().err().map(ToString::to_string),
                    room.err().map(|it| it.to_string()),
                ]
                .into_iter()
                .flatten()
                .collect();
                let data = json!({
                    "trainer": strategy, "state": environments.state(strategy), "folder": folder,
                    "fetched_bytes": fetched, "disk_bytes": kept, "free_bytes": free,
                    "uv": uv.ok(), "python": python.ok().map(|it| it.path), "problems": problems,
                });
                return would(strategy, &data, &problems);
            }
            let going_on = store.read(run::unfinished)?;
            if going_on.is_some_and(|run| run.trainer == strategy.as_str()) {
                let error =
                    Error::of(ErrorKind::Refused, format!("a run uses {strategy} just now"));
                return Err(error.hint("wait for it, or stop it: `lodestar learning runs`"));
            }
            let (uv, python) = (uv.map_err(|it| failed(&it))?, python.map_err(|it| failed(&it))?);
            room.map_err(|it| failed(&it))?;
            let (environments, uv, python) = (&environments, &uv, &python);
            let until = Instant::now() + MAKING;
            let making = Making { environments, strategy, uv, python, now, until };
            let total = kept / 1_000_000;
            output.progress(0, Some(total), "MB")?;
            let mut go_on = |bytes: u64| {
                let done = (bytes / 1_000_000).min(total);
                !stopping.load(Ordering::Relaxed) && tell(output, done, total)
            };
            make(&making, &mut go_on).map_err(|error| failed(&error))?;
            let mut table = Table::default();
            table
                .notes
                .push(format!("`lodestar learning train DATASET --trainer {strategy}` uses it"));
            Ok(Reply::json(&data(environments, strategy))?.table(table))
        }))
    }
}

fn tell(output: &mut Output, done: u64, total: u64) -> bool {
    output.progress(done, Some(total), "MB").is_ok()
}

fn list(environments: &Environments) -> Result<Reply> {
    let mut table = Table::new(["TRAINER", "STATE", "SIZE#", "PYTHON", "MADE"]);
    let mut all = Vec::new();
    for strategy in Strategy::ALL.iter().filter(|it| it.requirements().is_some()) {
        let shown = data(environments, *strategy);
        let made = environments.made(*strategy);
        table.row([
            strategy.to_string(),
            shown["state"].as_str().unwrap_or_default().to_owned(),
            super::gigabytes(sizes(*strategy).1),
            made.as_ref().map_or_else(|| "-".to_owned(), |it| it.python.clone()),
            made.map_or_else(|| "-".to_owned(), |it| minute(it.at)),
        ]);
        all.push(shown);
    }
    table.notes.push("`lodestar learning setup TRAINER` makes one".to_owned());
    Ok(Reply::json(&all)?.table(table))
}

fn data(environments: &Environments, strategy: Strategy) -> Value {
    let (fetched, kept) = sizes(strategy);
    let made = environments.made(strategy);
    json!({
        "trainer": strategy, "state": environments.state(strategy),
        "folder": environments.of(strategy), "fetched_bytes": fetched, "disk_bytes": kept,
        "python": made.as_ref().map(|it| it.python.clone()),
        "made_at": made.and_then(|it| time(it.at)),
    })
}

fn would(strategy: Strategy, data: &Value, problems: &[String]) -> Result<Reply> {
    let bytes = |key: &str| super::gigabytes(data[key].as_u64().unwrap_or_default());
    let mut table = Table::new(["WHAT", "VALUE"]);
    table.title = format!("Environment of {strategy}");
    for (name, value) in [
        ("state", data["state"].as_str().unwrap_or_default().to_owned()),
        ("to fetch", bytes("fetched_bytes")),
        ("on the disk", bytes("disk_bytes")),
        ("free there", bytes("free_bytes")),
        ("folder", data["folder"].as_str().unwrap_or_default().to_owned()),
        ("uv", data["uv"].as_str().unwrap_or("-").to_owned()),
        ("Python", data["python"].as_str().unwrap_or("-").to_owned()),
    ] {
        table.row([name.to_owned(), value]);
    }
    table.notes.extend(problems.iter().cloned());
    Ok(Reply::json(data)?.table(table).exit_code(u8::from(!problems.is_empty())))
}

fn unknown(name: &str) -> Error {
    let known: Vec<&str> = Strategy::ALL
        .iter()
        .filter(|it| it.requirements().is_some())
        .map(|it| it.as_str())
        .collect();
    match name {
        "embedded" | "command" | "fake" => {
            Error::usage(format!("the trainer {name} needs no environment"))
        }
        _ => Error::usage(format!("there is no trainer {name:?}")).near(name, known),
    }
}

fn failed(error: &SetupError) -> Error {
    let kind = match error {
        SetupError::CutOff => ErrorKind::Cancelled,
        SetupError::Busy | SetupError::NoRoom { .. } => ErrorKind::Refused,
        _ => ErrorKind::Failed,
    };
    Error::of(kind, error.to_string())
}

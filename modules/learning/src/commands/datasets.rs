//! `lodestar learning datasets`.

use std::io::Write as _;

use module_sdk::{Error, ErrorKind, Job, Output, Reply, Result, Table, human::count};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{counted, minute, time};
use crate::{
    Learning,
    dataset::{
        build::Meta,
        diff::{Diff, diff},
        export::{self, Form},
        files::{EVAL, Folder, META, PREFERENCE, TRAIN},
        summary::Summary,
    },
    store::{Store, StoredDataset},
};

/// Builds datasets of good answers and shows them: `datasets build --project shop`,
/// `datasets list`, `datasets show ID`, `datasets diff ID OTHER`, `datasets verify ID`,
/// `datasets export ID --format trl --out FILE`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetsArgs {
    /// Command: `build`, `list`, `show`, `diff`, `export` or `verify` [default: list].
    #[serde(default)]
    #[schemars(extend("x-positional" = 1))]
    action: Action,
    /// Id of a dataset, or its beginning.
    #[serde(default)]
    #[schemars(extend("x-positional" = 2))]
    id: Option<String>,
    /// Id of the dataset to compare with (diff).
    #[serde(default)]
    #[schemars(extend("x-positional" = 3))]
    other: Option<String>,
    /// A project whose answers are learnt from; more than one may be given (build).
    #[serde(default)]
    pub(super) project: Vec<String>,
    /// Share that is held out for evaluation [default: eval_share] (build).
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub(super) eval_share: Option<f64>,
    /// The form (export).
    #[serde(default)]
    format: Form,
    /// The part (export).
    #[serde(default)]
    split: Part,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Build one.
    Build,
    /// Show all.
    #[default]
    List,
    /// Show all that is known of one.
    Show,
    /// Compare two.
    Diff,
    /// Write the lines of one.
    Export,
    /// Check the files of one.
    Verify,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Part {
    /// The lines to train on.
    #[default]
    Train,
    /// The lines that are held out.
    Eval,
    /// Both.
    All,
}

impl Learning {
    pub(crate) fn datasets(&mut self, args: DatasetsArgs) -> Result<Job> {
        if args.action == Action::Build {
            if args.id.is_some() {
                let error = Error::usage("`build` takes no id: it is the hash of what is built");
                return Err(error.hint("name the project: --project NAME"));
            }
            return self.build(&args);
        }
        if !args.project.is_empty() || args.eval_share.is_some() {
            return Err(Error::usage("--project and --eval-share are for `build`"));
        }
        let (store, folder, now) = (self.store.clone(), self.folder.clone(), self.now());
        Ok(Job::new(move |output| {
            let named = |id: &Option<String>| match id {
                Some(id) => store.dataset(id),
                None => Err(Error::usage("name the dataset by its id")
                    .hint("`lodestar learning datasets` lists them")),
            };
            match args.action {
                Action::Build | Action::List if args.id.is_some() => {
                    Err(Error::usage("`list` takes no id").hint("`show ID` shows one"))
                }
                Action::Build | Action::List => list(&store.datasets()?),
                Action::Show => show(&named(&args.id)?, &folder),
                Action::Diff => compare(&named(&args.id)?, &named(&args.other)?, &folder),
                Action::Export => {
                    let dataset = named(&args.id)?;
                    export_lines(&dataset, &folder, args.format, args.split, output)
                }
                Action::Verify => verify(&named(&args.id)?, &folder, &store, now),
            }
        }))
    }
}

fn list(datasets: &[StoredDataset]) -> Result<Reply> {
    let mut table = Table::new(["ID", "PROJECTS", "BUILT", "TRAIN#", "EVAL#", "STATE"]);
    for it in datasets {
        table.row([
            short(&it.id).to_owned(),
            it.projects.join(", "),
            minute(it.created_at),
            count(it.train),
            count(it.eval),
            it.state().to_owned(),
        ]);
    }
    if datasets.is_empty() {
        table.notes.push(
            "There are no datasets. `lodestar learning datasets build --project NAME` builds one."
                .to_owned(),
        );
    }
    let all: Vec<Value> = datasets
        .iter()
        .map(|it| {
            json!({
                "id": it.id,
                "state": it.state(),
                "created_at": time(it.created_at),
                "projects": it.projects,
                "examples": it.train + it.eval,
                "train": it.train,
                "eval": it.eval,
                "stale": it.stale,
            })
        })
        .collect();
    Ok(Reply::json(&all)?.table(table))
}

/// Returns as much of an id as a person needs.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn show(dataset: &StoredDataset, folder: &Folder) -> Result<Reply> {
    let mut data = dataset.summary.clone();
    if let Value::Object(fields) = &mut data {
        fields.insert("state".to_owned(), dataset.state().into());
        fields.insert("stale".to_owned(), json!(dataset.stale));
        fields.insert("path".to_owned(), json!(folder.of(&dataset.id)));
    }
    let summary: Summary = serde_json::from_value(dataset.summary.clone())?;
    let mut table = funnel(&summary);
    if let Some(reason) = &dataset.stale {
        table.notes.insert(0, format!("it must not be trained on: {reason}"));
    }
    table.notes.push(format!("its files: {}", folder.of(&dataset.id).display()));
    Ok(Reply::json(&data)?.table(table))
}

/// Returns the filters of a dataset as a table, with its gaps below.
pub(super) fn funnel(summary: &Summary) -> Table {
    let mut table = Table::new(["FILTER", "SEEN#", "KEPT#", "DROPPED"]);
    table.title = format!(
        "Dataset {}: {} to train on, {} held out",
        short(&summary.id),
        count(summary.train),
        count(summary.eval)
    );
    for step in &summary.funnel {
        let reasons: Vec<String> =
            step.reasons.iter().map(|(reason, number)| format!("{reason} {number}")).collect();
        table.row([step.name.clone(), count(step.seen), count(step.kept), reasons.join(", ")]);
    }
    table.notes.extend(summary.gaps.iter().cloned());
    table
}

fn compare(from: &StoredDataset, to: &StoredDataset, folder: &Folder) -> Result<Reply> {
    let Diff { same, moved, added, removed, added_models, removed_models } =
        diff(&metas(from, folder)?, &metas(to, folder)?);
    let mut table = Table::new(["LINES", "NUMBER#"]);
    table.title = format!("From {} to {}", short(&from.id), short(&to.id));
    for (name, number) in
        [("the same", same), ("moved", moved), ("added", added), ("removed", removed)]
    {
        table.row([name.to_owned(), count(number)]);
    }
    let data = json!({
        "from": from.id, "to": to.id, "same": same, "moved": moved, "added": added,
        "removed": removed, "added_models": added_models, "removed_models": removed_models,
    });
    Ok(Reply::json(&data)?.table(table))
}

fn metas(dataset: &StoredDataset, folder: &Folder) -> Result<Vec<Meta>> {
    not_erased(dataset)?;
    let lines = folder.lines(&dataset.id, META)?;
    let read = |line: &String| {
        serde_json::from_str(line).map_err(|_| {
            let id = short(&dataset.id);
            Error::new(format!("{META} of dataset {id} is damaged"))
                .hint(format!("see what `lodestar learning datasets verify {id}` says"))
        })
    };
    lines.iter().map(read).collect()
}

fn not_erased(dataset: &StoredDataset) -> Result<()> {
    if dataset.erased_at.is_none() {
        return Ok(());
    }
    let (id, reason) = (short(&dataset.id), dataset.stale.as_deref().unwrap_or("it was deleted"));
    Err(Error::of(ErrorKind::Refused, format!("the text of dataset {id} is gone: {reason}"))
        .hint("build another one"))
}

fn export_lines(
    dataset: &StoredDataset,
    folder: &Folder,
    form: Form,
    part: Part,
    output: &mut Output,
) -> Result<Reply> {
    not_erased(dataset)?;
    let id = short(&dataset.id);
    if let Some(reason) = &dataset.stale {
        let error = format!("dataset {id} must not be trained on: {reason}");
        return Err(Error::of(ErrorKind::Refused, error).hint("build another one"));
    }
    let names: &[&str] = match (form, part) {
        (Form::Preference, _) => &[PREFERENCE],
        (_, Part::Train) => &[TRAIN],
        (_, Part::Eval) => &[EVAL],
        (_, Part::All) => &[TRAIN, EVAL],
    };
    let mut lines = Vec::new();
    for name in names {
        lines.extend(folder.lines(&dataset.id, name)?);
    }
    let total = Some(lines.len() as u64);
    let (mut written, mut left_out) = (0_u64, 0_u64);
    for line in &lines {
        match export::line(line, form)? {
            Some(value) => {
                writeln!(output, "{value}")?;
                written += 1;
            }
            None => left_out += 1,
        }
        if (written + left_out).is_multiple_of(500) {
            output.progress(written + left_out, total, "lines")?;
        }
    }
    let mut note = format!("{} written", counted(written, "line"));
    if left_out > 0 {
        note.push_str(&format!("; {} with tools find no place in this form", count(left_out)));
    }
    let table = Table { notes: vec![note], ..Table::default() };
    Ok(Reply::json(&json!({"id": dataset.id, "lines": written, "left_out": left_out}))?
        .table(table))
}

fn verify(dataset: &StoredDataset, folder: &Folder, store: &Store, now: i64) -> Result<Reply> {
    let summary: Summary = serde_json::from_value(dataset.summary.clone())?;
    let mut problems = Vec::new();
    match (&dataset.stale, dataset.erased_at) {
        (reason, Some(_)) => {
            let reason = reason.as_deref().unwrap_or("it was deleted");
            problems.push(format!("its text is gone: {reason}"));
        }
        (reason, None) => {
            problems.extend(folder.problems(&dataset.id, &summary.files)?);
            problems.extend(reason.iter().map(|reason| format!("it is stale: {reason}")));
        }
    }
    let (forgotten, ended) = store.withdrawn(&dataset.id, now)?;
    if forgotten > 0 && dataset.erased_at.is_none() {
        problems.push(format!("{} of it were forgotten", counted(forgotten, "example")));
    }
    if ended > 0 {
        let examples = counted(ended, "example");
        problems.push(format!("the consent of {examples} has ended"));
    }
    let intact = problems.is_empty();
    let mut table = Table { notes: problems.clone(), ..Table::default() };
    if intact {
        let files = counted(summary.files.len() as u64, "file");
        table.notes.push(format!("{files} as they were built, nothing on both sides of the split"));
    }
    let data = json!({"id": dataset.id, "intact": intact, "problems": problems});
    Ok(Reply::json(&data)?.table(table).exit_code(u8::from(!intact)))
}

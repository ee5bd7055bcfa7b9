//! `lodestar learning train` and `runs`.

use std::{path::PathBuf, sync::atomic::Ordering, time::Duration};

use module_sdk::{Error, ErrorKind, Job, Output, Reply, Result, Table, human};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{counted, datasets::short, fit, minute, time, word};
use crate::{
    Learning,
    registry::{Digest, Ledger, Lineage},
    run::{
        self, Base, Examples, Job as TrainerJob, Limits, Lora, Method, Run, RunState, Strategy,
        Train,
    },
    training::{Begun, Training},
    versions::{Versions, refused},
};

/// Trains a version on a dataset: `train DATASET --base PATH --watch`. The base is a folder with
/// `config.json`, `model.safetensors` and `tokenizer.json`, or a GGUF file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainArgs {
    /// Id of the dataset, or its beginning.
    #[schemars(extend("x-positional" = 1))]
    dataset: String,
    /// The base model: a folder or a GGUF file.
    #[schemars(extend("x-path" = true))]
    base: PathBuf,
    /// Trainer: `embedded`, `command` from the configuration, or in Python `trl`, `peft-plain`,
    /// `unsloth`, `llama-factory`; `fake` learns nothing.
    #[serde(default = "embedded")]
    trainer: String,
    /// Method [default: `qlora` for a GGUF file, which is mostly quantised, else `lora`].
    #[serde(default)]
    method: Option<Method>,
    /// Number of steps [default: two passes over the examples].
    #[serde(default)]
    #[schemars(range(min = 1))]
    steps: Option<u64>,
    /// Rank of the adapter [default: 8].
    #[serde(default)]
    #[schemars(range(min = 1, max = 256))]
    rank: Option<u32>,
    /// Learning rate [default: 0.0002].
    #[serde(default)]
    rate: Option<f64>,
    /// Longest example, in tokens; longer ones are left out [default: 1024].
    #[serde(default)]
    #[schemars(range(min = 8, max = 32_768))]
    max_length: Option<u32>,
    /// Wait until it ends, with its progress.
    #[serde(default)]
    watch: bool,
    /// Show the memory that the run needs, and what would fit, and begin nothing.
    #[serde(default)]
    dry_run: bool,
    /// Begin also where the memory is not enough by the prediction, or the dataset is too small to
    /// measure anything by.
    #[serde(default)]
    force: bool,
}

fn embedded() -> String {
    "embedded".to_owned()
}

/// Shows the runs of training: `runs list`, `runs show ID`, `runs watch ID`, `runs stop ID`,
/// `runs resume ID`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunsArgs {
    /// Command: `list`, `show`, `watch`, `stop` or `resume` [default: list].
    #[serde(default)]
    #[schemars(extend("x-positional" = 1))]
    action: RunAction,
    /// Id of a run, or its beginning.
    #[serde(default)]
    #[schemars(extend("x-positional" = 2))]
    id: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum RunAction {
    /// Show all.
    #[default]
    List,
    /// Show all that is known of one.
    Show,
    /// Follow one until it ends.
    Watch,
    /// Stop one with a checkpoint.
    Stop,
    /// Go on with one that stopped.
    Resume,
}

/// Fewest examples that are trained on where nobody forces it.
pub(super) const FEWEST: u64 = 8;
/// Most runs in a list.
const LISTED: u32 = 200;
/// Time between two looks at a run that is watched.
const LOOK: Duration = Duration::from_millis(500);

impl Learning {
    pub(crate) fn train(&mut self, args: TrainArgs) -> Result<Job> {
        let (versions, training) = (self.versions.clone(), self.training.clone());
        let stopping = self.stopping.clone();
        let wanted = self.config.gates.examples;
        Ok(Job::new(move |output| {
            let asked = ask(&args, &versions)?;
            let mut go_on =
                || !stopping.load(Ordering::Relaxed) && output.progress(0, Some(1), "base").is_ok();
            if args.dry_run {
                let host = &versions.host;
                return fit::show(&asked.job, &args.trainer, host, &training, &mut go_on);
            }
            if !args.force {
                asked.check_size()?;
            }
            let trainer = training.trainers().named(&args.trainer)?;
            trainer.check().map_err(|error| Error::new(error.to_string()))?;
            let strategy = Strategy::named(&args.trainer);
            fit::check(&asked.job, strategy, &versions.host, args.force)?;
            if args.trainer == embedded() {
                fit::look(&asked.job, &*trainer, &mut go_on)?;
            }
            let few = asked.few(wanted);
            let begun = begin(asked, &args.trainer, &versions, &training)?;
            if args.watch {
                let mut reply = watch(&begun, &versions, &training, output)?;
                if let Some(table) = &mut reply.table {
                    table.notes.extend(few);
                }
                return Ok(reply);
            }
            let mut table = Table::default();
            table.notes.extend(few);
            table.notes.push(format!("run {} trains version {}", short(&begun.run), begun.version));
            let follow = format!("`lodestar learning runs watch {}` follows it", short(&begun.run));
            table.notes.push(follow);
            Ok(Reply::json(&ended(&begun, RunState::Training))?.table(table))
        }))
    }

    pub(crate) fn runs(&mut self, args: RunsArgs) -> Result<Job> {
        let (versions, training) = (self.versions.clone(), self.training.clone());
        Ok(Job::new(move |output| {
            let Some(begin) = &args.id else {
                return match args.action {
                    RunAction::List => list(&versions, &training),
                    _ => Err(Error::usage("name the run by its id")
                        .hint("`lodestar learning runs` lists them")),
                };
            };
            let run = training.up_to_date(find(&versions, begin)?);
            let version = version_of(&versions.ledger()?, &run.id);
            let begun = Begun { run: run.id.clone(), version: version.clone() };
            match args.action {
                RunAction::List | RunAction::Show => show(&run, &version),
                RunAction::Watch => watch(&begun, &versions, &training, output),
                // A thread that still goes on says nothing: the end is noted.
                RunAction::Stop if run.state == RunState::Training && training.stop(&run.id) => {
                    let reply = watch(&begun, &versions, &training, output)?;
                    // It was asked for.
                    let has_stopped = find(&versions, &run.id)?.state == RunState::Stopped;
                    Ok(if has_stopped { reply.exit_code(0) } else { reply })
                }
                RunAction::Stop => Err(cannot("stop", &begun, &run)),
                // A checkpoint lies there, whoever ended it.
                RunAction::Resume if !matches!(run.state, RunState::Stopped) => {
                    Err(cannot("resume", &begun, &run))
                }
                RunAction::Resume => {
                    let begun = training.resume(&run)?;
                    let note = format!(
                        "the run goes on; `lodestar learning runs watch {}` follows it",
                        short(&begun.run)
                    );
                    let table = Table { notes: vec![note], ..Table::default() };
                    Ok(Reply::json(&ended(&begun, RunState::Training))?.table(table))
                }
            }
        }))
    }
}

/// Returns the refusal of what a run in its state is not there for, with what comes next.
fn cannot(verb: &str, begun: &Begun, run: &Run) -> Error {
    let (id, version) = (short(&run.id), &begun.version);
    let hint = match run.state {
        RunState::Queued | RunState::Training => {
            format!("`lodestar learning runs watch {id}` follows it")
        }
        RunState::Done => format!("`lodestar learning gates {version}` measures what came of it"),
        RunState::Stopped => format!("`lodestar learning runs resume {id}` goes on with it"),
        RunState::Failed => {
            "`lodestar learning train DATASET --base PATH` begins another one, once \
                             the reason is out of the way; `runs show` tells it"
                .to_owned()
        }
    };
    let state = match run.state {
        RunState::Queued => "waits for its turn",
        RunState::Training => "goes on already",
        RunState::Done => "is done",
        RunState::Stopped => "stopped already",
        RunState::Failed => "failed",
    };
    let message = format!("run {id} {state}, so that there is nothing to {verb}");
    Error::of(ErrorKind::Refused, message).hint(hint)
}

/// A run that is asked for.
struct Asked {
    job: TrainerJob,
    lineage: Lineage,
    projects: Vec<String>,
}

impl Asked {
    /// Checks that what comes of it could be measured.
    fn check_size(&self) -> Result<()> {
        let dataset = short(&self.lineage.dataset);
        let force = "--force begins it all the same";
        let projects: Vec<String> =
            self.projects.iter().map(|it| format!(" --project {}", word(it))).collect();
        let build = format!("lodestar learning datasets build{}", projects.concat());
        if self.lineage.examples < FEWEST {
            let examples = counted(self.lineage.examples, "example");
            let message = format!(
                "dataset {dataset} has {examples} to train on, and {FEWEST} are the fewest"
            );
            return Err(Error::of(ErrorKind::Refused, message)
                .hint(format!("import more and build it again (`{build}`); {force}")));
        }
        if self.job.dataset.eval.is_none() {
            let message =
                format!("dataset {dataset} holds nothing out, so that no gate could measure it");
            return Err(Error::of(ErrorKind::Refused, message)
                .hint(format!("`{build} --eval-share 0.2` holds a fifth out; {force}")));
        }
        Ok(())
    }

    /// Returns a warning where a gate will be shut for the number of examples.
    fn few(&self, wanted: u64) -> Option<String> {
        let examples = self.lineage.examples;
        (examples < wanted).then(|| {
            format!(
                "{} are few: the gate data_examples wants {}",
                counted(examples, "example"),
                human::count(wanted)
            )
        })
    }
}

fn ask(args: &TrainArgs, versions: &Versions) -> Result<Asked> {
    let dataset = versions.store.dataset(&args.dataset)?;
    versions.check_dataset(&dataset.id)?;
    if !args.base.is_absolute() {
        let error = Error::usage(format!("{} is no absolute path", args.base.display()));
        return Err(error.hint("write all of it, from / on"));
    }
    let base_digest = versions.digest(&args.base)?.ok_or_else(|| {
        Error::of(ErrorKind::NotFound, format!("there is no model at {}", args.base.display()))
            .hint("give a folder with config.json and model.safetensors, or a GGUF file")
    })?;
    let folder = versions.dataset_folder(&dataset.id);
    let eval = folder.join(crate::dataset::files::EVAL);
    let is_file = args.base.is_file();
    let usual = usual(&args.trainer);
    let job = TrainerJob {
        v: run::VERSION,
        job_id: String::new(),
        // The registry compares the base by a digest of its own.
        base: Base { path: args.base.clone(), sha256: None },
        dataset: Examples {
            train: folder.join(crate::dataset::files::TRAIN),
            eval: (dataset.eval > 0).then_some(eval),
            sha256: None,
            format: "messages".to_owned(),
        },
        output_dir: PathBuf::new(),
        resume_from: None,
        method: args.method.unwrap_or(if is_file { Method::Qlora } else { Method::Lora }),
        lora: Lora { r: args.rank.unwrap_or(Lora::default().r), ..Lora::default() },
        train: Train {
            max_steps: args.steps,
            epochs: args.steps.map_or(usual.epochs, |_| None),
            lr: args.rate.unwrap_or(usual.lr),
            max_length: args.max_length.unwrap_or(usual.max_length),
            ..usual
        },
        limits: Limits::default(),
        offline: true,
    };
    let lineage = Lineage {
        run: String::new(),
        base: args.base.display().to_string(),
        base_digest,
        // That of the lines themselves, whatever becomes of the dataset while the base is read.
        dataset_digest: Digest::try_from(dataset.id.clone())
            .map_err(|refusal| refused(&refusal))?,
        examples: dataset.train,
        consents: versions.store.consents_of(&dataset.id)?,
        dataset: dataset.id,
        trainer: args.trainer.clone(),
    };
    Ok(Asked { job, lineage, projects: dataset.projects })
}

/// Returns the usual sizes. In Python a batch is computed at once, so that it is small, and the
/// gradients of as many are summed up.
fn usual(trainer: &str) -> Train {
    let usual = Train::default();
    match Strategy::named(trainer) {
        Some(_) => Train { batch_size: 1, grad_accum: usual.batch_size, ..usual },
        None => usual,
    }
}

fn begin(asked: Asked, trainer: &str, versions: &Versions, training: &Training) -> Result<Begun> {
    let begun = training.begin(asked.job, trainer, asked.lineage)?;
    // What was taken back meanwhile found no version to mark.
    versions.taint()?;
    training.stop_tainted()?;
    Ok(begun)
}

/// Follows a run until it ends. Whoever stops watching does not stop it.
fn watch(
    begun: &Begun,
    versions: &Versions,
    training: &Training,
    output: &mut Output,
) -> Result<Reply> {
    loop {
        let (told, ended) = training.wait(&begun.run, LOOK);
        output.progress(told.step, told.max_steps, "steps")?;
        let run = find(versions, &begun.run)?;
        let is_under_way = run.state == RunState::Training || training.is_followed(&begun.run);
        if ended.is_none() && is_under_way {
            continue;
        }
        return show_end(&run, begun);
    }
}

fn show_end(run: &Run, begun: &Begun) -> Result<Reply> {
    let mut data = ended(begun, run.state);
    data["outcome"] = json!(run.outcome.map(run::Outcome::as_str));
    data["message"] = json!(run.message);
    data["loss"] = json!(run.told.loss);
    data["eval_loss"] = json!(run.told.eval_loss);
    let mut table = Table::default();
    let message = run.message.clone().unwrap_or_default();
    table.notes.push(format!("run {} is {}: {message}", short(&run.id), run.state));
    if run.state == RunState::Done {
        let next = format!("`lodestar learning gates {}` measures the version", begun.version);
        table.notes.push(next);
    }
    Ok(Reply::json(&data)?.table(table).exit_code(u8::from(run.state != RunState::Done)))
}

fn ended(begun: &Begun, state: RunState) -> Value {
    json!({"run": begun.run, "version": begun.version, "state": state})
}

fn list(versions: &Versions, training: &Training) -> Result<Reply> {
    let runs = versions.store.read(|connection| run::runs(connection, LISTED))?;
    let runs: Vec<Run> = runs.into_iter().map(|run| training.up_to_date(run)).collect();
    let ledger = versions.ledger()?;
    let mut table = Table::new(["ID", "VERSION", "STATE", "TRAINER", "STEP#", "LOSS#", "BEGAN"]);
    for run in &runs {
        table.row([
            short(&run.id).to_owned(),
            version_of(&ledger, &run.id),
            run.state.to_string(),
            run.trainer.clone(),
            steps(run),
            run.told.loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.3}")),
            minute(run.created_at),
        ]);
    }
    if runs.is_empty() {
        let note = "There are no runs. `lodestar learning train DATASET --base PATH` begins one.";
        table.notes.push(note.to_owned());
    }
    let all: Vec<Value> = runs.iter().map(|run| data(run, &version_of(&ledger, &run.id))).collect();
    Ok(Reply::json(&all)?.table(table))
}

fn show(run: &Run, version: &str) -> Result<Reply> {
    let mut table = Table::new(["WHAT", "VALUE"]);
    table.title = format!("Run {}", run.id);
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.3}"));
    for (name, value) in [
        ("state", run.state.to_string()),
        ("version", version.to_owned()),
        ("trainer", run.trainer.clone()),
        ("base", run.job.base.path.display().to_string()),
        ("step", steps(run)),
        ("loss", number(run.told.loss)),
        ("held-out loss", number(run.told.eval_loss)),
        ("outcome", run.message.clone().unwrap_or_else(|| "-".to_owned())),
    ] {
        table.row([name.to_owned(), value]);
    }
    table.notes.extend(run.smaller.iter().map(|it| format!("it was made smaller: {it}")));
    Ok(Reply::json(&data(run, version))?.table(table))
}

fn data(run: &Run, version: &str) -> Value {
    json!({
        "id": run.id, "state": run.state, "created_at": time(run.created_at),
        "version": version, "trainer": run.trainer, "base": run.job.base.path,
        "step": run.told.step, "max_steps": run.told.max_steps, "loss": run.told.loss,
        "eval_loss": run.told.eval_loss, "peak_mb": run.told.peak_mb,
        "predicted_s": run.told.predicted_s, "predicted_mb": run.told.predicted_mb,
        "outcome": run.outcome.map(run::Outcome::as_str), "message": run.message,
        "smaller": run.smaller,
    })
}

fn steps(run: &Run) -> String {
    match run.told.max_steps {
        Some(all) => format!("{}/{all}", run.told.step),
        None => run.told.step.to_string(),
    }
}

fn version_of(ledger: &Ledger, run: &str) -> String {
    let found = ledger.versions.values().find(|version| version.lineage.run == run);
    found.map(|version| version.id.clone()).unwrap_or_default()
}

/// Finds a run by its id or the beginning of it.
fn find(versions: &Versions, begin: &str) -> Result<Run> {
    let runs = versions.store.read(|connection| run::runs(connection, u32::MAX))?;
    let mut found = runs.into_iter().filter(|run| run.id.starts_with(begin));
    match (found.next(), found.next()) {
        (Some(run), None) => Ok(run),
        (Some(_), Some(_)) => Err(Error::usage(format!("more than one run begins with {begin:?}"))),
        _ => Err(Error::of(ErrorKind::NotFound, format!("there is no run {begin:?}"))
            .hint("`lodestar learning runs` lists them")),
    }
}

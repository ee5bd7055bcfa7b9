//! Whether a run fits, asked before it begins.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use module_sdk::{Error, ErrorKind, Host, Reply, Result, Table, human};
use serde_json::{Value, json};

use crate::{
    child::{self, End, Says},
    fit::{BaseError, Device, Fit, LENGTHS, Memory, Sizes, Work, memory, needed_mb},
    run::{Job, Method, Strategy, Trainer},
    training::Training,
};

/// Time within which the trainer has to tell about a base.
const INSPECTION: Duration = Duration::from_secs(600);

/// Refuses a run of a trainer in Python that cannot be, or that does not fit, unless it is forced.
/// The other trainers find that out by themselves.
///
/// # Errors
///
/// With the remedy.
pub(super) fn check(
    job: &Job,
    strategy: Option<Strategy>,
    host: &Host,
    is_forced: bool,
) -> Result<()> {
    let Some(strategy) = strategy else { return Ok(()) };
    let sizes = Sizes::read(&job.base.path, strategy).map_err(|error| no_base(&error))?;
    if !strategy.uses_card() || is_forced {
        return Ok(());
    }
    let fit = Fit::of(&sizes, &Work::of(job, strategy), &memory(host));
    if fit.fits {
        return Ok(());
    }
    let remedies = fit.remedies.join(", or ");
    Err(Error::of(ErrorKind::Refused, fit.sentence())
        .hint(format!("try {remedies}; --force begins it all the same")))
}

/// Lets the embedded trainer look at the base, before anything is noted: a base that it cannot
/// train makes no version.
///
/// # Errors
///
/// When the trainer cannot be started, or says that it cannot train the base.
pub(super) fn look(
    job: &Job,
    trainer: &dyn Trainer,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<()> {
    let base = &job.base.path;
    let launch = trainer.launch(base).map_err(|error| Error::new(error.to_string()))?;
    match inspect(&launch.program, base, go_on) {
        Err(error) if error.kind() == ErrorKind::Refused => Err(error.hint(
            "give a folder with config.json, model.safetensors and tokenizer.json, or a GGUF file, \
             of a Llama, Qwen2 or Qwen3",
        )),
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => {
            // The run itself tells what is wrong with the trainer.
            tracing::debug!(%error, "the trainer does not look at the base");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Shows the memory that a run needs, and what would fit.
///
/// # Errors
///
/// When the base cannot be read.
pub(super) fn show(
    job: &Job,
    trainer: &str,
    host: &Host,
    training: &Training,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Reply> {
    let missing = training.trainers().named(trainer)?.check().err().map(|it| it.to_string());
    match Strategy::named(trainer) {
        Some(strategy) => {
            let sizes = Sizes::read(&job.base.path, strategy).map_err(|error| no_base(&error))?;
            let memory = memory(host);
            if strategy.uses_card() {
                of_python(job, strategy, &sizes, &memory, missing)
            } else {
                nothing_known(trainer, missing)
            }
        }
        None if trainer == "embedded" && missing.is_none() => of_embedded(job, training, go_on),
        None => nothing_known(trainer, missing),
    }
}

fn of_python(
    job: &Job,
    strategy: Strategy,
    sizes: &Sizes,
    memory: &Memory,
    missing: Option<String>,
) -> Result<Reply> {
    let work = Work::of(job, strategy);
    let fit = Fit::of(sizes, &work, memory);
    let device = memory.device();
    let mut lengths: Vec<u64> = LENGTHS.into_iter().chain([work.tokens]).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let methods: &[Method] = match (strategy, device) {
        (Strategy::PeftPlain, _) | (_, Device::Machine) => &[Method::Lora],
        _ => &[Method::Lora, Method::Qlora],
    };
    let mut table = Table::new(["METHOD", "TOKENS#", "NEEDS#", "FITS"]);
    table.title = fit.sentence();
    let mut rows = Vec::new();
    for method in methods {
        for tokens in &lengths {
            let needed =
                needed_mb(sizes, &Work { method: *method, tokens: *tokens, ..work }, device);
            let fits = memory.usable_mb().is_none_or(|usable| needed <= usable);
            let word = match (fits, memory.usable_mb()) {
                (_, None) => "?",
                (true, _) => "yes",
                (false, _) => "no",
            };
            table.row([
                method_name(*method).to_owned(),
                human::count(*tokens),
                super::gigabytes(needed * 1_000_000),
                word.to_owned(),
            ]);
            let row = json!({
                "method": method, "tokens": tokens, "needed_mb": needed, "fits": fits,
            });
            rows.push(row);
        }
    }
    if !fit.fits {
        table.notes.push(format!("it does not fit; try {}", fit.remedies.join(", or ")));
    }
    table.notes.extend(missing.clone());
    let exit_code = u8::from(!fit.fits || missing.is_some());
    let data = json!({
        "trainer": strategy, "sentence": fit.sentence(), "fit": fit, "table": rows,
        "missing": missing,
    });
    Ok(Reply::json(&data)?.table(table).exit_code(exit_code))
}

/// Asks the embedded trainer, which tries an example of the base itself.
fn of_embedded(job: &Job, training: &Training, go_on: &mut dyn FnMut() -> bool) -> Result<Reply> {
    let launch = training.trainers().named("embedded")?.launch(&job.base.path);
    let launch = launch.map_err(|error| Error::new(error.to_string()))?;
    let told = inspect(&launch.program, &job.base.path, go_on)?;
    let mut table = Table::new(["TOKENS#", "NEEDS#", "TIME OF AN EXAMPLE#"]);
    let parameters = told["parameters"].as_f64().unwrap_or_default() / 1e9;
    table.title = format!("{parameters:.2}B on the processor");
    for cost in told["costs"].as_array().into_iter().flatten() {
        let mb = cost["mb"].as_u64().unwrap_or_default();
        table.row([
            human::count(cost["tokens"].as_u64().unwrap_or_default()),
            super::gigabytes(mb * 1_000_000),
            format!("{:.1} s", cost["example_s"].as_f64().unwrap_or_default()),
        ]);
    }
    table.notes.push("the run itself tells its time and memory before its first step".to_owned());
    let data = json!({"trainer": "embedded", "base": told, "missing": Value::Null});
    Ok(Reply::json(&data)?.table(table))
}

fn inspect(program: &Path, base: &Path, go_on: &mut dyn FnMut() -> bool) -> Result<Value> {
    let mut command = Command::new(program);
    command.arg("inspect").arg(base).env_clear().env("RAYON_NUM_THREADS", "1");
    let until = Instant::now() + INSPECTION;
    let lines = match child::run(command, Says::Output, until, go_on)? {
        End::Itself(_, lines) => lines,
        End::Late => {
            return Err(Error::of(ErrorKind::Refused, "the trainer takes too long with this base")
                .hint("try a smaller one"));
        }
        End::CutOff => return Err(Error::of(ErrorKind::Cancelled, "the look was cut off")),
    };
    let mut events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let last = events.next_back().unwrap_or_default();
    match last["event"].as_str() {
        Some("base") => Ok(last),
        Some("error") => {
            let message = last["message"].as_str().unwrap_or_default();
            Err(Error::of(ErrorKind::Refused, super::plain(message, 300)))
        }
        _ => Err(Error::new("the trainer tells nothing about the base")),
    }
}

fn nothing_known(trainer: &str, missing: Option<String>) -> Result<Reply> {
    let mut table = Table::default();
    table.notes.push(format!("what a run of the trainer {trainer} needs is not known"));
    table.notes.extend(missing.clone());
    let exit_code = u8::from(missing.is_some());
    let data = json!({"trainer": trainer, "fit": Value::Null, "missing": missing});
    Ok(Reply::json(&data)?.table(table).exit_code(exit_code))
}

const fn method_name(method: Method) -> &'static str {
    match method {
        Method::Lora => "LoRA",
        Method::Qlora => "QLoRA",
    }
}

fn no_base(error: &BaseError) -> Error {
    Error::of(ErrorKind::Refused, error.to_string())
}

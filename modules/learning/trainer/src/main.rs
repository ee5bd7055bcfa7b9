//! The program: `lodestar-trainer JOB.json`, and four commands beside it.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode},
    sync::{Arc, atomic::AtomicBool},
};

use lodestar_trainer::{
    convert, evaluate,
    events::Events,
    failure::{Class, Failure, Result},
    inspect,
    job::Job,
    parity, serve, tiny, train,
};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

const USAGE: &str = "\
Trains a LoRA of a small language model, and answers with it.

Usage: lodestar-trainer JOB.json           run a job
       lodestar-trainer evaluate JOB.json  compare the base with the adapter of a job
       lodestar-trainer parity JOB.json OUT.json
                                           write which tokens a server should put next
       lodestar-trainer inspect BASE       tell about a base, and the cost of training it
       lodestar-trainer convert ADAPTER --base BASE --out FILE
                                           make an adapter of PEFT one for llama.cpp
       lodestar-trainer tiny-base FOLDER   make a tiny base, with examples to train it with
       lodestar-trainer serve BASE         answer chats with a base and its adapters, over HTTP
           [--listen 127.0.0.1:4011] [--alias lodestar] [--adapter NAME FILE SHA256]...
           [--on NAME] [--context TOKENS] [--parent PID]

Events are lines of JSON on the standard output. Exit codes: 0 done, 1 failed, 2 bad job,
3 bad data, 4 out of memory, 5 stopped and resumable, 6 a file is missing, 7 a limit was reached.
";

/// Variable by which the libraries take the number of their own threads.
const THREADS: &str = "RAYON_NUM_THREADS";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words == ["--help"] || words == ["-h"] {
        eprint!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let mut out = std::io::stdout().lock();
    let mut events = Events::new(&mut out);
    match run(&words, &mut events) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let class = failure.class;
            let message = failure.to_string();
            eprintln!("lodestar-trainer: {message}");
            let error = json!({"code": class.code(), "cls": class.name(), "message": message});
            if class != Class::Stopped && events.tell("error", error).is_err() {
                eprintln!("lodestar-trainer: the error could not be told");
            }
            ExitCode::from(class.code())
        }
    }
}

fn run(words: &[&str], events: &mut Events<'_>) -> Result<()> {
    single_threaded()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::other(format!("signals cannot be received: {error}")))?;
    }
    match words {
        ["evaluate", job] => evaluate::run(&Job::read(Path::new(job))?, events, &stop),
        ["parity", job, out] => {
            parity::run(&Job::read(Path::new(job))?, Path::new(out), events, &stop)
        }
        ["convert", adapter, "--base", base, "--out", out] => {
            convert::run(Path::new(adapter), Path::new(base), Path::new(out), events)
        }
        ["inspect", base] => inspect::run(Path::new(base), events),
        ["tiny-base", folder] => {
            let loss = tiny::make(Path::new(folder), tiny::STEPS, 42)?;
            events.tell("done", json!({"path": folder, "loss": loss}))
        }
        ["serve", rest @ ..] => serve::run(&serve::Options::read(rest)?, events, &stop),
        [job] if !job.starts_with('-') => train::run(&Job::read(Path::new(job))?, events, &stop),
        _ => Err(Failure::job("these arguments are unknown; see `lodestar-trainer --help`")),
    }
}

/// Starts the program anew with one thread within each computation: examples are computed side by
/// side instead, as threads within small computations cost more than they give.
fn single_threaded() -> Result<()> {
    if std::env::var_os(THREADS).is_some_and(|it| it == "1") {
        return Ok(());
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::other(format!("the program does not find itself: {error}")))?;
    let error = Command::new(program).args(std::env::args_os().skip(1)).env(THREADS, "1").exec();
    Err(Failure::other(format!("the program cannot start anew: {error}")))
}

//! Training for real on a tiny base, and what kills leave of it.
//!
//! `cargo xtask bench training`. A run is killed at random moments, the daemon with it or without,
//! and resumed each time until it is done; the adapter must have the bytes of a straight run. And a
//! version is taken back while requests come.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use harness::{Daemon, Sandbox, kills::Random, run, training, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Number of kills.
const KILLS: u64 = 200;
/// Number of steps of a run that is killed.
const STEPS: &str = "120";
/// Number of steps between two checkpoints, as the module asks for them.
const SAVE_EVERY: u64 = 20;
/// Number of steps in which the tiny base learns.
const LEARNT: usize = 240;

fn main() {
    learning_by_itself();
    let config =
        format!("modules:\n  learning:\n{}metrics:\n  listen: 127.0.0.1:0\n", training::settings());
    let sandbox = Sandbox::new(&["learning"], &config);
    let daemon = sandbox.start();
    let base = training::tiny_base(&sandbox);
    let dataset = training::dataset(&sandbox, &base);
    killed(&sandbox, daemon, &base, &dataset);
    taken_back();
}

/// Takes a version back while a thousand requests come.
fn taken_back() {
    const REQUESTS: usize = 1_000;
    let config = format!(
        "modules:\n  learning:\n    serving: {{listen: 127.0.0.1:0}}\n{}metrics:\n  listen: \
         127.0.0.1:0\n",
        training::settings()
    );
    let sandbox = Sandbox::new(&["learning"], &config);
    let _daemon = sandbox.start();
    let base = training::tiny_base(&sandbox);
    let at = training::deployed(&sandbox, &base, &training::dataset(&sandbox, &base));
    let (answers, took) = training::ask_while(&at, REQUESTS, || {
        let begin = Instant::now();
        drop(sandbox.json(&["learning", "rollback", "--reason", "to measure it"]));
        begin.elapsed().as_secs_f64() * 1e3
    });
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    figure("a rollback among a thousand requests", took.round(), "ms", &at_most(1_000));
    figure("requests of a thousand that it fails", failed, "requests", &at_most(0));
}

fn figure(name: &str, value: impl Into<Value>, unit: &str, goal: &Value) {
    let (name, value) = (format!("training: {name}"), value.into());
    println!("{}", json!({"name": name, "value": value, "unit": unit, "goal": goal}));
}

fn at_most(bound: impl Into<Value>) -> Value {
    json!({"at_most": bound.into(), "of": "value"})
}

/// Trains the tiny base without a daemon: exact answers before and after, and the time of it.
fn learning_by_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let base = folder.path().join("tiny");
    let trained = |words: &[&std::ffi::OsStr]| {
        let ended = run(Command::new(training::trainer()).args(words));
        assert_eq!(ended.code, 0, "{ended:#?}");
        ended.stdout
    };
    trained(&["tiny-base".as_ref(), base.as_ref()]);
    let job = json!({
        "v": 1, "job_id": "bench", "output_dir": folder.path().join("out"),
        "base": {"path": base},
        "dataset": {"train": base.join("train.jsonl"), "eval": base.join("held_out.jsonl")},
        "method": "lora", "lora": {"r": 16, "alpha": 32},
        "train": {"max_steps": LEARNT, "batch_size": 8, "lr": 5e-3, "max_length": 256},
    });
    let file = folder.path().join("job.json");
    fs::write(&file, job.to_string()).expect("it is writable");
    let before = children_cpu();
    trained(&[file.as_ref()]);
    let used = children_cpu() - before;
    let evaluated = trained(&["evaluate".as_ref(), file.as_ref()]);
    let exact = |variant: &str| {
        let events = evaluated.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut evals = events.filter(|it| it["event"] == "eval" && it["variant"] == variant);
        evals.find_map(|it| it["exact"].as_u64()).expect("it was evaluated")
    };
    let (base, adapter) = (exact("base"), exact("adapter"));
    println!(
        "{}",
        json!({"name": "training: exact answers that were held out", "value": adapter,
            "unit": "of 24", "baseline": {"name": "the base", "value": base},
            "goal": {"at_least": 23, "of": "value"}})
    );
    figure("time of it", used, "CPU-s", &at_most(20));
}

/// Returns the processor time of all children that have ended, in seconds.
fn children_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let (_, fields) = stat.rsplit_once(')').expect("the name ends");
    // proc_pid_stat(5): cutime and cstime are the 16th and 17th field, in ticks of 10 ms.
    let ticks = fields.split_whitespace().skip(13).take(2).filter_map(|it| it.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// Effects of the kills.
#[derive(Default)]
struct Seen {
    kills: u64,
    /// Most steps that one kill lost.
    lost: u64,
    /// Number of finished runs whose adapter has other bytes than that of the straight run.
    different: u64,
    finished: u64,
    /// Number of entries of the log that were gone after a kill, or of logs that were not whole.
    gone: u64,
}

fn killed<'a>(sandbox: &'a Sandbox, daemon: Daemon<'a>, base: &Path, dataset: &str) {
    let base = base.display().to_string();
    let train = ["learning", "train", dataset, "--base", &base, "--steps", STEPS];
    let begin = Instant::now();
    let straight = sandbox.json(&[&train[..], &["--watch"]].concat());
    let whole = begin.elapsed();
    let expected = adapter(sandbox, &straight);
    let (mut daemon, mut random, mut seen) = (Some(daemon), Random::new(14), Seen::default());
    let mut entries = audited(sandbox);
    while seen.kills < KILLS {
        let begun = sandbox.json(&train);
        let run = begun["run"].as_str().expect("it began").to_owned();
        loop {
            let most = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
            thread::sleep(Duration::from_micros(random.below(most)));
            let with_daemon = random.below(2) == 0;
            let trainer = trainer_of(&run);
            if with_daemon {
                // To drop it is to kill it.
                daemon = None;
            }
            if let Some(pid) = trainer {
                // An error means that it has just ended.
                let _ = kill_process(pid, Signal::KILL);
                seen.kills += 1;
            }
            daemon.get_or_insert_with(|| sandbox.start());
            let ended = wait_until("the end of the run is known", || {
                let run = sandbox.json(&["learning", "runs", "show", &run]);
                (run["state"] != "training").then_some(run)
            });
            let now = audited(sandbox);
            seen.gone += u64::from(now < entries);
            entries = now;
            let step = ended["step"].as_u64().unwrap_or_default();
            match ended["state"].as_str().unwrap_or_default() {
                "stopped" => {
                    seen.lost = seen.lost.max(step.saturating_sub(checkpoint(sandbox, &run)));
                    let resumed = sandbox.json(&["learning", "runs", "resume", &run]);
                    assert_eq!(resumed["state"], "training", "{resumed:#}");
                }
                "done" => {
                    seen.finished += 1;
                    seen.different += u64::from(adapter(sandbox, &begun) != expected);
                    break;
                }
                // It was killed before its first checkpoint.
                _ => {
                    seen.lost = seen.lost.max(step);
                    break;
                }
            }
        }
    }
    drop(daemon);
    let name = format!("steps lost by one of {} kills, at most", seen.kills);
    figure(&name, seen.lost, "steps", &at_most(SAVE_EVERY));
    let name = format!("adapters of {} that differ from a straight run's", seen.finished);
    figure(&name, seen.different, "adapters", &at_most(0));
    figure("kills that lost an entry of the log", seen.gone, "kills", &at_most(0));
}

/// Returns the number of entries of the log, which must be whole.
fn audited(sandbox: &Sandbox) -> u64 {
    let audit = sandbox.json(&["learning", "audit"]);
    assert_eq!(audit["intact"], true, "{audit:#}");
    audit["entries"].as_u64().expect("it has entries")
}

fn adapter(sandbox: &Sandbox, begun: &Value) -> Vec<u8> {
    let version = begun["version"].as_str().expect("a run makes a version");
    let file = sandbox.state().join("data/learning/versions").join(version).join("adapter.gguf");
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Returns the process that does a run.
fn trainer_of(run: &str) -> Option<Pid> {
    let processes = fs::read_dir("/proc").expect("Linux has it").flatten();
    let mut pids = processes.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    pids.find_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let is_it = line.contains("lodestar-trainer") && line.contains(run);
        is_it.then(|| Pid::from_raw(pid)).flatten()
    })
}

/// Returns the step of the newest checkpoint of a run.
fn checkpoint(sandbox: &Sandbox, run: &str) -> u64 {
    fn newest(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let step = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.to_owned();
            let own = name.strip_prefix("step-").and_then(|it| it.strip_suffix(".safetensors"));
            let own = own.and_then(|step| step.parse().ok());
            own.or_else(|| path.is_dir().then(|| newest(&path)))
        };
        entries.filter_map(|entry| step(entry.path())).max().unwrap_or_default()
    }
    newest(&sandbox.state().join("data/learning/runs").join(run))
}

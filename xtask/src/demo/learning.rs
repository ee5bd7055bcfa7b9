//! `cargo xtask demo learning`: good answers become a model of one's own, tried, approved,
//! deployed and taken back, with a real training on a base that is made on the spot.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{daemon::Daemon, heading, provider::Provider, until};
use crate::{build, http, process};

/// Project whose answers are learnt from.
const PROJECT: &str = "shop";
/// Model that gives the good answers; it is in the shipped list of open weights.
const TEACHER: &str = "qwen3:4b";
/// Name that leads to the version that serves.
const ALIAS: &str = "lodestar";
/// Number of steps of the training.
const STEPS: &str = "240";
/// Number of sessions that the experiment may take, and number of them between two looks.
const SESSIONS: usize = 400;
const AT_ONCE: usize = 20;

/// Configuration of the daemon. The answers of the tiny base are short and alike, so that the
/// filters for length and similarity are opened.
const CONFIG: &str = "\
privacy:
  full_logging: true
  full_logging_projects: [shop]
modules:
  learning:
    enabled: true
    eval_share: 0.2
    quality: {min_words: 1, min_chars: 1, similarity: 1.0, per_prompt: 1000}
    serving: {kind: embedded, listen: SERVING}
    # Half an hour is usual: people say later whether an answer was good.
    experiments: {outcome_seconds: 1}
  router:
    enabled: true
    listen: 127.0.0.1:0
metrics:
  listen: 127.0.0.1:0
providers:
  team: {base_url: TEACHER/v1, api: openai, local: true, models: ['qwen3:4b']}
  own: {base_url: 'http://SERVING/v1', api: openai, local: true}
";

/// Builds the trainer too, and shows the whole loop.
///
/// # Errors
///
/// When a step fails, or the model is not better than before.
pub(super) fn run(keep: bool) -> Result<()> {
    heading("Building (release), with the trainer");
    let workspace = build::shipped()?;
    build::trainer(&workspace)?;
    let begin = Instant::now();
    heading("A tiny base, made on the spot: a Llama that knows one way to answer");
    let folder = tempfile::Builder::new().prefix("lodestar-base-").tempdir()?;
    let base = Base::make(&workspace.stage(), folder.path())?;

    heading("Starting lodestard, with a model that gives the answers that we want");
    let answers = base.wanted.iter().cloned().collect();
    let teacher = Provider::answering(TEACHER, answers)?;
    let config = CONFIG.replace("TEACHER", &teacher.url()).replace("SERVING", &free_address()?);
    let mut daemon = Daemon::start(&workspace.stage(), &config)?;
    let result = show(&daemon, &base);
    if result.is_ok() && keep {
        daemon.keep();
    } else {
        daemon.stop()?;
    }
    result?;
    println!("\nAll of it took {:.0} s after the build.", begin.elapsed().as_secs_f64());
    if keep {
        println!("The daemon is up. Ask it: {} learning versions", daemon.program());
        println!("Stop it: kill {}", daemon.pid());
    }
    println!("For your own: modules/learning/README.md");
    Ok(())
}

/// A base with questions, and the answers that are wanted.
struct Base {
    path: PathBuf,
    /// Questions and answers to learn from.
    wanted: Vec<(String, String)>,
    /// Questions about what no example shows, and their answers.
    held_out: Vec<(String, String)>,
}

impl Base {
    fn make(stage: &Path, folder: &Path) -> Result<Self> {
        let path = folder.join("tiny");
        let mut command = Command::new(stage.join("bin/lodestar-trainer"));
        let made = process::capture(command.arg("tiny-base").arg(&path))?;
        print!("$ lodestar-trainer tiny-base tiny\n{made}");
        let wanted = conversations(&path.join("train.jsonl"))?;
        let held_out = conversations(&path.join("held_out.jsonl"))?;
        println!("{} examples to learn from, {} held out", wanted.len(), held_out.len());
        Ok(Self { path, wanted, held_out })
    }
}

/// Returns the questions and answers of a file.
fn conversations(path: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(path)?;
    let pair = |line: &str| {
        let line: Value = serde_json::from_str(line)?;
        let content = |index: usize| line["messages"][index]["content"].as_str();
        let (question, answer) = content(0).zip(content(1)).context("a line has two messages")?;
        Ok((question.to_owned(), answer.to_owned()))
    };
    text.lines().map(pair).collect()
}

/// Returns an address of the loopback that was free a moment ago.
fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port of the loopback is free")?;
    Ok(listener.local_addr()?.to_string())
}

fn show(daemon: &Daemon, base: &Base) -> Result<()> {
    let router = Router { address: daemon.listener("router", "http")? };
    heading("Somebody agrees, and requests go through the router as always");
    daemon.shown(&["learning", "consent", "grant", PROJECT, "--by", "ada", "--days", "30"])?;
    until("the router knows the model", || {
        Ok(daemon.json(&["router", "targets"])?.to_string().contains(TEACHER))
    })?;
    for (number, (question, answer)) in base.wanted.iter().enumerate() {
        let asked = router.ask(TEACHER, &format!("s{number}"), question)?;
        ensure!(asked.text == *answer, "the teacher said `{}`", asked.text);
        // A person says of some that they were good.
        if number % 10 == 0 {
            router.feedback(&asked.id, true)?;
        }
    }
    println!("{} requests were answered by {TEACHER}.\n", base.wanted.len());

    heading("A dataset of what was good");
    let count = base.wanted.len() as u64;
    until("all text is kept", || {
        // Before there is any, a build fails.
        let built = daemon.json(&["learning", "datasets", "build", "--project", PROJECT]);
        Ok(built.is_ok_and(|built| built["examples"] == count))
    })?;
    daemon.shown(&["learning", "datasets", "build", "--project", PROJECT])?;
    let datasets = daemon.json(&["learning", "datasets"])?;
    let dataset = datasets[0]["id"].as_str().context("a dataset was built")?.to_owned();

    heading("Training");
    let path = base.path.display().to_string();
    let train = ["learning", "train", &dataset, "--base", &path, "--steps", STEPS];
    daemon.shown(&[&train[..], &["--rate", "0.005", "--rank", "16", "--watch"]].concat())?;
    let versions = daemon.json(&["learning", "versions"])?;
    let version = versions[0]["id"].as_str().context("a version was trained")?.to_owned();

    heading("Nothing is deployed by itself: first the gates, then a person");
    daemon.ends_with(&["learning", "deploy", &version], &[4])?;
    daemon.shown(&["learning", "gates", &version])?;
    experiment(daemon, &router, base, &version)?;
    let reason = ["--reason", "it answers as we do"];
    let approve = ["learning", "approve", &version, "--by", "ada"];
    daemon.shown(&[&approve[..], &reason[..]].concat())?;
    let before = router.exact(&base.held_out)?;
    daemon.shown(&["learning", "deploy", &version])?;
    let after = router.exact(&base.held_out)?;
    let asked = base.held_out.len();
    println!("Exact answers to questions that were held out: {before} of {asked}, now {after}.\n");
    ensure!(after > before, "the version is not better than the base");

    heading("And back");
    daemon.shown(&["learning", "rollback", "--reason", "only to show it"])?;
    let back = router.exact(&base.held_out)?;
    println!("Exact answers after the rollback: {back} of {asked}.\n");
    ensure!(back == before, "the rollback changed something");
    daemon.shown(&["learning", "audit"])
}

/// Lets sessions decide whether the version does as well as what serves.
fn experiment(daemon: &Daemon, router: &Router, base: &Base, version: &str) -> Result<()> {
    heading("An experiment: half of the sessions get the version");
    let start = ["learning", "experiments", "start", version, "--share", "50", "--by", "ada"];
    // An answer of a tiny base takes so little that its time tells of the machine.
    daemon.shown(&[&start[..], &["--reason", "try it", "--guardrail", "latency=100"]].concat())?;
    let mut good = BTreeMap::<String, (u32, u32)>::new();
    let mut asked = 0;
    for number in 0..SESSIONS {
        let (question, answer) = &base.wanted[number % base.wanted.len()];
        let said = router.ask(ALIAS, &format!("experiment-{number}"), question)?;
        router.feedback(&said.id, said.text == *answer)?;
        let (hits, all) = good.entry(said.model).or_default();
        *all += 1;
        *hits += u32::from(said.text == *answer);
        asked = number + 1;
        if asked.is_multiple_of(AT_ONCE) && is_found(daemon)? {
            break;
        }
    }
    println!("{asked} sessions:");
    for (model, (hits, all)) in &good {
        println!("  {model:<24} {hits} of {all} answers were good");
    }
    println!();
    daemon.shown(&["learning", "experiments", "status"])
}

/// Waits until all sessions have their outcome, and returns whether something was found.
fn is_found(daemon: &Daemon) -> Result<bool> {
    let mut verdict = Value::Null;
    until("all sessions have their outcome", || {
        let status = daemon.json(&["learning", "experiments", "status"])?;
        verdict = status["verdict"].clone();
        Ok(verdict != "running" || status["waiting"] == 0)
    })?;
    Ok(verdict != "running")
}

/// The router, as a client sees it.
struct Router {
    address: String,
}

/// An answer.
struct Asked {
    /// Id of the request.
    id: String,
    /// Model that answered.
    model: String,
    text: String,
}

impl Router {
    fn ask(&self, model: &str, session: &str, question: &str) -> Result<Asked> {
        let messages = json!([{"role": "user", "content": question}]);
        let body = json!({"model": model, "messages": messages, "temperature": 0,
            "max_tokens": 24});
        let headers = [
            ("Content-Type", "application/json"),
            ("x-lodestar-project", PROJECT),
            ("x-lodestar-session", session),
            // The same question again would be answered from the cache.
            ("x-lodestar-cache", "bypass"),
        ];
        let path = "/v1/chat/completions";
        let answer = http::post_with(&self.address, path, &headers, body.to_string().as_bytes())?;
        ensure!(answer.status == 200, "{model} answers {}: {}", answer.status, answer.body);
        let header = |name| answer.header(name).unwrap_or_default().to_owned();
        let (id, route) = (header("x-lodestar-request-id"), header("x-lodestar-route"));
        let said: Value = serde_json::from_str(&answer.body)?;
        let text = said["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        let model = said["model"].as_str().map_or(route, str::to_owned);
        Ok(Asked { id, model, text: text.to_owned() })
    }

    fn feedback(&self, id: &str, is_good: bool) -> Result<()> {
        let body = json!({"request_id": id, "good": is_good}).to_string();
        let answer =
            http::post(&self.address, "/v1/feedback", "application/json", body.as_bytes())?;
        ensure!(answer.status < 300, "feedback answers {}: {}", answer.status, answer.body);
        Ok(())
    }

    /// Returns how many questions are answered exactly as wanted.
    fn exact(&self, questions: &[(String, String)]) -> Result<usize> {
        let mut exact = 0;
        for (number, (question, answer)) in questions.iter().enumerate() {
            let said = self.ask(ALIAS, &format!("held-out-{number}"), question)?;
            exact += usize::from(said.text.trim() == answer);
        }
        Ok(exact)
    }
}

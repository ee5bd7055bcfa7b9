//! `lodestar learning gates`, `approve`, `override`, `deploy` and `rollback`.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use module_sdk::{Error, ErrorKind, Job, Output, Reply, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::versions::{data, gates as table_of};
use crate::{
    Learning,
    config::Serving,
    deploy::{Adapter, DeployError, Model, Server},
    example::Message,
    gate::{self, DataFacts, Limits, Pair},
    registry::{self, Action, Actor, Command, Gate, Request, Version},
    versions::{ADAPTER, Versions, refused},
};

/// Measures the gates of a version: what it was learnt from, and how its answers to held-out
/// questions compare with those of the base on the server that is configured.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatesArgs {
    /// Id of the version.
    #[schemars(extend("x-positional" = 1))]
    version: String,
    /// Name of a gate that did not pass and is overridden; needs --by and --reason.
    #[serde(default, rename = "override")]
    overrides: Option<String>,
    /// Name of the person who overrides.
    #[serde(default)]
    by: Option<String>,
    /// Their reason.
    #[serde(default)]
    reason: Option<String>,
}

/// Approves exactly the version that is there now. Nothing is deployed without it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApproveArgs {
    /// Id of the version.
    #[schemars(extend("x-positional" = 1))]
    version: String,
    /// Reason of the approval.
    reason: String,
    /// Name of the person who approves [default: operator].
    #[serde(default = "operator")]
    by: String,
}

/// Deploys a version that was approved: new requests get its answers.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeployArgs {
    /// Id of the version.
    #[schemars(extend("x-positional" = 1))]
    version: String,
    /// Name of the person who deploys [default: operator].
    #[serde(default = "operator")]
    by: String,
}

/// Takes the version that serves back: new requests get the answers of the one before, or of the
/// base.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackArgs {
    /// Reason of the rollback.
    reason: String,
    /// Name of the person who takes it back [default: operator].
    #[serde(default = "operator")]
    by: String,
}

fn operator() -> String {
    "operator".to_owned()
}

impl Learning {
    pub(crate) fn gates(&mut self, args: GatesArgs) -> Result<Job> {
        let measuring = Measuring {
            versions: self.versions.clone(),
            serving: self.config.serving.clone(),
            limits: self.config.gates.clone(),
            stopping: self.stopping.clone(),
        };
        Ok(Job::new(move |output| match (args.overrides, args.by, args.reason) {
            (None, None, None) => measuring.run(&args.version, output),
            (Some(gate), Some(by), Some(reason)) => {
                measuring.perform(&args.version, &by, &reason, Command::Override(gate))?;
                measuring.shown(&args.version)
            }
            _ => Err(Error::usage("--override, --by and --reason belong together")),
        }))
    }

    pub(crate) fn approve(&mut self, args: ApproveArgs) -> Result<Job> {
        let versions = self.versions.clone();
        Ok(Job::new(move |_| {
            let version = find(&versions, &args.version)?;
            let observed = versions.observe(&version)?.ok_or_else(gone)?;
            let command = Command::Approve { typed: args.version.clone(), observed };
            versions.perform(&by(&args.by, &args.version, &args.reason, command))?;
            let ledger = versions.ledger()?;
            let version = ledger.version(&args.version).map_err(|refusal| refused(&refusal))?;
            let mut table = table_of(&version.gates);
            table.title = format!("{} approves {}", args.by, version.id);
            let next = format!("`lodestar learning deploy {}` deploys it", version.id);
            table.notes.push(next);
            Ok(Reply::json(&data(&ledger, version))?.table(table))
        }))
    }

    pub(crate) fn deploy(&mut self, args: DeployArgs) -> Result<Job> {
        let (versions, serving) = (self.versions.clone(), self.config.serving.clone());
        Ok(Job::new(move |_| deploy(&versions, serving.as_ref(), &args)))
    }

    pub(crate) fn rollback(&mut self, args: RollbackArgs) -> Result<Job> {
        let (versions, serving) = (self.versions.clone(), self.config.serving.clone());
        Ok(Job::new(move |_| roll_back(&versions, serving.as_ref(), &args)))
    }
}

fn deploy(versions: &Versions, serving: Option<&Serving>, args: &DeployArgs) -> Result<Reply> {
    let version = find(versions, &args.version)?;
    let serving = serving.ok_or_else(no_server);
    if versions.ledger()?.champion.as_deref() == Some(&version.id) {
        // The log says so already: the server is led there once more, if it went astray.
        let serving = serving?;
        let _switching = versions.switching();
        lead(versions, serving)?;
        return deployed(versions, serving, &version.id, Value::Null);
    }
    let observed = versions.observe(&version)?.ok_or_else(gone)?;
    let request = by(&args.by, &args.version, "", Command::Deploy(observed));
    // What the registry says first: nothing reaches the server that it would refuse.
    let at = versions.host.now().as_millisecond();
    registry::decide(&versions.ledger()?, versions.registry.policy(), &request, at)
        .map_err(|refusal| refused(&refusal))?;
    let serving = serving?;
    let (server, adapter) = (serving.server(), adapter(versions, serving, &version));
    let smoke = block_on(async {
        server.install(&adapter).await?;
        server.smoke_test(&adapter).await
    })?;
    let _switching = versions.switching();
    versions.perform(&request)?;
    if let Err(error) = lead(versions, serving) {
        // It may have taken effect although no answer came: the server is led back as well.
        let reason = "the server did not switch to it";
        let command = Command::RollBack(observed_previous(versions)?);
        versions.perform(&by(&args.by, "", reason, command))?;
        if let Err(error) = lead(versions, serving) {
            tracing::error!(%error, "the server may answer with a version that was taken back");
        }
        return Err(error);
    }
    deployed(versions, serving, &version.id, json!(smoke))
}

fn deployed(versions: &Versions, serving: &Serving, id: &str, smoke: Value) -> Result<Reply> {
    let ledger = versions.ledger()?;
    let version = ledger.version(id).map_err(|refusal| refused(&refusal))?;
    let mut shown = data(&ledger, version);
    shown["served_as"] = json!(serving.alias);
    shown["smoke_test"] = smoke;
    let mut table = table_of(&version.gates);
    table.title = format!("{} serves as {}", version.id, serving.alias);
    table.notes.push("`lodestar learning rollback --reason TEXT` takes it back".to_owned());
    Ok(Reply::json(&shown)?.table(table))
}

/// Leads the alias to the version that the log says serves, or to the base where none does.
fn lead(versions: &Versions, serving: &Serving) -> Result<()> {
    let (server, ledger) = (serving.server(), versions.ledger()?);
    let champion = ledger.champion.as_deref().and_then(|id| ledger.versions.get(id));
    block_on(async {
        match champion {
            Some(version) => server.activate(&adapter(versions, serving, version)).await,
            None => server.deactivate(&serving.base, &serving.alias).await,
        }
    })
}

/// Returns what is seen of the version before; none where that cannot be read, which is no reason
/// to keep what is to be taken back.
fn observed_previous(versions: &Versions) -> Result<Option<registry::Observed>> {
    let ledger = versions.ledger()?;
    let previous = ledger.previous.as_deref().and_then(|id| ledger.versions.get(id));
    let observed = previous.map(|version| versions.observe(version)).transpose();
    Ok(observed
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "the version before cannot be read");
            None
        })
        .flatten())
}

fn roll_back(versions: &Versions, serving: Option<&Serving>, args: &RollbackArgs) -> Result<Reply> {
    let serving = serving.ok_or_else(no_server)?;
    let _switching = versions.switching();
    let before = versions.ledger()?.champion;
    let request = by(&args.by, "", &args.reason, Command::RollBack(observed_previous(versions)?));
    let done = versions.perform(&request);
    let led = lead(versions, serving);
    let done = done?;
    led.map_err(|error| {
        error
            .context("the version is taken back, but the server may still answer with it")
            .hint("`lodestar learning rollback` leads it away once more")
    })?;
    let restored = done.ledger.champion;
    let data = json!({
        "rolled_back": before, "restored": restored,
        "not_restored": done.not_restored.as_ref().map(ToString::to_string),
    });
    let mut table = module_sdk::Table::default();
    table.notes.push(match &restored {
        Some(id) => format!("{id} serves again"),
        None => "the base answers alone".to_owned(),
    });
    let why = done.not_restored.map(|refusal| format!("no version was restored: {refusal}"));
    table.notes.extend(why);
    Ok(Reply::json(&data)?.table(table))
}

/// The measuring of gates.
struct Measuring {
    versions: Versions,
    serving: Option<Serving>,
    limits: Limits,
    stopping: Arc<AtomicBool>,
}

impl Measuring {
    fn run(&self, id: &str, output: &mut Output) -> Result<Reply> {
        self.perform_by_lodestar(id, Command::Act(Action::Evaluate))?;
        let judged = find(&self.versions, id).and_then(|version| {
            let gates = self.measure(&version, output)?;
            let bench = self.versions.bench_digest(&version.lineage.dataset)?;
            self.perform_by_lodestar(id, Command::Judge(bench, gates))
        });
        if let Err(error) = judged {
            // Where that fails as well the next start of the module gives it up.
            if let Err(error) = self.perform_by_lodestar(id, Command::Act(Action::Abandon)) {
                tracing::warn!(version = id, %error, "a measuring cannot be given up");
            }
            return Err(error);
        }
        self.shown(id)
    }

    fn shown(&self, id: &str) -> Result<Reply> {
        let ledger = self.versions.ledger()?;
        let version = ledger.version(id).map_err(|refusal| refused(&refusal))?;
        let passed = version.open_gates().is_some_and(|open| open.is_empty());
        let mut table = table_of(&version.gates);
        table.title = format!("Gates of {}", version.id);
        table.notes.push(if passed {
            format!("`lodestar learning approve {id} --reason TEXT` approves it")
        } else {
            "it cannot be approved before they pass, or a person overrides them".to_owned()
        });
        Ok(Reply::json(&data(&ledger, version))?.table(table).exit_code(u8::from(!passed)))
    }

    fn measure(&self, version: &Version, output: &mut Output) -> Result<Vec<Gate>> {
        let dataset = &version.lineage.dataset;
        let now = self.versions.host.now().as_millisecond();
        let (forgotten, without_consent) = self.versions.store.withdrawn(dataset, now)?;
        let facts = DataFacts {
            examples: version.lineage.examples,
            forgotten,
            without_consent,
            problems: self.versions.problems(dataset)?,
        };
        let mut gates = gate::of_data(&facts, &self.limits);
        let seed = u64::from_le_bytes(
            version.lineage.dataset.as_bytes().first_chunk::<8>().copied().unwrap_or_default(),
        );
        match &self.serving {
            Some(serving) => {
                let pairs = self.ask(serving, version, output)?;
                gates.extend(gate::of_answers(&pairs, &self.limits, seed));
            }
            None => {
                let reason = "no server is configured (`serving`)";
                gates.push(gate::not_measured("task", -self.limits.worse_by, reason));
                gates.push(gate::not_measured("latency", self.limits.slower, reason));
            }
        }
        Ok(gates)
    }

    /// Asks the base and the version the same held-out questions.
    fn ask(&self, serving: &Serving, version: &Version, output: &mut Output) -> Result<Vec<Pair>> {
        let (server, adapter) = (serving.server(), adapter(&self.versions, serving, version));
        block_on(server.install(&adapter))?;
        let lines = self.versions.held_out(&version.lineage.dataset)?;
        let questions: Vec<(Value, String)> = lines
            .iter()
            .filter_map(|line| question(line))
            .take(self.limits.questions as usize)
            .collect();
        let total = questions.len() as u64;
        let mut pairs = Vec::with_capacity(questions.len());
        for (done, (messages, reference)) in questions.into_iter().enumerate() {
            output.progress(done as u64, Some(total), "questions")?;
            if self.stopping.load(Ordering::Relaxed) {
                return Err(Error::of(ErrorKind::Cancelled, "learning is stopping; measure again"));
            }
            let most = serving.max_answer_tokens;
            let (base, tuned) = block_on(async {
                let base = server.answer(Model::Base(&serving.base), &messages, most).await?;
                let tuned = server.answer(Model::Version(&adapter), &messages, most).await?;
                Ok::<_, DeployError>((base, tuned))
            })?;
            pairs.push(Pair {
                reference,
                base: (base.text, base.elapsed),
                version: (tuned.text, tuned.elapsed),
            });
        }
        Ok(pairs)
    }

    fn perform(&self, id: &str, person: &str, reason: &str, command: Command) -> Result<()> {
        self.versions.perform(&by(person, id, reason, command)).map(drop)
    }

    fn perform_by_lodestar(&self, id: &str, command: Command) -> Result<()> {
        let (version, reason) = (id.to_owned(), String::new());
        let request = Request { version, actor: Actor::Lodestar, reason, command };
        self.versions.perform(&request).map(drop)
    }
}

/// Returns the question of a held-out example, and the answer that was kept.
fn question(line: &str) -> Option<(Value, String)> {
    #[derive(Deserialize)]
    struct Line {
        messages: Vec<Message>,
    }
    let Line { mut messages } = serde_json::from_str(line).ok()?;
    let answer = messages.pop()?;
    // A call of a tool has no text to compare.
    (!answer.content.trim().is_empty() && answer.tool_calls.is_none() && !messages.is_empty())
        .then(|| (json!(messages), answer.content))
}

fn adapter(versions: &Versions, serving: &Serving, version: &Version) -> Adapter {
    Adapter {
        file: versions.folder(&version.id).join(ADAPTER),
        sha256: version.artifact.as_ref().map(ToString::to_string).unwrap_or_default(),
        base: serving.base.clone(),
        alias: serving.alias.clone(),
        version: version.id.clone(),
    }
}

fn find(versions: &Versions, id: &str) -> Result<Version> {
    versions.ledger()?.version(id).cloned().map_err(|refusal| refused(&refusal))
}

fn by(person: &str, version: &str, reason: &str, command: Command) -> Request {
    Request {
        version: version.to_owned(),
        actor: Actor::Person(person.to_owned()),
        reason: reason.to_owned(),
        command,
    }
}

fn gone() -> Error {
    Error::of(ErrorKind::Refused, "the adapter or the base of the version is not there any more")
}

fn no_server() -> Error {
    Error::of(ErrorKind::Refused, "no server is configured that could serve it")
        .hint("set `serving` in the section of learning")
}

/// Runs requests to a server on the thread of a job.
fn block_on<T>(work: impl Future<Output = Result<T, DeployError>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work).map_err(|error| {
        let kind = match error {
            DeployError::Unreachable(_) => ErrorKind::Unavailable,
            DeployError::Changed { .. } | DeployError::TooLarge { .. } => ErrorKind::Refused,
            _ => ErrorKind::Failed,
        };
        Error::of(kind, error.to_string())
    })
}

impl Serving {
    fn server(&self) -> Server {
        Server::new(self.kind, &self.base_url)
    }
}

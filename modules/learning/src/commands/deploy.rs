//! `lodestar learning approve`, `deploy` and `rollback`.

use std::future::Future;

use module_sdk::{Error, ErrorKind, Job, Reply, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::versions::{data, gates as table_of};
use crate::{
    Learning,
    config::Serving,
    deploy::{Adapter, DeployError, Server},
    registry::{self, Actor, Command, Request, Version},
    versions::{ADAPTER, Versions, refused},
};

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

pub(super) fn adapter(versions: &Versions, serving: &Serving, version: &Version) -> Adapter {
    Adapter {
        file: versions.folder(&version.id).join(ADAPTER),
        sha256: version.artifact.as_ref().map(ToString::to_string).unwrap_or_default(),
        base: serving.base.clone(),
        alias: serving.alias.clone(),
        version: version.id.clone(),
    }
}

pub(super) fn find(versions: &Versions, id: &str) -> Result<Version> {
    versions.ledger()?.version(id).cloned().map_err(|refusal| refused(&refusal))
}

pub(super) fn by(person: &str, version: &str, reason: &str, command: Command) -> Request {
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
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, DeployError>>) -> Result<T> {
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
    /// Returns the server.
    pub(super) fn server(&self) -> Server {
        Server::new(self.kind, &self.base_url)
    }
}

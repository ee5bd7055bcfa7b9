//! `lodestar learning approve`, `deploy` and `rollback`.

use module_sdk::{Error, ErrorKind, Job, Reply, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::versions::{data, gates as table_of};
pub(super) use crate::serving::{adapter, block_on};
use crate::{
    Learning,
    registry::{self, Action, Actor, Command, Observed, Request, Version},
    serving::Servers,
    versions::{Versions, refused},
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

/// Advice by which running modules come to know a provider that was written a moment ago.
pub(super) const RELOAD: &str = "then `lodestar modules reload router` and \
     `lodestar modules reload learning`: a module that runs keeps the providers of its start";

pub(super) fn operator() -> String {
    "operator".to_owned()
}

impl Learning {
    pub(crate) fn approve(&mut self, args: ApproveArgs) -> Result<Job> {
        let versions = self.versions.clone();
        Ok(Job::new(move |_| {
            let version = find(&versions, &args.version)?;
            let observed = observed(&versions, &version, Action::Approve)?;
            let command = Command::Approve { typed: args.version.clone(), observed };
            versions.perform(&by(&args.by, &args.version, &args.reason, command))?;
            let ledger = versions.ledger()?;
            let version = ledger.version(&args.version).map_err(|refusal| refused(&refusal))?;
            let mut table = table_of(&version.gates);
            table.title = format!("{} approves {}", args.by, version.id);
            table.notes.push(versions.next(&ledger, version));
            Ok(Reply::json(&data(&ledger, version))?.table(table))
        }))
    }

    pub(crate) fn deploy(&mut self, args: DeployArgs) -> Result<Job> {
        let (versions, servers) = (self.versions.clone(), self.servers.clone());
        Ok(Job::new(move |_| deploy(&versions, &servers, &args)))
    }

    pub(crate) fn rollback(&mut self, args: RollbackArgs) -> Result<Job> {
        let (versions, servers) = (self.versions.clone(), self.servers.clone());
        Ok(Job::new(move |_| roll_back(&versions, &servers, &args)))
    }
}

fn deploy(versions: &Versions, servers: &Servers, args: &DeployArgs) -> Result<Reply> {
    let version = find(versions, &args.version)?;
    super::policy::refuse(&version)?;
    if versions.ledger()?.champion.as_deref() == Some(&version.id) {
        if version.tainted {
            return Err(versions.refused(&version.id, &registry::Refusal::Tainted));
        }
        // The log says so already: the server is led there once more, if it went astray.
        let _switching = versions.switching();
        servers.lead()?;
        return deployed(versions, servers, &version.id, Value::Null);
    }
    let observed = observed(versions, &version, Action::Deploy)?;
    let request = by(&args.by, &args.version, "", Command::Deploy(observed));
    // What the registry says first: nothing reaches the server that it would refuse.
    let at = versions.host.now().as_millisecond();
    registry::decide(&versions.ledger()?, versions.registry.policy(), &request, at)
        .map_err(|refusal| versions.refused(&version.id, &refusal))?;
    let place = servers.place(&version)?;
    let (server, adapter) = (place.server(), adapter(versions, &place, &version));
    let smoke = block_on(async {
        server.install(&adapter).await?;
        server.smoke_test(&adapter).await
    })?;
    let _switching = versions.switching();
    versions.perform(&request)?;
    if let Err(error) = servers.lead() {
        // It may have taken effect although no answer came: the server is led back as well.
        let reason = "the server did not switch to it";
        let command = Command::RollBack(observed_previous(versions)?);
        versions.perform(&by(&args.by, "", reason, command))?;
        if let Err(error) = servers.lead() {
            tracing::error!(%error, "the server may answer with a version that was taken back");
        }
        return Err(error);
    }
    deployed(versions, servers, &version.id, json!(smoke))
}

fn deployed(versions: &Versions, servers: &Servers, id: &str, smoke: Value) -> Result<Reply> {
    let ledger = versions.ledger()?;
    let version = ledger.version(id).map_err(|refusal| refused(&refusal))?;
    let mut shown = data(&ledger, version);
    let (endpoint, provider) = servers.endpoint();
    shown["served_as"] = json!(servers.alias());
    shown["endpoint"] = json!(endpoint);
    shown["provider"] = json!(provider);
    shown["smoke_test"] = smoke;
    let mut table = table_of(&version.gates);
    table.title = format!("{} serves as {}", version.id, servers.alias());
    match provider {
        Some(provider) => table.notes.push(format!("the provider {provider} leads to it")),
        None => {
            let remedy = servers.remedy(&endpoint);
            let reload = remedy.is_some().then(|| RELOAD.to_owned());
            table.notes.extend(remedy.into_iter().chain(reload));
        }
    }
    table.notes.push("`lodestar learning rollback --reason TEXT` takes it back".to_owned());
    table.notes.extend(servers.kind().risk().map(str::to_owned));
    Ok(Reply::json(&shown)?.table(table))
}

/// Returns what is seen of the version before; none where that cannot be read, which is no reason
/// to keep what is to be taken back.
fn observed_previous(versions: &Versions) -> Result<Option<Observed>> {
    let ledger = versions.ledger()?;
    let previous = ledger.previous.as_deref().and_then(|id| ledger.versions.get(id));
    let observed = previous.map(|version| {
        let mut observed = versions.observe(version)?;
        // What it was judged by may be another by now; it is still what was approved and served.
        if let (Some(observed), Some(bench)) = (&mut observed, &version.bench) {
            observed.bench.clone_from(bench);
        }
        Ok(observed)
    });
    let observed: Result<Option<Option<Observed>>> = observed.transpose();
    Ok(observed
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "the version before cannot be read");
            None
        })
        .flatten())
}

fn roll_back(versions: &Versions, servers: &Servers, args: &RollbackArgs) -> Result<Reply> {
    let _switching = versions.switching();
    let before = versions.ledger()?.champion;
    let request = by(&args.by, "", &args.reason, Command::RollBack(observed_previous(versions)?));
    let done = versions.perform(&request);
    let led = servers.lead();
    let done = done?;
    led.map_err(|error| {
        error
            .context("the version is taken back, but the server may still answer with it")
            .hint("`lodestar learning rollback` leads it away once more")
    })?;
    let ledger = done.ledger;
    let restored = ledger.champion.clone();
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
    if let Some(version) = before.and_then(|id| ledger.versions.get(&id)) {
        let next = versions.next(&ledger, version);
        table.notes.push(format!("to let {} serve again: {next}", version.id));
    }
    Ok(Reply::json(&data)?.table(table))
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

/// Returns what is there now of a version that is to be approved or deployed.
///
/// # Errors
///
/// When it was not trained yet, with what comes first; or its adapter or its base is gone.
pub(super) fn observed(versions: &Versions, version: &Version, action: Action) -> Result<Observed> {
    if version.tainted {
        return Err(versions.refused(&version.id, &registry::Refusal::Tainted));
    }
    if version.artifact.is_none() {
        let refusal = registry::Refusal::Order { action, state: version.state };
        return Err(versions.refused(&version.id, &refusal));
    }
    versions.observe(version)?.ok_or_else(|| gone(version))
}

pub(super) fn gone(version: &Version) -> Error {
    let id = &version.id;
    let message = format!("the adapter or the base of {id} is not there any more");
    Error::of(ErrorKind::Refused, message).hint(format!(
        "put it back where it was, or train another version; \
         `lodestar learning versions show {id}` names the base"
    ))
}

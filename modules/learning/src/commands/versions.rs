//! `lodestar learning versions` and `audit`.

use module_sdk::{Error, Reply, Result, Table, human::count};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{datasets::short, minute, time};
use crate::{
    Learning,
    registry::{Gate, Ledger, Version},
    versions::refused,
};

/// Shows the versions that were trained: `versions list`, `versions show VERSION`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionsArgs {
    /// Command: `list` or `show` [default: list].
    #[serde(default)]
    #[schemars(extend("x-positional" = 1))]
    action: Action,
    /// Id of a version.
    #[serde(default)]
    #[schemars(extend("x-positional" = 2))]
    id: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Show all.
    #[default]
    List,
    /// Show all that is known of one.
    Show,
}

/// Checks the log of all that was done to versions: each entry is bound to the one before, and the
/// tables fit it. `--limit` shows its last entries.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditArgs {
    /// Number of entries that are shown [default: 20].
    #[serde(default)]
    #[schemars(range(min = 1, max = 10_000))]
    limit: Option<u32>,
}

/// Entries that are shown where nothing else is said.
const SHOWN: u32 = 20;

impl Learning {
    pub(crate) fn list_versions(&mut self, args: VersionsArgs) -> Result<Reply> {
        let ledger = self.versions.ledger()?;
        match (args.action, args.id) {
            (Action::List, None) => list(&ledger),
            (Action::Show, None) => Err(Error::usage("name the version by its id")
                .hint("`lodestar learning versions` lists them")),
            (_, Some(id)) => {
                let version = ledger.version(&id).map_err(|refusal| refused(&refusal))?;
                show(&ledger, version)
            }
        }
    }

    pub(crate) fn audit(&mut self, args: AuditArgs) -> Result<Reply> {
        let (registry, limit) = (self.versions.registry.clone(), args.limit.unwrap_or(SHOWN));
        let (reading, entries) = self.store.read(|connection| {
            let entries = crate::registry::audit::last(connection, limit)?;
            Ok((registry.audit(connection)?, entries))
        })?;
        let mut table = Table::new(["ENTRY#", "WHEN", "WHO", "WHAT", "VERSION", "STATE", "REASON"]);
        for entry in &entries {
            table.row([
                entry.seq.to_string(),
                minute(entry.at),
                entry.actor.clone(),
                entry.action.clone(),
                entry.version.clone(),
                entry.to.clone().unwrap_or_default(),
                entry.reason.clone(),
            ]);
        }
        let intact = reading.finding.is_none();
        let finding = reading.finding.as_ref().map(ToString::to_string);
        table.notes.push(match &finding {
            None => format!(
                "{} entries, each as it was written; the hash of the last is {}",
                reading.head.entries, reading.head.hash
            ),
            Some(finding) => format!("the log is not as it was written: {finding}"),
        });
        let data = json!({
            "entries": reading.head.entries, "intact": intact, "finding": finding,
            "head": reading.head.hash, "last": entries,
        });
        Ok(Reply::json(&data)?.table(table).exit_code(u8::from(!intact)))
    }
}

fn list(ledger: &Ledger) -> Result<Reply> {
    let mut table = Table::new(["ID", "STATE", "ALIAS", "DATASET", "EXAMPLES#", "TRAINED"]);
    for version in ledger.versions.values() {
        table.row([
            version.id.clone(),
            state(version),
            alias(ledger, &version.id).unwrap_or("-").to_owned(),
            short(&version.lineage.dataset).to_owned(),
            count(version.lineage.examples),
            minute(version.created_at),
        ]);
    }
    if ledger.versions.is_empty() {
        let note =
            "There are no versions. `lodestar learning train DATASET --base PATH` makes one.";
        table.notes.push(note.to_owned());
    }
    let all: Vec<Value> = ledger.versions.values().map(|version| data(ledger, version)).collect();
    Ok(Reply::json(&all)?.table(table))
}

fn show(ledger: &Ledger, version: &Version) -> Result<Reply> {
    let mut table = gates(&version.gates);
    table.title = format!("Version {}: {}", version.id, state(version));
    let lineage = &version.lineage;
    table.notes.push(format!(
        "from {} examples of dataset {}, on {}",
        count(lineage.examples),
        short(&lineage.dataset),
        lineage.base
    ));
    for approval in &version.approvals {
        let is_valid = version.expected().is_some_and(|it| it == approval.observed)
            && approval.evaluation == version.evaluation;
        let word = if is_valid { "approved" } else { "was approved, before it changed," };
        table.notes.push(format!("{word} by {}: {}", approval.by, approval.reason));
    }
    Ok(Reply::json(&data(ledger, version))?.table(table))
}

/// Returns gates as a table, each value beside its limit.
pub(super) fn gates(gates: &[Gate]) -> Table {
    let mut table = Table::new(["GATE", "PASSED", "VALUE#", "LIMIT#", "OVERRIDDEN BY"]);
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.3}"));
    for gate in gates {
        table.row([
            gate.name.clone(),
            if gate.passed { "yes" } else { "no" }.to_owned(),
            number(gate.value),
            number(gate.limit),
            gate.overridden
                .as_ref()
                .map(|it| format!("{}: {}", it.by, it.reason))
                .unwrap_or_default(),
        ]);
        if let Some(reason) = gate.evidence["not_measured"].as_str() {
            table.notes.push(format!("{} was not measured: {reason}", gate.name));
        }
    }
    table
}

fn state(version: &Version) -> String {
    let tainted = if version.tainted { ", tainted" } else { "" };
    format!("{}{tainted}", version.state)
}

fn alias(ledger: &Ledger, id: &str) -> Option<&'static str> {
    let is = |alias: &Option<String>| alias.as_deref() == Some(id);
    [
        ("champion", is(&ledger.champion)),
        ("challenger", is(&ledger.challenger)),
        ("previous", is(&ledger.previous)),
    ]
    .into_iter()
    .find_map(|(name, is_it)| is_it.then_some(name))
}

/// Returns all that is known of a version.
pub(super) fn data(ledger: &Ledger, version: &Version) -> Value {
    json!({
        "id": version.id, "state": version.state, "created_at": time(version.created_at),
        "alias": alias(ledger, &version.id), "tainted": version.tainted,
        "base": version.lineage.base, "dataset": version.lineage.dataset,
        "run": version.lineage.run, "artifact": version.artifact, "gates": version.gates,
        "approval": version.approvals.last(), "approvals": version.approvals,
        "lineage": version.lineage,
    })
}

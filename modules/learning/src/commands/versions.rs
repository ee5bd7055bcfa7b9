//! `lodestar learning versions` and `audit`.

use module_sdk::{Error, Job, Reply, Result, Table, human::count};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{counted, datasets::short, minute, time};
use crate::{
    Learning, card,
    registry::{Gate, Ledger, Version, audit::Entry},
    versions::{Versions, refused},
};

/// Shows the versions that were trained: `versions list`, `versions show VERSION`,
/// `versions card VERSION`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionsArgs {
    /// Command: `list`, `show` or `card` [default: list].
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
    /// Show the card of one: all that is known of it, as others may read it.
    Card,
}

/// Checks the log of all that was done to versions: each entry is bound to the one before, and the
/// tables fit it. `--limit` shows its last entries. `--repair --by NAME --reason TEXT` goes on
/// after something was done by hand: tables are made again from the log, and behind entries that
/// were changed a new segment begins, which says so.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditArgs {
    /// Number of entries that are shown [default: 20].
    #[serde(default)]
    #[schemars(range(min = 1, max = 10_000))]
    limit: Option<u32>,
    /// Go on after something was done by hand.
    #[serde(default)]
    repair: bool,
    /// Name of the person who lets it go on.
    #[serde(default)]
    by: Option<String>,
    /// Description of what was done by hand, and why.
    #[serde(default)]
    reason: Option<String>,
}

/// Entries that are shown where nothing else is said.
const SHOWN: u32 = 20;

impl Learning {
    pub(crate) fn list_versions(&mut self, args: VersionsArgs) -> Result<Reply> {
        let ledger = self.versions.ledger()?;
        match (args.action, args.id) {
            (Action::List, None) => list(&ledger),
            (Action::Show | Action::Card, None) => Err(Error::usage("name the version by its id")
                .hint("`lodestar learning versions` lists them")),
            (Action::Card, Some(id)) => {
                let version = ledger.version(&id).map_err(|refusal| refused(&refusal))?;
                let card = card::card(&self.versions, &ledger, version)?;
                let notes = card.lines().map(str::to_owned).collect();
                let data = json!({"id": version.id, "card": card});
                Ok(Reply::json(&data)?.table(Table { notes, ..Table::default() }))
            }
            (_, Some(id)) => {
                let version = ledger.version(&id).map_err(|refusal| refused(&refusal))?;
                self.show(&ledger, version)
            }
        }
    }

    pub(crate) fn audit(&mut self, args: AuditArgs) -> Result<Job> {
        let (versions, servers) = (self.versions.clone(), self.servers.clone());
        match (args.repair, args.by, args.reason) {
            (false, None, None) => Ok(Job::new(move |_| audited(&versions, args.limit))),
            (true, Some(by), Some(reason)) => Ok(Job::new(move |_| {
                let _switching = versions.switching();
                versions.repair(&by, &reason)?;
                // The server may have what the log does not say any more.
                servers.lead().map_err(|error| {
                    error
                        .context("the log is repaired, but the server may answer with another one")
                        .hint("`lodestar learning audit --repair` leads it there once more")
                })?;
                audited(&versions, args.limit)
            })),
            _ => {
                let error = Error::usage("--repair, --by and --reason belong together");
                Err(error.hint("say who lets it go on, and what was done by hand"))
            }
        }
    }
    /// Shows a version with its origin, down to the examples and the consent of each.
    fn show(&self, ledger: &Ledger, version: &Version) -> Result<Reply> {
        let mut table = gates(&version.gates);
        table.title = format!("Version {}: {}", version.id, state(version));
        let lineage = &version.lineage;
        table.notes.push(format!(
            "from {} examples of dataset {}, on {} ({})",
            count(lineage.examples),
            short(&lineage.dataset),
            lineage.base,
            short(lineage.base_digest.as_str())
        ));
        let now = self.now();
        let mut consents = self.store.consents()?;
        consents.retain(|it| lineage.consents.contains(&it.id));
        for consent in &consents {
            table.notes.push(format!(
                "by the consent of {} for {}, which is {}",
                consent.by,
                consent.project,
                consent.state(now)
            ));
        }
        for approval in &version.approvals {
            let is_valid = version.expected().is_some_and(|it| it == approval.observed)
                && approval.evaluation == version.evaluation;
            let word = if is_valid { "approved" } else { "was approved, before it changed," };
            table.notes.push(format!("{word} by {}: {}", approval.by, approval.reason));
        }
        table.notes.push(format!("next: {}", self.versions.next(ledger, version)));
        let mut shown = data(ledger, version);
        let consents = consents.iter().map(|it| {
            json!({
                "id": it.id, "by": it.by, "project": it.project, "scope": it.scope.as_str(),
                "granted_at": time(it.granted_at), "expires_at": time(it.expires_at),
                "state": it.state(now),
            })
        });
        shown["lineage"]["given_by"] = consents.collect();
        shown["lineage"]["trained_on"] = json!(self.store.trained_on(&lineage.dataset)?);
        Ok(Reply::json(&shown)?.table(table))
    }
}

/// Returns the last entries of the log, and whether it is as it was written.
fn audited(versions: &Versions, limit: Option<u32>) -> Result<Reply> {
    let (registry, limit) = (&versions.registry, limit.unwrap_or(SHOWN));
    let (reading, entries) = versions.store.read(|connection| {
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
    let holds = reading.finding.is_none();
    let intact = holds && reading.segments.is_empty();
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
        "head": reading.head.hash, "last": entries.iter().map(told).collect::<Vec<_>>(),
        "segments": with_times(json!(reading.segments)),
    });
    table.notes.extend(reading.segments.iter().map(|it| {
        format!(
            "the {} before entry {} are not as they were written ({}) and do not count; {} \
             went on: {}",
            counted(it.broken.rows, "row"),
            it.entry,
            it.found,
            it.actor,
            it.reason
        )
    }));
    if !holds {
        let hint = "`lodestar learning audit --repair --by NAME --reason TEXT` goes on, once \
                    somebody knows what was done by hand";
        table.notes.push(hint.to_owned());
    }
    Ok(Reply::json(&data)?.table(table).exit_code(u8::from(!holds)))
}

/// Returns an entry of the log as programs read it.
fn told(entry: &Entry) -> Value {
    with_times(json!(entry))
}

/// Returns a value in which each time is written as everywhere else, as in RFC 3339: those that are
/// kept for the log are in milliseconds since the Unix epoch.
fn with_times(mut value: Value) -> Value {
    match &mut value {
        Value::Array(all) => {
            all.iter_mut().for_each(|it| *it = with_times(it.take()));
        }
        Value::Object(fields) => {
            for (key, it) in fields.iter_mut() {
                *it = match it.as_i64() {
                    Some(ms) if key == "at" => json!(time(ms)),
                    _ => with_times(it.take()),
                };
            }
        }
        _ => {}
    }
    value
}

fn list(ledger: &Ledger) -> Result<Reply> {
    let mut table = Table::new(["ID", "STATE", "ALIAS", "DATASET", "EXAMPLES#", "TRAINED"]);
    for version in ledger.in_order() {
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
    let all: Vec<Value> = ledger.in_order().into_iter().map(|it| data(ledger, it)).collect();
    Ok(Reply::json(&all)?.table(table))
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
        table.notes.extend(evidence(gate));
    }
    table
}

/// Returns in a line by what facts a gate came to its value, or why it has none.
fn evidence(gate: &Gate) -> Option<String> {
    let name = &gate.name;
    if let Some(reason) = gate.evidence["not_measured"].as_str() {
        return Some(format!("{name} was not measured: {reason}"));
    }
    if let Some(reason) = gate.evidence["not_applicable"].as_str() {
        return Some(format!("{name} does not apply: {reason}"));
    }
    let shown = |value: &Value| match value {
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map(|number| format!("{number:.3}"))
        }
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is_so) => Some(if *is_so { "yes" } else { "no" }.to_owned()),
        _ => None,
    };
    let facts: Vec<String> = gate
        .evidence
        .as_object()?
        .iter()
        .filter_map(|(key, value)| Some(format!("{} {}", key.replace('_', " "), shown(value)?)))
        .collect();
    (!facts.is_empty()).then(|| format!("{name}: {}", facts.join(", ")))
}

fn state(version: &Version) -> String {
    let tainted = if version.tainted { ", tainted" } else { "" };
    format!("{}{tainted}", version.state)
}

fn alias(ledger: &Ledger, id: &str) -> Option<&'static str> {
    ledger.alias_of(id)
}

/// Returns all that is known of a version.
pub(super) fn data(ledger: &Ledger, version: &Version) -> Value {
    json!({
        "id": version.id, "state": version.state, "created_at": time(version.created_at),
        "alias": alias(ledger, &version.id), "tainted": version.tainted,
        "kind": if version.lineage.is_policy() { "router_policy" } else { "adapter" },
        "base": version.lineage.base, "dataset": version.lineage.dataset,
        "run": version.lineage.run, "artifact": version.artifact,
        "gates": with_times(json!(version.gates)),
        "approval": with_times(json!(version.approvals.last())),
        "approvals": with_times(json!(version.approvals)),
        "lineage": version.lineage,
    })
}

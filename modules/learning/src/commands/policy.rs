//! `lodestar learning policy`: the policy that the router asks for, and what is seen of one.

use module_sdk::{Error, ErrorKind, Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Learning,
    registry::{Digest, Observed, Version},
    versions::{Versions, refused},
};

/// File of a policy in the folder of its version, which an approval is about.
pub(super) const FILE: &str = "policy.json";
/// File with its calibration.
pub(super) const CALIBRATION: &str = "calibration.json";

/// Tells the policy by which the router is to decide: the one that a person approved and activated.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyArgs {}

impl Learning {
    /// Tells the approved policy with its file. While the log has a fault, or the file is another
    /// one, nothing is told, and the router stays with what it has.
    pub(crate) fn approved_policy(&mut self, _: PolicyArgs) -> Result<Reply> {
        let registry = self.versions.registry.clone();
        let reading = self.store.read(|connection| registry.audit(connection))?;
        if let Some(finding) = reading.finding {
            return Err(refused(&crate::registry::Refusal::Damaged(finding)));
        }
        let mut table = Table::default();
        let Some(id) = &reading.ledger.policy else {
            table.notes.push("no policy of the router is active".to_owned());
            let nothing = json!({"version": null, "digest": null, "file": null});
            return Ok(Reply::json(&nothing)?.table(table));
        };
        let version = reading.ledger.version(id).map_err(|refusal| refused(&refusal))?;
        let path = self.versions.folder(id).join(FILE);
        let file = std::fs::read_to_string(&path).map_err(|error| {
            Error::of(ErrorKind::Refused, format!("cannot read {}: {error}", path.display()))
        })?;
        if version.artifact.as_ref() != Some(&Digest::of(file.as_bytes())) {
            let words = format!("the file of policy {id} is not the one that was approved");
            return Err(Error::of(ErrorKind::Refused, words)
                .hint("`lodestar learning labels rollback --reason TEXT` takes it back"));
        }
        table.notes.push(format!("the router decides by {id}"));
        let data = json!({"version": id, "digest": version.artifact, "file": file});
        Ok(Reply::json(&data)?.table(table))
    }
}

/// Refuses what is for models alone.
pub(super) fn refuse(version: &Version) -> Result<()> {
    if !version.lineage.is_policy() {
        return Ok(());
    }
    let words = format!("{} is a policy of the router, and no model", version.id);
    Err(Error::of(ErrorKind::Refused, words).hint("`lodestar learning labels` leads it"))
}

/// Returns the digests of what is there now of a policy; none where its file is gone.
///
/// # Errors
///
/// When something cannot be read.
pub(crate) fn observe(versions: &Versions, version: &Version) -> Result<Option<Observed>> {
    let path = versions.folder(&version.id).join(FILE);
    let Some(artifact) = versions.digest(&path)? else { return Ok(None) };
    let file: Value = serde_json::from_slice(&std::fs::read(&path)?).unwrap_or_default();
    let sets = versions.labels();
    let lineage = &version.lineage;
    let set = sets.list()?.into_iter().find(|set| set.id == lineage.dataset);
    // Labels that are gone by their age alone: nothing can be compared with them any more.
    let is_aged = set.is_some_and(|set| set.erased_at.is_some() && set.stale.is_none());
    let (dataset, bench) = if is_aged {
        let bench = version.bench.clone().unwrap_or_else(|| Digest::of(b""));
        (lineage.dataset_digest.clone(), bench)
    } else {
        let found = sets.digest(&lineage.dataset)?.unwrap_or_else(|| Digest::of(b""));
        let bench = sets.rows(&lineage.dataset).map(|rows| bench_of(&rows));
        (found, bench.unwrap_or_else(|_| Digest::of(b"")))
    };
    Ok(Some(Observed { artifact, base: base_of(&file["features"]), dataset, bench }))
}

/// Returns the digest of what a policy builds on: the features of the router.
pub(super) fn base_of(features: &Value) -> Digest {
    Digest::of(format!("features of the router, version {features}").as_bytes())
}

/// Returns the digest of the labels that are held back.
pub(super) fn bench_of(rows: &[crate::labels::Row]) -> Digest {
    let held = rows.iter().filter(|row| row.held_out);
    let lines: Vec<String> = held.map(|row| json!(row).to_string()).collect();
    Digest::of(lines.join("\n").as_bytes())
}

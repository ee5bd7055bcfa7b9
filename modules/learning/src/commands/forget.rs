//! `lodestar learning forget`.

use module_sdk::{Error, Job, Reply, Result, Table, TimeRangeArgs, Zone};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{counted, taken_back, taken_back_data};
use crate::{
    Learning,
    maintenance::erase,
    registry::Version,
    store::{Forgotten, Target},
};

/// Deletes text for good: of a session, of a project, or of all answers before a time. Datasets
/// with such text lose theirs, and must not be trained on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForgetArgs {
    /// The session.
    #[serde(default)]
    session: Option<String>,
    /// The project.
    #[serde(default)]
    project: Option<String>,
    /// The time: 7d, 12h, yesterday, 2026-11-01.
    #[serde(default)]
    before: Option<String>,
    /// Only show what would be deleted.
    #[serde(default)]
    dry_run: bool,
}

impl Learning {
    pub(crate) fn forget(&mut self, args: ForgetArgs) -> Result<Job> {
        let target = match (args.session, args.project, args.before) {
            (Some(session), None, None) => Target::Session(session),
            (None, Some(project), None) => Target::Project(project.trim().to_owned()),
            (None, None, Some(before)) => Target::Before(self.moment(before)?),
            _ => {
                let error = Error::usage("say what is to be forgotten");
                return Err(error.hint("one of --session, --project and --before"));
            }
        };
        let (store, folder, now) = (self.store.clone(), self.folder.clone(), self.now());
        let (versions, training) = (self.versions.clone(), self.training.clone());
        let dry_run = args.dry_run;
        Ok(Job::new(move |output| {
            if dry_run {
                return told(&store.would_forget(&target)?, true, None, &[]);
            }
            let mut progress = |done| output.progress(done, None, "examples");
            let found = store.forget(&target, now, &mut progress)?;
            for id in &found.datasets {
                erase(&store, &folder, id, "text of it was forgotten", now)?;
            }
            let left = super::labels::forget(&versions, &target, now)?;
            let tainted = versions.taint()?;
            training.stop_tainted()?;
            told(&found, false, left, &tainted)
        }))
    }

    /// Returns the moment that a person means, in milliseconds.
    fn moment(&self, before: String) -> Result<i64> {
        let range = TimeRangeArgs { since: Some(before.clone()), until: None };
        let resolved = range.resolve("0d", self.host.now(), &Zone::default());
        let range = resolved.map_err(|_| {
            Error::usage(format!(
                "--before {:?} is no time that has passed",
                super::plain(&before, 40)
            ))
            .hint("such as 7d, yesterday or 2026-11-01")
        })?;
        Ok(range.bounds_ms().0)
    }
}

fn told(
    found: &Forgotten,
    dry_run: bool,
    left: Option<String>,
    tainted: &[Version],
) -> Result<Reply> {
    let Forgotten { examples, datasets } = found;
    let mut table = Table::default();
    let verb = if dry_run { "would be forgotten" } else { "forgotten" };
    table.notes.push(format!("{} {verb}", counted(*examples, "example")));
    if !datasets.is_empty() {
        let count = counted(datasets.len() as u64, "dataset");
        let verb = if dry_run { "would lose" } else { "lost" };
        table.notes.push(format!("{count} with such text {verb} it"));
    }
    let labels_left = left.is_some();
    table.notes.extend(left);
    table.notes.extend(taken_back(tainted));
    let data = json!({
        "examples": examples, "datasets": datasets, "dry_run": dry_run,
        "labels_left": labels_left, "tainted": taken_back_data(tainted),
    });
    Ok(Reply::json(&data)?.table(table))
}

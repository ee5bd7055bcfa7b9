//! `lodestar learning datasets build`.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use module_sdk::{
    Error, ErrorKind, Host, Job, Output, Reply, Result, Table, events::LearningDatasetBuilt,
};
use serde_json::{Value, json};

use super::{
    datasets::{DatasetsArgs, funnel, short},
    name,
    remedies::Remedies,
    train::FEWEST,
    word,
};
use crate::{
    Learning,
    dataset::{
        build::{Built, Settings, build_beside},
        card::card,
        files::Folder,
        summary::Summary,
    },
    gate,
    licence::Licences,
    store::{Attestation, Split, Store, StoredDataset, Weights, load},
};

/// Right to work that is done once at a time.
#[derive(Debug)]
pub(super) struct Turn(Arc<AtomicBool>);

impl Turn {
    /// Takes the right.
    ///
    /// # Errors
    ///
    /// When somebody has it; `busy` says what is being done.
    pub(super) fn take(taken: &Arc<AtomicBool>, busy: &str) -> Result<Self> {
        if taken.swap(true, Ordering::AcqRel) {
            return Err(Error::unavailable(busy).hint("try again when that has ended"));
        }
        Ok(Self(taken.clone()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A build that is about to begin.
struct Build {
    host: Host,
    store: Store,
    folder: Folder,
    licences: Licences,
    weights: Weights,
    settings: Settings,
    /// The operator's questions, of which nothing may be learnt.
    prompts: Option<PathBuf>,
    projects: Vec<String>,
    stopping: Arc<AtomicBool>,
}

impl Learning {
    pub(super) fn build(&mut self, args: &DatasetsArgs) -> Result<Job> {
        if args.project.is_empty() {
            return Err(Error::usage("name the project: --project NAME")
                .hint("`lodestar learning consent` lists those for which somebody agreed"));
        }
        let projects = args.project.iter().map(|it| name("the project", it).map(str::to_owned));
        let mut projects = projects.collect::<Result<Vec<_>>>()?;
        projects.sort_unstable();
        projects.dedup();
        let turn = Turn::take(&self.building, "another dataset is being built")?;
        let build = Build {
            host: self.host.clone(),
            store: self.store.clone(),
            folder: self.folder.clone(),
            licences: self.config.licences.clone(),
            weights: self.config.feedback.clone(),
            settings: Settings {
                quality: self.config.quality.clone(),
                eval_share: args.eval_share.unwrap_or(self.config.eval_share),
            },
            prompts: self.config.gates.prompts.clone(),
            projects,
            stopping: self.stopping.clone(),
        };
        Ok(Job::new(move |output| {
            let _turn = turn;
            build.run(output)
        }))
    }
}

impl Build {
    fn run(&self, output: &mut Output) -> Result<Reply> {
        let now = self.host.now();
        let reader = self.store.reader()?;
        let mut examples = reader.read(|connection| {
            let now = now.as_millisecond();
            load(connection, &self.projects, &self.licences, &self.weights, now)
        })?;
        if let Some(judge) = &self.settings.quality.judge {
            crate::judge::apply(&self.store, judge, &mut examples)?;
        }
        let attestations = self.store.attestations()?;
        let remedies = Remedies::of(&examples);
        let built = self.filter(examples, output)?;
        module_sdk::return_free_memory();
        if built.rows.is_empty() {
            return self.nothing(&built, &attestations, &remedies);
        }
        let files = self.folder.write(&built)?;
        let summary = Summary::of(&built, &self.projects, &attestations, files, now);
        self.folder.write_card(&card(&summary))?;
        let recorded = self.record(&built, &summary);
        if !matches!(recorded, Ok(true)) {
            self.folder.discard();
        }
        if !recorded? {
            let message = "consent was taken back, or text was forgotten, while it was built";
            return Err(Error::of(ErrorKind::Refused, message).hint("build it again"));
        }
        if let Err(error) = self.folder.place(&built.id) {
            self.folder.discard();
            let now = self.host.now().as_millisecond();
            self.store.erased(&built.id, "its files could not be put in place", now)?;
            return Err(error);
        }
        self.tell(&summary);
        let mut data = serde_json::to_value(&summary)?;
        data["state"] = "ready".into();
        data["path"] = json!(self.folder.of(&built.id));
        data["remedies"] = json!(remedies);
        let mut table = funnel(&summary);
        table.notes.extend(remedies.notes());
        table.notes.push(if summary.train < FEWEST || summary.eval == 0 {
            format!(
                "`train` wants at least {FEWEST} examples, and one that is held out: import more, \
                 or hold more out (--eval-share)"
            )
        } else {
            let id = short(&summary.id);
            format!("`lodestar learning train {id} --base PATH` trains a version on it")
        });
        Ok(Reply::json(&data)?.table(table))
    }

    fn filter(&self, examples: Vec<crate::example::Example>, output: &mut Output) -> Result<Built> {
        let cancelled = AtomicBool::new(false);
        let mut gone = None;
        let benchmarks = gate::benchmarks(self.prompts.as_deref())
            .map_err(|error| Error::config_at("gates.prompts", error.to_string()))?;
        let built = build_beside(
            &self.settings,
            examples,
            &benchmarks,
            &mut |done, total| {
                if self.stopping.load(Ordering::Relaxed) {
                    cancelled.store(true, Ordering::Relaxed);
                }
                if let Err(error) = output.progress(done as u64, Some(total as u64), "examples") {
                    cancelled.store(true, Ordering::Relaxed);
                    gone = Some(error);
                }
            },
            &cancelled,
        )?;
        match gone {
            Some(error) => Err(error),
            None if cancelled.load(Ordering::Relaxed) => {
                Err(Error::of(ErrorKind::Cancelled, "learning is stopping; build it again"))
            }
            None => Ok(built),
        }
    }

    fn record(&self, built: &Built, summary: &Summary) -> Result<bool> {
        let dataset = StoredDataset {
            id: built.id.clone(),
            projects: self.projects.clone(),
            created_at: summary.created_at.as_millisecond(),
            train: built.count(Split::Train),
            eval: built.count(Split::Eval),
            summary: serde_json::to_value(summary)?,
            stale: None,
            erased_at: None,
        };
        self.store.record_dataset(&dataset, &built.members(), self.host.now().as_millisecond())
    }

    /// Tells others of the dataset. A failure is only logged: the dataset is there.
    fn tell(&self, summary: &Summary) {
        let event = LearningDatasetBuilt {
            schema: 1,
            dataset: summary.id.clone(),
            projects: summary.projects.clone(),
            train: summary.train,
            eval: summary.eval,
            at: summary.created_at.as_millisecond(),
        };
        if let Err(error) = self.host.emit(&event) {
            tracing::warn!(%error, "cannot tell that a dataset was built");
        }
    }

    /// Answers that nothing is left, and by which filters.
    fn nothing(
        &self,
        built: &Built,
        attestations: &[Attestation],
        remedies: &Remedies,
    ) -> Result<Reply> {
        let now = self.host.now();
        let summary = Summary::of(built, &self.projects, attestations, Default::default(), now);
        let seen = built.steps.first().map_or(0, |step| step.seen);
        let mut table: Table = funnel(&summary);
        table.title = "No dataset was built".to_owned();
        table.notes = vec![if seen == 0 {
            let project = self.projects.first().map_or("", String::as_str);
            format!(
                "there are no examples of this project: `lodestar learning import jsonl FILE \
                 --project {}`, or let requests come in",
                word(project)
            )
        } else {
            "the filters left nothing; DROPPED says why".to_owned()
        }];
        table.notes.extend(remedies.notes());
        let mut data = serde_json::to_value(&summary)?;
        data["remedies"] = json!(remedies);
        (data["id"], data["state"]) = (Value::Null, Value::Null);
        Ok(Reply::json(&data)?.table(table).exit_code(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_had_by_one() {
        let taken: Arc<AtomicBool> = Arc::default();
        let turn = Turn::take(&taken, "another one is being built").expect("nobody has it");
        let error = Turn::take(&taken, "another one is being built").expect_err("it is taken");
        assert!(error.to_string().starts_with("another one is being built"), "{error}");
        drop(turn);
        Turn::take(&taken, "another one is being built").expect("nobody has it any more");
    }
}

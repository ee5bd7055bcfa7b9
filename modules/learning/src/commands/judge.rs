//! `lodestar learning judge`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use module_sdk::{Error, ErrorKind, Host, Job, Output, Reply, Result, Table, human::count};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{counted, deploy::block_on, name};
use crate::{
    Learning,
    deploy::{Model, Server},
    example::Example,
    judge,
    licence::Licences,
    maintenance::DAY_MS,
    quality::JudgeConfig,
    store::{Store, Weights, load},
};

/// Lets a model rate answers (`judge run --project P`), and shows how far it agrees with people
/// (`judge show`). It drops nothing from datasets before it agrees well enough.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JudgeArgs {
    /// Command: `run` or `show` [default: show].
    #[serde(default)]
    #[schemars(extend("x-positional" = 1))]
    action: Action,
    /// A project whose answers are rated (run).
    #[serde(default)]
    project: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Rate answers that were not rated yet.
    Run,
    /// Show the agreement with people.
    #[default]
    Show,
}

/// Thresholds at which the agreement is shown.
const THRESHOLDS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
/// Longest rating, in tokens: some models think before they answer.
const LONGEST: u32 = 512;
/// Scores that are written down at once.
const AT_ONCE: usize = 10;

impl Learning {
    pub(crate) fn judge(&mut self, args: JudgeArgs) -> Result<Job> {
        let Some(config) = self.config.quality.judge.clone() else {
            return Err(Error::of(ErrorKind::Refused, "no judge is configured")
                .hint("set `quality.judge` in the section of learning"));
        };
        let desk = Desk {
            host: self.host.clone(),
            store: self.store.clone(),
            licences: self.config.licences.clone(),
            weights: self.config.feedback.clone(),
            stopping: self.stopping.clone(),
            config,
        };
        Ok(Job::new(move |output| match (args.action, &args.project) {
            (Action::Show, _) => desk.show(None),
            (Action::Run, Some(project)) => desk.run(name("the project", project)?, output),
            (Action::Run, None) => Err(Error::usage("name the project: --project NAME")),
        }))
    }
}

struct Desk {
    host: Host,
    store: Store,
    licences: Licences,
    weights: Weights,
    stopping: Arc<AtomicBool>,
    config: JudgeConfig,
}

impl Desk {
    fn run(&self, project: &str, output: &mut Output) -> Result<Reply> {
        let now = self.host.now().as_millisecond();
        let asked = judge::asked_since(&self.store, now - DAY_MS)?;
        let room = u64::from(self.config.per_day).saturating_sub(asked);
        if room == 0 {
            let words = format!(
                "it was asked {} within a day, and no more is allowed",
                counted(asked, "time")
            );
            return Err(Error::of(ErrorKind::Refused, words)
                .hint("try again tomorrow, or set `quality.judge.per_day` higher"));
        }
        let projects = [project.to_owned()];
        let reader = self.store.reader()?;
        let examples = reader
            .read(|connection| load(connection, &projects, &self.licences, &self.weights, now))?;
        let mut waiting = Vec::new();
        // Those that people rated come first: without them it may drop nothing.
        let mut examples: Vec<Example> =
            examples.into_iter().filter(|it| it.consent.is_some()).collect();
        examples.sort_by_key(|it| it.outcome.feedback.is_none());
        for example in examples {
            let is_new = judge::score(&self.store, &self.config.model, &example.id)?.is_none();
            if is_new && (waiting.len() as u64) < room {
                waiting.push(example);
            }
        }
        let total = waiting.len() as u64;
        let (mut rated, mut unclear, mut scores) = (0_u64, 0_u64, Vec::new());
        let server = Server::new(self.config.kind, &self.config.base_url);
        for (done, example) in waiting.iter().enumerate() {
            output.progress(done as u64, Some(total), "answers")?;
            if self.stopping.load(Ordering::Relaxed) {
                break;
            }
            // Forgotten, or taken back, since the run began.
            if !self.may_still_ask(example)? {
                continue;
            }
            let at = self.host.now().as_millisecond();
            // A question costs, whatever is answered.
            judge::asks(&self.store, at, at - DAY_MS)?;
            let asked = judge::question(example);
            let said = block_on(server.answer(Model::Base(&self.config.model), &asked, LONGEST))?;
            match judge::rating(&said.text) {
                Some(score) => {
                    rated += 1;
                    scores.push((example.id.clone(), score));
                }
                None => unclear += 1,
            }
            if scores.len() >= AT_ONCE {
                judge::keep(&self.store, &self.config.model, &scores, now)?;
                scores.clear();
            }
        }
        judge::keep(&self.store, &self.config.model, &scores, now)?;
        self.show(Some((rated, unclear)))
    }

    /// Returns whether an example is there, and the consent that it was loaded with holds.
    fn may_still_ask(&self, example: &Example) -> Result<bool> {
        let now = self.host.now().as_millisecond();
        let consents = self.store.consents()?;
        let mut holding = consents.iter().filter(|it| it.state(now) == "active");
        let is_agreed = holding.any(|it| example.consent.as_deref() == Some(&it.id));
        Ok(is_agreed && judge::is_there(&self.store, &example.id)?)
    }

    fn show(&self, ran: Option<(u64, u64)>) -> Result<Reply> {
        let pairs = judge::pairs(&self.store, &self.config.model)?;
        let mut all: Vec<_> = THRESHOLDS.iter().map(|it| judge::agreement(&pairs, *it)).collect();
        let own = judge::agreement(&pairs, self.config.min_score);
        if !THRESHOLDS.iter().any(|it| (it - self.config.min_score).abs() < 1e-9) {
            all.push(own);
            all.sort_by(|a, b| a.threshold.total_cmp(&b.threshold));
        }
        let may_drop = judge::may_drop(&own, &self.config);
        let mut table =
            Table::new(["THRESHOLD#", "AGREED#", "KAPPA#", "GOOD DROPPED#", "BAD KEPT#"]);
        for it in &all {
            table.row([
                format!("{:.2}", it.threshold),
                format!("{:.0} %", 100.0 * it.agreed),
                format!("{:.2}", it.kappa),
                count(it.good_dropped),
                count(it.bad_kept),
            ]);
        }
        if let Some((rated, unclear)) = ran {
            table.notes.push(format!("{} rated, {} unclear", count(rated), count(unclear)));
        }
        let beside = counted(own.number, "answer");
        table.notes.push(format!("{beside} judged by people too"));
        table.notes.push(if may_drop {
            format!("it drops answers below {:.2}", self.config.min_score)
        } else {
            format!(
                "it drops nothing: that takes 30 answers that people judged, and a kappa of {:.2}",
                self.config.least_kappa
            )
        });
        let data = json!({
            "model": self.config.model, "threshold": self.config.min_score,
            "may_drop": may_drop, "agreement": own, "by_threshold": all,
            "rated": ran.map(|it| it.0), "unclear": ran.map(|it| it.1),
        });
        Ok(Reply::json(&data)?.table(table))
    }
}

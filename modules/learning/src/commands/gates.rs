//! `lodestar learning gates`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use module_sdk::{Error, ErrorKind, Job, Output, Reply, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    deploy::{adapter, block_on, by, find},
    versions::{data, gates as table_of},
};
use crate::{
    Learning,
    config::Serving,
    deploy::{DeployError, Model},
    example::Message,
    gate::{self, DataFacts, Limits, Pair},
    registry::{Action, Actor, Command, Gate, Request, Version},
    versions::{Versions, refused},
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

//! `lodestar learning gates`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use module_sdk::{Error, ErrorKind, Job, Output, Reply, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    deploy::{adapter, block_on, by, find},
    versions::{data, gates as table_of},
};
use crate::{
    Learning,
    deploy::Adapter,
    gate::{self, DataFacts, HeldOut, Limits, Session, Target},
    reckoning,
    registry::{Action, Actor, Command, Gate, Request, Version},
    serving::Servers,
    training::Training,
    versions::{Versions, refused},
};

/// Measures the gates of a version: what it was learnt from, and on the server that is configured
/// how it compares with the base in held-out questions, plain ones, requests to refuse, calls of
/// tools, time and memory, and with the trainer in each token.
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
            servers: self.servers.clone(),
            training: self.training.clone(),
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
    servers: Servers,
    training: Training,
    limits: Limits,
    stopping: Arc<AtomicBool>,
}

impl Measuring {
    fn run(&self, id: &str, output: &mut Output) -> Result<Reply> {
        super::policy::refuse(&find(&self.versions, id)?)?;
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
        table.notes.push(self.versions.next(&ledger, version));
        Ok(Reply::json(&data(&ledger, version))?.table(table).exit_code(u8::from(!passed)))
    }

    fn measure(&self, version: &Version, output: &mut Output) -> Result<Vec<Gate>> {
        let dataset = &version.lineage.dataset;
        let now = self.versions.host.now().as_millisecond();
        let (forgotten, without_consent) = self.versions.store.withdrawn(dataset, now)?;
        let (files, changed) = self.versions.adapter_files(version)?;
        // Held until all is measured: a server of our own ends when nobody needs it.
        let place = match self.servers.place(version) {
            Ok(place) => Some(place),
            // Nothing here can serve it, now or later.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::warn!(version = version.id, %error, "nothing serves it, to be measured");
                None
            }
            Err(error) => return Err(error),
        };
        let target = match &place {
            Some(place) => {
                let adapter =
                    Adapter { files: files.clone(), ..adapter(&self.versions, place, version) };
                let server = place.server();
                block_on(server.install(&adapter))?;
                Some(Target { server, adapter, most: place.max_answer_tokens })
            }
            None => None,
        };
        let facts = DataFacts {
            examples: version.lineage.examples,
            forgotten,
            without_consent,
            problems: self.versions.problems(dataset)?,
            files,
            changed,
            trainer: version.lineage.trainer.clone(),
        };
        let lines = self.versions.held_out(dataset)?;
        let held_out = lines.iter().filter_map(|line| HeldOut::read(line)).collect();
        let seed = u64::from_le_bytes(
            version.lineage.dataset.as_bytes().first_chunk::<8>().copied().unwrap_or_default(),
        );
        let trainers = self.training.trainers();
        let mut reckon = |until: Instant, alive: &mut dyn FnMut() -> Result<()>| {
            reckoning::reference(&self.versions, trainers, version, until, alive)
        };
        let mut watch = |done: u64, total: Option<u64>, unit: &str| {
            output.progress(done, total, unit)?;
            if self.stopping.load(Ordering::Relaxed) {
                return Err(Error::of(ErrorKind::Cancelled, "learning is stopping; measure again"));
            }
            Ok(())
        };
        let limits = &self.limits;
        let mut session =
            Session::new(limits, facts, held_out, seed, target, &mut reckon, &mut watch)?;
        gate::measure(&mut session, &self.versions.registry.policy().required_gates)
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

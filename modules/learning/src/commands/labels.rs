//! `lodestar learning labels`: what the router learns from the signs of this installation.

mod measuring;
mod tables;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use module_sdk::{Error, ErrorKind, Job, Reply, Result, Table, human::count};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use self::{
    measuring::{Learnt, measured},
    tables::{counts, shown, ways},
};
use super::{
    build::Turn,
    counted,
    datasets::short,
    deploy::{by, find, observed, operator},
    minute,
    policy::{CALIBRATION, FILE, base_of, bench_of},
    versions::{data, gates as table_of},
};
use crate::{
    Learning,
    labels::{
        Config, Judged, LabelSet, Row, Summary,
        calibration::{Calibration, gates},
        rows,
    },
    registry::{
        Action as Step, Actor, Command, Digest, Lineage, Observed, ROUTER, Request, Version,
    },
    store::{Target, Weights},
    versions::{Versions, refused},
};

/// Trains what the router's strategy `learned` decides by, from the signs of this installation:
/// `labels build`, `labels show [SET|POLICY]`, `labels train SET`, `labels approve POLICY --reason
/// TEXT`, `labels activate POLICY`, `labels rollback --reason TEXT`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LabelsArgs {
    /// Command: `build`, `show`, `train`, `approve`, `activate` or `rollback` [default: show].
    #[serde(default)]
    #[schemars(extend("x-positional" = 1))]
    action: Action,
    /// Id of a set of labels, or its beginning, or of a policy.
    #[serde(default)]
    #[schemars(extend("x-positional" = 2))]
    id: Option<String>,
    /// Share of the paid model's right answers that is kept [default: labels.promise] (train).
    #[serde(default)]
    #[schemars(range(min = 0.5, max = 1.0))]
    promise: Option<f64>,
    /// Reason of the approval or of the rollback.
    #[serde(default)]
    reason: Option<String>,
    /// Name of the person [default: operator].
    #[serde(default = "operator")]
    by: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Make a set of labels of the signs that are there.
    Build,
    /// Show the labels, a set, or a policy with its calibration.
    #[default]
    Show,
    /// Learn a policy from a set.
    Train,
    /// Approve exactly the policy that is there now.
    Approve,
    /// Let the router decide by a policy that was approved.
    Activate,
    /// Take the policy back.
    Rollback,
}

/// Promises that a calibration shows besides that of the policy.
const PROMISES: [f64; 4] = [0.9, 0.95, 0.98, 0.99];
/// Time within which the router lists its labels, or takes a policy up.
const ANSWER: Duration = Duration::from_secs(30);
/// Time within which the router learns a policy.
const LEARNING: Duration = Duration::from_secs(300);

impl Learning {
    pub(crate) fn labels(&mut self, args: LabelsArgs) -> Result<Job> {
        let desk = Desk {
            versions: self.versions.clone(),
            config: self.config.labels.clone(),
            weights: self.config.feedback.clone(),
            learning: self.learning.clone(),
        };
        Ok(Job::new(move |_| {
            let id = |what: &str| {
                args.id.as_deref().ok_or_else(|| {
                    Error::usage(format!("name the {what} by its id"))
                        .hint("`lodestar learning labels` lists them")
                })
            };
            let reason = || {
                args.reason.as_deref().ok_or_else(|| Error::usage("give a reason: --reason TEXT"))
            };
            match args.action {
                Action::Build => desk.build(),
                Action::Show => desk.show(args.id.as_deref()),
                Action::Train => {
                    let promise = args.promise.unwrap_or(desk.config.promise);
                    desk.train(id("set of labels")?, promise)
                }
                Action::Approve => desk.approve(id("policy")?, &args.by, reason()?),
                Action::Activate => desk.activate(id("policy")?, &args.by),
                Action::Rollback => desk.roll_back(&args.by, reason()?),
            }
        }))
    }
}

/// All that the sub-commands need.
struct Desk {
    versions: Versions,
    config: Config,
    weights: Weights,
    /// `true` while a policy is learnt.
    learning: Arc<AtomicBool>,
}

/// Labels as the router tells them.
#[derive(Debug, Deserialize)]
struct Told {
    labels: Vec<Judged>,
}

impl Desk {
    fn now(&self) -> i64 {
        self.versions.host.now().as_millisecond()
    }

    /// Returns the labels of now.
    fn labels(&self) -> Result<Vec<Row>> {
        let args = json!({"action": "labels"});
        let told: Told =
            self.versions.host.call("router", "policy", &args).within(ANSWER).wait()?;
        Ok(rows(&told.labels, &self.weights, &self.config))
    }

    fn build(&self) -> Result<Reply> {
        let rows = self.labels()?;
        let summary = Summary::of(&rows);
        let missing = self.config.least.saturating_sub(summary.local);
        if missing > 0 {
            let mut table = counts(&summary);
            table.title = "No set of labels was built".to_owned();
            table.notes.push(format!(
                "{} of {} judged answers of local models are there; {} are missing",
                count(summary.local),
                count(self.config.least),
                count(missing)
            ));
            let data = json!({"id": null, "missing": missing, "summary": summary});
            return Ok(Reply::json(&data)?.table(table).exit_code(1));
        }
        let set = self.versions.labels().write(&rows, self.now())?;
        let mut table = counts(&summary);
        table.title = format!("Set of labels {}", short(&set.id));
        table.notes.push(format!("`lodestar learning labels train {}`", short(&set.id)));
        Ok(Reply::json(&shown(&set))?.table(table))
    }

    fn show(&self, id: Option<&str>) -> Result<Reply> {
        let ledger = self.versions.ledger()?;
        if let Some(id) = id {
            return match ledger.versions.get(id).filter(|it| it.lineage.is_policy()) {
                Some(version) => self.show_policy(version),
                None => {
                    let set = self.versions.labels().find(id)?;
                    let mut table = counts(&set.summary);
                    table.title = format!("Set of labels {}", short(&set.id));
                    table.notes.extend(set.stale.clone());
                    Ok(Reply::json(&shown(&set))?.table(table))
                }
            };
        }
        let sets = self.versions.labels().list()?;
        let mut table = Table::new(["ID", "KIND", "STATE", "LABELS#", "MADE"]);
        for set in &sets {
            let state = match (&set.stale, set.erased_at) {
                (Some(_), _) => "stale",
                (None, Some(_)) => "erased",
                (None, None) => "ready",
            };
            table.row([
                short(&set.id).to_owned(),
                "set".to_owned(),
                state.to_owned(),
                count(set.summary.local),
                minute(set.created_at),
            ]);
        }
        let policies = ledger.in_order().into_iter().filter(|it| it.lineage.is_policy());
        let policies: Vec<Value> = policies
            .map(|version| {
                table.row([
                    version.id.clone(),
                    "policy".to_owned(),
                    version.state.to_string(),
                    count(version.lineage.examples),
                    minute(version.created_at),
                ]);
                data(&ledger, version)
            })
            .collect();
        // What is here is shown whether the router answers or not.
        let (summary, missing) = match self.labels() {
            Ok(rows) => {
                let summary = Summary::of(&rows);
                let missing = self.config.least.saturating_sub(summary.local);
                table.notes.push(match missing {
                    0 => format!("{} are there", counted(summary.local, "judged local answer")),
                    _ => format!(
                        "{} are there, {} are missing for a set",
                        counted(summary.local, "judged local answer"),
                        count(missing)
                    ),
                });
                (Some(summary), Some(missing))
            }
            Err(error) => {
                table.notes.push(format!("the router does not tell its labels: {error}"));
                (None, None)
            }
        };
        let data = json!({
            "labels": summary, "missing": missing, "active": ledger.policy,
            "sets": sets.iter().map(shown).collect::<Vec<_>>(),
            "policies": policies,
        });
        Ok(Reply::json(&data)?.table(table))
    }

    fn show_policy(&self, version: &Version) -> Result<Reply> {
        let path = self.versions.folder(&version.id).join(CALIBRATION);
        let found: Option<Calibration> =
            std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let ledger = self.versions.ledger()?;
        let mut shown = data(&ledger, version);
        shown["calibration"] = json!(found);
        let mut table = table_of(&version.gates);
        if let Some(found) = &found {
            table = ways(found);
            table.notes.extend(version.gates.iter().map(|gate| {
                let passed = if gate.passed { "passed" } else { "did not pass" };
                format!("gate {} {passed}", gate.name)
            }));
        }
        table.title = format!("Policy {}: {}", version.id, version.state);
        table.notes.push(format!("next: {}", self.versions.next(&ledger, version)));
        Ok(Reply::json(&shown)?.table(table))
    }

    fn train(&self, begin: &str, promise: f64) -> Result<Reply> {
        // Two would take the same id and the same folder.
        let _turn = Turn::take(&self.learning, "another policy is being learnt")?;
        let set = self.versions.labels().find(begin)?;
        if let Some(stale) = &set.stale {
            let words = format!("nothing may be learnt from this set: {stale}");
            return Err(Error::of(ErrorKind::Refused, words).hint("build another one"));
        }
        let rows = self.versions.labels().rows(&set.id)?;
        let promises: Vec<f64> = [promise]
            .into_iter()
            .chain(PROMISES.into_iter().filter(|it| (it - promise).abs() > 1e-9))
            .collect();
        let chosen = |row: &Row| {
            json!({
                "id": row.id, "features": row.features, "local": row.local, "paid": row.paid,
            })
        };
        let part = |held_out: bool| -> Vec<Value> {
            rows.iter().filter(|row| row.held_out == held_out).map(chosen).collect()
        };
        let args = json!({
            "action": "train", "train": part(false), "held_out": part(true), "promises": promises,
        });
        let learnt: Learnt =
            self.versions.host.call("router", "policy", &args).within(LEARNING).wait()?;
        if Digest::of(learnt.file.as_bytes()) != learnt.digest {
            let words = "the router told another digest than that of its policy";
            return Err(Error::new(words));
        }
        let found = measured(&rows, &learnt, &promises, &set.id);
        let id = self.register(&set, &rows, &learnt, found.as_ref())?;
        let ledger = self.versions.ledger()?;
        let version = ledger.version(&id).map_err(|refusal| refused(&refusal))?;
        let reply = self.show_policy(version)?;
        let passed = version.open_gates().is_some_and(|open| open.is_empty());
        Ok(reply.exit_code(u8::from(!passed)))
    }

    /// Brings a policy into the registry, with what its gates measured.
    fn register(
        &self,
        set: &LabelSet,
        rows: &[Row],
        learnt: &Learnt,
        found: Option<&Calibration>,
    ) -> Result<String> {
        let ledger = self.versions.ledger()?;
        let free = |id: &String| !ledger.versions.contains_key(id);
        let id = (1..).map(|number: u64| format!("r{number}")).find(free).unwrap_or_default();
        let lineage = Lineage {
            run: "labels".to_owned(),
            base: ROUTER.to_owned(),
            base_digest: base_of(&learnt.features),
            dataset_digest: Digest::try_from(set.id.clone())
                .map_err(|refusal| refused(&refusal))?,
            dataset: set.id.clone(),
            examples: set.summary.local,
            consents: Vec::new(),
            trainer: "labels".to_owned(),
        };
        let folder = self.versions.folder(&id);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(FILE), &learnt.file)?;
        std::fs::write(folder.join(CALIBRATION), serde_json::to_vec(&found)?)?;
        let gates = gates(set.summary.local, found, &self.config);
        for command in [
            Command::Create(lineage),
            Command::Act(Step::Start),
            Command::Finish(learnt.digest.clone()),
            Command::Act(Step::Evaluate),
            Command::Judge(bench_of(rows), gates),
        ] {
            let (version, reason) = (id.clone(), String::new());
            let request = Request { version, actor: Actor::Lodestar, reason, command };
            self.versions.perform(&request)?;
        }
        // What was forgotten meanwhile found no version to mark.
        self.versions.taint()?;
        Ok(id)
    }

    fn policy(&self, id: &str) -> Result<Version> {
        let version = find(&self.versions, id)?;
        if version.lineage.is_policy() {
            return Ok(version);
        }
        let words = format!("{id} is a model, and no policy of the router");
        Err(Error::of(ErrorKind::Refused, words).hint("`lodestar learning labels` lists policies"))
    }

    fn approve(&self, id: &str, person: &str, reason: &str) -> Result<Reply> {
        let version = self.policy(id)?;
        let observed = observed(&self.versions, &version, Step::Approve)?;
        let command = Command::Approve { typed: id.to_owned(), observed };
        self.versions.perform(&by(person, id, reason, command))?;
        let ledger = self.versions.ledger()?;
        let version = ledger.version(id).map_err(|refusal| refused(&refusal))?;
        let mut table = table_of(&version.gates);
        table.title = format!("{person} approves {id}");
        table.notes.push(self.versions.next(&ledger, version));
        Ok(Reply::json(&data(&ledger, version))?.table(table))
    }

    fn activate(&self, id: &str, person: &str) -> Result<Reply> {
        let version = self.policy(id)?;
        let _switching = self.versions.switching();
        // A router that does not answer takes no policy: then nothing is noted either.
        let show = json!({"action": "show"});
        self.versions.host.call::<_, Value>("router", "policy", &show).within(ANSWER).wait()?;
        if self.versions.ledger()?.policy.as_deref() != Some(id) {
            let observed = observed(&self.versions, &version, Step::Deploy)?;
            self.versions.perform(&by(person, id, "", Command::Deploy(observed)))?;
        }
        if let Err(error) = self.lead() {
            // It may decide already although no answer came: the router is led back as well.
            let command = Command::RollBack(self.observed_before());
            self.versions.perform(&by(person, ROUTER, "the router did not take it", command))?;
            if let Err(error) = self.lead() {
                tracing::error!(%error, "the router may decide by a policy that was taken back");
            }
            return Err(error);
        }
        let ledger = self.versions.ledger()?;
        let version = ledger.version(id).map_err(|refusal| refused(&refusal))?;
        let mut table = table_of(&version.gates);
        table.title = format!("The router decides by {id} where its strategy is `learned`");
        table.notes.push("`lodestar learning labels rollback --reason TEXT` takes it back".into());
        Ok(Reply::json(&data(&ledger, version))?.table(table))
    }

    fn roll_back(&self, person: &str, reason: &str) -> Result<Reply> {
        let _switching = self.versions.switching();
        let before = self.versions.ledger()?.policy;
        let command = Command::RollBack(self.observed_before());
        let done = self.versions.perform(&by(person, ROUTER, reason, command));
        let led = self.lead();
        let done = done?;
        led.map_err(|error| {
            error
                .context("the policy is taken back, but the router may still decide by it")
                .hint("`lodestar learning labels rollback` leads it away once more")
        })?;
        let restored = done.ledger.policy;
        let data = json!({
            "rolled_back": before, "restored": restored,
            "not_restored": done.not_restored.as_ref().map(ToString::to_string),
        });
        let mut table = Table::default();
        table.notes.push(match &restored {
            Some(id) => format!("{id} decides again"),
            None => "the router decides by what it learns from day to day".to_owned(),
        });
        let why = done.not_restored.map(|refusal| format!("no policy was restored: {refusal}"));
        table.notes.extend(why);
        Ok(Reply::json(&data)?.table(table))
    }

    /// Lets the router ask for the policy of the log, and checks that it decides by that.
    fn lead(&self) -> Result<()> {
        let ledger = self.versions.ledger()?;
        let policy = ledger.policy.as_deref().and_then(|id| ledger.versions.get(id));
        let expected = policy.and_then(|version| version.artifact.clone());
        let args = json!({"action": "refresh"});
        let answer: Value =
            self.versions.host.call("router", "policy", &args).within(ANSWER).wait()?;
        if answer["policy"] == json!(expected) {
            return Ok(());
        }
        Err(Error::of(ErrorKind::Refused, "the router decides by another policy"))
    }

    /// Returns what is seen of the policy before; none where that cannot be read, which is no
    /// reason to keep what is to be taken back.
    fn observed_before(&self) -> Option<Observed> {
        let ledger = self.versions.ledger().ok()?;
        let before = ledger.versions.get(ledger.previous_policy.as_deref()?)?;
        self.versions.observe(before).unwrap_or_else(|error| {
            tracing::warn!(%error, "the policy before cannot be read");
            None
        })
    }
}

/// Deletes labels that somebody wants forgotten, here and in the router. Returns what stays where
/// the router does not answer.
///
/// # Errors
///
/// When those that are here cannot be deleted.
pub(super) fn forget(versions: &Versions, target: &Target, now: i64) -> Result<Option<String>> {
    versions.labels().forget(target, now)?;
    let args = match target {
        Target::Session(session) => json!({"action": "forget", "session": session}),
        Target::Project(project) => json!({"action": "forget", "project": project}),
        Target::Before(time) => json!({"action": "forget", "before": time}),
    };
    match versions.host.call::<_, Value>("router", "policy", &args).within(ANSWER).wait() {
        Ok(_) => Ok(None),
        // There is no router, or none that keeps labels.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Ok(Some(format!(
            "the router does not delete its labels, which have no text: {error}; run it again"
        ))),
    }
}

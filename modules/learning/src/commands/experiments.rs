//! `lodestar learning experiments`.

mod shown;

use std::{collections::BTreeMap, path::Path};

use module_sdk::{Error, ErrorKind, Job, Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use self::shown::{data, measures, notes, state};
use super::{
    deploy::{RELOAD, adapter, block_on, by, find, gone},
    minute, plain,
};
use crate::{
    Learning,
    deploy::Kind,
    experiment::{
        COST, ERROR, Experiment, Guardrail, LATENCY, Paired, Plan, PlanError, Question, REFUSAL,
        Unit,
        store::{self, Route, Stored, Trial},
    },
    experiments::{ExperimentConfig, Experiments, busy},
    registry::{self, Action, Actor, Command, Refusal},
    serving::Servers,
    versions::Versions,
};

/// Tries a version on a share of the sessions: `experiments start VERSION --by NAME --reason TEXT`,
/// `experiments status [ID]`, `experiments list`, `experiments stop ID --reason TEXT`. An
/// experiment may stop a version, and never deploys one.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExperimentsArgs {
    /// Command: `list`, `start`, `status` or `stop` [default: list].
    #[schemars(extend("x-positional" = 1))]
    action: Do,
    /// Id of the version (start), or of the experiment (status, stop).
    #[schemars(extend("x-positional" = 2))]
    id: Option<String>,
    /// Share of the sessions that get the version, in percent [default: 10] (start).
    #[schemars(range(min = 1, max = 99))]
    share: Option<u32>,
    /// Unit that stays with one model: `session`, or `user`, the holder of a key of the router
    /// [default: session] (start).
    unit: Option<Unit>,
    /// Question: `not-worse` by more than the margin, or `better` [default: not-worse] (start).
    question: Option<Question>,
    /// Margin by which the share of good outcomes may be lower [default: 0.05] (start).
    #[schemars(range(min = 0.0, max = 0.5))]
    margin: Option<f64>,
    /// Probability of a wrong answer [default: 0.05] (start).
    #[schemars(range(min = 0.0001, max = 0.2))]
    alpha: Option<f64>,
    /// Sessions after which it ends without an answer [default: 4000] (start).
    #[schemars(range(min = 2, max = 1_000_000))]
    most: Option<u64>,
    /// Guardrail, such as `latency=1.2` or `cost=1.5` (times the mean of the champion),
    /// `error=0.05` or `refusal=0.05` (share of sessions above it); more than one may be given.
    /// They come on top of latency=1.2 and error=0.05, which hold where nothing else is said of
    /// latency and error (start).
    guardrail: Vec<String>,
    /// Ask the version beside the answers of the share, and give nobody what it says (start).
    shadow: bool,
    /// Pattern of the models that are asked for; more than one may be given [default: the alias of
    /// `serving`, and its base where no version serves] (start).
    models: Vec<String>,
    /// Name of the person [default: operator] (start, stop).
    by: Option<String>,
    /// Their reason (start, stop).
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Do {
    /// Show all.
    #[default]
    List,
    /// Start one.
    Start,
    /// Show one: the one that goes on, or the last, where no id is given.
    Status,
    /// End one.
    Stop,
}

/// Experiments that a list shows.
const SHOWN: u32 = 100;

impl Learning {
    pub(crate) fn list_experiments(&mut self, args: ExperimentsArgs) -> Result<Job> {
        let (versions, experiments) = (self.versions.clone(), self.experiments.clone());
        let starting = Starting {
            versions: versions.clone(),
            experiments: experiments.clone(),
            servers: self.servers.clone(),
            config: self.config.experiments.clone(),
        };
        Ok(Job::new(move |_| match (args.action, args.id.as_deref()) {
            (Do::List, None) => list(&versions),
            (Do::List, Some(_)) => {
                Err(Error::usage("`list` takes no id").hint("`status ID` shows one"))
            }
            (Do::Status, id) => status(&versions, &experiments, id),
            (Do::Start, Some(id)) => starting.start(id, &args),
            (Do::Stop, Some(id)) => stop(&versions, &experiments, id, &args),
            (Do::Start, None) => Err(Error::usage("name the version that is tried")
                .hint("`lodestar learning versions` lists them")),
            (Do::Stop, None) => Err(Error::usage("name the experiment by its id")
                .hint("`lodestar learning experiments` lists them")),
        }))
    }
}

/// All that the start of an experiment needs.
struct Starting {
    versions: Versions,
    experiments: Experiments,
    servers: Servers,
    config: ExperimentConfig,
}

impl Starting {
    fn start(&self, id: &str, args: &ExperimentsArgs) -> Result<Reply> {
        let reason = reason(args)?;
        let trial = trial(args)?;
        let version = find(&self.versions, id)?;
        let ledger = self.versions.ledger()?;
        let action = if args.shadow { Action::Shadow } else { Action::Experiment };
        let request = by(person(args), id, reason, Command::Act(action));
        let now = self.versions.host.now().as_millisecond();
        // What is refused is refused before anything is sent anywhere.
        registry::decide(&ledger, self.versions.registry.policy(), &request, now)
            .map_err(|refusal| self.versions.refused(id, &refusal))?;
        if let Some(other) = self.versions.store.read(store::going_on)? {
            return Err(busy(&other));
        }
        let percent = args.share.unwrap_or(10);
        if !args.shadow && percent > self.config.most_percent {
            let most = self.config.most_percent;
            let message = format!(
                "nobody approved {id}, so that it gets {most} % of the sessions at most, and not \
                 {percent} %"
            );
            return Err(Error::of(ErrorKind::Refused, message).hint(format!(
                "`--share {most}`, or another `experiments.most_percent` in the section of learning"
            )));
        }
        let observed = self.versions.observe(&version)?.ok_or_else(|| gone(&version))?;
        if let Some(what) = version.expected().and_then(|it| observed.difference(&it)) {
            return Err(self.versions.refused(id, &Refusal::Changed { what }));
        }
        if self.servers.kind() == Kind::LlamaServer {
            let message = "this server has one adapter for all who ask, so that no share of them \
                           can get another one";
            return Err(Error::of(ErrorKind::Refused, message)
                .hint("leave `serving` out, or serve with Ollama or vLLM"));
        }
        let provider = self.provider()?;
        let place = self.servers.trial(&version)?;
        let (server, adapter) = (place.server(), adapter(&self.versions, &place, &version));
        let new = Stored {
            id: format!("{id}-{}", &uuid::Uuid::new_v4().simple().to_string()[..6]),
            champion: ledger.champion.clone(),
            challenger: id.to_owned(),
            route: Route {
                models: models(args, (&place.alias, &place.base), ledger.champion.is_some()),
                model: adapter.model(),
                provider: Some(provider),
                percent,
                unit: args.unit.unwrap_or_default(),
                outcome_seconds: self.config.outcome_seconds,
            },
            trial,
            started_by: person(args).to_owned(),
            reason: reason.to_owned(),
            created_at: now,
            ended_at: None,
            end_reason: None,
        };
        block_on(async {
            server.install(&adapter).await?;
            server.smoke_test(&adapter).await
        })?;
        self.experiments.try_out(&new)?;
        self.experiments.begin(&new, &request)?;
        if let Err(error) = self.servers.open() {
            let reason = "the server does not answer with the version";
            self.experiments.end(&new.id, Actor::Lodestar, reason)?;
            return Err(error);
        }
        if let Err(error) = self.experiments.settle() {
            tracing::warn!(%error, "the router is told of an experiment later");
        }
        status(&self.versions, &self.experiments, Some(&new.id))
    }

    /// Returns the provider that leads to the server of trained versions.
    ///
    /// # Errors
    ///
    /// When there is none: the router could not send anybody there.
    fn provider(&self) -> Result<String> {
        let (endpoint, provider) = self.servers.endpoint();
        provider.ok_or_else(|| {
            let message = format!("no provider leads to {endpoint}, where the version is served");
            let remedy = self.servers.remedy(&endpoint).unwrap_or_else(|| {
                let api = if self.servers.kind() == Kind::Ollama { "ollama" } else { "openai" };
                format!(
                    "add `tuned: {{base_url: \"{endpoint}\", api: {api}, local: true}}` to \
                     `providers` in modules.yaml"
                )
            });
            Error::of(ErrorKind::Refused, message).hint(format!("{remedy}, {RELOAD}"))
        })
    }
}

fn person(args: &ExperimentsArgs) -> &str {
    args.by.as_deref().unwrap_or("operator")
}

fn reason(args: &ExperimentsArgs) -> Result<&str> {
    let reason = args.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
    reason.ok_or_else(|| Error::usage("say why: --reason TEXT"))
}

/// Returns the patterns of the models in whose place the version answers.
fn models(args: &ExperimentsArgs, (alias, base): (&str, &str), has_champion: bool) -> Vec<String> {
    if !args.models.is_empty() {
        return args.models.clone();
    }
    let mut names = vec![alias];
    // Where the base is no name, the alias leads to it.
    if !has_champion && !Path::new(base).is_absolute() {
        names.push(base);
    }
    let mut all = Vec::new();
    for name in names {
        // Ollama means this tag where none is said.
        let tagged = format!("{name}:latest");
        let forms = if name.contains(':') { vec![name] } else { vec![name, tagged.as_str()] };
        for form in forms {
            all.extend([form.to_owned(), format!("*/{form}")]);
        }
    }
    all
}

fn trial(args: &ExperimentsArgs) -> Result<Trial> {
    let usual = Plan::default();
    let plan = Plan {
        // Pairs have one of each.
        challenger_percent: if args.shadow { 50 } else { args.share.unwrap_or(10) },
        margin: args.margin.unwrap_or(0.05),
        question: args.question.unwrap_or_default(),
        alpha: args.alpha.unwrap_or(usual.alpha),
        most_units: args.most.unwrap_or(usual.most_units),
        guardrails: guardrails(&args.guardrail)?,
    };
    let wrong = |error: PlanError| Error::usage(error.to_string());
    if args.shadow {
        return Ok(Trial::Shadow(Paired::new(plan).map_err(wrong)?));
    }
    Ok(Trial::Split(Experiment::new(plan).map_err(wrong)?))
}

/// Reads guardrails as they are typed.
fn guardrails(given: &[String]) -> Result<BTreeMap<String, Guardrail>> {
    let mut all = BTreeMap::from([
        (LATENCY.to_owned(), Guardrail::MeanTimes(1.2)),
        (ERROR.to_owned(), Guardrail::RatePlus(0.05)),
    ]);
    for text in given.iter().flat_map(|text| text.split([',', ' '])).filter(|it| !it.is_empty()) {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let value: f64 = value.trim().parse().map_err(|_| {
            let shown = plain(text, 40);
            Error::usage(format!("{shown:?} is no guardrail")).hint("write `latency=1.2`")
        })?;
        let guardrail = match name.trim() {
            LATENCY | COST => Guardrail::MeanTimes(value),
            ERROR | REFUSAL => Guardrail::RatePlus(value),
            other => {
                let shown = plain(other, 40);
                return Err(Error::usage(format!("nothing is measured as {shown:?}"))
                    .near(other, [LATENCY, COST, ERROR, REFUSAL]));
            }
        };
        all.insert(name.trim().to_owned(), guardrail);
    }
    Ok(all)
}

fn stop(
    versions: &Versions,
    experiments: &Experiments,
    id: &str,
    args: &ExperimentsArgs,
) -> Result<Reply> {
    let reason = reason(args)?;
    experiments.find(id)?.ok_or_else(|| unknown(id))?;
    experiments.end(id, Actor::Person(person(args).to_owned()), reason)?;
    let told = experiments.settle();
    let reply = status(versions, experiments, Some(id))?;
    // It has ended whether the router knows or not; but who stops one wants to know it.
    told.map(|()| reply).map_err(|error| {
        error
            .context("the experiment has ended, but sessions may still get the version")
            .hint("it is tried again each second, and ends by itself within ten minutes")
    })
}

fn unknown(id: &str) -> Error {
    let shown = plain(id, 100);
    Error::of(ErrorKind::NotFound, format!("there is no experiment {shown:?}"))
        .hint("`lodestar learning experiments` lists them")
}

fn status(versions: &Versions, experiments: &Experiments, id: Option<&str>) -> Result<Reply> {
    let found = versions.store.read(|connection| {
        let stored = match id {
            Some(id) => store::load(connection, id)?,
            None => store::list(connection, 1)?.pop(),
        };
        match stored {
            Some(stored) => {
                let waiting = store::waiting(connection, &stored.id)?;
                Ok(Some((stored, waiting)))
            }
            None => Ok(None),
        }
    })?;
    let (stored, waiting) = found.ok_or_else(|| match id {
        Some(id) => unknown(id),
        None => Error::of(ErrorKind::NotFound, "there is no experiment")
            .hint("`lodestar learning experiments start VERSION --reason TEXT` starts one"),
    })?;
    let mut shown = data(&stored);
    shown["waiting"] = waiting.into();
    let trouble = experiments.trouble().filter(|_| stored.ended_at.is_none());
    shown["trouble"] = json!(trouble);
    let mut table = measures(&shown);
    table.title = format!("Experiment {}: {}", stored.id, state(&stored));
    table.notes = notes(&stored, waiting);
    table.notes.extend(trouble);
    Ok(Reply::json(&shown)?.table(table))
}

fn list(versions: &Versions) -> Result<Reply> {
    let all = versions.store.read(|connection| store::list(connection, SHOWN))?;
    let mut table =
        Table::new(["ID", "STATE", "VERSION", "SHARE#", "UNIT", "STARTED", "BY", "ENDED BECAUSE"]);
    for stored in &all {
        table.row([
            stored.id.clone(),
            state(stored).to_owned(),
            stored.challenger.clone(),
            format!("{}%", stored.route.percent),
            stored.route.unit.as_str().to_owned(),
            minute(stored.created_at),
            stored.started_by.clone(),
            stored.end_reason.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    if all.is_empty() {
        let note = "There are no experiments. `lodestar learning experiments start VERSION \
                    --reason TEXT` starts one.";
        table.notes.push(note.to_owned());
    }
    Ok(Reply::json(&all.iter().map(data).collect::<Vec<_>>())?.table(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guardrails_are_read() {
        let read = |text: &[&str]| {
            let given: Vec<String> = text.iter().map(|it| (*it).to_owned()).collect();
            guardrails(&given)
        };
        let all = read(&["latency=1.5,error=0.1", "cost=2"]).expect("they are guardrails");
        assert_eq!(all[LATENCY], Guardrail::MeanTimes(1.5));
        // What is given does not take the others away.
        let more = read(&["cost=2"]).expect("it is one");
        assert_eq!(more.keys().collect::<Vec<_>>(), [COST, ERROR, LATENCY]);
        assert_eq!((all[ERROR], all[COST]), (Guardrail::RatePlus(0.1), Guardrail::MeanTimes(2.0)));
        let usual = read(&[]).expect("they are guardrails");
        assert_eq!(usual.keys().collect::<Vec<_>>(), [ERROR, LATENCY]);
        for (bad, words) in [
            ("latency", "is no guardrail"),
            ("latency=x", "is no guardrail"),
            ("latncy=1.2", "did you mean `latency`?"),
        ] {
            let error = read(&[bad]).expect_err("it is none").to_string();
            assert!(error.contains(words), "{error}");
        }
        let args = ExperimentsArgs { guardrail: vec!["error=7".to_owned()], ..Default::default() };
        assert!(trial(&args).expect_err("it is too much").to_string().contains("guardrails"));
    }

    #[test]
    fn the_alias_is_tried_and_the_base_where_nothing_serves() {
        let names = ("shop", "qwen3:0.6b");
        let args = ExperimentsArgs::default();
        let alias = ["shop", "*/shop", "shop:latest", "*/shop:latest"];
        assert_eq!(models(&args, names, true), alias);
        let both = [&alias[..], &["qwen3:0.6b", "*/qwen3:0.6b"]].concat();
        assert_eq!(models(&args, names, false), both);
        assert_eq!(models(&args, ("shop", "/models/tiny"), false), alias);
        let args = ExperimentsArgs { models: vec!["auto".to_owned()], ..Default::default() };
        assert_eq!(models(&args, names, false), ["auto"]);
    }
}

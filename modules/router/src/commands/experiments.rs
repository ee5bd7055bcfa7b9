//! `lodestar router experiments`.

use std::sync::Arc;

use futures_util::future::join_all;
use module_sdk::{Error, ErrorKind, Job, Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Router,
    app::App,
    routing::{
        Offer,
        experiment::{ExperimentOptions, Unit},
        running::Begun,
    },
};

/// Begins, shows and ends experiments beside those of the configuration: `experiments list`,
/// `experiments begin ID --use MODEL`, `experiments end ID`. Other modules use it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExperimentsArgs {
    /// Command: `list`, `begin` or `end` [default: list].
    #[serde(default)]
    #[schemars(extend("x-positional" = 1))]
    action: ExperimentsAction,
    /// Id of the experiment; `variant` of events begins with it.
    #[serde(default)]
    #[schemars(extend("x-positional" = 2))]
    id: Option<String>,
    /// Pattern of the models that are asked for; more than one may be given [default: auto]
    /// (begin).
    #[serde(default)]
    models: Vec<String>,
    /// Model of the variant; where more are given, the first that can answers (begin).
    #[serde(default, rename = "use")]
    targets: Vec<String>,
    /// Share of the units that get the variant, or that are asked beside, from 0 to 1
    /// [default: 0.1] (begin).
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    share: Option<f64>,
    /// Unit that stays on its side: `session`, `key` or `user` [default: session] (begin).
    #[serde(default)]
    by: Option<Unit>,
    /// Seed of the draw [default: the id] (begin).
    #[serde(default)]
    salt: Option<String>,
    /// Model that is asked beside the answers of those who do not get the variant (begin).
    #[serde(default)]
    shadow: Option<String>,
    /// Time after which it ends where nobody begins it once more, seconds [default: never]
    /// (begin).
    #[serde(default)]
    #[schemars(range(min = 1, max = 604_800))]
    lease_seconds: Option<u32>,
    /// Only check that it could begin (begin).
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ExperimentsAction {
    /// Show all.
    #[default]
    List,
    /// Begin one.
    Begin,
    /// End one.
    End,
}

/// Longest id and salt, in bytes.
const LONGEST: usize = 128;

impl Router {
    pub(crate) fn experiments(&mut self, args: ExperimentsArgs) -> Result<Job> {
        let (app, runtime) = (self.app.clone(), self.app.host.runtime()?);
        Ok(Job::new(move |_| match (args.action, args.id.clone()) {
            (ExperimentsAction::List, None) => list(&app),
            (ExperimentsAction::List, Some(_)) => Err(Error::usage("`list` takes no id")),
            (_, None) => Err(Error::usage("name the experiment by its id")),
            (ExperimentsAction::End, Some(id)) => end(&app, &id),
            (ExperimentsAction::Begin, Some(id)) => {
                let is_dry = args.dry_run;
                let begun = begun(args, id, &app)?;
                let shared = app.clone();
                let options = begun.options();
                let looked = async move { find_models(&shared, &options).await };
                runtime.block_on(runtime.spawn(looked))??;
                let is_new = if is_dry {
                    false
                } else {
                    app.policy.running.begin(&app.host, begun.clone())?
                };
                let mut shown = shown(&begun, "running");
                shown["is_new"] = is_new.into();
                let mut table = Table::default();
                let word = if is_dry { "could begin" } else { "goes on" };
                table.notes.push(format!("experiment {} {word}", begun.id));
                Ok(Reply::json(&shown)?.table(table))
            }
        }))
    }
}

/// Returns the experiment that arguments describe.
fn begun(args: ExperimentsArgs, id: String, app: &App) -> Result<Begun> {
    let is_plain = |text: &str| {
        let is_of = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        (1..=LONGEST).contains(&text.len()) && text.chars().all(is_of)
    };
    let salt = args.salt.unwrap_or_else(|| id.clone());
    if !is_plain(&id) || !is_plain(&salt) {
        let error = Error::usage("the id or the salt has another form");
        return Err(error.hint("use 1 to 128 letters, digits, `-`, `_` and `.`"));
    }
    if app.config.routing.experiments.iter().any(|it| it.name == id) {
        let message = format!("an experiment of the configuration is called {id:?}");
        return Err(Error::of(ErrorKind::Refused, message));
    }
    let share = args.share.unwrap_or(0.1);
    let names = args.models.iter().chain(&args.targets).chain(&args.shadow);
    if names.clone().any(|name| name.trim().is_empty() || name.chars().any(char::is_control)) {
        return Err(Error::usage("the name of a model is empty, or cannot be seen"));
    }
    let begun = Begun {
        id,
        models: args.models,
        targets: args.targets,
        share,
        by: args.by.unwrap_or(Unit::Session),
        salt,
        shadow: args.shadow,
        lease_seconds: args.lease_seconds,
        created_at: app.host.now(),
    };
    let refused = |error: Error| Error::usage(error.to_string());
    app.policy.check_experiment(&begun.options()).map_err(refused)?;
    Ok(begun)
}

/// Looks for the models of an experiment; asks the providers where one is not known.
///
/// # Errors
///
/// When no provider has one of them.
async fn find_models(app: &Arc<App>, experiment: &ExperimentOptions) -> Result<()> {
    let missing = || {
        let (targets, providers) = (app.targets.views(), app.targets.provider_views());
        let offer = Offer { targets: &targets, providers: &providers };
        app.policy.missing(experiment, &offer)
    };
    if missing().is_none() {
        return Ok(());
    }
    // One that was made a moment ago is not known yet.
    let asked = app.targets.providers.values().map(|it| app.targets.discover(&app.pool, it));
    join_all(asked).await;
    match missing() {
        None => Ok(()),
        Some(refusal) => Err(Error::of(ErrorKind::NotFound, refusal.to_string())
            .hint("`lodestar router targets` lists the models")),
    }
}

fn end(app: &App, id: &str) -> Result<Reply> {
    if !app.policy.running.end(&app.host, id)? {
        let message = format!("no experiment {id:?} goes on that a command began");
        return Err(Error::of(ErrorKind::NotFound, message)
            .hint("those of the configuration end there: `routing.experiments`"));
    }
    let mut table = Table::default();
    table.notes.push(format!("experiment {id} has ended"));
    Ok(Reply::json(&json!({"id": id, "state": "ended"}))?.table(table))
}

fn list(app: &App) -> Result<Reply> {
    let mut table = Table::new(["ID", "FROM", "SHARE#", "BY", "VARIANT", "SHADOW", "STATE"]);
    let mut all: Vec<Value> = Vec::new();
    for it in &app.config.routing.experiments {
        all.push(json!({
            "id": it.name, "origin": "configuration", "state": "running", "created_at": null,
            "models": it.models.0, "use": it.targets.0, "share": it.share, "by": it.by,
            "salt": it.name, "shadow": it.shadow,
        }));
    }
    let now = app.host.now();
    for it in app.policy.running.current().iter() {
        all.push(shown(&it.begun, if it.goes_on(now) { "running" } else { "lapsed" }));
    }
    for it in &all {
        let text = |key: &str| it[key].as_str().unwrap_or("-").to_owned();
        let names = it["use"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let names: Vec<&str> = names.collect();
        let share = format!("{:.0}%", it["share"].as_f64().unwrap_or_default() * 100.0);
        let variant = if names.is_empty() { "-".to_owned() } else { names.join(", ") };
        let (from, by) = (text("origin"), text("by"));
        table.row([text("id"), from, share, by, variant, text("shadow"), text("state")]);
    }
    if all.is_empty() {
        table.notes.push("no experiment goes on".to_owned());
    }
    Ok(Reply::json(&all)?.table(table))
}

fn shown(begun: &Begun, state: &str) -> Value {
    json!({
        "id": begun.id, "origin": "command", "state": state,
        "created_at": begun.created_at.to_string(), "models": begun.models, "use": begun.targets,
        "share": begun.share, "by": begun.by, "salt": begun.salt, "shadow": begun.shadow,
        "lease_seconds": begun.lease_seconds,
    })
}

//! `lodestar router policy`: what the strategy `learned` decides by, and what it may learn from.

use module_sdk::{Error, ErrorKind, Job, Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::shown::visible;
use crate::{
    Router,
    app::App,
    labels::{log::Forgotten, policy},
    routing::learned::{
        Label, Sample,
        approved::{Approved, digest_of},
        saved,
    },
};

/// Shows by what the strategy `learned` decides: `policy show`. `lodestar learning labels` trains
/// policies and lets a person approve them; it uses the other actions.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyArgs {
    /// Command: `show`, `labels`, `train`, `refresh` or `forget` [default: show].
    #[serde(default)]
    #[schemars(extend("x-positional" = 1))]
    action: Action,
    /// Labels to learn from, in their order.
    #[serde(default)]
    train: Vec<Chosen>,
    /// Requests that are only predicted.
    #[serde(default)]
    held_out: Vec<Chosen>,
    /// Shares of the paid model's right answers that are to be kept, the first that of the policy.
    #[serde(default)]
    promises: Vec<f64>,
    /// Project whose labels are to be forgotten.
    #[serde(default)]
    project: Option<String>,
    /// Session whose labels are to be forgotten.
    #[serde(default)]
    session: Option<String>,
    /// Time before which labels are to be forgotten, in milliseconds since the Unix epoch.
    #[serde(default)]
    before: Option<i64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Show by what it decides.
    #[default]
    Show,
    /// List the labels, without their features.
    Labels,
    /// Learn a policy from labels, and predict others.
    Train,
    /// Ask `learning` which policy is approved.
    Refresh,
    /// Delete labels.
    Forget,
}

/// A label that is chosen.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Chosen {
    /// Id of the request.
    id: String,
    /// SHA-256 of its packed features.
    features: String,
    /// `true` when the local model was right.
    #[serde(default)]
    local: Option<bool>,
    /// `true` when the paid model was right.
    #[serde(default)]
    paid: Option<bool>,
}

impl Router {
    pub(crate) fn policy(&mut self, args: PolicyArgs) -> Result<Job> {
        let app = self.app.clone();
        Ok(Job::new(move |_| match args.action {
            Action::Show => show(&app),
            Action::Labels => labels(&app),
            Action::Train => train(&app, &args),
            Action::Refresh => {
                policy::refresh(&app)?;
                show(&app)
            }
            Action::Forget => forget(&app, args),
        }))
    }
}

fn show(app: &App) -> Result<Reply> {
    let approved = app.labels.learned.approved();
    let mut table = Table::default();
    table.notes.push(match &approved {
        Some(policy) => format!(
            "a policy that was approved decides: {}, which keeps {:.0} % of the paid answers",
            policy.digest,
            100.0 * policy.promise
        ),
        None => format!(
            "no policy was approved; {} labels were learned from as they came",
            app.labels.learned.labels()
        ),
    });
    let kept = app.labels.log.read()?.len();
    table.notes.push(format!("{kept} judged requests are kept as labels"));
    Ok(Reply::json(&json!({
        "policy": approved.as_ref().map(|it| &it.digest),
        "promise": approved.as_ref().map(|it| it.promise),
        "learned": app.labels.learned.labels(),
        "labels": kept,
        "features": saved::VERSION,
    }))?
    .table(table))
}

fn labels(app: &App) -> Result<Reply> {
    let all: Vec<Value> = app
        .labels
        .log
        .read()?
        .iter()
        .map(|it| {
            json!({
                "id": it.judged.id, "at": it.judged.at, "project": it.judged.project,
                "session": it.judged.session, "signs": it.signs,
                "features": digest_of(&it.sample),
            })
        })
        .collect();
    let mut table = Table::new(["REQUEST", "PROJECT", "SIGNS#"]);
    for label in &all {
        let signs = label["signs"].as_array().map_or(0, Vec::len);
        let text = |key: &str| visible(label[key].as_str().unwrap_or("-"));
        table.row([text("id"), text("project"), signs.to_string()]);
    }
    Ok(Reply::json(&json!({"features": saved::VERSION, "labels": all}))?.table(table))
}

/// Learns a policy. Nothing decides by it: that takes an approval.
fn train(app: &App, args: &PolicyArgs) -> Result<Reply> {
    let Some(promise) = args.promises.first() else {
        return Err(Error::usage("say which share of the paid answers is to be kept: --promises"));
    };
    if args.promises.iter().any(|it| !(0.5..=1.0).contains(it)) {
        return Err(Error::usage("a promise is a share from 0.5 to 1"));
    }
    let kept = app.labels.log.read()?;
    let kept: std::collections::HashMap<&str, &str> =
        kept.iter().map(|it| (it.judged.id.as_str(), it.sample.as_str())).collect();
    let sample = |chosen: &Chosen| {
        let found = kept.get(chosen.id.as_str()).filter(|it| digest_of(it) == chosen.features);
        found.and_then(|text| Sample::unpack(text).ok()).ok_or_else(gone)
    };
    let learned = args.train.iter().map(|it| {
        let label = Label { is_local_right: it.local, is_paid_right: it.paid };
        sample(it).map(|sample| (sample, label))
    });
    let learned = learned.collect::<Result<Vec<_>>>()?;
    let trained = Approved::train(&learned, *promise)
        .map_err(|error| Error::of(ErrorKind::Refused, format!("the policy {error}")))?;
    let samples = args.held_out.iter().map(sample).collect::<Result<Vec<_>>>()?;
    let at = |promise: &f64| trained.policy.local_at(*promise, &samples);
    let local_at: Vec<Vec<bool>> = args.promises.iter().map(at).collect();
    let held_out: Vec<Value> = args
        .held_out
        .iter()
        .zip(&samples)
        .enumerate()
        .map(|(index, (chosen, sample))| {
            let opinion = trained.policy.opinion(sample);
            json!({
                "id": chosen.id, "local": opinion.local, "paid": opinion.paid,
                "strange": opinion.is_strange,
                "local_at": local_at.iter().map(|all| all[index]).collect::<Vec<_>>(),
            })
        })
        .collect();
    let mut table = Table::default();
    table.notes.push(format!("learned from {} labels; nothing decides by it", learned.len()));
    Ok(Reply::json(&json!({
        "digest": trained.policy.digest, "features": saved::VERSION,
        "held_out": held_out, "file": trained.file,
    }))?
    .table(table))
}

fn gone() -> Error {
    Error::of(ErrorKind::Refused, "some of these labels are not kept any more")
        .hint("`lodestar learning labels build` makes another set")
}

fn forget(app: &App, args: PolicyArgs) -> Result<Reply> {
    let forgotten = match (args.project, args.session, args.before) {
        (Some(project), None, None) => Forgotten::Project(project),
        (None, Some(session), None) => Forgotten::Session(session),
        (None, None, Some(time)) => Forgotten::Before(time),
        _ => {
            let error = Error::usage("say which labels are to be forgotten");
            return Err(error.hint("one of --project, --session and --before"));
        }
    };
    // Whose features still wait is not asked one by one.
    app.labels.forget_awaited();
    let count = app.labels.log.forget(&forgotten)?;
    let mut table = Table::default();
    table.notes.push(format!("{count} labels forgotten"));
    Ok(Reply::json(&json!({"labels": count}))?.table(table))
}

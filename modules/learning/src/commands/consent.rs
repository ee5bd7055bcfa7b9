//! `lodestar learning consent`.

use module_sdk::{Error, ErrorKind, Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{counted, minute, name, plain, taken_back, taken_back_data, time, word};
use crate::{
    Learning,
    licence::spelt,
    maintenance::DAY_MS,
    store::{Attestation, Consent, NewConsent, Scope},
};

/// Says who agreed that text is learnt from: `consent grant PROJECT --by NAME --days 30`,
/// `consent list`, `consent revoke PROJECT`. `consent attest MODEL --by NAME --statement TEXT`
/// answers for a model whose terms are restricted or unknown; `consent attest --unattributed
/// PROJECT` for answers that name no model.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConsentArgs {
    /// Command: `grant`, `list`, `revoke` or `attest` [default: list].
    #[serde(default)]
    #[schemars(extend("x-positional" = 1))]
    action: Action,
    /// The project, or the model to answer for.
    #[serde(default)]
    #[schemars(extend("x-positional" = 2))]
    name: Option<String>,
    /// Name of the person who agrees, revokes or answers.
    #[serde(default)]
    by: Option<String>,
    /// For how many days (grant) [default: 30].
    #[serde(default)]
    #[schemars(range(min = 1, max = 365))]
    days: Option<u32>,
    /// Ways in which text may come (grant) [default: all].
    #[serde(default)]
    scope: Option<Scope>,
    /// Statement by which a model may be learnt from (attest).
    #[serde(default)]
    statement: Option<String>,
    /// A project whose answers name no model, in the place of a model (attest).
    #[serde(default)]
    unattributed: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Agree for a project.
    Grant,
    /// Show who agreed to what.
    #[default]
    List,
    /// Take back what was agreed for a project.
    Revoke,
    /// Answer for a model.
    Attest,
}

/// Days of a consent where nothing else is said.
const DAYS: u32 = 30;
/// Most characters of a statement.
const LONGEST_STATEMENT: usize = 1_000;

impl Learning {
    pub(crate) fn consent(&mut self, args: ConsentArgs) -> Result<Reply> {
        let subject = args.name.as_deref();
        if let Some(project) = &args.unattributed {
            return match (args.action, subject) {
                (Action::Attest, None) => {
                    let project = name("the project", project)?.to_owned();
                    self.attest((String::new(), Some(project)), &args)
                }
                _ => Err(Error::usage("--unattributed is for `attest`, in the place of a model")),
            };
        }
        match (args.action, subject) {
            (Action::List, None) => self.list_consents(),
            (Action::List, Some(_)) => {
                Err(Error::usage("`list` takes no name; `lodestar learning consent` lists all"))
            }
            (Action::Attest, None) => {
                Err(Error::usage("name the model").hint("such as `consent attest llama3.2`"))
            }
            (_, None) => {
                Err(Error::usage("name the project").hint("such as `consent grant shop --by ada`"))
            }
            (Action::Grant, Some(project)) => self.grant(name("the project", project)?, &args),
            (Action::Revoke, Some(project)) => self.revoke(name("the project", project)?, &args),
            (Action::Attest, Some(model)) => {
                self.attest((spelt(name("the model", model)?), None), &args)
            }
        }
    }

    fn grant(&self, project: &str, args: &ConsentArgs) -> Result<Reply> {
        let by = by(args)?;
        let now = self.now();
        let consent = self.store.grant(&NewConsent {
            project: project.to_owned(),
            by: by.to_owned(),
            scope: args.scope.unwrap_or_default(),
            at: now,
            expires_at: now + i64::from(args.days.unwrap_or(DAYS)) * DAY_MS,
        })?;
        let mut table = Table::default();
        let until = minute(consent.expires_at);
        table
            .notes
            .push(format!("{by} agrees that text of {project} is learnt from until {until}"));
        if consent.scope.covers(Scope::Capture) {
            table.notes.push(format!(
                "text of requests comes only where `privacy.full_logging` is on and \
                 `privacy.full_logging_projects` has {project}"
            ));
        }
        Ok(Reply::json(&shown(&consent, now))?.table(table))
    }

    fn list_consents(&self) -> Result<Reply> {
        let now = self.now();
        let (consents, attested) = (self.store.consents()?, self.store.attestations()?);
        let mut table = Table::new(["PROJECT", "BY", "SCOPE", "SINCE", "UNTIL", "STATE"]);
        for consent in &consents {
            table.row([
                consent.project.clone(),
                consent.by.clone(),
                consent.scope.as_str().to_owned(),
                minute(consent.granted_at),
                minute(consent.revoked_at.unwrap_or(consent.expires_at)),
                consent.state(now).to_owned(),
            ]);
        }
        if consents.is_empty() {
            table.notes.push(
                "Nobody has agreed: nothing is kept. `lodestar learning consent grant PROJECT --by \
                 NAME` agrees for a project."
                    .to_owned(),
            );
        }
        for one in &attested {
            table.notes.push(format!(
                "{} answers for {} since {}: {}",
                one.by,
                one.subject(str::to_owned),
                minute(one.at),
                plain(&one.statement, 200)
            ));
        }
        let consents: Vec<Value> = consents.iter().map(|one| shown(one, now)).collect();
        let data = json!({"consents": consents, "attestations": attestations(&attested)});
        Ok(Reply::json(&data)?.table(table))
    }

    fn revoke(&self, project: &str, args: &ConsentArgs) -> Result<Reply> {
        let by = args.by.as_deref().map_or(Ok("somebody"), |by| name("--by", by))?;
        let now = self.now();
        let (revoked, stale) = self.store.revoke(project, by, now)?;
        if revoked.is_empty() {
            let error = format!("nobody has agreed for {project}, or it was taken back already");
            return Err(Error::of(ErrorKind::NotFound, error)
                .hint("`lodestar learning consent` lists who agreed to what"));
        }
        let mut table = Table::default();
        let marked = self.versions.taint().and_then(|tainted| {
            self.training.stop_tainted()?;
            Ok(tainted)
        });
        let tainted = marked.unwrap_or_else(|error| {
            tracing::warn!(%error, "versions that were learnt from it cannot be marked");
            table.notes.push(format!("versions that were learnt from it are not marked: {error}"));
            Vec::new()
        });
        table.notes.push(format!(
            "text of {project} is neither kept nor used any more; `lodestar learning forget \
             --project {}` deletes what is here",
            word(project)
        ));
        if !stale.is_empty() {
            let datasets = counted(stale.len() as u64, "dataset");
            table.notes.push(format!("{datasets} with such text must not be trained on any more"));
        }
        table.notes.extend(taken_back(&tainted));
        let data = json!({
            "project": project, "revoked": revoked, "stale_datasets": stale,
            "tainted": taken_back_data(&tainted),
        });
        Ok(Reply::json(&data)?.table(table))
    }

    fn attest(
        &self,
        (model, project): (String, Option<String>),
        args: &ConsentArgs,
    ) -> Result<Reply> {
        let by = by(args)?;
        let statement = args.statement.as_deref().unwrap_or_default().trim();
        if statement.is_empty() {
            let error = Error::usage("say by what the model may be learnt from: --statement TEXT");
            return Err(error.hint("it stands on the card of each dataset"));
        }
        let attestation = Attestation {
            model,
            project,
            by: by.to_owned(),
            statement: plain(statement, LONGEST_STATEMENT),
            at: self.now(),
        };
        self.store.attest(&attestation)?;
        let mut table = Table::default();
        let said = match &attestation.project {
            Some(_) => attestation.subject(str::to_owned),
            None => format!("answers of {}", attestation.model),
        };
        table.notes.push(format!("{said} may be learnt from; {by} answers for it"));
        Ok(Reply::json(&attestations(&[attestation])[0])?.table(table))
    }
}

/// Returns the name of the person who acts.
fn by(args: &ConsentArgs) -> Result<&str> {
    let by = args.by.as_deref().ok_or_else(|| {
        Error::usage("say who agrees: --by NAME").hint("it is recorded, and shown to others")
    })?;
    name("--by", by)
}

fn shown(consent: &Consent, now: i64) -> Value {
    json!({
        "id": consent.id,
        "project": consent.project,
        "by": consent.by,
        "scope": consent.scope.as_str(),
        "state": consent.state(now),
        "granted_at": time(consent.granted_at),
        "expires_at": time(consent.expires_at),
        "revoked_at": consent.revoked_at.and_then(time),
        "revoked_by": consent.revoked_by,
    })
}

fn attestations(all: &[Attestation]) -> Vec<Value> {
    let one = |it: &Attestation| {
        json!({
            "model": it.project.is_none().then_some(&it.model), "project": it.project,
            "by": it.by, "statement": it.statement, "at": time(it.at),
        })
    };
    all.iter().map(one).collect()
}

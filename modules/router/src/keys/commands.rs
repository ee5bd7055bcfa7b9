//! `lodestar router keys`.

use std::time::Duration;

use module_sdk::{Error, ErrorKind, Reply, Result, Table, jiff::Timestamp, nearest};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Keys, MOST_KEYS,
    secret::{NewSecret, random_text},
    span::Span,
    stored::{KeyState, StoredKey, StoredSecret},
};
use crate::limits::Allowance;

/// Makes, shows and ends virtual keys: `keys create NAME`, `keys list`, `keys revoke NAME`,
/// `keys rotate NAME`. A key is shown once, when it is made.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysArgs {
    /// Command: `create`, `list`, `revoke` or `rotate` [default: list].
    #[serde(default)]
    #[schemars(extend("x-positional" = 1))]
    action: KeysAction,
    /// Name of the key, or its id.
    #[serde(default)]
    #[schemars(extend("x-positional" = 2))]
    name: Option<String>,
    /// Project of its requests (create).
    #[serde(default)]
    project: Option<String>,
    /// Models that it may use, with `*` for any characters, apart by commas: `home/*,gpt-5-mini`
    /// [default: all] (create).
    #[serde(default)]
    models: Option<String>,
    /// Time after which it ends: `12h`, `30d` [default: never] (create, rotate).
    #[serde(default)]
    expires: Option<Span>,
    /// Time for which the former secret still counts: `0s`, `1h`
    /// [default: keys.rotation_grace_hours] (rotate).
    #[serde(default)]
    grace: Option<Span>,
    /// Show keys that have ended as well (list).
    #[serde(default)]
    all: bool,
    #[serde(flatten)]
    limits: Allowance,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum KeysAction {
    /// Make a key.
    Create,
    /// Show the keys.
    #[default]
    List,
    /// End a key at once.
    Revoke,
    /// Give a key a new secret.
    Rotate,
}

impl Keys {
    /// Answers `router keys`.
    ///
    /// # Errors
    ///
    /// When the arguments do not fit, or the keys cannot be written.
    pub(crate) fn command(&mut self, args: KeysArgs) -> Result<Reply> {
        let name = args.name.as_deref();
        match (args.action, name) {
            (KeysAction::List, None) => self.list(args.all),
            (KeysAction::List, Some(_)) => {
                Err(Error::usage("`list` takes no name; `lodestar router keys` lists all"))
            }
            (_, None) => Err(Error::usage("name the key").hint("such as `keys create laptop`")),
            (KeysAction::Create, Some(name)) => self.create(name, &args),
            (KeysAction::Revoke, Some(name)) => self.revoke(name),
            (KeysAction::Rotate, Some(name)) => self.rotate(name, &args),
        }
    }

    fn create(&mut self, name: &str, args: &KeysArgs) -> Result<Reply> {
        check_name("a key", name)?;
        if let Some(project) = &args.project {
            check_name("a project", project)?;
        }
        args.limits.check("").map_err(|error| Error::usage(error.to_string()))?;
        if self.stored.keys.iter().any(|key| key.name == name && key.revoked_at.is_none()) {
            let error = Error::usage(format!("there is a key `{name}` already"));
            return Err(error.hint("rotate or revoke it, or choose another name"));
        }
        if self.stored.keys.len() >= MOST_KEYS {
            return Err(Error::usage(format!("there are {MOST_KEYS} keys already")));
        }
        let now = self.host.now();
        let secret = NewSecret::make()?;
        let key = StoredKey {
            id: format!("k_{}", random_text(12)?),
            name: name.to_owned(),
            project: args.project.clone(),
            models: models(args.models.as_deref())?,
            limits: args.limits,
            secrets: vec![stored(&secret)],
            created_at: now,
            expires_at: args.expires.map(|span| after(now, span.0)).transpose()?,
            revoked_at: None,
        };
        let reply = told(&key, &secret, now)?;
        let mut keys = self.stored.keys.clone();
        keys.push(key);
        self.commit(keys)?;
        Ok(reply)
    }

    fn list(&self, all: bool) -> Result<Reply> {
        let now = self.host.now();
        let shown = |key: &&StoredKey| all || key.state(now) == KeyState::Active;
        let keys: Vec<&StoredKey> = self.stored.keys.iter().filter(shown).collect();
        let mut table =
            Table::new(["NAME", "KEY", "PROJECT", "MODELS", "LIMITS", "EXPIRES", "STATE"]);
        for key in &keys {
            let limits: Vec<String> = key.limits.limits().map(|limit| limit.to_string()).collect();
            let models = if key.models.is_empty() { "all".into() } else { key.models.join(", ") };
            table.row([
                key.name.clone(),
                format!("{}…", key.prefix()),
                key.project.clone().unwrap_or_default(),
                models,
                limits.join(", "),
                key.expires_at.map_or_else(|| "never".to_owned(), date),
                key.state(now).name().to_owned(),
            ]);
        }
        let ended = self.stored.keys.len() - keys.len();
        match (keys.len(), ended) {
            (0, 0) => {
                let note = "There are no keys. `lodestar router keys create NAME` makes one.";
                table.notes.push(note.to_owned());
            }
            (_, 0) => {}
            (_, ended) => {
                table.notes.push(format!("{ended} that have ended are not shown; --all does"));
            }
        }
        let data: Vec<Value> = keys.into_iter().map(|key| key_json(key, now)).collect();
        Ok(Reply::json(&data)?.table(table))
    }

    fn revoke(&mut self, name: &str) -> Result<Reply> {
        let now = self.host.now();
        let mut keys = self.stored.keys.clone();
        let key = find(&mut keys, name)?;
        key.revoked_at = Some(now);
        let (data, name) = (key_json(key, now), key.name.clone());
        self.commit(keys)?;
        let note = format!("The key `{name}` counts no more.");
        Ok(Reply::json(&data)?.table(Table { notes: vec![note], ..Table::default() }))
    }

    fn rotate(&mut self, name: &str, args: &KeysArgs) -> Result<Reply> {
        let now = self.host.now();
        let configured = Duration::from_secs(u64::from(self.options.rotation_grace_hours) * 3_600);
        let grace_ends = after(now, args.grace.map_or(configured, |span| span.0))?;
        let mut keys = self.stored.keys.clone();
        let key = find(&mut keys, name)?;
        let secret = NewSecret::make()?;
        key.secrets.retain(|secret| secret.valid_until.is_none_or(|end| end > now));
        for former in &mut key.secrets {
            let end = former.valid_until.map_or(grace_ends, |end| end.min(grace_ends));
            former.valid_until = Some(end);
        }
        key.secrets.push(stored(&secret));
        if let Some(span) = args.expires {
            key.expires_at = Some(after(now, span.0)?);
        } else if key.state(now) == KeyState::Expired {
            let error = Error::usage(format!("the key `{name}` has expired"));
            return Err(error.hint("say for how long it counts from now on: --expires 30d"));
        }
        let mut reply = told(key, &secret, now)?;
        self.commit(keys)?;
        if let (Some(table), true) = (&mut reply.table, grace_ends > now) {
            table.notes.push(format!("The former secret counts until {grace_ends:.0}."));
        }
        Ok(reply)
    }
}

fn stored(secret: &NewSecret) -> StoredSecret {
    StoredSecret { sha256: secret.digest(), prefix: secret.shown(), valid_until: None }
}

/// Returns the answer that holds a new secret.
fn told(key: &StoredKey, secret: &NewSecret, now: Timestamp) -> Result<Reply> {
    let mut data = key_json(key, now);
    // The daemon takes out of answers what is named `secret`.
    data["key"] = secret.expose().into();
    let notes = vec![
        secret.expose().to_owned(),
        format!("This is the key `{}`. Keep it: it is shown this once.", key.name),
    ];
    Ok(Reply::json(&data)?.table(Table { notes, ..Table::default() }))
}

/// Returns the key of a name or id that is not revoked.
fn find<'a>(keys: &'a mut [StoredKey], name: &str) -> Result<&'a mut StoredKey> {
    let live = |key: &&StoredKey| key.revoked_at.is_none();
    let names: Vec<String> = keys.iter().filter(live).map(|key| key.name.clone()).collect();
    let fits =
        |key: &&mut StoredKey| key.revoked_at.is_none() && (key.name == name || key.id == name);
    keys.iter_mut().find(fits).ok_or_else(|| {
        let error = Error::of(ErrorKind::NotFound, format!("there is no key `{name}`"));
        match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("`lodestar router keys list` shows them"),
        }
    })
}

fn models(text: Option<&str>) -> Result<Vec<String>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let models: Vec<String> = text.split(',').map(|model| model.trim().to_owned()).collect();
    let is_wrong = |model: &String| model.is_empty() || model.chars().any(char::is_control);
    if models.iter().any(is_wrong) {
        let error = Error::usage("--models holds an empty name");
        return Err(error.hint("write patterns apart by commas: `home/*,gpt-5-mini`"));
    }
    Ok(models)
}

fn check_name(what: &str, name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '/');
    if (1..=64).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(());
    }
    let error = Error::usage(format!("{what} cannot be called so"));
    Err(error.hint("use 1 to 64 of the letters a-z, digits, `-`, `_`, `.`, `@` and `/`"))
}

fn after(now: Timestamp, span: Duration) -> Result<Timestamp> {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    Ok(Timestamp::from_second(now.as_second().saturating_add(seconds))?)
}

fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn key_json(key: &StoredKey, now: Timestamp) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix(),
        "project": key.project,
        "models": key.models,
        "limits": key.limits,
        "created_at": time_json(key.created_at),
        "expires_at": key.expires_at.map(time_json),
        "revoked_at": key.revoked_at.map(time_json),
        "state": key.state(now).name(),
    })
}

fn time_json(time: Timestamp) -> String {
    format!("{time:.3}")
}

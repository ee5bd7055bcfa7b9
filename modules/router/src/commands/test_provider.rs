//! `lodestar router test`.

use std::{sync::Arc, time::Duration};

use module_prices::Tokens;
use module_sdk::{
    Error, ErrorKind, Job, ProviderApi, Reply, Result, Table, Usd, events::RequestStatus, human,
    nearest,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::shown::{money, visible};
use crate::{
    Router,
    app::App,
    dialect::fault::Fault,
    exchange::{self, OwnAnswer},
    journal::{Attempt, Purpose},
    server,
    target::{ProviderState, Target},
};

/// Asks a provider for one word and says what came of it. The exit code is 1 where it failed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestArgs {
    /// Provider, as `providers` in the configuration calls it.
    #[schemars(extend("x-positional" = true))]
    provider: String,
    /// Model to ask [default: the cheapest one].
    #[serde(default)]
    model: Option<String>,
    /// Seconds for which an answer is waited for [default: 60].
    #[serde(default)]
    #[schemars(range(min = 1, max = 600))]
    wait: Option<u64>,
}

/// Time after which an answer of one word is called slow.
const SLOW: Duration = Duration::from_secs(5);

/// Most tokens of the answer: fewer make some providers refuse.
const MAX_TOKENS: u32 = 16;

/// Parts of the names of models that do not chat.
const NO_CHAT: [&str; 13] = [
    "embed",
    "whisper",
    "tts",
    "dall-e",
    "image",
    "moderation",
    "rerank",
    "audio",
    "realtime",
    "transcribe",
    "sora",
    "veo",
    "bge-",
];

impl Router {
    pub(crate) fn test(&mut self, args: TestArgs) -> Result<Job> {
        let providers = &self.app.targets.providers;
        let Some(provider) = providers.get(args.provider.as_str()).cloned() else {
            let shown = visible(&args.provider);
            let error = Error::of(ErrorKind::NotFound, format!("no provider is called {shown}"));
            return Err(error.near(&args.provider, providers.keys().map(|id| &**id)));
        };
        let (runtime, app) = (self.app.host.runtime()?, self.app.clone());
        let patience = Duration::from_secs(args.wait.unwrap_or(60));
        Ok(Job::new(move |_| {
            let test = async move {
                let Some(model) = model(&app, &provider, args.model).await else {
                    return Found::nothing_known(&provider);
                };
                ask(&app, &provider, &model, patience).await
            };
            let found = runtime.block_on(runtime.spawn(test))?;
            found.reply()
        }))
    }
}

/// Findings of a test.
struct Found {
    provider: String,
    model: Option<String>,
    took: Option<Duration>,
    attempt: Option<Attempt>,
    /// Words about what was wrong, and what to do.
    wrong: Option<String>,
    notes: Vec<String>,
}

/// Returns the model to ask: the one that is named, else the cheapest of those that chat.
async fn model(app: &App, provider: &Arc<ProviderState>, named: Option<String>) -> Option<String> {
    if named.is_some() {
        return named;
    }
    if cheapest(app, provider).is_none() {
        // What is wrong is kept with the provider.
        let _ = app.targets.discover(&app.pool, provider).await;
    }
    cheapest(app, provider).map(|target| target.name.model.to_string())
}

fn cheapest(app: &App, provider: &ProviderState) -> Option<Arc<Target>> {
    let list = app.targets.list();
    let chats = |target: &&Arc<Target>| {
        let model = target.name.model.to_ascii_lowercase();
        target.provider.id == provider.id && !NO_CHAT.iter().any(|part| model.contains(part))
    };
    let tokens = Tokens { input: 100, output: 100, ..Tokens::default() };
    let cost = |target: &&Arc<Target>| {
        let price = target.price.as_ref().map_or(i64::MAX, |price| price.cost(&tokens));
        // One that is loaded already answers sooner.
        (target.is_loaded() == Some(false), price)
    };
    list.iter().filter(chats).min_by_key(cost).cloned()
}

async fn ask(
    app: &Arc<App>,
    provider: &Arc<ProviderState>,
    model: &str,
    patience: Duration,
) -> Found {
    let id = &*provider.id;
    let name = format!("{id}/{model}");
    // Newer models of OpenAI refuse the old name of the limit.
    let is_new = provider.provider.api == ProviderApi::Openai && reasons(model);
    let limit = if is_new { "max_completion_tokens" } else { "max_tokens" };
    let mut body = json!({
        "messages": [{"role": "user", "content": "Answer with the one word: hello"}],
        "stream": false,
    });
    body[limit] = MAX_TOKENS.into();
    let asked = exchange::ask_once(app, &name, body, Purpose::Test);
    let mut found = Found {
        provider: id.to_owned(),
        model: Some(model.to_owned()),
        took: None,
        attempt: None,
        wrong: None,
        notes: Vec::new(),
    };
    match tokio::time::timeout(patience, asked).await {
        Err(_) => {
            let seconds = patience.as_secs();
            found.wrong = Some(format!(
                "{id} did not answer within {seconds} s: it is overloaded, or loads the model; \
                 --wait waits longer"
            ));
        }
        Ok(Err(fault)) => found.wrong = Some(fault.message),
        Ok(Ok(answer)) => found.take(app, provider, answer),
    }
    found
}

/// Returns whether a name is that of a model of OpenAI that reasons.
fn reasons(model: &str) -> bool {
    let mut letters = model.chars();
    let is_o = letters.next() == Some('o') && letters.next().is_some_and(|c| c.is_ascii_digit());
    is_o || model.starts_with("gpt-5")
}

impl Found {
    fn nothing_known(provider: &ProviderState) -> Self {
        let id = &*provider.id;
        let why = server::trouble(provider).map_or_else(
            || format!("{id} lists no model that chats"),
            |trouble| format!("{id} does not tell its models: {trouble}"),
        );
        Self {
            provider: id.to_owned(),
            model: None,
            took: None,
            attempt: None,
            wrong: Some(format!("{why}; name one with --model, or under providers.{id}.models")),
            notes: Vec::new(),
        }
    }

    fn take(&mut self, app: &App, provider: &ProviderState, answer: OwnAnswer) {
        let OwnAnswer { result, attempt, took, .. } = answer;
        self.took = Some(took);
        if let Err(fault) = result {
            let model = self.model.as_deref().unwrap_or_default();
            self.wrong = Some(wrong(app, provider, model, attempt.as_ref(), &fault));
        } else {
            if took > SLOW {
                self.notes.push(format!("it is slow: {} for one word", human::duration(took)));
            }
            if attempt.as_ref().is_some_and(|attempt| attempt.cost_nano_usd.is_none()) {
                let hint = "its price is not known: add it under router.prices";
                self.notes.push(hint.to_owned());
            }
        }
        self.attempt = attempt;
    }

    fn reply(self) -> Result<Reply> {
        let attempt = self.attempt.as_ref();
        let is_ok = self.wrong.is_none();
        let cost = attempt.and_then(|attempt| attempt.cost_nano_usd);
        let took = self.took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let data = json!({
            "provider": self.provider,
            "model": self.model,
            "ok": is_ok,
            "error": self.wrong,
            "error_type": attempt.and_then(|attempt| attempt.error.clone()),
            "http_status": attempt.and_then(|attempt| attempt.http_status),
            "duration_ms": took,
            "tokens": attempt.and_then(|attempt| attempt.tokens),
            "cost_usd": cost.map(Usd::from_nano),
            "notes": self.notes,
        });
        let mut table = Table::new(["PROVIDER", "MODEL", "RESULT", "TIME#", "COST#"]);
        table.row([
            visible(&self.provider),
            visible(self.model.as_deref().unwrap_or("-")),
            if is_ok { "answers" } else { "failed" }.to_owned(),
            self.took.map_or_else(|| "-".to_owned(), human::duration),
            money(cost),
        ]);
        table.notes.extend(self.wrong.iter().map(|wrong| visible(wrong)));
        table.notes.extend(self.notes);
        Ok(Reply::json(&data)?.table(table).exit_code(u8::from(!is_ok)))
    }
}

/// Says what was wrong, and what to do.
fn wrong(
    app: &App,
    provider: &ProviderState,
    model: &str,
    attempt: Option<&Attempt>,
    fault: &Fault,
) -> String {
    let id = &*provider.id;
    let word = attempt.and_then(|attempt| attempt.error.as_deref()).unwrap_or_default();
    let settings = &provider.provider;
    let url = format!("check providers.{id}.base_url");
    let hint = match word {
        "dns" => format!("its name leads nowhere: {url}, and the network"),
        "connect" if settings.local => "it does not run there: start it".to_owned(),
        "connect" => format!("nobody listens there: {url}, and a firewall or proxy between"),
        "tls" => "the certificate or the encryption does not hold; a proxy may be between, or the \
                  clock of this machine wrong"
            .to_owned(),
        "timeout" => "it is overloaded, or loads the model".to_owned(),
        "401" | "403" if settings.key.is_none() => format!(
            "no key is given: set providers.{id}.key; without one the clients' own are passed on, \
             and a test has none"
        ),
        "401" => format!("the key is wrong or has expired: check what providers.{id}.key names"),
        "403" => format!("the key may not do this: check what providers.{id}.key names"),
        "402" => "the account has no credit left".to_owned(),
        "404" | "405" => not_there(app, provider, model),
        "429" => "it answers too many requests already, or the account's quota is used up".into(),
        "no_json" => format!("that is a web page, or another kind of server: {url}"),
        "error_in_200" => "it reports an error though it says 200".to_owned(),
        "400" | "422" => "the model does not take such a request; name another with --model".into(),
        _ if word.len() == 3 && word.starts_with('3') => {
            format!("a redirect is not followed: {url}")
        }
        _ if word.len() == 3 && word.starts_with('5') => "it has a fault of its own".to_owned(),
        _ if attempt.is_some_and(|attempt| attempt.status == RequestStatus::UpstreamCut) => {
            "it broke off in the middle".to_owned()
        }
        _ => return fault.message.clone(),
    };
    // The hint of the fault says less of the same.
    let said = fault.message.split(';').next().unwrap_or_default();
    format!("{said}; {hint}")
}

fn not_there(app: &App, provider: &ProviderState, model: &str) -> String {
    let id = &*provider.id;
    let list = app.targets.list();
    let of_it = || list.iter().filter(|target| target.provider.id == provider.id);
    let others = of_it().map(|target| &*target.name.model).filter(|other| *other != model);
    match nearest(model, others) {
        Some(near) => format!("it does not have {model}; did you mean `{near}`?"),
        None => format!(
            "it does not have {model}, or its API is elsewhere: check providers.{id}.base_url; \
             `lodestar router targets --provider {id}` lists its models"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_reason_are_known_by_their_names() {
        let names = ["o1", "o3-mini", "gpt-5-nano", "gpt-4o", "ollama", "olmo-2", "gpt-4.1"];
        let found: Vec<&str> = names.into_iter().filter(|name| reasons(name)).collect();
        assert_eq!(found, ["o1", "o3-mini", "gpt-5-nano"]);
    }

    #[test]
    fn the_reply_says_no_secret() {
        let found = Found {
            provider: "cloud".to_owned(),
            model: None,
            took: None,
            attempt: None,
            wrong: Some("x".to_owned()),
            notes: Vec::new(),
        };
        let reply = found.reply().expect("a reply");
        assert_eq!((reply.exit_code, &reply.data["ok"]), (1, &json!(false)));
    }
}

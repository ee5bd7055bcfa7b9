//! The server that answers with trained versions: one that is configured, one that is found among
//! the providers, or the one that comes with Lodestar, which is started when it is needed.

mod board;
mod error;
mod process;
mod supervisor;

#[cfg(test)]
mod tests;

use std::{
    future::Future,
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use module_sdk::{Error, ErrorKind, Health, HealthStatus, Provider, ProviderApi, Result, Secret};
use serde_json::Value;

use self::{
    board::Which,
    error::{ServingError, told},
    process::{Loaded, Served},
    supervisor::{Check, Started, Supervisor},
};
use crate::{
    config::Serving,
    deploy::{Adapter, DeployError, Kind, Server},
    gate,
    registry::{Ledger, State, Version},
    run::Embedded,
    versions::{ADAPTER, Versions},
};

/// Time within which a server has to load a base.
const LOADING: Duration = Duration::from_secs(120);
/// Time within which a server that is there says so.
const ASKED: Duration = Duration::from_secs(2);
/// URL of Ollama where nothing else is said.
const OLLAMA: &str = "http://127.0.0.1:11434";

/// A place where a version and its base can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    server: Server,
    /// The base as the server names it.
    pub base: String,
    /// Name under which the version that serves is asked.
    pub alias: String,
    /// Longest answer when the gates are measured, in tokens.
    pub max_answer_tokens: u32,
    /// Right to a server that is there only as long as it is used.
    _lease: Option<Arc<()>>,
}

impl Place {
    /// Returns the server.
    pub(crate) fn server(&self) -> Server {
        self.server.clone()
    }
}

/// The server of trained versions, whichever it is.
#[derive(Debug, Clone)]
pub(crate) struct Servers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Serving,
    kind: Kind,
    /// Base URL of a server that somebody else starts.
    base_url: String,
    providers: Vec<Provider>,
    versions: Versions,
    /// The key of the server that comes with Lodestar, and what keeps it.
    embedded: Option<(Secret, Supervisor)>,
}

impl Servers {
    /// Chooses the server, and starts it where a version is deployed.
    ///
    /// # Errors
    ///
    /// When the providers cannot be read, or no thread can be started.
    pub(crate) fn new(versions: Versions, config: Serving, trainer: Embedded) -> Result<Self> {
        let host = versions.host.clone();
        let mut providers = host.providers()?;
        for provider in &mut providers {
            // Nothing is asked of them.
            provider.key = None;
        }
        let local = providers.iter().find(|it| it.local && it.api == ProviderApi::Ollama).cloned();
        let kind = config.kind.unwrap_or(match local {
            Some(_) => Kind::Ollama,
            None => Kind::Embedded,
        });
        let of_ollama = local.map_or_else(|| OLLAMA.to_owned(), |it| it.base_url);
        let base_url = match (kind, config.base_url.is_empty()) {
            (Kind::Ollama, true) => of_ollama,
            _ => config.base_url.clone(),
        };
        let embedded = match kind {
            Kind::Embedded => {
                let key = key()?;
                let check = check(versions.clone());
                let supervisor =
                    Supervisor::start(&host, trainer, key.clone(), check).map_err(told)?;
                Some((key, supervisor))
            }
            _ => None,
        };
        let inner = Inner { config, kind, base_url, providers, versions, embedded };
        Ok(Self(Arc::new(inner)))
    }

    /// Serves again what served when the module or the daemon ended.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub(crate) fn take_up(&self) -> Result<()> {
        let Some((_, supervisor)) = &self.0.embedded else { return Ok(()) };
        let ledger = self.0.versions.ledger()?;
        if let Some((served, keep)) = self.wanted(&ledger) {
            supervisor.begin(served, keep);
        }
        Ok(())
    }

    /// Serves what is wanted from now on, without waiting for it: after an experiment nobody needs
    /// the version that was tried.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub(crate) fn settle(&self) -> Result<()> {
        let Some((_, supervisor)) = &self.0.embedded else { return Ok(()) };
        let ledger = self.0.versions.ledger()?;
        let alone = || Some((self.base_alone(newest_trained(&ledger)?), false));
        if let Some((served, keep)) = self.wanted(&ledger).or_else(alone) {
            supervisor.settle(served, keep);
        }
        Ok(())
    }

    /// Ends the server that comes with Lodestar.
    pub(crate) fn leave(&self) {
        if let Some((_, supervisor)) = &self.0.embedded {
            supervisor.leave();
        }
    }

    /// Returns the health of the module, worse where a version should be served and is not.
    pub(crate) fn health(&self, of_module: Health) -> Health {
        let news = self.0.embedded.as_ref().map(|(_, it)| it.news(Which::Front));
        match news.and_then(|news| news.reason) {
            Some(reason) if of_module.status == HealthStatus::Ok => {
                Health::degraded(format!("trained versions are not served: {reason}"))
            }
            _ => of_module,
        }
    }

    /// Returns a place where a version and its base can be asked.
    ///
    /// # Errors
    ///
    /// When there is none, with the remedy.
    pub(crate) fn place(&self, version: &Version) -> Result<Place> {
        let it = &self.0;
        let base = version.lineage.base.clone();
        let Some((_, supervisor)) = &it.embedded else {
            let server = Server::new(it.kind, &it.base_url);
            let base = self.base(&server, version)?;
            return Ok(self.at(server, base, None));
        };
        let lease = Arc::new(());
        let served = self.base_alone(version);
        let started = supervisor.measure(served, &lease).map_err(told)?;
        self.loaded(supervisor, started)?;
        Ok(self.at(self.embedded_at(started.address), base, Some(lease)))
    }

    /// Returns a place where a version that is to be tried will be asked by its own name, beside
    /// what serves. Nobody else may ask for it before [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// When there is none, with the remedy.
    pub(crate) fn trial(&self, version: &Version) -> Result<Place> {
        let Some((_, supervisor)) = &self.0.embedded else { return self.place(version) };
        let ledger = self.0.versions.ledger()?;
        let served = match self.wanted(&ledger) {
            Some((served, _)) => served,
            None => self.base_alone(version),
        };
        let base = version.lineage.base.clone();
        if served.base != Path::new(&base) {
            let message = format!(
                "{} was trained on another base than what serves, and the server that comes with \
                 Lodestar has one",
                version.id
            );
            return Err(Error::of(ErrorKind::Refused, message)
                .hint("serve with Ollama, or try it after a rollback to its own base"));
        }
        let started = supervisor.front(served, true).map_err(told)?;
        self.loaded(supervisor, started)?;
        Ok(self.at(self.embedded_at(started.address), base, None))
    }

    /// Lets everybody ask for the version that the log says is on trial by its name. Everything
    /// else that a server has loaded answers to nobody but this module.
    ///
    /// # Errors
    ///
    /// When the server does not follow.
    pub(crate) fn open(&self) -> Result<()> {
        let Some((_, supervisor)) = &self.0.embedded else { return Ok(()) };
        let ledger = self.0.versions.ledger()?;
        let Some((served, keep)) = self.wanted(&ledger) else { return Ok(()) };
        let names: Vec<String> = served.on_trial.iter().map(|it| it.0.clone()).collect();
        let started = supervisor.front(served, keep).map_err(told)?;
        self.loaded(supervisor, started)?;
        let server = self.embedded_at(started.address);
        block_on(async { server.open(&names, ASKED).await })
    }

    /// Leads the alias to the version that the log says serves, or to the base where none does.
    ///
    /// # Errors
    ///
    /// When the server does not follow.
    pub(crate) fn lead(&self) -> Result<()> {
        let it = &self.0;
        let ledger = it.versions.ledger()?;
        // After a repair of the log none may have served, and the server has to be led away.
        let other = || newest_trained(&ledger).filter(|_| self.may_answer());
        let Some(version) = last_served(&ledger).or_else(other) else { return Ok(()) };
        let is_champion = ledger.champion.as_deref() == Some(&version.id);
        let place = match &it.embedded {
            Some((_, supervisor)) => {
                let wanted = self.wanted(&ledger);
                let (served, keep) = wanted.unwrap_or_else(|| (self.base_alone(version), false));
                let started = supervisor.front(served, keep).map_err(told)?;
                self.loaded(supervisor, started)?;
                self.at(self.embedded_at(started.address), version.lineage.base.clone(), None)
            }
            None => self.place(version)?,
        };
        let (server, adapter) = (place.server(), adapter(&it.versions, &place, version));
        block_on(async {
            if !is_champion {
                return server.deactivate(&place.base, &place.alias).await;
            }
            if it.kind == Kind::Embedded {
                server.install(&adapter).await?;
            }
            server.activate(&adapter).await
        })
    }

    /// Returns whether the alias may lead to a version: the server that comes along has to have
    /// been started.
    fn may_answer(&self) -> bool {
        let front = self.0.embedded.as_ref().map(|(_, it)| it.news(Which::Front));
        front.is_none_or(|news| news.address.is_some())
    }

    /// Returns where the alias is asked, and the provider that leads there.
    pub(crate) fn endpoint(&self) -> (String, Option<String>) {
        let it = &self.0;
        let url = match &it.embedded {
            Some((_, supervisor)) => {
                let address = supervisor.news(Which::Front).address;
                let listen = address.map_or_else(|| it.config.listen.clone(), |it| it.to_string());
                format!("http://{listen}/v1")
            }
            None => it.base_url.clone(),
        };
        let leads = |provider: &&Provider| is_same_place(&provider.base_url, &url);
        (url.clone(), it.providers.iter().find(leads).map(|it| it.id.clone()))
    }

    /// Returns how the router is led to the alias, where no provider leads there yet.
    pub(crate) fn remedy(&self, endpoint: &str) -> Option<String> {
        // Where others start the server it is they who know who asks it.
        self.0.embedded.as_ref()?;
        Some(format!(
            "no provider leads there yet: add `tuned: {{base_url: \"{endpoint}\", api: openai, \
             local: true}}` to `providers` in modules.yaml, and ask for {} there",
            self.alias()
        ))
    }

    /// Returns the kind of the server.
    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns the name under which the version that serves is asked.
    pub(crate) fn alias(&self) -> &str {
        &self.0.config.alias
    }

    /// Returns what the front is to serve, and whether also while nobody asks: the champion, with
    /// the version on trial; or the base alone, after the only version was taken back.
    fn wanted(&self, ledger: &Ledger) -> Option<(Served, bool)> {
        let on_trial = |it: &&Version| it.state.is_challenger();
        let on_trial = ledger.versions.values().find(on_trial);
        let served = last_served(ledger);
        let first = served.or(on_trial)?;
        let is_champion = |it: &&Version| ledger.champion.as_deref() == Some(&it.id);
        let champion = served.filter(is_champion);
        let on_trial = on_trial.filter(|it| it.lineage.base == first.lineage.base);
        let served = Served {
            adapter: champion.and_then(|it| self.loaded_from(it)),
            on_trial: on_trial.and_then(|it| self.loaded_from(it)),
            ..self.base_alone(first)
        };
        Some((served, champion.is_some() || on_trial.is_some()))
    }

    /// Returns the base of a version, with no adapter.
    fn base_alone(&self, version: &Version) -> Served {
        Served {
            base: version.lineage.base.clone().into(),
            alias: self.0.config.alias.clone(),
            adapter: None,
            on_trial: None,
        }
    }

    /// Returns the adapter of a version, to be loaded from the beginning.
    fn loaded_from(&self, version: &Version) -> Option<Loaded> {
        let file = self.0.versions.folder(&version.id).join(ADAPTER);
        Some((version.id.clone(), file, version.artifact.as_ref()?.to_string()))
    }

    /// Returns the base of a version as the server names it.
    fn base(&self, server: &Server, version: &Version) -> Result<String> {
        let it = &self.0;
        if !it.config.base.is_empty() || it.kind != Kind::Ollama {
            return Ok(it.config.base.clone());
        }
        let digest = version.lineage.base_digest.as_str();
        // One name a base: another one must not take the place of what a version was made from.
        let name = format!("{}-base:{}", it.config.alias, &digest[..12]);
        block_on(server.make_base(&name, Path::new(&version.lineage.base)))?;
        Ok(name)
    }

    fn at(&self, server: Server, base: String, lease: Option<Arc<()>>) -> Place {
        let config = &self.0.config;
        Place {
            server,
            base,
            alias: config.alias.clone(),
            max_answer_tokens: config.max_answer_tokens,
            _lease: lease,
        }
    }

    fn embedded_at(&self, address: SocketAddr) -> Server {
        let server = Server::new(Kind::Embedded, &format!("http://{address}"));
        match &self.0.embedded {
            Some((key, _)) => server.with_key(key.clone()),
            None => server,
        }
    }

    /// Waits until a server that was started has loaded its base.
    fn loaded(&self, supervisor: &Supervisor, started: Started) -> Result<()> {
        let server = self.embedded_at(started.address);
        let begun = Instant::now();
        loop {
            if block_on(async { Ok(server.is_up(ASKED).await) })? {
                return Ok(());
            }
            let news = supervisor.watch(started, ASKED / 10);
            if news.deaths > started.deaths {
                return Err(told(ServingError::Ended(news.reason.unwrap_or_default())));
            }
            if begun.elapsed() > LOADING {
                return Err(told(ServingError::Slow));
            }
        }
    }
}

/// Returns the adapter of a version as it is to be served.
pub(crate) fn adapter(versions: &Versions, place: &Place, version: &Version) -> Adapter {
    Adapter {
        file: versions.folder(&version.id).join(ADAPTER),
        sha256: version.artifact.as_ref().map(ToString::to_string).unwrap_or_default(),
        base: place.base.clone(),
        alias: place.alias.clone(),
        version: version.id.clone(),
        files: gate::files_of(&version.gates),
    }
}

/// Runs requests to a server on the thread of a job.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, DeployError>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work).map_err(|error| {
        let kind = match error {
            DeployError::Unreachable(_) => ErrorKind::Unavailable,
            DeployError::Changed { .. } | DeployError::TooLarge { .. } => ErrorKind::Refused,
            _ => ErrorKind::Failed,
        };
        Error::of(kind, error.to_string())
    })
}

/// Returns the version that serves, or the newest one that did.
fn last_served(ledger: &Ledger) -> Option<&Version> {
    let champion = ledger.champion.as_deref().and_then(|id| ledger.versions.get(id));
    let has_served = |it: &&Version| {
        matches!(it.state, State::RolledBack | State::Superseded) && !it.lineage.is_policy()
    };
    let others = ledger.versions.values().filter(has_served);
    champion.or_else(|| others.max_by_key(|it| it.created_at))
}

/// Returns the newest version that a server could have.
fn newest_trained(ledger: &Ledger) -> Option<&Version> {
    let is_trained = |it: &&Version| it.artifact.is_some() && !it.lineage.is_policy();
    ledger.versions.values().filter(is_trained).max_by_key(|it| it.created_at)
}

/// Returns the check that a base is the one that some version was trained on.
fn check(versions: Versions) -> Check {
    Box::new(move |served, is_left| {
        let changed = || ServingError::BaseChanged { base: served.base.clone() };
        let ledger = versions.ledger().map_err(|_| changed())?;
        let digest = versions.digest_unless(&served.base, is_left).ok().flatten();
        if is_left.load(Ordering::Relaxed) {
            return Err(ServingError::Left);
        }
        let digest = digest.ok_or_else(changed)?;
        let is_known = ledger.versions.values().any(|version| {
            Path::new(&version.lineage.base) == served.base && version.lineage.base_digest == digest
        });
        is_known.then_some(()).ok_or_else(changed)
    })
}

/// Makes a key that nobody can guess.
fn key() -> Result<Secret> {
    let half = || uuid::Uuid::now_v7().simple().to_string();
    let key = Value::String(format!("{}{}", half(), half()));
    serde_json::from_value(key).map_err(Error::from)
}

/// Returns whether two URLs lead to the same place, however this machine is called in them.
fn is_same_place(left: &str, right: &str) -> bool {
    let place = |url: &str| {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let (host, _) = rest.split_once('/').unwrap_or((rest, ""));
        host.to_ascii_lowercase().replace("localhost", "127.0.0.1").replace("[::1]", "127.0.0.1")
    };
    place(left) == place(right)
}

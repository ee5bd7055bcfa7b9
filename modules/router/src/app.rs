//! The state that all requests share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use module_http::Budget;
use module_http_client::{Policy, Pool, PoolOptions};
use module_prices::{Price, PriceTable};
use module_sdk::{
    Error, Health, Host, Provider, ProviderApi, Result,
    events::{
        CheckStatus, HealthComponentChanged, LlmRequestCompleted, RouterTargetChanged,
        TraceSpanCompleted,
    },
};

use crate::{
    answers::Answers,
    cache::ResponseCache,
    config::{Config, seconds},
    content::Contents,
    exchange::Shadows,
    journal::{Journal, JournalSettings},
    keys::KeyRing,
    labels::Labels,
    limits::Limits,
    quality::Quality,
    routing::policy::Policy as RoutingPolicy,
    sessions::Sessions,
    target::{Target, Targets},
    tournament::Tournament,
    upstream::Room,
};

/// Time for which health says that events were refused, in milliseconds.
const TROUBLE_MS: i64 = 60_000;

/// The state that all requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) host: Host,
    pub(crate) config: Config,
    pub(crate) pool: Pool,
    pub(crate) targets: Targets,
    pub(crate) policy: RoutingPolicy,
    pub(crate) budget: Budget,
    /// Memory of the answers under way.
    answer_budget: Arc<Budget>,
    pub(crate) sessions: Sessions,
    pub(crate) journal: Arc<Journal>,
    pub(crate) tournament: Tournament,
    pub(crate) quality: Quality,
    pub(crate) shadows: Shadows,
    pub(crate) contents: Contents,
    /// Price that savings are counted against.
    pub(crate) baseline: Price,
    pub(crate) ring: KeyRing,
    /// Ids of answers that were seen: some servers give all their answers the same.
    answers: Answers,
    pub(crate) limits: Limits,
    pub(crate) labels: Labels,
    pub(crate) cache: ResponseCache,
    is_draining: AtomicBool,
    refused_at: AtomicI64,
}

impl App {
    pub(crate) fn new(config: Config, host: &Host, ring: KeyRing) -> Result<Self> {
        let prices = PriceTable::built_in().with(&config.prices);
        let prices = Arc::new(prices.map_err(|error| Error::config(error.to_string()))?);
        let pool = Pool::new(PoolOptions {
            // The operator names the providers: those on this machine are what it is for.
            policy: Policy { local: true, ..Policy::default() },
            connect_timeout: seconds(config.timeouts.connect_seconds),
            ..PoolOptions::default()
        });
        let providers = providers(&config, host)?;
        for provider in &providers {
            let key = provider.key.as_ref();
            if key.is_some_and(|key| http::HeaderValue::from_str(key.expose()).is_err()) {
                let message = "has characters that no header can hold, such as a line break";
                return Err(Error::config(format!("providers.{}.key: {message}", provider.id)));
            }
            pool.check(&provider.base_url).map_err(|error| {
                let key = format!("providers.{}.base_url", provider.id);
                Error::config(format!("{key}: {error}"))
            })?;
        }
        let baseline = prices
            .baseline(&config.baseline_model)
            .map_err(|error| Error::config(error.to_string()))?;
        let journal = JournalSettings {
            days: config.journal_days,
            baseline_model: config.baseline_model.clone(),
            baseline: baseline.clone(),
        };
        let budget = Budget::new(config.max_buffered_bytes.get(), 2 * config.max_body_bytes.get());
        let is_collecting = config.routing.learns() || config.quality.sample > 0.0;
        let labels = Labels::load(host, is_collecting);
        let policy = RoutingPolicy::new(&config.routing, &labels.learned)?;
        policy.running.load(host);
        Ok(Self {
            host: host.clone(),
            policy,
            targets: Targets::new(providers, config.breaker, prices),
            pool,
            budget,
            answer_budget: Arc::new(Budget::new(
                config.max_buffered_answer_bytes.get(),
                config.max_buffered_answer_bytes.get(),
            )),
            sessions: Sessions::new(),
            journal: Journal::start(host, journal)?,
            tournament: Tournament::new(host.clone()),
            quality: Quality::new(config.quality.clone(), host)?,
            shadows: Shadows::new(config.routing.shadows, host)?,
            contents: Contents::new(host),
            baseline,
            ring,
            cache: ResponseCache::start(host, config.cache.clone())?,
            labels,
            answers: Answers::default(),
            limits: Limits::load(host, config.quotas.clone())?,
            config,
            is_draining: AtomicBool::new(false),
            refused_at: AtomicI64::new(0),
        })
    }

    /// Returns the memory of a further answer.
    pub(crate) fn room(&self) -> Room {
        Room::new(&self.answer_budget, self.config.max_answer_bytes.get())
    }

    /// Returns whether no other answer had this id.
    pub(crate) fn is_new_answer(&self, key: &str) -> bool {
        self.answers.is_new(key)
    }

    /// Publishes the report of an attempt.
    pub(crate) fn publish(&self, event: &LlmRequestCompleted) {
        if let Err(error) = self.host.emit(event) {
            self.note_refused(&error);
        }
    }

    /// Publishes the span of an attempt.
    pub(crate) fn publish_span(&self, span: &TraceSpanCompleted) {
        if let Err(error) = self.host.emit(span) {
            self.note_refused(&error);
        }
    }

    /// Tells other modules that the state of a target changed.
    pub(crate) fn target_changed(&self, target: &Target) {
        let (state, breaker, ..) = target.shown();
        let event = RouterTargetChanged {
            provider: target.name.provider.to_string(),
            model: target.name.model.to_string(),
            state,
            breaker: breaker.to_owned(),
            at: self.host.now().as_millisecond(),
        };
        if let Err(error) = self.host.emit(&event) {
            self.note_refused(&error);
        }
    }

    /// Takes over what `health_monitor` says of a provider or a model.
    pub(crate) fn component_changed(&self, change: &HealthComponentChanged) {
        let (kind, name) = change.component.split_once('.').unwrap_or_default();
        let is_down = change.to == CheckStatus::Critical;
        let is_meant = |target: &Target| match kind {
            "provider" => *target.name.provider == *name,
            "model" => *target.name.model == *name,
            _ => false,
        };
        for target in self.targets.list().iter().filter(|target| is_meant(target)) {
            target
                .set_down(is_down.then(|| format!("health_monitor: {} is down", change.component)));
            self.target_changed(target);
        }
    }

    fn note_refused(&self, error: &Error) {
        let now = self.host.now().as_millisecond();
        let before = self.refused_at.swap(now, Ordering::Relaxed);
        if now - before > TROUBLE_MS {
            tracing::error!(%error, "the daemon takes no events: requests are not counted");
        }
    }

    /// Says that the module stops.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Returns whether the module stops.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Returns the health of the module.
    pub(crate) fn health(&self) -> Health {
        let refused = self.refused_at.load(Ordering::Relaxed);
        if self.host.now().as_millisecond() - refused < TROUBLE_MS {
            let message = "the daemon refused events, so that requests were not counted; look at \
                           `lodestar events lag`";
            return Health::degraded(message);
        }
        if let Some(trouble) = self.journal.trouble() {
            let message =
                format!("requests are answered, but their journal is not kept: {trouble}");
            return Health::degraded(message);
        }
        if let Some(trouble) = self.limits.trouble().or_else(|| self.cache.trouble()) {
            return Health::degraded(trouble);
        }
        if self.targets.list().is_empty() {
            let message = "there is nobody to ask: add `providers` to modules.yaml, or start \
                           Ollama on this machine";
            return Health::ok(message);
        }
        Health::ok("")
    }
}

/// Address of an Ollama on this machine.
const OLLAMA: &str = "http://127.0.0.1:11434";

/// Returns the providers of the configuration, and the Ollama of this machine where that is to be
/// found.
fn providers(config: &Config, host: &Host) -> Result<Vec<Provider>> {
    let mut providers = host.providers()?;
    let has_ollama = providers.iter().any(|provider| provider.api == ProviderApi::Ollama);
    if config.discover_ollama && !has_ollama {
        providers.push(Provider {
            id: "ollama".to_owned(),
            base_url: OLLAMA.to_owned(),
            api: ProviderApi::Ollama,
            local: true,
            key: None,
            models: Vec::new(),
        });
    }
    Ok(providers)
}

/// Time that a client is asked to wait while the module stops.
pub(crate) const COME_AGAIN: Duration = Duration::from_secs(1);

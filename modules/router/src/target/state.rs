//! The targets of all providers, and what happens to them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::HashMap;
use module_prices::{Price, PriceTable, Rates};
use module_sdk::{Provider, ProviderApi};

use crate::routing::{hedge::Quantile, request::ProviderView};

use super::{
    Availability, TargetName, TargetView,
    breaker::{Breaker, BreakerOptions, BreakerState, IsProbe},
    samples::Samples,
};

/// A provider with the list of its models.
#[derive(Debug)]
pub(crate) struct ProviderState {
    /// Settings.
    pub provider: Provider,
    /// Id of the provider.
    pub id: Arc<str>,
    /// `true` where the client's own credentials go on to it: there is no key for it here, it is
    /// not local, and no other provider of its API is so. Else the key for one provider could
    /// reach another one.
    pub takes_credentials: bool,
    /// `true` once it is known which models it has: the operator names them, or it said so.
    pub is_listed: AtomicBool,
    /// `true` once it was found that it has no `/v1/responses`.
    pub lacks_responses: AtomicBool,
    /// Reason for which it could not be asked for its models.
    pub trouble: Mutex<Option<String>>,
    /// Lock of the one load of a model at a time (Ollama).
    pub loading: tokio::sync::Mutex<()>,
}

/// Names of providers (`gen_ai.provider.name`) by the hosts of their APIs.
const MAKERS: [(&str, &str); 8] = [
    ("anthropic.com", "anthropic"),
    ("deepseek.com", "deepseek"),
    ("googleapis.com", "gcp.gemini"),
    ("groq.com", "groq"),
    ("mistral.ai", "mistral_ai"),
    ("openai.com", "openai"),
    ("openrouter.ai", "openrouter"),
    ("x.ai", "x_ai"),
];

impl ProviderState {
    /// Returns its name in events (`gen_ai.provider.name`): by its host where that is well known,
    /// else the operator's.
    pub(crate) fn maker(&self) -> &str {
        let url = &self.provider.base_url;
        let host = url.split_once("://").map_or("", |(_, rest)| rest);
        let host = host.split(['/', ':']).next().unwrap_or_default();
        let known = MAKERS.iter().find(|(domain, _)| {
            host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        match (known, self.provider.api) {
            (Some((_, name)), _) => name,
            (None, ProviderApi::Ollama) => "ollama",
            (None, _) => &self.id,
        }
    }
}

/// Times of a target from which on it is known what is usual for it.
const LEAST_KNOWN: usize = 20;

/// Facts about a model that a provider tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Model {
    /// Name, as the provider calls it.
    pub name: String,
    /// Tokens of input and output together.
    pub context_tokens: Option<u64>,
    /// Ability to call tools.
    pub tools: Option<bool>,
    /// Ability to see images.
    pub images: Option<bool>,
    /// `true` where it is in memory.
    pub is_loaded: Option<bool>,
}

/// A model of a provider.
#[derive(Debug)]
pub(crate) struct Target {
    /// Name.
    pub name: TargetName,
    /// Its provider.
    pub provider: Arc<ProviderState>,
    /// Price of its tokens, where it is known.
    pub price: Option<Price>,
    /// `true` once it was found that it has no `/v1/completions`.
    pub lacks_completions: AtomicBool,
    in_flight: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    model: Model,
    breaker: Breaker,
    rate_limited_until: Option<Instant>,
    down: Option<String>,
    latency: Samples,
    ttft: Samples,
}

/// Admission of a request to a target.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It may be sent.
    Admitted(Slot),
    /// The breaker is open, or half open with its probe under way.
    BreakerOpen,
    /// The provider asked to be left alone for this long.
    RateLimited(Duration),
}

/// Place of a request under way at a target. What came of it is recorded once; one that is dropped
/// without says nothing of the target.
#[derive(Debug)]
pub(crate) struct Slot {
    target: Arc<Target>,
    is_probe: IsProbe,
    is_settled: bool,
}

impl Slot {
    /// Returns its target.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Records an answer with its times in milliseconds. Returns `true` when it closes the breaker.
    pub(crate) fn succeed(&mut self, latency_ms: f64, ttft_ms: Option<f64>) -> bool {
        let mut state = self.target.lock();
        let closes = state.breaker.succeed(self.is_probe);
        state.latency.add(latency_ms);
        ttft_ms.into_iter().for_each(|ttft| state.ttft.add(ttft));
        if self.target.provider.provider.local {
            state.model.is_loaded = Some(true);
        }
        drop(state);
        self.is_settled = true;
        closes
    }

    /// Records that the target failed. Returns `true` when that opens its breaker.
    pub(crate) fn fail(&mut self) -> bool {
        self.is_settled = true;
        self.target.lock().breaker.fail(Instant::now(), self.is_probe)
    }

    /// Records that the provider wants to be left alone.
    pub(crate) fn rate_limited(&mut self, pause: Duration) {
        self.target.lock().rate_limited_until = Some(Instant::now() + pause);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.is_settled {
            self.target.lock().breaker.abandon(self.is_probe);
        }
        self.target.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Target {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a place for a request.
    pub(crate) fn admit(self: &Arc<Self>) -> Admission {
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(until) = state.rate_limited_until {
            if now < until {
                return Admission::RateLimited(until - now);
            }
            state.rate_limited_until = None;
        }
        let Some(is_probe) = state.breaker.admit(now) else { return Admission::BreakerOpen };
        drop(state);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Admission::Admitted(Slot { target: self.clone(), is_probe, is_settled: false })
    }

    /// Takes a place for a request of the router itself, whatever the breaker says: its outcome
    /// tells the breaker.
    pub(crate) fn probe(self: &Arc<Self>) -> Slot {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Slot { target: self.clone(), is_probe: IsProbe(true), is_settled: false }
    }

    /// Returns whether its answers cost nothing.
    pub(crate) fn is_local(&self) -> bool {
        self.provider.provider.local
    }

    /// Returns whether it is in memory, where that is known.
    pub(crate) fn is_loaded(&self) -> Option<bool> {
        self.lock().model.is_loaded
    }

    /// Returns whether it has to be loaded into memory first.
    pub(crate) fn is_cold(&self) -> bool {
        self.provider.provider.api == ProviderApi::Ollama && self.is_loaded() == Some(false)
    }

    /// Returns the time that it usually takes until its first content, or until the end of an
    /// answer that is no stream; `None` while too few are known.
    pub(crate) fn usual(&self, quantile: Quantile, is_stream: bool) -> Option<Duration> {
        let state = self.lock();
        let samples = if is_stream { &state.ttft } else { &state.latency };
        let ms = samples.known(LEAST_KNOWN).and_then(|samples| match quantile {
            Quantile::P50 => samples.p50(),
            Quantile::P95 => samples.p95(),
        })?;
        Duration::try_from_secs_f64(ms / 1000.0).ok()
    }

    /// Returns its state as routing sees it.
    pub(crate) fn view(&self) -> TargetView {
        let now = Instant::now();
        let state = self.lock();
        let availability = match (&state.down, state.breaker.state(now)) {
            (Some(reason), _) => Availability::Down(reason.clone()),
            (None, BreakerState::Open(_)) => Availability::BreakerOpen,
            _ if state.rate_limited_until.is_some_and(|until| now < until) => {
                Availability::RateLimited
            }
            _ => Availability::Up,
        };
        TargetView {
            name: self.name.clone(),
            api: self.provider.provider.api,
            is_local: self.is_local(),
            availability,
            context_tokens: state.model.context_tokens,
            tools: state.model.tools,
            images: state.model.images,
            latency_p50_ms: state.latency.p50(),
            ttft_p50_ms: state.ttft.p50(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            is_loaded: state.model.is_loaded,
        }
    }

    /// Returns its state, as `lodestar router targets` shows it: state, breaker, p50 and p95 of its
    /// time in milliseconds.
    pub(crate) fn shown(&self) -> (String, &'static str, Option<f64>, Option<f64>) {
        let now = Instant::now();
        let state = self.lock();
        let breaker = state.breaker.state(now);
        let word = match (&state.down, breaker) {
            (Some(_), _) => "down",
            (None, BreakerState::Open(_)) => "down",
            _ if state.rate_limited_until.is_some_and(|until| now < until) => "rate_limited",
            (None, BreakerState::HalfOpen) => "degraded",
            _ if state.model.is_loaded == Some(false) => "cold",
            _ => "up",
        };
        (word.to_owned(), breaker.word(), state.latency.p50(), state.latency.p95())
    }

    /// Takes over what `health_monitor` says: `None` when it is well.
    pub(crate) fn set_down(&self, reason: Option<String>) {
        self.lock().down = reason;
    }

    /// Returns the requests under way.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// All targets. The list is replaced as a whole when a provider tells other models.
#[derive(Debug)]
pub(crate) struct Targets {
    /// Providers by id.
    pub providers: BTreeMap<Arc<str>, Arc<ProviderState>>,
    breaker: BreakerOptions,
    prices: Arc<PriceTable>,
    list: RwLock<Arc<Listing>>,
    /// Models that a provider did not list and was asked for: their state is kept as well.
    unlisted: Mutex<HashMap<TargetName, Arc<Target>>>,
}

/// Models that no provider listed, at most.
const MOST_UNLISTED: usize = 1000;

/// The targets of a moment, in order, and by their names.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    ordered: Vec<Arc<Target>>,
    by_name: HashMap<TargetName, Arc<Target>>,
}

impl Listing {
    fn of(ordered: Vec<Arc<Target>>) -> Self {
        let named = ordered.iter().map(|target| (target.name.clone(), target.clone()));
        Self { by_name: named.collect(), ordered }
    }
}

impl std::ops::Deref for Listing {
    type Target = [Arc<Target>];

    fn deref(&self) -> &[Arc<Target>] {
        &self.ordered
    }
}

impl Targets {
    /// Creates the targets that the operator names.
    pub(crate) fn new(
        providers: Vec<Provider>,
        breaker: BreakerOptions,
        prices: Arc<PriceTable>,
    ) -> Self {
        let is_open = |it: &Provider| it.key.is_none() && !it.local;
        let open: Vec<ProviderApi> =
            providers.iter().filter(|it| is_open(it)).map(|it| it.api).collect();
        let state = |provider: Provider| {
            let of_api = open.iter().filter(|api| **api == provider.api).count();
            let id: Arc<str> = provider.id.as_str().into();
            let state = ProviderState {
                id: id.clone(),
                takes_credentials: is_open(&provider) && of_api == 1,
                is_listed: AtomicBool::new(!provider.models.is_empty()),
                lacks_responses: AtomicBool::new(false),
                trouble: Mutex::default(),
                loading: tokio::sync::Mutex::default(),
                provider,
            };
            (id, Arc::new(state))
        };
        let providers: BTreeMap<_, _> = providers.into_iter().map(state).collect();
        let targets = Self {
            providers,
            breaker,
            prices,
            list: RwLock::default(),
            unlisted: Mutex::default(),
        };
        for state in targets.providers.values() {
            let named = state.provider.models.iter();
            let models: Vec<_> =
                named.map(|name| Model { name: name.clone(), ..Model::default() }).collect();
            targets.replace(state, &models);
        }
        targets
    }

    /// Returns the list as it is now.
    pub(crate) fn list(&self) -> Arc<Listing> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns a target.
    pub(crate) fn get(&self, name: &TargetName) -> Option<Arc<Target>> {
        self.list().by_name.get(name).cloned()
    }

    /// Returns a target, which is added where a provider whose models are not known may have it.
    pub(crate) fn get_or_add(&self, name: &TargetName) -> Option<Arc<Target>> {
        if let Some(known) = self.get(name) {
            return Some(known);
        }
        let provider = self.providers.get(&name.provider)?;
        let mut unlisted = self.unlisted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = unlisted.get(name) {
            return Some(known.clone());
        }
        let model = Model { name: name.model.to_string(), ..Model::default() };
        let target = Arc::new(self.target(provider, &model));
        if unlisted.len() < MOST_UNLISTED {
            unlisted.insert(name.clone(), target.clone());
        }
        Some(target)
    }

    /// Returns the states of all targets.
    pub(crate) fn views(&self) -> Vec<TargetView> {
        self.list().iter().map(|target| target.view()).collect()
    }

    /// Returns the providers as routing sees them.
    pub(crate) fn provider_views(&self) -> Vec<ProviderView> {
        let view = |state: &Arc<ProviderState>| ProviderView {
            id: state.id.clone(),
            api: state.provider.api,
            is_local: state.provider.local,
            is_listed: state.is_listed.load(Ordering::Relaxed),
        };
        self.providers.values().map(view).collect()
    }

    /// Replaces the models of a provider by those that it tells. A target that stays keeps its
    /// state.
    pub(crate) fn replace(&self, provider: &Arc<ProviderState>, models: &[Model]) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let mut next: Vec<Arc<Target>> =
            list.iter().filter(|target| target.provider.id != provider.id).cloned().collect();
        for model in models {
            let kept = list.iter().find(|target| {
                target.provider.id == provider.id && *target.name.model == *model.name
            });
            match kept {
                Some(target) => {
                    target.lock().model = model.clone();
                    next.push(target.clone());
                }
                None => next.push(Arc::new(self.target(provider, model))),
            }
        }
        // Whoever answered last must not come last.
        next.sort_by(|a, b| a.name.cmp(&b.name));
        *list = Arc::new(Listing::of(next));
    }

    fn target(&self, provider: &Arc<ProviderState>, model: &Model) -> Target {
        let name = TargetName { provider: provider.id.clone(), model: model.name.as_str().into() };
        let maker = provider.maker();
        let price = self.prices.find(Some(maker), &model.name);
        Target {
            name,
            price: if provider.provider.local {
                Some(Price::plain(Rates::FREE, "local"))
            } else {
                price
            },
            provider: provider.clone(),
            lacks_completions: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            state: Mutex::new(State {
                model: model.clone(),
                breaker: Breaker::new(self.breaker),
                rate_limited_until: None,
                down: None,
                latency: Samples::default(),
                ttft: Samples::default(),
            }),
        }
    }
}

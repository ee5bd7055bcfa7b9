//! Services of the host for one module, behind the ABI.

use std::{
    borrow::Cow,
    collections::HashMap,
    net::TcpListener,
    os::fd::IntoRawFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use lodestar_abi::{
    ALL_CALLS, CallRequest, CompletionBox, FLAG_LEDGER, HostBox, HostServices, HostServices_TO,
    ModError, NewEvent as AbiEvent, RelayedEvent, ReplySinkBox,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{ROption, RResult, RSlice, RStr, RString, RVec},
    },
    error_kind,
};
use lodestar_bus::{Bus, NewEvent};
use lodestar_config::Privacy;
use lodestar_library::Library;
use lodestar_platform::listeners::{ListenerKey, Listeners};
use module_sdk::{Class, MAX_EVENT_BYTES, events::fits, manifest::Manifest};
use serde_json::json;
use uuid::Uuid;

use super::{
    CallRouter, Entry, SecretError,
    acceptance::Acceptance,
    cache::Cache,
    outgoing_calls::{CallTable, Operate},
    refusals::{Refusal, check_content, check_relay},
    state::lock,
};
use crate::{
    logging::{KeyLines, Levels, Redactor},
    metrics::{Instruments, Kind, Metrics},
    pseudonyms::{PseudonymError, Pseudonyms},
};

/// Parts of the host that all modules' services share.
#[derive(Debug, Clone)]
pub struct ServiceContext {
    /// Bus that carries events.
    pub bus: Arc<Bus>,
    /// Source of pseudonyms.
    pub pseudonyms: Arc<Pseudonyms>,
    /// Listening sockets.
    pub listeners: Arc<Listeners>,
    /// Registry of the metrics.
    pub metrics: Arc<Metrics>,
    /// Log levels.
    pub levels: Arc<Levels>,
    /// Redactor of secrets in what a module reports about itself.
    pub redactor: Arc<Redactor>,
    /// Settings for which text may be published.
    pub privacy: Arc<Privacy>,
    /// Table of the calls between modules.
    pub calls: Arc<CallRouter>,
}

/// Data and permissions of one module.
pub struct Grant {
    /// Manifest of the module.
    pub manifest: Manifest,
    /// The module's own directory.
    pub data_dir: PathBuf,
    /// Addresses of its listeners, by name.
    pub addresses: HashMap<String, String>,
    /// The secrets that it declares, by name; an error says why one cannot be had.
    pub secrets: HashMap<String, Result<String, SecretError>>,
    /// The providers, where it declares the need.
    pub providers: serde_json::Value,
    /// Decision whether it may change the daemon, where it declares that.
    pub operate: Operate,
}

impl ServiceContext {
    /// Makes one that shares nothing with anybody and logs errors alone, for tests and benchmarks.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written.
    pub fn alone(bus: Bus, directory: &Path) -> Result<Self, PseudonymError> {
        Ok(Self {
            bus: Arc::new(bus),
            pseudonyms: Arc::new(Pseudonyms::open(directory)?),
            listeners: Arc::default(),
            metrics: Arc::default(),
            levels: Arc::new(Levels::new(1)),
            redactor: Arc::default(),
            privacy: Arc::default(),
            calls: Arc::default(),
        })
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stand in it.
        write!(f, "Grant({})", self.manifest.module.name)
    }
}

/// The services of one generation of a module. Refuses everything once it is closed.
#[derive(Debug)]
pub struct Services {
    pub(super) context: ServiceContext,
    entry: Arc<Entry>,
    pub(super) grant: Grant,
    generation: u64,
    source: String,
    pub(super) closed: AtomicBool,
    pub(super) acceptance: Acceptance,
    cache: Mutex<Cache>,
    pub(super) calls: Mutex<CallTable>,
    /// Number of streamed answers under way.
    pub(super) streams: Arc<AtomicUsize>,
    instruments: Instruments,
    /// Filter of private keys that the module logs line by line.
    keys: Mutex<KeyLines>,
}

impl Services {
    /// Creates the services for the next generation of a module.
    #[must_use]
    pub fn new(context: ServiceContext, entry: Arc<Entry>, grant: Grant) -> Arc<Self> {
        let generation = entry.next_generation();
        let source = format!("/lodestar/{}", entry.name);
        let instruments = context.metrics.generation(&entry.name);
        Arc::new(Self {
            context,
            entry,
            grant,
            generation,
            source,
            closed: AtomicBool::new(false),
            acceptance: Acceptance::default(),
            cache: Mutex::default(),
            calls: Mutex::default(),
            streams: Arc::default(),
            instruments,
            keys: Mutex::default(),
        })
    }

    /// Returns the number of the generation that the services are for.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the services as the module sees them.
    #[must_use]
    pub fn to_abi(self: &Arc<Self>) -> HostBox {
        HostServices_TO::from_value(Shared(self.clone()), TD_Opaque)
    }

    /// Returns the module's entry.
    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Sets the library, mapped into the daemon, that the services are for.
    pub(super) fn serve(&self, library: Arc<Library>) {
        self.acceptance.runs_in(library);
    }

    /// Records that the generation runs from now on.
    pub(super) fn settle(&self) {
        self.instruments.settle();
    }

    /// Refuses every further call: the module has stopped.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.instruments.close();
        self.cancel(ALL_CALLS);
        self.acceptance.close();
    }

    fn publish(
        &self,
        events: &[AbiEvent<'_>],
        done: Option<CompletionBox>,
    ) -> Result<(), ModError> {
        let new = events.iter().map(|event| self.checked(event)).collect::<Result<_, _>>()?;
        self.hand_over(new, done)
    }

    /// Publishes events that were published elsewhere.
    fn relay(
        &self,
        events: &[RelayedEvent<'_>],
        done: Option<CompletionBox>,
    ) -> Result<(), ModError> {
        let relayed = |relayed: &RelayedEvent<'_>| {
            let topic = relayed.event.topic.as_str();
            check_relay(&self.grant.manifest, relayed).map_err(|it| self.refused(topic, it))?;
            let origin = relayed.origin.as_str();
            if let Cow::Owned(_) = self.context.redactor.redact_name(origin) {
                return Err(self.refused(topic, Refusal::BadOrigin));
            }
            Ok(NewEvent {
                id: Some(Uuid::from_bytes(relayed.id)),
                source: origin.into(),
                ..self.checked(&relayed.event)?
            })
        };
        let new = events.iter().map(relayed).collect::<Result<_, _>>()?;
        self.hand_over(new, done)
    }

    fn refused(&self, topic: &str, refusal: Refusal) -> ModError {
        self.entry.note_refused(topic, refusal);
        failed(format!("{topic} of {}: {refusal}", self.entry.name))
    }

    fn hand_over(&self, new: Vec<NewEvent>, done: Option<CompletionBox>) -> Result<(), ModError> {
        let done = done.map(|done| self.acceptance.accepted(&self.entry, done)).transpose();
        let done = done.map_err(|error| unavailable(error.to_string()))?;
        self.context.bus.publish(new, done).map_err(|error| unavailable(error.to_string()))
    }

    fn checked(&self, event: &AbiEvent<'_>) -> Result<NewEvent, ModError> {
        let topic = event.topic.as_str();
        may_publish(&self.grant.manifest, topic, event.data.len())?;
        let content = check_content(&self.context.privacy, topic, event.data.as_slice());
        content.map_err(|refusal| self.refused(topic, refusal))?;
        let redactor = &*self.context.redactor;
        if let Cow::Owned(shown) = redactor.redact_name(topic) {
            return Err(failed(format!("the topic {shown} looks like it holds a secret")));
        }
        let alias = |secret: &str| self.context.pseudonyms.alias(secret);
        let data = redactor.redact_data_to_alias(event.data.as_slice(), &alias);
        let subject = redactor.redact_name_to_alias(event.subject.as_str(), &alias);
        let trace = redactor.redact_name_to_alias(event.traceparent.as_str(), &alias);
        if data.is_some() || matches!((&subject, &trace), (Cow::Owned(_), _) | (_, Cow::Owned(_))) {
            self.entry.note_redacted(topic);
        }
        Ok(NewEvent {
            id: None,
            time_ns: if event.time_ns == 0 { now_ns() } else { event.time_ns },
            class: if event.flags & FLAG_LEDGER == 0 { Class::Live } else { Class::Ledger },
            topic: topic.into(),
            source: self.source.as_str().into(),
            subject: subject.into(),
            traceparent: trace.into(),
            data: data.map_or_else(|| event.data.as_slice().into(), Vec::into_boxed_slice),
        })
    }

    pub(super) fn open(&self) -> Result<(), ModError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(unavailable("the module has stopped".to_owned()));
        }
        Ok(())
    }

    fn series(&self, kind: u32, name: &str, help: &str, labels: &[u8]) -> Result<u64, ModError> {
        self.open()?;
        let kind = Kind::from_number(kind)
            .ok_or_else(|| failed(format!("there is no kind of metric {kind}")))?;
        let labels: HashMap<String, String> = serde_json::from_slice(labels)
            .map_err(|error| failed(format!("the labels of {name} are no strings: {error}")))?;
        let clean = |text: &str| self.context.redactor.redact_name(text).into_owned();
        let labels: Vec<(String, String)> =
            labels.into_iter().map(|(label, value)| (label, clean(&value))).collect();
        let series = self.instruments.series(kind, name, &clean(help), &labels);
        series.map_err(|error| failed(clean(&error.to_string())))
    }

    /// Returns a duplicate of a listening socket.
    pub(crate) fn socket(&self, name: &str) -> Result<TcpListener, ModError> {
        self.open()?;
        let Some(address) = self.grant.addresses.get(name) else {
            return Err(not_found(format!(
                "{} declares no listener {name:?}; add it to module.toml",
                self.entry.name
            )));
        };
        let key = ListenerKey::new(&self.entry.name, name);
        self.context.listeners.get(&key, address).map_err(|error| unavailable(error.to_string()))
    }

    fn secret_text(&self, name: &str) -> Result<&str, ModError> {
        self.open()?;
        match self.grant.secrets.get(name) {
            Some(Ok(secret)) => Ok(secret),
            Some(Err(error)) => Err(not_found(error.to_string())),
            None => Err(not_found(format!(
                "{} declares no secret {name:?}; add it to capabilities.secrets in module.toml",
                self.entry.name
            ))),
        }
    }
}

/// Checks whether a module may publish this many bytes on a topic.
pub(crate) fn may_publish(manifest: &Manifest, topic: &str, bytes: usize) -> Result<(), ModError> {
    if !manifest.bus.publishes.iter().any(|filter| fits(filter, topic)) {
        return Err(failed(format!(
            "{} may not publish {topic}; add it to bus.publishes in its module.toml",
            manifest.module.name
        )));
    }
    if bytes > MAX_EVENT_BYTES {
        return Err(failed(format!(
            "an event of {topic} has {bytes} bytes, the most is {MAX_EVENT_BYTES}"
        )));
    }
    Ok(())
}

/// Returns the time in nanoseconds since the Unix epoch.
fn now_ns() -> u64 {
    u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default()
}

pub(super) fn error(kind: u32, message: impl Into<String>) -> ModError {
    ModError { kind, message: message.into().into(), place: "".into() }
}

pub(super) fn failed(message: String) -> ModError {
    error(error_kind::FAILED, message)
}

pub(super) fn unavailable(message: String) -> ModError {
    error(error_kind::UNAVAILABLE, message)
}

fn not_found(message: String) -> ModError {
    error(error_kind::NOT_FOUND, message)
}

struct Shared(Arc<Services>);

impl HostServices for Shared {
    fn info(&self) -> RVec<u8> {
        let services = &self.0;
        let info = json!({
            "name": services.entry.name,
            "data_dir": services.grant.data_dir,
            "generation": services.generation,
            "log_level": services.context.levels.of(&services.entry.name),
            "providers": services.grant.providers,
        });
        info.to_string().into_bytes().into()
    }

    fn now_ns(&self) -> u64 {
        now_ns()
    }

    fn emit(
        &self,
        events: RSlice<'_, AbiEvent<'_>>,
        done: ROption<CompletionBox>,
    ) -> RResult<(), ModError> {
        self.0.open().and_then(|()| self.0.publish(events.as_slice(), done.into_option())).into()
    }

    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>, fields: RSlice<'_, u8>) {
        let name = &self.0.entry.name;
        if level <= self.0.context.levels.of(name) {
            let fields = String::from_utf8_lossy(fields.as_slice());
            if let Some(message) = lock(&self.0.keys).pass(message.as_str()) {
                self.0.entry.log_rate.say(name, level, target.as_str(), &message, &fields);
            }
        }
    }

    fn metric(
        &self,
        kind: u32,
        name: RStr<'_>,
        help: RStr<'_>,
        labels: RSlice<'_, u8>,
    ) -> RResult<u64, ModError> {
        self.0.series(kind, name.as_str(), help.as_str(), labels.as_slice()).into()
    }

    fn record(&self, handle: u64, value: f64) {
        if self.0.open().is_ok() {
            self.0.instruments.record(handle, value);
        }
    }

    fn secret(&self, name: RStr<'_>) -> RResult<RString, ModError> {
        self.0.secret_text(name.as_str()).map(RString::from).into()
    }

    fn pseudonym(&self, kind: RStr<'_>, value: RStr<'_>) -> RString {
        self.0.context.pseudonyms.pseudonym(kind.as_str(), value.as_str()).into()
    }

    fn listener(&self, name: RStr<'_>) -> RResult<i32, ModError> {
        self.0.socket(name.as_str()).map(IntoRawFd::into_raw_fd).into()
    }

    fn cache_get(&self, key: RStr<'_>) -> RVec<u8> {
        lock(&self.0.cache).get(key.as_str(), Instant::now()).map(RVec::from).unwrap_or_default()
    }

    fn cache_set(&self, key: RStr<'_>, value: RSlice<'_, u8>, ttl_ms: u64) {
        let ttl = Duration::from_millis(ttl_ms);
        lock(&self.0.cache).set(key.as_str(), value.as_slice(), Instant::now(), ttl);
    }

    fn heap_bytes(&self, bytes: u64) {
        self.0.entry.heap_bytes.store(bytes, Ordering::Relaxed);
    }

    fn wanted(&self, topic: RStr<'_>) -> bool {
        self.0.context.bus.wanted(topic.as_str())
    }

    fn relay(
        &self,
        events: RSlice<'_, RelayedEvent<'_>>,
        done: ROption<CompletionBox>,
    ) -> RResult<(), ModError> {
        self.0.open().and_then(|()| self.0.relay(events.as_slice(), done.into_option())).into()
    }

    fn call(&self, request: CallRequest<'_>, sink: ReplySinkBox) -> RResult<(), ModError> {
        self.0.call(request, sink).into()
    }

    fn cancel_call(&self, number: u64) {
        self.0.cancel(number);
    }
}

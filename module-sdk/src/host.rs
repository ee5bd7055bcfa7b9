//! Services of the host for a module.

mod acceptance;
mod relay;

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use lodestar_abi::{
    ALL_CALLS, Completion_TO, FLAG_LEDGER, HostBox, NewEvent,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{RNone, RSome},
    },
};
use serde::{Deserialize, Serialize};

pub use self::acceptance::Acceptance;
use self::acceptance::{Shared, Signal};
use crate::{Class, Error, EventType, Provider, Result, event::encoded, glue};

/// Information that the host gives a module about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HostInfo {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) generation: u64,
    pub(crate) log_level: u32,
    #[serde(default)]
    pub(crate) providers: serde_json::Value,
}

struct Inner {
    services: HostBox,
    info: HostInfo,
    /// Number of the last call.
    calls: AtomicU64,
    /// `true` once the module ends: no further call begins.
    is_ending: AtomicBool,
    /// Lock held while a state is saved: half of one must not take the name of another.
    saving: Mutex<()>,
    #[cfg(feature = "tokio")]
    runtime: crate::runtime::RuntimeCell,
}

/// The host's services. Cheap to clone, usable from every thread of the module.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

/// A host that may be gone.
#[derive(Clone)]
pub(crate) struct WeakHost(Weak<Inner>);

impl WeakHost {
    /// Returns the host while it is there.
    pub(crate) fn upgrade(&self) -> Option<Host> {
        self.0.upgrade().map(|inner| Host { inner })
    }

    /// Returns whether it is that of the same instance.
    pub(crate) fn is(&self, host: &Host) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&host.inner))
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({})", self.inner.info.name)
    }
}

impl Host {
    pub(crate) fn new(services: HostBox) -> Result<Self> {
        let info = serde_json::from_slice(services.info().as_slice())?;
        Ok(Self {
            inner: Arc::new(Inner {
                services,
                info,
                calls: AtomicU64::new(0),
                is_ending: AtomicBool::new(false),
                saving: Mutex::default(),
                #[cfg(feature = "tokio")]
                runtime: crate::runtime::RuntimeCell::default(),
            }),
        })
    }

    /// Returns whether both belong to the same instance.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Returns the host for a thread that must not keep it alive.
    pub(crate) fn downgrade(&self) -> WeakHost {
        WeakHost(Arc::downgrade(&self.inner))
    }

    pub(crate) fn services(&self) -> &HostBox {
        &self.inner.services
    }

    pub(crate) fn log_level(&self) -> u32 {
        self.inner.info.log_level
    }

    /// Returns the name of this module.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.info.name
    }

    /// Returns the number of this generation: it grows with every start.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.info.generation
    }

    /// Returns the lock under which a state is saved.
    pub(crate) fn saving(&self) -> MutexGuard<'_, ()> {
        self.inner.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the directory that is this module's own. It exists and is private.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.inner.info.data_dir
    }

    /// Returns the `providers` of the configuration by id, where the manifest declares that it
    /// needs them (`[capabilities] providers = true`); none where it does not.
    ///
    /// # Errors
    ///
    /// When the host describes a provider with something that this SDK does not know, such as
    /// another API.
    pub fn providers(&self) -> Result<Vec<Provider>> {
        let told: Option<BTreeMap<String, Provider>> =
            serde_json::from_value(self.inner.info.providers.clone())?;
        let named = told.unwrap_or_default().into_iter();
        Ok(named.map(|(id, provider)| Provider { id, ..provider }).collect())
    }

    /// Returns the time. On the test bench it is the bench's.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let nanoseconds = self.inner.services.now_ns();
        Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default()
    }

    /// Publishes an event and returns at once: the host keeps it in order, and writes one of a
    /// ledger type to the ledger. Use [`accept`](Self::accept) to be told when.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the host takes no more events just now.
    pub fn emit<T: EventType>(&self, event: &T) -> Result<()> {
        self.publish(std::slice::from_ref(event), None)
    }

    /// Publishes events and reports when all of them are accepted: ledger events are then written.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use module_sdk::{Host, Result, events::LlmRequestCompleted};
    /// fn report(host: &Host, event: LlmRequestCompleted) -> Result<()> {
    ///     host.accept(&[event]).wait(Duration::from_secs(5)) // or `.await`
    /// }
    /// ```
    pub fn accept<T: EventType>(&self, events: &[T]) -> Acceptance {
        let shared = Arc::new(Shared::default());
        if events.is_empty() {
            shared.settle(Ok(()));
        } else if let Err(error) = self.publish(events, Some(&shared)) {
            shared.settle(Err(error));
        }
        Acceptance { shared }
    }

    fn publish<T: EventType>(&self, events: &[T], done: Option<&Arc<Shared>>) -> Result<()> {
        let encoded = events
            .iter()
            .map(|event| Ok((event.topic(), event.subject(), encoded(event)?)))
            .collect::<Result<Vec<_>>>()?;
        let new: Vec<NewEvent<'_>> = events
            .iter()
            .zip(&encoded)
            .map(|(event, (topic, subject, data))| NewEvent {
                time_ns: event.time().map_or(0, nanoseconds),
                flags: flags(T::CLASS),
                topic: topic.as_ref().into(),
                subject: subject.as_deref().unwrap_or_default().into(),
                traceparent: "".into(),
                data: data.as_slice().into(),
                reserved: [0; 4],
            })
            .collect();
        let completion = match done {
            Some(shared) => RSome(Completion_TO::from_value(Signal(shared.clone()), TD_Opaque)),
            None => RNone,
        };
        self.inner
            .services
            .emit(new.as_slice().into(), completion)
            .into_result()
            .map_err(Error::from_abi)
    }

    /// Registers a counter: a number that only grows.
    ///
    /// Names follow Prometheus: `lodestar_<module>_<noun>_<unit>_total`. A family belongs to the
    /// module that registered it first, until that one is disabled. It counts on over reloads; a
    /// new build may change its kind or labels, and then it begins anew. A module has at most 256
    /// families, 10,000 series (1,000 of one family) and 1 MiB of names, help and labels.
    ///
    /// # Errors
    ///
    /// When the name is not valid, another module has it, this one has registered it otherwise
    /// since it started, or it has as much as it may have.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Counter> {
        self.metric(0, name, help, labels).map(Counter)
    }

    /// Registers a gauge: a number that goes up and down. It is shown until it is
    /// [cleared](Gauge::clear) or this generation of the module ends; the next sets it again.
    ///
    /// # Errors
    ///
    /// The same as those of [`Host::counter`].
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Gauge> {
        self.metric(1, name, help, labels).map(Gauge)
    }

    /// Registers a histogram of durations in seconds or of other sizes, in buckets from 0.005 to
    /// 120.
    ///
    /// # Errors
    ///
    /// The same as those of [`Host::counter`].
    pub fn histogram(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Histogram> {
        self.metric(2, name, help, labels).map(Histogram)
    }

    fn metric(&self, kind: u32, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Metric> {
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let labels = serde_json::to_vec(&labels)?;
        let handle = self
            .inner
            .services
            .metric(kind, name.into(), help.into(), labels.as_slice().into())
            .into_result()
            .map_err(Error::from_abi)?;
        Ok(Metric { host: self.clone(), handle })
    }

    /// Returns a secret that the manifest declares and the operator gave. It shows as `[redacted]`.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when it is not declared or not given.
    pub fn secret(&self, name: &str) -> Result<Secret> {
        let secret = self.inner.services.secret(name.into()).into_result();
        secret.map(|text| Secret(text.into_string())).map_err(Error::from_abi)
    }

    /// Returns a name that stands for `value` in this installation and cannot be turned back: the
    /// same for every module, another one for every `kind` (`session`, `user`, `host`, `project`).
    #[must_use]
    pub fn pseudonym(&self, kind: &str, value: &str) -> String {
        self.inner.services.pseudonym(kind.into(), value.into()).into_string()
    }

    /// Returns a duplicate of a listening socket that the manifest declares. The host holds the
    /// socket, so that it survives a reload.
    ///
    /// # Errors
    ///
    /// When the manifest does not declare it or its address is taken.
    pub fn listener(&self, name: &str) -> Result<TcpListener> {
        let descriptor = self.inner.services.listener(name.into()).into_result();
        descriptor.map(glue::tcp_listener).map_err(Error::from_abi)
    }

    /// Returns a value from the host's cache for this module.
    #[must_use]
    pub fn cache_get(&self, key: &str) -> Option<Vec<u8>> {
        let value = self.inner.services.cache_get(key.into()).into_vec();
        if value.is_empty() { None } else { Some(value) }
    }

    /// Keeps a value in the host's cache for `ttl`; an empty one removes it. The cache is memory,
    /// and goes with this generation of the module.
    ///
    /// A module may keep 10,000 values, of 1 MiB each at most and 16 MiB together, keys included. A
    /// value beyond that is not kept, and the old value of its key is gone: so treat the cache as a
    /// hint, and compute again what is not there.
    pub fn cache_set(&self, key: &str, value: &[u8], ttl: Duration) {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.inner.services.cache_set(key.into(), value.into(), ttl);
    }

    /// Returns the module's own tokio runtime: one thread, started at the first use, stopped after
    /// [`Module::stop`](crate::Module::stop).
    ///
    /// # Errors
    ///
    /// When its thread cannot be started.
    #[cfg(feature = "tokio")]
    pub fn runtime(&self) -> Result<tokio::runtime::Handle> {
        self.inner.runtime.handle(self)
    }

    /// Runs a future on the module's own runtime.
    ///
    /// # Errors
    ///
    /// When the runtime cannot be started.
    #[cfg(feature = "tokio")]
    pub fn spawn<F>(&self, future: F) -> Result<tokio::task::JoinHandle<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Ok(self.runtime()?.spawn(future))
    }

    /// Returns the number of another call.
    pub(crate) fn next_call(&self) -> u64 {
        self.inner.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Gives up on all calls, and lets no further one begin: a thread that waits would delay the
    /// end.
    pub(crate) fn end_calls(&self) {
        self.inner.is_ending.store(true, Ordering::SeqCst);
        self.inner.services.cancel_call(ALL_CALLS);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.inner.is_ending.load(Ordering::SeqCst)
    }

    pub(crate) fn stop_runtime(&self) {
        #[cfg(feature = "tokio")]
        self.inner.runtime.stop();
    }
}

const fn flags(class: Class) -> u32 {
    match class {
        Class::Ledger => FLAG_LEDGER,
        Class::Live => 0,
    }
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

/// A secret. It prints as `[redacted]`.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Returns the text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

#[derive(Debug, Clone)]
struct Metric {
    host: Host,
    handle: u64,
}

impl Metric {
    fn record(&self, value: f64) {
        self.host.inner.services.record(self.handle, value);
    }
}

/// A counter, registered with [`Host::counter`].
#[derive(Debug, Clone)]
pub struct Counter(Metric);

impl Counter {
    /// Adds an amount; one that is negative or not a number is ignored.
    pub fn add(&self, amount: f64) {
        if amount > 0.0 {
            self.0.record(amount);
        }
    }
}

/// A gauge, registered with [`Host::gauge`].
#[derive(Debug, Clone)]
pub struct Gauge(Metric);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.record(value);
    }

    /// Takes the gauge out of what is shown until it is set again: a thing that is gone has no
    /// value, and 0 would be one. Where the module has no more room the place of a cleared gauge
    /// goes to a new one, so register it again, with [`Host::gauge`], when its thing comes back.
    pub fn clear(&self) {
        self.0.record(f64::NAN);
    }
}

/// A histogram, registered with [`Host::histogram`].
#[derive(Debug, Clone)]
pub struct Histogram(Metric);

impl Histogram {
    /// Observes one value.
    pub fn observe(&self, value: f64) {
        self.0.record(value);
    }
}

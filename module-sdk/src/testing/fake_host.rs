//! The host that a module on the bench sees.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{SocketAddr, TcpListener},
    os::fd::IntoRawFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use lodestar_abi::{
    CallRequest, CompletionBox, HostServices, HostServices_TO, ModError, NewEvent, RelayedEvent,
    ReplySinkBox,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{RErr, ROk, ROption, RResult, RSlice, RSome, RStr, RString, RVec},
    },
};

use uuid::Uuid;

use super::{Called, Emitted, Logged};
use crate::{Error, ErrorKind, EventType, Host, Output, Reply, Result};

/// A function that answers a command of another module on the bench.
type Answerer = Arc<dyn Fn(serde_json::Value, &mut Output) -> Result<Reply> + Send + Sync>;

/// The host that a module on the bench sees.
#[derive(Debug)]
pub struct FakeHost {
    pub(super) directory: PathBuf,
    pub(super) sequence: AtomicU64,
    clock_ns: AtomicU64,
    state: Mutex<FakeState>,
}

#[derive(Default)]
struct FakeState {
    emitted: Vec<Emitted>,
    logged: Vec<Logged>,
    /// Number of events that were accepted and not kept; `None` while events are kept.
    discarded: Option<usize>,
    refuse: Option<String>,
    wanted: Vec<String>,
    secrets: HashMap<String, String>,
    providers: serde_json::Value,
    listeners: HashMap<String, TcpListener>,
    series: Vec<(String, f64)>,
    cache: HashMap<String, (u64, Vec<u8>)>,
    answers: HashMap<(String, String), Answerer>,
    called: Vec<Called>,
}

impl std::fmt::Debug for FakeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeState").field("emitted", &self.emitted.len()).finish_non_exhaustive()
    }
}

impl FakeHost {
    /// Creates a host whose modules keep their data in `directory`.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            sequence: AtomicU64::new(1),
            clock_ns: AtomicU64::new(
                u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default(),
            ),
            state: Mutex::default(),
        }
    }

    /// Returns the host as a module gets it, for tests of a module's parts.
    ///
    /// # Errors
    ///
    /// When its directory has a name that is no text.
    pub fn host(self: &Arc<Self>) -> Result<Host> {
        Host::new(HostServices_TO::from_value(Services(self.clone()), TD_Opaque))
    }

    fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.clock_ns.load(Ordering::SeqCst)
    }

    /// Returns the time on the bench's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.now_ns())).unwrap_or_default()
    }

    pub(super) fn set_now_ns(&self, now: u64) {
        self.clock_ns.store(now, Ordering::SeqCst);
    }

    /// Sets the clock, without running timers.
    pub fn set_now(&self, now: Timestamp) {
        self.set_now_ns(u64::try_from(now.as_nanosecond()).unwrap_or_default());
    }

    /// Gives the module a secret.
    pub fn set_secret(&self, name: &str, value: &str) {
        self.state().secrets.insert(name.to_owned(), value.to_owned());
    }

    /// Gives a module that starts from now on its `providers`: by id an object with the fields of
    /// [`Provider`](crate::Provider).
    pub fn set_providers(&self, providers: serde_json::Value) {
        self.state().providers = providers;
    }

    /// Answers the calls of a command of another module, or of `host`, on a thread of their own.
    /// Calls of other commands fail with [`ErrorKind::NotFound`].
    ///
    /// ```
    /// # use module_sdk::{Reply, testing::FakeHost};
    /// # let host = FakeHost::new(std::path::Path::new("/nowhere"));
    /// host.answer("usage_tracker", "summary", |args, _| {
    ///     assert_eq!(args["since"], "7d");
    ///     Reply::json(&serde_json::json!({"total": {"cost_usd": "1.25"}}))
    /// });
    /// ```
    pub fn answer(
        &self,
        target: &str,
        command: &str,
        answer: impl Fn(serde_json::Value, &mut Output) -> Result<Reply> + Send + Sync + 'static,
    ) {
        let key = (target.to_owned(), command.to_owned());
        self.state().answers.insert(key, Arc::new(answer));
    }

    /// Returns the calls that the module made so far.
    #[must_use]
    pub fn called(&self) -> Vec<Called> {
        self.state().called.clone()
    }

    /// Makes every further emission fail as unavailable; `None` ends that.
    pub fn refuse_events(&self, reason: Option<&str>) {
        self.state().refuse = reason.map(str::to_owned);
    }

    /// Accepts every further event without keeping it, for tests that measure memory.
    pub fn discard_events(&self) {
        self.state().discarded.get_or_insert(0);
    }

    /// Returns how many events were accepted and not kept.
    #[must_use]
    pub fn discarded(&self) -> usize {
        self.state().discarded.unwrap_or(0)
    }

    /// Makes a module subscribe to topics: [`Host::wanted`](crate::Host::wanted) returns true for
    /// those that fit a filter, and false for all others.
    pub fn want(&self, filter: &str) {
        self.state().wanted.push(filter.to_owned());
    }

    /// Returns the events that the module emitted so far.
    #[must_use]
    pub fn emitted(&self) -> Vec<Emitted> {
        self.state().emitted.clone()
    }

    /// Returns the events of one type that the module emitted so far.
    ///
    /// # Errors
    ///
    /// When a payload does not have the form of the type.
    pub fn emitted_as<T: EventType>(&self) -> Result<Vec<T>> {
        let emitted = self.emitted().into_iter();
        emitted
            .filter(|event| crate::events::fits(T::TOPIC, &event.topic))
            .map(|event| Ok(serde_json::from_value(event.data)?))
            .collect()
    }

    /// Returns the records that the module logged so far.
    #[must_use]
    pub fn logged(&self) -> Vec<Logged> {
        self.state().logged.clone()
    }

    /// Returns the module's metrics: a series is `name{"label":"value"}`; a histogram shows its
    /// last value, and a gauge that is cleared is not there.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let state = self.state();
        let shown = state.series.iter().filter(|(_, value)| !value.is_nan());
        shown.cloned().collect()
    }

    /// Returns the address of a listener. It is bound to a free port of the loopback at the first
    /// use.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub fn listener_address(&self, name: &str) -> Result<SocketAddr> {
        Ok(self.bind(name)?.local_addr()?)
    }

    /// Accepts events as the daemon does: an event that was relayed before is accepted and goes
    /// nowhere.
    fn take(
        &self,
        events: impl Iterator<Item = Emitted>,
        done: ROption<CompletionBox>,
    ) -> RResult<(), ModError> {
        let mut state = self.state();
        if let Some(reason) = &state.refuse {
            return RErr(failure(ErrorKind::Unavailable, reason.as_str()));
        }
        for event in events {
            if let Some(discarded) = &mut state.discarded {
                *discarded += 1;
                continue;
            }
            let id = |event: &Emitted| event.relayed.as_ref().map(|(id, _)| *id);
            let is_known =
                event.relayed.is_some() && state.emitted.iter().any(|it| id(it) == id(&event));
            if !is_known {
                state.emitted.push(event);
            }
        }
        drop(state);
        if let RSome(done) = done {
            done.complete(ROk(()));
        }
        ROk(())
    }

    fn bind(&self, name: &str) -> io::Result<TcpListener> {
        let mut state = self.state();
        if let Some(listener) = state.listeners.get(name) {
            return listener.try_clone();
        }
        let listener = TcpListener::bind("127.0.0.1:0")?;
        state.listeners.insert(name.to_owned(), listener.try_clone()?);
        Ok(listener)
    }
}

fn emitted(event: &NewEvent<'_>, relayed: Option<(Uuid, String)>) -> Emitted {
    Emitted {
        topic: event.topic.to_string(),
        subject: event.subject.to_string(),
        ledger: event.flags & lodestar_abi::FLAG_LEDGER != 0,
        data: serde_json::from_slice(event.data.as_slice()).unwrap_or_default(),
        relayed,
    }
}

fn failure(kind: ErrorKind, message: impl Into<String>) -> ModError {
    Error::of(kind, message).into_abi()
}

pub(super) struct Services(pub(super) Arc<FakeHost>);

impl HostServices for Services {
    fn info(&self) -> RVec<u8> {
        let info = serde_json::json!({
            "name": "bench", "data_dir": self.0.directory, "generation": 1, "log_level": 5,
            "providers": self.0.state().providers,
        });
        info.to_string().into_bytes().into()
    }

    fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    fn emit(
        &self,
        events: RSlice<'_, NewEvent<'_>>,
        done: ROption<CompletionBox>,
    ) -> RResult<(), ModError> {
        self.0.take(events.as_slice().iter().map(|event| emitted(event, None)), done)
    }

    fn log(&self, level: u32, _: RStr<'_>, message: RStr<'_>, fields: RSlice<'_, u8>) {
        self.0.state().logged.push(Logged {
            level,
            message: message.to_string(),
            fields: serde_json::from_slice(fields.as_slice()).unwrap_or_default(),
        });
    }

    fn metric(
        &self,
        _: u32,
        name: RStr<'_>,
        _: RStr<'_>,
        labels: RSlice<'_, u8>,
    ) -> RResult<u64, ModError> {
        let labels = String::from_utf8_lossy(labels.as_slice()).into_owned();
        let key = if labels == "{}" { name.to_string() } else { format!("{name}{labels}") };
        let mut state = self.0.state();
        let handle =
            state.series.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
                state.series.push((key, 0.0));
                state.series.len() - 1
            });
        ROk(handle as u64)
    }

    fn record(&self, handle: u64, value: f64) {
        let index = usize::try_from(handle).unwrap_or(usize::MAX);
        if let Some((name, current)) = self.0.state().series.get_mut(index) {
            // The bench does not know kinds: what ends in `_total` adds up, the rest is set.
            let adds = name.split('{').next().is_some_and(|name| name.ends_with("_total"));
            *current = if adds { *current + value } else { value };
        }
    }

    fn secret(&self, name: RStr<'_>) -> RResult<RString, ModError> {
        match self.0.state().secrets.get(name.as_str()) {
            Some(secret) => ROk(secret.as_str().into()),
            None => RErr(failure(ErrorKind::NotFound, format!("no secret {name:?}"))),
        }
    }

    fn pseudonym(&self, kind: RStr<'_>, value: RStr<'_>) -> RString {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        (kind.as_str(), value.as_str()).hash(&mut hasher);
        // The form of the daemon's: 26 characters of base 32.
        let mut bits = hasher.finish();
        let mut name = format!("{kind}_");
        for _ in 0..26 {
            name.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(bits & 31) as usize]));
            bits = bits.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        name.into()
    }

    fn listener(&self, name: RStr<'_>) -> RResult<i32, ModError> {
        match self.0.bind(name.as_str()) {
            Ok(listener) => ROk(listener.into_raw_fd()),
            Err(error) => RErr(failure(ErrorKind::Unavailable, error.to_string())),
        }
    }

    fn cache_get(&self, key: RStr<'_>) -> RVec<u8> {
        let now = self.0.now_ns();
        let state = self.0.state();
        match state.cache.get(key.as_str()) {
            Some((expires, value)) if *expires > now => value.clone().into(),
            _ => RVec::new(),
        }
    }

    fn cache_set(&self, key: RStr<'_>, value: RSlice<'_, u8>, ttl_ms: u64) {
        let expires = self.0.now_ns().saturating_add(ttl_ms.saturating_mul(1_000_000));
        self.0.state().cache.insert(key.to_string(), (expires, value.to_vec()));
    }

    fn heap_bytes(&self, _: u64) {}

    fn wanted(&self, topic: RStr<'_>) -> bool {
        self.0.state().wanted.iter().any(|filter| crate::events::fits(filter, topic.as_str()))
    }

    fn relay(
        &self,
        events: RSlice<'_, RelayedEvent<'_>>,
        done: ROption<CompletionBox>,
    ) -> RResult<(), ModError> {
        let relayed = events.as_slice().iter().map(|relayed| {
            let origin = (Uuid::from_bytes(relayed.id), relayed.origin.to_string());
            emitted(&relayed.event, Some(origin))
        });
        self.0.take(relayed, done)
    }

    fn call(&self, request: CallRequest<'_>, sink: ReplySinkBox) -> RResult<(), ModError> {
        let (target, command) = (request.target.to_string(), request.command.to_string());
        let arguments: serde_json::Value =
            serde_json::from_slice(request.arguments.as_slice()).unwrap_or_default();
        let mut state = self.0.state();
        let answer = state.answers.get(&(target.clone(), command.clone())).cloned();
        let missing = format!("nothing answers {target}.{command}; see FakeHost::answer");
        state.called.push(Called {
            number: request.number,
            target,
            command,
            arguments: arguments.clone(),
            deadline_ms: request.deadline_ms,
            cancelled: false,
        });
        drop(state);
        let Some(answer) = answer else { return RErr(failure(ErrorKind::NotFound, missing)) };
        let mut output = Output::new(sink);
        std::thread::spawn(move || {
            let result = answer(arguments, &mut output);
            output.finish(result);
        });
        ROk(())
    }

    fn cancel_call(&self, number: u64) {
        // At its end the module cancels whatever may be under way, by a number that no call has.
        let mut state = self.0.state();
        if let Some(call) = state.called.iter_mut().rfind(|call| call.number == number) {
            call.cancelled = true;
        }
    }
}

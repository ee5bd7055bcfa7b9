//! The state that all handlers share, and the one path by which reports reach the bus.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use axum::http::HeaderMap;
use jiff::Timestamp;
use module_sdk::{
    Class, EventType, Health, Host, Result,
    events::{LlmRequestCompleted, LlmRequestWithdrawn, LynexEvent, TraceSpanCompleted},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::{
    config::Config,
    correlate::{Correlated, Correlator, Link, Shared},
    lynex::Keys,
    report::Report,
    server::Budget,
    sources::Conversations,
    stats::Stats,
};

/// Time that the ledger may take before the sender is asked to try again.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for which `/healthz` answers 503 after the host has refused events, in milliseconds.
const DEGRADED_MS: i64 = 10_000;

/// Largest number of events that go to the host at once.
const CHUNK: usize = 1000;

/// The state that the handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) host: Host,
    pub(crate) config: Config,
    pub(crate) keys: Keys,
    pub(crate) stats: Stats,
    pub(crate) budget: Budget,
    /// Permits for calls of gRPC, of which a connection may have many at once.
    pub(crate) calls: Semaphore,
    pub(crate) conversations: Conversations,
    draining: AtomicBool,
    correlator: Shared,
    journal_fault: Mutex<Option<String>>,
    refused_at: AtomicI64,
}

/// An event on its way to the bus. One batch may hold several kinds, and is accepted as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Outgoing {
    Lynex(LynexEvent),
    Step(Box<TraceSpanCompleted>),
    Withdrawn(LlmRequestWithdrawn),
    Request(Box<LlmRequestCompleted>),
}

impl EventType for Outgoing {
    const TOPIC: &'static str = ">";
    const CLASS: Class = Class::Ledger;

    fn topic(&self) -> Cow<'_, str> {
        match self {
            Self::Lynex(event) => event.topic(),
            Self::Step(event) => event.topic(),
            Self::Withdrawn(event) => event.topic(),
            Self::Request(event) => event.topic(),
        }
    }

    fn subject(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Lynex(event) => event.subject(),
            Self::Step(event) => event.subject(),
            Self::Withdrawn(event) => event.subject(),
            Self::Request(event) => event.subject(),
        }
    }

    fn time(&self) -> Option<Timestamp> {
        match self {
            Self::Lynex(event) => event.time(),
            Self::Step(event) => event.time(),
            Self::Withdrawn(event) => event.time(),
            Self::Request(event) => event.time(),
        }
    }
}

/// The decoded content of one body.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) reports: Vec<Report>,
    pub(crate) links: Vec<Link>,
    pub(crate) steps: Vec<Step>,
    pub(crate) lynex: Vec<LynexEvent>,
}

/// A step of a trace, with the index of its report among those of the body.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) event: TraceSpanCompleted,
    pub(crate) report: Option<usize>,
}

impl Step {
    /// Returns the event with the key of the request that the step is. A step that sums up other
    /// requests has no tokens of its own.
    fn join(mut self, reports: &[Report], joined: &[Correlated]) -> TraceSpanCompleted {
        let Some(index) = self.report else { return self.event };
        match (reports.get(index), joined.get(index)) {
            (Some(report), Some(how)) if *how != Correlated::Sum => {
                self.event.dedupe_key = Some(report.event.dedupe_key.clone());
            }
            _ => (self.event.input_tokens, self.event.output_tokens) = (None, None),
        }
        self.event
    }
}

/// The reports of one body after correlation.
#[derive(Debug, Default)]
struct Requests {
    /// The correlation of each report.
    joined: Vec<Correlated>,
    /// The events to publish, with the correlation of each.
    events: (Vec<Correlated>, Vec<Outgoing>),
    /// Number of published requests whose stated time was impossible.
    corrected: usize,
    /// The keys of the withdrawn requests.
    withdrawn: Vec<String>,
    /// The steps, with the keys of the requests that they are.
    steps: Vec<TraceSpanCompleted>,
}

impl Requests {
    fn new(
        reports: Vec<Report>,
        joined: Vec<Correlated>,
        withdrawn: Vec<String>,
        steps: Vec<Step>,
        now_ms: i64,
    ) -> Self {
        let steps = steps.into_iter().map(|step| step.join(&reports, &joined)).collect();
        let requests = reports.into_iter().zip(joined.iter().copied());
        let requests: Vec<_> = requests.filter(|(_, how)| *how != Correlated::Sum).collect();
        let corrected = requests.iter().filter(|(report, _)| report.clock_corrected).count();
        let withdrawals = withdrawn.iter().cloned().map(|dedupe_key| {
            let event = LlmRequestWithdrawn { dedupe_key, at: now_ms };
            (Correlated::Sum, Outgoing::Withdrawn(event))
        });
        let requests = requests
            .into_iter()
            .map(|(report, how)| (how, Outgoing::Request(Box::new(report.event))));
        let events = requests.chain(withdrawals).unzip();
        Self { events, joined, corrected, withdrawn, steps }
    }
}

impl App {
    pub(crate) fn new(config: Config, host: &Host) -> Result<Self> {
        let window = Duration::from_secs(u64::from(config.join_window_seconds.get()));
        let forget = Duration::from_secs(60 * u64::from(config.forget_after_minutes.get()));
        let now_ms = host.now().as_millisecond();
        let (correlator, fault) = match Correlator::open(host.data_dir(), window, forget, now_ms) {
            Ok(correlator) => (correlator, None),
            Err(error) => (Correlator::in_memory(window, forget), Some(error.to_string())),
        };
        let app = Self {
            host: host.clone(),
            keys: Keys::new(&config),
            stats: Stats::new(host),
            budget: Budget::new(config.max_buffered_bytes.get(), config.max_decoded_bytes.get()),
            calls: Semaphore::new(config.max_connections.get().into()),
            conversations: Conversations::default(),
            draining: AtomicBool::new(false),
            correlator: Shared::new(correlator),
            journal_fault: Mutex::new(None),
            refused_at: AtomicI64::new(i64::MIN),
            config,
        };
        app.note_journal(fault);
        Ok(app)
    }

    /// Correlates and publishes the events, and waits until the ledger has all of them. Returns how
    /// each report was correlated; one that is a [`Correlated::Sum`] is not published.
    ///
    /// # Errors
    ///
    /// When the host does not accept the events. Some of them may then be stored, and the sender
    /// should try again.
    pub(crate) async fn publish(self: &Arc<Self>, told: Told) -> Result<Vec<Correlated>> {
        let Told { reports, links, steps, lynex } = told;
        let requests = if reports.is_empty() && links.is_empty() {
            Requests::new(reports, Vec::new(), Vec::new(), steps, 0)
        } else {
            let app = self.clone();
            // The journal is a file: whoever waits for the disk must not hold up the others.
            tokio::task::spawn_blocking(move || app.join(reports, &links, steps)).await?
        };
        let Requests { joined, events: (hows, mut events), corrected, withdrawn, steps } = requests;
        events.extend(steps.into_iter().map(|step| Outgoing::Step(Box::new(step))));
        events.extend(lynex.into_iter().map(Outgoing::Lynex));
        for chunk in events.chunks(CHUNK) {
            self.accept(chunk).await?;
        }
        if !withdrawn.is_empty() {
            let app = self.clone();
            tokio::task::spawn_blocking(move || app.told(&withdrawn)).await?;
        }
        for (index, event) in events.iter().enumerate() {
            self.stats.event(&event.topic(), hows.get(index).map_or("new", |how| how.as_str()));
        }
        (0..corrected).for_each(|_| self.stats.corrected_clock());
        Ok(joined)
    }

    /// Returns for each span the number of spans that enclose it. Blocks.
    pub(crate) fn depths(&self, spans: Vec<u64>) -> Vec<usize> {
        self.correlator.depths(&spans)
    }

    fn join(&self, mut reports: Vec<Report>, links: &[Link], steps: Vec<Step>) -> Requests {
        let now_ms = self.host.now().as_millisecond();
        let resolved = self.correlator.resolve(&mut reports, links, now_ms);
        self.note_journal(resolved.written.err().map(|error| error.to_string()));
        Requests::new(reports, resolved.joined, resolved.withdrawn, steps, now_ms)
    }

    /// Records that the ledger has these withdrawals. Until then they are sent with every body.
    fn told(&self, withdrawn: &[String]) {
        let written = self.correlator.told(withdrawn, self.host.now().as_millisecond());
        if let Err(error) = written {
            self.note_journal(Some(error.to_string()));
        }
    }

    async fn accept(&self, events: &[Outgoing]) -> Result<()> {
        let accepted = tokio::time::timeout(ACCEPT_TIMEOUT, self.host.accept(events)).await;
        let result = accepted.unwrap_or_else(|_| {
            Err(module_sdk::Error::unavailable("the ledger has not answered in 10 s"))
        });
        match &result {
            Ok(()) => self.refused_at.store(i64::MIN, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(%error, "the host does not accept events");
                self.refused_at.store(self.host.now().as_millisecond(), Ordering::Relaxed);
            }
        }
        result
    }

    /// Returns the project that a sender names in a header.
    pub(crate) fn stated_project(&self, headers: &HeaderMap) -> Option<String> {
        headers.get("x-lodestar-project")?.to_str().ok().map(str::to_owned)
    }

    /// Returns the time that a client has for a body.
    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.config.body_timeout_seconds.get().into())
    }

    /// Returns whether events are accepted at the moment.
    pub(crate) fn is_accepting(&self) -> bool {
        let refused = self.refused_at.load(Ordering::Relaxed);
        !self.is_draining()
            && self.host.now().as_millisecond().saturating_sub(refused) > DEGRADED_MS
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn health(&self) -> Health {
        if !self.is_draining() && !self.is_accepting() {
            return Health::degraded(
                "the host does not accept events; senders are asked to come again",
            );
        }
        match &*locked(&self.journal_fault) {
            Some(fault) => Health::degraded(format!(
                "what joins reports is not written ({fault}); until that is mended a restart may \
                 count a request twice"
            )),
            None => Health::ok(""),
        }
    }

    /// Forgets idle senders and old requests.
    pub(crate) fn tidy(&self) {
        self.keys.forget_idle();
        let tidied = self.correlator.tidy(self.host.now().as_millisecond());
        if let Some((remembered, refreshed)) = tidied {
            self.stats.remembered(remembered);
            self.note_journal(refreshed.err().map(|error| error.to_string()));
        }
    }

    fn note_journal(&self, fault: Option<String>) {
        let mut known = locked(&self.journal_fault);
        if let Some(fault) = &fault
            && known.is_none()
        {
            tracing::warn!(error = %fault, "the journal of joins cannot be used");
        }
        *known = fault;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! What all handlers share, and the one road by which reports reach the bus.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use module_sdk::{
    Class, EventType, Health, Host, Result,
    events::{LlmRequestCompleted, LynexEvent},
};
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    join::{Joined, Joiner},
    lynex::Keys,
    report::Report,
    server::Budget,
    sources::Conversations,
    tally::Tally,
};

/// How long the ledger may take before the sender is asked to come again.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a refusal of the host makes `/healthz` say 503.
const DEGRADED_MS: i64 = 10_000;

/// How many events go to the host at once.
const CHUNK: usize = 1000;

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) host: Host,
    pub(crate) config: Config,
    pub(crate) keys: Keys,
    pub(crate) tally: Tally,
    pub(crate) budget: Budget,
    pub(crate) conversations: Conversations,
    draining: AtomicBool,
    joiner: Mutex<Joiner>,
    journal_fault: Mutex<Option<String>>,
    refused_at: AtomicI64,
}

/// An event on its way to the bus. One batch may hold both kinds, and is accepted as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Outgoing {
    Lynex(LynexEvent),
    Request(Box<LlmRequestCompleted>),
}

impl EventType for Outgoing {
    const TOPIC: &'static str = ">";
    const CLASS: Class = Class::Ledger;

    fn topic(&self) -> Cow<'_, str> {
        match self {
            Self::Lynex(event) => event.topic(),
            Self::Request(event) => event.topic(),
        }
    }

    fn subject(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Lynex(event) => event.subject(),
            Self::Request(event) => event.subject(),
        }
    }

    fn time(&self) -> Option<Timestamp> {
        match self {
            Self::Lynex(event) => event.time(),
            Self::Request(event) => event.time(),
        }
    }
}

impl App {
    pub(crate) fn new(config: Config, host: &Host) -> Result<Self> {
        let window = Duration::from_secs(u64::from(config.join_window_seconds.get()));
        let forget = Duration::from_secs(60 * u64::from(config.forget_after_minutes.get()));
        let now_ms = host.now().as_millisecond();
        let (joiner, fault) = match Joiner::open(host.data_dir(), window, forget, now_ms) {
            Ok(joiner) => (joiner, None),
            Err(error) => (Joiner::in_memory(window, forget), Some(error.to_string())),
        };
        let app = Self {
            host: host.clone(),
            keys: Keys::new(&config),
            tally: Tally::new(host),
            budget: Budget::new(config.max_buffered_bytes.get()),
            conversations: Conversations::default(),
            draining: AtomicBool::new(false),
            joiner: Mutex::new(joiner),
            journal_fault: Mutex::new(None),
            refused_at: AtomicI64::new(i64::MIN),
            config,
        };
        app.note_journal(fault);
        Ok(app)
    }

    /// Joins, publishes, and waits until the ledger has everything.
    ///
    /// # Errors
    ///
    /// When the host does not accept; nothing is then certain, and the sender should come again.
    pub(crate) async fn publish(
        self: &Arc<Self>,
        mut reports: Vec<Report>,
        lynex: Vec<LynexEvent>,
    ) -> Result<()> {
        let joined = if reports.is_empty() {
            Vec::new()
        } else {
            let app = self.clone();
            // The journal is a file: whoever waits for the disk must not hold up the others.
            let joining = tokio::task::spawn_blocking(move || {
                let joined = app.join(&mut reports);
                (joined, reports)
            });
            let joined;
            (joined, reports) = joining.await?;
            joined
        };
        let corrected = reports.iter().filter(|report| report.clock_corrected).count();
        let requests = reports.into_iter().map(|report| Outgoing::Request(Box::new(report.event)));
        let events: Vec<Outgoing> =
            requests.chain(lynex.into_iter().map(Outgoing::Lynex)).collect();
        for chunk in events.chunks(CHUNK) {
            self.accept(chunk).await?;
        }
        for (index, event) in events.iter().enumerate() {
            self.tally.event(&event.topic(), joined.get(index).map_or("new", |how| how.as_str()));
        }
        (0..corrected).for_each(|_| self.tally.corrected_clock());
        Ok(())
    }

    fn join(&self, reports: &mut [Report]) -> Vec<Joined> {
        let now_ms = self.host.now().as_millisecond();
        let mut joiner = locked(&self.joiner);
        let refreshed = joiner.refresh(now_ms);
        let joined = reports.iter_mut().map(|report| joiner.resolve(report, now_ms)).collect();
        // Before anybody hears of the keys: a resend after a kill must find them.
        let committed = joiner.commit(now_ms);
        let written = refreshed.and(committed);
        drop(joiner);
        self.note_journal(written.err().map(|error| error.to_string()));
        joined
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

    /// Whether events are accepted at the moment.
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

    /// What is due now and then: forgets what is old.
    pub(crate) fn tidy(&self) {
        self.keys.forget_idle();
        let mut joiner = locked(&self.joiner);
        let refreshed = joiner.refresh(self.host.now().as_millisecond());
        self.tally.remembered(joiner.len());
        drop(joiner);
        self.note_journal(refreshed.err().map(|error| error.to_string()));
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

//! `usage_tracker`: the usage and cost of every model, in SQLite.
//!
//! A batch of `llm.request.completed` arrives; impossible figures are removed and names of people
//! replaced by pseudonyms ([`sanitize`]); the batch is written in one transaction, every request
//! priced ([`prices`]), counted once and added to the rollups ([`store`]); only then is it
//! acknowledged. Timers delete old requests and end idle sessions (`maintenance`). Queries are
//! answered from the rollups over read-only connections (`answers`, [`query`]).

mod answers;
mod backup;
mod clock;
mod commands;
pub mod config;
mod days;
mod export;
mod format;
pub mod import;
mod maintenance;
mod merge;
mod metrics;
pub mod prices;
pub mod query;
pub mod sanitize;
pub mod store;
mod transcripts;
mod watch;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use module_sdk::{
    Event, Health, HealthStatus, Host, Module, Result, Wiring, Zone,
    events::{LlmRequestCompleted, LlmRequestWithdrawn},
};

use crate::{
    clock::Arrival,
    config::Config,
    import::{Projects, SharedStore},
    metrics::Metrics,
    sanitize::Report,
    store::Store,
    watch::{Watch, Watched},
};

/// The module.
#[derive(Debug)]
pub struct UsageTracker {
    host: Host,
    store: SharedStore,
    zone: Zone,
    /// Time for which requests are kept, in milliseconds; `None` keeps them for ever.
    retention_ms: Option<i64>,
    anonymise: bool,
    /// The projects that the operator has named.
    projects: Projects,
    metrics: Metrics,
    /// The watch over transcripts, where that is wanted.
    watch: Option<Watch>,
    /// Tells exports, backups and imports that the module stops.
    stopping: Arc<AtomicBool>,
    /// `true` while a backup is being made.
    backing_up: Arc<AtomicBool>,
}

module_sdk::export!(UsageTracker);

impl Module for UsageTracker {
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        config.check()
    }

    fn start(config: Config, host: &Host) -> Result<Self> {
        let days = i64::from(config.retention_days);
        let store: SharedStore = Arc::new(Mutex::new(config.open(host.data_dir())?));
        let projects = Projects::of(&config.projects);
        let stopping: Arc<AtomicBool> = Arc::default();
        let watched = config.watch.then(|| Watched {
            store: store.clone(),
            host: host.clone(),
            anonymise: config.privacy.anonymise,
            projects: projects.clone(),
            stopping: stopping.clone(),
            places: Box::new(watch::places),
            quiet: watch::QUIET,
        });
        Ok(Self {
            watch: watched.map(Watch::start).transpose()?,
            zone: config.timezone.clone(),
            retention_ms: (days > 0).then_some(days * 24 * 3_600_000),
            anonymise: config.privacy.anonymise,
            projects,
            store,
            metrics: Metrics::new(host)?,
            stopping,
            backing_up: Arc::default(),
            host: host.clone(),
        })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring
            .on_batch(Self::completed)
            .on_batch(Self::withdrawn)
            .every(Duration::from_secs(10), Self::delete_old_requests)
            .every(Duration::from_secs(30), Self::end_idle_sessions)
            .command("summary", Self::summary)
            .command("sessions", Self::sessions)
            .command("requests", Self::requests)
            .command("models", Self::models)
            .command("sources", Self::sources)
            .command("import-known", Self::import_known)
            .job_with_files("import", Self::import)
            .stream("export", Self::export)
            .job("backup", Self::backup);
    }

    fn health(&self) -> Health {
        match self.store().health() {
            health if health.status == HealthStatus::Ok => clock::health(self.host.now()),
            health => health,
        }
    }

    fn stop(&mut self, _: Duration) -> Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        self.watch = None;
        Ok(self.store().close()?)
    }
}

impl UsageTracker {
    /// Writes a batch; the batch is stored once this returns `Ok`.
    fn completed(&mut self, events: Vec<Event<'_, LlmRequestCompleted>>) -> Result<()> {
        let arrival = self.arrival();
        let reports: Vec<Report> =
            events.into_iter().map(|event| self.report(event, arrival)).collect();
        let begun = Instant::now();
        let written = self.store().write(reports, arrival.at_ms)?;
        let seconds = begun.elapsed().as_secs_f64();
        for started in &written.news.started {
            self.tell(started);
        }
        for switched in &written.news.switched {
            self.tell(switched);
        }
        self.metrics.written(&written, seconds, &self.store());
        Ok(())
    }

    /// Withdraws requests that turned out not to be requests.
    fn withdrawn(&mut self, events: Vec<Event<'_, LlmRequestWithdrawn>>) -> Result<()> {
        let at_ms = self.arrival().at_ms;
        let keys: Vec<String> = events.into_iter().map(|event| event.data.dedupe_key).collect();
        let withdrawn = self.store().withdraw(&keys, at_ms)?;
        if withdrawn.too_late > 0 {
            tracing::warn!(
                requests = withdrawn.too_late,
                "requests that turned out to be none stay in the totals: retention_days has \
                 deleted what they added"
            );
            self.metrics.too_late(withdrawn.too_late);
        }
        Ok(())
    }

    /// Returns the time now, or its best estimate where the clock of the machine cannot be right.
    pub(crate) fn arrival(&self) -> Arrival {
        let now = self.host.now().as_millisecond();
        Arrival::now(now, || self.store().newest_ms().ok().flatten())
    }

    /// Returns the store. An import holds it for the time of one transaction.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, event: Event<'_, LlmRequestCompleted>, arrival: Arrival) -> Report {
        let mut report = Report::received(event.id, event.data, arrival);
        if self.anonymise {
            report.anonymise(|kind, value| self.host.pseudonym(kind, value));
        }
        report
    }

    /// Emits an event about a session. A failure is only logged.
    fn tell<T: module_sdk::EventType>(&self, event: &T) {
        if let Err(error) = self.host.emit(event) {
            tracing::debug!(%error, topic = T::TOPIC, "cannot tell about a session");
        }
    }
}

//! `usage_tracker`: what every model costs, in SQLite.
//!
//! The story: a batch of `llm.request.completed` comes in; figures that cannot be true and names of
//! people are taken out ([`intake`]); the batch is written in one transaction, every request
//! priced ([`prices`]), counted once and added to the rollups ([`store`]); only then is it
//! acknowledged. Questions are answered from the rollups over connections that only read
//! ([`query`]).

mod commands;
pub mod config;
mod export;
mod format;
pub mod histogram;
pub mod intake;
mod merge;
mod metrics;
pub mod period;
pub mod prices;
pub mod query;
mod storage;
pub mod store;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;
use module_sdk::{
    Event, Health, Host, Job, Module, Reply, Result, Wiring, events::LlmRequestCompleted,
};

use crate::{
    commands::{ModelsArgs, RequestsArgs, SessionsArgs, SummaryArgs},
    config::Config,
    export::ExportArgs,
    intake::Report,
    metrics::Metrics,
    period::Period,
    query::Reader,
    storage::Storage,
};

/// How many pieces of a thousand requests retention deletes before it lets events through again.
const PURGES_AT_ONCE: usize = 10;

/// The module.
#[derive(Debug)]
pub struct UsageTracker {
    host: Host,
    storage: Storage,
    zone: TimeZone,
    /// `None` keeps requests for ever.
    retention_ms: Option<i64>,
    anonymise: bool,
    metrics: Metrics,
    /// Tells exports that the module stops.
    stopping: Arc<AtomicBool>,
}

module_sdk::export!(UsageTracker);

impl Module for UsageTracker {
    type Config = Config;

    fn start(config: Config, host: &Host) -> Result<Self> {
        let zone = config.timezone()?;
        let days = i64::from(config.retention_days);
        Ok(Self {
            zone,
            retention_ms: (days > 0).then_some(days * 24 * 3_600_000),
            anonymise: config.privacy.anonymise,
            storage: Storage::open(config, host.data_dir())?,
            metrics: Metrics::new(host)?,
            stopping: Arc::default(),
            host: host.clone(),
        })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring
            .on_batch(Self::completed)
            .every(Duration::from_secs(10), Self::delete_old_requests)
            .every(Duration::from_secs(30), Self::end_idle_sessions)
            .command("summary", Self::summary)
            .command("sessions", Self::sessions)
            .command("requests", Self::requests)
            .command("models", Self::models)
            .stream("export", Self::export);
    }

    fn health(&self) -> Health {
        self.storage.health()
    }

    fn stop(&mut self, _: Duration) -> Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        self.storage.close()
    }
}

impl UsageTracker {
    /// Writes a batch; when this answers `Ok` it is safe.
    fn completed(&mut self, events: &[Event<'_, LlmRequestCompleted>]) -> Result<()> {
        let now = self.host.now().as_millisecond();
        let reports: Vec<Report> = events.iter().map(|event| self.report(event, now)).collect();
        let begun = Instant::now();
        let store = self.storage.store()?;
        let written = store.write(reports, now);
        let seconds = begun.elapsed().as_secs_f64();
        let written = self.storage.note(written)?;
        for started in &written.news.started {
            self.tell(started);
        }
        for switched in &written.news.switched {
            self.tell(switched);
        }
        let store = self.storage.store()?;
        if let Err(error) = self.metrics.written(&written, seconds, store) {
            // The batch is safe; figures for Prometheus are not worth writing it twice.
            tracing::warn!(%error, "cannot update the metrics of a batch");
        }
        Ok(())
    }

    fn report(&self, event: &Event<'_, LlmRequestCompleted>, now_ms: i64) -> Report {
        let mut report = Report::new(event.id, event.data.clone(), now_ms);
        if self.anonymise {
            report.anonymise(|kind, value| self.host.pseudonym(kind, value));
        }
        report
    }

    /// Says what happened to a session. Nobody may be there to hear it.
    fn tell<T: module_sdk::EventType>(&self, event: &T) {
        if let Err(error) = self.host.emit(event) {
            tracing::debug!(%error, topic = T::TOPIC, "cannot tell about a session");
        }
    }

    fn delete_old_requests(&mut self) -> Result<()> {
        let Some(retention_ms) = self.retention_ms else { return Ok(()) };
        let before = self.host.now().as_millisecond().saturating_sub(retention_ms);
        let mut deleted = 0;
        for _ in 0..PURGES_AT_ONCE {
            let purged = self.storage.store()?.purge(before);
            match self.storage.note(purged)? {
                0 => break,
                some => deleted += some,
            }
        }
        if deleted > 0 {
            tracing::debug!(deleted, "deleted requests older than retention_days");
        }
        self.metrics.sizes(self.storage.store()?);
        Ok(())
    }

    fn end_idle_sessions(&mut self) -> Result<()> {
        let now = self.host.now().as_millisecond();
        let ended = self.storage.store()?.end_idle_sessions(now);
        for session in self.storage.note(ended)? {
            self.tell(&session);
        }
        Ok(())
    }

    fn summary(&mut self, args: SummaryArgs) -> Result<Reply> {
        let period = self.period(&args.since, &args.until, commands::SINCE)?;
        commands::summary(&mut self.reader()?, &period, &args)
    }

    fn sessions(&mut self, args: SessionsArgs) -> Result<Reply> {
        let period = self.period(&args.since, &args.until, commands::SINCE)?;
        commands::sessions(&mut self.reader()?, &period, &args)
    }

    fn requests(&mut self, args: RequestsArgs) -> Result<Reply> {
        let period = self.period(&args.since, &args.until, commands::SINCE)?;
        commands::requests_list(&mut self.reader()?, &period, args)
    }

    fn models(&mut self, args: ModelsArgs) -> Result<Reply> {
        let period = self.period(&args.since, &args.until, commands::SINCE)?;
        let mut reader = self.reader()?;
        commands::models(&mut reader, &period, self.storage.store()?.pricer().table())
    }

    fn export(&mut self, args: ExportArgs) -> Result<Job> {
        let period = self.period(&args.since, &args.until, export::SINCE)?;
        let database: PathBuf = self.storage.store()?.path().to_owned();
        Ok(export::job(database, args.format, period, self.stopping.clone()))
    }

    fn period(&self, since: &Option<String>, until: &Option<String>, from: &str) -> Result<Period> {
        Period::read(since.as_deref(), until.as_deref(), from, self.host.now(), &self.zone)
    }

    fn reader(&mut self) -> Result<Reader> {
        Ok(Reader::open(self.storage.store()?.path())?)
    }
}

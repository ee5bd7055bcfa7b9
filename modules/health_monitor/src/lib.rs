//! `health_monitor`: the state of models, the GPU, disks, memory and the daemon.
//!
//! Each check runs on a thread of its own where it could hang ([`check`]), and reports components
//! and readings ([`reading`]). What it hears on the bus is counted: requests of models in sliding
//! windows ([`requests`]) and by objectives ([`slo`]). Once a second the module takes the reports
//! to the [`monitor`], which keeps the [`values`], judges them by the rules ([`rule`]), and answers
//! with the components whose state changed ([`board`]) and the alerts that began and ended
//! ([`alert`]). These are written to the database ([`store`]), published as events and told to
//! people ([`notify`]) by [`channels`].

pub mod alert;
pub mod board;
pub mod channels;
pub mod check;
mod commands;
pub mod config;
mod consume;
pub mod export;
pub mod metric;
pub mod monitor;
pub mod notify;
pub mod quantity;
pub mod reading;
pub mod requests;
pub mod rule;
pub mod runbook;
pub mod slo;
pub mod store;
mod tell;
pub mod text;
pub mod time;
pub mod values;

use std::{sync::Arc, time::Duration};

use module_sdk::{Health, Host, Module, Result, Snapshot, Wiring};

use crate::{
    check::{Observations, Workers},
    commands::Watchers,
    config::Config,
    consume::{Budgets, Lease},
    export::Exporter,
    monitor::Monitor,
    notify::{Notify, silence::Silence},
    reading::Report,
    requests::Windows,
    slo::Objectives,
    store::Store,
    time::{Moment, SteadyClock},
};

/// The module.
#[derive(Debug)]
pub struct HealthMonitor {
    host: Host,
    store: Store,
    workers: Workers,
    monitor: Monitor,
    requests: Windows,
    objectives: Objectives,
    budgets: Budgets,
    lease: Lease,
    exporter: Exporter,
    notify: Notify,
    /// Report of the channels that was taken last.
    channels: Report,
    clock: SteadyClock,
    /// Moment of the last tick.
    now: Moment,
    /// Steady time at which requests were reported last, in milliseconds.
    heard_ms: Option<u64>,
    /// `true` where something was heard on the bus since everything was judged last.
    is_heard: bool,
    /// Steady time at which everything was judged last, in milliseconds.
    looked_ms: u64,
    observations: Arc<Observations>,
    retention_ms: i64,
    watchers: Watchers,
}

/// Time between two judgements while nothing comes, nothing is amiss and nothing waits, in
/// milliseconds: windows of time slide all the same.
const REST_MS: u64 = 5_000;

/// Time between two judgements while nothing is amiss and nothing waits, in milliseconds: what the
/// checks report meanwhile is judged together. It is every other tick, which may be early.
const QUIET_MS: u64 = 1_500;

module_sdk::export!(HealthMonitor);

impl Module for HealthMonitor {
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        config.check()
    }

    fn start(config: Config, host: &Host) -> Result<Self> {
        let options = Store::options(host.data_dir(), config.database.as_deref());
        let mut store = Store::open(options)?;
        // A database that is not available now tells of nothing that fired.
        let firing = store.firing().unwrap_or_default();
        let observations = Arc::default();
        let lease = Lease::default();
        let mut clock = SteadyClock::new(host.now());
        let (now, _) = clock.moment(host.now());
        let mut module = Self {
            notify: Notify::start(&config.notify, host, &mut store, &firing, now)?,
            monitor: Monitor::new(config.rules()?, firing),
            requests: Windows::default(),
            objectives: Objectives::new(config.slos()?),
            budgets: Budgets::default(),
            exporter: Exporter::new(host.clone()),
            workers: Workers::start(config.plans(host, &observations, &lease.is_held))?,
            lease,
            channels: Report::default(),
            clock,
            now,
            heard_ms: None,
            is_heard: true,
            looked_ms: 0,
            observations,
            retention_ms: i64::from(config.retention_days) * 86_400_000,
            watchers: Watchers::default(),
            store,
            host: host.clone(),
        };
        module.keep_objectives()?;
        Ok(module)
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring
            .on_batch(Self::completed)
            .on_topic("usage.budget.*", Self::budget)
            .on(Self::run_progressed)
            .on(Self::module_changed)
            .every(Duration::from_secs(1), Self::tick)
            .every(Duration::from_secs(10), Self::keep_objectives)
            .every(Duration::from_secs(3_600), Self::delete_old)
            .command("status", Self::status)
            .without_barrier()
            .command("checks", Self::checks)
            .without_barrier()
            .command("gpu", Self::gpu)
            .without_barrier()
            .command("alerts", Self::alerts)
            .without_barrier()
            .command("explain", Self::explain)
            .without_barrier()
            .command("history", Self::history)
            .without_barrier()
            .command("slo", Self::slo)
            .stream("watch", Self::watch)
            .command("silence", Self::silence)
            .without_barrier()
            .command("ack", Self::acknowledge)
            .without_barrier()
            .job("test-notify", Self::test_notify)
            .without_barrier();
    }

    fn health(&self) -> Health {
        self.store.health()
    }

    fn snapshot(&mut self) -> Result<Option<Snapshot>> {
        self.snapshot_requests().map(Some)
    }

    fn restore(&mut self, snapshot: Snapshot) -> Result<()> {
        self.restore_requests(&snapshot);
        Ok(())
    }

    fn stop(&mut self, grace: Duration) -> Result<()> {
        self.notify.stop();
        self.watchers = Watchers::default();
        self.workers.stop(grace);
        self.keep_objectives()?;
        Ok(self.store.close()?)
    }
}

impl HealthMonitor {
    /// Looks at what the checks reported, unless that may wait.
    fn tick(&mut self) -> Result<()> {
        let now = self.pass();
        let rested_ms = now.steady_ms.saturating_sub(self.looked_ms);
        if self.is_quiet() && rested_ms < QUIET_MS { Ok(()) } else { self.look() }
    }

    /// Notes that time passed, and returns the moment.
    fn pass(&mut self) -> Moment {
        let (now, jump_ms) = self.clock.moment(self.host.now());
        self.now = now;
        self.observations.set_by(jump_ms, now.at);
        self.lease.look(self.host.now().as_millisecond());
        now
    }

    /// Returns whether nothing was heard, is amiss or waits.
    fn is_quiet(&self) -> bool {
        !self.is_heard && self.monitor.is_quiet() && self.notify.is_quiet()
    }

    /// Takes what the checks reported, judges it, and tells what follows.
    pub(crate) fn look(&mut self) -> Result<()> {
        let now = self.pass();
        let rested_ms = now.steady_ms.saturating_sub(self.looked_ms);
        let reports = self.workers.reports();
        let is_news = !reports.is_empty();
        if self.is_quiet() && !is_news && rested_ms < REST_MS {
            return Ok(());
        }
        (self.looked_ms, self.is_heard) = (now.steady_ms, false);
        let checked = self.checked(&reports);
        self.exporter.observe(&reports);
        for (check, report) in reports {
            self.monitor.take(check, report, now);
        }
        let channels = self.notify.report();
        // Where nothing is new the monitor judges nothing.
        if is_news || channels != self.channels {
            self.channels.clone_from(&channels);
            self.monitor.take(notify::CHECK, channels, now);
        }
        self.report_heard(now);
        let step = self.monitor.step(&self.requests, now);
        if is_news || !step.transitions.is_empty() {
            self.exporter.update(&self.monitor);
        }
        self.tell_checked(&checked, now);
        self.tell(&step, now)
    }

    fn delete_old(&mut self) -> Result<()> {
        self.objectives.prune(&mut self.store, self.now)?;
        let before = self.host.now().as_millisecond().saturating_sub(self.retention_ms);
        while self.store.delete_before(before)? > 0 {}
        self.store.database().write(|it| Silence::delete_before(it, before))?;
        Ok(())
    }
}

//! `learning`: good answers become datasets, and datasets a small model of your own.
//!
//! Text comes in where somebody agreed: from requests ([`capture`](crate)), and from files
//! ([`import`]). The [`store`] keeps it for a time, with feedback. A build passes it through
//! filters and writes a [`dataset`], which is named by the hash of its lines.

mod advice;
mod capture;
mod card;
mod child;
mod commands;
pub mod config;
pub mod dataset;
pub mod deploy;
pub mod example;
pub mod experiment;
mod experiments;
pub mod fit;
pub mod gate;
pub mod import;
pub mod judge;
pub mod labels;
mod lease;
pub mod licence;
mod maintenance;
pub mod quality;
mod reckoning;
pub mod registry;
pub mod run;
mod serving;
pub mod setup;
pub mod store;
mod tell;
mod trainers;
mod training;
mod versions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use module_sdk::{Counter, Health, Host, Module, Result, Wiring};

use crate::{
    config::Config, dataset::files::Folder, experiments::Experiments, registry::Registry,
    serving::Servers, store::Store, training::Training, versions::Versions,
};

/// The module.
#[derive(Debug)]
pub struct Learning {
    host: Host,
    config: Config,
    store: Store,
    folder: Folder,
    versions: Versions,
    training: Training,
    servers: Servers,
    experiments: Experiments,
    metrics: Metrics,
    /// Tells jobs that the module stops.
    stopping: Arc<AtomicBool>,
    /// `true` while a dataset is built.
    building: Arc<AtomicBool>,
    /// `true` while a policy of the router is learnt.
    learning: Arc<AtomicBool>,
}

/// Counters of what is kept.
#[derive(Debug)]
struct Metrics {
    kept: Counter,
    without_consent: Counter,
}

module_sdk::export!(Learning);

impl Module for Learning {
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        config.check()
    }

    fn start(config: Config, host: &Host) -> Result<Self> {
        let store = Store::open(Store::options(host.data_dir(), config.database.as_deref()))?;
        let folder = Folder::within(host.data_dir());
        folder.discard();
        let registry = Registry::new(host.data_dir(), config.approval.clone());
        let versions = Versions::new(store.clone(), registry, host.clone(), folder.clone())
            .with_prompts(config.gates.prompts.clone());
        let programs = config.trainer.programs(host.data_dir());
        let trainer = programs.embedded.clone();
        let training =
            Training::new(versions.clone(), programs, config.trainer.bounds(), &config.serving);
        let servers = Servers::new(versions.clone(), config.serving.clone(), trainer)?;
        if let Err(error) = servers.take_up() {
            tracing::error!(%error, "the version that is deployed cannot be served");
        }
        let taken_up = versions.abandon_measurings().and_then(|()| training.take_up());
        if let Err(error) = taken_up {
            tracing::error!(%error, "the run that was going on cannot be taken up");
        }
        let experiments = Experiments::start(versions.clone());
        Ok(Self {
            versions,
            training,
            servers,
            experiments,
            metrics: Metrics {
                kept: host.counter(
                    "lodestar_learning_examples_total",
                    "Examples that were kept from requests.",
                    &[],
                )?,
                without_consent: host.counter(
                    "lodestar_learning_without_consent_total",
                    "Requests whose text was not kept, since nobody agreed.",
                    &[],
                )?,
            },
            stopping: Arc::default(),
            building: Arc::default(),
            learning: Arc::default(),
            host: host.clone(),
            config,
            store,
            folder,
        })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring
            .on_batch(Self::content)
            .on_batch(Self::completed)
            .on_batch(Self::feedback_given)
            .every(Duration::from_secs(600), Self::delete_old)
            .every(Duration::from_secs(1), Self::tend_experiment)
            .command("consent", Self::consent)
            .job_with_files("import", Self::import)
            .command("feedback", Self::feedback)
            .stream("datasets", Self::datasets)
            .job("forget", Self::forget)
            .job("train", Self::train)
            .job("runs", Self::runs)
            .command("versions", Self::list_versions)
            .job("gates", Self::gates)
            .job("approve", Self::approve)
            .job("deploy", Self::deploy)
            .job("rollback", Self::rollback)
            .job("experiments", Self::list_experiments)
            .job("audit", Self::audit)
            .job("setup", Self::setup)
            .job("labels", Self::labels)
            .job("judge", Self::judge)
            .command("policy", Self::approved_policy);
    }

    fn health(&self) -> Health {
        self.servers.health(self.store.health())
    }

    fn stop(&mut self, _: Duration) -> Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        self.training.leave();
        self.servers.leave();
        self.store.close()
    }
}

impl Learning {
    /// Counts outcomes that are due, and holds the router to what is to go on.
    fn tend_experiment(&mut self) -> Result<()> {
        self.experiments.tend()?;
        if self.experiments.has_ended() {
            self.servers.settle()?;
        }
        Ok(())
    }

    /// Returns the time now, in milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> i64 {
        self.host.now().as_millisecond()
    }
}

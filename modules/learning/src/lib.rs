//! `learning`: good answers become datasets, and datasets a small model of your own.
//!
//! Text comes in where somebody agreed: from requests ([`capture`](crate)), and from files
//! ([`import`]). The [`store`] keeps it for a time, with feedback. A build passes it through
//! filters and writes a [`dataset`], which is named by the hash of its lines.

mod capture;
mod commands;
pub mod config;
pub mod dataset;
pub mod deploy;
pub mod example;
pub mod experiment;
pub mod gate;
pub mod import;
pub mod licence;
mod maintenance;
pub mod quality;
pub mod registry;
pub mod run;
pub mod store;
mod tell;
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
    config::Config, dataset::files::Folder, registry::Registry, store::Store, training::Training,
    versions::Versions,
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
    metrics: Metrics,
    /// Tells jobs that the module stops.
    stopping: Arc<AtomicBool>,
    /// `true` while a dataset is built.
    building: Arc<AtomicBool>,
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
        let versions = Versions::new(store.clone(), registry, host.clone(), folder.clone());
        let training =
            Training::new(versions.clone(), config.trainer.programs(), config.trainer.bounds());
        let taken_up = versions.abandon_measurings().and_then(|()| training.take_up());
        if let Err(error) = taken_up {
            tracing::error!(%error, "the run that was going on cannot be taken up");
        }
        Ok(Self {
            versions,
            training,
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
            .command("consent", Self::consent)
            .job("import", Self::import)
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
            .command("audit", Self::audit);
    }

    fn health(&self) -> Health {
        self.store.health()
    }

    fn stop(&mut self, _: Duration) -> Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        self.training.leave();
        self.store.close()
    }
}

impl Learning {
    /// Returns the time now, in milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> i64 {
        self.host.now().as_millisecond()
    }
}

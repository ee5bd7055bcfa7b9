//! State that the parts of the running daemon share.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use lodestar_bus::NewEvent;
use lodestar_config::{self as config, Config, Layers, LogLevel};
use lodestar_library::LoadedLibraries;
use module_sdk::EventType;
use tokio::sync::oneshot;

use super::{
    Histories, ModuleTable, Operations, Slot, config_store::ConfigStore,
    descriptions::Descriptions, installer::Installer, warnings::Noted,
};
use crate::{
    args::Places,
    http_guard::Servers,
    logging::Logging,
    module::{Call, ServiceContext},
    wake::WakeSender,
};

/// Time that `status` waits for modules to report their health.
const HEALTH_PATIENCE: Duration = Duration::from_millis(150);

/// Number of characters that are shown of a name that is no module's.
const MAX_SHOWN: usize = 64;

/// Parts that a daemon is created from.
#[derive(Debug)]
pub struct Parts {
    /// Paths that the daemon uses.
    pub places: Places,
    /// Parts of the host that all modules share.
    pub context: ServiceContext,
    /// Log levels, the newest log records and the redactor of secrets.
    pub logging: Logging,
    /// Sender of events that wake the loop.
    pub wakes: WakeSender,
    /// The configuration that was read at the start.
    pub config: Config,
    /// The environment and the `--set` options, which override the file.
    pub layers: Layers,
}

/// The running daemon, shared by its loop, the control API and the metrics.
#[derive(Debug)]
pub struct Daemon {
    /// Paths that the daemon uses.
    pub places: Places,
    /// Parts of the host that all modules share.
    pub context: ServiceContext,
    /// Log levels, the newest log records and the redactor of secrets.
    pub logging: Logging,
    /// Changes under way.
    pub operations: Operations,
    /// History and decisions of each module.
    pub histories: Arc<Histories>,
    /// HTTP servers of the daemon itself.
    pub servers: Servers,
    /// Sender of events that wake the loop.
    pub wakes: WakeSender,
    /// Time of the start.
    pub started: Instant,
    /// Reason why there is no metrics endpoint; empty when there is one.
    pub(super) metrics_error: Mutex<String>,
    /// Problems that last, for `status`.
    pub noted: Noted,
    pub(super) loaded_libraries: Arc<LoadedLibraries>,
    pub(super) descriptions: Descriptions,
    pub(super) installer: Installer,
    /// The modules of the configuration.
    pub modules: ModuleTable,
    pub(crate) configuration: ConfigStore,
}

impl Daemon {
    /// Creates a daemon that runs no module yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { places, context, logging, wakes, config, layers } = parts;
        Arc::new(Self {
            histories: Arc::new(Histories::new(&places.state_dir)),
            descriptions: Descriptions::below(&places.state_dir),
            installer: Installer::of(places.state_dir.clone()),
            modules: ModuleTable::default(),
            configuration: ConfigStore::new(places.config.clone(), layers, config),
            places,
            context,
            logging,
            operations: Operations::default(),
            servers: Servers::default(),
            wakes,
            started: Instant::now(),
            metrics_error: Mutex::default(),
            noted: Noted::default(),
            loaded_libraries: Arc::default(),
        })
    }

    /// Notes the reason why there is no metrics endpoint.
    pub fn set_metrics_error(&self, reason: String) {
        *self.metrics_error.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Returns the configuration that runs.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.configuration.running()
    }

    /// Returns whether the file on the disk differs from the configuration that runs.
    #[must_use]
    pub fn is_config_changed(&self) -> bool {
        self.configuration.is_changed()
    }

    /// Returns the slot of a module in the table. Creates it where it is missing.
    pub(super) fn slot(self: &Arc<Self>, name: &str) -> Arc<Slot> {
        let (slot, is_new) = self.modules.get_or_add(name);
        if is_new {
            super::publish_state_changes(self, &slot);
        }
        slot
    }

    /// Handles the libraries that were replaced and that nobody uses any more: unloads them where
    /// the section of their module allows it.
    pub(super) fn sweep(&self) {
        let config = self.config();
        self.loaded_libraries
            .sweep(|module| config.module(module).is_some_and(|section| section.unload));
    }

    /// Returns the number of modules that run, and of those that are enabled, as a line for
    /// `systemctl status`.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        let slots = self.modules.all();
        let running = slots.iter().filter(|slot| slot.entry.state().is_running()).count();
        let wanted = slots.iter().filter(|slot| slot.is_desired()).count();
        format!("{running} of {wanted} modules run")
    }

    /// Publishes an event of the daemon itself.
    pub(super) fn announce<T: EventType>(&self, event: &T) {
        let Ok(data) = serde_json::to_vec(event) else { return };
        let new = NewEvent {
            id: None,
            class: T::CLASS,
            time_ns: 0,
            topic: event.topic().into(),
            source: "/lodestar/lodestard".into(),
            subject: event.subject().unwrap_or_default().into(),
            traceparent: "".into(),
            data: data.into(),
        };
        if let Err(error) = self.context.bus.publish(vec![new], None) {
            tracing::debug!(%error, topic = T::TOPIC, "an event of the daemon was not taken");
        }
    }

    /// Applies the log levels of a configuration, and sends them to the modules.
    pub fn apply_log_levels(&self, config: &Config) {
        let log = &config.log;
        let modules: HashMap<String, u32> =
            log.modules.iter().map(|(name, level)| (name.clone(), number(*level))).collect();
        self.logging.levels.set(number(log.level), modules);
        for slot in self.modules.all() {
            let level = self.logging.levels.of(&slot.entry.name);
            // An error means that it does not run.
            let _ = slot.entry.calls.push(Call::LogLevel(level));
        }
    }

    /// Returns the secret that a reference of the daemon's own settings stands for. It is kept out
    /// of the log from now on.
    ///
    /// # Errors
    ///
    /// Returns an error when the reference cannot be resolved.
    pub fn token(&self, reference: &config::Reference) -> Result<String, config::ReferenceError> {
        let fetched = reference.resolve(&self.configuration.layers.environment)?;
        let token = fetched.secret.expose().to_owned();
        self.logging.redactor.learn_secret(&token);
        Ok(token)
    }

    /// Asks the running modules for their health. A module that does not answer in time keeps the
    /// health that it reported last.
    pub async fn refresh_health(&self) {
        let mut asked = Vec::new();
        for slot in self.modules.all() {
            let (sender, receiver) = oneshot::channel();
            if slot.entry.state().is_running()
                && slot.entry.calls.push(Call::Health(sender)).is_ok()
            {
                asked.push(receiver);
            }
        }
        let all = async {
            for answer in asked {
                // An error means that the module is ending.
                let _ = answer.await;
            }
        };
        let _ = tokio::time::timeout(HEALTH_PATIENCE, all).await;
    }

    /// Returns the directory of a module's own data.
    #[must_use]
    pub fn data_dir(&self, module: &str) -> PathBuf {
        lodestar_platform::state_dir::data_dir(&self.places.state_dir, module)
    }
}

/// Returns a name from a request, shortened and quoted: it may hold anything.
pub(super) fn asked_for(name: &str) -> String {
    let name: String = name.chars().take(MAX_SHOWN).collect();
    format!("{name:?}")
}

/// Returns the number of a log level in the ABI: 0 for off, 1 for error, up to 5 for trace.
#[must_use]
pub const fn number(level: LogLevel) -> u32 {
    match level {
        LogLevel::Off => 0,
        LogLevel::Error => 1,
        LogLevel::Warn => 2,
        LogLevel::Info => 3,
        LogLevel::Debug => 4,
        LogLevel::Trace => 5,
    }
}

//! What the parts of the running daemon share.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lodestar_api::{Problem, ProblemCode};
use lodestar_bus::NewEvent;
use lodestar_config::{self as config, Config, ConfigErrors, Layers, LogLevel, ModuleSection};
use lodestar_library::{self as library, LoadedLibraries, Package};
use module_sdk::EventType;
use tokio::sync::oneshot;

use super::{
    Histories, Operations, Refused, descriptions::Descriptions, install_lock::InstallLocks, shown,
    warnings::Noted,
};
use crate::{
    args::Places,
    http_guard::Servers,
    logging::Logging,
    module::{Call, Entry, ServiceContext},
    wake::WakeSender,
};

/// How long `status` waits for modules to say how they are.
const HEALTH_PATIENCE: Duration = Duration::from_millis(150);

/// How much of a name is shown that is no module's.
const MAX_SHOWN: usize = 64;

/// What a daemon is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where everything lies.
    pub places: Places,
    /// What all modules share.
    pub context: ServiceContext,
    /// What is logged.
    pub logging: Logging,
    /// Wakes the loop.
    pub wakes: WakeSender,
    /// The configuration that was read at the start.
    pub config: Config,
    /// What lies above and below the file.
    pub layers: Layers,
}

/// The running daemon, shared by its loop, the control API and the metrics.
#[derive(Debug)]
pub struct Daemon {
    /// Where everything lies.
    pub places: Places,
    /// What all modules share.
    pub context: ServiceContext,
    /// What is logged.
    pub logging: Logging,
    /// Changes under way.
    pub operations: Operations,
    /// What happened to each module.
    pub histories: Arc<Histories>,
    /// Its own HTTP servers.
    pub servers: Servers,
    /// Wakes the loop.
    pub wakes: WakeSender,
    /// When it started.
    pub started: Instant,
    /// Why there is no metrics endpoint, empty when there is one.
    pub(super) metrics_error: Mutex<String>,
    /// Why the file as it lies on the disk is not the configuration that runs.
    config_error: Mutex<Option<String>>,
    pub(super) noted: Noted,
    pub(super) loaded_libraries: Arc<LoadedLibraries>,
    pub(super) descriptions: Descriptions,
    pub(crate) layers: Layers,
    /// Held by whoever writes down what is installed.
    pub(super) installing: Mutex<()>,
    /// The modules that are being installed or removed.
    pub(super) install_locks: InstallLocks,
    slots: RwLock<BTreeMap<String, Arc<Slot>>>,
    config: RwLock<Arc<Config>>,
    /// The configuration of the start: some sections are read only then.
    pub(super) config_of_start: Arc<Config>,
}

/// A module of the configuration.
#[derive(Debug)]
pub struct Slot {
    /// What it is doing.
    pub entry: Arc<Entry>,
    desired: AtomicBool,
    /// Why it runs, but not as the file or the library on the module path says.
    behind: Mutex<Option<String>>,
}

impl Slot {
    /// Why it runs, but not as the file or the library on the module path says.
    #[must_use]
    pub fn behind(&self) -> Option<String> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_behind(&self, reason: Option<String>) {
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Whether the configuration asks for it.
    #[must_use]
    pub fn is_desired(&self) -> bool {
        self.desired.load(Ordering::Relaxed)
    }

    pub(super) fn set_desired(&self, enabled: bool) {
        self.desired.store(enabled, Ordering::Relaxed);
    }
}

impl Daemon {
    /// A daemon that runs nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { places, context, logging, wakes, config, layers } = parts;
        let config = Arc::new(config);
        Arc::new(Self {
            histories: Arc::new(Histories::new(&places.state_dir)),
            descriptions: Descriptions::below(&places.state_dir),
            places,
            context,
            logging,
            operations: Operations::default(),
            servers: Servers::default(),
            wakes,
            started: Instant::now(),
            metrics_error: Mutex::default(),
            config_error: Mutex::default(),
            noted: Noted::default(),
            loaded_libraries: Arc::default(),
            layers,
            installing: Mutex::default(),
            install_locks: InstallLocks::default(),
            slots: RwLock::default(),
            config_of_start: Arc::clone(&config),
            config: RwLock::new(config),
        })
    }

    /// Notes why there is no metrics endpoint.
    pub fn set_metrics_error(&self, reason: String) {
        *self.metrics_error.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// The configuration that runs.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_config(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// Why the file as it lies on the disk was refused; `None` when it is what runs.
    #[must_use]
    pub fn config_error(&self) -> Option<String> {
        self.config_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes whether the file was taken.
    pub(super) fn note_config(&self, refused: Option<&ConfigErrors>) {
        let error = refused.map(|errors| match errors.as_slice() {
            [only] => only.to_string(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
            [] => errors.to_string(),
        });
        *self.config_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Reads the configuration file as it lies on the disk, if nobody else can write it and it
    /// was saved whole.
    pub(super) fn load_config(&self) -> Result<Config, ConfigErrors> {
        let config = self.load_own_edit()?;
        config.expect_whole(&self.config())?;
        Ok(config)
    }

    /// Reads it after the daemon has written it, so that it is whole: without the section of the
    /// last module it may hold nothing below `modules:`.
    pub(super) fn load_own_edit(&self) -> Result<Config, ConfigErrors> {
        config::expect_ours(&self.places.config)?;
        Config::load(&self.places.config, &self.layers)
    }

    /// Whether the file on the disk is another one than what runs.
    #[must_use]
    pub fn is_config_changed(&self) -> bool {
        self.load_config().map_or(true, |on_disk| on_disk.text != self.config().text)
    }

    /// A module of the configuration, by name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(name).map(|slot| slot.entry.clone())
    }

    /// All modules of the configuration, by name.
    #[must_use]
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.values().cloned().collect()
    }

    /// The place of a module in the table.
    pub(super) fn known_slot(&self, name: &str) -> Option<Arc<Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The same, made where it is missing.
    pub(super) fn slot(self: &Arc<Self>, name: &str) -> Arc<Slot> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            return slot.clone();
        }
        let slot = Arc::new(Slot {
            entry: Arc::new(Entry::new(name)),
            desired: AtomicBool::new(false),
            behind: Mutex::default(),
        });
        slots.insert(name.to_owned(), slot.clone());
        drop(slots);
        super::tell_changes(self, &slot);
        slot
    }

    /// Takes a module out of the table; answers whether it was there.
    pub(super) fn forget(&self, name: &str) -> bool {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.remove(name).is_some()
    }

    /// Where a module's library lies: where its section says, or on the module path.
    pub(crate) fn package(&self, section: &ModuleSection) -> Option<Package> {
        match &section.path {
            Some(directory) => {
                let directory = config::expand_path(directory, &self.layers.environment).ok()?;
                let package = Package { name: section.name.clone(), directory };
                package.directory.is_dir().then_some(package)
            }
            None => library::find(&self.places.module_path, &section.name),
        }
    }

    /// What a start loads: what lies there, or the kept generation in the place of one that proved
    /// bad, and why.
    pub(super) fn to_start(&self, section: &ModuleSection) -> Option<(Package, Option<Refused>)> {
        let package = self.package(section)?;
        let name = &section.name;
        let refused = self.histories.decisions(name).refused;
        let lies_there = || library::hash(&package).unwrap_or_default();
        let Some(refused) = refused.filter(|it| lies_there() == it.sha256) else {
            return Some((package, None));
        };
        match library::find_generation(&self.places.state_dir, name, &refused.instead) {
            Some(kept) => Some((kept, Some(refused))),
            None => Some((package, None)),
        }
    }

    /// Deals with the libraries that nobody uses any more.
    pub(super) fn sweep(&self) {
        let config = self.config();
        self.loaded_libraries
            .sweep(|module| config.module(module).is_some_and(|section| section.unload));
    }

    /// Every directory where a library may be replaced.
    #[must_use]
    pub fn library_directories(&self) -> Vec<PathBuf> {
        let config = self.config();
        let own = config.modules.iter().filter(|section| section.path.is_some());
        let own = own.filter_map(|section| Some(self.package(section)?.directory));
        self.places.module_path.iter().cloned().chain(own).collect()
    }

    /// The JSON schema of a module's configuration; `None` where its library cannot be asked.
    pub(crate) fn config_schema(&self, package: &Package) -> Option<serde_json::Value> {
        let ask = |package: &Package| self.ask(package, b"");
        Some(self.descriptions.of(package, ask)?.description.config_schema.clone().to_value())
    }

    /// Why a module is absent.
    pub(super) fn where_looked(&self, name: &str) -> String {
        let places: Vec<String> =
            self.places.module_path.iter().map(|path| path.display().to_string()).collect();
        let packages = library::list(&self.places.module_path);
        let names = packages.iter().map(|package| package.name.as_str());
        let hint = config::nearest(name, names)
            .map(|nearest| format!("; did you mean {nearest}?"))
            .unwrap_or_default();
        format!("there is no module {name} in {}{hint}", places.join(", "))
    }

    /// The answer to a question about a module that nobody knows.
    #[must_use]
    pub fn unknown_module(&self, name: &str) -> Problem {
        let packages = library::list(&self.places.module_path);
        let mut names: Vec<String> = packages.into_iter().map(|package| package.name).collect();
        names.extend(self.slots().iter().map(|slot| slot.entry.name.clone()));
        names.sort();
        names.dedup();
        let asked = asked_for(name);
        let problem = Problem::new(
            ProblemCode::NotFound,
            format!("there is no module {asked} in {}", shown(&self.places.config)),
        );
        match config::nearest(name, names.iter().map(String::as_str)) {
            Some(nearest) => problem.help(format!("did you mean {nearest}?")),
            None => problem.help(format!("there are: {}", names.join(", "))),
        }
    }

    /// How many modules run, of how many that are switched on: a line for `systemctl status`.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        let slots = self.slots();
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

    /// Takes the log levels of a configuration, and tells the modules.
    pub fn apply_log_levels(&self, config: &Config) {
        let log = &config.log;
        let modules: HashMap<String, u32> =
            log.modules.iter().map(|(name, level)| (name.clone(), number(*level))).collect();
        self.logging.levels.set(number(log.level), modules);
        for slot in self.slots() {
            let level = self.logging.levels.of(&slot.entry.name);
            // An error means that it does not run.
            let _ = slot.entry.calls.push(Call::LogLevel(level));
        }
    }

    /// The secret that a reference of the daemon's own settings stands for. It is kept out of the
    /// log from now on.
    ///
    /// # Errors
    ///
    /// When the reference leads nowhere.
    pub fn token(&self, reference: &config::Reference) -> Result<String, config::ReferenceError> {
        let fetched = reference.resolve(&self.layers.environment)?;
        let token = fetched.secret.expose().to_owned();
        self.logging.redactor.learn_secret(&token);
        Ok(token)
    }

    /// Asks the running modules how they are; what has not answered in time is shown as it was.
    pub async fn refresh_health(&self) {
        let mut asked = Vec::new();
        for slot in self.slots() {
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

    /// The directory of a module's own data.
    #[must_use]
    pub fn data_dir(&self, module: &str) -> PathBuf {
        lodestar_platform::state_dir::data_dir(&self.places.state_dir, module)
    }
}

/// A name as it is shown again: whoever asked for it may have written anything.
pub(super) fn asked_for(name: &str) -> String {
    let name: String = name.chars().take(MAX_SHOWN).collect();
    format!("{name:?}")
}

/// The number of the ABI for a level: 0 nothing, 1 error … 5 trace.
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

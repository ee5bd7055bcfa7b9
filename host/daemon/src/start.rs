//! The start of the daemon before its loop, and the end after it.

use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lodestar_api::{ConfigCheck, ConfigReport};
use lodestar_bus::{Bus, BusConfig, Durability};
use lodestar_config::{self as config, Config, Environment, Layers};
use lodestar_library as library;
use lodestar_platform::{code_pages, listeners::Listeners, state_dir::StateDir, systemd};
use tokio::net::UnixListener;

use crate::{
    args::Args,
    control,
    crash::{self, CrashReport},
    logging::{self, Levels, LogFormat, Logging, Printed},
    metrics_endpoint,
    module::ServiceContext,
    pseudonyms::Pseudonyms,
    runner,
    supervisor::{self, Daemon, Parts, describe_for_parent, number, report},
    wake::{Wake, WakeSender},
};

/// Time between two checks of the daemon on itself.
const TICK: Duration = Duration::from_secs(2);

/// Time after which a thread of the runtime ends that has nothing more to read or to write.
pub const IDLE_THREAD: Duration = Duration::from_secs(2);

/// Time after the start at which the memory is given back that only the start needed.
const TIDY_AFTER: Duration = Duration::from_secs(10);

/// Longest time until systemd is told READY: a module that hangs delays nobody.
const READY_PATIENCE: Duration = Duration::from_secs(2);

/// A daemon that is about to run.
#[derive(Debug)]
pub struct Started {
    /// State that the parts of the daemon share.
    pub daemon: Arc<Daemon>,
    control: Mutex<Option<UnixListener>>,
    /// `true` when the control socket is systemd's, which keeps it when the daemon ends.
    inherited: bool,
    crash_report: Option<CrashReport>,
    _state_dir: StateDir,
    /// Redirection of printed output, dropped last: what ends before may print.
    _printed: Option<Printed>,
}

/// Reads the configuration, begins to log, takes the state directory, and opens bus and sockets.
///
/// # Errors
///
/// When the configuration has errors, another daemon has the state directory or the socket, or the
/// system refuses something that the daemon cannot do without.
pub fn start(args: &Args, wakes: WakeSender) -> anyhow::Result<Started> {
    let mut places = args.places();
    let layers = layers(args)?;
    let state_dir = StateDir::open(&places.state_dir)?;
    let fresh = config::write_default(&places.config)?;
    config::expect_ours(&places.config)?;
    let config = Config::load(&places.config, &layers)?;
    let logging = start_logging(&config)?;
    config.tell_outdated();
    let printed = Printed::begin()
        .inspect_err(|error| tracing::warn!(%error, "what modules print is not logged"));
    if fresh {
        tracing::info!(path = %places.config.display(), "wrote a first configuration");
    }
    if let (None, Some(socket)) = (&args.socket, &config.control.socket) {
        places.socket = config::expand_path(socket, &layers.environment)
            .map_err(|error| anyhow::anyhow!("control.socket: {error}"))?;
    }
    let listeners = Arc::new(Listeners::default());
    let adopted = adopt_descriptors(&listeners);
    let inherited = adopted.is_some();
    let control = match adopted {
        Some(listener) => listener,
        None => control::bind(&places.socket, config.control.group.as_deref())?,
    };
    let context = ServiceContext {
        bus: Arc::new(open_bus(&config, state_dir.path())?),
        pseudonyms: Arc::new(Pseudonyms::open(state_dir.path()).context("the pseudonyms' key")?),
        listeners,
        metrics: Arc::default(),
        levels: logging.levels.clone(),
        redactor: logging.redactor.clone(),
        privacy: Arc::new(config.privacy.clone()),
        calls: Arc::default(),
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %places.config.display(),
        state_dir = %places.state_dir.display(),
        socket = %places.socket.display(),
        "lodestard starts"
    );
    runner::divide_control_group();
    let daemon = Daemon::new(Parts { places, context, logging, wakes, config, layers });
    control::serve_modules(&daemon);
    let packages = library::list(&daemon.places.module_path);
    for warning in supervisor::warnings(&daemon, &packages) {
        tracing::warn!(remedy = warning.remedy, "{}: {}", warning.name, warning.message);
    }
    supervisor::resubscribe(&daemon);
    supervisor::recover_installs(&daemon);
    library::clear_half_written(&daemon.places.state_dir);
    let crash_report = crash::watch(&daemon.places.state_dir)
        .inspect_err(|error| tracing::warn!(%error, "a crash will leave no note of who caused it"))
        .unwrap_or_default();
    let control = Mutex::new(Some(control));
    Ok(Started {
        daemon,
        control,
        inherited,
        crash_report,
        _state_dir: state_dir,
        _printed: printed.ok(),
    })
}

/// Answers on the control socket and for Prometheus, ticks, and tells systemd when all is ready.
pub fn serve(started: &Started, wakes: WakeSender) {
    let daemon = started.daemon.clone();
    let listener = started.control.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(listener) = listener {
        control::serve(listener, &daemon);
    }
    metrics_endpoint::start(&daemon);
    control::start_tcp(&daemon);
    start_ticks(&daemon, wakes);
    tokio::spawn(tell_ready(daemon));
}

/// Starts the thread that ticks. It needs one wake-up for each tick, a timer of the runtime up to
/// four, which is most of what a daemon at rest costs.
fn start_ticks(daemon: &Arc<Daemon>, wakes: WakeSender) {
    let period = systemd::watchdog_period().map_or(TICK, |period| period.min(TICK));
    let (daemon, begun) = (Arc::downgrade(daemon), Instant::now());
    let ticks = move || {
        let mut has_tidied = false;
        loop {
            thread::sleep(period);
            let Some(daemon) = daemon.upgrade() else { return };
            if wakes.send(Wake::Tick).is_err() {
                return;
            }
            supervisor::account(&daemon);
            if !has_tidied && begun.elapsed() >= TIDY_AFTER {
                has_tidied = true;
                module_sdk::return_free_memory();
                match code_pages::release() {
                    Ok(kib) => tracing::debug!(kib, "the code that the start needed is released"),
                    Err(error) => tracing::debug!(%error, "the code of the start stays in memory"),
                }
            }
        }
    };
    let started = thread::Builder::new().name("tick".to_owned()).spawn(ticks);
    if let Err(error) = started {
        tracing::error!(%error, "no thread can be started: calls that hang are not noticed");
    }
}

async fn tell_ready(daemon: Arc<Daemon>) {
    let in_time = tokio::time::timeout(READY_PATIENCE, settled(&daemon)).await.is_ok();
    let status = daemon.in_a_line();
    tracing::info!(status, in_time, "lodestard is ready");
    systemd::ready(&status);
    settled(&daemon).await;
    daemon.context.listeners.release_unclaimed();
}

/// Waits until every module has come to rest.
async fn settled(daemon: &Daemon) {
    for slot in daemon.modules.all() {
        let mut state = slot.entry.watch();
        // An error means that the module is gone, which is settled as well.
        let _ = state.wait_for(|transition| transition.state.is_settled()).await;
    }
}

/// Tells systemd that the daemon ends.
pub fn stopping() {
    systemd::stopping();
}

impl Started {
    /// Returns the module that ended the daemon when it last ran.
    #[must_use]
    pub const fn crash_report(&self) -> Option<&CrashReport> {
        self.crash_report.as_ref()
    }

    /// Closes the bus and removes the control socket, unless it is systemd's.
    ///
    /// # Errors
    ///
    /// When the last events cannot be written.
    pub fn finish(self) -> anyhow::Result<()> {
        let closed = self.daemon.context.bus.close();
        if !self.inherited {
            // Gone already means somebody else tidied up.
            let _ = std::fs::remove_file(&self.daemon.places.socket);
        }
        closed.context("cannot close the ledger")?;
        tracing::info!("lodestard ended");
        Ok(())
    }
}

/// Runs `lodestard --describe DIR [--named NAME] [--confined-to DIR] [--asked-by PID]`.
///
/// # Errors
///
/// When the library cannot be loaded, with the reason.
pub fn describe(
    directory: &Path,
    named: Option<&str>,
    confined: Option<&Path>,
    asked_by: Option<u32>,
) -> anyhow::Result<ExitCode> {
    if let Some(parent) = asked_by {
        runner::answer_to(parent).context("cannot hold this process to its limits")?;
    }
    let name = named.map_or_else(
        || directory.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        str::to_owned,
    );
    let package = library::Package { name, directory: directory.to_owned() };
    // The message has its causes in it, which are not to be printed behind it once more.
    let text = describe_for_parent(&package, confined).map_err(anyhow::Error::msg)?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Runs `lodestard --examine FILE`: prints a line of JSON for each check, as soon as it is made,
/// since the next one may be the end of this process.
///
/// # Errors
///
/// When the output cannot be written.
pub fn examine(file: &Path) -> anyhow::Result<ExitCode> {
    use std::io::Write as _;
    let mut result = Ok(());
    library::check_all(file, |check| {
        let mut output = std::io::stdout().lock();
        let line = serde_json::to_string(&check).map_err(std::io::Error::other);
        let written =
            line.and_then(|line| writeln!(output, "{line}")).and_then(|()| output.flush());
        if result.is_ok() {
            result = written;
        }
    });
    result.context("cannot write the result")?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the kernel ask this process to end when its parent does.
///
/// # Errors
///
/// When the kernel refuses.
pub fn end_with_parent() -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context("cannot tie this process to its parent")
}

/// Runs `lodestard --check`: 0 when the configuration is valid, 4 when it is not.
///
/// # Errors
///
/// When the check itself cannot be made.
pub fn check(args: &Args) -> anyhow::Result<ExitCode> {
    let report = check_report(args)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.errors.iter().for_each(|error| eprintln!("{error}"));
        report.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        if report.errors.is_empty() {
            println!("{}: valid", args.places().config.display());
        }
    }
    Ok(if report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(4) })
}

/// Checks the configuration without touching the state directory: the bus and the key live in a
/// temporary one.
fn check_report(args: &Args) -> anyhow::Result<ConfigReport> {
    let places = args.places();
    let layers = layers(args)?;
    let config = match Config::load(&places.config, &layers) {
        Ok(config) => config,
        Err(errors) => return Ok(report(&errors)),
    };
    let temporary = tempfile::tempdir().context("cannot make a temporary directory")?;
    let (wakes, _woken) = tokio::sync::mpsc::unbounded_channel();
    let logging = Logging::silent();
    let context = ServiceContext {
        bus: Arc::new(open_bus(&config, temporary.path())?),
        pseudonyms: Arc::new(Pseudonyms::open(temporary.path())?),
        listeners: Arc::default(),
        metrics: Arc::default(),
        levels: logging.levels.clone(),
        redactor: logging.redactor.clone(),
        privacy: Arc::new(config.privacy.clone()),
        calls: Arc::default(),
    };
    let daemon = Daemon::new(Parts { places, context, logging, wakes, config, layers });
    Ok(supervisor::check_config(&daemon, &ConfigCheck::default()))
}

fn layers(args: &Args) -> anyhow::Result<Layers> {
    let settings = args.overrides.iter().map(|text| {
        let (key, value) = text.split_once('=').with_context(|| {
            format!("--set {text:?} must look like usage_tracker.retention_days=30")
        })?;
        Ok((key.to_owned(), value.to_owned()))
    });
    let settings = settings.collect::<anyhow::Result<_>>()?;
    Ok(Layers { environment: Environment::of_process(), settings })
}

fn start_logging(config: &Config) -> anyhow::Result<Logging> {
    let modules = config.log.modules.iter();
    let modules = modules.map(|(name, level)| (name.clone(), number(*level))).collect();
    let levels = Levels::new(number(config.log.level));
    levels.set(number(config.log.level), modules);
    let format = match config.log.format {
        config::LogFormat::Human => LogFormat::Human,
        config::LogFormat::Json => LogFormat::Json,
    };
    logging::start(levels, format).context("cannot log")
}

fn open_bus(config: &Config, state_dir: &Path) -> anyhow::Result<Bus> {
    let ledger = &config.bus.ledger;
    let settings = BusConfig {
        retention_hours: ledger.retention_hours,
        max_bytes: ledger.max_bytes,
        durability: match ledger.durability {
            config::Durability::Process => Durability::Process,
            config::Durability::Power => Durability::Power,
        },
        inbox_events: config.bus.inbox_events,
        ..BusConfig::default()
    };
    Bus::open(settings, &state_dir.join("ledger")).context("cannot open the ledger")
}

/// Takes over the descriptors that systemd opened or kept; returns the control socket if it is
/// among them.
fn adopt_descriptors(listeners: &Listeners) -> Option<UnixListener> {
    let mut control = None;
    for (name, descriptor) in systemd::received_descriptors() {
        if systemd::is_unix(&descriptor) {
            let listener = std::os::unix::net::UnixListener::from(descriptor);
            let adopted =
                listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
            match adopted {
                Ok(listener) => control = Some(listener),
                Err(error) => tracing::warn!(%error, name, "cannot use a socket of systemd's"),
            }
        } else {
            listeners.adopt(&name, descriptor);
        }
    }
    control
}

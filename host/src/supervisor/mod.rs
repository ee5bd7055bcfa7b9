//! Makes what is so what the configuration asks: start-up, an edit of the file, enable, disable
//! and shut-down are all one `reconcile`.

mod configure;
mod daemon;
mod operations;
mod probe;
mod view;

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use module_sdk::events::{ConfigChanged, ModuleStateChanged};
use tokio::sync::oneshot;

pub use daemon::{Daemon, Parts, Slot, number};
pub use operations::{Operations, Pending};
pub use probe::{Probe, describe_for_parent, report};
pub use view::{OWN, counts};

use crate::{
    config::{self, Config, ConfigErrors, ModuleSection},
    control::api::{Operation, Problem, ProblemCode},
    library,
    module::{self, Call, Ended, RestartPolicy, Start, StartGate, State},
    wake::{Request, Wake},
};

/// How long a command waits for the events before it.
pub const COMMAND_PATIENCE: Duration = Duration::from_secs(5);

/// How long a call of a module may take before it is shown as stalled.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How long a module may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long all modules together may take to stop when the daemon ends.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(15);

/// Runs the modules that the configuration asks for.
#[derive(Debug)]
pub struct Supervisor {
    daemon: Arc<Daemon>,
    /// The section that each running module was started with.
    applied: HashMap<String, ModuleSection>,
    /// Modules that have a thread.
    alive: HashSet<String>,
    stopping: bool,
}

impl Supervisor {
    /// One that has started nothing yet.
    #[must_use]
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon, applied: HashMap::new(), alive: HashSet::new(), stopping: false }
    }

    /// Starts and stops modules until all are as the configuration asks. Returns at once; what was
    /// begun goes on by itself.
    pub fn reconcile(&mut self) {
        let config = self.daemon.config();
        let wanted: Vec<Arc<Slot>> =
            config.modules.iter().map(|section| self.daemon.slot(&section.name)).collect();
        for (slot, section) in wanted.iter().zip(&config.modules) {
            slot.set_desired(section.enabled, section.isolation);
        }
        self.forget_removed(&config);
        let mut starts = Vec::new();
        for (slot, section) in wanted.iter().zip(&config.modules) {
            let name = &section.name;
            let alive = self.alive.contains(name);
            let changed = self.applied.get(name).is_some_and(|known| known != section);
            match (section.enabled, alive) {
                (true, false) => starts.push(slot.clone()),
                (true, true) if changed => {
                    tracing::info!(module = name, "its configuration changed: it starts again");
                    self.stop(slot);
                }
                (false, true) => self.stop(slot),
                (false, false) => self.show_disabled(slot),
                (true, true) => {}
            }
        }
        let gate = StartGate::new(starts.len());
        for slot in starts {
            self.start(&slot, &config, &gate);
        }
    }

    /// Acts on what woke the daemon; breaks when it is to end.
    pub fn handle(&mut self, wake: Wake) -> ControlFlow<()> {
        match wake {
            Wake::Asked(request, answer) => self.asked(request, answer),
            Wake::ConfigChanged => {
                if let Err(errors) = self.reload() {
                    tracing::error!(
                        %errors,
                        "the configuration has errors; the daemon goes on with the one before"
                    );
                }
            }
            Wake::ModuleEnded { name, ended } => self.ended(&name, &ended),
            Wake::Tick => {
                crate::systemd::alive();
                self.watch_deadlines();
            }
            Wake::Signal(signal) => {
                tracing::info!(?signal, "the daemon ends");
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Stops all modules, the last of the file first, and waits for them within the grace period.
    pub async fn shut_down(mut self) {
        self.stopping = true;
        let until = Instant::now() + SHUTDOWN_GRACE;
        let config = self.daemon.config();
        for section in config.modules.iter().rev() {
            let slot = self.daemon.slot(&section.name);
            if !self.alive.contains(&section.name) {
                continue;
            }
            self.stop(&slot);
            let grace = (STOP_GRACE + Duration::from_secs(1))
                .min(until.saturating_duration_since(Instant::now()));
            let mut state = slot.entry.watch();
            let ended = state.wait_for(|transition| !transition.state.is_alive());
            if tokio::time::timeout(grace, ended).await.is_err() {
                let call = slot.entry.clock.running().map(|(what, _)| what);
                tracing::error!(
                    module = section.name,
                    call,
                    "the module did not stop in time; the daemon ends without it"
                );
            }
        }
    }

    fn asked(&mut self, request: Request, answer: oneshot::Sender<Result<Operation, Problem>>) {
        let result = match request {
            Request::SetEnabled { module, enabled } => self.set_enabled(&module, enabled),
            Request::ReloadConfig => self.reload_on_request(),
        };
        // An error means that the client is gone.
        let _ = answer.send(result);
    }

    fn reload_on_request(&mut self) -> Result<Operation, Problem> {
        let pending = self.daemon.operations.begin("reload_config", None);
        let operation = pending.operation();
        match self.reload() {
            Ok(changed) if changed.is_empty() => pending.done("nothing changed"),
            Ok(changed) => pending.done(format!("changed: {}", changed.join(", "))),
            Err(errors) => pending.failed(
                ProblemCode::Invalid,
                errors.to_string(),
                Some("correct the file; the daemon goes on with the one before".to_owned()),
            ),
        }
        Ok(operation)
    }

    fn set_enabled(&mut self, module: &str, enabled: bool) -> Result<Operation, Problem> {
        let config = self.daemon.config();
        let known = config.modules.iter().any(|section| section.name == module)
            || library::find(&self.daemon.places.module_path, module).is_some();
        if !known {
            return Err(self.daemon.unknown_module(module));
        }
        let verb = if enabled { "enable" } else { "disable" };
        let edited = self.edit(module, enabled)?;
        self.reload().map_err(|errors| {
            Problem::new(ProblemCode::Invalid, errors.to_string())
                .help("correct the file; `lodestar config check` shows every error")
        })?;
        let pending = self.daemon.operations.begin(verb, Some(module));
        if let Some(line) = edited {
            pending.edited(line);
        }
        let operation = pending.operation();
        tokio::spawn(follow(self.daemon.slot(module), pending, enabled));
        Ok(operation)
    }

    /// Writes the switch into the file; answers what was changed there.
    fn edit(&self, module: &str, enabled: bool) -> Result<Option<String>, Problem> {
        let path = &self.daemon.places.config;
        let refused = |error: String| {
            Problem::new(ProblemCode::Refused, error)
                .help("edit the file by hand; the daemon takes it when it is saved")
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| refused(format!("cannot read {}: {error}", path.display())))?;
        let edited = config::set_enabled(&text, module, enabled)
            .map_err(|error| refused(error.to_string()))?;
        if edited.text == text {
            return Ok(None);
        }
        // A file with errors elsewhere stays as it is.
        Config::parse(&edited.text, path, &self.daemon.layers).map_err(|errors| {
            Problem::new(ProblemCode::Invalid, errors.to_string())
                .help("correct the file first; `lodestar config check` shows every error")
        })?;
        config::write_atomically(path, &text, &edited.text)
            .map_err(|error| refused(error.to_string()))?;
        let (place, line, after) = (shown(path), edited.line, edited.after);
        let before = edited.before.map_or_else(|| "absent".to_owned(), |value| value.to_string());
        Ok(Some(format!("{place}:{line} enabled: {before} -> {after}")))
    }

    /// Reads the file again; answers the names of the modules whose section changed.
    fn reload(&mut self) -> Result<Vec<String>, ConfigErrors> {
        if self.stopping {
            return Ok(Vec::new());
        }
        let before = self.daemon.config();
        let after = self.daemon.load_config()?;
        self.validate_running(&after)?;
        let changed = config::changed_modules(&before, &after);
        if before.text != after.text {
            self.daemon.announce(&ConfigChanged {
                path: self.daemon.places.config.display().to_string(),
                modules: changed.clone(),
            });
            tracing::info!(modules = changed.join(","), "took the configuration");
            say_what_needs_a_restart(&before, &after);
        }
        self.daemon.apply_log_levels(&after);
        self.daemon.set_config(after);
        self.reconcile();
        Ok(changed)
    }

    /// Asks every running module whose section changed whether it would take it, before anything
    /// changes.
    fn validate_running(&self, after: &Config) -> Result<(), ConfigErrors> {
        for section in after.modules.iter().filter(|section| section.enabled) {
            let changed = self.applied.get(&section.name).is_some_and(|known| known != section);
            if changed && self.alive.contains(&section.name) {
                configure::validate(&self.daemon, after, &section.name)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, slot: &Arc<Slot>, config: &Arc<Config>, gate: &Arc<StartGate>) {
        let name = slot.entry.name.clone();
        let give_up = |state, reason: String| {
            tracing::warn!(module = name, reason, "the module does not run");
            slot.entry.enter(state, reason);
            gate.arrive();
        };
        let Some(section) = config.modules.iter().find(|section| section.name == name) else {
            return gate.arrive();
        };
        if section.isolation == Some(config::Isolation::Process) {
            let reason = "isolation: process is not built yet; write isolation: in_process, or \
                          leave the key out";
            return give_up(State::Failed, reason.to_owned());
        }
        let Some(package) = self.daemon.package(section) else {
            return give_up(State::Absent, self.daemon.where_looked(&name));
        };
        say_what_has_no_effect(section);
        slot.entry.enter(State::Loading, "");
        let wakes = self.daemon.wakes.clone();
        let ended_name = name.clone();
        let start = Start {
            entry: slot.entry.clone(),
            package,
            shelf: self.daemon.shelf.clone(),
            context: self.daemon.context.clone(),
            configure: configure::configure(self.daemon.clone(), config.clone()),
            explain: configure::explain(config.clone(), &name),
            grace: STOP_GRACE,
            restart: RestartPolicy {
                limit: usize::try_from(section.restart.limit).unwrap_or(usize::MAX),
                max_backoff: Duration::from_millis(section.restart.backoff_max_ms),
            },
            gate: gate.clone(),
            ended: Box::new(move |ended| {
                // An error means that the daemon is ending.
                let _ = wakes.send(Wake::ModuleEnded { name: ended_name, ended });
            }),
        };
        match module::spawn(start) {
            Ok(_) => {
                self.applied.insert(name.clone(), section.clone());
                self.alive.insert(name);
            }
            Err(error) => give_up(State::Failed, format!("cannot start a thread: {error}")),
        }
    }

    fn stop(&self, slot: &Slot) {
        if slot.entry.calls.push(Call::Stop).is_ok() {
            return;
        }
        // It has no inbox yet: it is starting, and is stopped when it has started.
        let slot_entry = slot.entry.clone();
        tokio::spawn(async move {
            let mut state = slot_entry.watch();
            let started = state.wait_for(|transition| {
                transition.state.is_running() || !transition.state.is_alive()
            });
            if started.await.is_ok_and(|transition| transition.state.is_running()) {
                // An error means that it has ended by itself.
                let _ = slot_entry.calls.push(Call::Stop);
            }
        });
    }

    fn ended(&mut self, name: &str, ended: &Ended) {
        self.alive.remove(name);
        self.applied.remove(name);
        let slot = self.daemon.slot(name);
        if self.stopping {
            return;
        }
        if !slot.is_desired() {
            self.show_disabled(&slot);
            let config = self.daemon.config();
            self.forget_removed(&config);
        } else if *ended == Ended::Failed {
            self.daemon.context.listeners.release(name);
        } else if *ended == Ended::Stopped {
            // It was stopped to take a new configuration.
            self.reconcile();
        }
    }

    fn show_disabled(&self, slot: &Slot) {
        if slot.entry.state().is_alive() {
            return;
        }
        self.daemon.context.listeners.release(&slot.entry.name);
        let config = self.daemon.config();
        let section = config.module(&slot.entry.name);
        if section.is_some_and(|section| self.daemon.package(section).is_some()) {
            slot.entry.enter(State::Disabled, "disabled in the configuration");
        } else {
            slot.entry.enter(State::Absent, self.daemon.where_looked(&slot.entry.name));
        }
    }

    /// Stops modules whose section is gone and ends their subscriptions.
    fn forget_removed(&mut self, config: &Config) {
        for slot in self.daemon.slots() {
            let name = &slot.entry.name;
            if config.modules.iter().any(|section| section.name == *name) {
                continue;
            }
            slot.set_desired(false, None);
            if self.alive.contains(name) {
                self.stop(&slot);
            } else if self.daemon.forget(name) {
                self.daemon.context.listeners.release(name);
                // An error means that it never subscribed.
                let _ = self.daemon.context.bus.unsubscribe(name);
            }
        }
    }

    fn watch_deadlines(&self) {
        let config = self.daemon.config();
        for slot in self.daemon.slots() {
            let state = slot.entry.state();
            let Some((call, time)) = slot.entry.clock.running() else { continue };
            let deadline =
                config.module(&slot.entry.name).and_then(|it| it.limits.call_deadline_ms);
            let deadline = deadline.map_or(CALL_DEADLINE, Duration::from_millis);
            if time < deadline || matches!(state, State::Stalled) {
                continue;
            }
            let name = &slot.entry.name;
            let seconds = time.as_secs();
            tracing::error!(module = name, call, seconds, "a call of the module does not return");
            slot.entry.enter_from(
                state,
                State::Stalled,
                format!("its {call} has not returned for {seconds} s; its events wait"),
            );
        }
    }
}

/// Sections that are read once, when the daemon starts.
fn say_what_needs_a_restart(before: &Config, after: &Config) {
    let sections = config::changed_sections(before, after);
    for section in sections.iter().filter(|name| !matches!(name.as_str(), "modules" | "log")) {
        tracing::warn!(section, "this section takes effect when lodestard is started again");
    }
}

/// Keys that only a process of its own can make true are accepted, so that a file can be written
/// for later, and said to do nothing now.
fn say_what_has_no_effect(section: &ModuleSection) {
    let limits = section.limits;
    let keys = [
        ("limits.memory_bytes", limits.memory_bytes.is_some()),
        ("limits.cpu_percent", limits.cpu_percent.is_some()),
        ("unload", section.unload),
    ];
    for (key, _) in keys.into_iter().filter(|(_, given)| *given) {
        tracing::warn!(module = section.name, key, "this key has no effect in this version");
    }
}

/// Ends an operation when its module has arrived where it was sent.
async fn follow(slot: Arc<Slot>, pending: Pending, enabled: bool) {
    let mut state = slot.entry.watch();
    let settled = state.wait_for(|transition| {
        if slot.is_desired() != enabled {
            return true;
        }
        if enabled {
            transition.state.is_settled()
                && !matches!(transition.state, State::Disabled | State::Stopped)
        } else {
            matches!(transition.state, State::Disabled | State::Absent | State::Stalled)
        }
    });
    let Ok(transition) = settled.await.map(|transition| transition.clone()) else { return };
    let name = &slot.entry.name;
    let reason = &transition.reason;
    if slot.is_desired() != enabled {
        let message = format!("a later change of {name} came first; it is {}", transition.state);
        return pending.failed(ProblemCode::Busy, message, None);
    }
    match (enabled, transition.state) {
        (true, State::Running) => pending.done(format!("{name} is running")),
        (true, State::Degraded) => pending.done(format!("{name} is degraded: {reason}")),
        (false, state) if state != State::Stalled => pending.done(format!("{name} is {state}")),
        (_, State::Incompatible) => {
            pending.failed(ProblemCode::Refused, format!("{name}: {reason}"), None);
        }
        (_, State::Absent) => pending.failed(ProblemCode::NotFound, reason.clone(), None),
        (_, state) => {
            let help = format!("see `lodestar modules logs {name}`");
            let message = format!("{name} is {state}: {reason}");
            pending.failed(ProblemCode::Failed, message, Some(help));
        }
    }
}

/// Tells the bus about every change of a module's state, as long as the daemon runs.
fn tell_changes(daemon: &Arc<Daemon>, slot: &Slot) {
    let mut state = slot.entry.watch();
    let name = slot.entry.name.clone();
    let daemon = Arc::downgrade(daemon);
    tokio::spawn(async move {
        let mut before = state.borrow_and_update().state;
        while state.changed().await.is_ok() {
            let transition = state.borrow_and_update().clone();
            let Some(daemon) = daemon.upgrade() else { return };
            if transition.state != before {
                let reason = transition.reason;
                daemon.announce(&ModuleStateChanged {
                    module: name.clone(),
                    from: before.to_string(),
                    to: transition.state.to_string(),
                    reason: (!reason.is_empty()).then_some(reason),
                });
            }
            before = transition.state;
        }
    });
}

/// The path as messages show it: relative to where the daemon was started, when it is below.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    relative.unwrap_or_else(|| path.to_owned()).display().to_string()
}

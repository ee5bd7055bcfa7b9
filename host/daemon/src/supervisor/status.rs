//! The daemon as the control API and the metrics show it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Instant,
};

use lodestar_api::{
    CallFigures, EventCounters, Listener, Module, ModuleCommands, ModuleHealth, ModuleInfo,
    ModuleProcess, RecentCalls, Status, Timer, Warning,
};
use lodestar_bus::{Counters, Counts};
use lodestar_config::{Config, Isolation};
use lodestar_library::{self as library, Package};
use lodestar_platform::files;
use module_sdk::{Description, HealthStatus, manifest::Manifest};

use super::{
    Daemon, Slot,
    isolation::{by_kind, isolation_now, isolation_reason},
    ledger::ledger_status,
    packages::package_of,
    probe::ask,
    warnings::warnings,
};
use crate::{
    module::{Durations, Entry, Measured, State, Tasks, Used},
    process_stats::figures,
};

/// Name of the owner of the daemon's own sockets.
pub const OWN: &str = "lodestard";

/// Returns the daemon and its modules as they are now.
#[must_use]
pub fn status(daemon: &Daemon) -> Status {
    let counters = counters_by_module(daemon);
    let config = daemon.config();
    let slots = daemon.modules.all();
    let in_file = in_file(&config, &slots);
    let in_file: Vec<(&Slot, Used)> = {
        // Who ends a process of a module waits meanwhile.
        let tasks = Tasks::now();
        in_file.map(|slot| (slot, slot.entry.used(&tasks))).collect()
    };
    let in_file = in_file.into_iter();
    let mut modules: Vec<Module> =
        in_file.map(|(slot, used)| shown_module(daemon, slot, used)).collect();
    let packages = library::list(&daemon.places.module_path);
    for package in &packages {
        if !modules.iter().any(|module| module.name == package.name) {
            let isolation = by_kind(daemon, package).isolation;
            modules.push(unlisted(package, isolation, counters.contains_key(&package.name)));
        }
    }
    modules.extend(forgotten(&counters, &modules));
    for module in &mut modules {
        enter_counters(module, counters.get(&module.name));
    }
    of_daemon(daemon, modules, warnings(daemon, &packages))
}

/// Returns the daemon with its modules and warnings.
fn of_daemon(daemon: &Daemon, modules: Vec<Module>, warnings: Vec<Warning>) -> Status {
    let own = figures(std::process::id());
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: daemon.started.elapsed().as_secs(),
        cpu_ms: own.cpu_ms,
        memory_bytes: own.memory_bytes,
        threads: own.threads,
        config_path: daemon.places.config.display().to_string(),
        config_error: daemon.configuration.error(),
        warnings,
        state_dir: daemon.places.state_dir.display().to_string(),
        ledger: ledger_status(daemon),
        listeners: own_listeners(daemon),
        connections: daemon.servers.connections(),
        modules,
    }
}

/// Returns the state that a module asks for every few seconds to watch the daemon: without
/// warnings, figures of calls and resources of modules, and without modules that are not in the
/// configuration. It takes nothing from the disk.
#[must_use]
pub fn brief_status(daemon: &Daemon) -> Status {
    let counters = counters_by_module(daemon);
    let (config, slots) = (daemon.config(), daemon.modules.all());
    let mut modules: Vec<Module> =
        in_file(&config, &slots).map(|slot| known_module(daemon, slot)).collect();
    for module in &mut modules {
        enter_counters(module, counters.get(&module.name));
    }
    of_daemon(daemon, modules, Vec::new())
}

/// Returns the modules of the configuration, in its order.
fn in_file<'a>(config: &'a Config, slots: &'a [Arc<Slot>]) -> impl Iterator<Item = &'a Slot> {
    config.modules.iter().filter_map(|section| {
        slots.iter().find(|slot| slot.entry.name == section.name).map(Arc::as_ref)
    })
}

fn own_listeners(daemon: &Daemon) -> Vec<Listener> {
    let mut listeners = listeners_of(daemon, OWN);
    let error = daemon.metrics_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !error.is_empty() {
        let name = "metrics".to_owned();
        listeners.push(Listener { name, address: None, error: Some(error) });
    }
    listeners
}

fn listeners_of(daemon: &Daemon, owner: &str) -> Vec<Listener> {
    let addresses = daemon.context.listeners.addresses(Some(owner));
    let listener =
        |(key, address): (lodestar_platform::listeners::ListenerKey, std::net::SocketAddr)| {
            Listener { name: key.name, address: Some(address.to_string()), error: None }
        };
    addresses.into_iter().map(listener).collect()
}

fn counters_by_module(daemon: &Daemon) -> HashMap<String, Counters> {
    let counters = daemon.context.bus.counters().into_iter();
    counters.map(|counters| (counters.module.to_string(), counters)).collect()
}

/// Samples the resources that every module uses, so that those of threads that end before the next
/// sample are counted. Waits for nobody who does the same.
pub fn account(daemon: &Daemon) {
    let (tasks, now) = (Tasks::try_now(), Instant::now());
    for slot in daemon.modules.all() {
        if let Some(tasks) = &tasks {
            slot.entry.used(tasks);
        }
        slot.entry.meter.turn(now);
        slot.entry.log_rate.settle(&slot.entry.name);
    }
}

fn shown_module(daemon: &Daemon, slot: &Slot, used: Used) -> Module {
    let entry = &slot.entry;
    Module {
        version: manifest_of(daemon, &entry.name).map(|manifest| manifest.module.version),
        isolation: isolation_now(daemon, entry).as_str().to_owned(),
        cpu_ms: used.cpu_ms,
        memory_bytes: used.memory_bytes,
        threads: used.threads,
        calls: entry.meter.measured().iter().map(call_figures).collect(),
        recent: recent_calls(&entry.meter.recent()),
        ..known_module(daemon, slot)
    }
}

/// Returns what is known of a module without the disk, and without adding anything up.
fn known_module(daemon: &Daemon, slot: &Slot) -> Module {
    let entry = &slot.entry;
    let transition = entry.transition();
    let health = match (transition.state.is_alive(), entry.health()) {
        (true, health) => ModuleHealth {
            status: match health.status {
                HealthStatus::Ok => "ok",
                HealthStatus::Degraded => "degraded",
                HealthStatus::Failed => "failed",
            }
            .to_owned(),
            message: health.message,
        },
        (false, _) => ModuleHealth { status: "unknown".to_owned(), message: String::new() },
    };
    Module {
        name: entry.name.clone(),
        desired: if slot.is_desired() { "enabled" } else { "disabled" }.to_owned(),
        state: transition.state.to_string(),
        reason: Some(transition.reason)
            .filter(|reason| !reason.is_empty())
            .or_else(|| slot.behind()),
        generation: entry.generation.load(Ordering::Relaxed),
        health,
        restarts: entry.restarts.load(Ordering::Relaxed),
        listeners: listeners_of(daemon, &entry.name),
        ..Module::default()
    }
}

/// Returns the manifest of a module: that of the loaded library, else the one beside the library on
/// disk.
pub(crate) fn manifest_of(daemon: &Daemon, name: &str) -> Option<Manifest> {
    if let Some(known) = daemon.modules.entry(name).and_then(|entry| entry.known()) {
        return Some(known.manifest.clone());
    }
    let config = daemon.config();
    let package = match config.module(name) {
        Some(section) => package_of(daemon, section)?,
        None => library::find(&daemon.places.module_path, name)?,
    };
    let text = files::read_text(&package.directory.join("module.toml")).ok()?;
    Manifest::parse(&text).ok()
}

/// Returns the details of one module; `None` when it is neither in the configuration nor on the
/// module path.
#[must_use]
pub fn module_info(daemon: &Daemon, name: &str) -> Option<ModuleInfo> {
    let module = status(daemon).modules.into_iter().find(|module| module.name == name)?;
    let manifest = manifest_of(daemon, name);
    let entry = daemon.modules.entry(name);
    let known = entry.as_ref().and_then(|entry| entry.known());
    let description = known.as_ref().map(|known| &known.description);
    let bus = manifest.as_ref().map(|manifest| manifest.bus.clone()).unwrap_or_default();
    Some(ModuleInfo {
        isolation_reason: isolation_reason(daemon, &module),
        log_records_per_second: entry.as_ref().map(|entry| entry.log_rate.most()),
        description: manifest
            .as_ref()
            .map(|manifest| manifest.module.description.clone())
            .unwrap_or_default(),
        library: known.as_ref().map(|known| known.path.display().to_string()),
        sha256: known.as_ref().map(|known| known.sha256.clone()),
        sdk_version: known.as_ref().map(|known| known.sdk_version.clone()),
        command: manifest.and_then(|manifest| manifest.cli.command),
        subscriptions: bus.consumes,
        publishes: bus.publishes,
        commands: description
            .map(|it| it.commands.iter().map(|command| command.name.clone()).collect())
            .unwrap_or_default(),
        timers: description
            .map(|it| {
                it.timers.iter().map(|timer| Timer {
                    name: timer.name.clone(),
                    every_ms: timer.every_ms,
                    daily: timer.daily.clone(),
                })
            })
            .map(Iterator::collect)
            .unwrap_or_default(),
        since: entry.as_ref().map(|entry| format!("{:.3}", entry.transition().since)),
        last_errors: last_errors(daemon, name),
        data_dir: Some(daemon.data_dir(name).display().to_string()),
        process: entry.as_ref().and_then(|entry| process(entry)),
        resident_generations: daemon.loaded_libraries.resident_of(name) as u64,
        module,
    })
}

fn last_errors(daemon: &Daemon, name: &str) -> Vec<lodestar_api::ModuleError> {
    let records = daemon.logging.recorder.newest(name, usize::MAX);
    let bad = records
        .into_iter()
        .rev()
        .filter(|record| record.level == "ERROR" || record.level == "WARN");
    bad.take(5)
        .map(|record| lodestar_api::ModuleError {
            time: format!("{:.3}", record.time),
            place: String::new(),
            message: match record.fields.get("reason").and_then(|reason| reason.as_str()) {
                Some(reason) => format!("{}: {reason}", record.message),
                None => record.message,
            },
        })
        .collect()
}

/// Returns the commands of the modules of the configuration, those that do not run included. Blocks
/// while a library has to be asked, so it must not be called on a thread of the runtime.
#[must_use]
pub fn module_commands(daemon: &Daemon) -> Vec<ModuleCommands> {
    let config = daemon.config();
    let known = |slot: &Slot| slot.entry.known().filter(|_| slot.entry.state().is_alive());
    let module_commands = daemon.modules.all().into_iter().filter_map(|slot| match known(&slot) {
        Some(known) => Some(commands_of(&known.manifest, &known.description)),
        None => {
            let package = package_of(daemon, config.module(&slot.entry.name)?)?;
            let ask = |package: &Package| ask(daemon, package, b"");
            let described = daemon.descriptions.of(&package, ask)?;
            Some(commands_of(&described.manifest, &described.description))
        }
    });
    module_commands.collect()
}

fn commands_of(manifest: &Manifest, description: &Description) -> ModuleCommands {
    let name = manifest.module.name.clone();
    ModuleCommands {
        command: manifest.cli.command.clone().unwrap_or_else(|| name.clone()),
        aliases: vec![name.clone()],
        module: name,
        about: manifest.module.description.clone(),
        default_command: manifest.cli.default_command.clone(),
        failure_exit_code: manifest.cli.failure_exit_code,
        commands: description.commands.clone(),
    }
}

/// Adds the counters of the bus to a module, which may have neither a section nor a library.
fn enter_counters(module: &mut Module, counters: Option<&Counters>) {
    let Some(counters) = counters else { return };
    module.events = counts(&counters.total());
    module.dropped_by = dropped_by(counters);
    module.lag_ms = counters.oldest_pending_ms.unwrap_or_default();
}

/// Returns the modules that only the bus still knows, since it keeps their events, by name.
fn forgotten(counters: &HashMap<String, Counters>, known: &[Module]) -> Vec<Module> {
    let is_known = |name: &String| known.iter().any(|module| module.name == *name);
    let mut names: Vec<&String> = counters.keys().filter(|name| !is_known(name)).collect();
    names.sort_unstable();
    let forgotten = names.into_iter().map(|name| Module {
        name: name.clone(),
        desired: "removed".to_owned(),
        state: State::Absent.to_string(),
        reason: Some("neither in the configuration nor on the module path".to_owned()),
        health: ModuleHealth { status: "unknown".to_owned(), message: String::new() },
        ..Module::default()
    });
    forgotten.collect()
}

/// Returns the number of dropped events by reason.
fn dropped_by(counters: &Counters) -> BTreeMap<String, u64> {
    let dropped = counters.total().dropped;
    dropped.iter().map(|(reason, count)| (reason.name().to_owned(), count)).collect()
}

fn call_figures(measured: &Measured) -> CallFigures {
    let Measured { work, durations, items, failures } = measured;
    CallFigures {
        kind: work.name().to_owned(),
        calls: durations.count(),
        items: *items,
        failures: *failures,
        total_ns: durations.sum_ns,
        p50_ns: durations.percentile(50),
        p99_ns: durations.percentile(99),
        max_ns: durations.max_ns,
    }
}

fn recent_calls(durations: &Durations) -> RecentCalls {
    RecentCalls {
        calls: durations.count(),
        p50_ns: durations.percentile(50),
        p99_ns: durations.percentile(99),
    }
}

/// Returns counters of events as the control API shows them.
pub fn counts(counts: &Counts) -> EventCounters {
    EventCounters {
        accepted: counts.accepted,
        handled: counts.handled,
        dead: counts.dead,
        dropped: counts.dropped.total(),
        pending: counts.pending,
    }
}

/// Returns the process of a module for `modules info`.
fn process(entry: &Entry) -> Option<ModuleProcess> {
    let process = entry.process()?;
    Some(ModuleProcess {
        pid: process.pid,
        threads: figures(process.pid).threads,
        memory_limit: process.memory_limit.clone(),
        cpu_limit: process.cpu_limit.clone(),
        tasks_limit: process.tasks_limit.clone(),
        data_limit: process.data_limit.clone(),
        limits_without_group: process.limits_without_group.clone(),
        sandbox: process.sandbox.clone(),
    })
}

/// Returns a module that lies on the module path, but not in the configuration. `is_kept` tells
/// that the bus keeps events for it, so that its section was removed.
fn unlisted(package: &Package, isolation: Isolation, is_kept: bool) -> Module {
    let text = files::read_text(&package.directory.join("module.toml")).unwrap_or_default();
    Module {
        name: package.name.clone(),
        version: Manifest::parse(&text).ok().map(|manifest| manifest.module.version),
        desired: if is_kept { "removed" } else { "disabled" }.to_owned(),
        state: State::Disabled.to_string(),
        reason: Some("not in the configuration".to_owned()),
        isolation: isolation.as_str().to_owned(),
        generation: 0,
        health: ModuleHealth { status: "unknown".to_owned(), message: String::new() },
        ..Module::default()
    }
}

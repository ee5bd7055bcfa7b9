//! The daemon as the control API and the metrics show it.

use std::{
    collections::HashMap,
    sync::{PoisonError, atomic::Ordering},
};

use prometheus::proto::MetricFamily;

use super::{Daemon, Slot};
use crate::{
    bus::{Books, Counts},
    control::api::{
        EventBooks, Listener, Module, ModuleHealth, ModuleInfo, ModuleProcess, Noun, Status, Timer,
    },
    library,
    metrics::{Kind, Snapshot},
    module::{Entry, State, cpu_ms},
    runner::{self, Figures},
};
use module_sdk::{Description, HealthStatus, manifest::Manifest};

/// The owner of the daemon's own sockets.
pub const OWN: &str = "lodestard";

impl Daemon {
    /// The daemon and its modules as they are now.
    #[must_use]
    pub fn status(&self) -> Status {
        let books = self.books();
        let config = self.config();
        let mut modules: Vec<Module> = Vec::new();
        for section in &config.modules {
            if let Some(slot) = self.slots().iter().find(|slot| slot.entry.name == section.name) {
                modules.push(self.module(slot, &books));
            }
        }
        for package in library::list(&self.places.module_path) {
            if !modules.iter().any(|module| module.name == package.name) {
                modules.push(unlisted(&package));
            }
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            config_path: self.places.config.display().to_string(),
            state_dir: self.places.state_dir.display().to_string(),
            ledger: self.ledger_status(),
            listeners: self.own_listeners(),
            modules,
        }
    }

    fn own_listeners(&self) -> Vec<Listener> {
        let mut listeners = self.listeners(OWN);
        let error = self.metrics_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !error.is_empty() {
            let name = "metrics".to_owned();
            listeners.push(Listener { name, address: None, error: Some(error) });
        }
        listeners
    }

    fn listeners(&self, owner: &str) -> Vec<Listener> {
        let addresses = self.context.listeners.addresses(Some(owner));
        let listener = |(key, address): (crate::listeners::ListenerKey, std::net::SocketAddr)| {
            Listener { name: key.name, address: Some(address.to_string()), error: None }
        };
        addresses.into_iter().map(listener).collect()
    }

    fn books(&self) -> HashMap<String, Books> {
        let books = self.context.bus.books().into_iter();
        books.map(|books| (books.module.to_string(), books)).collect()
    }

    fn module(&self, slot: &Slot, books: &HashMap<String, Books>) -> Module {
        let entry = &slot.entry;
        let transition = entry.transition();
        let used = used(entry);
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
            version: self.manifest(&entry.name).map(|manifest| manifest.module.version),
            desired: if slot.is_desired() { "enabled" } else { "disabled" }.to_owned(),
            state: transition.state.to_string(),
            reason: Some(transition.reason)
                .filter(|reason| !reason.is_empty())
                .or_else(|| slot.behind()),
            isolation: if slot.is_isolated() { "process" } else { "in_process" }.to_owned(),
            generation: entry.generation.load(Ordering::Relaxed),
            health,
            events: books.get(&entry.name).map(event_books).unwrap_or_default(),
            restarts: entry.restarts.load(Ordering::Relaxed),
            cpu_ms: used.cpu_ms,
            memory_bytes: used.memory_bytes,
            listeners: self.listeners(&entry.name),
        }
    }

    /// The manifest of a module: of what is loaded, else what lies beside the library.
    fn manifest(&self, name: &str) -> Option<Manifest> {
        if let Some(known) = self.entry(name).and_then(|entry| entry.known()) {
            return Some(known.manifest.clone());
        }
        let package = library::find(&self.places.module_path, name)?;
        let text = std::fs::read_to_string(package.directory.join("module.toml")).ok()?;
        Manifest::parse(&text).ok()
    }

    /// Everything about one module; `None` when it is neither in the configuration nor on the
    /// module path.
    #[must_use]
    pub fn module_info(&self, name: &str) -> Option<ModuleInfo> {
        let module = self.status().modules.into_iter().find(|module| module.name == name)?;
        let manifest = self.manifest(name);
        let entry = self.entry(name);
        let known = entry.as_ref().and_then(|entry| entry.known());
        let description = known.as_ref().map(|known| &known.description);
        let bus = manifest.as_ref().map(|manifest| manifest.bus.clone()).unwrap_or_default();
        Some(ModuleInfo {
            description: manifest
                .as_ref()
                .map(|manifest| manifest.module.description.clone())
                .unwrap_or_default(),
            library: known.as_ref().map(|known| known.path.display().to_string()),
            sha256: known.as_ref().map(|known| known.sha256.clone()),
            sdk_version: known.as_ref().map(|known| known.sdk_version.clone()),
            noun: manifest.and_then(|manifest| manifest.cli.noun),
            subscriptions: bus.consumes,
            publishes: bus.publishes,
            commands: description
                .map(|it| it.commands.iter().map(|command| command.name.clone()).collect())
                .unwrap_or_default(),
            timers: description
                .map(|it| {
                    it.timers
                        .iter()
                        .map(|timer| Timer { name: timer.name.clone(), every_ms: timer.every_ms })
                })
                .map(Iterator::collect)
                .unwrap_or_default(),
            since: entry.as_ref().map(|entry| format!("{:.3}", entry.transition().since)),
            last_errors: self.last_errors(name),
            data_dir: Some(self.data_dir(name).display().to_string()),
            process: entry.as_ref().and_then(|entry| process(entry)),
            resident_generations: self.shelf.resident_of(name) as u64,
            module,
        })
    }

    fn last_errors(&self, name: &str) -> Vec<crate::control::api::ModuleError> {
        let records = self.logging.recorder.newest(name, usize::MAX);
        let bad = records
            .into_iter()
            .rev()
            .filter(|record| record.level == "ERROR" || record.level == "WARN");
        bad.take(5)
            .map(|record| crate::control::api::ModuleError {
                time: format!("{:.3}", record.time),
                place: String::new(),
                message: match record.fields.get("reason").and_then(|reason| reason.as_str()) {
                    Some(reason) => format!("{}: {reason}", record.message),
                    None => record.message,
                },
            })
            .collect()
    }

    /// What the modules of the configuration answer to on the command line, those that do not run
    /// included. May take a while where a library has to be asked: not for the runtime's threads.
    #[must_use]
    pub fn nouns(&self) -> Vec<Noun> {
        let config = self.config();
        let known = |slot: &Slot| slot.entry.known().filter(|_| slot.entry.state().is_alive());
        let nouns = self.slots().into_iter().filter_map(|slot| match known(&slot) {
            Some(known) => Some(noun(&known.manifest, &known.description)),
            None => {
                let package = self.package(config.module(&slot.entry.name)?)?;
                let described = self.descriptions.of(&package)?;
                Some(noun(&described.manifest, &described.description))
            }
        });
        nouns.collect()
    }

    /// The metrics of the daemon and the bus.
    #[must_use]
    pub fn own_metrics(&self) -> Vec<MetricFamily> {
        let mut families = Snapshot::default();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let abi = lodestar_abi::EPOCH.to_string();
        families.family(
            Kind::Gauge,
            "lodestar_build_info",
            "Build information, value is always 1.",
            &["version", "abi"],
            [(vec![version, abi], 1.0)],
        );
        self.module_metrics(&mut families);
        self.bus_metrics(&mut families);
        process_metrics(&mut families);
        families.finish()
    }

    fn module_metrics(&self, families: &mut Snapshot) {
        let slots = self.slots();
        let name = |slot: &Slot| slot.entry.name.clone();
        let states = slots.iter().flat_map(|slot| {
            let current = slot.entry.state();
            State::ALL.map(|state| {
                (vec![name(slot), state.to_string()], f64::from(u8::from(state == current)))
            })
        });
        families.family(
            Kind::Gauge,
            "lodestar_module_state",
            "1 for the current state of a module, 0 for the others.",
            &["module", "state"],
            states.collect::<Vec<_>>(),
        );
        let mut per_module = |kind, family: &str, help, value: &dyn Fn(&Slot) -> f64| {
            let rows: Vec<_> = slots.iter().map(|slot| (vec![name(slot)], value(slot))).collect();
            families.family(kind, family, help, &["module"], rows);
        };
        per_module(
            Kind::Counter,
            "lodestar_module_restarts_total",
            "Restarts of a module after a panic.",
            &|slot| number(slot.entry.restarts.load(Ordering::Relaxed)),
        );
        per_module(
            Kind::Gauge,
            "lodestar_module_heap_bytes",
            "Memory that the module's own allocator has given out.",
            &|slot| number(slot.entry.heap_bytes.load(Ordering::Relaxed)),
        );
        per_module(
            Kind::Gauge,
            "lodestar_module_cpu_seconds",
            "CPU time of the module's process, or of its threads in the daemon that live now.",
            &|slot| number(used(&slot.entry).cpu_ms) / 1_000.0,
        );
        per_module(
            Kind::Gauge,
            "lodestar_module_call_age_seconds",
            "How long the call that the module is in has taken so far, 0 between calls.",
            &|slot| slot.entry.clock().running().map_or(0.0, |(_, time)| time.as_secs_f64()),
        );
        let processes: Vec<_> = slots
            .iter()
            .filter_map(|slot| {
                let pid = slot.entry.process()?.pid;
                Some((vec![name(slot)], number(runner::figures(pid).memory_bytes)))
            })
            .collect();
        families.family(
            Kind::Gauge,
            "lodestar_module_memory_bytes",
            "Resident memory of a module's own process.",
            &["module"],
            processes,
        );
    }

    fn bus_metrics(&self, families: &mut Snapshot) {
        self.ledger_metrics(families);
        let books = self.context.bus.books();
        let outcomes = books.iter().flat_map(|books| {
            let counts = books.total();
            [("accepted", counts.accepted), ("handled", counts.handled), ("dead", counts.dead)].map(
                |(outcome, count)| {
                    (vec![books.module.to_string(), outcome.to_owned()], number(count))
                },
            )
        });
        families.family(
            Kind::Counter,
            "lodestar_bus_events_total",
            "Events for a module by what became of them.",
            &["module", "outcome"],
            outcomes.collect::<Vec<_>>(),
        );
        let dropped = books.iter().flat_map(|books| {
            let dropped: Vec<_> = books.total().dropped.iter().collect();
            let row = |(reason, count): (crate::bus::DropReason, u64)| {
                (vec![books.module.clone(), reason.name().to_owned()], number(count))
            };
            dropped.into_iter().map(row)
        });
        families.family(
            Kind::Counter,
            "lodestar_bus_events_dropped_total",
            "Events that a module lost, by reason.",
            &["module", "reason"],
            dropped.collect::<Vec<_>>(),
        );
        let depth =
            books.iter().map(|it| (vec![it.module.to_string()], number(it.total().pending)));
        families.family(
            Kind::Gauge,
            "lodestar_bus_queue_depth",
            "Events waiting for a module.",
            &["module"],
            depth.collect::<Vec<_>>(),
        );
    }
}

fn noun(manifest: &Manifest, description: &Description) -> Noun {
    let name = manifest.module.name.clone();
    Noun {
        noun: manifest.cli.noun.clone().unwrap_or_else(|| name.clone()),
        aliases: vec![name.clone()],
        module: name,
        about: manifest.module.description.clone(),
        default_command: manifest.cli.default_command.clone(),
        commands: description.commands.clone(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
const fn number(count: u64) -> f64 {
    count as f64
}

fn process_metrics(families: &mut Snapshot) {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let pages = read("/proc/self/statm");
    let pages = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let page = rustix::param::page_size() as u64;
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = number(u64::try_from(cpu.tv_sec).unwrap_or_default())
        + number(u64::try_from(cpu.tv_nsec).unwrap_or_default()) / 1e9;
    families
        .family(
            Kind::Gauge,
            "process_memory_usage_bytes",
            "Resident memory of lodestard.",
            &[],
            [(vec![], number(pages.unwrap_or_default() * page))],
        )
        .family(
            Kind::Counter,
            "process_cpu_time_seconds_total",
            "CPU time of lodestard.",
            &[],
            [(vec![], cpu)],
        )
        .family(
            Kind::Gauge,
            "process_open_fds",
            "Open file descriptors.",
            &[],
            [(vec![], number(descriptors))],
        );
}

fn event_books(books: &Books) -> EventBooks {
    counts(&books.total())
}

/// The books of both classes together.
pub fn counts(counts: &Counts) -> EventBooks {
    EventBooks {
        accepted: counts.accepted,
        handled: counts.handled,
        dead: counts.dead,
        dropped: counts.dropped.total(),
        pending: counts.pending,
    }
}

/// What a module uses: its own process, or what is counted of it in the daemon.
fn used(entry: &Entry) -> Figures {
    if let Some(process) = entry.process() {
        return runner::figures(process.pid);
    }
    let running = entry.state().is_running();
    Figures {
        cpu_ms: if running { cpu_ms(&entry.name) } else { 0 },
        memory_bytes: entry.heap_bytes.load(Ordering::Relaxed),
        threads: 0,
    }
}

/// The process of a module for `modules info`.
fn process(entry: &Entry) -> Option<ModuleProcess> {
    let process = entry.process()?;
    Some(ModuleProcess {
        pid: process.pid,
        threads: runner::figures(process.pid).threads,
        memory_limit: process.memory_limit.clone(),
        cpu_limit: process.cpu_limit.clone(),
        sandbox: process.sandbox.clone(),
    })
}

/// A module that lies on the module path, but not in the configuration.
fn unlisted(package: &library::Package) -> Module {
    let text = std::fs::read_to_string(package.directory.join("module.toml")).unwrap_or_default();
    Module {
        name: package.name.clone(),
        version: Manifest::parse(&text).ok().map(|manifest| manifest.module.version),
        desired: "disabled".to_owned(),
        state: State::Disabled.to_string(),
        reason: Some("not in the configuration".to_owned()),
        isolation: "in_process".to_owned(),
        generation: 0,
        health: ModuleHealth { status: "unknown".to_owned(), message: String::new() },
        events: EventBooks::default(),
        restarts: 0,
        cpu_ms: 0,
        memory_bytes: 0,
        listeners: Vec::new(),
    }
}

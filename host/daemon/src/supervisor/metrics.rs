//! Metrics of the daemon for Prometheus, collected at each scrape.

use std::sync::atomic::Ordering;

use lodestar_api::{Connections, Ended};
use prometheus::proto::MetricFamily;

use super::{Daemon, Slot, ledger::ledger_metrics};
use crate::{
    metrics::{HistogramRow, Kind, Snapshot},
    module::{Measured, State, Tasks, Work},
    process_stats::figures,
};

/// Upper bounds of the histogram buckets for durations of calls, in nanoseconds.
const BOUNDS_NS: [u64; 8] =
    [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000];

/// Returns the metrics of the daemon and the bus.
#[must_use]
pub fn own_metrics(daemon: &Daemon) -> Vec<MetricFamily> {
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
    families.family(
        Kind::Gauge,
        "lodestar_config_last_reload_successful",
        "1 when the configuration file as it lies on the disk is what runs, else 0.",
        &[],
        [(Vec::new(), f64::from(u8::from(daemon.configuration.error().is_none())))],
    );
    module_metrics(daemon, &mut families);
    call_metrics(daemon, &mut families);
    bus_metrics(daemon, &mut families);
    connection_metrics(daemon, &mut families);
    process_metrics(&mut families);
    families.finish()
}

fn module_metrics(daemon: &Daemon, families: &mut Snapshot) {
    let slots = daemon.modules.all();
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
        Kind::Counter,
        "lodestar_module_redacted_events_total",
        "Events of a module of which something that looked like a secret was taken out.",
        &|slot| number(slot.entry.redacted.load(Ordering::Relaxed)),
    );
    let refused = slots.iter().flat_map(|slot| {
        let counts = slot.entry.refusals.counts();
        counts.map(|(why, count)| (vec![name(slot), why.as_str().to_owned()], number(count)))
    });
    let refused: Vec<_> = refused.filter(|(_, count)| *count > 0.0).collect();
    per_module(
        Kind::Gauge,
        "lodestar_module_heap_bytes",
        "Memory that the module's own allocator has given out.",
        &|slot| number(slot.entry.heap_bytes.load(Ordering::Relaxed)),
    );
    let tasks = Tasks::now();
    per_module(
        Kind::Counter,
        "lodestar_module_cpu_seconds_total",
        "CPU time of the module's threads in the daemon and of its processes.",
        &|slot| number(slot.entry.used(&tasks).cpu_ms) / 1_000.0,
    );
    per_module(
        Kind::Gauge,
        "lodestar_module_threads",
        "Threads of the module in the daemon, or of its process.",
        &|slot| number(slot.entry.used(&tasks).threads),
    );
    drop(tasks);
    per_module(
        Kind::Gauge,
        "lodestar_module_call_age_seconds",
        "How long the call that the module is in has taken so far, 0 between calls.",
        &|slot| slot.entry.clock().running().map_or(0.0, |(_, time)| time.as_secs_f64()),
    );
    families.family(
        Kind::Counter,
        "lodestar_module_refused_events_total",
        "Events of a module that the host did not publish, by why.",
        &["module", "reason"],
        refused,
    );
    let processes: Vec<_> = slots
        .iter()
        .filter_map(|slot| {
            let pid = slot.entry.process()?.pid;
            Some((vec![name(slot)], number(figures(pid).memory_bytes)))
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

fn connection_metrics(daemon: &Daemon, families: &mut Snapshot) {
    let all = daemon.servers.connections();
    let mut each = |kind, family: &str, help, value: &dyn Fn(&Connections) -> u64| {
        let row = |it: &Connections| (vec![it.listener.clone()], number(value(it)));
        families.family(kind, family, help, &["listener"], all.iter().map(row).collect::<Vec<_>>());
    };
    let help = "Connections of a listener that are open.";
    each(Kind::Gauge, "lodestar_http_connections", help, &|it| it.open);
    let help = "How many connections a listener may have at once.";
    each(Kind::Gauge, "lodestar_http_connections_limit", help, &|it| it.limit);
    let help = "Connections that a listener accepted.";
    each(Kind::Counter, "lodestar_http_connections_accepted_total", help, &|it| it.accepted);
    let help = "Clients that a listener refused, since it had no room for them.";
    each(Kind::Counter, "lodestar_http_connections_refused_total", help, &|it| it.refused);
    let help = "How often the system gave a listener no connection.";
    each(Kind::Counter, "lodestar_http_accept_errors_total", help, &|it| it.accept_errors);
    let ended = all.iter().flat_map(|it| {
        let Ended { done, idle, slow_head, unread, displaced } = it.ended;
        [
            ("done", done),
            ("idle", idle),
            ("slow_head", slow_head),
            ("unread", unread),
            ("displaced", displaced),
        ]
        .map(|(reason, count)| (vec![it.listener.clone(), reason.to_owned()], number(count)))
    });
    families.family(
        Kind::Counter,
        "lodestar_http_connections_closed_total",
        "Connections of a listener that ended, by why they did.",
        &["listener", "reason"],
        ended.collect::<Vec<_>>(),
    );
}

fn call_metrics(daemon: &Daemon, families: &mut Snapshot) {
    let mut rows = Vec::new();
    let (mut handed_over, mut failures) = (Vec::new(), Vec::new());
    for slot in daemon.modules.all() {
        for measured in slot.entry.meter.measured() {
            let labels = vec![slot.entry.name.clone(), measured.work.name().to_owned()];
            if measured.work == Work::Events {
                handed_over.push((vec![labels[0].clone()], number(measured.items)));
            }
            failures.push((labels.clone(), number(measured.failures)));
            rows.push(histogram_row(labels, &measured));
        }
    }
    families
        .histogram(
            "lodestar_module_handler_duration_seconds",
            "How long the calls of a module took; one call hands over many events.",
            &["module", "kind"],
            rows,
        )
        .family(
            Kind::Counter,
            "lodestar_module_handler_events_total",
            "Events that were handed to a module, each time that they were.",
            &["module"],
            handed_over,
        )
        .family(
            Kind::Counter,
            "lodestar_module_handler_failures_total",
            "Calls of a module that failed.",
            &["module", "kind"],
            failures,
        );
}

fn bus_metrics(daemon: &Daemon, families: &mut Snapshot) {
    ledger_metrics(daemon, families);
    let counters = daemon.context.bus.counters();
    let outcomes = counters.iter().flat_map(|counters| {
        let counts = counters.total();
        [("accepted", counts.accepted), ("handled", counts.handled), ("dead", counts.dead)].map(
            |(outcome, count)| {
                (vec![counters.module.to_string(), outcome.to_owned()], number(count))
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
    let dropped = counters.iter().flat_map(|counters| {
        let dropped: Vec<_> = counters.total().dropped.iter().collect();
        let row = |(reason, count): (lodestar_bus::DropReason, u64)| {
            (vec![counters.module.clone(), reason.name().to_owned()], number(count))
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
    let depth = counters.iter().map(|it| (vec![it.module.to_string()], number(it.total().pending)));
    families.family(
        Kind::Gauge,
        "lodestar_bus_queue_depth",
        "Events waiting for a module.",
        &["module"],
        depth.collect::<Vec<_>>(),
    );
}

fn histogram_row(labels: Vec<String>, measured: &Measured) -> HistogramRow {
    let durations = &measured.durations;
    let bucket = |bound: u64| (number(bound) / 1e9, durations.at_most(bound));
    HistogramRow {
        labels,
        buckets: BOUNDS_NS.map(bucket).to_vec(),
        count: durations.count(),
        sum: number(durations.sum_ns) / 1e9,
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

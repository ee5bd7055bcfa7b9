//! Costs of a module's own process, beside the same module in process in the same run.
//!
//! Run with `cargo xtask bench runner`, which builds the module `sink` and the program `lodestard`
//! that it needs.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lodestar_abi::{
    CreateRequest, Event as AbiEvent,
    abi_stable::std_types::{ROption, RSlice},
};
use lodestar_bus::{Bus, BusConfig, Inbox, NewEvent};
use lodestar_config::Limits;
use lodestar_library::{LoadedLibraries, Package, inspect};
use lodestard::{
    module::{Bounds, Configured, Entry, Grant, Instance, Operate, ServiceContext, Services},
    runner::{Isolated, ProcessSpec},
};
use module_sdk::{Class, manifest::Manifest};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const PAYLOAD: usize = 300;
const TOPIC: &str = "bench.bytes";

fn main() {
    let bench = Bench::new();
    bench.round_trip();
    bench.batches();
    bench.restart();
    bench.neighbour();
}

/// Prints a figure as one line of JSON.
fn report(figure: Value) {
    println!("{figure}");
}

/// A package of `sink`, and what all modules share.
struct Bench {
    directory: tempfile::TempDir,
    package: Package,
    /// The manifest, read once: a module that starts again after a crash is not read again.
    manifest: Manifest,
    target: PathBuf,
    context: ServiceContext,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let program = std::env::current_exe().expect("a program knows itself");
        let target = program.parent().and_then(Path::parent).expect("target/release/deps");
        let package = Package { name: "sink".to_owned(), directory: directory.path().join("sink") };
        std::fs::create_dir(&package.directory).expect("it is new");
        std::fs::copy(target.join("libsink.so"), package.library_path())
            .expect("the module `sink` is built: run `cargo xtask bench runner`");
        let manifest = inspect(&package).expect("it is a module").manifest;
        let bus = Bus::open(BusConfig::default(), &directory.path().join("ledger"));
        let context = ServiceContext::alone(bus.expect("a new ledger"), directory.path());
        let context = context.expect("a new key");
        Self { package, manifest, target: target.to_owned(), context, directory }
    }

    fn grant(&self) -> Grant {
        let data_dir = self.directory.path().join("data");
        std::fs::create_dir_all(&data_dir).expect("it is writable");
        Grant {
            manifest: self.manifest.clone(),
            data_dir,
            addresses: Default::default(),
            secrets: Default::default(),
            providers: Value::Null,
            operate: Operate::Allowed,
        }
    }

    fn services(&self, entry: &Arc<Entry>) -> Arc<Services> {
        Services::new(self.context.clone(), entry.clone(), self.grant())
    }

    fn in_process(&self) -> Box<dyn Instance> {
        let inspected = inspect(&self.package).expect("it is a module");
        let library = LoadedLibraries::default().open(inspected, false).expect("it fits");
        let request = CreateRequest {
            config: RSlice::from_slice(b"{}"),
            restored: RSlice::EMPTY,
            reserved: [0; 4],
        };
        let services = self.services(&Arc::new(Entry::new("sink")));
        let module = (library.root().create())(request, services.to_abi());
        // The code must outlive the module.
        std::mem::forget(library);
        Box::new(module.into_result().expect("it starts"))
    }

    fn isolated(&self) -> Arc<Isolated> {
        let (config, grant, bounds) = (b"{}".to_vec(), self.grant(), Bounds::default());
        let configured = Configured { config, grant, bounds };
        let limits = Limits::default();
        let program = self.target.join("lodestard");
        let place = ProcessSpec { program, limits, call_deadline: Duration::from_secs(10) };
        let inspected = inspect(&self.package).expect("it is a module");
        Isolated::new(inspected, &configured, place).expect("it can be started")
    }

    fn start(&self, isolated: &Isolated, entry: &Arc<Entry>) -> Box<dyn Instance> {
        let created = isolated.create(b"{}", b"", &self.services(entry));
        Box::new(created.unwrap_or_else(|error| panic!("it does not start: {}", error.message)))
    }

    /// Measures the round trip of one event: to the module, and the answer that it is handled.
    fn round_trip(&self) {
        let data = vec![b'.'; PAYLOAD];
        let batch = [event(&data)];
        let median = |module: &mut dyn Instance| {
            let mut times: Vec<Duration> = (0..20_000)
                .map(|_| {
                    let begin = Instant::now();
                    handled(module, &batch);
                    begin.elapsed()
                })
                .collect();
            percentile(&mut times, 50).as_secs_f64() * 1e6
        };
        let entry = Arc::new(Entry::new("sink"));
        let there = median(&mut *self.start(&self.isolated(), &entry));
        let here = median(&mut *self.in_process());
        report(json!({
            "name": "isolation: round trip of one event, p50", "value": there, "unit": "us",
            "baseline": {"name": "in process", "value": here},
            "goal": {"at_most": 20.0, "of": "value"},
        }));
    }

    fn batches(&self) {
        const EVENTS: usize = 1 << 20;
        const BATCH: usize = 256;
        let data = vec![b'.'; PAYLOAD];
        let batch: Vec<AbiEvent<'_>> = (0..BATCH).map(|_| event(&data)).collect();
        let rate = |module: &mut dyn Instance| {
            let begin = Instant::now();
            for _ in 0..EVENTS / BATCH {
                handled(module, &batch);
            }
            EVENTS as f64 / begin.elapsed().as_secs_f64()
        };
        let entry = Arc::new(Entry::new("sink"));
        let there = rate(&mut *self.start(&self.isolated(), &entry));
        let here = rate(&mut *self.in_process());
        report(json!({
            "name": "isolation: events of 300 bytes in batches of 256", "value": there,
            "unit": "events/s", "baseline": {"name": "in process", "value": here},
            "goal": {"at_least": 300_000.0, "of": "value"},
        }));
    }

    /// Measures the time from the kill to the first event that is handled again.
    fn restart(&self) {
        let data = vec![b'.'; PAYLOAD];
        let batch = [event(&data)];
        let isolated = self.isolated();
        let entry = Arc::new(Entry::new("sink"));
        let mut module = self.start(&isolated, &entry);
        let mut times = Vec::new();
        for _ in 0..40 {
            let begin = Instant::now();
            kill(&entry);
            assert!(matches!(module.on_batch(&batch).error, ROption::RSome(_)), "it is gone");
            drop(module);
            module = self.start(&isolated, &entry);
            handled(&mut *module, &batch);
            times.push(begin.elapsed());
        }
        report(json!({
            "name": "isolation: from a kill to the next event handled, p50",
            "value": percentile(&mut times, 50).as_secs_f64() * 1e3, "unit": "ms",
            "goal": {"at_most": 100.0, "of": "value"},
        }));
    }

    /// Measures the time from publishing an event until a module in process has handled it, while
    /// another one is killed five times a second and starts again at once: far more often than the
    /// daemon starts anything again. The bench `faults` measures what a module that crashes costs
    /// there.
    fn neighbour(&self) {
        const ROUNDS: usize = 7;
        let isolated = self.isolated();
        let mut inbox =
            self.context.bus.subscribe("sink", &[TOPIC.to_owned()]).expect("a new name");
        let mut module = self.in_process();
        let mut rounds: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let quiet = self.latency(&mut inbox, &mut *module);
                let stop = AtomicBool::new(false);
                let crashing = std::thread::scope(|scope| {
                    scope.spawn(|| self.crash_in_a_loop(&isolated, &stop));
                    let latency = self.latency(&mut inbox, &mut *module);
                    stop.store(true, Ordering::Relaxed);
                    latency
                });
                (crashing, quiet)
            })
            .collect();
        rounds.sort_by(|left, right| f64::total_cmp(&(left.0 / left.1), &(right.0 / right.1)));
        let (crashing, quiet) = rounds[ROUNDS / 2];
        report(json!({
            "name": "isolation: p99 of another module, five kills a second", "value": crashing,
            "unit": "us", "baseline": {"name": "without", "value": quiet},
        }));
    }

    fn crash_in_a_loop(&self, isolated: &Isolated, stop: &AtomicBool) {
        let entry = Arc::new(Entry::new("crashing"));
        while !stop.load(Ordering::Relaxed) {
            let module = self.start(isolated, &entry);
            std::thread::park_timeout(Duration::from_millis(200));
            kill(&entry);
            drop(module);
        }
    }

    /// Returns the 99th percentile from publishing to handled, in microseconds, at 1,000 events a
    /// second.
    fn latency(&self, inbox: &mut Inbox, module: &mut dyn Instance) -> f64 {
        const EVENTS: usize = 2_000;
        const EVERY: Duration = Duration::from_millis(1);
        let mut times = Vec::with_capacity(EVENTS);
        let bus = self.context.bus.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut next = Instant::now();
                for _ in 0..EVENTS {
                    next += EVERY;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    publish(&bus);
                }
            });
            while times.len() < EVENTS {
                let deliveries = inbox.take(256);
                if deliveries.is_empty() {
                    drop(deliveries);
                    inbox.wait(None);
                    continue;
                }
                let sent: Vec<u64> = deliveries.iter().map(|it| it.event.time_ns).collect();
                let batch: Vec<AbiEvent<'_>> =
                    deliveries.iter().map(|it| event(&it.event.data)).collect();
                handled(module, &batch);
                drop(batch);
                inbox.settle(sent.len(), None);
                let now = now_ns();
                times.extend(sent.into_iter().map(|at| Duration::from_nanos(now - at)));
            }
        });
        percentile(&mut times, 99).as_secs_f64() * 1e6
    }
}

fn publish(bus: &Bus) {
    let new = NewEvent {
        id: None,
        class: Class::Live,
        time_ns: now_ns(),
        topic: TOPIC.into(),
        source: "/lodestar/bench".into(),
        subject: "".into(),
        traceparent: "".into(),
        data: vec![b'.'; PAYLOAD].into(),
    };
    bus.publish(vec![new], None).expect("the bus is open");
}

fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_nanos()).expect("before 2554")
}

fn event(data: &[u8]) -> AbiEvent<'_> {
    AbiEvent {
        id: [7; 16],
        time_ns: 1,
        sequence: 1,
        attempt: 1,
        flags: 0,
        topic: TOPIC.into(),
        source: "/lodestar/bench".into(),
        subject: "".into(),
        traceparent: "".into(),
        data: data.into(),
        reserved: [0; 4],
    }
}

fn handled(module: &mut dyn Instance, batch: &[AbiEvent<'_>]) {
    let outcome = module.on_batch(batch);
    assert_eq!(outcome.handled as usize, batch.len(), "{:?}", outcome.error);
}

fn kill(entry: &Entry) {
    let pid = entry.process().and_then(|process| i32::try_from(process.pid).ok());
    let pid = pid.and_then(Pid::from_raw).expect("it runs in a process");
    kill_process(pid, Signal::KILL).expect("it lives");
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

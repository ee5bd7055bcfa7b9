//! Costs of the bus and the library boundary, beside a baseline in the same run.
//!
//! Run with `cargo xtask bench bus`, which builds the module `sink` that it loads.

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use lodestar_abi::{
    CreateRequest, Event as AbiEvent, ModuleBox,
    abi_stable::std_types::{ROption, RSlice},
};
use lodestar_bus::{Bus, BusConfig, NewEvent};
use lodestar_library::{Library, LoadedLibraries, Package, inspect};
use lodestard::module::{
    Answer, CallClock, Entry, Grant, Meter, Operate, ServiceContext, Services, Work, reply_channel,
    to_abi,
};
use module_sdk::Class;
use serde_json::{Value, json};

const SUBSCRIBERS: usize = 3;
const PAYLOAD: usize = 300;

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let package = package(directory.path());
    // As many events a call as a client's request brings. Beside it what it costs a module to
    // decode each, and a publisher to call for each event.
    bus(&package, "bench.bytes", 32, "", Some(2.0));
    bus(&package, "bench.tick", 32, ", each decodes JSON", None);
    bus(&package, "bench.bytes", 1, ", one by one", Some(0.7));
    accounting(&package);
    calls(&package);
}

fn bus(package: &Path, topic: &str, batch: usize, note: &str, goal: Option<f64>) {
    let events = 1_000_000;
    let mut rounds: Vec<(f64, f64)> = (0..7)
        .map(|_| {
            let across = bus_to_modules(package, topic, events, batch, Accounting::Off);
            (across, broadcast(events))
        })
        .collect();
    rounds.sort_by(|left, right| f64::total_cmp(&(left.0 / left.1), &(right.0 / right.1)));
    let (across, baseline) = rounds[rounds.len() / 2];
    let mut figure = json!({
        "name": format!("bus: live events to three modules, {batch} a call{note}"),
        "value": across, "unit": "events/s",
        "baseline": {"name": "tokio::sync::broadcast", "value": baseline},
    });
    if let Some(ratio) = goal {
        figure["goal"] = json!({"at_least": ratio, "of": "ratio"});
    }
    report(figure);
}

/// Accounting of the modules' calls: as the host does it, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accounting {
    On,
    Off,
}

/// Measures the cost of accounting for every call. Runs with and without alternate in pairs that
/// begin with the one or the other; the median of their ratios is shown, so that neither a machine
/// that grows hot nor another program that wakes up decides.
fn accounting(package: &Path) {
    let events = 1_000_000;
    let run = |accounting| bus_to_modules(package, "bench.bytes", events, 32, accounting);
    let mut pairs: Vec<(f64, f64)> = (0..15)
        .map(|number| {
            if number % 2 == 0 {
                let on = run(Accounting::On);
                (on, run(Accounting::Off))
            } else {
                let off = run(Accounting::Off);
                (run(Accounting::On), off)
            }
        })
        .collect();
    pairs.sort_by(|left, right| f64::total_cmp(&(left.0 / left.1), &(right.0 / right.1)));
    let (on, off) = pairs[pairs.len() / 2];
    report(json!({
        "name": "bus: the same with accounting", "value": on, "unit": "events/s",
        "baseline": {"name": "without accounting", "value": off},
        "goal": {"at_least": 0.97, "of": "ratio"},
    }));
    let (meter, clock) = (Meter::default(), CallClock::default());
    let count = 2_000_000_u32;
    let begin = Instant::now();
    for _ in 0..count {
        meter.time(&clock, (Work::Events, 256), "handler", || black_box(()));
    }
    let ns = begin.elapsed().as_nanos() as f64 / f64::from(count);
    report(json!({"name": "accounting: one call of a handler", "value": ns, "unit": "ns"}));
}

/// Prints a figure as one line of JSON.
fn report(figure: Value) {
    println!("{figure}");
}

/// Copies the module `sink`, as it was built beside this program, into a package.
fn package(directory: &Path) -> PathBuf {
    let program = std::env::current_exe().expect("a program knows itself");
    let target = program.parent().and_then(Path::parent).expect("target/release/deps");
    let package = directory.join("sink");
    std::fs::create_dir(&package).expect("it is new");
    std::fs::copy(target.join("libsink.so"), package.join("libsink.so"))
        .expect("the module `sink` is built: run `cargo xtask bench bus`");
    package
}

fn payload(number: u64) -> Box<[u8]> {
    let start = format!("{{\"number\":{number},\"padding\":\"");
    let padding = ".".repeat(PAYLOAD.saturating_sub(start.len() + 2));
    format!("{start}{padding}\"}}").into_bytes().into()
}

fn context(directory: &Path) -> ServiceContext {
    let config = BusConfig { inbox_events: 1 << 21, ..BusConfig::default() };
    let bus = Bus::open(config, &directory.join("ledger")).expect("a new ledger");
    ServiceContext::alone(bus, directory).expect("a new key")
}

fn load(package: &Path) -> Arc<Library> {
    let name = package.file_name().expect("a directory").to_string_lossy().into_owned();
    let package = Package { name, directory: package.to_owned() };
    LoadedLibraries::default()
        .open(inspect(&package).expect("it is a module"), false)
        .expect("it fits")
}

fn create(library: &Library, context: &ServiceContext, name: &str) -> ModuleBox {
    let grant = Grant {
        manifest: library.manifest().clone(),
        data_dir: std::env::temp_dir(),
        addresses: Default::default(),
        secrets: Default::default(),
        providers: serde_json::Value::Null,
        operate: Operate::Allowed,
    };
    let services = Services::new(context.clone(), Arc::new(Entry::new(name)), grant);
    let request = CreateRequest {
        config: RSlice::from_slice(b"{}"),
        restored: RSlice::EMPTY,
        reserved: [0; 4],
    };
    (library.root().create())(request, services.to_abi()).into_result().expect("it starts")
}

/// Measures events per second to three modules, each behind the ABI on a thread of its own.
fn bus_to_modules(
    package: &Path,
    topic: &str,
    events: u64,
    batch: usize,
    accounting: Accounting,
) -> f64 {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let library = load(package);
    let context = context(directory.path());
    let handled = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..SUBSCRIBERS)
        .map(|number| {
            let name = format!("sink_{number}");
            let (library, context, handled) = (library.clone(), context.clone(), handled.clone());
            let mut inbox = context.bus.subscribe(&name, &[topic.to_owned()]).expect("a new name");
            std::thread::spawn(move || {
                let mut module = create(&library, &context, &name);
                let (meter, clock) = (Meter::default(), CallClock::default());
                let mut seen = 0;
                while seen < events {
                    let batch: Vec<AbiEvent<'_>> = inbox.take(256).iter().map(to_abi).collect();
                    if batch.is_empty() {
                        inbox.wait(None);
                        continue;
                    }
                    let mut call = || module.on_batch(batch.as_slice().into());
                    let outcome = match accounting {
                        Accounting::On => {
                            meter.time(&clock, (Work::Events, batch.len()), "handler", call)
                        }
                        Accounting::Off => call(),
                    };
                    assert!(matches!(outcome.error, ROption::RNone), "{:?}", outcome.error);
                    seen += u64::from(outcome.handled);
                    inbox.settle(outcome.handled as usize, None);
                }
                handled.fetch_add(seen, Ordering::Relaxed);
            })
        })
        .collect();
    let topic: Arc<str> = topic.into();
    let source: Arc<str> = "/lodestar/bench".into();
    // Building the payload is not the bus's work.
    let payloads: Vec<Box<[u8]>> = (0..events).map(payload).collect();
    let begin = Instant::now();
    let mut payloads = payloads.into_iter();
    loop {
        let new = |data| NewEvent {
            id: None,
            class: Class::Live,
            time_ns: 1,
            topic: topic.clone(),
            source: source.clone(),
            subject: "".into(),
            traceparent: "".into(),
            data,
        };
        let call: Vec<NewEvent> = payloads.by_ref().take(batch).map(new).collect();
        if call.is_empty() {
            break;
        }
        context.bus.publish(call, None).expect("the bus is open");
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
    let elapsed = begin.elapsed();
    assert_eq!(handled.load(Ordering::Relaxed), events * SUBSCRIBERS as u64, "nothing is lost");
    rate(events, elapsed)
}

/// Measures the same payload through `tokio::sync::broadcast` to three tasks that never lag: the
/// publisher waits before the slowest would lose one.
fn broadcast(events: u64) -> f64 {
    const CAPACITY: usize = 4096;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("threads are left");
    let payloads: Vec<Arc<[u8]>> = (0..events).map(|number| payload(number).into()).collect();
    let elapsed = runtime.block_on(async {
        let (sender, _) = tokio::sync::broadcast::channel::<Arc<[u8]>>(CAPACITY);
        let tasks: Vec<_> = (0..SUBSCRIBERS)
            .map(|_| {
                let mut receiver = sender.subscribe();
                tokio::spawn(async move {
                    let mut seen = 0_u64;
                    while seen < events {
                        black_box(receiver.recv().await.expect("it never lags"));
                        seen += 1;
                    }
                })
            })
            .collect();
        let begin = Instant::now();
        for data in payloads {
            while sender.len() >= CAPACITY - 1 {
                tokio::task::yield_now().await;
            }
            sender.send(data).expect("there are receivers");
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        begin.elapsed()
    });
    rate(events, elapsed)
}

/// Measures one call across the boundary, and one event emitted by a module.
fn calls(package: &Path) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let library = load(package);
    let context = context(directory.path());
    let _inbox = context.bus.subscribe("listener", &["bench.tick".to_owned()]);
    let mut module = create(&library, &context, "sink");
    let per_call = (0..5).map(|_| {
        let count = 2_000_000_u32;
        let begin = Instant::now();
        for _ in 0..count {
            black_box(module.on_timer(0)).into_result().expect("it does nothing");
        }
        begin.elapsed().as_nanos() as f64 / f64::from(count)
    });
    let per_call: Vec<f64> = per_call.collect();
    let direct = direct_call();
    let best = per_call.iter().copied().fold(f64::MAX, f64::min);
    report(json!({
        "name": "abi: one call with catch_unwind", "value": best, "unit": "ns",
        "baseline": {"name": "a call through &mut dyn", "value": direct},
        "goal": {"at_most": 100.0, "of": "value"},
    }));
    let emit = (0..5).map(|_| emit(&mut module)).fold(f64::MAX, f64::min);
    report(json!({
        "name": "abi: a module emits a live event of 300 bytes", "value": emit, "unit": "ns",
        "goal": {"at_most": 2000.0, "of": "value"},
    }));
}

/// Measures the baseline: a call through `&mut dyn` inside the program.
fn direct_call() -> f64 {
    trait Call {
        fn call(&mut self) -> Result<(), String>;
    }
    struct Nothing(u64);
    impl Call for Nothing {
        fn call(&mut self) -> Result<(), String> {
            self.0 += 1;
            Ok(())
        }
    }
    let mut target: Box<dyn Call> = black_box(Box::new(Nothing(0)));
    let count = 10_000_000_u32;
    let begin = Instant::now();
    for _ in 0..count {
        black_box(target.call()).expect("it does nothing");
    }
    begin.elapsed().as_nanos() as f64 / f64::from(count)
}

fn emit(module: &mut ModuleBox) -> f64 {
    let request = br#"{"command":"emit","args":{"count":200000}}"#;
    let (sink, mut answers, _) = reply_channel(Arc::default());
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        while let Some(answer) = answers.blocking_recv() {
            if let Answer::Frame(frame) = answer {
                sender.send(frame).expect("the other end waits");
            }
        }
    });
    module.command(RSlice::from_slice(request), sink);
    reader.join().expect("no panic");
    let frame = receiver.recv_timeout(Duration::from_secs(10)).expect("it answered");
    let frame: serde_json::Value = serde_json::from_slice(&frame).expect("it is JSON");
    frame["reply"]["data"]["ns_per_event"].as_f64().expect("a number")
}

fn rate(events: u64, elapsed: Duration) -> f64 {
    events as f64 / elapsed.as_secs_f64()
}

//! Pressure: how long work stalled for want of a processor, a disk or memory
//! (`Documentation/accounting/psi.rst` of the kernel).
//!
//! The kernel itself tells of a stall: its triggers end the wait between two runs, so that what a
//! rule judges is fresh as long as there is pressure, and nothing is polled while there is none.

use std::{
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use rustix::fs::{Mode, OFlags};

use super::{Check, Progress, kernel_file::KernelFile};
use crate::{
    metric::{PRESSURE_RATIO, PRESSURE_STALLED},
    reading::{Component, Found, Report, Series},
};

/// The directory of the kernel's files.
const DIRECTORY: &str = "/proc/pressure";

/// Stalls of which the kernel tells, in microseconds within a window. Whoever is not root may only
/// have windows of whole pairs of seconds. The file counts up to and with the zero byte.
const TRIGGERS: [(&str, &[u8]); 3] = [
    ("memory", b"some 150000 2000000\0"),
    ("memory", b"full 150000 2000000\0"),
    ("io", b"full 800000 2000000\0"),
];

pub(super) struct Pressure {
    resources: Vec<Resource>,
    /// Descriptors on which the kernel tells of stalls; `None` until the first wait.
    triggers: Option<Vec<OwnedFd>>,
    asks_kernel: bool,
}

/// A resource that work may have to wait for.
struct Resource {
    component: Component,
    file: KernelFile,
    /// Stalls of some of the work, and of all of it at once.
    kinds: Vec<Kind>,
}

struct Kind {
    /// Beginning of its line.
    name: &'static str,
    stalled: Arc<Series>,
    ratio: Arc<Series>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self::of(Path::new(DIRECTORY), true)
    }
}

impl Pressure {
    fn of(directory: &Path, asks_kernel: bool) -> Self {
        // Of a machine's processors all work never waits at once: the kernel counts nothing there.
        let kinds: [(&str, &[&'static str]); 3] =
            [("cpu", &["some"]), ("io", &["some", "full"]), ("memory", &["some", "full"])];
        let resources = kinds.map(|(name, kinds)| Resource::new(directory, name, kinds)).into();
        Self { resources, triggers: None, asks_kernel }
    }
}

impl Check for Pressure {
    fn run(&mut self, progress: &Progress) -> Report {
        let mut report = Report::default();
        for resource in &mut self.resources {
            if progress.enter(&resource.component) {
                resource.report(&mut report);
            } else {
                let message = "the kernel does not answer";
                report.found.push(Found::unknown(&resource.component, message));
            }
        }
        report
    }

    fn urgent(&mut self) -> Option<&mut Vec<OwnedFd>> {
        let asks_kernel = self.asks_kernel;
        Some(self.triggers.get_or_insert_with(|| {
            let all = TRIGGERS.iter().filter(|_| asks_kernel);
            all.filter_map(|(resource, stall)| trigger(resource, stall)).collect()
        }))
    }
}

/// Asks the kernel to tell of a stall; `None` where it does not let us.
fn trigger(resource: &str, stall: &[u8]) -> Option<OwnedFd> {
    let path = Path::new(DIRECTORY).join(resource);
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let asked = opened.and_then(|file| rustix::io::write(&file, stall).map(|_| file));
    asked.inspect_err(|error| tracing::debug!(resource, %error, "no trigger of pressure")).ok()
}

impl Resource {
    fn new(directory: &Path, name: &str, kinds: &[&'static str]) -> Self {
        let component: Component = format!("pressure.{name}").into();
        let kind = |kind: &&'static str| Kind {
            name: kind,
            stalled: Series::new(&PRESSURE_STALLED, &component, [name, kind]),
            ratio: Series::new(&PRESSURE_RATIO, &component, [name, kind]),
        };
        let kinds = kinds.iter().map(kind).collect();
        Self { file: KernelFile::new(directory.join(name)), kinds, component }
    }

    fn report(&mut self, report: &mut Report) {
        let found = match self.file.text() {
            Ok(text) => read(text, &self.component, &self.kinds, report),
            Err(error) if is_without(&error) => {
                let message = "this kernel does not measure pressure (it may need `psi=1`)";
                Found::absent(&self.component, message)
            }
            Err(error) => Found::unknown(&self.component, format!("it cannot be read: {error}")),
        };
        report.found.push(found);
    }
}

/// Returns whether an error says that the kernel does not measure pressure.
fn is_without(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported)
}

/// Reads `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` of each kind.
fn read(text: &str, component: &Component, kinds: &[Kind], report: &mut Report) -> Found {
    for kind in kinds {
        let line = text.lines().find_map(|line| line.strip_prefix(kind.name));
        let field = |name: &str| -> Option<f64> {
            let mut words = line?.split_ascii_whitespace();
            words.find_map(|word| word.strip_prefix(name))?.parse().ok()
        };
        let (Some(percent), Some(microseconds)) = (field("avg10="), field("total=")) else {
            return Found::unknown(component, "the kernel tells of it in an unknown form");
        };
        report.read(&kind.stalled, microseconds / 1e6);
        report.read(&kind.ratio, percent / 100.0);
    }
    match kinds.first() {
        Some(kind) => Found::present(component, &kind.ratio),
        None => Found::absent(component, ""),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicBool, Ordering},
        thread,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{
        check::{Plan, Workers},
        reading::Presence,
    };

    fn values(report: &Report) -> Vec<(String, f64)> {
        let name = |series: &Series| {
            let labels: Vec<&str> = series.pairs().map(|(_, value)| value).collect();
            format!("{} {}", series.metric.unit.as_str(), labels.join(" "))
        };
        report.readings.iter().map(|it| (name(&it.series), it.value)).collect()
    }

    #[test]
    fn what_the_kernel_tells_is_read() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| {
            fs::write(directory.path().join(name), text).expect("it is writable");
        };
        let lines = |some: &str, full: &str| {
            format!(
                "some avg10=12.50 avg60=1.00 avg300=0.00 total={some}\n\
                 full avg10=0.50 avg60=0.00 avg300=0.00 total={full}\n"
            )
        };
        write("cpu", &lines("2500000", "0"));
        write("memory", &lines("1000000", "500000"));
        let mut pressure = Pressure::of(directory.path(), false);
        let report = pressure.run(&Progress::default());
        let presence: Vec<_> = report.found.iter().map(|found| found.presence).collect();
        assert_eq!(presence, [Presence::Present, Presence::Absent, Presence::Present]);
        let expected = [
            ("seconds cpu some", 2.5),
            ("ratio cpu some", 0.125),
            ("seconds memory some", 1.0),
            ("ratio memory some", 0.125),
            ("seconds memory full", 0.5),
            ("ratio memory full", 0.005),
        ];
        assert_eq!(values(&report), expected.map(|(name, value)| (name.to_owned(), value)));

        write("cpu", "nothing that it knows\n");
        write("memory", &lines("x", "0"));
        let report = pressure.run(&Progress::default());
        let presence: Vec<_> = report.found.iter().map(|found| found.presence).collect();
        assert_eq!(presence, [Presence::Unknown, Presence::Absent, Presence::Unknown]);
        assert!(report.readings.is_empty());
    }

    #[test]
    fn a_stall_ends_the_wait_for_the_next_run() {
        // Of memory there is no stall without harm; of processors there is one for the asking.
        let Some(trigger) = trigger("cpu", b"some 150000 2000000\0") else {
            return eprintln!("SKIPPED: this kernel gives no triggers of pressure");
        };
        let trigger = std::sync::Mutex::new(Some(trigger));
        let plan = Plan {
            name: "pressure",
            interval: Duration::from_secs(86_400),
            deadline: Duration::from_secs(60),
            shares: false,
            make: Arc::new(move || {
                let triggers = trigger.lock().expect("once").take().into_iter().collect();
                Box::new(Pressure { triggers: Some(triggers), ..Pressure::default() })
            }),
        };
        let mut workers = Workers::start(vec![plan]).expect("threads can be started");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let processors = thread::available_parallelism().map_or(4, usize::from);
            for _ in 0..4 * processors {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let (begun, mut reports) = (Instant::now(), 0);
            while reports < 3 && begun.elapsed() < Duration::from_secs(60) {
                reports += workers.reports().len();
                thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
            assert!(reports >= 3, "the kernel told of no stall");
        });
        workers.stop(Duration::from_secs(60));
    }
}

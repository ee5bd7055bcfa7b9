use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;
use crate::reading::{Found, Presence};

/// Longest time for what should be there at once. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gate at which a call hangs while it is closed.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn close(&self) {
        *self.0.0.lock().expect("nobody panics here") = true;
    }

    fn open(&self) {
        *self.0.0.lock().expect("nobody panics here") = false;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().expect("nobody panics here");
        drop(self.0.1.wait_while(closed, |closed| *closed));
    }
}

/// A check of two components, of which one may hang; or it hangs, or panics, as a whole.
#[derive(Clone, Default)]
struct Fake {
    whole: Gate,
    first: Gate,
    panics: Arc<AtomicBool>,
    made: Arc<AtomicU32>,
}

impl Check for Fake {
    fn run(&mut self, progress: &Progress) -> Report {
        self.whole.pass();
        assert!(!self.panics.load(Ordering::SeqCst), "planted\u{1b}[31m");
        let mut report = Report::default();
        for name in ["first", "second"] {
            let component: Component = name.into();
            if progress.enter(&component) {
                if name == "first" {
                    self.first.pass();
                }
                report.found.push(Found::absent(&component, ""));
            } else {
                report.found.push(Found::unknown(&component, "it hangs"));
            }
        }
        report
    }
}

impl Fake {
    fn workers(&self) -> Workers {
        let fake = self.clone();
        let plan = Plan {
            name: "fake",
            interval: Duration::from_millis(2),
            deadline: Duration::from_millis(50),
            shares: false,
            make: Arc::new(move || {
                fake.made.fetch_add(1, Ordering::SeqCst);
                Box::new(fake.clone())
            }),
        };
        Workers::start(vec![plan]).expect("threads can be started")
    }

    /// Returns a plan that shares its thread with others.
    fn sharing(&self, name: &'static str) -> Plan {
        let fake = self.clone();
        Plan {
            name,
            interval: Duration::from_millis(2),
            deadline: Duration::from_millis(50),
            shares: true,
            make: Arc::new(move || Box::new(fake.clone())),
        }
    }
}

/// Takes reports until one is as wanted; returns how many of the ones before said that all hangs.
fn until(workers: &mut Workers, what: &str, is_wanted: impl Fn(&Report) -> bool) -> usize {
    let begun = Instant::now();
    let mut hung = 0;
    loop {
        for (name, report) in workers.reports() {
            assert_eq!(name, "fake");
            if is_wanted(&report) {
                return hung;
            }
            hung += usize::from(report.hangs.is_some());
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::yield_now();
    }
}

fn presence(report: &Report) -> Vec<Presence> {
    report.found.iter().map(|found| found.presence).collect()
}

const WELL: [Presence; 2] = [Presence::Absent, Presence::Absent];
const FIRST_HANGS: [Presence; 2] = [Presence::Unknown, Presence::Absent];

#[test]
fn a_component_that_hangs_is_left_out_until_its_call_returns() {
    let fake = Fake::default();
    let mut workers = fake.workers();
    for _ in 0..2 * HANGING {
        until(&mut workers, "all is well", |report| presence(report) == WELL);
        fake.first.close();
        let hung = until(&mut workers, "it is left out", |it| presence(it) == FIRST_HANGS);
        assert_eq!(hung, 0, "the other one was looked at all the time");
        fake.first.open();
    }
    until(&mut workers, "all is well", |report| presence(report) == WELL);
    workers.stop(PATIENCE);
}

#[test]
fn a_check_that_hangs_as_a_whole_says_so_once_each_time() {
    let fake = Fake::default();
    let mut workers = fake.workers();
    for _ in 0..3 {
        until(&mut workers, "it runs", |report| presence(report) == WELL);
        fake.whole.close();
        until(&mut workers, "it is told", |report| {
            report.hangs.as_ref().is_some_and(|why| why.starts_with("no answer within 50"))
        });
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(100) {
            assert_eq!(workers.reports(), vec![], "it was told");
            thread::yield_now();
        }
        fake.whole.open();
    }
    until(&mut workers, "it runs", |report| presence(report) == WELL);
    assert_eq!(fake.made.load(Ordering::SeqCst), 1, "no other thread would have got further");
    workers.stop(PATIENCE);
}

#[test]
fn a_check_that_is_woken_runs_before_its_time() {
    let fakes = ["one", "two", "three"].map(|name| (name, Fake::default()));
    let hour = Duration::from_secs(3_600);
    let rare = |shares: bool, (name, fake): &(&'static str, Fake)| {
        let plan = fake.sharing(name);
        Plan { interval: hour, deadline: hour, shares, ..plan }
    };
    let plans = fakes.iter().enumerate().map(|(number, fake)| rare(number > 0, fake)).collect();
    let mut workers = Workers::start(plans).expect("threads can be started");
    let came = |workers: &mut Workers, count: usize| {
        let (begun, mut names) = (Instant::now(), Vec::new());
        while names.len() < count {
            names.extend(workers.reports().into_iter().map(|(name, _)| name));
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {count}, got {names:?}");
            thread::yield_now();
        }
        names.sort_unstable();
        names
    };
    assert_eq!(came(&mut workers, 3), ["one", "three", "two"], "all run once");
    for name in ["one", "two", "three"] {
        workers.wake(name);
        assert_eq!(came(&mut workers, 1), [name]);
    }
    workers.wake("nobody");
    workers.stop(PATIENCE);
    assert_eq!(workers.reports(), vec![], "nothing else ran");
}

#[test]
fn one_that_hangs_stalls_none_of_those_that_share_its_thread() {
    for hangs_as_a_whole in [true, false] {
        let fakes = ["one", "two", "three"].map(|name| (name, Fake::default()));
        let plans = fakes.iter().map(|(name, fake)| fake.sharing(name)).collect();
        let mut workers = Workers::start(plans).expect("a thread can be started");
        assert_eq!(workers.workers.len(), 1);
        let mut seen = |wanted: &dyn Fn(&'static str, &Report) -> bool| {
            let begun = Instant::now();
            while !workers.reports().iter().any(|(name, report)| wanted(name, report)) {
                assert!(begun.elapsed() < PATIENCE, "waited in vain");
                thread::yield_now();
            }
        };
        let is_well = |report: &Report| presence(report) == WELL;
        fakes.iter().for_each(|(of, _)| seen(&|name, report| name == *of && is_well(report)));
        let gate = if hangs_as_a_whole { &fakes[1].1.whole } else { &fakes[1].1.first };
        gate.close();
        let is_told = |report: &Report| match hangs_as_a_whole {
            true => report.hangs.is_some(),
            false => presence(report) == FIRST_HANGS,
        };
        seen(&|name, report| name == "two" && is_told(report));
        for _ in 0..3 {
            for of in ["one", "three"] {
                seen(&|name, report| name == of && is_well(report));
            }
        }
        gate.open();
        seen(&|name, report| name == "two" && is_well(report));
        for of in ["one", "three", "two"] {
            seen(&|name, report| name == of && is_well(report));
        }
        assert_eq!(workers.workers.len(), 2, "it has a thread of its own now");
        workers.stop(PATIENCE);
    }
}

#[test]
fn a_check_that_panics_is_unknown_and_made_anew() {
    let fake = Fake::default();
    let mut workers = fake.workers();
    until(&mut workers, "it runs", |report| presence(report) == WELL);
    fake.panics.store(true, Ordering::SeqCst);
    until(&mut workers, "it is told", |report| {
        report.hangs.as_deref() == Some("the check failed: planted\\u{1b}[31m")
    });
    fake.panics.store(false, Ordering::SeqCst);
    until(&mut workers, "it runs", |report| presence(report) == WELL);
    assert!(fake.made.load(Ordering::SeqCst) > 1);
    workers.stop(PATIENCE);
}

#[test]
fn a_stop_leaves_behind_what_hangs_when_its_grace_is_over() {
    let fake = Fake::default();
    let mut workers = fake.workers();
    until(&mut workers, "it runs", |report| presence(report) == WELL);
    fake.whole.close();
    until(&mut workers, "it is told", |report| report.hangs.is_some());
    let (begun, grace) = (Instant::now(), Duration::from_millis(200));
    workers.stop(grace);
    assert!(begun.elapsed() >= grace && begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    fake.whole.open();
}

#[test]
fn a_stop_and_a_wish_end_a_pause_at_once() {
    /// A check that waits for a descriptor on which nothing ever comes.
    struct Waiting(Vec<OwnedFd>);

    impl Check for Waiting {
        fn run(&mut self, _: &Progress) -> Report {
            Report::default()
        }

        fn urgent(&mut self) -> Option<&mut Vec<OwnedFd>> {
            Some(&mut self.0)
        }
    }

    let silent = || eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor is free");
    for descriptors in [0, 1] {
        let plan = Plan {
            name: "fake",
            interval: Duration::from_secs(86_400),
            deadline: PATIENCE,
            shares: false,
            make: Arc::new(move || Box::new(Waiting((0..descriptors).map(|_| silent()).collect()))),
        };
        let mut workers = Workers::start(vec![plan]).expect("threads can be started");
        until(&mut workers, "it ran", |_| true);
        let begun = Instant::now();
        workers.stop(PATIENCE);
        assert!(begun.elapsed() < PATIENCE, "it waited for its time to come");
    }
}

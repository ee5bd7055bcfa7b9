//! Random histories of a bus, beside a model that keeps everything in one list.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use module_sdk::Class::{self, Ledger, Live};
use proptest::prelude::*;
use tempfile::tempdir;

use super::{
    super::{Bus, DropReason, Failure, FailureKind, Inbox},
    assert_balanced, event, keep, number, open, publish, subscribe,
};
use crate::ledger::Reader;

const MODULES: [(&str, &[&str]); 2] = [("all", &["t.>"]), ("some", &["t.a"])];
const TOPICS: [&str; 2] = ["t.a", "t.b"];

#[derive(Debug, Clone)]
enum Step {
    Ledger {
        topic: usize,
        count: u64,
    },
    Live {
        topic: usize,
        count: u64,
    },
    Handle {
        module: usize,
        take: usize,
        settle: usize,
    },
    Fail {
        module: usize,
        take: usize,
        settle: usize,
        kind: FailureKind,
    },
    Stop {
        module: usize,
    },
    Start {
        module: usize,
    },
    Replay {
        module: usize,
    },
    Persist,
    Kill,
    /// A kill after which the last `bytes` of the last segment are missing.
    Tear {
        bytes: u64,
    },
    /// A kill, and one byte of the segments flips, at this place in thousandths of all bytes.
    Flip {
        at: usize,
    },
    /// A kill, and the byte that flipped last is as it was.
    FlipBack,
}

fn step() -> impl Strategy<Value = Step> {
    let (module, topic) = (0..MODULES.len(), 0..TOPICS.len());
    let kind = prop_oneof![Just(FailureKind::Failed), Just(FailureKind::Unavailable)];
    prop_oneof![
        6 => (topic.clone(), 1_u64..40).prop_map(|(topic, count)| Step::Ledger { topic, count }),
        2 => (topic, 1_u64..40).prop_map(|(topic, count)| Step::Live { topic, count }),
        6 => (module.clone(), 1_usize..60, 0_usize..60)
            .prop_map(|(module, take, settle)| Step::Handle { module, take, settle }),
        4 => (module.clone(), 1_usize..20, 0_usize..20, kind)
            .prop_map(|(module, take, settle, kind)| Step::Fail { module, take, settle, kind }),
        1 => module.clone().prop_map(|module| Step::Stop { module }),
        2 => module.clone().prop_map(|module| Step::Start { module }),
        1 => module.prop_map(|module| Step::Replay { module }),
        1 => Just(Step::Persist),
        1 => Just(Step::Kill),
        1 => (1_u64..3_000).prop_map(|bytes| Step::Tear { bytes }),
        1 => (0_usize..1_000).prop_map(|at| Step::Flip { at }),
        1 => Just(Step::FlipBack),
    ]
}

/// Events that a module must get: the numbers that were accepted for it, with their places in the
/// ledger, in order.
#[derive(Default)]
struct Expected {
    accepted: Vec<(u64, u64)>,
    /// Number of them, from the first, that are handled or dead letters.
    settled: usize,
    /// True after a kill, when what was settled may come again.
    may_repeat: bool,
    /// The last live event that was settled.
    live: Option<u64>,
}

impl Expected {
    /// Checks what was delivered, of which the first `gone` are settled by now.
    fn check(&mut self, taken: &[(bool, u64)], gone: usize) {
        let of = |ledger, taken: &[(bool, u64)]| -> Vec<u64> {
            taken.iter().filter(|(class, _)| *class == ledger).map(|(_, number)| *number).collect()
        };
        let ledger = of(true, taken);
        let fits = |at: &usize| {
            let rest = self.accepted[*at..].iter().map(|(number, _)| number);
            ledger.len() <= self.accepted.len() - at && ledger.iter().zip(rest).all(|(a, b)| a == b)
        };
        if !ledger.is_empty() {
            let first = if self.may_repeat { 0 } else { self.settled };
            let at = (first..=self.settled).rev().find(fits);
            let at = at.unwrap_or_else(|| {
                panic!("{ledger:?} is not at {} of {:?}", self.settled, self.accepted)
            });
            self.settled = at + of(true, &taken[..gone]).len();
            self.may_repeat = false;
        }
        let live = of(false, taken);
        assert!(live.is_sorted() && live.first().is_none_or(|first| self.live < Some(*first)));
        self.live = of(false, &taken[..gone]).last().copied().or(self.live);
    }

    /// Reduces the expectation to the events left in the ledger; returns how many that waited are
    /// gone.
    fn keep(&mut self, left: &HashSet<u64>) -> usize {
        let is_left = |(_, sequence): &(u64, u64)| left.contains(sequence);
        let waited = self.accepted.split_off(self.settled);
        self.accepted.retain(is_left);
        self.settled = self.accepted.len();
        self.accepted.extend(waited.iter().filter(|place| is_left(place)));
        self.may_repeat = true;
        waited.len() + self.settled - self.accepted.len()
    }
}

struct Life<'a> {
    directory: &'a Path,
    bus: Option<Bus>,
    inboxes: [Option<Inbox>; 2],
    expected: [Expected; 2],
    next: u64,
    flipped: Option<Flipped>,
}

/// A byte of a segment, and its value since it flipped.
struct Flipped {
    path: PathBuf,
    at: usize,
    byte: u8,
}

impl<'a> Life<'a> {
    /// Creates a new bus, with both modules.
    fn new(directory: &'a Path) -> Self {
        let mut life = Self {
            directory,
            bus: Some(open(directory)),
            inboxes: [None, None],
            expected: Default::default(),
            next: 0,
            flipped: None,
        };
        (0..MODULES.len()).for_each(|module| life.start(module));
        life
    }

    fn bus(&self) -> &Bus {
        self.bus.as_ref().expect("it is open between two kills")
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Ledger { topic, count } => self.publish(Ledger, topic, count),
            Step::Live { topic, count } => self.publish(Live, topic, count),
            Step::Handle { module, take, settle } => self.handle(module, take, settle, None),
            Step::Fail { module, take, settle, kind } => {
                self.handle(module, take, settle, Some(kind));
            }
            Step::Stop { module } => self.inboxes[module] = None,
            Step::Start { module } => self.start(module),
            Step::Replay { module } => self.replay(module),
            Step::Persist => keep(self.bus()),
            Step::Kill => assert_eq!(self.kill(|_| {}), 0),
            Step::Tear { bytes } => {
                self.kill(|segments| tear(segments, bytes));
            }
            Step::Flip { at } => {
                let mut flipped = None;
                assert!(self.kill(|segments| flipped = flip(segments, at)) <= 1);
                self.flipped = flipped;
            }
            Step::FlipBack => {
                let flipped = self.flipped.take();
                assert!(self.kill(|_| flipped.iter().for_each(flip_back)) <= 1);
            }
        }
        assert_balanced(self.bus());
    }

    fn publish(&mut self, class: Class, topic: usize, count: u64) {
        let numbers = self.next..self.next + count;
        self.next += count;
        let before = self.bus().shared.distributed.load(Ordering::SeqCst);
        let events = numbers.clone().map(|number| event(class, TOPICS[topic], number)).collect();
        publish(self.bus(), events).expect("accepted");
        for (module, expected) in self.expected.iter_mut().enumerate() {
            if class == Ledger && (module == 0 || topic == 0) {
                expected.accepted.extend(numbers.clone().zip(before + 1..));
            }
        }
    }

    fn start(&mut self, module: usize) {
        if self.inboxes[module].is_none() {
            let (name, filters) = MODULES[module];
            self.inboxes[module] = Some(subscribe(self.bus(), name, filters));
        }
    }

    fn handle(&mut self, module: usize, take: usize, settle: usize, kind: Option<FailureKind>) {
        let Some(inbox) = &mut self.inboxes[module] else { return };
        let taken: Vec<(bool, u64)> = inbox
            .take(take)
            .iter()
            .map(|delivery| (delivery.event.class == Ledger, number(&delivery.event.data)))
            .collect();
        let settle = settle.min(taken.len());
        let given_up = |bus: &Bus| {
            let counters = &bus.counters()[module];
            counters.ledger.dead + counters.live.dropped.of(DropReason::Failed)
        };
        let bus = self.bus.as_ref().expect("it is open between two kills");
        let before = given_up(bus);
        let message = "it failed".to_owned();
        inbox.settle(settle, kind.map(|kind| Failure { kind, message }));
        let gone = settle + usize::try_from(given_up(bus) - before).expect("one at most");
        self.expected[module].check(&taken, gone);
    }

    fn replay(&mut self, module: usize) {
        let bus = self.bus.as_ref().expect("it is open between two kills");
        let dead_letters = bus.dead(Some(MODULES[module].0)).expect("readable");
        let before = bus.shared.distributed.load(Ordering::SeqCst);
        let count = bus.replay_dead(MODULES[module].0, None).expect("replayed");
        assert_eq!(count, dead_letters.len() as u64);
        let numbers = dead_letters.iter().map(|letter| number(&letter.event.data));
        self.expected[module].accepted.extend(numbers.zip(before + 1..));
    }

    /// Ends the bus as a kill does, calls `hurt` on its segments, and opens it again; returns how
    /// many waiting events are gone for a module, at most.
    fn kill(&mut self, hurt: impl FnOnce(&[PathBuf])) -> usize {
        self.inboxes = [None, None];
        drop(self.bus.take());
        let files = fs::read_dir(self.directory.join("segments")).expect("a directory");
        let mut segments: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
        segments.sort();
        hurt(&segments);
        let bus = open(self.directory);
        let left = sequences(&bus);
        self.bus = Some(bus);
        let gone = self.expected.iter_mut().map(|expected| expected.keep(&left));
        gone.max().unwrap_or(0)
    }

    /// Checks that in the end everything is delivered.
    fn finish(mut self) {
        for module in 0..MODULES.len() {
            self.start(module);
            let idle = |life: &Self| life.bus().counters()[module].total().pending == 0;
            while !idle(&self) {
                self.handle(module, 50, 50, None);
            }
            let expected = &self.expected[module];
            assert!(expected.may_repeat || expected.settled == expected.accepted.len());
        }
        assert_balanced(self.bus());
    }
}

/// Cuts `bytes` off the end of the last of these files.
fn tear(segments: &[PathBuf], bytes: u64) {
    let last = segments.last().expect("there is always one");
    let file = fs::File::options().write(true).open(last).expect("a segment");
    let length = file.metadata().expect("readable").len();
    file.set_len(length.saturating_sub(bytes)).expect("cut");
}

/// Flips one byte of all these files.
fn flip(segments: &[PathBuf], thousandth: usize) -> Option<Flipped> {
    let mut files: Vec<_> =
        segments.iter().map(|path| (path, fs::read(path).expect("readable"))).collect();
    let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut at = total * thousandth / 1_000;
    for (path, bytes) in &mut files {
        if at < bytes.len() {
            bytes[at] ^= 0x40;
            fs::write(&**path, &*bytes).expect("written");
            return Some(Flipped { path: path.to_path_buf(), at, byte: bytes[at] });
        }
        at -= bytes.len();
    }
    None
}

/// Flips the byte back, if it is still there.
fn flip_back(flipped: &Flipped) {
    let Ok(mut bytes) = fs::read(&flipped.path) else { return };
    if bytes.get(flipped.at) == Some(&flipped.byte) {
        bytes[flipped.at] ^= 0x40;
        fs::write(&flipped.path, bytes).expect("written");
    }
}

/// Returns the sequences of all events that can be read.
fn sequences(bus: &Bus) -> HashSet<u64> {
    let mut sequences = HashSet::new();
    let upto = bus.shared.distributed.load(Ordering::SeqCst);
    let visited = Reader::at(0).visit(&bus.shared.ledger, upto, |record| {
        assert!(sequences.insert(record.sequence), "{} comes twice", record.sequence);
        true
    });
    visited.expect("readable");
    sequences
}

#[test]
fn what_a_second_flip_restores_stays_lost_and_its_number_is_used_up() {
    let told = |life: &Life<'_>| -> Vec<(u64, u64)> {
        let losses = life.bus().health().losses;
        losses.into_iter().map(|loss| (loss.first, loss.last)).collect()
    };
    for (at, kept) in (0..1_000)
        .step_by(27)
        .flat_map(|at| [(at, false), (at, true)])
        .chain([(423, false), (423, true)])
    {
        let directory = tempdir().expect("a directory");
        let mut life = Life::new(directory.path());
        life.step(&Step::Ledger { topic: 0, count: 2 });
        if kept {
            life.step(&Step::Persist);
        }
        life.step(&Step::Flip { at });
        let (left, lost) = (sequences(life.bus()), told(&life));
        assert_eq!(left.len() == 2, lost.is_empty(), "{at}: {lost:?}");
        life.step(&Step::FlipBack);
        assert_eq!((sequences(life.bus()), told(&life)), (left.clone(), lost), "{at}");
        let last = life.bus().shared.distributed.load(Ordering::SeqCst);
        assert!(last >= 2, "{at}: {last} comes twice");
        life.step(&Step::Ledger { topic: 0, count: 1 });
        for counters in life.bus().counters().iter().filter(|_| kept) {
            let (gone, counters) = (2 - left.len() as u64, counters.ledger);
            let counted =
                (counters.accepted, counters.dropped.of(DropReason::Lost), counters.pending);
            assert_eq!(counted, (3, gone, 3 - gone), "{at}");
        }
        life.finish();
    }
}

#[test]
fn what_is_there_again_once_its_loss_is_forgotten_waits_again() {
    let directory = tempdir().expect("a directory");
    let mut life = Life::new(directory.path());
    life.step(&Step::Ledger { topic: 0, count: 2 });
    life.step(&Step::Persist);
    life.step(&Step::Flip { at: 423 });
    let lost = |bus: &Bus| bus.counters()[0].ledger.dropped.of(DropReason::Lost);
    assert_eq!(lost(life.bus()), 1);
    drop(life.bus.take());
    fs::remove_file(directory.path().join("losses.json")).expect("it was told");
    life.flipped.iter().for_each(flip_back);
    let bus = open(directory.path());
    assert_balanced(&bus);
    assert_eq!(super::drain(&mut subscribe(&bus, "all", MODULES[0].1)), [0, 1]);
    assert_eq!(lost(&bus), 0);
    assert_balanced(&bus);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nothing_accepted_is_lost_and_the_books_balance(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let directory = tempdir().expect("a directory");
        let mut life = Life::new(directory.path());
        for step in &steps {
            life.step(step);
        }
        life.finish();
    }
}

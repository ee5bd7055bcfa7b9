//! Tests of parts of the ledger that are damaged or removed: they are reported and counted, and
//! cost no more than that.

use std::{
    fs,
    path::{Path, PathBuf},
};

use module_sdk::Class::Ledger;
use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::{TempDir, tempdir};

use super::{
    super::{Bus, DropReason, Extent, Failure, FailureKind, LossKind},
    assert_balanced, drain, events, keep, open, publish, subscribe,
};

const FILES: [&str; 2] = ["subscriptions.json", "subscriptions.copy.json"];

/// Creates a ledger of several segments, with 400 events that wait for two modules which do not
/// run.
fn waiting() -> TempDir {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    drop(subscribe(&bus, "tracker", &["a"]));
    drop(subscribe(&bus, "late", &["a"]));
    fill(&bus);
    bus.close().expect("closed");
    directory
}

fn fill(bus: &Bus) {
    for start in (0..400).step_by(10) {
        publish(bus, events(Ledger, "a", start..start + 10)).expect("accepted");
    }
    assert!(bus.shared.ledger.list().len() > 4);
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("segments")).expect("a directory");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn kinds(bus: &Bus) -> Vec<LossKind> {
    bus.health().losses.into_iter().map(|loss| loss.kind).collect()
}

/// Returns how many events each module has lost and how many it still waits for; none counts as
/// retention.
fn lost(bus: &Bus) -> Vec<(u64, u64)> {
    let counters = bus.counters().into_iter().map(|counters| {
        assert_eq!(counters.ledger.dropped.of(DropReason::Retention), 0, "{counters:?}");
        (counters.ledger.dropped.of(DropReason::Lost), counters.ledger.pending)
    });
    counters.collect()
}

#[test]
fn without_cursors_everything_kept_is_delivered_once_more_to_whoever_subscribes() {
    let hurt: [fn(&Path); 3] = [
        |path| fs::write(path, b"").expect("emptied"),
        |path| fs::write(path, b"{\"format\":2,\"modules\":[]}").expect("damaged"),
        |path| fs::remove_file(path).expect("removed"),
    ];
    for hurt in hurt {
        let directory = waiting();
        FILES.iter().for_each(|file| hurt(&directory.path().join(file)));
        let bus = open(directory.path());
        assert_eq!(kinds(&bus), [LossKind::Subscriptions]);
        // Nobody has subscribed yet: what waits is not settled by all of them.
        keep(&bus);
        let all: Vec<u64> = (0..400).collect();
        assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])), all);
        assert_balanced(&bus);
        keep(&bus);
        drop(bus);
        // Neither has everybody after another kill.
        let bus = open(directory.path());
        keep(&bus);
        assert_eq!(drain(&mut subscribe(&bus, "late", &["a"])), all);
        assert_eq!(kinds(&bus), [LossKind::Subscriptions], "it stays told");
        publish(&bus, events(Ledger, "a", 400..401)).expect("accepted");
        assert_eq!(drain(&mut subscribe(&bus, "late", &["a"])), [400]);
        assert_balanced(&bus);
    }
}

#[test]
fn damage_to_one_file_of_cursors_costs_nothing() {
    for file in FILES {
        let directory = waiting();
        fs::write(directory.path().join(file), b"").expect("emptied");
        let bus = open(directory.path());
        assert_eq!(kinds(&bus), [LossKind::Copy]);
        assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])), (0..400).collect::<Vec<_>>());
        keep(&bus);
        assert_eq!(lost(&bus), [(0, 400), (0, 0)]);
        assert_balanced(&bus);
        drop(bus);
        let bus = open(directory.path());
        assert!(drain(&mut subscribe(&bus, "tracker", &["a"])).is_empty());
        assert!(directory.path().join(file).exists());
    }
}

#[test]
fn dead_letters_stay_in_the_books_when_the_cursors_are_lost() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    publish(&bus, events(Ledger, "a", 0..1)).expect("accepted");
    for _ in 0..5 {
        assert_eq!(inbox.take(1).len(), 1);
        let message = "it failed".to_owned();
        inbox.settle(0, Some(Failure { kind: FailureKind::Failed, message }));
    }
    fill(&bus);
    drain(&mut inbox);
    keep(&bus);
    drop(inbox);
    publish(&bus, events(Ledger, "a", 400..410)).expect("accepted");
    bus.close().expect("closed");
    drop(bus);
    FILES.iter().for_each(|file| fs::remove_file(directory.path().join(file)).expect("removed"));
    let bus = open(directory.path());
    drop(subscribe(&bus, "tracker", &["a"]));
    assert_eq!(bus.counters()[0].ledger.dead, 1);
    assert_balanced(&bus);
}

#[test]
fn a_deleted_segment_is_lost_and_not_retention() {
    for place in 0..5 {
        let directory = waiting();
        let paths = segments(directory.path());
        let path = if place < 4 { &paths[place] } else { paths.last().expect("several") };
        fs::remove_file(path).expect("removed");
        let bus = open(directory.path());
        assert_eq!(kinds(&bus), [LossKind::Missing], "{place}");
        let lost = lost(&bus);
        assert!(lost[0].0 > 0 && lost[0].0 + lost[0].1 == 400, "{place}: {lost:?}");
        assert_balanced(&bus);
        let got = drain(&mut subscribe(&bus, "tracker", &["a"]));
        assert_eq!(got.len() as u64, lost[1].1);
        assert!(got.is_sorted());
        publish(&bus, events(Ledger, "a", 400..401)).expect("accepted");
        assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])), [400]);
        keep(&bus);
        drop(bus);
        let bus = open(directory.path());
        assert_eq!(kinds(&bus), [LossKind::Missing], "once, and over a restart");
        assert_balanced(&bus);
    }
}

#[test]
fn a_tail_that_was_cut_after_a_kill_is_told_as_at_least() {
    for is_closed in [true, false] {
        let directory = tempdir().expect("a directory");
        let bus = open(directory.path());
        drop(subscribe(&bus, "tracker", &["a"]));
        publish(&bus, events(Ledger, "a", 0..10)).expect("accepted");
        if is_closed {
            publish(&bus, events(Ledger, "a", 10..20)).expect("accepted");
            bus.close().expect("closed");
            drop(bus);
        } else {
            keep(&bus);
            let counters =
                FILES.map(|file| fs::read(directory.path().join(file)).expect("counters"));
            publish(&bus, events(Ledger, "a", 10..20)).expect("accepted");
            drop(bus);
            // The counters that a kill leaves: they do not know of the last ten.
            for (file, bytes) in FILES.iter().zip(counters) {
                fs::write(directory.path().join(file), bytes).expect("written");
            }
        }
        let path = segments(directory.path()).pop().expect("a segment");
        let bytes = fs::read(&path).expect("a segment");
        fs::write(&path, &bytes[..bytes.len() / 4]).expect("cut");
        let bus = open(directory.path());
        assert_balanced(&bus);
        let loss = bus.health().losses.remove(0);
        let expected = if is_closed { (20, Extent::Exact) } else { (10, Extent::AtLeast) };
        assert_eq!((loss.kind, (loss.last, loss.extent)), (LossKind::Cut, expected));
        assert_eq!(loss.sentence().contains("at least"), !is_closed, "{}", loss.sentence());
        let (lost, left) = lost(&bus)[0];
        assert_eq!(lost + left, loss.last, "the counters know as many");
        // It stays so, and what comes has numbers of its own.
        publish(&bus, events(Ledger, "a", 20..21)).expect("accepted");
        bus.close().expect("closed");
        drop(bus);
        let bus = open(directory.path());
        assert_eq!(bus.health().losses[0].extent, expected.1);
        assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])).last(), Some(&20));
        assert_balanced(&bus);
    }
}

#[test]
fn segments_that_go_while_the_daemon_runs_are_found() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    drop(subscribe(&bus, "late", &["a"]));
    fill(&bus);
    // It has the first of them in its hands and others in its memory.
    assert_eq!(inbox.take(1).len(), 1);
    inbox.settle(0, None);
    let paths = segments(directory.path());
    fs::remove_file(&paths[1]).expect("removed");
    fs::remove_file(paths.last().expect("several")).expect("removed");
    assert_balanced(&bus);
    assert_eq!(kinds(&bus), [LossKind::Missing; 2]);
    publish(&bus, events(Ledger, "a", 400..420)).expect("accepted");
    let got = drain(&mut inbox);
    assert!(got.is_sorted() && got.starts_with(&[0]) && got.ends_with(&[418, 419]), "{got:?}");
    assert_balanced(&bus);
    let lost = lost(&bus);
    assert_eq!((lost[0].0 > 0, lost[1].1), (true, 0), "{lost:?}");
    assert_eq!(got.len() as u64 + lost[1].0, 420);
    drop(inbox);
    let late = drain(&mut subscribe(&bus, "late", &["a"]));
    assert_eq!(late.len() as u64 + lost[0].0, 420);
    assert_balanced(&bus);
}

#[test]
fn a_directory_that_goes_while_the_daemon_runs_is_made_again_or_missed() {
    for whole in [false, true] {
        let directory = tempdir().expect("a directory");
        let place = directory.path().join("ledger");
        fs::create_dir(&place).expect("a directory");
        let bus = open(&place);
        drop(subscribe(&bus, "tracker", &["a"]));
        if !whole {
            // Without it the active segment is as empty as it was begun.
            publish(&bus, events(Ledger, "a", 0..10)).expect("accepted");
        }
        let gone = if whole { place.clone() } else { place.join("segments") };
        fs::remove_dir_all(gone).expect("removed");
        drop(bus.audit());
        let published = publish(&bus, events(Ledger, "a", 10..11));
        if whole {
            let error = published.expect_err("nothing would keep it").to_string();
            assert!(error.contains("find out what removes files there"), "{error}");
            let trouble = bus.health().trouble.expect("it is told");
            assert!(trouble.remedy.contains("restart lodestard"), "{trouble:?}");
            fs::create_dir(&place).expect("a directory");
            publish(&bus, events(Ledger, "a", 10..11)).expect("accepted");
        } else {
            published.expect("accepted");
        }
        keep(&bus);
        drop(bus);
        let bus = open(&place);
        assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])), [10]);
        assert_balanced(&bus);
    }
}

#[test]
fn a_segment_that_cannot_be_read_holds_up_nobody() {
    for is_pipe in [false, true] {
        let directory = waiting();
        let path = segments(directory.path())[2].clone();
        fs::remove_file(&path).expect("removed");
        if is_pipe {
            mkfifoat(CWD, &path, Mode::RWXU).expect("a pipe");
        } else {
            fs::create_dir(&path).expect("a directory");
        }
        let bus = open(directory.path());
        let got = drain(&mut subscribe(&bus, "tracker", &["a"]));
        assert!(got.is_sorted() && got.last() == Some(&399));
        assert_eq!(kinds(&bus), [LossKind::Unreadable]);
        assert_balanced(&bus);
        let lost = lost(&bus);
        assert_eq!(lost[1], (400 - got.len() as u64, 0));
        assert_eq!(lost[0].0, lost[1].0, "the audit counts it for who did not come there as well");
    }
}

#[test]
fn what_was_given_up_and_is_there_again_comes_by_replay() {
    let directory = waiting();
    let path = segments(directory.path())[2].clone();
    let aside = directory.path().join("aside");
    fs::rename(&path, &aside).expect("moved");
    fs::create_dir(&path).expect("a directory");
    let bus = open(directory.path());
    assert_balanced(&bus);
    let (gone, _) = lost(&bus)[1];
    fs::remove_dir(&path).expect("removed");
    fs::rename(&aside, &path).expect("moved back");
    assert_balanced(&bus);
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    assert_eq!(drain(&mut inbox).len() as u64, 400 - gone);
    assert_balanced(&bus);
    let replayed = bus.replay("tracker", 0..u64::MAX).expect("replayed");
    assert_eq!(replayed.events, 400);
    let again: std::collections::BTreeSet<u64> = drain(&mut inbox).into_iter().collect();
    assert_eq!(again.len(), 400);
    assert_balanced(&bus);
}

#[test]
fn damage_costs_the_events_that_it_hit_and_the_books_say_so() {
    for place in 0..4 {
        let directory = tempdir().expect("a directory");
        let bus = open(directory.path());
        let mut inbox = subscribe(&bus, "tracker", &["a"]);
        fill(&bus);
        let paths = segments(directory.path());
        let path = if place < 3 { &paths[place] } else { paths.last().expect("several") };
        let mut bytes = fs::read(path).expect("a segment");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(path, &bytes).expect("damaged");
        let got = drain(&mut inbox);
        let lost = bus.counters()[0].ledger.dropped.of(DropReason::Lost);
        // What its memory held was not read again.
        assert!(lost <= 1 && got.len() as u64 == 400 - lost, "{place}: {got:?}");
        assert!(got.is_sorted() && got.last() == Some(&399));
        assert_balanced(&bus);
        assert_eq!(kinds(&bus), [LossKind::Damaged], "{place}");
    }
}

#[test]
fn damage_while_nothing_runs_costs_as_little() {
    for place in 0..4 {
        let directory = waiting();
        let paths = segments(directory.path());
        let path = if place < 3 { &paths[place] } else { paths.last().expect("several") };
        let mut bytes = fs::read(path).expect("a segment");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(path, &bytes).expect("damaged");
        let bus = open(directory.path());
        assert_balanced(&bus);
        assert_eq!(lost(&bus), [(1, 399); 2], "{place}");
        assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])).len(), 399);
        assert_eq!(kinds(&bus), [LossKind::Damaged]);
        assert_balanced(&bus);
    }
}

#[test]
fn damaged_dead_letters_cost_only_themselves_and_are_told() {
    type Hurt = fn(&Path);
    let hurt: [(Hurt, u64); 4] = [
        // The first one's length.
        (|path| flip(path, 0), 1),
        (|path| flip(path, 3), 1),
        (|path| flip(path, 40), 1),
        (|path| fs::remove_file(path).expect("removed"), 3),
    ];
    for (place, (hurt, count)) in hurt.into_iter().enumerate() {
        let directory = tempdir().expect("a directory");
        let bus = open(directory.path());
        let mut inbox = subscribe(&bus, "tracker", &["a"]);
        publish(&bus, events(Ledger, "a", 0..3)).expect("accepted");
        while !inbox.take(1).is_empty() {
            let message = "no such column".to_owned();
            inbox.settle(0, Some(Failure { kind: FailureKind::Failed, message }));
        }
        drop(inbox);
        bus.close().expect("closed");
        hurt(&directory.path().join("dead/tracker.log"));
        for start in ["first", "second"] {
            let bus = open(directory.path());
            assert_balanced(&bus);
            let counters = bus.counters()[0].ledger;
            let (lost, purged) = (DropReason::Lost, DropReason::Purged);
            let dropped = (counters.dropped.of(lost), counters.dropped.of(purged));
            assert_eq!((counters.dead, dropped), (3 - count, (count, 0)), "{place}, {start}");
            assert_eq!(bus.dead(None).expect("readable").len() as u64, 3 - count, "{place}");
            let told = bus.health().losses;
            assert_eq!(kinds(&bus), [LossKind::DeadLetters], "{place}, {start}");
            assert_eq!((told[0].file.as_str(), told[0].last), ("dead/tracker.log", count));
            bus.close().expect("closed");
        }
        // What is left can be given another chance.
        let bus = open(directory.path());
        assert_eq!(bus.replay_dead("tracker", None).expect("replayed"), 3 - count);
        assert_balanced(&bus);
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 0x41;
    fs::write(path, bytes).expect("damaged");
}

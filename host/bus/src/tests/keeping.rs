//! Tests of what the disk keeps, and of disks that fail.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use module_sdk::Class::Ledger;
use tempfile::tempdir;

use super::{
    super::{Bus, BusConfig, DropReason, Durability},
    assert_balanced, config, drain, events, keep, open, publish, subscribe,
};

#[test]
fn a_full_disk_accepts_nothing_of_a_call_and_heals() {
    use std::sync::atomic::AtomicUsize;

    use crate::ledger::full_disk;

    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    let limit = |left: Option<Arc<AtomicUsize>>| {
        // A publisher's callback runs on the writer's thread, whose disk it is.
        let done = move |_| full_disk::limit(left);
        let (sender, receiver) = std::sync::mpsc::channel();
        let told = Box::new(move |result| {
            done(result);
            sender.send(()).expect("the test waits");
        });
        bus.publish(events(Ledger, "other", 0..1), Some(told)).expect("queued");
        receiver.recv().expect("told");
    };
    publish(&bus, events(Ledger, "a", 0..2)).expect("accepted");
    limit(Some(Arc::new(AtomicUsize::new(100))));
    for _ in 0..3 {
        let error = publish(&bus, events(Ledger, "a", 50..53)).expect_err("no room");
        assert!(error.to_string().contains("free space"), "{error}");
    }
    assert!(bus.health().trouble.is_some());
    assert_eq!(bus.health().failed_writes, 3);
    assert_balanced(&bus);
    limit(None);
    publish(&bus, events(Ledger, "a", 2..4)).expect("accepted again");
    assert_eq!(bus.health().trouble, None);
    assert_eq!(drain(&mut inbox), [0, 1, 2, 3]);
    assert_balanced(&bus);
    drop(inbox);
    drop(bus);
    let bus = open(directory.path());
    assert_balanced(&bus);
    let again = drain(&mut subscribe(&bus, "tracker", &["a"]));
    assert!((0..4).collect::<Vec<_>>().ends_with(&again), "{again:?}");
}

#[test]
fn what_all_have_settled_is_deleted_and_the_limit_holds() {
    let directory = tempdir().expect("a directory");
    let config = BusConfig { max_bytes: 40 << 10, ..config() };
    let bus = Bus::open(config, directory.path()).expect("the bus opens");
    let segments = || fs::read_dir(directory.path().join("segments")).expect("a directory").count();
    for _ in 0..20 {
        publish(&bus, events(Ledger, "a", 0..20)).expect("accepted");
    }
    keep(&bus);
    assert_eq!(segments(), 1, "without subscribers nothing is kept");
    let mut quick = subscribe(&bus, "quick", &["a"]);
    let mut slow = subscribe(&bus, "slow", &["a"]);
    assert_eq!(slow.take(1).len(), 0);
    publish(&bus, events(Ledger, "a", 0..1)).expect("accepted");
    assert_eq!(slow.take(1).len(), 1);
    for start in (1..2_001).step_by(20) {
        publish(&bus, events(Ledger, "a", start..start + 20)).expect("accepted");
        drain(&mut quick);
    }
    keep(&bus);
    let counters = bus.counters();
    let dropped = counters[1].ledger.dropped.of(DropReason::Retention);
    assert!(dropped > 1_000, "{counters:?}");
    assert_eq!(counters[0].ledger.dropped.total(), 0);
    let bytes: u64 = bus.shared.ledger.list().iter().map(|info| info.bytes).sum();
    assert!(bytes <= 40 << 10, "{bytes}");
    assert_balanced(&bus);
    slow.settle(1, None);
    assert_balanced(&bus);
    assert_eq!(drain(&mut slow), (dropped + 1..2_001).collect::<Vec<_>>());
    keep(&bus);
    assert_eq!(segments(), 1);
    assert_balanced(&bus);
}

#[test]
fn what_is_older_than_the_retention_is_dropped() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    drop(subscribe(&bus, "tracker", &["a"]));
    for _ in 0..10 {
        publish(&bus, events(Ledger, "a", 0..20)).expect("accepted");
    }
    let oldest = bus.shared.ledger.list()[0].path.clone();
    let file = fs::File::options().write(true).open(&oldest).expect("a segment");
    let week = Duration::from_secs(169 * 3600);
    file.set_modified(SystemTime::now() - week).expect("set");
    keep(&bus);
    assert!(!oldest.exists());
    let ledger = bus.counters()[0].ledger;
    let dropped = ledger.dropped.of(DropReason::Retention);
    assert!(dropped > 0 && ledger.pending == 200 - dropped, "{ledger:?}");
    assert_balanced(&bus);
}

#[test]
fn a_ledger_that_went_back_behind_its_cursors_reuses_no_number() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    publish(&bus, events(Ledger, "a", 0..10)).expect("accepted");
    assert_eq!(inbox.take(4).len(), 4);
    inbox.settle(4, None);
    drop(inbox);
    bus.close().expect("closed");
    drop(bus);
    for entry in fs::read_dir(directory.path().join("segments")).expect("a directory") {
        fs::remove_file(entry.expect("an entry").path()).expect("removed");
    }
    let bus = open(directory.path());
    assert_eq!(bus.counters()[0].ledger.dropped.of(DropReason::Lost), 6);
    publish(&bus, events(Ledger, "a", 10..12)).expect("accepted");
    assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])), [10, 11]);
    assert_balanced(&bus);
}

#[test]
fn power_keeps_what_process_keeps() {
    let directory = tempdir().expect("a directory");
    let config = BusConfig { durability: Durability::Power, ..config() };
    let bus = Bus::open(config.clone(), directory.path()).expect("the bus opens");
    drop(subscribe(&bus, "tracker", &["a"]));
    for start in (0..60).step_by(20) {
        publish(&bus, events(Ledger, "a", start..start + 20)).expect("accepted");
    }
    drop(bus);
    let bus = Bus::open(config, directory.path()).expect("the bus opens");
    assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])), (0..60).collect::<Vec<_>>());
}

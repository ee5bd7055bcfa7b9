//! Tests of events that a module does not handle.

use std::{
    fs,
    time::{Duration, Instant},
};

use module_sdk::Class::{Ledger, Live};
use tempfile::tempdir;

use super::{
    super::{Bus, BusConfig, DropReason, Failure, FailureKind, SubscribeError, Woken},
    assert_balanced, config, drain, events, keep, number, open, publish, subscribe,
};

fn failed() -> Option<Failure> {
    Some(Failure { kind: FailureKind::Failed, message: "no such column".to_owned() })
}

fn unavailable() -> Option<Failure> {
    Some(Failure { kind: FailureKind::Unavailable, message: "disk full".to_owned() })
}

#[test]
fn a_poisonous_event_is_isolated_buried_and_the_rest_goes_on() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    publish(&bus, events(Ledger, "a", 0..10)).expect("accepted");
    let (mut handled, mut tries) = (Vec::new(), 0);
    loop {
        let taken: Vec<(u64, u32)> = inbox
            .take(100)
            .iter()
            .map(|delivery| (number(&delivery.event.data), delivery.attempt))
            .collect();
        if taken.is_empty() {
            break;
        }
        // A handler of batches says only that the batch failed.
        if let Some((_, attempt)) = taken.iter().find(|(number, _)| *number == 5) {
            tries += 1;
            assert!(*attempt >= 1);
            inbox.settle(0, failed());
        } else {
            handled.extend(taken.iter().map(|(number, _)| *number));
            inbox.settle(taken.len(), None);
        }
        assert_balanced(&bus);
    }
    assert_eq!(handled, [0, 1, 2, 3, 4, 6, 7, 8, 9]);
    assert!((5..=9).contains(&tries), "{tries}");
    let dead_letters = bus.dead(Some("tracker")).expect("readable");
    assert_eq!(dead_letters.len(), 1);
    assert_eq!(
        (dead_letters[0].reason.as_str(), &*dead_letters[0].event.data),
        ("no such column", &b"5"[..])
    );
    let dead = bus.counters()[0].ledger;
    assert_eq!((dead.dead, dead.handled, dead.pending), (1, 9, 0));
}

#[test]
fn dead_letters_are_replayed_to_their_module_alone_and_purged() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    let mut other = subscribe(&bus, "other", &["a"]);
    publish(&bus, events(Ledger, "a", 0..3)).expect("accepted");
    while !inbox.take(1).is_empty() {
        inbox.settle(0, failed());
    }
    let ids: Vec<_> = bus.dead(None).expect("readable").iter().map(|dead| dead.event.id).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(drain(&mut other), [0, 1, 2]);
    assert_eq!(bus.replay_dead("tracker", Some(&ids[1..2])).expect("replayed"), 1);
    assert_balanced(&bus);
    let again = inbox.take(5);
    assert_eq!((again.len(), again[0].event.id, again[0].attempt), (1, ids[1], 1));
    inbox.settle(1, None);
    assert!(drain(&mut other).is_empty());
    assert_eq!(bus.replay_dead("tracker", Some(&ids[2..])).expect("replayed"), 1);
    assert_balanced(&bus);
    drop((inbox, other));
    drop(bus);
    let bus = open(directory.path());
    assert_balanced(&bus);
    assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])), [2]);
    let tracker = &bus.counters()[1].ledger;
    assert_eq!((tracker.accepted, tracker.handled, tracker.dead), (3, 2, 1));
    assert!(matches!(bus.replay_dead("nobody", None), Err(SubscribeError::Unknown(_))));
}

#[test]
fn what_is_not_available_now_is_never_given_up() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    publish(&bus, events(Ledger, "a", 0..2)).expect("accepted");
    for attempt in 1..=20 {
        let taken = inbox.take(9);
        assert_eq!((taken.len(), taken[0].attempt), (2, attempt));
        inbox.settle(0, unavailable());
    }
    assert_eq!(drain(&mut inbox), [0, 1]);
    assert_eq!(bus.counters()[0].ledger.dead, 0);
}

#[test]
fn a_live_event_that_fails_alone_is_dropped() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    publish(&bus, events(Live, "a", 0..4)).expect("accepted");
    assert_eq!(inbox.take(9).len(), 4);
    inbox.settle(1, failed());
    assert_eq!(inbox.take(9).len(), 1);
    inbox.settle(0, failed());
    assert_balanced(&bus);
    assert_eq!(drain(&mut inbox), [2, 3]);
    assert_eq!(bus.counters()[0].live.dropped.of(DropReason::Failed), 1);
    publish(&bus, events(Live, "a", 4..5)).expect("accepted");
    let mut tries = 0;
    while !inbox.take(9).is_empty() {
        inbox.settle(0, unavailable());
        tries += 1;
    }
    assert_eq!(tries, 5);
    assert_balanced(&bus);
}

#[test]
fn a_failed_event_waits_and_holds_back_what_follows() {
    let directory = tempdir().expect("a directory");
    let hour = Duration::from_secs(3600);
    let config = BusConfig { retry_after: [hour; 4], ..config() };
    let bus = Bus::open(config, directory.path()).expect("the bus opens");
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    publish(&bus, events(Ledger, "a", 0..3)).expect("accepted");
    let mark = inbox.mark();
    assert!(!inbox.reached(&mark));
    assert_eq!(inbox.take(1).len(), 1);
    inbox.settle(0, failed());
    assert!(inbox.take(9).is_empty());
    assert!(inbox.reached(&mark), "a query does not wait for the next try");
    assert_eq!(inbox.wait(Some(Instant::now())), Woken::Deadline);
    inbox.waker().wake();
    assert_eq!(inbox.wait(None), Woken::Awakened);
    drop(inbox);
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    let taken = inbox.take(9);
    assert_eq!((taken.len(), taken[0].attempt, taken[1].attempt), (3, 2, 1));
}

#[test]
fn a_kill_in_the_middle_of_a_replay_leaves_the_books_balanced() {
    for letters_were_rewritten in [true, false] {
        let directory = tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let bus = open(directory.path());
        let mut inbox = subscribe(&bus, "tracker", &["a"]);
        publish(&bus, events(Ledger, "a", 0..2)).expect("accepted");
        while !inbox.take(1).is_empty() {
            inbox.settle(0, failed());
        }
        drop(inbox);
        keep(&bus);
        let cursors = fs::read(path("subscriptions.json")).expect("readable");
        let dead_letters = fs::read(path("dead/tracker.log")).expect("readable");
        assert_eq!(bus.replay_dead("tracker", None).expect("replayed"), 2);
        drop(bus);
        fs::write(path("subscriptions.json"), cursors).expect("as before the replay");
        if !letters_were_rewritten {
            fs::write(path("dead/tracker.log"), dead_letters).expect("as before the replay");
        }
        let bus = open(directory.path());
        assert_balanced(&bus);
        let counters = bus.counters()[0].ledger;
        assert_eq!((counters.dead, counters.pending, counters.dropped.total()), (0, 2, 0));
        assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])), [0, 1]);
    }
}

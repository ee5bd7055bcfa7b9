//! Tests of the replay of events that the ledger still keeps.

use module_sdk::Class::Ledger;
use tempfile::tempdir;
use uuid::Uuid;

use super::{
    super::{Bus, BusConfig, Failure, FailureKind, Inbox, ReplayError, SubscribeError},
    assert_balanced, config, drain, events, open, publish, subscribe,
};
use crate::ledger::now_ms;

/// Waits for a moment after everything so far and before everything later, and returns it.
fn moment() -> u64 {
    let last = now_ms();
    while now_ms() <= last {
        std::hint::spin_loop();
    }
    now_ms()
}

fn ids(inbox: &mut Inbox) -> Vec<Uuid> {
    let taken = inbox.take(100);
    let ids = taken.iter().map(|delivery| delivery.event.id).collect();
    let count = taken.len();
    inbox.settle(count, None);
    ids
}

fn counters(bus: &Bus, module: &str) -> (u64, u64, u64, u64) {
    let counters =
        bus.counters().into_iter().find(|counters| counters.module == module).expect("it is there");
    let ledger = counters.ledger;
    (ledger.accepted, ledger.handled, ledger.dead, ledger.pending)
}

#[test]
fn handled_events_come_again_under_their_ids_for_one_module() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut tracker = subscribe(&bus, "tracker", &["a"]);
    let mut other = subscribe(&bus, "other", &[">"]);
    let begin = moment();
    publish(&bus, events(Ledger, "a", 0..3)).expect("accepted");
    publish(&bus, events(Ledger, "b", 7..8)).expect("accepted");
    let first = ids(&mut tracker);
    drain(&mut other);
    let middle = moment();
    publish(&bus, events(Ledger, "a", 3..5)).expect("accepted");
    assert_eq!(drain(&mut tracker), [3, 4]);
    drain(&mut other);

    let replayed = bus.replay("tracker", begin..middle).expect("replayed");
    assert_eq!(replayed.events, 3);
    assert!(replayed.kept_since_ms.is_some_and(|ms| ms >= begin), "{replayed:?}");
    assert_eq!(counters(&bus, "tracker"), (8, 5, 0, 3));
    assert_balanced(&bus);
    assert_eq!(ids(&mut tracker), first);
    assert_eq!(bus.replay("tracker", middle..u64::MAX).expect("replayed").events, 2);
    assert_eq!(drain(&mut tracker), [3, 4]);
    assert_eq!(drain(&mut other), [0_u64; 0]);
    assert_eq!(counters(&bus, "tracker"), (10, 10, 0, 0));
    assert_eq!(counters(&bus, "other"), (6, 6, 0, 0));
    // The copies are no history of their own.
    assert_eq!(bus.replay("tracker", 0..u64::MAX).expect("replayed").events, 5);
    assert_balanced(&bus);
}

#[test]
fn what_waits_or_is_dead_is_not_doubled() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    publish(&bus, events(Ledger, "a", 0..1)).expect("accepted");
    while !inbox.take(1).is_empty() {
        let message = "it does not fit".to_owned();
        inbox.settle(0, Some(Failure { kind: FailureKind::Failed, message }));
    }
    publish(&bus, events(Ledger, "a", 1..3)).expect("accepted");
    assert_eq!(drain(&mut inbox), [1, 2]);
    publish(&bus, events(Ledger, "a", 3..40)).expect("accepted");
    assert_eq!(inbox.take(2).len(), 2);
    assert_eq!(counters(&bus, "tracker"), (40, 2, 1, 37));
    assert_eq!(bus.replay("tracker", 0..u64::MAX).expect("replayed").events, 2);
    assert_eq!(counters(&bus, "tracker"), (42, 2, 1, 39));
    assert_balanced(&bus);
    inbox.settle(2, None);
    assert!(drain(&mut inbox).ends_with(&[39, 1, 2]));
    assert_balanced(&bus);
}

#[test]
fn a_replay_survives_a_kill() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    publish(&bus, events(Ledger, "a", 0..30)).expect("accepted");
    assert_eq!(drain(&mut inbox).len(), 30);
    super::keep(&bus);
    assert_eq!(bus.replay("tracker", 0..u64::MAX).expect("replayed").events, 30);
    let before = counters(&bus, "tracker");
    drop(inbox);
    drop(bus);
    let bus = open(directory.path());
    assert_eq!(counters(&bus, "tracker"), before);
    assert_balanced(&bus);
    let again = drain(&mut subscribe(&bus, "tracker", &["a"]));
    assert_eq!(again, (0..30).collect::<Vec<_>>());
    assert_balanced(&bus);
}

#[test]
fn a_new_module_can_have_the_history_that_it_listens_to() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let keeper = subscribe(&bus, "keeper", &[">"]);
    publish(&bus, events(Ledger, "a", 0..4)).expect("accepted");
    publish(&bus, events(Ledger, "b", 4..6)).expect("accepted");
    let mut late = subscribe(&bus, "late", &["b"]);
    assert_eq!(drain(&mut late), [0_u64; 0]);
    assert_eq!(bus.replay("late", 0..u64::MAX).expect("replayed").events, 2);
    assert_eq!(drain(&mut late), [4, 5]);
    drop(late);
    // It waits for a module that is away.
    assert_eq!(bus.replay("late", 0..u64::MAX).expect("replayed").events, 2);
    assert_eq!(counters(&bus, "late"), (4, 2, 0, 2));
    assert_eq!(drain(&mut subscribe(&bus, "late", &["b"])), [4, 5]);
    assert_balanced(&bus);
    drop(keeper);
}

#[test]
fn a_replay_that_would_push_others_out_is_refused() {
    let directory = tempdir().expect("a directory");
    let bus = Bus::open(BusConfig { max_bytes: 40 << 10, ..config() }, directory.path());
    let bus = bus.expect("the bus opens");
    let mut quick = subscribe(&bus, "quick", &["a"]);
    let slow = subscribe(&bus, "slow", &["a"]);
    for start in (0..300).step_by(20) {
        publish(&bus, events(Ledger, "a", start..start + 20)).expect("accepted");
        drain(&mut quick);
    }
    let before = counters(&bus, "slow");
    let error = bus.replay("quick", 0..u64::MAX).expect_err("no room");
    assert!(matches!(error, ReplayError::NoRoom { events: 300, .. }), "{error:?}");
    assert!(error.to_string().contains("bus.ledger.max_bytes"), "{error}");
    assert_eq!(counters(&bus, "slow"), before);
    let error = bus.replay("nobody", 0..u64::MAX).expect_err("unknown");
    assert!(matches!(error, ReplayError::Subscribe(SubscribeError::Unknown(_))), "{error:?}");
    drop(slow);
}

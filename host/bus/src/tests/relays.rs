//! Tests of events of other daemons: each comes once, under its own id.

use std::sync::{Arc, atomic::AtomicUsize, mpsc};

use module_sdk::Class::{self, Ledger, Live};
use tempfile::tempdir;
use uuid::Uuid;

use super::{
    super::{Bus, NewEvent},
    assert_balanced, drain, event, events, open, publish, subscribe,
};
use crate::ledger::full_disk;

fn id(number: u64) -> Uuid {
    Uuid::from_u64_pair(1_700_000_000_000 << 16 | 0x7000, 1 << 63 | number)
}

fn relayed(class: Class, numbers: impl IntoIterator<Item = u64>) -> Vec<NewEvent> {
    let relayed = |number| NewEvent {
        id: Some(id(number)),
        time_ns: 17,
        source: "//laptop/lodestar/test".into(),
        ..event(class, "a", number)
    };
    numbers.into_iter().map(relayed).collect()
}

#[test]
fn an_event_is_taken_once_as_it_was() {
    let directory = tempdir().expect("a directory");
    for class in [Ledger, Live] {
        let bus = open(&directory.path().join(format!("{class:?}")));
        let mut inbox = subscribe(&bus, "hub", &["a"]);
        publish(&bus, relayed(class, [1, 1, 2])).expect("accepted");
        publish(&bus, relayed(class, [2, 3, 1])).expect("accepted");
        publish(&bus, relayed(class, [3, 2, 1])).expect("what is known is accepted");
        let first = &inbox.take(1)[0].event;
        assert_eq!((first.id, first.time_ns), (id(1), 17));
        assert_eq!(&*first.source, "//laptop/lodestar/test");
        inbox.settle(1, None);
        assert_eq!(drain(&mut inbox), [2, 3]);
        assert_eq!(bus.counters()[0].total().accepted, 3);
        assert_balanced(&bus);
    }
}

#[test]
fn what_the_ledger_holds_is_known_after_a_restart_of_any_kind() {
    let stop: [fn(Bus); 2] = [|bus| bus.close().expect("room"), drop];
    for stop in stop {
        let directory = tempdir().expect("a directory");
        let bus = open(directory.path());
        let mut inbox = subscribe(&bus, "hub", &["a"]);
        publish(&bus, relayed(Ledger, 0..500)).expect("accepted");
        assert_eq!(drain(&mut inbox).len(), 500);
        // What waits for somebody keeps its segments.
        drop(subscribe(&bus, "archive", &["a"]));
        publish(&bus, relayed(Ledger, 500..1000)).expect("accepted");
        drop(inbox);
        stop(bus);
        let bus = open(directory.path());
        let mut archive = subscribe(&bus, "archive", &["a"]);
        let before = drain(&mut archive);
        publish(&bus, relayed(Ledger, 500..1001)).expect("accepted");
        assert_eq!(drain(&mut archive), [1000], "after {} others", before.len());
        assert_balanced(&bus);
    }
}

#[test]
fn what_the_disk_refused_may_be_relayed_again() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "hub", &["a"]);
    let limit = |left: Option<Arc<AtomicUsize>>| {
        // A publisher's callback runs on the writer's thread, whose disk it is.
        let (sender, receiver) = mpsc::channel();
        let told = Box::new(move |_| {
            full_disk::limit(left);
            sender.send(()).expect("the test waits");
        });
        bus.publish(events(Ledger, "other", 0..1), Some(told)).expect("queued");
        receiver.recv().expect("told");
    };
    limit(Some(Arc::new(AtomicUsize::new(0))));
    publish(&bus, relayed(Ledger, [1, 2])).expect_err("no room");
    limit(None);
    publish(&bus, relayed(Ledger, [1, 2])).expect("room again");
    assert_eq!(drain(&mut inbox), [1, 2]);
}

#[test]
fn a_live_event_of_a_call_that_is_refused_may_come_again() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "hub", &["a"]);
    let mut call = relayed(Live, [1]);
    call.push(event(Ledger, "NO TOPIC", 2));
    publish(&bus, call).expect_err("one has no topic");
    publish(&bus, relayed(Live, [1])).expect("accepted");
    assert_eq!(drain(&mut inbox), [1]);
}

#[test]
fn a_publisher_hears_whether_anybody_wants_a_topic() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    assert!(!bus.wanted("a.b"));
    let _tail = bus.tail(&[]).expect("a tail");
    assert!(!bus.wanted("a.b"), "who looks on wants nothing made");
    let inbox = subscribe(&bus, "hub", &["a.*"]);
    assert!(bus.wanted("a.b") && !bus.wanted("b.a") && !bus.wanted("NO TOPIC"));
    drop(inbox);
    assert!(bus.wanted("a.b"), "events wait for one that is stopped");
    bus.unsubscribe("hub").expect("it is stopped");
    assert!(!bus.wanted("a.b"));
}

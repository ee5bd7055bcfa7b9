//! Tests of which subscriber gets which events, in which order.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use module_sdk::{
    Class::{Ledger, Live},
    MAX_EVENT_BYTES,
};
use tempfile::tempdir;

use super::{
    super::{Bus, BusConfig, DropReason, Inbox, SubscribeError, Tailed, Woken},
    assert_balanced, config, drain, event, events, number, open, publish, subscribe,
};

#[test]
fn each_gets_what_its_filters_say_in_order() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut all = subscribe(&bus, "all", &[">"]);
    let mut one = subscribe(&bus, "one", &["a.x", "b.*"]);
    for (number, (class, topic)) in
        [(Ledger, "a.x"), (Live, "b.y"), (Ledger, "a.y"), (Live, "c"), (Ledger, "b.z")]
            .into_iter()
            .enumerate()
    {
        publish(&bus, vec![event(class, topic, number as u64)]).expect("accepted");
    }
    assert_eq!(drain(&mut all), [0, 1, 2, 3, 4]);
    assert_eq!(drain(&mut one), [0, 1, 4]);
    assert_balanced(&bus);
    let counters = bus.counters();
    assert_eq!((counters[0].ledger.handled, counters[0].live.handled), (3, 2));
    assert_eq!((counters[1].ledger.accepted, counters[1].live.accepted), (2, 1));
}

#[test]
fn a_module_that_is_behind_has_few_events_in_memory() {
    let directory = tempdir().expect("a directory");
    let roomy = BusConfig { inbox_events: 8192, ..config() };
    let bus = Bus::open(roomy, directory.path()).expect("the bus opens");
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    for from in [0, 1_500, 3_000] {
        publish(&bus, events(Ledger, "a", from..from + 1_500)).expect("accepted");
    }
    assert_eq!(inbox.subscriber.lock().in_memory(), 1_024);
    assert_eq!(drain(&mut inbox), (0..4_500).collect::<Vec<u64>>());
    assert_balanced(&bus);
}

#[test]
fn a_stopped_module_finds_its_ledger_events_and_nobody_elses() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    publish(&bus, events(Ledger, "a", 0..3)).expect("accepted");
    assert_eq!(drain(&mut inbox), [0, 1, 2]);
    drop(inbox);
    publish(&bus, events(Ledger, "a", 3..200)).expect("accepted");
    publish(&bus, events(Live, "a", 900..905)).expect("accepted");
    publish(&bus, events(Ledger, "b", 900..905)).expect("accepted");
    assert_eq!(bus.counters()[0].ledger.pending, 197);
    assert!(bus.counters()[0].oldest_pending_ms.is_some());
    assert_balanced(&bus);
    bus.close().expect("closed");
    drop(bus);
    let bus = open(directory.path());
    assert_eq!(bus.counters()[0].ledger.pending, 197);
    assert!(bus.counters()[0].oldest_pending_ms.is_some());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    assert_eq!(drain(&mut inbox), (3..200).collect::<Vec<_>>());
    assert_eq!(bus.counters()[0].oldest_pending_ms, None);
    assert_balanced(&bus);
}

#[test]
fn a_slow_subscriber_falls_behind_catches_up_and_holds_up_nobody() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut slow = subscribe(&bus, "slow", &["a"]);
    let mut quick = subscribe(&bus, "quick", &["a"]);
    let mut got = Vec::new();
    for start in (0..2_000).step_by(50) {
        publish(&bus, events(Ledger, "a", start..start + 50)).expect("accepted");
        assert_eq!(drain(&mut quick).len(), 50);
        let taken: Vec<u64> =
            slow.take(3).iter().map(|delivery| number(&delivery.event.data)).collect();
        slow.settle(taken.len(), None);
        got.extend(taken);
    }
    assert_balanced(&bus);
    got.extend(drain(&mut slow));
    publish(&bus, events(Ledger, "a", 2_000..2_010)).expect("accepted");
    got.extend(drain(&mut slow));
    assert_eq!(got, (0..2_010).collect::<Vec<_>>());
    assert_balanced(&bus);
}

#[test]
fn a_live_event_finds_no_room_and_the_oldest_goes() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    publish(&bus, events(Live, "a", 0..100)).expect("accepted");
    assert_balanced(&bus);
    assert_eq!(drain(&mut inbox), (84..100).collect::<Vec<_>>());
    publish(&bus, events(Live, "a", 100..104)).expect("accepted");
    drop(inbox);
    let live = bus.counters()[0].live;
    assert_eq!(live.dropped.of(DropReason::Overflow), 84);
    assert_eq!(live.dropped.of(DropReason::Stopped), 4);
    assert_balanced(&bus);
}

#[test]
fn a_new_event_takes_the_place_of_one_only_when_all_have_settled_it() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut quick = subscribe(&bus, "quick", &["a"]);
    let mut slow = subscribe(&bus, "slow", &["a"]);
    let place = |inbox: &mut Inbox| {
        let taken = inbox.take(1);
        (std::ptr::from_ref(taken[0].event).addr(), number(&taken[0].event.data))
    };
    publish(&bus, events(Live, "a", 0..1)).expect("accepted");
    let (first, _) = place(&mut quick);
    assert_eq!(place(&mut slow), (first, 0));
    quick.settle(1, None);
    publish(&bus, events(Live, "a", 1..2)).expect("accepted");
    assert_ne!(place(&mut quick).0, first);
    assert_eq!(place(&mut slow), (first, 0), "it is as it was");
    slow.settle(1, None);
    publish(&bus, events(Live, "a", 2..3)).expect("accepted");
    slow.take(2);
    slow.settle(1, None);
    assert_eq!(place(&mut slow), (first, 2));
    assert_balanced(&bus);
}

#[test]
fn a_mark_is_reached_when_all_before_it_is_settled() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    let waker = inbox.waker();
    assert!(inbox.reached(&inbox.mark()));
    publish(&bus, events(Ledger, "a", 0..40)).expect("accepted");
    publish(&bus, events(Live, "a", 40..42)).expect("accepted");
    publish(&bus, events(Ledger, "b", 0..2)).expect("accepted");
    let mark = waker.mark();
    publish(&bus, events(Ledger, "a", 42..44)).expect("accepted");
    let mut settled = 0;
    while !inbox.reached(&mark) {
        assert_eq!(inbox.take(1).len(), 1);
        inbox.settle(1, None);
        settled += 1;
    }
    assert_eq!(settled, 42);
    assert_eq!(drain(&mut inbox), [42, 43]);
}

#[test]
fn a_sleeper_is_woken_by_events_and_pokes() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    for class in [Ledger, Live] {
        let mut inbox = subscribe(&bus, "tracker", &["a"]);
        std::thread::scope(|scope| {
            let waker = inbox.waker();
            let sleeper = scope.spawn(move || {
                assert_eq!(inbox.wait(None), Woken::Events);
                assert_eq!(drain(&mut inbox), [1]);
                assert_eq!(inbox.wait(None), Woken::Awakened);
            });
            publish(&bus, vec![event(class, "a", 1)]).expect("accepted");
            while bus.counters()[0].total().pending > 0 {
                std::thread::yield_now();
            }
            waker.wake();
            sleeper.join().expect("it was woken");
        });
    }
}

#[test]
fn other_filters_hold_from_now_on() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    drop(subscribe(&bus, "tracker", &["a"]));
    publish(&bus, events(Ledger, "a", 0..2)).expect("accepted");
    publish(&bus, events(Ledger, "b", 2..4)).expect("accepted");
    drop(subscribe(&bus, "tracker", &["b"]));
    publish(&bus, events(Ledger, "a", 4..6)).expect("accepted");
    publish(&bus, events(Ledger, "b", 6..8)).expect("accepted");
    assert_balanced(&bus);
    drop(bus);
    let bus = open(directory.path());
    assert_balanced(&bus);
    assert_eq!(drain(&mut subscribe(&bus, "tracker", &["b"])), [0, 1, 6, 7]);
    bus.unsubscribe("tracker").expect("forgotten");
    assert!(bus.counters().is_empty());
    assert!(matches!(bus.unsubscribe("tracker"), Err(SubscribeError::Unknown(_))));
}

#[test]
fn wrong_names_filters_topics_and_sizes_are_refused() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let filters = |filter: &str| vec![filter.to_owned()];
    for name in ["", "../x", "A", "a b"] {
        assert!(matches!(bus.subscribe(name, &filters("a")), Err(SubscribeError::Module(_))));
    }
    assert!(matches!(bus.subscribe("a", &filters("a.")), Err(SubscribeError::Filter(_))));
    assert!(matches!(bus.tail(&filters("")), Err(SubscribeError::Filter(_))));
    let inbox = subscribe(&bus, "a", &["a"]);
    assert!(matches!(bus.subscribe("a", &filters("a")), Err(SubscribeError::InUse(_))));
    assert!(matches!(bus.unsubscribe("a"), Err(SubscribeError::InUse(_))));
    let mut large = event(Ledger, "a", 1);
    large.data = vec![b' '; MAX_EVENT_BYTES + 1].into();
    let error = publish(&bus, vec![event(Live, "a", 1), large]).expect_err("too large");
    assert!(error.to_string().contains("1048577 bytes"), "{error}");
    let error = publish(&bus, vec![event(Live, "A", 1)]).expect_err("no topic");
    assert!(error.to_string().contains("`A` is not a topic"), "{error}");
    assert_eq!(bus.counters()[0].total().accepted, 0);
    drop(inbox);
    bus.close().expect("closed");
    assert!(publish(&bus, vec![event(Live, "a", 1)]).is_err());
    assert!(publish(&bus, vec![event(Ledger, "a", 1)]).is_err());
}

#[test]
fn a_tail_sees_what_fits_and_says_what_it_skipped() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let tail = bus.tail(&["a.>".to_owned()]).expect("a tail");
    publish(&bus, events(Live, "a.x", 0..6_000)).expect("accepted");
    publish(&bus, events(Live, "b", 0..9)).expect("accepted");
    for expected in 0..4096 {
        match tail.next(Duration::ZERO) {
            Tailed::Event(event) => assert_eq!(number(&event.data), expected),
            other => panic!("{other:?}"),
        }
    }
    publish(&bus, events(Ledger, "a.y", 7..8)).expect("accepted");
    assert_eq!(tail.next(Duration::ZERO), Tailed::Skipped(6_000 - 4096));
    assert!(matches!(tail.next(Duration::ZERO), Tailed::Event(event) if &*event.topic == "a.y"));
    assert_eq!(tail.next(Duration::ZERO), Tailed::Nothing);
    bus.close().expect("closed");
    assert_eq!(tail.next(Duration::from_secs(9)), Tailed::Closed);
    drop(tail);
    assert!(bus.shared.routes().taps.is_empty());
}

#[test]
fn publishers_keep_their_order_and_the_books_balance_under_load() {
    const EACH: u64 = 4_000;
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let running = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let readers: Vec<_> = ["one", "two"]
            .map(|module| {
                let mut inbox = subscribe(&bus, module, &["p.*"]);
                scope.spawn(move || {
                    let mut last: HashMap<Arc<str>, u64> = HashMap::new();
                    let mut count = 0;
                    while count < 3 * EACH {
                        inbox.wait(None);
                        let taken = inbox.take(64);
                        for delivery in &taken {
                            let number = number(&delivery.event.data);
                            let expected = last.entry(delivery.event.topic.clone()).or_default();
                            assert_eq!(number, *expected);
                            *expected += 1;
                        }
                        let settled = taken.len();
                        count += settled as u64;
                        inbox.settle(settled, None);
                    }
                })
            })
            .into();
        for publisher in ["p.0", "p.1", "p.2"] {
            let bus = &bus;
            scope.spawn(move || {
                for number in 0..EACH {
                    bus.publish(vec![event(Ledger, publisher, number)], None).expect("room");
                }
            });
        }
        let auditor = scope.spawn(|| {
            while running.load(Ordering::SeqCst) {
                for counters in bus.counters() {
                    assert!(counters.ledger.balanced() && counters.live.balanced(), "{counters:?}");
                }
                assert_balanced(&bus);
            }
        });
        for reader in readers {
            reader.join().expect("all came in order");
        }
        running.store(false, Ordering::SeqCst);
        auditor.join().expect("the counters balanced");
    });
    assert!(bus.counters().iter().all(|counters| counters.ledger.handled == 3 * EACH));
}

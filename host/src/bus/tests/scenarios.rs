//! One promise each.

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use module_sdk::Class::{Ledger, Live};
use tempfile::tempdir;

use super::{
    super::{
        Bus, BusConfig, DropReason, Durability, Failure, FailureKind, MAX_EVENT_BYTES,
        SubscribeError, Tailed, Woken,
    },
    assert_balanced, config, drain, event, events, number, open, publish, subscribe,
};

fn failed() -> Option<Failure> {
    Some(Failure { kind: FailureKind::Failed, message: "no such column".to_owned() })
}

fn unavailable() -> Option<Failure> {
    Some(Failure { kind: FailureKind::Unavailable, message: "disk full".to_owned() })
}

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
    let books = bus.books();
    assert_eq!((books[0].ledger.handled, books[0].live.handled), (3, 2));
    assert_eq!((books[1].ledger.accepted, books[1].live.accepted), (2, 1));
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
    assert_eq!(bus.books()[0].ledger.pending, 197);
    assert!(bus.books()[0].oldest_pending_ms.is_some());
    assert_balanced(&bus);
    bus.close().expect("closed");
    drop(bus);
    let bus = open(directory.path());
    assert_eq!(bus.books()[0].ledger.pending, 197);
    assert!(bus.books()[0].oldest_pending_ms.is_some());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    assert_eq!(drain(&mut inbox), (3..200).collect::<Vec<_>>());
    assert_eq!(bus.books()[0].oldest_pending_ms, None);
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
    let live = bus.books()[0].live;
    assert_eq!(live.dropped.of(DropReason::Overflow), 84);
    assert_eq!(live.dropped.of(DropReason::Stopped), 4);
    assert_balanced(&bus);
    let inbox = subscribe(&bus, "tracker", &["a"]);
    publish(&bus, events(Live, "a", 104..106)).expect("accepted");
    inbox.hand_over();
    publish(&bus, events(Live, "a", 106..108)).expect("accepted");
    assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])), [104, 105, 106, 107]);
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
    let letters = bus.dead(Some("tracker")).expect("readable");
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].reason.as_str(), &*letters[0].event.data),
        ("no such column", &b"5"[..])
    );
    let dead = bus.books()[0].ledger;
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
    assert_eq!(bus.purge_dead("tracker", Some(&ids[..1])).expect("purged"), 1);
    assert_balanced(&bus);
    assert_eq!(bus.replay_dead("tracker", None).expect("replayed"), 1);
    drop((inbox, other));
    drop(bus);
    let bus = open(directory.path());
    assert_balanced(&bus);
    assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])), [2]);
    let tracker = &bus.books()[1].ledger;
    assert_eq!((tracker.accepted, tracker.handled, tracker.dead), (3, 2, 0));
    assert_eq!(tracker.dropped.of(DropReason::Purged), 1);
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
    assert_eq!(bus.books()[0].ledger.dead, 0);
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
    assert_eq!(bus.books()[0].live.dropped.of(DropReason::Failed), 1);
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
    assert!(inbox.next_due().is_some_and(|due| due > Instant::now() + hour / 2));
    assert_eq!(inbox.head_failures(), 1);
    assert!(inbox.reached(&mark), "a query does not wait for the next try");
    assert_eq!(inbox.wait(Some(Instant::now())), Woken::Deadline);
    inbox.poker().poke();
    assert_eq!(inbox.wait(None), Woken::Poked);
    drop(inbox);
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    let taken = inbox.take(9);
    assert_eq!((taken.len(), taken[0].attempt, taken[1].attempt), (3, 2, 1));
}

#[test]
fn a_mark_is_reached_when_all_before_it_is_settled() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    let poker = inbox.poker();
    assert!(inbox.reached(&inbox.mark()));
    publish(&bus, events(Ledger, "a", 0..40)).expect("accepted");
    publish(&bus, events(Live, "a", 40..42)).expect("accepted");
    publish(&bus, events(Ledger, "b", 0..2)).expect("accepted");
    let mark = poker.mark();
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
            let poker = inbox.poker();
            let sleeper = scope.spawn(move || {
                assert_eq!(inbox.wait(None), Woken::Events);
                assert_eq!(drain(&mut inbox), [1]);
                assert_eq!(inbox.wait(None), Woken::Poked);
            });
            publish(&bus, vec![event(class, "a", 1)]).expect("accepted");
            while bus.books()[0].total().pending > 0 {
                std::thread::yield_now();
            }
            poker.poke();
            sleeper.join().expect("it was woken");
        });
    }
}

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
        assert!(error.is_temporary() && error.to_string().contains("free space"), "{error}");
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
    let keep = || {
        let _housekeeping = bus.shared.housekeeping();
        let cursors = bus.shared.persist().expect("room");
        bus.shared.prune(&cursors).expect("pruned");
    };
    for _ in 0..20 {
        publish(&bus, events(Ledger, "a", 0..20)).expect("accepted");
    }
    keep();
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
    keep();
    let books = bus.books();
    let dropped = books[1].ledger.dropped.of(DropReason::Retention);
    assert!(dropped > 1_000, "{books:?}");
    assert_eq!(books[0].ledger.dropped.total(), 0);
    let bytes: u64 = bus.shared.ledger.list().iter().map(|info| info.bytes).sum();
    assert!(bytes <= 40 << 10, "{bytes}");
    assert_balanced(&bus);
    slow.settle(1, None);
    assert_balanced(&bus);
    assert_eq!(drain(&mut slow), (dropped + 1..2_001).collect::<Vec<_>>());
    keep();
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
    {
        let _housekeeping = bus.shared.housekeeping();
        let cursors = bus.shared.persist().expect("room");
        bus.shared.prune(&cursors).expect("pruned");
    }
    assert!(!oldest.exists());
    let ledger = bus.books()[0].ledger;
    let dropped = ledger.dropped.of(DropReason::Retention);
    assert!(dropped > 0 && ledger.pending == 200 - dropped, "{ledger:?}");
    assert_balanced(&bus);
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
    assert!(bus.books().is_empty());
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
    assert!(error.to_string().contains("4194305 bytes"), "{error}");
    let error = publish(&bus, vec![event(Live, "A", 1)]).expect_err("no topic");
    assert!(error.to_string().contains("`A` is not a topic"), "{error}");
    assert_eq!(bus.books()[0].total().accepted, 0);
    drop(inbox);
    bus.close().expect("closed");
    assert!(publish(&bus, vec![event(Live, "a", 1)]).is_err());
    assert!(publish(&bus, vec![event(Ledger, "a", 1)]).is_err());
}

#[test]
fn lost_cursors_mean_redelivery_not_loss() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    drop(subscribe(&bus, "tracker", &["a"]));
    publish(&bus, events(Ledger, "a", 0..5)).expect("accepted");
    bus.close().expect("closed");
    drop(bus);
    fs::write(directory.path().join("subscriptions.json"), b"{").expect("damaged");
    let bus = open(directory.path());
    assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])), [0, 1, 2, 3, 4]);
    assert_balanced(&bus);
}

#[test]
fn damage_in_the_middle_costs_what_it_hit_and_the_books_say_so() {
    let directory = tempdir().expect("a directory");
    let bus = open(directory.path());
    let mut inbox = subscribe(&bus, "tracker", &["a"]);
    for start in (0..200).step_by(10) {
        publish(&bus, events(Ledger, "a", start..start + 10)).expect("accepted");
    }
    let path = bus.shared.ledger.list()[1].path.clone();
    let mut bytes = fs::read(&path).expect("a segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&path, bytes).expect("damaged");
    let got = drain(&mut inbox);
    let ledger = bus.books()[0].ledger;
    let lost = ledger.dropped.of(DropReason::Lost);
    assert!(lost > 0 && got.len() as u64 == 200 - lost, "{ledger:?}");
    assert!(got.is_sorted() && got.last() == Some(&199));
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
    assert_eq!(bus.books()[0].ledger.dropped.of(DropReason::Lost), 6);
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
                        for delivery in taken {
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
                for books in bus.books() {
                    assert!(books.ledger.balanced() && books.live.balanced(), "{books:?}");
                }
                assert_balanced(&bus);
            }
        });
        for reader in readers {
            reader.join().expect("all came in order");
        }
        running.store(false, Ordering::SeqCst);
        auditor.join().expect("the books balanced");
    });
    assert!(bus.books().iter().all(|books| books.ledger.handled == 3 * EACH));
}

//! Tests of the bus's promises, on real files.

mod delivery;
mod failures;
mod former;
mod keeping;
mod losses;
mod model;
mod relays;
mod replay;

use std::{path::Path, sync::mpsc, time::Duration};

use module_sdk::Class;

use super::{Bus, BusConfig, Inbox, NewEvent, PublishError};

/// Returns a small and quick configuration: little memory, small files, no waiting.
fn config() -> BusConfig {
    BusConfig {
        inbox_events: 16,
        segment_bytes: 4 << 10,
        reserve_bytes: 64 << 10,
        retry_after: [Duration::ZERO; 4],
        unavailable_max: Duration::ZERO,
        ..BusConfig::default()
    }
}

fn open(directory: &Path) -> Bus {
    Bus::open(config(), directory).expect("the bus opens")
}

fn event(class: Class, topic: &str, number: u64) -> NewEvent {
    NewEvent {
        id: None,
        class,
        time_ns: 0,
        topic: topic.into(),
        source: "/lodestar/test".into(),
        subject: "".into(),
        traceparent: "".into(),
        data: number.to_string().into_bytes().into(),
    }
}

fn events(class: Class, topic: &str, numbers: std::ops::Range<u64>) -> Vec<NewEvent> {
    numbers.map(|number| event(class, topic, number)).collect()
}

/// Publishes and waits until all is accepted, or is not.
fn publish(bus: &Bus, events: Vec<NewEvent>) -> Result<(), PublishError> {
    let (sender, receiver) = mpsc::channel();
    bus.publish(events, Some(Box::new(move |result| drop(sender.send(result)))))?;
    receiver.recv().expect("the writer tells every publisher")
}

fn subscribe(bus: &Bus, module: &str, filters: &[&str]) -> Inbox {
    let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
    bus.subscribe(module, &filters).expect("the module subscribes")
}

fn number(data: &[u8]) -> u64 {
    std::str::from_utf8(data).expect("text").parse().expect("a number")
}

/// Takes and settles all that waits; returns the numbers in the order of delivery.
fn drain(inbox: &mut Inbox) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let taken = inbox.take(7);
        if taken.is_empty() {
            return numbers;
        }
        numbers.extend(taken.iter().map(|delivery| number(&delivery.event.data)));
        let count = taken.len();
        inbox.settle(count, None);
    }
}

fn assert_balanced(bus: &Bus) {
    for row in bus.audit().expect("the ledger can be read") {
        assert!(row.balanced, "{row:?} of {:?}", bus.counters());
    }
}

/// Runs the work of the maintenance thread once.
fn keep(bus: &Bus) {
    let _housekeeping = bus.shared.housekeeping();
    let cursors = bus.shared.persist().expect("room");
    bus.shared.prune(&cursors).expect("pruned");
}

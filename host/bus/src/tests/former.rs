//! Tests that a ledger of the previous format is read without loss.
//!
//! [`Former`] writes it byte by byte and shares no code with the ledger, so that a change of the
//! present format cannot change what this reads.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::tempdir;
use uuid::Uuid;

use super::{super::Bus, assert_balanced, drain, events, keep, open, publish, subscribe};

/// Writer of a directory as lodestard wrote it before segments had salts and cursors a copy:
///
/// * `segments/BASE.log`: `LODELOG` 0x01, the base as u64, then records: length u32, CRC-32 of the
///   payload u32, payload;
/// * payload: sequence u64, id, time u64, audience u8 (0 for all, 1 for a dead letter),
///   lengths u16 of module, topic, source, subject and traceparent, these texts, data;
/// * `dead/MODULE.log`: length u32, CRC-32 u32, then: time of failure in ms u64, attempts u32,
///   length u16 and text of the reason, a record;
/// * `subscriptions.json`: `{"format": 1, "modules": [...]}`, no checksum and no copy.
struct Former<'a> {
    directory: &'a Path,
}

impl<'a> Former<'a> {
    fn begin(directory: &'a Path) -> Self {
        fs::create_dir_all(directory.join("segments")).expect("a directory");
        fs::create_dir_all(directory.join("dead")).expect("a directory");
        Self { directory }
    }

    /// Writes a segment with the events from `base` to `last`, followed by the bytes `behind`.
    fn segment(&self, base: u64, last: u64, behind: &[u8]) {
        let mut bytes = b"LODELOG\x01".to_vec();
        bytes.extend(base.to_le_bytes());
        bytes.extend((base..=last).flat_map(|number| record(number, "")));
        bytes.extend(behind);
        fs::write(self.directory.join(format!("segments/{base:020}.log")), bytes).expect("written");
    }

    fn letter(&self, module: &str, number: u64) {
        let mut frame = 1_767_225_600_000_u64.to_le_bytes().to_vec();
        frame.extend(5_u32.to_le_bytes());
        frame.extend(9_u16.to_le_bytes());
        frame.extend(b"it failed");
        frame.extend(record(number, module));
        let path = self.directory.join(format!("dead/{module}.log"));
        fs::write(path, framed(&frame)).expect("written");
    }

    /// Writes the cursors: up to where each module has settled, and its dead letters.
    fn subscriptions(&self, seen: u64, modules: &[(&str, u64, u64)]) {
        let row = |(module, acked, dead): &(&str, u64, u64)| -> Value {
            json!({
                "module": module,
                "epochs": [{"from": 1, "filters": ["a"]}],
                "acked": acked,
                "seen": seen,
                "ledger": {"accepted": seen, "handled": acked - dead, "dead": dead, "dropped": {},
                           "pending": seen - acked},
                "live": {"accepted": 0, "handled": 0, "dead": 0, "dropped": {}, "pending": 0},
            })
        };
        let modules: Vec<Value> = modules.iter().map(row).collect();
        let text = serde_json::to_vec_pretty(&json!({"format": 1, "modules": modules}));
        let path = self.directory.join("subscriptions.json");
        fs::write(path, text.expect("JSON")).expect("written");
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is small");
    let crc = crc32fast::hash(payload);
    [&length.to_le_bytes()[..], &crc.to_le_bytes(), payload].concat()
}

/// Returns the record of an event whose content is its number; of a dead letter for `module`.
fn record(number: u64, module: &str) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.extend(id(number).as_bytes());
    payload.extend(7_u64.to_le_bytes());
    payload.push(u8::from(!module.is_empty()));
    let texts = [module, "a", "/lodestar/test", "", ""];
    for text in texts {
        payload.extend(u16::try_from(text.len()).expect("it is short").to_le_bytes());
    }
    texts.iter().for_each(|text| payload.extend(text.as_bytes()));
    payload.extend(number.to_string().as_bytes());
    framed(&payload)
}

/// Returns a version 7 UUID of the year 2026.
fn id(number: u64) -> Uuid {
    let ms = u128::from(1_767_225_600_000 + number);
    Uuid::from_u128(ms << 80 | 0x7000_8000_0000_0000_0000 | u128::from(number))
}

fn numbers(numbers: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    numbers.collect()
}

/// Opens the old ledger and checks that `late` gets all, `tracker` what it had not settled, each
/// once, over restarts as well.
fn taken_up(directory: &Path, last: u64) {
    let bus = open(directory);
    assert_eq!(bus.health().losses, []);
    assert_balanced(&bus);
    assert_eq!(drain(&mut subscribe(&bus, "tracker", &["a"])), numbers(41..=last));
    publish(&bus, events(module_sdk::Class::Ledger, "a", last + 1..last + 3)).expect("accepted");
    keep(&bus);
    drop(bus);
    let bus = open(directory);
    assert_eq!(bus.health().losses, []);
    assert_eq!(drain(&mut subscribe(&bus, "late", &["a"])), numbers(1..=last + 2));
    let mut tracker = subscribe(&bus, "tracker", &["a"]);
    assert_eq!(drain(&mut tracker), numbers(last + 1..=last + 2));
    let dead_letters = bus.dead(Some("tracker")).expect("readable");
    let letter = &dead_letters[0];
    assert_eq!((dead_letters.len(), letter.event.id, &*letter.reason), (1, id(7), "it failed"));
    assert_eq!(bus.replay_dead("tracker", None).expect("replayed"), 1);
    assert_eq!(drain(&mut tracker), [7]);
    assert_balanced(&bus);
    // What all have settled goes, the old segments as well.
    keep(&bus);
    let left = fs::read_dir(directory.join("segments")).expect("a directory").count();
    assert_eq!(left, 1);
    assert_eq!(counters(&bus), [last + 2, last + 2]);
}

fn counters(bus: &Bus) -> Vec<u64> {
    bus.counters().into_iter().map(|counters| counters.ledger.handled).collect()
}

#[test]
fn a_ledger_that_ended_in_order_is_taken_up() {
    let directory = tempdir().expect("a directory");
    let former = Former::begin(directory.path());
    former.segment(1, 30, b"");
    former.segment(31, 60, b"");
    former.letter("tracker", 7);
    former.subscriptions(60, &[("late", 0, 0), ("tracker", 40, 1)]);
    taken_up(directory.path(), 60);
}

#[test]
fn a_ledger_that_was_killed_is_taken_up() {
    // In the middle of a write, after its file grew, and before a segment got its first event.
    for behind in [&record(61, "")[..20], &[0; 4096], b""] {
        let directory = tempdir().expect("a directory");
        let former = Former::begin(directory.path());
        former.segment(1, 30, b"");
        former.segment(31, 60, behind);
        if behind.is_empty() {
            former.segment(61, 60, b"");
        }
        former.letter("tracker", 7);
        // The counters are older than the end of the ledger.
        former.subscriptions(50, &[("late", 0, 0), ("tracker", 40, 1)]);
        taken_up(directory.path(), 60);
    }
}

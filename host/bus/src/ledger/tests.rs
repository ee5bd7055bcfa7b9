//! Tests of what damage on disk costs, on real files.

use std::{
    fs,
    ops::Range,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use module_sdk::Class;
use proptest::prelude::*;
use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    Audience, Durability, Event, Extent, Ledger, Loss, LossKind, Losses, Memory, Opened, Reader,
    Reserve,
    record::{Framing, encode},
    segment::{HEADER_BYTES, Header, segment_name},
    segment_reader::disk,
};

/// A ledger on disk, written once and opened as often as a test needs.
struct Disk {
    directory: TempDir,
    /// Ranges of the records in the first segment.
    places: Vec<Range<usize>>,
    bytes: Vec<u8>,
}

fn event(sequence: u64, data: &[u8]) -> Event {
    Event {
        id: Uuid::now_v7(),
        time_ns: sequence,
        sequence,
        class: Class::Ledger,
        topic: "a.b".into(),
        source: "/lodestar/test".into(),
        subject: "".into(),
        traceparent: "".into(),
        data: data.into(),
    }
}

impl Disk {
    /// Creates one segment with these payloads.
    fn with(payloads: &[Vec<u8>]) -> Self {
        let disk = Self::empty();
        let mut opened = disk.open();
        let framing = opened.active.framing();
        let mut records = Vec::new();
        let places: Vec<Range<usize>> = (1..)
            .zip(payloads)
            .map(|(sequence, data)| {
                let begin = records.len();
                let event = event(sequence, data);
                encode(&event, &Audience::Subscribers, framing, &mut records);
                begin..records.len()
            })
            .collect();
        let header = usize::try_from(opened.active.bytes()).expect("a header is small");
        opened.active.append(&records, false).expect("room");
        let places = places.into_iter().map(|place| place.start + header..place.end + header);
        let bytes = fs::read(opened.active.path()).expect("a segment");
        Self { places: places.collect(), bytes, ..disk }
    }

    fn empty() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, places: Vec::new(), bytes: Vec::new() }
    }

    fn segments(&self) -> PathBuf {
        self.directory.path().join("segments")
    }

    fn segment(&self) -> PathBuf {
        self.segments().join(segment_name(1))
    }

    /// Puts the segment back, with these bytes instead of its own, and forgets all losses.
    fn put(&self, bytes: &[u8]) {
        for file in fs::read_dir(self.segments()).expect("a directory") {
            fs::remove_file(file.expect("an entry").path()).expect("removed");
        }
        drop(fs::remove_file(self.directory.path().join("losses.json")));
        fs::write(self.segment(), bytes).expect("written");
    }

    fn flip(&self, positions: &[(usize, u8)]) {
        let mut bytes = self.bytes.clone();
        positions.iter().for_each(|(at, bits)| bytes[*at] ^= bits);
        self.put(&bytes);
    }

    fn open(&self) -> Opened {
        open(self.directory.path(), &Memory::default())
    }

    /// Returns the records that these positions hit, from 0.
    fn hit(&self, positions: &[(usize, u8)]) -> Vec<usize> {
        let is_hit = |place: &Range<usize>| positions.iter().any(|(at, _)| place.contains(at));
        (0..self.places.len()).filter(|record| is_hit(&self.places[*record])).collect()
    }
}

fn open(directory: &Path, memory: &Memory) -> Opened {
    let segments = directory.join("segments");
    let (losses, reserve) = (Losses::open(directory), Reserve::open(directory, 0));
    Ledger::open(&segments, Durability::Process, 1 << 20, memory, losses, reserve).expect("opens")
}

/// Reads all records that can be read, and returns them with the number of damaged places.
fn read(opened: &Opened) -> (Vec<(u64, Vec<u8>)>, u64) {
    let mut records = Vec::new();
    let mut reader = Reader::at(1);
    let visited = reader.visit(&opened.ledger, opened.next - 1, |record| {
        records.push((record.sequence, record.to_event().data.into_vec()));
        true
    });
    visited.expect("readable");
    (records, reader.damaged())
}

fn told(opened: &Opened) -> Vec<(LossKind, u64, u64)> {
    let tell = |loss: Loss| (loss.kind, loss.first, loss.last);
    opened.ledger.losses.list().into_iter().map(tell).collect()
}

fn payloads(count: usize, bytes: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![b'a' + (number % 26) as u8; bytes + number % 7]).collect()
}

/// Opens and reads a damaged ledger, and checks that every record that was not hit is there, in
/// order, once, and that the others are noted as lost.
fn check(disk: &Disk, payloads: &[Vec<u8>], hit: &[usize], what: &dyn std::fmt::Debug) {
    let opened = disk.open();
    let expected: Vec<(u64, Vec<u8>)> = (0..payloads.len())
        .filter(|record| !hit.contains(record))
        .map(|record| (record as u64 + 1, payloads[record].clone()))
        .collect();
    let (records, damaged) = read(&opened);
    assert!(records == expected, "{what:?}: {:?}", records.iter().map(|r| r.0).collect::<Vec<_>>());
    assert_eq!(damaged > 0, !hit.is_empty(), "{what:?}");
    let told = told(&opened);
    for record in hit {
        let sequence = *record as u64 + 1;
        let is_named =
            |(_, first, last): &(LossKind, u64, u64)| (*first..=*last).contains(&sequence);
        assert!(told.iter().any(is_named), "{what:?}: {sequence} is not in {told:?}");
    }
    assert!(opened.next > payloads.len() as u64, "{what:?}: no number comes twice");
    // What is written from here on can be read as well.
    let mut opened = opened;
    let mut bytes = Vec::new();
    let after = event(opened.next, b"after");
    encode(&after, &Audience::Subscribers, opened.active.framing(), &mut bytes);
    opened.active.append(&bytes, false).expect("room");
    opened.next += 1;
    let last = read(&opened).0.pop().expect("there is one");
    assert_eq!(last, (opened.next - 1, b"after".to_vec()), "{what:?}");
    // And all is as it was after the next start.
    let next = opened.next;
    drop(opened);
    let opened = disk.open();
    assert_eq!((read(&opened).0.len(), opened.next), (expected.len() + 1, next), "{what:?}");
}

#[test]
fn each_byte_of_a_segment_costs_at_most_its_record() {
    let payloads = payloads(6, 20);
    let disk = Disk::with(&payloads);
    for at in 0..disk.bytes.len() {
        for bits in [0x01, 0x80, 0xff] {
            let positions = [(at, bits)];
            disk.flip(&positions);
            check(&disk, &payloads, &disk.hit(&positions), &positions);
        }
    }
}

#[test]
fn a_place_that_the_disk_cannot_read_costs_the_records_there() {
    let payloads = payloads(100, 900);
    let disk = Disk::with(&payloads);
    for place in [50_000_usize..50_001, 20_000..40_000, 0..4_096] {
        disk.put(&disk.bytes);
        disk::bad_place(place.start as u64..place.end as u64);
        let opened = disk.open();
        let (records, damaged) = read(&opened);
        disk::bad_place(0..0);
        let blocks = place.start / 4096 * 4096..place.end.div_ceil(4096) * 4096;
        let is_hit = |at: &Range<usize>| at.start < blocks.end && blocks.start < at.end;
        let hit = disk.places.iter().filter(|at| is_hit(at)).count();
        // Without its beginning a segment cannot be read at all.
        let left = if place.start == 0 { 0 } else { payloads.len() - hit };
        assert_eq!((records.len(), damaged > 0), (left, true), "{place:?}");
        assert!(!told(&opened).is_empty());
    }
}

#[test]
fn an_end_that_the_disk_cannot_read_now_is_not_cut() {
    let payloads = payloads(100, 900);
    let disk = Disk::with(&payloads);
    let end = disk.bytes.len();
    let room = [&disk.bytes[..], &[0; 20_000]].concat();
    let begun = [&disk.bytes[..], &disk.bytes[disk.places[50].start..][..500]].concat();
    for (bytes, place) in [
        (&disk.bytes[..], end - 1..end),
        (&disk.bytes[..], 40_000..end),
        (&disk.bytes[..], HEADER_BYTES + 4096..end),
        (&room[..], end + 4_096..end + 4_097),
        (&begun[..], end - 5_000..end + 1),
    ] {
        disk.put(bytes);
        disk::bad_place(place.start as u64..place.end as u64);
        let opened = disk.open();
        disk::bad_place(0..0);
        assert!(fs::read(disk.segment()).expect("a segment") == bytes, "{place:?}");
        let told = told(&opened);
        assert!(told.iter().any(|(kind, ..)| *kind == LossKind::Unreadable), "{told:?}");
        assert!(opened.next > 100, "{place:?}: no number comes twice");
        // All of them are there again, for a replay.
        let mut sequences = Vec::new();
        let visited = Reader::of_everything().visit(&opened.ledger, opened.next - 1, |record| {
            sequences.push(record.sequence);
            true
        });
        visited.expect("readable");
        assert_eq!(sequences, (1..=100).collect::<Vec<_>>(), "{place:?}");
    }
}

#[test]
fn a_payload_is_never_taken_for_records() {
    // As many forged records as fit, with every framing that a sender can make.
    let mut forged = Vec::new();
    for sequence in 1..40 {
        for framing in [Framing::Plain, Framing::Salted(0), Framing::Salted(7)] {
            encode(&event(sequence, b"forged"), &Audience::Subscribers, framing, &mut forged);
        }
    }
    let payloads = vec![b"first".to_vec(), forged, b"last".to_vec()];
    let disk = Disk::with(&payloads);
    for at in disk.places[1].start..disk.places[1].start + 12 {
        let positions = [(at, 0x10)];
        disk.flip(&positions);
        check(&disk, &payloads, &[1], &positions);
    }
    // Not even records of this very file come twice.
    let copied = disk.bytes[disk.places[0].clone()].to_vec();
    let mut bytes = disk.bytes.clone();
    bytes.splice(disk.places[2].start..disk.places[2].start, copied);
    disk.put(&bytes);
    let sequences: Vec<u64> = read(&disk.open()).0.into_iter().map(|record| record.0).collect();
    assert_eq!(sequences, [1, 2, 3]);
}

#[test]
fn a_segment_that_was_cut_or_emptied_is_told() {
    let payloads = payloads(6, 20);
    let disk = Disk::with(&payloads);
    let closed = Memory { floor: 6, segments: vec![1], is_closed: true };
    // After a kill others may have come behind what anybody remembers.
    let killed = Memory { is_closed: false, ..closed.clone() };
    let cases = (0..disk.bytes.len())
        .flat_map(|length| [(length, &closed, Extent::Exact), (length, &killed, Extent::AtLeast)]);
    for (length, memory, extent) in cases {
        disk.put(&disk.bytes[..length]);
        let opened = open(disk.directory.path(), memory);
        assert_eq!(opened.ledger.losses.list()[0].extent, extent, "{length}");
        let left = disk.places.iter().filter(|place| place.end <= length).count();
        assert_eq!(read(&opened).0.len(), left, "{length}");
        assert_eq!(opened.next, 7, "{length}");
        assert!(opened.is_hurt, "{length}");
        let told = told(&opened);
        assert_eq!(told, [(LossKind::Cut, left as u64 + 1, 6)], "{length}");
    }
}

#[test]
fn the_number_of_a_lost_event_is_never_given_again() {
    let payloads = payloads(6, 20);
    let disk = Disk::with(&payloads);
    let mut bytes = disk.bytes.clone();
    bytes[disk.places[5].end - 1] ^= 1;
    disk.put(&bytes);
    let opened = disk.open();
    assert_eq!((told(&opened), opened.next), (vec![(LossKind::Damaged, 6, 6)], 7));
    drop(opened);
    // Then a power cut takes the end of the file, before anybody has written down that it was seen.
    fs::write(disk.segment(), &bytes[..disk.places[3].end]).expect("written");
    let opened = disk.open();
    assert_eq!(opened.next, 7);
    assert!(told(&opened).contains(&(LossKind::Cut, 5, 6)), "{:?}", told(&opened));
}

#[test]
fn a_segment_that_is_gone_or_no_file_is_told() {
    let payloads = payloads(6, 20);
    let disk = Disk::with(&payloads);
    let memory = Memory { floor: 6, segments: vec![1], is_closed: false };
    fs::remove_file(disk.segment()).expect("removed");
    let opened = open(disk.directory.path(), &memory);
    assert_eq!((told(&opened), opened.next), (vec![(LossKind::Missing, 1, 6)], 7));
    assert_eq!(opened.ledger.losses.list()[0].extent, Extent::AtLeast);
    drop(opened);
    // A pipe would be waited for.
    for is_pipe in [false, true] {
        let disk = Disk::with(&payloads);
        fs::remove_file(disk.segment()).expect("removed");
        if is_pipe {
            mkfifoat(CWD, disk.segment(), Mode::RWXU).expect("a pipe");
        } else {
            fs::create_dir(disk.segment()).expect("a directory");
        }
        let opened = open(disk.directory.path(), &memory);
        let told = told(&opened);
        assert_eq!((told.len(), told[0].0, told[0].1), (1, LossKind::Unreadable, 1), "{told:?}");
        assert!(opened.next > 6);
    }
}

#[test]
fn a_damaged_end_that_was_cut_as_well_is_told_whole() {
    let payloads = payloads(6, 20);
    let disk = Disk::with(&payloads);
    for (floor, is_closed, last, extent) in [
        // What lies there is room for one record at most, and four more were remembered.
        (6, true, 6, Extent::Exact),
        (6, false, 6, Extent::AtLeast),
        (2, true, 3, Extent::AtMost),
    ] {
        let end = disk.places[1].end;
        disk.put(&[&disk.bytes[..end], &[0xff; 20]].concat());
        let memory = Memory { floor, segments: vec![1], is_closed };
        let opened = open(disk.directory.path(), &memory);
        let loss = opened.ledger.losses.list().remove(0);
        assert_eq!((loss.first, loss.last, loss.extent), (3, last, extent), "{floor}");
        assert_eq!(opened.next, last + 1);
    }
}

#[test]
fn nothing_is_written_through_a_link() {
    let payloads = payloads(6, 20);
    let disk = Disk::with(&payloads);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let target = elsewhere.path().join("somebody's file");
    let link = |bytes: &[u8], at: &Path| {
        fs::write(&target, bytes).expect("written");
        drop(fs::remove_file(at));
        symlink(&target, at).expect("a link");
    };
    // A segment that was moved elsewhere is read, and what comes goes to one of our own; so it is
    // where its end or its header would be mended.
    let torn = &disk.bytes[..disk.places[5].end - 3];
    let mut damaged = disk.bytes.clone();
    damaged[3] ^= 1;
    for (bytes, left) in [(&disk.bytes[..], 6), (torn, 5), (&damaged[..], 6)] {
        disk.put(&[]);
        link(bytes, &disk.segment());
        let mut opened = disk.open();
        assert_eq!((read(&opened).0.len(), opened.next), (left, left as u64 + 1));
        let mut more = Vec::new();
        let after = event(opened.next, b"after");
        encode(&after, &Audience::Subscribers, opened.active.framing(), &mut more);
        opened.active.append(&more, false).expect("room");
        opened.next += 1;
        assert_eq!(read(&opened).0.len(), left + 1);
        assert!(fs::read(&target).expect("it is there") == bytes);
    }
    // In the place of the next segment it gives way to it.
    disk.put(&disk.bytes);
    let opened = disk.open();
    link(b"not ours", &disk.segments().join(segment_name(7)));
    opened.ledger.begin_segment(7).expect("begun");
    assert_eq!(fs::read(&target).expect("it is there"), b"not ours");
    // One that leads nowhere, in a circle or to what is no segment keeps no daemon down.
    for to in ["nowhere", "../segments/00000000000000000001.log", "/etc/passwd"] {
        disk.put(&[]);
        fs::remove_file(disk.segment()).expect("removed");
        symlink(to, disk.segment()).expect("a link");
        let opened = disk.open();
        assert_eq!(told(&opened)[0].0, LossKind::Unreadable, "{to}");
        assert!(disk.segment().is_symlink(), "{to}");
    }
}

#[test]
fn a_segment_of_the_format_before_is_read_and_never_written() {
    let disk = Disk::empty();
    drop(disk.open());
    let mut bytes = b"LODELOG\x01\x01\0\0\0\0\0\0\0".to_vec();
    let mut ends = vec![bytes.len()];
    for sequence in 1..=4 {
        encode(&event(sequence, b"old"), &Audience::Subscribers, Framing::Plain, &mut bytes);
        ends.push(bytes.len());
    }
    assert_eq!(Header::read(&bytes).expect("a header").framing, Framing::Plain);
    // Whole, torn, and damaged in the middle: what comes after damage is lost, as it was.
    let mut damaged = bytes.clone();
    damaged[ends[2] + 20] ^= 1;
    let torn = &bytes[..ends[3] + 5];
    for (content, left, next) in [(&bytes[..], 4, 5), (torn, 3, 4), (&damaged[..], 2, 6)] {
        disk.put(content);
        let mut opened = disk.open();
        assert_eq!((read(&opened).0.len(), opened.next), (left, next));
        let mut more = Vec::new();
        let framing = opened.active.framing();
        assert_ne!(framing, Framing::Plain);
        encode(&event(opened.next, b"new"), &Audience::Subscribers, framing, &mut more);
        opened.active.append(&more, false).expect("room");
        opened.next += 1;
        assert_eq!(read(&opened).0.len(), left + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_flips_cost_only_what_they_hit(
        count in 1_usize..400,
        bytes in 0_usize..600,
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 1_u8..), 1..12),
    ) {
        let payloads = payloads(count, bytes);
        let disk = Disk::with(&payloads);
        // Both copies of the header at once are more than a segment stands.
        let first = disk.places[0].start;
        let positions: Vec<(usize, u8)> = flips
            .iter()
            .map(|(at, bits)| (first + at.index(disk.bytes.len() - first), *bits))
            .collect();
        let mut apart = positions.clone();
        apart.sort_unstable();
        apart.dedup_by_key(|(at, _)| *at);
        disk.flip(&apart);
        check(&disk, &payloads, &disk.hit(&apart), &apart);
    }
}

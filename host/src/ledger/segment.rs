//! The segment file that is being written.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{
    LedgerError, io_error,
    reader::{SegmentReader, Step},
};

/// Magic (with the format's version as its last byte) and base sequence.
pub(crate) const HEADER_BYTES: usize = 16;
const MAGIC: [u8; 8] = *b"LODELOG\x01";

/// The base sequence, or `None` where this is no whole header of ours.
pub(crate) fn check_header(header: &[u8; HEADER_BYTES]) -> Option<u64> {
    let (magic, base) = header.split_first_chunk::<8>()?;
    (*magic == MAGIC).then(|| u64::from_le_bytes(base.try_into().unwrap_or_default()))
}

/// The name of a segment sorts like its base sequence.
pub(crate) fn segment_name(base: u64) -> String {
    format!("{base:020}.log")
}

/// The base sequence in a file's name.
pub(crate) fn segment_base(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()
}

/// An open segment, positioned at its end.
#[derive(Debug)]
pub(crate) struct Segment {
    file: File,
    path: PathBuf,
    bytes: u64,
    /// A write failed and its beginning could not be cut off yet.
    torn: bool,
}

/// What was found in a segment at start.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The sequence of its last whole record, if it has one.
    pub(crate) last: Option<u64>,
    /// When its first record was accepted, in milliseconds since the Unix epoch.
    pub(crate) first_ms: u64,
    /// What was cut off its end, in bytes.
    pub(crate) cut_bytes: u64,
}

impl Segment {
    /// Begins a segment. With `durable` its name survives a power cut.
    pub(crate) fn create(directory: &Path, base: u64, durable: bool) -> io::Result<Self> {
        let path = directory.join(segment_name(base));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..].copy_from_slice(&base.to_le_bytes());
        let written = file.write_all_at(&header, 0).and_then(|()| {
            if durable {
                file.sync_all()?;
                File::open(directory)?.sync_all()?;
            }
            Ok(())
        });
        if let Err(error) = written {
            // What stayed would be taken for a segment whose name others may outgrow.
            drop(std::fs::remove_file(&path));
            return Err(error);
        }
        Ok(Self { file, path, bytes: HEADER_BYTES as u64, torn: false })
    }

    /// Opens the last segment after a stop of any kind: what follows the last whole record is cut
    /// off. `None` when not even the header is whole.
    pub(crate) fn recover(path: &Path) -> Result<Option<(Self, Found)>, LedgerError> {
        let read = |error| io_error("read the event ledger segment", path)(error);
        let Some(mut reader) = SegmentReader::open(path).map_err(read)? else {
            return Ok(None);
        };
        let mut found = Found::default();
        while let Step::Record(record) = reader.next().map_err(read)? {
            if found.last.is_none() {
                found.first_ms = record.accepted_ms();
            }
            found.last = Some(record.sequence);
        }
        let bytes = reader.offset();
        let open = || -> io::Result<(File, u64)> {
            let file = OpenOptions::new().write(true).open(path)?;
            let cut = file.metadata()?.len().saturating_sub(bytes);
            if cut > 0 {
                file.set_len(bytes)?;
            }
            Ok((file, cut))
        };
        let (file, cut) = open().map_err(io_error("repair the event ledger segment", path))?;
        found.cut_bytes = cut;
        Ok(Some((Self { file, path: path.to_owned(), bytes, torn: false }, found)))
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes whole records, all or none: what a failed write left is cut off again, at the
    /// latest before the next one.
    pub(crate) fn append(&mut self, records: &[u8], durable: bool) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.bytes)?;
            self.torn = false;
        }
        let written = write_at(&self.file, records, self.bytes)
            .and_then(|()| if durable { self.file.sync_data() } else { Ok(()) });
        match written {
            Ok(()) => self.bytes += records.len() as u64,
            Err(_) => self.torn = self.file.set_len(self.bytes).is_err(),
        }
        written
    }
}

#[cfg(not(test))]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    file.write_all_at(bytes, at)
}

/// As in production, on a disk that is as large as the test says.
#[cfg(test)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let room = full_disk::room(bytes.len());
    file.write_all_at(&bytes[..room], at)?;
    if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

/// A disk that fills up, for the writer thread of one test.
#[cfg(test)]
pub(crate) mod full_disk {
    use std::{
        cell::RefCell,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    thread_local! {
        static LEFT: RefCell<Option<Arc<AtomicUsize>>> = const { RefCell::new(None) };
    }

    /// From here on this thread's segments share so many bytes.
    pub(crate) fn limit(left: Option<Arc<AtomicUsize>>) {
        LEFT.with_borrow_mut(|slot| *slot = left);
    }

    pub(super) fn room(wanted: usize) -> usize {
        LEFT.with_borrow(|left| match left {
            Some(left) => {
                let room = left.load(Ordering::SeqCst).min(wanted);
                left.fetch_sub(room, Ordering::SeqCst);
                room
            }
            None => wanted,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicUsize};

    use module_sdk::Class;
    use uuid::Uuid;

    use super::*;
    use crate::ledger::{Audience, Event, record::encode};

    fn records(sequences: std::ops::Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for sequence in sequences {
            let event = Event {
                id: Uuid::now_v7(),
                time_ns: 1,
                sequence,
                class: Class::Ledger,
                topic: "a.b".into(),
                source: "/lodestar/test".into(),
                subject: "".into(),
                traceparent: "".into(),
                data: vec![b'x'; sequence as usize * 10].into(),
            };
            encode(&event, &Audience::Subscribers, &mut bytes);
        }
        bytes
    }

    #[test]
    fn a_torn_tail_is_cut_wherever_it_is_torn() {
        let directory = tempfile::tempdir().expect("a directory");
        let whole = records(1..4).len() as u64;
        let all = records(1..5);
        for end in whole..all.len() as u64 {
            let mut segment = Segment::create(directory.path(), 1, false).expect("a segment");
            segment.append(&all, false).expect("room");
            segment.file.set_len(HEADER_BYTES as u64 + end).expect("cut");
            let path = segment.path().to_owned();
            let (mut segment, found) = Segment::recover(&path).expect("read").expect("a header");
            assert_eq!((found.last, found.cut_bytes), (Some(3), end - whole), "cut at {end}");
            segment.append(&records(4..6), false).expect("room");
            let (_, found) = Segment::recover(&path).expect("read").expect("a header");
            assert_eq!((found.last, found.cut_bytes), (Some(5), 0));
        }
    }

    #[test]
    fn damage_and_zeros_end_a_segment_and_half_a_header_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut segment = Segment::create(directory.path(), 1, true).expect("a segment");
        segment.append(&records(1..4), true).expect("room");
        let path = segment.path().to_owned();
        segment.file.write_all_at(&[0; 100], segment.bytes).expect("zeros");
        let (segment, found) = Segment::recover(&path).expect("read").expect("a header");
        assert_eq!((found.last, found.cut_bytes), (Some(3), 100));
        segment.file.write_all_at(b"y", segment.bytes - 1).expect("damage");
        let (segment, found) = Segment::recover(&path).expect("read").expect("a header");
        assert_eq!(found.last, Some(2));
        segment.file.set_len(HEADER_BYTES as u64 - 1).expect("cut");
        assert!(Segment::recover(&path).expect("read").is_none());
    }

    #[test]
    fn a_full_disk_leaves_nothing_of_the_write() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut segment = Segment::create(directory.path(), 1, false).expect("a segment");
        segment.append(&records(1..3), false).expect("room");
        let before = segment.bytes();
        full_disk::limit(Some(Arc::new(AtomicUsize::new(70))));
        let error = segment.append(&records(3..6), false).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::metadata(segment.path()).expect("a file").len(), before);
        full_disk::limit(None);
        segment.append(&records(3..4), false).expect("room again");
        let path = segment.path().to_owned();
        let (_, found) = Segment::recover(&path).expect("read").expect("a header");
        assert_eq!((found.last, found.cut_bytes), (Some(3), 0));
    }
}

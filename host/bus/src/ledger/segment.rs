//! The segment file that is being written.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{
    LedgerError, io_error,
    record::{Framing, MIN_RECORD_BYTES},
    segment_reader::{SegmentReader, Step, TornEnd},
};

/// Size of the header, in bytes: two copies of magic (with the format's version as its last byte),
/// base sequence, salt, and the checksum of these.
pub(crate) const HEADER_BYTES: usize = 2 * COPY_BYTES;
const COPY_BYTES: usize = 24;
const MAGIC: [u8; 8] = *b"LODELOG\x02";
/// Size of the header of format 1, in bytes: magic and base sequence, once. Its records are framed
/// plainly.
const OLD_HEADER_BYTES: usize = 16;
const OLD_MAGIC: [u8; 8] = *b"LODELOG\x01";

/// Header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) base: u64,
    pub(crate) framing: Framing,
    pub(crate) bytes: u64,
}

impl Header {
    fn new(base: u64) -> Self {
        // The last bits of a UUIDv7 are random.
        let random = Uuid::now_v7().into_bytes();
        let salt = u32::from_le_bytes([random[12], random[13], random[14], random[15]]);
        Self { base, framing: Framing::Salted(salt), bytes: HEADER_BYTES as u64 }
    }

    fn encode(&self) -> Vec<u8> {
        let Framing::Salted(salt) = self.framing else { return Vec::new() };
        let mut copy = MAGIC.to_vec();
        copy.extend_from_slice(&self.base.to_le_bytes());
        copy.extend_from_slice(&salt.to_le_bytes());
        copy.extend_from_slice(&crc32fast::hash(&copy).to_le_bytes());
        copy.repeat(2)
    }

    /// Returns whether both copies of the header stand at the beginning of a segment.
    pub(crate) fn is_whole(&self, start: &[u8]) -> bool {
        self.framing == Framing::Plain || start.starts_with(&self.encode())
    }

    /// Reads the header at the beginning of a segment; `None` where no copy of it is whole.
    pub(crate) fn read(start: &[u8]) -> Option<Self> {
        let copies = start.get(..HEADER_BYTES).unwrap_or_default().chunks_exact(COPY_BYTES);
        copies.into_iter().find_map(Self::read_copy).or_else(|| Self::read_old(start))
    }

    fn read_copy(copy: &[u8]) -> Option<Self> {
        let (content, crc) = copy.split_last_chunk::<4>()?;
        let (magic, rest) = content.split_first_chunk::<8>()?;
        let (base, salt) = rest.split_first_chunk::<8>()?;
        let salt = u32::from_le_bytes(*salt.first_chunk()?);
        let fits = *magic == MAGIC && crc32fast::hash(content).to_le_bytes() == *crc;
        fits.then(|| Self {
            base: u64::from_le_bytes(*base),
            framing: Framing::Salted(salt),
            bytes: HEADER_BYTES as u64,
        })
    }

    fn read_old(start: &[u8]) -> Option<Self> {
        let (magic, rest) = start.split_first_chunk::<8>()?;
        let base = u64::from_le_bytes(*rest.first_chunk()?);
        (*magic == OLD_MAGIC).then_some(Self {
            base,
            framing: Framing::Plain,
            bytes: OLD_HEADER_BYTES as u64,
        })
    }
}

/// Returns the name of a segment, which sorts like its base sequence.
pub(crate) fn segment_name(base: u64) -> String {
    format!("{base:020}.log")
}

/// Returns the base sequence in a file's name.
pub(crate) fn segment_base(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()
}

/// An open segment, positioned at its end.
#[derive(Debug)]
pub(crate) struct Segment {
    file: File,
    path: PathBuf,
    framing: Framing,
    bytes: u64,
    /// True when the segment has format 1, or is a link to a file elsewhere: nothing is written to
    /// it nor cut off it.
    is_read_only: bool,
    /// True when a write failed and its beginning could not be cut off yet.
    torn: bool,
}

/// Content of a segment, as it was found at start.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The sequence of its last record, if it has or had one.
    pub(crate) last: Option<u64>,
    /// Time when its first record was accepted, in milliseconds since the Unix epoch.
    pub(crate) first_ms: u64,
    /// Size of an unfinished write that was cut off its end, in bytes.
    pub(crate) cut_bytes: u64,
    /// First and last sequence of damaged records that others follow.
    pub(crate) damaged: Vec<(u64, u64)>,
    /// Number of records, at most, that are lost in a damaged end, which stays.
    pub(crate) lost_at_end: u64,
    /// True when the disk could not read that end.
    pub(crate) is_end_unread: bool,
}

impl Segment {
    /// Creates a segment. With `durable` its name survives a power cut.
    pub(crate) fn create(directory: &Path, base: u64, durable: bool) -> io::Result<Self> {
        let path = directory.join(segment_name(base));
        // One that got no event has the same name. A link may lead to a file of somebody else.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let header = Header::new(base);
        let written = file.write_all_at(&header.encode(), 0).and_then(|()| {
            if durable {
                file.sync_all()?;
                File::open(directory)?.sync_all()?;
            }
            Ok(())
        });
        if let Err(error) = written {
            // What stayed would be taken for a segment whose name others may outgrow.
            drop(fs::remove_file(&path));
            return Err(error);
        }
        let (framing, bytes) = (header.framing, header.bytes);
        Ok(Self { file, path, framing, bytes, is_read_only: false, torn: false })
    }

    /// Opens the last segment after a stop of any kind: an unfinished write is cut off its end,
    /// unless it is read-only; damage stays. `None` when not even the header is whole.
    pub(crate) fn recover(path: &Path) -> Result<Option<(Self, Found)>, LedgerError> {
        let read = |error| io_error("read the event ledger segment", path)(error);
        let Some(mut reader) = SegmentReader::open(path).map_err(read)? else {
            return Ok(None);
        };
        let mut found = Found::default();
        let end = loop {
            match reader.next().map_err(read)? {
                Step::Record(record) => {
                    if found.first_ms == 0 {
                        found.first_ms = record.accepted_ms();
                    }
                    found.last = Some(record.sequence);
                }
                Step::Gap { first, last } => {
                    found.damaged.push((first, last));
                    found.last = Some(last);
                }
                Step::End => break None,
                Step::Torn(end) => break Some(end),
            }
        };
        let bytes = reader.offset();
        let framing = reader.framing();
        let open = || -> io::Result<(File, u64, bool)> {
            let is_read_only =
                framing == Framing::Plain || fs::symlink_metadata(path)?.is_symlink();
            let mut options = OpenOptions::new();
            let file = options.read(is_read_only).write(!is_read_only).open(path)?;
            let rest = file.metadata()?.len().saturating_sub(bytes);
            Ok((file, rest, is_read_only))
        };
        let repair = |error| io_error("repair the event ledger segment", path)(error);
        let (file, rest, is_read_only) = open().map_err(repair)?;
        if let Some(header) = reader.damaged_header().filter(|_| !is_read_only) {
            // While one copy is whole: the next damage may hit that one.
            file.write_all_at(&header.encode(), 0).map_err(repair)?;
        }
        if !end.is_some_and(TornEnd::is_unfinished_write) {
            found.lost_at_end = rest.div_ceil(MIN_RECORD_BYTES);
            found.is_end_unread = end == Some(TornEnd::Unread);
        } else if !is_read_only {
            file.set_len(bytes).map_err(repair)?;
            found.cut_bytes = rest;
        }
        let path = path.to_owned();
        Ok(Some((Self { file, path, framing, bytes, is_read_only, torn: false }, found)))
    }

    /// Returns the framing of its records.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// Returns whether events may be appended to the segment.
    pub(crate) fn is_writable(&self) -> bool {
        !self.is_read_only
    }

    /// Returns whether there is no file at the path of the segment any more.
    pub(crate) fn is_gone(&self) -> bool {
        let found = self.path.symlink_metadata();
        found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the size of the file, in bytes.
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

/// Writes as in production, on a disk that is as large as the test says.
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

    /// Limits the bytes that this thread's segments may still take together.
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

    fn records(framing: Framing, sequences: std::ops::Range<u64>) -> Vec<u8> {
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
            encode(&event, &Audience::Subscribers, framing, &mut bytes);
        }
        bytes
    }

    /// Creates a segment that begins with these events.
    fn segment(directory: &Path, durable: bool, sequences: std::ops::Range<u64>) -> Segment {
        let mut segment = Segment::create(directory, 1, durable).expect("a segment");
        segment.append(&records(segment.framing, sequences), durable).expect("room");
        segment
    }

    #[test]
    fn a_torn_tail_is_cut_wherever_it_is_torn() {
        let directory = tempfile::tempdir().expect("a directory");
        let whole = segment(directory.path(), false, 1..4).bytes;
        for end in whole..segment(directory.path(), false, 1..5).bytes {
            let segment = segment(directory.path(), false, 1..5);
            segment.file.set_len(end).expect("cut");
            let path = segment.path().to_owned();
            let (mut segment, found) = Segment::recover(&path).expect("read").expect("a header");
            assert_eq!((found.last, found.cut_bytes), (Some(3), end - whole), "cut at {end}");
            segment.append(&records(segment.framing, 4..6), false).expect("room");
            let (_, found) = Segment::recover(&path).expect("read").expect("a header");
            assert_eq!((found.last, found.cut_bytes), (Some(5), 0));
        }
    }

    #[test]
    fn zeros_are_cut_damage_stays_and_half_a_header_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let segment = segment(directory.path(), true, 1..4);
        let path = segment.path().to_owned();
        segment.file.write_all_at(&[0; 100], segment.bytes).expect("zeros");
        let (segment, found) = Segment::recover(&path).expect("read").expect("a header");
        assert_eq!((found.last, found.cut_bytes), (Some(3), 100));
        segment.file.write_all_at(b"y", segment.bytes - 1).expect("damage");
        let (segment, found) = Segment::recover(&path).expect("read").expect("a header");
        assert_eq!((found.last, &*found.damaged), (Some(3), &[(3, 3)][..]));
        segment.file.write_all_at(&[1; 100], segment.bytes).expect("damage");
        let (segment, found) = Segment::recover(&path).expect("read").expect("a header");
        assert_eq!((found.last, found.cut_bytes, found.lost_at_end), (Some(3), 0, 2));
        segment.file.set_len(HEADER_BYTES as u64 - 1).expect("cut");
        assert!(Segment::recover(&path).expect("read").is_none());
    }

    #[test]
    fn a_damaged_copy_of_the_header_is_written_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let segment = segment(directory.path(), false, 1..4);
        let path = segment.path().to_owned();
        let whole = std::fs::read(&path).expect("a segment");
        for at in [3, 20, 30, 47] {
            segment.file.write_all_at(&[whole[at] ^ 1], at as u64).expect("damage");
            let (_, found) = Segment::recover(&path).expect("read").expect("a header");
            assert_eq!((found.last, found.damaged.len()), (Some(3), 0));
            assert_eq!(std::fs::read(&path).expect("a segment"), whole);
        }
    }

    #[test]
    fn a_full_disk_leaves_nothing_of_the_write() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut segment = segment(directory.path(), false, 1..3);
        let before = segment.bytes();
        full_disk::limit(Some(Arc::new(AtomicUsize::new(70))));
        let more = records(segment.framing, 3..6);
        let error = segment.append(&more, false).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::metadata(segment.path()).expect("a file").len(), before);
        full_disk::limit(None);
        segment.append(&records(segment.framing, 3..4), false).expect("room again");
        let path = segment.path().to_owned();
        let (_, found) = Segment::recover(&path).expect("read").expect("a header");
        assert_eq!((found.last, found.cut_bytes), (Some(3), 0));
    }
}

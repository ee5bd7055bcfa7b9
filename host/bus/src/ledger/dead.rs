//! The dead letters of one subscriber: events that its handler failed five times.
//!
//! A file of frames, appended to; a replay or a purge writes it anew. A frame is `length u32 ·
//! crc32 u32 · failed_at_ms u64 · attempts u32 · reason length u16 · reason · record`, with the
//! record as in a segment. What is no frame is passed over, byte by byte.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use lodestar_platform::files;

use super::{
    Audience, RawRecord, SharedEvent,
    record::{Framing, encode},
};

/// Largest size of one module's dead letters, in bytes; beyond it the oldest half goes.
const MAX_BYTES: u64 = 16 << 20;
/// Size of the prefix of a frame and of the record in it, in bytes.
const PREFIX_BYTES: usize = Framing::Plain.bytes();
/// Largest part of a reason that is kept, in bytes.
const REASON_BYTES: usize = 1000;
/// Mark at the beginning of a file that was written anew after damage. It is no frame, so that the
/// damage stays known.
const DAMAGED: [u8; PREFIX_BYTES] = [0; PREFIX_BYTES];

/// An event that a module could not handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The module.
    pub module: Arc<str>,
    /// The event.
    pub event: SharedEvent,
    /// Error message of the handler at the last attempt.
    pub reason: String,
    /// Number of times the event was delivered.
    pub attempts: u32,
    /// Time when the event was given up, in milliseconds since the Unix epoch.
    pub failed_at_ms: u64,
}

/// The file with the dead letters of one module.
#[derive(Debug)]
pub(crate) struct DeadStore {
    module: Arc<str>,
    path: PathBuf,
    sync: bool,
    max_bytes: u64,
    /// End of the file, once it is known. The lock is held while the file changes.
    end: Mutex<Option<u64>>,
}

impl DeadStore {
    /// Returns the store of `module` in `directory`, which exists. The file comes with the first
    /// letter.
    pub(crate) fn new(directory: &Path, module: Arc<str>, sync: bool) -> Self {
        let path = directory.join(format!("{module}.log"));
        Self { module, path, sync, max_bytes: MAX_BYTES, end: Mutex::new(None) }
    }

    /// Returns the module whose dead letters these are.
    pub(crate) fn module(&self) -> &str {
        &self.module
    }

    /// Adds a letter; returns how many old ones were removed for it.
    pub(crate) fn append(&self, letter: &DeadLetter) -> io::Result<u64> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let at = match *end {
            Some(at) => at,
            None => self.scan()?.bytes,
        };
        let frame = frame(letter);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?;
        let written = file.write_all_at(&frame, at).and_then(|()| self.flush(&file));
        if let Err(error) = written {
            drop(file.set_len(at));
            return Err(error);
        }
        *end = Some(at + frame.len() as u64);
        if at + frame.len() as u64 <= self.max_bytes {
            return Ok(0);
        }
        let Scan { dead_letters, is_whole, .. } = self.scan()?;
        let gone = dead_letters.len() / 2;
        match self
            .write(&dead_letters[gone..], is_whole)
            .and_then(|bytes| self.replace().map(|()| bytes))
        {
            Ok(bytes) => *end = Some(bytes),
            Err(error) => {
                tracing::warn!(module = %self.module, %error, "cannot shorten the dead letters");
                return Ok(0);
            }
        }
        Ok(gone as u64)
    }

    /// Returns all letters, oldest first.
    pub(crate) fn read(&self) -> io::Result<Vec<DeadLetter>> {
        let _end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.scan()?.dead_letters)
    }

    /// Takes the letters for which `select` holds out of the file, once `done` with them has
    /// succeeded. No letter is added meanwhile.
    pub(crate) fn take<E: From<io::Error>>(
        &self,
        select: impl FnMut(&DeadLetter) -> bool,
        done: impl FnOnce(&[DeadLetter]) -> Result<(), E>,
    ) -> Result<Taken, E> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let Scan { dead_letters, bytes, is_whole } = self.scan()?;
        let (out, stay): (Vec<_>, Vec<_>) = dead_letters.into_iter().partition(select);
        let taken = Taken { gone: out.len() as u64, stay: stay.len() as u64, is_whole };
        if out.is_empty() {
            *end = Some(bytes);
            return Ok(taken);
        }
        // Whatever needs room comes first, so that a full disk leaves all as it was.
        let bytes = self.write(&stay, is_whole)?;
        done(&out)?;
        self.replace()?;
        *end = Some(bytes);
        Ok(taken)
    }

    /// Removes the file.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        *end = None;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes a new file beside the old one; returns its size.
    fn write(&self, dead_letters: &[DeadLetter], is_whole: bool) -> io::Result<u64> {
        let mut bytes = if is_whole { Vec::new() } else { DAMAGED.to_vec() };
        bytes.extend(dead_letters.iter().flat_map(frame));
        let file = File::create(self.path.with_extension("log.new"))?;
        file.write_all_at(&bytes, 0)?;
        self.flush(&file)?;
        Ok(bytes.len() as u64)
    }

    fn replace(&self) -> io::Result<()> {
        fs::rename(self.path.with_extension("log.new"), &self.path)
    }

    fn flush(&self, file: &File) -> io::Result<()> {
        if self.sync { file.sync_data() } else { Ok(()) }
    }

    /// Reads the letters in the file.
    fn scan(&self) -> io::Result<Scan> {
        let mut bytes = Vec::new();
        match files::open(&self.path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Scan::default()),
            Err(error) => return Err(error),
        }
        let mut scan = Scan { is_whole: true, bytes: bytes.len() as u64, dead_letters: Vec::new() };
        let mut at = 0;
        while at < bytes.len() {
            if let Some((letter, length)) = self.parse(&bytes[at..]) {
                scan.dead_letters.push(letter);
                at += length;
            } else {
                scan.is_whole = false;
                at += 1;
            }
        }
        Ok(scan)
    }

    fn parse(&self, bytes: &[u8]) -> Option<(DeadLetter, usize)> {
        let (length, crc) = Framing::Plain.prefix(bytes)?;
        let payload = bytes.get(PREFIX_BYTES..PREFIX_BYTES + length)?;
        let (failed_at_ms, rest) = payload.split_first_chunk::<8>()?;
        let (attempts, rest) = rest.split_first_chunk::<4>()?;
        let (reason_length, rest) = rest.split_first_chunk::<2>()?;
        let reason_length = usize::from(u16::from_le_bytes(*reason_length));
        let (reason, record) = rest.split_at_checked(reason_length)?;
        // Before the checksum of up to megabytes is worked out for each byte of a damaged part.
        let (inner, _) = Framing::Plain.prefix(record)?;
        if record.len() != PREFIX_BYTES + inner || crc32fast::hash(payload) != crc {
            return None;
        }
        let event = RawRecord::decode(record.get(PREFIX_BYTES..)?)?.to_event();
        let letter = DeadLetter {
            module: self.module.clone(),
            event: event.into(),
            reason: String::from_utf8_lossy(reason).into_owned(),
            attempts: u32::from_le_bytes(*attempts),
            failed_at_ms: u64::from_le_bytes(*failed_at_ms),
        };
        Some((letter, PREFIX_BYTES + length))
    }
}

/// Content of a file; the default stands for a file that does not exist.
#[derive(Debug, Default)]
struct Scan {
    dead_letters: Vec<DeadLetter>,
    /// Size of the file.
    bytes: u64,
    /// True when nothing but letters was in the file.
    is_whole: bool,
}

/// Outcome of [`DeadStore::take`], in letters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) gone: u64,
    pub(crate) stay: u64,
    /// True when the file was there, with nothing but letters in it.
    pub(crate) is_whole: bool,
}

fn frame(letter: &DeadLetter) -> Vec<u8> {
    let reason = &letter.reason[..letter.reason.floor_char_boundary(REASON_BYTES)];
    let mut out = vec![0; PREFIX_BYTES];
    out.extend_from_slice(&letter.failed_at_ms.to_le_bytes());
    out.extend_from_slice(&letter.attempts.to_le_bytes());
    let length = u16::try_from(reason.len()).expect("a reason is cut to 1,000 bytes");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(reason.as_bytes());
    let audience = Audience::DeadLetter(letter.module.clone());
    encode(&letter.event, &audience, Framing::Plain, &mut out);
    let length = u32::try_from(out.len() - PREFIX_BYTES).expect("an event is far below 4 GiB");
    let crc = crc32fast::hash(&out[PREFIX_BYTES..]);
    out[..4].copy_from_slice(&length.to_le_bytes());
    out[4..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use module_sdk::Class;
    use uuid::Uuid;

    use super::*;
    use crate::ledger::Event;

    fn letter(sequence: u64) -> DeadLetter {
        let event = Event {
            id: Uuid::now_v7(),
            time_ns: 5,
            sequence,
            class: Class::Ledger,
            topic: "a.b".into(),
            source: "/lodestar/test".into(),
            subject: "".into(),
            traceparent: "".into(),
            data: b"{}"[..].into(),
        };
        DeadLetter {
            module: "counter".into(),
            event: event.into(),
            reason: "ä".repeat(400),
            attempts: 5,
            failed_at_ms: 7,
        }
    }

    #[test]
    fn letters_are_kept_removed_and_survive_a_torn_tail() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = DeadStore::new(directory.path(), "counter".into(), true);
        assert_eq!(store.read().expect("no file"), []);
        let dead_letters: Vec<_> = (1..=4).map(letter).collect();
        for letter in &dead_letters {
            assert_eq!(store.append(letter).expect("room"), 0);
        }
        assert_eq!(store.read().expect("readable"), dead_letters);
        let refused = store.take(|_| true, |_| Err(io::Error::other("not now")));
        assert_eq!(refused.expect_err("refused").to_string(), "not now");
        assert_eq!(store.read().expect("readable"), dead_letters);
        let taken = store.take(|letter| letter.event.sequence == 2, |_| Ok::<_, io::Error>(()));
        assert_eq!(taken.expect("room"), Taken { gone: 1, stay: 3, is_whole: true });
        let length = fs::metadata(&store.path).expect("a file").len();
        let file = File::options().write(true).open(&store.path).expect("a file");
        file.set_len(length - 1).expect("cut");
        let again = DeadStore::new(directory.path(), "counter".into(), false);
        again.append(&dead_letters[1]).expect("room");
        let sequences: Vec<_> =
            again.read().expect("readable").iter().map(|letter| letter.event.sequence).collect();
        assert_eq!(sequences, [1, 3, 2]);
        again.remove().expect("removed");
        again.remove().expect("nothing to remove");
        assert_eq!(again.read().expect("no file"), []);
    }

    #[test]
    fn a_damaged_letter_costs_only_itself() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = DeadStore::new(directory.path(), "counter".into(), false);
        let dead_letters: Vec<_> = (1..=3).map(letter).collect();
        for letter in &dead_letters {
            assert_eq!(store.append(letter).expect("room"), 0);
        }
        let whole = fs::read(&store.path).expect("a file");
        let length = frame(&dead_letters[0]).len();
        for at in length..2 * length {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            fs::write(&store.path, bytes).expect("written");
            assert_eq!(
                store.read().expect("readable"),
                [dead_letters[0].clone(), dead_letters[2].clone()]
            );
        }
        let again = DeadStore::new(directory.path(), "counter".into(), false);
        again.append(&dead_letters[1]).expect("room");
        let left = again.read().expect("readable");
        assert_eq!(
            left,
            [dead_letters[0].clone(), dead_letters[2].clone(), dead_letters[1].clone()]
        );
        // That something is missing stays known, although the file is written anew.
        for gone in [1, 0] {
            let taken = again.take(|letter| letter.event.sequence == 1, |_| Ok::<_, io::Error>(()));
            assert_eq!(taken.expect("room"), Taken { gone, stay: 2, is_whole: false });
        }
        fs::remove_file(&store.path).expect("it is there");
        let taken = store.take(|_| true, |_| Ok::<_, io::Error>(())).expect("nothing there");
        assert_eq!(taken, Taken { gone: 0, stay: 0, is_whole: false });
    }

    #[test]
    fn the_oldest_half_goes_when_there_is_no_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = DeadStore::new(directory.path(), "counter".into(), false);
        store.max_bytes = 10 * frame(&letter(1)).len() as u64;
        let gone: Vec<u64> =
            (1..=12).map(|sequence| store.append(&letter(sequence)).expect("room")).collect();
        assert_eq!(gone, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0]);
        let left = store.read().expect("readable");
        assert_eq!(left.first().map(|letter| letter.event.sequence), Some(6));
        assert_eq!(left.len(), 7);
    }
}

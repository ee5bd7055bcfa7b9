//! The journal of correlated reports, which survives a restart: files of JSON lines, by hour and
//! size.
//!
//! Files are only appended to and deleted as a whole, so that two generations of the module may use
//! them side by side during a reload, each reading what the other wrote. A line that was cut off by
//! a kill does not decode and is skipped.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use super::sighting::Sighting;

const HOUR_MS: i64 = 3_600_000;

/// Size from which on a file is followed by another one, in bytes.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// Largest number of files: at some 250 bytes a line they hold more than is remembered in memory.
const MAX_FILES: usize = 4;

/// The hour in which a file was started, and the file's number within it.
type Name = (i64, u32);

/// The journal of one data directory.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    keep_ms: i64,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    name: Name,
    file: File,
    /// Offset up to which the lines are known.
    read: u64,
}

impl Journal {
    /// Opens the journal and reads back the sightings that are younger than `keep_ms`.
    pub(super) fn open(
        directory: &Path,
        keep_ms: i64,
        now_ms: i64,
    ) -> io::Result<(Self, Vec<Sighting>)> {
        let directory = directory.join("joins");
        std::fs::create_dir_all(&directory)?;
        let mut journal = Self { directory, keep_ms, current: None };
        let mut sightings = Vec::new();
        journal.prune(now_ms)?;
        let current = journal.current(now_ms)?.name;
        for (name, path) in journal.files()? {
            if name != current {
                sightings.extend(read_from(&mut File::open(&path)?, 0)?.0);
            }
        }
        sightings.extend(journal.read_new(now_ms)?);
        Ok((journal, sightings))
    }

    /// Reads what others have appended since the last call.
    pub(super) fn read_new(&mut self, now_ms: i64) -> io::Result<Vec<Sighting>> {
        let mut sightings = self.rest_of_current()?;
        let before = self.current.as_ref().map(|current| current.name);
        if before != Some(self.current(now_ms)?.name) {
            sightings.extend(self.rest_of_current()?);
        }
        Ok(sightings)
    }

    fn rest_of_current(&mut self) -> io::Result<Vec<Sighting>> {
        let Some(current) = &mut self.current else { return Ok(Vec::new()) };
        if current.file.metadata()?.len() == current.read {
            return Ok(Vec::new());
        }
        let (sightings, end) = read_from(&mut current.file, current.read)?;
        current.read = end;
        Ok(sightings)
    }

    /// Appends the sightings in one write.
    pub(super) fn append(&mut self, sightings: &[Sighting], now_ms: i64) -> io::Result<()> {
        let current = self.current(now_ms)?;
        let mut lines = Vec::with_capacity(sightings.len() * 256);
        if !ends_with_newline(&mut current.file)? {
            lines.push(b'\n');
        }
        for sighting in sightings {
            serde_json::to_writer(&mut lines, sighting)?;
            lines.push(b'\n');
        }
        let before = current.file.metadata()?.len();
        current.file.write_all(&lines)?;
        // Where nobody else has written in between, there is nothing to read back.
        if before == current.read && current.file.metadata()?.len() == before + lines.len() as u64 {
            current.read = before + lines.len() as u64;
        }
        Ok(())
    }

    /// Returns the file to write to: that of this hour with the highest number, or the next one.
    fn current(&mut self, now_ms: i64) -> io::Result<&mut Current> {
        let hour = hour_of(now_ms);
        let stays = match &self.current {
            Some(current) => {
                current.name.0 == hour && current.file.metadata()?.len() < MAX_FILE_BYTES
            }
            None => false,
        };
        if !stays {
            let files = self.files()?;
            let last = files.iter().rev().find(|(name, _)| name.0 == hour);
            let number = match last {
                Some((name, path)) if path.metadata()?.len() < MAX_FILE_BYTES => name.1,
                Some((name, _)) => name.1 + 1,
                None => 0,
            };
            let path = self.directory.join(format!("{hour}-{number}.jsonl"));
            let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            self.current = Some(Current { name: (hour, number), file, read: 0 });
            self.prune(now_ms)?;
        }
        Ok(self.current.as_mut().expect("it was opened above"))
    }

    /// Deletes files that are too old or too many.
    fn prune(&self, now_ms: i64) -> io::Result<()> {
        let files = self.files()?;
        let surplus = files.len().saturating_sub(MAX_FILES);
        for (index, (name, path)) in files.into_iter().enumerate() {
            let expired = name.0 + HOUR_MS <= now_ms - self.keep_ms;
            // The other generation may have been quicker.
            if (expired || index < surplus)
                && let Err(error) = std::fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Returns the files, oldest first.
    fn files(&self) -> io::Result<Vec<(Name, PathBuf)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let stem = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jsonl"));
            let name = stem.and_then(|stem| {
                let (hour, number) = stem.rsplit_once('-')?;
                Some((hour.parse().ok()?, number.parse().ok()?))
            });
            if let Some(name) = name {
                files.push((name, path));
            }
        }
        files.sort();
        Ok(files)
    }
}

const fn hour_of(now_ms: i64) -> i64 {
    now_ms - now_ms.rem_euclid(HOUR_MS)
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == [b'\n'])
}

/// Reads the sightings after `start`, and returns them with the end of the last whole line.
fn read_from(file: &mut File, start: u64) -> io::Result<(Vec<Sighting>, u64)> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let lines = bytes[..whole].split(|byte| *byte == b'\n');
    let sightings = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    Ok((sightings, start + whole as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_218_560_000;

    fn sighting(key: &str) -> Sighting {
        Sighting { key: key.to_owned().into(), seen_ms: NOW, ..Sighting::default() }
    }

    fn keys(sightings: &[Sighting]) -> Vec<&str> {
        sightings.iter().map(|sighting| &*sighting.key).collect()
    }

    #[test]
    fn what_is_written_is_read_back_and_a_torn_line_is_skipped() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, old) = Journal::open(directory.path(), HOUR_MS, NOW).expect("it opens");
        assert!(old.is_empty());
        journal.append(&[sighting("a"), sighting("b")], NOW).expect("it writes");
        let path = journal.directory.join(format!("{}-0.jsonl", hour_of(NOW)));
        let mut file = OpenOptions::new().append(true).open(path).expect("it is there");
        file.write_all(b"{\"k\":\"torn").expect("it writes");
        let (mut journal, old) = Journal::open(directory.path(), HOUR_MS, NOW).expect("it opens");
        assert_eq!(keys(&old), ["a", "b"]);
        journal.append(&[sighting("c")], NOW).expect("it writes");
        let (_, old) = Journal::open(directory.path(), HOUR_MS, NOW).expect("it opens");
        assert_eq!(keys(&old), ["a", "b", "c"]);
    }

    #[test]
    fn two_generations_see_what_the_other_wrote() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || Journal::open(directory.path(), HOUR_MS, NOW).expect("it opens").0;
        let (mut old, mut new) = (open(), open());
        old.append(&[sighting("old")], NOW).expect("it writes");
        assert_eq!(keys(&new.read_new(NOW).expect("it reads")), ["old"]);
        new.append(&[sighting("new")], NOW).expect("it writes");
        assert_eq!(keys(&old.read_new(NOW).expect("it reads")), ["new"]);
        assert!(new.read_new(NOW).expect("it reads").is_empty());
    }

    #[test]
    fn old_files_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = |now| Journal::open(directory.path(), HOUR_MS, now).expect("it opens");
        open(NOW).0.append(&[sighting("a")], NOW).expect("it writes");
        assert_eq!(open(NOW + HOUR_MS).1.len(), 1);
        assert!(open(NOW + 3 * HOUR_MS).1.is_empty());
        assert_eq!(open(NOW + 3 * HOUR_MS).0.files().expect("it lists").len(), 1);
    }

    #[test]
    fn the_files_have_a_size_and_a_number() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || Journal::open(directory.path(), HOUR_MS, NOW).expect("it opens");
        let (mut old, mut new) = (open().0, open().0);
        let many = vec![sighting("many"); 20_000];
        let mut written = 0;
        while old.files().expect("it lists").last().is_some_and(|(name, _)| name.1 < 6) {
            old.append(&many, NOW).expect("it writes");
            written += 1;
            assert_eq!(new.read_new(NOW).expect("it reads").len(), many.len(), "{written}");
        }
        old.append(&[sighting("last")], NOW).expect("it writes");
        assert_eq!(keys(&new.read_new(NOW).expect("it reads")), ["last"]);
        assert_eq!(old.files().expect("it lists").len(), MAX_FILES);
        assert_eq!(keys(&open().1).last(), Some(&"last"));
    }
}

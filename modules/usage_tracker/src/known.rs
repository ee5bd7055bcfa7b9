//! Which database was written last, remembered beside it.
//!
//! A file that is gone, or another one in its place, looks like a first start. The note in the
//! module's data directory tells the difference: nothing is begun anew in silence.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::store::{Store, StoreError, StoreErrorKind};

/// The file of the note, in the module's data directory.
pub(crate) const FILE: &str = "known_database";

/// The note: the database that was written last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    file: PathBuf,
    last: Option<Last>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Last {
    /// What the database says of itself ([`crate::store::Store::id`]).
    id: i64,
    /// The number of its last request, when it was closed.
    last_request: i64,
    path: PathBuf,
}

impl Known {
    /// Reads the note of a data directory. One that cannot be understood counts as none.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read.
    pub(crate) fn read(data_dir: &Path) -> Result<Self, StoreError> {
        let file = data_dir.join(FILE);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(unusable(&file, &error)),
        };
        let last = Last::parse(&text);
        Ok(Self { file, last })
    }

    /// Refuses to make a database where there was one.
    ///
    /// # Errors
    ///
    /// When the file is gone or empty that was written before.
    pub(crate) fn before_opening(&self, path: &Path) -> Result<(), StoreError> {
        let gone = match fs::metadata(path) {
            Ok(found) => found.len() == 0,
            // A missing directory has a remedy of its own.
            Err(error) => {
                error.kind() == io::ErrorKind::NotFound && path.parent().is_some_and(Path::exists)
            }
        };
        match &self.last {
            Some(last) if gone && last.path == path => Err(self.refusal(format!(
                "the usage database {} is gone or empty, and it was not when it was written last",
                path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Takes up a database that was opened; a new one, or at a new place, is noted. Answers how
    /// many requests it is behind the one that was written last: it is an older copy then.
    ///
    /// # Errors
    ///
    /// When it is another one than was written before, or the note cannot be written.
    pub(crate) fn opened(&mut self, store: &Store) -> Result<i64, StoreError> {
        let behind = match &self.last {
            Some(last) if last.path == store.path() && last.id == store.id() => {
                last.last_request.saturating_sub(store.last_request()).max(0)
            }
            Some(last) if last.path == store.path() => {
                return Err(self.refusal(format!(
                    "the usage database {} is another one than was written last",
                    store.path().display()
                )));
            }
            _ => 0,
        };
        self.note(store)?;
        Ok(behind)
    }

    /// Notes how far a database was written.
    ///
    /// # Errors
    ///
    /// When the note cannot be written.
    pub(crate) fn note(&mut self, store: &Store) -> Result<(), StoreError> {
        let (id, last_request) = (store.id(), store.last_request());
        let last = Last { id, last_request, path: store.path().to_owned() };
        if self.last.as_ref() == Some(&last) {
            return Ok(());
        }
        let new = self.file.with_extension("new");
        fs::write(&new, last.text())
            .and_then(|()| fs::rename(&new, &self.file))
            .map_err(|error| unusable(&self.file, &error))?;
        self.last = Some(last);
        Ok(())
    }

    fn refusal(&self, what: String) -> StoreError {
        let message = format!(
            "{what}: put it back (mount its disk, or take a backup), or remove {} to go on with \
             what is there now",
            self.file.display()
        );
        StoreError::new(StoreErrorKind::Gone, message)
    }
}

impl Last {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = text.strip_suffix(b"\n")?.splitn(3, |byte| *byte == b' ');
        let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
        let (id, last_request) = (number()?, number()?);
        let path = PathBuf::from(OsStr::from_bytes(parts.next()?));
        Some(Self { id, last_request, path })
    }

    fn text(&self) -> Vec<u8> {
        let numbers = format!("{} {} ", self.id, self.last_request).into_bytes();
        [&*numbers, self.path.as_os_str().as_bytes(), b"\n"].concat()
    }
}

fn unusable(file: &Path, error: &io::Error) -> StoreError {
    let message = format!(
        "{}, which names the usage database, cannot be used: {error}; check the rights of its \
         directory",
        file.display()
    );
    StoreError::new(StoreErrorKind::Unavailable, message)
}

/// Which file a path leads to: its device and number.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Which database a path leads to; an empty file is none.
pub(crate) fn present(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().filter(|it| it.len() > 0).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    #[test]
    fn a_database_is_known_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("usage.db");
        let open = |name: &str| {
            let path = directory.path().join(name);
            Store::open(&path, Options::default()).expect("it opens")
        };
        let mut known = Known::read(directory.path()).expect("there is none");
        assert!(known.before_opening(&path).is_ok(), "a first start");
        let store = open("usage.db");
        assert_eq!(known.opened(&store).expect("it is noted"), 0);
        let mut again = Known::read(directory.path()).expect("it is there");
        assert_eq!(again, known);
        assert!(again.before_opening(&path).is_ok());
        assert_eq!(again.opened(&store).expect("it is known"), 0);
        drop(store);
        fs::rename(&path, directory.path().join("aside")).expect("it is moved");
        let gone = again.before_opening(&path).expect_err("it is gone");
        assert_eq!(gone.kind(), StoreErrorKind::Gone);
        assert!(gone.to_string().contains(FILE), "{gone}");
        fs::write(&path, "").expect("it is written");
        assert!(again.before_opening(&path).is_err(), "it is empty");
        let other = again.opened(&open("usage.db")).expect_err("it is another one");
        assert!(other.to_string().contains("another one than was written last"), "{other}");
        // Another place was asked for.
        let elsewhere = open("other.db");
        assert!(again.before_opening(elsewhere.path()).is_ok());
        assert_eq!(again.opened(&elsewhere).expect("it is noted"), 0);
        assert!(again.before_opening(&path).is_ok());
    }

    #[test]
    fn a_note_that_says_nothing_counts_as_none() {
        for text in ["", "7", "7 8\n", "7 8 /a", "x 8 /a\n", "7 x /a\n", "\u{fffd}"] {
            assert_eq!(Last::parse(text.as_bytes()), None, "{text}");
        }
        let path = PathBuf::from("/a b/\u{fc}\n/usage.db");
        let last = Last { id: -7, last_request: 8, path };
        assert_eq!(Last::parse(&last.text()), Some(last));
    }
}

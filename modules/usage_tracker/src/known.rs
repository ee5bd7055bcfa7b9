//! Which database was written last, remembered beside it.
//!
//! A file that is gone, or another one in its place, looks like a first start. The note in the
//! module's data directory tells the difference: nothing is begun anew in silence.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::store::{StoreError, StoreErrorKind};

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
        let last = text.iter().position(|byte| *byte == b' ').and_then(|at| {
            let id = std::str::from_utf8(&text[..at]).ok()?.parse().ok()?;
            let path = text[at + 1..].strip_suffix(b"\n")?;
            Some(Last { id, path: PathBuf::from(std::ffi::OsStr::from_bytes(path)) })
        });
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

    /// Takes up a database that was opened; a new one, or at a new place, is noted.
    ///
    /// # Errors
    ///
    /// When it is another one than was written before, or the note cannot be written.
    pub(crate) fn opened(&mut self, path: &Path, id: i64) -> Result<(), StoreError> {
        match &self.last {
            Some(last) if last.path == path && last.id == id => Ok(()),
            Some(last) if last.path == path => Err(self.refusal(format!(
                "the usage database {} is another one than was written last",
                path.display()
            ))),
            _ => {
                let mut text = format!("{id} ").into_bytes();
                text.extend_from_slice(path.as_os_str().as_bytes());
                text.push(b'\n');
                let new = self.file.with_extension("new");
                fs::write(&new, text)
                    .and_then(|()| fs::rename(&new, &self.file))
                    .map_err(|error| unusable(&self.file, &error))?;
                self.last = Some(Last { id, path: path.to_owned() });
                Ok(())
            }
        }
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

    #[test]
    fn a_database_is_known_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("usage.db");
        let mut known = Known::read(directory.path()).expect("there is none");
        assert!(known.before_opening(&path).is_ok(), "a first start");
        fs::write(&path, "x").expect("it is written");
        known.opened(&path, -7).expect("it is noted");
        let mut again = Known::read(directory.path()).expect("it is there");
        assert_eq!(again, known);
        assert!(again.before_opening(&path).is_ok() && again.opened(&path, -7).is_ok());
        let other = again.opened(&path, 8).expect_err("it is another one");
        assert!(other.to_string().contains("another one than was written last"), "{other}");
        fs::write(&path, "").expect("it is written");
        for _ in 0..2 {
            let gone = again.before_opening(&path).expect_err("it is empty, then gone");
            assert_eq!(gone.kind(), StoreErrorKind::Gone);
            assert!(gone.to_string().contains(FILE), "{gone}");
            drop(fs::remove_file(&path));
        }
        // Another place was asked for.
        let elsewhere = directory.path().join("other.db");
        assert!(again.before_opening(&elsewhere).is_ok() && again.opened(&elsewhere, 9).is_ok());
        assert!(again.before_opening(&path).is_ok());
    }

    #[test]
    fn a_note_that_says_nothing_counts_as_none() {
        let directory = tempfile::tempdir().expect("a directory");
        for text in ["", "7", "7 /a", "x /a\n", "\u{fffd}"] {
            fs::write(directory.path().join(FILE), text).expect("it is written");
            assert_eq!(Known::read(directory.path()).expect("it is read").last, None, "{text}");
        }
    }
}

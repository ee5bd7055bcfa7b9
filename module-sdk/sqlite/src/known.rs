//! Record of the database that was written last, stored beside it.
//!
//! A file that is gone, or another one in its place, looks like a first start. The note in the
//! module's data directory tells the difference: no database is silently created anew.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use crate::{DatabaseError, DatabaseErrorKind, Spec, writer::Writer};

/// Note of the database that was written last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// Name of the database in messages.
    name: &'static str,
    file: PathBuf,
    last: Option<Last>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Last {
    /// Id of the database ([`Writer::id`]).
    id: i64,
    /// Value of [`Spec::counted`] when the database was closed.
    position: i64,
    path: PathBuf,
}

impl Known {
    /// Reads a note. An invalid one counts as none.
    ///
    /// # Errors
    ///
    /// Returns an error if the note exists and cannot be read.
    pub(crate) fn read(spec: &Spec, file: &Path) -> Result<Self, DatabaseError> {
        let name = spec.name;
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(unusable(name, file, &error)),
        };
        let last = Last::parse(&text);
        Ok(Self { name, file: file.to_owned(), last })
    }

    /// Refuses to create a database where there was one.
    ///
    /// # Errors
    ///
    /// Returns an error if the file that was written before is gone or empty.
    pub(crate) fn before_opening(&self, path: &Path) -> Result<(), DatabaseError> {
        let gone = match fs::metadata(path) {
            Ok(found) => found.len() == 0,
            // A missing directory has a remedy of its own.
            Err(error) => {
                error.kind() == io::ErrorKind::NotFound && path.parent().is_some_and(Path::exists)
            }
        };
        match &self.last {
            Some(last) if gone && last.path == path => Err(self.refusal(format!(
                "the {} {} is gone or empty, and it was not when it was written last",
                self.name,
                path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Accepts an opened database; a new one, or one at a new path, is noted. Returns how far it is
    /// behind the one that was written last: it is an older copy then.
    ///
    /// # Errors
    ///
    /// Returns an error if it is another database than the one written before, or the note cannot
    /// be written.
    pub(crate) fn opened(&mut self, writer: &Writer) -> Result<i64, DatabaseError> {
        let behind = match &self.last {
            Some(last) if last.path == writer.path() && last.id == writer.id() => {
                last.position.saturating_sub(writer.position()).max(0)
            }
            Some(last) if last.path == writer.path() => {
                return Err(self.refusal(format!(
                    "the {} {} is another one than was written last",
                    self.name,
                    writer.path().display()
                )));
            }
            _ => 0,
        };
        self.note(writer)?;
        Ok(behind)
    }

    /// Notes the position of a database.
    ///
    /// # Errors
    ///
    /// Returns an error if the note cannot be written.
    pub(crate) fn note(&mut self, writer: &Writer) -> Result<(), DatabaseError> {
        let (id, position) = (writer.id(), writer.position());
        let last = Last { id, position, path: writer.path().to_owned() };
        if self.last.as_ref() == Some(&last) {
            return Ok(());
        }
        let new = self.file.with_extension("new");
        fs::File::create(&new)
            .and_then(|mut file| {
                file.write_all(&last.text())?;
                // An empty note would be none, and begin a database anew in silence.
                file.sync_data()
            })
            .and_then(|()| fs::rename(&new, &self.file))
            .map_err(|error| unusable(self.name, &self.file, &error))?;
        self.last = Some(last);
        Ok(())
    }

    fn refusal(&self, what: String) -> DatabaseError {
        let message = format!(
            "{what}: put it back (mount its disk, or take a backup), or remove {} to go on with \
             what is there now",
            self.file.display()
        );
        DatabaseError::new(DatabaseErrorKind::Gone, message)
    }
}

impl Last {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = text.strip_suffix(b"\n")?.splitn(3, |byte| *byte == b' ');
        let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
        let (id, position) = (number()?, number()?);
        let path = PathBuf::from(OsStr::from_bytes(parts.next()?));
        Some(Self { id, position, path })
    }

    fn text(&self) -> Vec<u8> {
        let numbers = format!("{} {} ", self.id, self.position).into_bytes();
        [&*numbers, self.path.as_os_str().as_bytes(), b"\n"].concat()
    }
}

fn unusable(name: &str, file: &Path, error: &io::Error) -> DatabaseError {
    let message = format!(
        "{}, which names the {name}, cannot be used: {error}; check the rights of its \
         directory",
        file.display()
    );
    DatabaseError::new(DatabaseErrorKind::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Durability, Spec};

    const SPEC: Spec = Spec::new("database of tests", "a.db", *b"TEST", &["CREATE TABLE a (b)"]);

    #[test]
    fn a_database_is_known_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.db");
        let note = directory.path().join(SPEC.note);
        let open = |name: &str| {
            let path = directory.path().join(name);
            Writer::open(SPEC, &path, Durability::Process).expect("it opens")
        };
        let mut known = Known::read(&SPEC, &note).expect("there is none");
        assert!(known.before_opening(&path).is_ok(), "a first start");
        let writer = open("a.db");
        assert_eq!(known.opened(&writer).expect("it is noted"), 0);
        let mut again = Known::read(&SPEC, &note).expect("it is there");
        assert_eq!(again, known);
        assert!(again.before_opening(&path).is_ok());
        assert_eq!(again.opened(&writer).expect("it is known"), 0);
        drop(writer);
        fs::rename(&path, directory.path().join("aside")).expect("it is moved");
        let gone = again.before_opening(&path).expect_err("it is gone");
        assert_eq!(gone.kind(), DatabaseErrorKind::Gone);
        assert!(gone.to_string().contains(SPEC.note), "{gone}");
        fs::write(&path, "").expect("it is written");
        assert!(again.before_opening(&path).is_err(), "it is empty");
        let other = again.opened(&open("a.db")).expect_err("it is another one");
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
        let last = Last { id: -7, position: 8, path };
        assert_eq!(Last::parse(&last.text()), Some(last));
    }
}

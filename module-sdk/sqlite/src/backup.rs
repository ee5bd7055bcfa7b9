//! Backup of a database while it is written.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;

use crate::{DatabaseError, DatabaseErrorKind, Reader, error::At as _, writer::beside};

/// Number of steps of SQLite's virtual machine between two checks whether to stop.
const STEPS: i32 = 1_000;

impl Reader {
    /// Copies the database into a new file, as it is when the copy begins, while others may write
    /// to it. The copy is complete and on the disk when this returns; an unfinished copy has the
    /// same name with `.new`. This takes time: do it in a [`Job`](module_sdk::Job), and let `stop`
    /// return true when the module stops.
    ///
    /// ```
    /// # use module_sqlite::{Database, Options, Reader, Spec};
    /// # let directory = tempfile::tempdir()?;
    /// # let options = Options::new(directory.path().join("a.db"));
    /// # let spec = Spec::new("database", "a.db", *b"DEMO", &["CREATE TABLE alert (at INTEGER)"]);
    /// # let mut database = Database::open_with(options, spec)?;
    /// let copy = directory.path().join("backup.db");
    /// database.reader()?.backup(&copy, || false)?;
    /// assert!(Reader::open(&copy, &spec).is_ok());
    /// # Ok::<(), module_sdk::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the target exists, the copy cannot be written, or `stop` returned true;
    /// no copy is left in that case.
    pub fn backup(
        self,
        to: &Path,
        stop: impl FnMut() -> bool + Send + 'static,
    ) -> Result<(), DatabaseError> {
        if to.symlink_metadata().is_ok() {
            let message =
                format!("{} is there already; name a new file for the backup", to.display());
            return Err(DatabaseError::unavailable(message));
        }
        self.make(to, stop)
    }

    /// Copies the database like [`backup`](Self::backup), and replaces the file that is there.
    ///
    /// That file stays until the copy is complete.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`backup`](Self::backup), but for a target that exists; and an error
    /// if the target is not a regular file, belongs to the database itself, or is a database that
    /// is open or was not closed.
    pub fn replace_backup(
        self,
        to: &Path,
        stop: impl FnMut() -> bool + Send + 'static,
    ) -> Result<(), DatabaseError> {
        match self.why_not_replaced(to) {
            Some(why) => {
                let message = format!("{} {why}; name another file for the backup", to.display());
                Err(DatabaseError::unavailable(message))
            }
            None => self.make(to, stop),
        }
    }

    fn why_not_replaced(&self, to: &Path) -> Option<&'static str> {
        let there = to.symlink_metadata().ok()?;
        let own = [self.path.clone(), beside(&self.path, "-wal"), beside(&self.path, "-shm")];
        let is_own = |file: &PathBuf| {
            file.metadata().is_ok_and(|it| (it.dev(), it.ino()) == (there.dev(), there.ino()))
        };
        // What is beside a database would be taken for a part of the copy.
        let is_open = ["-wal", "-journal"].iter().any(|end| beside(to, end).exists());
        if !there.is_file() {
            Some("is no plain file")
        } else if own.iter().any(is_own) {
            Some("belongs to the database itself")
        } else {
            is_open.then_some("is a database that is open, or was not closed")
        }
    }

    /// Makes the copy, and puts it in its place when it is whole.
    fn make(
        mut self,
        to: &Path,
        stop: impl FnMut() -> bool + Send + 'static,
    ) -> Result<(), DatabaseError> {
        let new = beside(to, ".new");
        let copied = self
            .copy(&new, stop)
            .and_then(|()| finish(&new, to).map_err(|error| self.unwritable(to, &error)));
        if copied.is_err() {
            remove(&new);
        }
        copied
    }

    /// Copies the database into a new file.
    fn copy(
        &mut self,
        new: &Path,
        stop: impl FnMut() -> bool + Send + 'static,
    ) -> Result<(), DatabaseError> {
        remove(new);
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(new);
        made.map_err(|error| self.unwritable(new, &error))?;
        let Some(target) = new.to_str() else {
            let error = io::Error::other("its path is no UTF-8");
            return Err(self.unwritable(new, &error));
        };
        self.connection.progress_handler(STEPS, Some(stop)).at(&self.spec, &self.path)?;
        let copied = self.connection.execute("VACUUM INTO ?1", [target]);
        self.connection.progress_handler(STEPS, None::<fn() -> bool>).at(&self.spec, &self.path)?;
        copied.map(drop).map_err(|error| self.refusal(new, &error))
    }

    /// Returns the error for a failed copy: one about the copy, unless the database itself is at
    /// fault.
    fn refusal(&self, new: &Path, error: &rusqlite::Error) -> DatabaseError {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => DatabaseError::new(
                DatabaseErrorKind::Cancelled,
                format!("the backup of the {} was stopped; start it again", self.spec.name),
            ),
            Some(ErrorCode::DiskFull | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
                self.unwritable(new, error)
            }
            _ => DatabaseError::of(&self.spec, &self.path, error),
        }
    }

    fn unwritable(&self, file: &Path, error: &dyn std::error::Error) -> DatabaseError {
        DatabaseError::unavailable(format!(
            "the backup {} of the {} cannot be written: {error}; check the rights and the space of \
             its directory",
            file.display(),
            self.spec.name
        ))
    }
}

/// Moves a finished copy to its final name.
fn finish(new: &Path, to: &Path) -> io::Result<()> {
    fs::File::open(new)?.sync_all()?;
    fs::rename(new, to)?;
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Removes the files of an unfinished copy.
fn remove(new: &Path) {
    let files: [PathBuf; 2] = [new.to_owned(), beside(new, "-journal")];
    for file in files {
        drop(fs::remove_file(file));
    }
}

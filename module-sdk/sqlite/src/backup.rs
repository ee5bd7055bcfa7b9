//! Backup of a database while it is written.

use std::{
    fs::{self, TryLockError},
    io,
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
    /// Returns an error if the target exists, another backup to it is being written, the copy
    /// cannot be written, or `stop` returned true; no copy is left in that case.
    pub fn backup(
        self,
        to: &Path,
        stop: impl FnMut() -> bool + Send + 'static,
    ) -> Result<(), DatabaseError> {
        self.make(to, Self::expect_new, stop)
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
        self.make(to, Self::expect_replaceable, stop)
    }

    /// Checks that there is no file at the target.
    fn expect_new(&self, to: &Path) -> Result<(), DatabaseError> {
        if to.symlink_metadata().is_err() {
            return Ok(());
        }
        let message = format!("{} is there already; name a new file for the backup", to.display());
        Err(DatabaseError::unavailable(message))
    }

    /// Checks that the target may be replaced, if it is there.
    fn expect_replaceable(&self, to: &Path) -> Result<(), DatabaseError> {
        let Some(why) = self.why_not_replaced(to) else { return Ok(()) };
        let message = format!("{} {why}; name another file for the backup", to.display());
        Err(DatabaseError::unavailable(message))
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

    /// Makes the copy where `expect` finds nothing against it, and puts it in its place when it is
    /// whole.
    fn make(
        mut self,
        to: &Path,
        expect: fn(&Self, &Path) -> Result<(), DatabaseError>,
        stop: impl FnMut() -> bool + Send + 'static,
    ) -> Result<(), DatabaseError> {
        expect(&self, to)?;
        let lock = TargetLock::take(to).map_err(|error| self.unwritable(to, &error))?;
        let Some(_lock) = lock else {
            return Err(DatabaseError::unavailable(format!(
                "another backup to {} is being written; wait for it, or name another file",
                to.display()
            )));
        };
        // Another one may have ended since.
        expect(&self, to)?;
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

/// A lock on the target of a backup, which two at once would mix: a file beside it, which is
/// removed with the lock. One that a killed process left is locked by nobody.
#[derive(Debug)]
struct TargetLock {
    path: PathBuf,
    /// Holds the lock until it is closed.
    _file: fs::File,
}

impl TargetLock {
    /// Locks a target. Returns `None` where another backup has it.
    fn take(to: &Path) -> io::Result<Option<Self>> {
        let path = beside(to, ".new.lock");
        loop {
            let Some(file) = open_lock(&path)? else { continue };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let identity = |file: &fs::Metadata| (file.dev(), file.ino());
            let locked = identity(&file.metadata()?);
            // Whoever had it before may have removed it between the opening and the lock.
            if path.symlink_metadata().is_ok_and(|there| identity(&there) == locked) {
                return Ok(Some(Self { path, _file: file }));
            }
        }
    }
}

impl Drop for TargetLock {
    fn drop(&mut self) {
        // While it is still locked: afterwards it may be another's.
        drop(fs::remove_file(&self.path));
    }
}

/// Opens the file of a lock, or creates it. Returns `None` where another removed it meanwhile.
fn open_lock(path: &Path) -> io::Result<Option<fs::File>> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    if !made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
        return made.map(Some);
    }
    let opened = path.symlink_metadata().and_then(|there| match there.is_file() {
        true => fs::OpenOptions::new().write(true).open(path),
        false => Err(io::Error::other(format!("{} is no plain file", path.display()))),
    });
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
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

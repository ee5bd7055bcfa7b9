//! The database of a module, which reopens by itself after it was unavailable.

use std::path::Path;

use module_sdk::{Error, Health, Host};
use rusqlite::{Connection, Transaction};

use crate::{
    DatabaseError, DatabaseErrorKind, Options, Reader, Spec,
    known::Known,
    writer::{Writer, beside, present},
};

/// The database of a module, open for writing; or the reason for being unavailable at the moment.
#[derive(Debug)]
pub struct Database {
    spec: Spec,
    options: Options,
    writer: Option<Writer>,
    /// Number of times that the database was opened.
    openings: u64,
    trouble: Option<(DatabaseErrorKind, String)>,
    /// Warning that an older copy was opened.
    behind: Option<String>,
}

impl Database {
    /// Opens the database in the module's data directory, creates it if it is missing, and migrates
    /// its schema. If a later attempt may succeed (locked, full, gone), the module starts without
    /// it.
    ///
    /// # Errors
    ///
    /// Returns an error if the file must not be written: damaged, newer, or of another program. It
    /// is left unchanged.
    pub fn open(host: &Host, spec: Spec) -> module_sdk::Result<Self> {
        let opened = Self::open_with(Options::of(host, &spec), spec);
        opened.map_err(|error| Error::new(error.to_string()))
    }

    /// Opens a database with these options; see [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open`](Self::open).
    pub fn open_with(options: Options, spec: Spec) -> Result<Self, DatabaseError> {
        let (writer, trouble, behind) = (None, None, None);
        let mut database = Self { spec, options, writer, openings: 0, trouble, behind };
        match database.reopen() {
            Err(error) if !error.kind().may_pass() => Err(error),
            _ => Ok(database),
        }
    }

    /// Runs a piece of work in one transaction, which is rolled back if the work fails. Opens the
    /// database first if it was unavailable.
    ///
    /// ```
    /// # use module_sqlite::{Database, Options, Spec};
    /// # let directory = tempfile::tempdir()?;
    /// # let options = Options::new(directory.path().join("a.db"));
    /// # let spec = Spec::new("database", "a.db", *b"DEMO", &["CREATE TABLE alert (at INTEGER)"]);
    /// # let mut database = Database::open_with(options, spec)?;
    /// let rows = database.write(|transaction| {
    ///     transaction.prepare_cached("INSERT INTO alert (at) VALUES (?1)")?.execute([7])
    /// })?;
    /// assert_eq!(rows, 1);
    /// # Ok::<(), module_sdk::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the database cannot be written; the work then has no effect.
    pub fn write<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        self.ready()?.write(work)
    }

    /// Runs a query over a read-only connection.
    ///
    /// # Errors
    ///
    /// Returns an error if the database cannot be read.
    pub fn read<T>(
        &mut self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        self.reader()?.read(question)
    }

    /// Opens a read-only connection, for another thread or for many queries.
    ///
    /// # Errors
    ///
    /// Returns an error if the database cannot be read.
    pub fn reader(&mut self) -> Result<Reader, DatabaseError> {
        self.ready()?;
        Reader::open(&self.options.path, &self.spec)
    }

    /// Makes sure that the database is open, and that it is the file at the path: a file that has
    /// replaced it is opened if it is the same database.
    ///
    /// # Errors
    ///
    /// Returns an error if it is still unavailable.
    pub fn ready(&mut self) -> Result<Ready<'_>, DatabaseError> {
        if let Some(writer) = self.writer.take_if(|writer| writer.in_place().is_err()) {
            let gone = writer.in_place();
            // While nothing is there the old file is kept open: it may be moved back.
            if present(&self.options.path).is_none() {
                self.writer = Some(writer);
                self.note(gone)?;
            } else {
                let path = self.options.path.display();
                tracing::warn!(%path, "the {} was replaced", self.spec.name);
                self.remember(&writer);
                writer.abandon();
            }
        }
        if self.writer.is_none() {
            self.reopen()?;
        }
        Ok(Ready { database: self })
    }

    fn reopen(&mut self) -> Result<(), DatabaseError> {
        let opened = self.opened();
        self.writer = Some(self.note(opened)?);
        self.openings += 1;
        Ok(())
    }

    /// Opens the file, if it is the one that was written last or none was.
    fn opened(&mut self) -> Result<Writer, DatabaseError> {
        let (spec, options) = (self.spec, &self.options);
        let mut known = match &options.note {
            Some(note) => Some(Known::read(&spec, note)?),
            None => None,
        };
        if let Some(known) = &known {
            known.before_opening(&options.path)?;
        }
        let writer = Writer::open(spec, &options.path, options.durability)?;
        let behind = match &mut known {
            Some(known) => known.opened(&writer)?,
            None => 0,
        };
        if let Some(counted) = spec.counted.filter(|_| behind > 0) {
            let message = format!(
                "the {} {} is an older copy, without {} that it held before",
                spec.name,
                options.path.display(),
                (counted.words)(behind)
            );
            tracing::warn!(message);
            self.behind = Some(message);
        }
        Ok(writer)
    }

    /// Stores the position of the database, for the next time that it is opened.
    fn remember(&self, writer: &Writer) {
        let Some(note) = &self.options.note else { return };
        let noted = Known::read(&self.spec, note).and_then(|mut known| known.note(writer));
        if let Err(error) = noted {
            tracing::warn!(%error, "cannot note how far the {} was written", self.spec.name);
        }
    }

    /// Stores the outcome of the last piece of work, for the health.
    fn note<T>(&mut self, done: Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        let name = self.spec.name;
        match done {
            Ok(done) => {
                if self.trouble.take().is_some() {
                    tracing::info!("the {name} can be written again");
                }
                Ok(done)
            }
            Err(error) => {
                let message = error.to_string();
                if self.trouble.as_ref().is_none_or(|(_, known)| *known != message) {
                    tracing::warn!(error = message, "the {name} cannot be written");
                }
                self.trouble = Some((error.kind(), message));
                Err(error)
            }
        }
    }

    /// Returns whether the database can be written, and if not, the reason and the remedy.
    #[must_use]
    pub fn health(&self) -> Health {
        let waiting = |message: &str| match self.spec.meanwhile {
            "" => message.to_owned(),
            meanwhile => format!("{message}; {meanwhile}"),
        };
        match &self.trouble {
            None => self.behind.as_ref().map_or_else(|| Health::ok(""), Health::degraded),
            Some((DatabaseErrorKind::Unavailable, message)) => Health::degraded(waiting(message)),
            Some((DatabaseErrorKind::Gone, message)) => Health::failed(waiting(message)),
            Some((_, message)) => Health::failed(message.clone()),
        }
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.options.path
    }

    /// Returns the sizes of the database file and of its write-ahead log, in bytes.
    #[must_use]
    pub fn sizes(&self) -> (u64, u64) {
        let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
        (size(&self.options.path), size(&beside(&self.options.path, "-wal")))
    }

    /// Copies the write-ahead log into the file, so that one file holds everything.
    ///
    /// # Errors
    ///
    /// Returns an error if the database cannot be written; the log then stays, and nothing is lost.
    pub fn checkpoint(&self) -> Result<(), DatabaseError> {
        self.writer.as_ref().map_or(Ok(()), Writer::checkpoint)
    }

    /// Closes the file, with everything in it. The next piece of work opens it again.
    ///
    /// # Errors
    ///
    /// Returns an error if the write-ahead log could not be copied into the file; nothing is lost.
    pub fn close(&mut self) -> Result<(), DatabaseError> {
        match self.writer.take() {
            Some(writer) => {
                self.remember(&writer);
                writer.checkpoint()
            }
            None => Ok(()),
        }
    }
}

/// A database that is open now. A module may cache knowledge of its rows for one
/// [`opening`](Self::opening) only.
#[derive(Debug)]
pub struct Ready<'a> {
    database: &'a mut Database,
}

impl Ready<'_> {
    /// Returns the number of times that the database was opened: a new number may mean another
    /// file.
    #[must_use]
    pub const fn opening(&self) -> u64 {
        self.database.openings
    }

    /// Runs a piece of work in one transaction; see [`Database::write`].
    ///
    /// # Errors
    ///
    /// Returns an error if the database cannot be written; the work then has no effect.
    pub fn write<T>(
        self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        let Self { database } = self;
        let done = match &mut database.writer {
            Some(writer) => writer.write(work),
            None => {
                let message = format!("the {} is closed", database.spec.name);
                Err(DatabaseError::unavailable(message))
            }
        };
        database.note(done)
    }

    /// Returns the committed value of [`Spec::counted`].
    #[must_use]
    pub fn position(&self) -> i64 {
        self.database.writer.as_ref().map_or(0, Writer::position)
    }
}

//! What a database is, and where it lies.

use std::path::{Path, PathBuf};

use module_sdk::Host;
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::Deserialize;

/// The file in the data directory that names the database which was written last.
const NOTE: &str = "known_database";

/// What a module's database is. [`Spec::new`] has all that most need:
///
/// ```
/// use module_sqlite::Spec;
///
/// const ALERTS: Spec = Spec {
///     // The operator may name the file: so messages say which setting to look at.
///     setting: Some("database"),
///     ..Spec::new("database of alerts", "alerts.db", *b"ALRT", &["CREATE TABLE alert (at)"])
/// };
/// assert_eq!(ALERTS.file, "alerts.db");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// What messages call it: `usage database` becomes "the usage database /… is locked".
    pub name: &'static str,
    /// The file in the module's data directory.
    pub file: &'static str,
    /// Four letters in the file's head that tell it from the files of other programs.
    pub application_id: [u8; 4],
    /// The steps that made the schema, oldest first, each the text of a file. `user_version`
    /// counts those that were done. All that are missing are done in one transaction.
    ///
    /// The kit keeps a table of its own in the file: `meta (key TEXT, value INTEGER)`.
    pub migrations: &'static [&'static str],
    /// Columns that were added since: they are made where they are missing, and count as no step,
    /// so that the build before can go on with the file.
    pub added_columns: &'static [AddedColumn],
    /// The number of steps that a build must know to work with a file that this one has written.
    /// `None` for all of them: then a build that knows fewer refuses it.
    pub readable_from: Option<usize>,
    /// Versions that only builds between two releases wrote, with the number of steps that they
    /// are worth.
    pub withdrawn_versions: &'static [(i64, usize)],
    /// The key of the module's configuration by which the operator names the file.
    pub setting: Option<&'static str>,
    /// What a refused newer file asks to be updated.
    pub product: &'static str,
    /// What becomes of the work while the database is out of reach; the health says it.
    pub meanwhile: &'static str,
    /// What is counted, where an older copy in the place of the file is to be told.
    pub counted: Option<Counted>,
    /// The file in the module's data directory that remembers which database was written last.
    pub note: &'static str,
    /// Prepares each connection that writes: SQL functions, pragmas.
    pub setup: fn(&Connection) -> rusqlite::Result<()>,
}

/// A column that was added to a table after a release.
#[derive(Debug, Clone, Copy)]
pub struct AddedColumn {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// Its type. It must be one that `ALTER TABLE … ADD COLUMN` takes: NULL, or with a default.
    pub form: &'static str,
}

/// A number that only grows, by which an older copy of a database is known.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// The key of `meta` that holds it; see [`raise`](crate::raise).
    pub key: &'static str,
    /// Names so many of what is counted: "2 requests".
    pub words: fn(i64) -> String,
}

impl Spec {
    /// Returns what most databases are: every step raises the version that older builds refuse.
    #[must_use]
    pub const fn new(
        name: &'static str,
        file: &'static str,
        application_id: [u8; 4],
        migrations: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            file,
            application_id,
            migrations,
            added_columns: &[],
            readable_from: None,
            withdrawn_versions: &[],
            setting: None,
            product: "the module",
            meanwhile: "events wait in the ledger until then",
            counted: None,
            note: NOTE,
            setup: |_| Ok(()),
        }
    }

    pub(crate) fn application(&self) -> i64 {
        i32::from_be_bytes(self.application_id).into()
    }

    pub(crate) fn readable_from(&self) -> i64 {
        steps(self.readable_from.unwrap_or(self.migrations.len()))
    }

    /// Returns what to do to have another file: the setting where there is one.
    pub(crate) fn another_file(&self) -> String {
        match self.setting {
            Some(setting) => format!("name another file as `{setting}`"),
            None => self.begin_anew(),
        }
    }

    /// Returns what to do to begin a new database: that there was one is remembered.
    pub(crate) fn begin_anew(&self) -> String {
        format!(
            "move it away, and remove {} from the module's data directory, to begin a new one",
            self.note
        )
    }
}

/// Returns a number of steps as SQLite keeps it.
pub(crate) fn steps(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// When a write is safe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// When the process is killed. A power cut may lose the last seconds; what was written before
    /// stays whole. (SQLite: WAL, `synchronous = NORMAL`.)
    #[default]
    Process,
    /// When the power is cut: every batch waits for the disk. (`synchronous = FULL`.)
    Power,
}

/// Where a database lies, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The file.
    pub path: PathBuf,
    /// The file that remembers which database was written last, so that none is begun anew in
    /// silence. `None` for none: then a file that is gone looks like a first start.
    pub note: Option<PathBuf>,
    /// When a write is safe.
    pub durability: Durability,
}

impl Options {
    /// Returns the options of a file of which nothing is remembered.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), note: None, durability: Durability::default() }
    }

    /// Returns the options of a database in a module's data directory.
    #[must_use]
    pub fn in_directory(directory: &Path, spec: &Spec) -> Self {
        Self { note: Some(directory.join(spec.note)), ..Self::new(directory.join(spec.file)) }
    }

    /// Returns the options of a database in the data directory of this module.
    #[must_use]
    pub fn of(host: &Host, spec: &Spec) -> Self {
        Self::in_directory(host.data_dir(), spec)
    }
}

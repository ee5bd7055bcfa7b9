//! Description of a database, and options for opening it.

use std::path::{Path, PathBuf};

use module_sdk::Host;
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::Deserialize;

/// File in the data directory that names the database which was written last.
const NOTE: &str = "known_database";

/// Description of a module's database. [`Spec::new`] has defaults that fit most:
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
    /// Name of the database in messages: `usage database` becomes "the usage database /… is
    /// locked".
    pub name: &'static str,
    /// Name of the file in the module's data directory.
    pub file: &'static str,
    /// Four letters in the file's header that tell it from files of other programs.
    pub application_id: [u8; 4],
    /// Migrations of the schema, oldest first, each the text of a file. `user_version` counts those
    /// that were done. All missing ones are done in one transaction.
    ///
    /// The library has a table of its own in the file: `meta (key TEXT, value INTEGER)`.
    pub migrations: &'static [&'static str],
    /// Columns that were added since: they are added if missing, and do not count as migrations, so
    /// that the previous build can go on with the file.
    pub added_columns: &'static [AddedColumn],
    /// Number of migrations that a build must know to work with a file written by this build.
    /// `None` for all of them: then a build that knows fewer refuses the file.
    pub readable_from: Option<usize>,
    /// Versions that only builds between two releases wrote, with the number of migrations that
    /// they correspond to.
    pub withdrawn_versions: &'static [(i64, usize)],
    /// Key of the module's configuration by which the operator names the file.
    pub setting: Option<&'static str>,
    /// Name of the product to update if a newer file is refused.
    pub product: &'static str,
    /// Effect on the work while the database is unavailable, for the health.
    pub meanwhile: &'static str,
    /// Number that reveals an older copy in the place of the file, if any.
    pub counted: Option<Counted>,
    /// Name of the file in the module's data directory that names the database which was written
    /// last.
    pub note: &'static str,
    /// Function that prepares each writing connection: SQL functions, pragmas.
    pub setup: fn(&Connection) -> rusqlite::Result<()>,
}

/// A column that was added to a table after a release.
#[derive(Debug, Clone, Copy)]
pub struct AddedColumn {
    /// Name of the table.
    pub table: &'static str,
    /// Name of the column.
    pub column: &'static str,
    /// Type of the column. It must be valid for `ALTER TABLE … ADD COLUMN`: NULL, or with a
    /// default.
    pub form: &'static str,
}

/// A number that only grows, which reveals an older copy of a database.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// Key of `meta` that holds the number; see [`raise`](crate::raise).
    pub key: &'static str,
    /// Function that names the counted things: "2 requests".
    pub words: fn(i64) -> String,
}

impl Spec {
    /// Returns a description with defaults that fit most databases: every migration raises the
    /// version that older builds refuse.
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

    /// Returns the remedy for using another file: the setting if there is one.
    pub(crate) fn another_file(&self) -> String {
        match self.setting {
            Some(setting) => format!("name another file as `{setting}`"),
            None => self.begin_anew(),
        }
    }

    /// Returns the remedy for starting a new database: the note of the old one must go, too.
    pub(crate) fn begin_anew(&self) -> String {
        format!(
            "move it away, and remove {} from the module's data directory, to begin a new one",
            self.note
        )
    }
}

/// Converts a number of migrations to SQLite's type.
pub(crate) fn steps(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Durability of writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Writes survive a kill of the process. A power cut may lose the last seconds; earlier writes
    /// stay complete. (SQLite: WAL, `synchronous = NORMAL`.)
    #[default]
    Process,
    /// Writes survive a power cut: every batch waits for the disk. (`synchronous = FULL`.)
    Power,
}

/// Path and durability of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Path of the database file.
    pub path: PathBuf,
    /// Path of the file that names the database which was written last, so that none is silently
    /// created anew. `None` for no such file: then a missing database looks like a first start.
    pub note: Option<PathBuf>,
    /// Durability of writes.
    pub durability: Durability,
}

impl Options {
    /// Returns the options for a file without a note.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), note: None, durability: Durability::default() }
    }

    /// Returns the options for a database in a module's data directory.
    #[must_use]
    pub fn in_directory(directory: &Path, spec: &Spec) -> Self {
        Self { note: Some(directory.join(spec.note)), ..Self::new(directory.join(spec.file)) }
    }

    /// Returns the options for a database in the data directory of this module.
    #[must_use]
    pub fn of(host: &Host, spec: &Spec) -> Self {
        Self::in_directory(host.data_dir(), spec)
    }
}

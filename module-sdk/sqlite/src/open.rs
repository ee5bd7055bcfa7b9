//! Opening of the file: checks of its owner program and version, migration, and settings.

use std::{fs, io, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::{
    DatabaseError, DatabaseErrorKind, Durability, Spec,
    error::At as _,
    meta,
    spec::{AddedColumn, steps},
};

/// Time for which a statement waits for another program's lock. The module's thread waits with it.
const BUSY: Duration = Duration::from_millis(500);

/// Opens a database for writing, creates it if it is missing, and migrates its schema.
pub(crate) fn writer(
    spec: &Spec,
    path: &Path,
    durability: Durability,
) -> Result<Connection, DatabaseError> {
    create(spec, path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).at(spec, path)?;
    connection.busy_timeout(BUSY).at(spec, path)?;
    let found = Version::of(&connection, spec, path)?;
    tune(&connection, durability).at(spec, path)?;
    (spec.setup)(&connection).at(spec, path)?;
    migrate(&mut connection, spec, &found).map_err(|error| found.refusal(spec, path, &error))?;
    Ok(connection)
}

/// Opens a database for reading only.
pub(crate) fn reader(spec: &Spec, path: &Path) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).at(spec, path)?;
    connection.busy_timeout(BUSY).at(spec, path)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Creates an empty file that only its owner may read, if there is none. Its directory must exist:
/// the host created the module's own, and any other missing one is misspelt or not mounted. An
/// existing file is not touched: closing it would release the locks that SQLite holds on it in this
/// process.
fn create(spec: &Spec, path: &Path) -> Result<(), DatabaseError> {
    let file = format!("the {} {}", spec.name, path.display());
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        let correct = spec
            .setting
            .map(|key| format!(", or correct `{key}` in the configuration"))
            .unwrap_or_default();
        return Err(DatabaseError::unavailable(format!(
            "{file} cannot be made: there is no directory {}; make it{correct}",
            directory.display()
        )));
    }
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => {
            let setting = spec
                .setting
                .map(|key| format!("`{key}` in the configuration and "))
                .unwrap_or_default();
            Err(DatabaseError::unavailable(format!(
                "{file} cannot be made: {error}; check {setting}the rights of its directory"
            )))
        }
    }
}

/// Version of the schema of a file.
struct Version {
    /// Version noted in the file.
    noted: i64,
    /// Number of migrations done, as this build counts them.
    done: usize,
    /// `true` if the version number is no longer in use.
    withdrawn: bool,
}

impl Version {
    /// Reads the version of a file; refuses files that must not be changed before anything is
    /// written.
    fn of(connection: &Connection, spec: &Spec, path: &Path) -> Result<Self, DatabaseError> {
        let number =
            |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).at(spec, path);
        let noted = number("PRAGMA user_version")?;
        let application = number("PRAGMA application_id")?;
        let objects = number("SELECT count(*) FROM sqlite_schema")?;
        let is_new = (noted, application, objects) == (0, 0, 0);
        if !is_new && application != spec.application() {
            let message = format!(
                "{} is a database of another program and was left as it is; {}",
                path.display(),
                spec.another_file()
            );
            return Err(DatabaseError::new(DatabaseErrorKind::Foreign, message));
        }
        let has_meta = number("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'")? > 0;
        let readable_from = if has_meta {
            meta::number(connection, meta::READABLE_FROM).at(spec, path)?
        } else {
            None
        };
        Self::judge(spec, noted, readable_from).ok_or_else(|| {
            let message = format!(
                "the {} {} has schema version {noted}, this module knows up to {}; it was left as \
                 it is: update {}, or {}",
                spec.name,
                path.display(),
                spec.migrations.len(),
                spec.product,
                spec.another_file()
            );
            DatabaseError::new(DatabaseErrorKind::Newer, message)
        })
    }

    /// Interprets a version; `None` for one that this build cannot work with.
    fn judge(spec: &Spec, noted: i64, readable_from: Option<i64>) -> Option<Self> {
        let all = spec.migrations.len();
        let knows = |number: i64| usize::try_from(number).ok().filter(|number| *number <= all);
        // Those builds did not note who may read the file; whoever gives the number out anew does.
        if let Some((_, done)) = spec
            .withdrawn_versions
            .iter()
            .find(|(version, _)| *version == noted && readable_from.is_none())
        {
            return Some(Self { noted, done: *done, withdrawn: true });
        }
        // A newer one that has only added to what this build knows counts as done.
        let done = knows(noted).or_else(|| readable_from.and_then(knows).map(|_| all))?;
        Some(Self { noted, done, withdrawn: false })
    }

    /// Returns the error for failed migrations.
    fn refusal(&self, spec: &Spec, path: &Path, error: &rusqlite::Error) -> DatabaseError {
        let plain = DatabaseError::of(spec, path, error);
        if plain.kind() != DatabaseErrorKind::Defect {
            return plain;
        }
        let message = format!(
            "the schema of the {} {} cannot be brought from version {} to {}: {error}; the file \
             was left as it is: go back to the build before",
            spec.name,
            path.display(),
            self.noted,
            spec.migrations.len()
        );
        DatabaseError::new(DatabaseErrorKind::Migration, message)
    }
}

fn tune(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    let synchronous = match durability {
        Durability::Process => "NORMAL",
        Durability::Power => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Runs the missing migrations in one transaction: all of them or none.
fn migrate(connection: &mut Connection, spec: &Spec, found: &Version) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (version, sql) in (1_i64..).zip(spec.migrations).skip(found.done) {
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", version)?;
    }
    if found.withdrawn {
        transaction.pragma_update(None, "user_version", steps(found.done))?;
    }
    if found.noted == 0 {
        transaction.pragma_update(None, "application_id", spec.application())?;
    }
    let added = add_columns(&transaction, spec.added_columns)?;
    meta::create(&transaction)?;
    meta::raise(&transaction, meta::READABLE_FROM, spec.readable_from())?;
    meta::set_id(&transaction)?;
    transaction.commit()?;
    let version = spec.migrations.len();
    if found.done < version {
        tracing::info!(version, "the schema of the {} is up to date", spec.name);
    }
    for AddedColumn { table, column, .. } in added {
        tracing::info!(table, column, "a column was added to the {}", spec.name);
    }
    Ok(())
}

/// Adds the missing columns and returns them.
fn add_columns<'a>(
    transaction: &Transaction<'_>,
    columns: &'a [AddedColumn],
) -> rusqlite::Result<Vec<&'a AddedColumn>> {
    let mut added = Vec::new();
    for one in columns {
        let AddedColumn { table, column, form } = one;
        let sql = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
        let found: i64 = transaction.query_row(sql, (table, column), |row| row.get(0))?;
        if found == 0 {
            let sql = format!("ALTER TABLE {table} ADD COLUMN {column} {form}");
            transaction.execute_batch(&sql)?;
            added.push(one);
        }
    }
    Ok(added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_worth_what_this_build_can_do_with_it() {
        let spec = Spec {
            withdrawn_versions: &[(3, 1)],
            ..Spec::new("database", "a.db", *b"TEST", &["", ""])
        };
        let check = |noted, readable_from, expected: Option<(usize, bool)>| {
            let judged = Version::judge(&spec, noted, readable_from);
            let judged = judged.map(|version| (version.done, version.withdrawn));
            assert_eq!(judged, expected, "{noted}, readable from {readable_from:?}");
        };
        check(0, None, Some((0, false)));
        check(1, None, Some((1, false)));
        check(2, Some(2), Some((2, false)));
        // Newer ones that have only added, and others.
        check(4, Some(2), Some((2, false)));
        check(4, Some(3), None);
        check(4, None, None);
        check(-1, None, None);
        // A number that builds between releases gave out, and whoever gives it out anew.
        check(3, None, Some((1, true)));
        check(3, Some(2), Some((2, false)));
        check(3, Some(3), None);
    }
}

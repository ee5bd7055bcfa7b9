//! Opening the file: whose it is, which version, how it is written.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, functions::FunctionFlags, types::ValueRef};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    error::{At as _, StoreError, StoreErrorKind},
    meta, raise_meta,
};
use crate::histogram::Histogram;

/// The steps that made the schema, oldest first. `user_version` counts those that were done, and
/// the builds before [`READABLE_FROM`] was noted refuse a file with more than they know.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_usage.sql"),
    include_str!("../../migrations/0002_readable_views.sql"),
];

/// Columns that were added since. Older builds name the columns that they read and write, so these
/// count as no step.
const ADDED_COLUMNS: &[(&str, &str, &str)] = &[
    // The speed or tier of service that a request was answered at.
    ("request", "service_tier", "INTEGER"),
    // What the client says that it cost, beside our own figure.
    ("request", "stated_nano_usd", "INTEGER"),
];

/// The number of steps that a build must know to work with a file that this one has written. A
/// step after which that is no longer so raises it.
const READABLE_FROM: i64 = 2;
/// The key of `meta` under which the file says so.
const READABLE_FROM_KEY: &str = "readable_from_version";

/// "LODS", as migration 1 sets it.
const APPLICATION_ID: i64 = 0x4C4F_4453;

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

/// How long a statement waits for another program's lock. The module's thread waits with it.
pub(super) const BUSY: Duration = Duration::from_millis(500);

/// Opens the database for writing, makes it where there is none, and brings its schema up to date.
pub(super) fn writer(path: &Path, durability: Durability) -> Result<Connection, StoreError> {
    create(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).at(path)?;
    connection.busy_timeout(BUSY).at(path)?;
    let version = version(&connection, path)?;
    tune(&connection, durability).at(path)?;
    migrate(&mut connection, version).at(path)?;
    add_columns(&mut connection).at(path)?;
    Ok(connection)
}

/// What tells this database from any other; one that was made without gets it now.
pub(super) fn id(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('database_id', random())", [])?;
    let sql = "SELECT value FROM meta WHERE key = 'database_id'";
    connection.query_row(sql, [], |row| row.get(0))
}

/// Opens the database for reading only.
pub(crate) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).at(path)?;
    connection.busy_timeout(BUSY).at(path)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Makes an empty file that only its owner may read. Its directory must be there: the host made the
/// module's own, and any other that is not there was misspelt, or is not mounted.
fn create(path: &Path) -> Result<(), StoreError> {
    let unavailable = |why: String| StoreError::new(StoreErrorKind::Unavailable, why);
    let failed = |error: std::io::Error| {
        unavailable(format!(
            "the usage database {} cannot be made: {error}; check `database` in the configuration \
             and the rights of its directory",
            path.display()
        ))
    };
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        return Err(unavailable(format!(
            "the usage database {} cannot be made: there is no directory {}; make it, or correct \
             `database` in the configuration",
            path.display(),
            directory.display()
        )));
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path).map(drop).map_err(failed)
}

/// The steps that were done; refuses what is not ours to touch before anything is written.
fn version(connection: &Connection, path: &Path) -> Result<usize, StoreError> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).at(path);
    let version = number("PRAGMA user_version")?;
    let application = number("PRAGMA application_id")?;
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    let file = path.display();
    if objects > 0 && application != APPLICATION_ID {
        let message = format!(
            "{file} is a database of another program and was left as it is; name another file as \
             `database`"
        );
        return Err(StoreError::new(StoreErrorKind::Foreign, message));
    }
    let has_meta = number("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'")? > 0;
    let noted = if has_meta { meta(connection, READABLE_FROM_KEY).at(path)? } else { None };
    let knows = |steps: i64| usize::try_from(steps).ok().filter(|steps| *steps <= MIGRATIONS.len());
    match (knows(version), noted.and_then(knows)) {
        (Some(done), _) => Ok(done),
        // A newer one that has only added to what this build knows.
        (None, Some(_)) => Ok(MIGRATIONS.len()),
        (None, None) => Err(StoreError::new(
            StoreErrorKind::Newer,
            format!(
                "the usage database {file} has schema version {version}, this module knows up to \
                 {}; it was left as it is: update Lodestar, or name another file as `database`",
                MIGRATIONS.len()
            ),
        )),
    }
}

fn tune(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(
        None,
        "synchronous",
        match durability {
            Durability::Process => "NORMAL",
            Durability::Power => "FULL",
        },
    )?;
    // Keys are hashes, so their pages come in no order: a larger cache writes each less often.
    connection.pragma_update(None, "cache_size", -16_000)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.create_scalar_function(
        "histogram_add",
        2,
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC,
        |context| {
            let (left, right) = (context.get_raw(0), context.get_raw(1));
            match (left, right) {
                (ValueRef::Blob(left), ValueRef::Blob(right)) => {
                    let decode = |bytes| {
                        Histogram::decode(bytes)
                            .map_err(|error| rusqlite::Error::UserFunctionError(error.into()))
                    };
                    let mut sum = decode(left)?;
                    sum.merge(&decode(right)?);
                    Ok(sum.encode())
                }
                (ValueRef::Blob(only), _) | (_, ValueRef::Blob(only)) => Ok(Some(only.to_owned())),
                _ => Ok(None),
            }
        },
    )
}

fn migrate(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    for (version, sql) in (1_i64..).zip(MIGRATIONS).skip(version) {
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
        tracing::info!(version, "the schema of the usage database is up to date");
    }
    Ok(())
}

/// Adds the columns that are missing, and notes which builds may work with the file.
fn add_columns(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for (table, column, form) in ADDED_COLUMNS {
        let sql = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
        let found: i64 = transaction.query_row(sql, (table, column), |row| row.get(0))?;
        if found == 0 {
            transaction
                .execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {form}"))?;
            tracing::info!(table, column, "a column was added to the usage database");
        }
    }
    raise_meta(&transaction, READABLE_FROM_KEY, READABLE_FROM)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_the_first_version_is_brought_up_to_date() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("usage.db");
        let old = Connection::open(&path).expect("it opens");
        old.execute_batch(MIGRATIONS[0]).expect("migration 1 runs");
        old.execute_batch("PRAGMA user_version = 1; INSERT INTO meta VALUES ('kept', 7)")
            .expect("it is written");
        drop(old);
        let new = writer(&path, Durability::Power).expect("it is migrated");
        let kept: i64 = new
            .query_row("SELECT value FROM meta WHERE key = 'kept'", [], |row| row.get(0))
            .expect("the old data is there");
        let views: i64 = new
            .query_row("SELECT count(*) FROM daily", [], |row| row.get(0))
            .expect("the new view is there");
        assert_eq!((kept, views), (7, 0));
    }

    #[test]
    fn a_newer_database_that_has_only_more_is_taken_up_and_keeps_its_version() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("usage.db");
        let newer = writer(&path, Durability::Process).expect("it is made");
        newer
            .execute_batch("PRAGMA user_version = 99; ALTER TABLE request ADD COLUMN more")
            .expect("it is written");
        drop(newer);
        for _ in 0..2 {
            let connection = writer(&path, Durability::Process).expect("it is taken up");
            let version: i64 = connection
                .query_row("PRAGMA user_version", [], |row| row.get(0))
                .expect("it answers");
            assert_eq!(version, 99);
        }
    }

    #[test]
    fn what_is_not_ours_is_left_as_it_is() {
        let check = |content: &dyn Fn(&Path), kind, text: &str| {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("usage.db");
            content(&path);
            let before = std::fs::read(&path).expect("it is readable");
            let error = writer(&path, Durability::Process).expect_err("it is refused");
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(std::fs::read(&path).expect("it is readable"), before);
        };
        let sql = |sql: &'static str| {
            move |path: &Path| {
                let connection = Connection::open(path).expect("it opens");
                connection.execute_batch(sql).expect("it is written");
            }
        };
        let newer = "PRAGMA application_id = 0x4C4F4453; CREATE TABLE a (b); \
                     PRAGMA user_version = 99";
        check(&sql(newer), StoreErrorKind::Newer, "schema version 99");
        let narrower = "PRAGMA application_id = 0x4C4F4453; PRAGMA user_version = 99;
                        CREATE TABLE meta (key PRIMARY KEY, value);
                        INSERT INTO meta VALUES ('readable_from_version', 98)";
        check(&sql(narrower), StoreErrorKind::Newer, "schema version 99");
        check(&sql("CREATE TABLE a (b)"), StoreErrorKind::Foreign, "another program");
        let garbage = |path: &Path| std::fs::write(path, [7; 9000]).expect("it is written");
        check(&garbage, StoreErrorKind::Damaged, "damaged");
    }

    #[test]
    fn only_the_owner_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("usage.db");
        let connection = writer(&path, Durability::Process).expect("it opens");
        let mode = |path: &Path| path.metadata().expect("it exists").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&super::super::error::wal(&path)), 0o600);
        drop(connection);
    }
}

//! The specification of the database: its identity, its migrations, and how it is opened.

use module_sdk::LogHistogram;
use module_sqlite::{AddedColumn, Counted, Spec};
use rusqlite::{Connection, functions::FunctionFlags, types::ValueRef};

use super::LAST_REQUEST;

/// The database of usage. `application_id` is "LODS", as migration 1 sets it.
pub(crate) const SPEC: Spec = Spec {
    added_columns: &[
        // The speed or tier of service that a request was answered at.
        AddedColumn { table: "request", column: "service_tier", form: "INTEGER" },
        // What the client says that it cost, beside our own figure.
        AddedColumn { table: "request", column: "stated_nano_usd", form: "INTEGER" },
        // The sources that have reported it.
        AddedColumn { table: "request", column: "sources", form: "INTEGER" },
    ],
    readable_from: Some(2),
    // Builds between two releases counted the two columns above as a step.
    withdrawn_versions: &[(3, 2)],
    setting: Some("database"),
    product: "Lodestar",
    meanwhile: "new requests wait in the ledger until then",
    counted: Some(Counted { key: LAST_REQUEST, words: crate::commands::requests }),
    setup,
    ..Spec::new(
        "usage database",
        "usage.db",
        *b"LODS",
        &[
            include_str!("../../migrations/0001_usage.sql"),
            include_str!("../../migrations/0002_readable_views.sql"),
        ],
    )
};

fn setup(connection: &Connection) -> rusqlite::Result<()> {
    // Keys are hashes, so their pages come in no order, and no cache holds those of a large
    // database: what it lacks the system has. A commit that grows a table looks at every page here.
    connection.pragma_update(None, "cache_size", -4_000)?;
    connection.create_scalar_function(
        "histogram_add",
        2,
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC,
        |context| {
            let (left, right) = (context.get_raw(0), context.get_raw(1));
            match (left, right) {
                (ValueRef::Blob(left), ValueRef::Blob(right)) => {
                    let decode = |bytes| {
                        LogHistogram::decode(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Options, Store};

    #[test]
    fn a_database_of_the_first_version_is_brought_up_to_date() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("usage.db");
        let old = Connection::open(&path).expect("it opens");
        old.execute_batch(SPEC.migrations[0]).expect("migration 1 runs");
        old.execute_batch("PRAGMA user_version = 1; INSERT INTO meta VALUES ('kept', 7)")
            .expect("it is written");
        drop(old);
        drop(Store::open(&path, Options::default()).expect("it is migrated"));
        let new = Connection::open(&path).expect("it opens");
        let number =
            |sql: &str| -> i64 { new.query_row(sql, [], |row| row.get(0)).expect("it answers") };
        assert_eq!(number("SELECT value FROM meta WHERE key = 'kept'"), 7, "the old data");
        assert_eq!(number("SELECT count(*) FROM daily"), 0, "the new view");
    }
}

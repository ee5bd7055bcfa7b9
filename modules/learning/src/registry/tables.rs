//! The tables that follow from the log: for lists and joins, and compared with it before each
//! command.

use rusqlite::{Connection, params_from_iter, types::Value};

use super::{Ledger, Version, audit::Finding};

type Row = Vec<Value>;

/// A table, and its rows about a version.
struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    rows: fn(&Version) -> Vec<Row>,
}

/// Tables whose first column is the id of a version.
const TABLES: [Table; 3] = [
    Table {
        name: "version",
        columns: &[
            "id",
            "state",
            "created_at",
            "updated_at",
            "run",
            "base",
            "base_digest",
            "dataset",
            "dataset_digest",
            "examples",
            "consents",
            "artifact",
            "evaluation",
            "bench",
            "tainted",
        ],
        rows: version,
    },
    Table {
        name: "version_gate",
        columns: &[
            "version",
            "place",
            "name",
            "passed",
            "value",
            "bound",
            "evidence",
            "overridden_by",
            "override_reason",
            "overridden_at",
        ],
        rows: gates,
    },
    Table {
        name: "version_approval",
        columns: &[
            "version",
            "place",
            "person",
            "at",
            "reason",
            "evaluation",
            "artifact",
            "base_digest",
            "dataset_digest",
            "bench",
        ],
        rows: approvals,
    },
];

impl Table {
    fn select(&self) -> String {
        format!("SELECT {} FROM {} ORDER BY 1, 2", self.columns.join(", "), self.name)
    }

    fn insert(&self) -> String {
        let marks = vec!["?"; self.columns.len()].join(", ");
        format!("INSERT INTO {} ({}) VALUES ({marks})", self.name, self.columns.join(", "))
    }

    fn read(&self, connection: &Connection) -> rusqlite::Result<Vec<Row>> {
        read(connection, &self.select(), self.columns.len())
    }
}

const ALIASES: &str = "SELECT name, version FROM version_alias ORDER BY 1";

fn read(connection: &Connection, sql: &str, columns: usize) -> rusqlite::Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect())?;
    rows.collect()
}

/// Writes the rows of some versions and the aliases anew.
pub(super) fn write(
    connection: &Connection,
    ledger: &Ledger,
    versions: &[&str],
) -> rusqlite::Result<()> {
    for table in &TABLES {
        let delete = format!("DELETE FROM {} WHERE {} = ?1", table.name, table.columns[0]);
        for id in versions {
            connection.prepare_cached(&delete)?.execute([id])?;
            let rows = ledger.versions.get(*id).map(table.rows).unwrap_or_default();
            for row in rows {
                connection.prepare_cached(&table.insert())?.execute(params_from_iter(row))?;
            }
        }
    }
    connection.execute("DELETE FROM version_alias", [])?;
    for row in aliases(ledger) {
        let insert = "INSERT INTO version_alias (name, version) VALUES (?1, ?2)";
        connection.prepare_cached(insert)?.execute(params_from_iter(row))?;
    }
    Ok(())
}

/// Deletes all rows, and writes those of the ledger.
pub(super) fn rewrite(connection: &Connection, ledger: &Ledger) -> rusqlite::Result<()> {
    for table in &TABLES {
        connection.execute(&format!("DELETE FROM {}", table.name), [])?;
    }
    let all: Vec<&str> = ledger.versions.keys().map(String::as_str).collect();
    write(connection, ledger, &all)
}

/// Returns the first row that does not fit the ledger.
pub(super) fn difference(
    connection: &Connection,
    ledger: &Ledger,
) -> rusqlite::Result<Option<Finding>> {
    for table in &TABLES {
        let expected: Vec<Row> = ledger.versions.values().flat_map(table.rows).collect();
        let found = table.read(connection)?;
        if let Some(row) = first_difference(&expected, &found) {
            return Ok(Some(Finding::Table { table: table.name, version: id(row) }));
        }
    }
    let (expected, found) = (aliases(ledger), read(connection, ALIASES, 2)?);
    let finding = first_difference(&expected, &found);
    Ok(finding.map(|_| Finding::Table { table: "version_alias", version: String::new() }))
}

fn first_difference<'a>(expected: &'a [Row], found: &'a [Row]) -> Option<&'a Row> {
    let longer = if expected.len() > found.len() { expected } else { found };
    let rows = expected.iter().zip(found);
    let same = rows.take_while(|(one, other)| one == other).count();
    longer.get(same)
}

fn id(row: &Row) -> String {
    match row.first() {
        Some(Value::Text(id)) => id.chars().filter(|c| !c.is_control()).take(80).collect(),
        _ => String::new(),
    }
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn maybe(value: Option<impl Into<String>>) -> Value {
    value.map_or(Value::Null, text)
}

fn number(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn real(value: Option<f64>) -> Value {
    value.map_or(Value::Null, Value::Real)
}

fn version(it: &Version) -> Vec<Row> {
    let consents = serde_json::json!(it.lineage.consents).to_string();
    vec![vec![
        text(&*it.id),
        text(it.state.as_str()),
        Value::Integer(it.created_at),
        Value::Integer(it.updated_at),
        text(&*it.lineage.run),
        text(&*it.lineage.base),
        text(it.lineage.base_digest.as_str()),
        text(&*it.lineage.dataset),
        text(it.lineage.dataset_digest.as_str()),
        number(it.lineage.examples),
        text(consents),
        maybe(it.artifact.as_ref().map(|digest| digest.as_str())),
        number(it.evaluation),
        maybe(it.bench.as_ref().map(|digest| digest.as_str())),
        Value::Integer(it.tainted.into()),
    ]]
}

fn gates(it: &Version) -> Vec<Row> {
    let row = |(place, gate): (usize, &super::Gate)| {
        let overriding = gate.overridden.as_ref();
        vec![
            text(&*it.id),
            number(place as u64),
            text(&*gate.name),
            Value::Integer(gate.passed.into()),
            real(gate.value),
            real(gate.limit),
            text(gate.evidence.to_string()),
            maybe(overriding.map(|one| &*one.by)),
            maybe(overriding.map(|one| &*one.reason)),
            overriding.map_or(Value::Null, |one| Value::Integer(one.at)),
        ]
    };
    it.gates.iter().enumerate().map(row).collect()
}

fn approvals(it: &Version) -> Vec<Row> {
    let row = |(place, approval): (usize, &super::Approval)| {
        vec![
            text(&*it.id),
            number(place as u64),
            text(&*approval.by),
            Value::Integer(approval.at),
            text(&*approval.reason),
            number(approval.evaluation),
            text(approval.observed.artifact.as_str()),
            text(approval.observed.base.as_str()),
            text(approval.observed.dataset.as_str()),
            text(approval.observed.bench.as_str()),
        ]
    };
    it.approvals.iter().enumerate().map(row).collect()
}

fn aliases(ledger: &Ledger) -> Vec<Row> {
    let all = [
        ("challenger", &ledger.challenger),
        ("champion", &ledger.champion),
        ("policy", &ledger.policy),
        ("previous", &ledger.previous),
        ("previous_policy", &ledger.previous_policy),
    ];
    let set = all.into_iter().filter_map(|(name, id)| Some((name, id.as_deref()?)));
    set.map(|(name, id)| vec![text(name), text(id)]).collect()
}

//! Single requests: `lodestar usage requests`, and the pages of an export.

use module_sdk::TimeRange;
use rusqlite::{Connection, types::Value as SqlValue};
use serde_json::Value;

use super::Reader;
use crate::{
    sanitize::flag,
    store::{READ, StoreError, Stored, Texts, read},
};

/// Filter of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFilter {
    /// Models that answered; empty for all.
    pub models: Vec<String>,
    /// Id of the session; `None` for all.
    pub session: Option<String>,
    /// Project of the requests; `None` for all.
    pub project: Option<String>,
    /// `true` for only those that did not end well.
    pub errors: bool,
}

/// Returns the latest requests of a period, the latest first.
///
/// # Errors
///
/// When the database cannot be read.
pub fn requests(
    reader: &mut Reader,
    period: &TimeRange,
    filter: &RequestFilter,
    limit: u32,
) -> Result<Vec<Stored>, StoreError> {
    let (from, to) = period.bounds_ms();
    let mut sql = format!("{}WHERE r.ended_at >= ? AND r.ended_at < ?", *READ);
    let mut values: Vec<SqlValue> = vec![from.into(), to.into()];
    if !filter.models.is_empty() {
        let places = vec!["?"; filter.models.len()].join(",");
        sql.push_str(&format!(
            " AND coalesce(r.response_model, r.routed_model, r.request_model) IN \
             (SELECT id FROM name WHERE kind = 'model' AND text IN ({places}))"
        ));
        values.extend(filter.models.iter().cloned().map(SqlValue::from));
    }
    let conditions = [
        (&filter.session, " AND r.session = (SELECT id FROM session WHERE key = ?)"),
        (
            &filter.project,
            " AND r.project = (SELECT id FROM name WHERE kind = 'project' AND text = ?)",
        ),
    ];
    for (value, condition) in conditions {
        if let Some(value) = value {
            sql.push_str(condition);
            values.push(value.clone().into());
        }
    }
    if filter.errors {
        sql.push_str(
            " AND r.status NOT IN \
             (SELECT id FROM name WHERE kind = 'word' AND text IN ('ok', 'cached'))",
        );
    }
    sql.push_str(" ORDER BY r.ended_at DESC, r.id DESC LIMIT ?");
    values.push(i64::from(limit).into());
    reader.ask(|connection, texts| rows(connection, texts, &sql, values))
}

/// Returns the next requests of a range after a position, oldest first.
pub(crate) fn page(
    connection: &Connection,
    texts: &mut Texts,
    after: (i64, i64),
    to: i64,
    most: u32,
) -> rusqlite::Result<Vec<Stored>> {
    let sql = format!(
        "{}WHERE r.ended_at >= ?1 AND r.ended_at < ?3 AND (r.ended_at, r.id) > (?1, ?2) \
         ORDER BY r.ended_at, r.id LIMIT ?4",
        *READ
    );
    let values = vec![after.0.into(), after.1.into(), to.into(), i64::from(most).into()];
    rows(connection, texts, &sql, values)
}

fn rows(
    connection: &Connection,
    texts: &mut Texts,
    sql: &str,
    values: Vec<SqlValue>,
) -> rusqlite::Result<Vec<Stored>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(connection, texts, row)?.0);
    }
    Ok(found)
}

/// Returns a request as JSON: the fields of `llm.request.completed`, the id of its event, the cost
/// that the client states, and whether that cost shows how long cache writes were for.
pub(crate) fn object(stored: &Stored) -> serde_json::Result<serde_json::Map<String, Value>> {
    let mut object = serde_json::Map::new();
    object.insert("event_id".to_owned(), stored.report.event_id.to_string().into());
    if let Value::Object(fields) = serde_json::to_value(&stored.report.request)? {
        object.extend(fields);
    }
    if let Some(stated) = stored.report.stated_nano_usd {
        object.insert("stated_cost_nano_usd".to_owned(), stated.into());
    }
    if stored.report.flags & flag::ONE_HOUR != 0 {
        object.insert("one_hour_by_cost".to_owned(), true.into());
    }
    Ok(object)
}

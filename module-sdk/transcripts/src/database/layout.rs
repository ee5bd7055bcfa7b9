//! The tables of tools, and how a row of each becomes a line of JSON.

use std::path::Path;

use rusqlite::Connection;

use crate::Tool;

/// Form of a database, as it is found.
pub(super) struct Layout {
    pub(super) tool: Tool,
    /// Query of a page of rows: their numbers and lines, after a number, at most so many.
    pub(super) sql: String,
}

impl Layout {
    /// Returns the form of a database, `None` where no tool that is known has it.
    pub(super) fn of(connection: &Connection, path: &Path) -> rusqlite::Result<Option<Self>> {
        let messages = Columns::of(connection, "message")?;
        if messages.have(&["id", "session_id", "data"]) {
            let is_kilo = path.file_name().is_some_and(|name| name == "kilo.db");
            let tool = if is_kilo { Tool::Kilo } else { Tool::Opencode };
            return Ok(Some(Self { tool, sql: MESSAGES.to_owned() }));
        }
        let sessions = Columns::of(connection, "sessions")?;
        if sessions.have(&["id", "model_config_json", "accumulated_input_tokens"]) {
            return Ok(Some(Self { tool: Tool::Goose, sql: goose(&sessions) }));
        }
        if sessions.have(&["id", "model", "started_at", "input_tokens", "output_tokens"]) {
            return Ok(Some(Self { tool: Tool::Hermes, sql: hermes(&sessions) }));
        }
        Ok(None)
    }
}

/// Query of the messages of opencode and Kilo: those of models, with the names that they have in
/// files. Text that is no JSON has no line.
const MESSAGES: &str = "
SELECT rowid, CASE WHEN json_extract(data, '$.role') = 'assistant' THEN json_object(
    'id', id,
    'sessionID', session_id,
    'role', 'assistant',
    'modelID', json_extract(data, '$.modelID'),
    'providerID', json_extract(data, '$.providerID'),
    'cost', json_extract(data, '$.cost'),
    'tokens', json_object(
        'input', json_extract(data, '$.tokens.input'),
        'output', json_extract(data, '$.tokens.output'),
        'reasoning', json_extract(data, '$.tokens.reasoning'),
        'total', json_extract(data, '$.tokens.total'),
        'cache', json_object(
            'read', json_extract(data, '$.tokens.cache.read'),
            'write', json_extract(data, '$.tokens.cache.write'))),
    'time', json_object(
        'created', json_extract(data, '$.time.created'),
        'completed', json_extract(data, '$.time.completed')),
    'path', json_object('cwd', json_extract(data, '$.path.cwd')),
    'finish', json_extract(data, '$.finish'),
    'error', json_extract(data, '$.error.name')) END
FROM (SELECT rowid, id, session_id, CASE WHEN json_valid(data) THEN data END AS data FROM message
      WHERE rowid > ?1 ORDER BY rowid LIMIT ?2)";

/// Returns the query of Goose, which keeps the sums of sessions.
fn goose(columns: &Columns) -> String {
    let sum = |name: &str| {
        let of_all = format!("accumulated_{name}");
        format!("coalesce({}, {})", columns.get(&of_all), columns.get(name))
    };
    format!(
        "
SELECT rowid, json_object(
    'id', id,
    'model', CASE WHEN json_valid(model_config_json)
        THEN json_extract(model_config_json, '$.model_name') END,
    'provider', {provider},
    'created_at', {created},
    'updated_at', {updated},
    'cwd', {directory},
    'input_tokens', {input},
    'output_tokens', {output},
    'total_tokens', {total},
    'cost', {cost})
FROM sessions WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
        provider = columns.get("provider_name"),
        created = columns.get("created_at"),
        updated = columns.get("updated_at"),
        directory = columns.get("working_dir"),
        input = sum("input_tokens"),
        output = sum("output_tokens"),
        total = sum("total_tokens"),
        cost = columns.get("accumulated_cost"),
    )
}

/// Returns the query of Hermes, which keeps the sums of sessions.
fn hermes(columns: &Columns) -> String {
    format!(
        "
SELECT rowid, json_object(
    'id', id,
    'model', model,
    'provider', {provider},
    'started_at', started_at,
    'messages', {messages},
    'input_tokens', input_tokens,
    'output_tokens', output_tokens,
    'cache_read_tokens', {read},
    'cache_write_tokens', {write},
    'reasoning_tokens', {reasoning},
    'estimated_cost_usd', {estimated},
    'actual_cost_usd', {actual})
FROM sessions WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
        provider = columns.get("billing_provider"),
        messages = columns.get("message_count"),
        read = columns.get("cache_read_tokens"),
        write = columns.get("cache_write_tokens"),
        reasoning = columns.get("reasoning_tokens"),
        estimated = columns.get("estimated_cost_usd"),
        actual = columns.get("actual_cost_usd"),
    )
}

/// Names of the columns of a table.
struct Columns(Vec<String>);

impl Columns {
    fn of(connection: &Connection, table: &str) -> rusqlite::Result<Self> {
        let mut names = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
        let names = names.query_map([table], |row| row.get(0))?;
        names.collect::<rusqlite::Result<_>>().map(Self)
    }

    fn have(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.0.iter().any(|it| it == name))
    }

    /// Returns a column for a query, `NULL` where the table has none of this name.
    fn get<'a>(&self, name: &'a str) -> &'a str {
        if self.have(&[name]) { name } else { "NULL" }
    }
}

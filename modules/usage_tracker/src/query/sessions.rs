//! `lodestar usage sessions`: the sessions of a period.

use module_sdk::{TimeRange, Usd};
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;

use super::{Reader, rfc3339};
use crate::store::{StoreError, Texts, integer};

/// A session. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionUse {
    /// Id of the session, a pseudonym by default.
    pub session_id: String,
    /// Project that the session named last.
    pub project: Option<String>,
    /// Tool of the session.
    pub client: Option<String>,
    /// Start of the first request, RFC 3339.
    pub started_at: String,
    /// End of the last request, RFC 3339.
    pub ended_at: String,
    /// Time from `started_at` to `ended_at`, in seconds.
    pub duration_s: f64,
    /// Number of requests.
    pub requests: i64,
    /// Number of requests that did not end well.
    pub errors: i64,
    /// Models that answered, the most used first.
    pub models: Vec<String>,
    /// Number of times that the next request was answered by another model.
    pub model_switches: i64,
    /// Number of input tokens.
    pub input_tokens: i64,
    /// Number of output tokens.
    pub output_tokens: i64,
    /// Number of requests that should have a cost and have no known one.
    pub unpriced_requests: i64,
    /// Sum of the known costs; `null` when none is known.
    pub cost_usd: Option<Usd>,
    /// `true` while the session is under way.
    pub active: bool,
}

/// Returns the sessions that were active in a period, the latest first, with the figures of their
/// whole length.
///
/// # Errors
///
/// When the database cannot be read.
pub fn sessions(
    reader: &mut Reader,
    period: &TimeRange,
    limit: u32,
) -> Result<Vec<SessionUse>, StoreError> {
    let (from, to) = period.bounds_ms();
    reader.ask(|connection, texts| {
        let connection = connection.unchecked_transaction()?;
        let mut statement = connection.prepare_cached(
            "SELECT id, key, project, client, started_at, ended_at, model_switches, open \
             FROM session WHERE ended_at >= ?1 AND started_at < ?2 \
             ORDER BY ended_at DESC, id DESC LIMIT ?3",
        )?;
        let mut rows = statement.query((from, to, limit))?;
        let mut sessions = Vec::new();
        while let Some(row) = rows.next()? {
            let (started, ended): (i64, i64) = (row.get(4)?, row.get(5)?);
            let mut session = SessionUse {
                session_id: row.get(1)?,
                project: texts.text(&connection, row.get(2)?)?,
                client: texts.text(&connection, row.get(3)?)?,
                started_at: rfc3339(started),
                ended_at: rfc3339(ended),
                duration_s: seconds(ended.saturating_sub(started)),
                requests: 0,
                errors: 0,
                models: Vec::new(),
                model_switches: row.get(6)?,
                input_tokens: 0,
                output_tokens: 0,
                unpriced_requests: 0,
                cost_usd: None,
                active: row.get(7)?,
            };
            fill(&mut session, &connection, texts, row.get(0)?)?;
            sessions.push(session);
        }
        Ok(sessions)
    })
}

/// Prefix of the pseudonyms of sessions.
pub(crate) const PSEUDONYM: &str = "session_";

/// Returns the ids of the sessions that begin with `begin`, with or without [`PSEUDONYM`]; an id
/// that equals it is returned alone.
pub(crate) fn sessions_like(
    reader: &mut Reader,
    begin: &str,
    most: u32,
) -> Result<Vec<String>, StoreError> {
    reader.ask(|connection, _| {
        let mut statement = connection.prepare_cached(
            "SELECT key FROM session WHERE key >= ?1 AND substr(key, 1, length(?1)) = ?1 \
             AND key < ?1 || char(0x10FFFF) ORDER BY key LIMIT ?2",
        )?;
        let mut found: Vec<String> = Vec::new();
        for begin in [begin.to_owned(), format!("{PSEUDONYM}{begin}")] {
            let keys = statement.query_map((&begin, most), |row| row.get::<_, String>(0))?;
            for key in keys {
                let key = key?;
                if key == begin {
                    return Ok(vec![key]);
                }
                found.push(key);
            }
        }
        found.dedup();
        found.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        Ok(found)
    })
}

fn fill(
    session: &mut SessionUse,
    connection: &Connection,
    texts: &mut Texts,
    id: i64,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT model, sum(requests) AS n, sum(errors), sum(input), sum(output), sum(unpriced), \
         sum(priced), sum(cost) FROM usage_session WHERE session = ?1 \
         GROUP BY model HAVING n > 0 ORDER BY n DESC, model",
    )?;
    let mut rows = statement.query([id])?;
    let mut cost = None;
    while let Some(row) = rows.next()? {
        let number = |at| row.get_ref(at).map(integer);
        session.models.extend(texts.text(connection, row.get(0)?)?);
        session.requests += number(1)?;
        session.errors += number(2)?;
        session.input_tokens = session.input_tokens.saturating_add(number(3)?);
        session.output_tokens = session.output_tokens.saturating_add(number(4)?);
        session.unpriced_requests += number(5)?;
        if number(6)? > 0 {
            cost = Some(cost.unwrap_or(0_i64).saturating_add(number(7)?));
        }
    }
    session.cost_usd = cost.map(Usd::from_nano);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a session does not last 285,000 years")]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// Sums of a session: input, output, and the cost where all of its requests have one.
pub(crate) type SessionSums = (i64, i64, Option<i64>);

/// Returns what a session has used; `None` where it is not known.
pub(crate) fn session_sums(
    reader: &mut Reader,
    session: &str,
) -> Result<Option<SessionSums>, StoreError> {
    reader.ask(|connection, _| {
        connection
            .prepare_cached(
                "SELECT coalesce(sum(u.input), 0), coalesce(sum(u.output), 0), \
                 coalesce(sum(u.cost), 0), coalesce(sum(u.unpriced), 0) \
                 FROM session s JOIN usage_session u ON u.session = s.id \
                 WHERE s.key = ?1 GROUP BY s.id",
            )?
            .query_row([session], |row| {
                let number = |at| Ok::<_, rusqlite::Error>(integer(row.get_ref(at)?));
                let cost = (number(3)? == 0).then_some(number(2)?);
                Ok((number(0)?, number(1)?, cost))
            })
            .optional()
    })
}

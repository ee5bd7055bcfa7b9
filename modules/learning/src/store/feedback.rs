//! Feedback: signs of how good an answer was, each with its origin.

use module_sdk::Result;
use module_sqlite::rusqlite::{self, Connection, OptionalExtension as _, Row, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Store;
use crate::example::{Message, Outcome};

/// Weights of the origins of feedback in the mean of an answer.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    /// Weight of what a person says.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub person: f64,
    /// Weight of a check, such as a test that passed.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub check: f64,
    /// Weight of a model that judges.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub judge: f64,
    /// Weight of any other origin.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub other: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { person: 1.0, check: 0.8, judge: 0.5, other: 0.3 }
    }
}

impl Weights {
    /// Returns the weight of an origin.
    #[must_use]
    pub fn of(&self, origin: &str) -> f64 {
        match origin {
            "person" => self.person,
            "check" => self.check,
            "judge" => self.judge,
            _ => self.other,
        }
    }
}

/// A sign of how good an answer was.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Signal {
    /// Its id: told twice it counts once.
    pub id: String,
    /// Id of the example or of the request, or its key; none where it is about a session.
    pub about: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// Origin: `person`, `check`, `judge`, `implicit`.
    pub origin: String,
    /// Name of the person.
    pub by: Option<String>,
    /// Time of the feedback.
    pub at: i64,
    /// `true` when the answer was good.
    pub good: Option<bool>,
    /// Rating, from 0 (bad) to 1 (good).
    pub rating: Option<f64>,
    /// `true` when the person changed the answer.
    pub edited: Option<bool>,
    /// `true` when the person asked again.
    pub retried: Option<bool>,
}

impl Signal {
    /// Returns the rating that it gives, if it gives one.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.rating.or(self.good.map(f64::from))
    }
}

impl Store {
    /// Notes a sign.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub fn signal(&self, signals: &[Signal]) -> Result<()> {
        self.write(|transaction| signals.iter().try_for_each(|one| insert(transaction, one)))
    }

    /// Returns the id and the conversation of the example that an id names: its own, or that of
    /// its request.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn example_named(&self, name: &str) -> Result<Option<(String, String)>> {
        let sql = "SELECT id, conversation FROM example WHERE forgotten_at IS NULL \
                   AND (id = ?1 OR request_id = ?1 OR dedupe_key = ?1) \
                   ORDER BY at DESC, number DESC LIMIT 1";
        self.read(|connection| {
            connection.query_row(sql, [name], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
    }

    /// Returns the id of the request of an example, where it has one.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn request_of(&self, example: &str) -> Result<Option<String>> {
        let sql = "SELECT request_id FROM example WHERE id = ?1";
        self.read(|connection| connection.query_row(sql, [example], |row| row.get(0)).optional())
            .map(Option::flatten)
    }

    /// Returns the signs that an example itself gives, besides what was said of it. `refuses` tells
    /// whether an answer is a refusal.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn signs(&self, example: &str, refuses: impl Fn(&str) -> bool) -> Result<Vec<Sign>> {
        let sql = "SELECT request_id, at, number, finish_reason, failed, truncated, messages \
                   FROM example WHERE id = ?1";
        let found = self.read(|connection| {
            let row = |row: &Row<'_>| {
                let (request, at, number): (Option<String>, i64, i64) =
                    (row.get(0)?, row.get(1)?, row.get(2)?);
                let followed = is_followed(connection, request.as_deref(), at, number)?;
                let messages: String = row.get(6)?;
                let ended = (
                    row.get::<_, Option<String>>(3)?,
                    row.get::<_, bool>(4)?,
                    row.get::<_, bool>(5)?,
                );
                Ok((ended, followed, messages))
            };
            connection.query_row(sql, [example], row).optional()
        })?;
        let Some(((finish_reason, failed, truncated), followed, messages)) = found else {
            return Ok(Vec::new());
        };
        let messages: Vec<Message> = serde_json::from_str(&messages).unwrap_or_default();
        let reason = finish_reason.as_deref().unwrap_or_default().to_ascii_lowercase();
        let is_cut =
            matches!(reason.as_str(), "length" | "max_tokens" | "max_output_tokens" | "incomplete");
        let is_refused = matches!(reason.as_str(), "refusal" | "content_filter" | "safety");
        let refuses = messages.last().is_some_and(|it| refuses(&it.content));
        Ok([
            (failed, Sign { says: "failed", source: "end of the request" }),
            (is_cut, Sign { says: "truncated", source: "reason of the end" }),
            (truncated && !is_cut, Sign { says: "truncated", source: "length of the text" }),
            (is_refused, Sign { says: "refusal", source: "reason of the end" }),
            (refuses && !is_refused, Sign { says: "refusal", source: "words of the answer" }),
            (followed, Sign { says: "retried", source: "another answer to the same request" }),
        ]
        .into_iter()
        .filter_map(|(is, sign)| is.then_some(sign))
        .collect())
    }

    /// Returns whether any example is of a session.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn has_session(&self, session: &str) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM example WHERE conversation = ?1 \
                   AND forgotten_at IS NULL)";
        self.read(|connection| connection.query_row(sql, [session], |row| row.get(0)))
    }

    /// Returns all signs about an example, the oldest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn signals(&self, example: &str) -> Result<Vec<Signal>> {
        let sql =
            "SELECT dedupe_key, request_id, conversation, at, number FROM example WHERE id = ?1";
        self.read(|connection| {
            let row = |row: &Row<'_>| {
                let request: Option<String> = row.get(1)?;
                let followed =
                    is_followed(connection, request.as_deref(), row.get(3)?, row.get(4)?)?;
                Ok((row.get(0)?, request.filter(|_| !followed), row.get(2)?))
            };
            let found: Option<(Option<String>, Option<String>, String)> =
                connection.query_row(sql, [example], row).optional()?;
            let Some((key, request, conversation)) = found else { return Ok(Vec::new()) };
            let id = example.to_owned();
            let mut all =
                about(connection, &[Some(&id), key.as_ref(), request.as_ref()], &conversation)?;
            all.sort_by_key(|signal| signal.at);
            Ok(all)
        })
    }
}

/// Sign of a bad answer that nobody had to give: it leaves the answer out by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sign {
    /// Word for it, which is also the reason for the drop.
    pub says: &'static str,
    /// Fact that it follows from.
    pub source: &'static str,
}

impl Signal {
    /// Returns the place that the sign comes from.
    #[must_use]
    pub fn source(&self) -> &'static str {
        if self.id.starts_with("retry:") {
            "same question within a minute"
        } else if self.id.starts_with("import:") {
            "imported line"
        } else if self.by.is_some() || self.id.starts_with("said:") {
            "lodestar learning feedback"
        } else {
            "llm.feedback.given"
        }
    }
}

/// Returns whether another answer to the same request came after one: then it is not known to be
/// what the client got.
pub(super) fn is_followed(
    connection: &Connection,
    request: Option<&str>,
    at: i64,
    number: i64,
) -> rusqlite::Result<bool> {
    let Some(request) = request else { return Ok(false) };
    let sql = "SELECT EXISTS (SELECT 1 FROM example WHERE request_id = ?1 \
               AND forgotten_at IS NULL AND (at > ?2 OR (at = ?2 AND number > ?3)))";
    connection.prepare_cached(sql)?.query_row(params![request, at, number], |row| row.get(0))
}

/// Writes a sign down, once.
pub(super) fn insert(connection: &Connection, signal: &Signal) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO feedback \
               (id, about, session, origin, given_by, at, good, rating, edited, retried) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    connection.prepare_cached(sql)?.execute(params![
        signal.id,
        signal.about,
        signal.session,
        signal.origin,
        signal.by,
        signal.at,
        signal.good,
        signal.rating.filter(|rating| rating.is_finite()),
        signal.edited,
        signal.retried,
    ])?;
    Ok(())
}

/// Returns what the signs about an example say together.
pub(super) fn outcome(
    connection: &Connection,
    names: &[Option<&String>],
    conversation: &str,
    weights: &Weights,
) -> rusqlite::Result<Outcome> {
    Ok(together(&about(connection, names, conversation)?, weights))
}

fn together(signals: &[Signal], weights: &Weights) -> Outcome {
    let (mut sum, mut weight) = (0.0, 0.0);
    for signal in signals {
        if let Some(value) = signal.value() {
            sum += value * weights.of(&signal.origin);
            weight += weights.of(&signal.origin);
        }
    }
    let said = |asked: fn(&Signal) -> Option<bool>| {
        signals.iter().any(|signal| asked(signal) == Some(true))
    };
    Outcome {
        feedback: (weight > 0.0).then(|| (sum / weight).clamp(0.0, 1.0)),
        retried: said(|signal| signal.retried),
        edited: said(|signal| signal.edited),
        ..Outcome::default()
    }
}

fn about(
    connection: &Connection,
    names: &[Option<&String>],
    conversation: &str,
) -> rusqlite::Result<Vec<Signal>> {
    const COLUMNS: &str =
        "SELECT id, about, session, origin, given_by, at, good, rating, edited, retried";
    let sql = format!("{COLUMNS} FROM feedback WHERE about = ?1");
    let mut all = Vec::new();
    let mut statement = connection.prepare_cached(&sql)?;
    for name in names.iter().flatten() {
        let found = statement.query_map([name], signal)?;
        all.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    let sql = format!("{COLUMNS} FROM feedback WHERE about IS NULL AND session = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map([conversation], signal)?;
    all.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
    Ok(all)
}

fn signal(row: &Row<'_>) -> rusqlite::Result<Signal> {
    Ok(Signal {
        id: row.get(0)?,
        about: row.get(1)?,
        session: row.get(2)?,
        origin: row.get(3)?,
        by: row.get(4)?,
        at: row.get(5)?,
        good: row.get(6)?,
        rating: row.get(7)?,
        edited: row.get(8)?,
        retried: row.get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(origin: &str, good: Option<bool>, rating: Option<f64>) -> Signal {
        Signal { origin: origin.to_owned(), good, rating, ..Signal::default() }
    }

    #[test]
    fn the_mean_weighs_origins() {
        let weights = Weights::default();
        let check = |signals: &[Signal], expected: Option<f64>| {
            assert_eq!(together(signals, &weights).feedback, expected, "{signals:?}");
        };
        check(&[], None);
        check(&[of("person", None, None)], None);
        check(&[of("person", Some(true), None)], Some(1.0));
        check(&[of("person", Some(true), Some(0.75))], Some(0.75));
        check(&[of("person", Some(true), None), of("judge", Some(false), None)], Some(1.0 / 1.5));
        check(&[of("person", None, Some(7.0))], Some(1.0));
        let silent = Weights { judge: 0.0, ..Weights::default() };
        assert_eq!(together(&[of("judge", Some(true), None)], &silent).feedback, None);
    }

    #[test]
    fn one_sign_of_a_change_is_enough() {
        let changed = Signal { edited: Some(true), ..of("person", None, None) };
        let outcome = together(&[of("person", Some(true), None), changed], &Weights::default());
        assert!(outcome.edited && !outcome.retried);
        assert_eq!(outcome.feedback, Some(1.0));
    }
}

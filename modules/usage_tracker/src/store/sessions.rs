//! Sessions: their start and end, and the number of times that they changed their model.
//!
//! A switch is counted between every two neighbours in time whose models differ, not only their
//! spelling. A report that arrives late is put between its neighbours, which are looked up, so the
//! count does not depend on the order of arrival (as long as the neighbours are kept:
//! `retention_days`).

use foldhash::HashMap;
use module_sdk::events::{LlmModelSwitched, LlmSessionEnded, LlmSessionStarted, ModelName};
use rusqlite::{Connection, OptionalExtension as _};

use super::{
    rollups::HOUR_MS,
    row::{Placed, Stored},
};

/// Largest number of sessions that are held in memory.
const HELD: usize = 2_000;

/// The sessions that the writer has used lately.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_key: HashMap<String, Session>,
    spellings: Spellings,
}

/// The changes of sessions that were found while a batch was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionNews {
    /// Sessions that were seen for the first time and are under way.
    pub started: Vec<LlmSessionStarted>,
    /// Sessions under way that went on with another model.
    pub switched: Vec<LlmModelSwitched>,
}

#[derive(Debug)]
struct Session {
    id: i64,
    started_at: i64,
    ended_at: i64,
    last_model: Option<i64>,
    switches: i64,
    open: bool,
    changed: bool,
}

impl Sessions {
    /// Returns the number of the session of a request; a new session is stored.
    pub(super) fn id(
        &mut self,
        connection: &Connection,
        stored: &Stored,
        live: bool,
        news: &mut SessionNews,
    ) -> rusqlite::Result<Option<i64>> {
        let request = &stored.report.request;
        let Some(key) = &request.session_id else { return Ok(None) };
        if let Some(session) = self.by_key.get(key) {
            return Ok(Some(session.id));
        }
        let session = match load(connection, key)? {
            Some(session) => session,
            None => {
                if live {
                    news.started.push(LlmSessionStarted {
                        session_id: key.clone(),
                        client: request.client.clone(),
                        project: request.project.clone(),
                        started_at: request.started_at,
                    });
                }
                create(connection, key, request.started_at, request.ended_at)?
            }
        };
        let id = session.id;
        self.by_key.insert(key.clone(), session);
        Ok(Some(id))
    }

    /// Counts a request that is new in its session and was written already.
    pub(super) fn add(
        &mut self,
        connection: &Connection,
        stored: &Stored,
        placed: &Placed,
        live: bool,
        news: &mut SessionNews,
    ) -> rusqlite::Result<()> {
        let request = &stored.report.request;
        let Some(key) = &request.session_id else { return Ok(()) };
        let Some(session) = self.by_key.get_mut(key) else { return Ok(()) };
        let model = Some(placed.dimensions.model).filter(|model| *model != 0);
        if placed.ended_at >= session.ended_at {
            let before = session.last_model;
            if let (Some(before), Some(model)) = (before, model)
                && self.spellings.differ(connection, before, model)?
            {
                session.switches += 1;
                if live && let Some(from) = name(connection, before)? {
                    news.switched.push(LlmModelSwitched {
                        session_id: key.clone(),
                        from,
                        to: crate::prices::priced_model(request).unwrap_or_default().to_owned(),
                        at: request.ended_at,
                    });
                }
            }
            session.last_model = model.or(before);
        } else if let Some(model) = model {
            let around = Neighbours::of(connection, session.id, placed.ended_at, stored.id)?;
            session.switches += around.switches(connection, &mut self.spellings, model)?;
            if around.after.is_none() {
                session.last_model = Some(model);
            }
        }
        session.started_at = session.started_at.min(request.started_at);
        session.ended_at = session.ended_at.max(placed.ended_at);
        session.open |= live;
        session.changed = true;
        Ok(())
    }

    /// Removes a request from its session, before it is rewritten with another model, time or
    /// session.
    pub(super) fn take_out(
        &mut self,
        connection: &Connection,
        stored: &Stored,
        placed: &Placed,
    ) -> rusqlite::Result<()> {
        let switches = self.switches_around(connection, stored, placed)?;
        let Some(session) = self.held(connection, stored)? else { return Ok(()) };
        if placed.dimensions.model != 0 {
            session.switches -= switches;
            session.changed = true;
        }
        Ok(())
    }

    /// Deletes a session that has no request left, or else sets its start, its end and its last
    /// model by the requests that it has. All changes must have been written before.
    pub(super) fn settle(&mut self, connection: &Connection, key: &str) -> rusqlite::Result<()> {
        self.by_key.remove(key);
        let Some(session) = load(connection, key)? else { return Ok(()) };
        let (counted, last_hour): (i64, Option<i64>) = connection
            .prepare_cached(
                "SELECT coalesce(sum(requests), 0), max(iif(requests > 0, hour, NULL)) \
                 FROM usage_session WHERE session = ?1",
            )?
            .query_row([session.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if counted <= 0 {
            for sql in [
                "DELETE FROM usage_session WHERE session = ?1",
                "DELETE FROM session WHERE id = ?1",
            ] {
                connection.prepare_cached(sql)?.execute([session.id])?;
            }
            return Ok(());
        }
        let (kept, first, last): (i64, Option<i64>, Option<i64>) = connection
            .prepare_cached(
                "SELECT count(*), min(ended_at - elapsed_ms), max(ended_at) FROM request \
                 WHERE session = ?1",
            )?
            .query_row([session.id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        // The first ones may have been deleted by retention, and all: then their hours are known.
        let started_at = first.filter(|_| kept >= counted).unwrap_or(session.started_at);
        let hour_end = |hour: i64| hour.saturating_add(1).saturating_mul(HOUR_MS) - 1;
        let ended_at = last
            .or_else(|| Some(session.ended_at.min(hour_end(last_hour?))))
            .unwrap_or(session.ended_at);
        let last_model = Neighbours::of(connection, session.id, i64::MAX, i64::MAX)?.before;
        connection
            .prepare_cached(
                "UPDATE session SET started_at = ?2, ended_at = ?3, last_model = ?4 WHERE id = ?1",
            )?
            .execute((session.id, started_at, ended_at.max(started_at), last_model))
            .map(drop)
    }

    /// Adds a request to its session after it was rewritten.
    pub(super) fn put_in(
        &mut self,
        connection: &Connection,
        stored: &Stored,
        placed: &Placed,
    ) -> rusqlite::Result<()> {
        let switches = self.switches_around(connection, stored, placed)?;
        let Some(session) = self.held(connection, stored)? else { return Ok(()) };
        session.switches += switches;
        session.last_model = Neighbours::of(connection, session.id, i64::MAX, i64::MAX)?.before;
        session.started_at = session.started_at.min(stored.report.request.started_at);
        session.ended_at = session.ended_at.max(placed.ended_at);
        session.changed = true;
        Ok(())
    }

    /// Returns the number of switches that a request makes in its session.
    fn switches_around(
        &mut self,
        connection: &Connection,
        stored: &Stored,
        placed: &Placed,
    ) -> rusqlite::Result<i64> {
        let model = placed.dimensions.model;
        let session = self.held(connection, stored)?.map(|session| session.id);
        let Some(session) = session.filter(|_| model != 0) else { return Ok(0) };
        let around = Neighbours::of(connection, session, placed.ended_at, stored.id)?;
        around.switches(connection, &mut self.spellings, model)
    }

    fn held(
        &mut self,
        connection: &Connection,
        stored: &Stored,
    ) -> rusqlite::Result<Option<&mut Session>> {
        let Some(key) = &stored.report.request.session_id else { return Ok(None) };
        if !self.by_key.contains_key(key) {
            let Some(session) = load(connection, key)? else { return Ok(None) };
            self.by_key.insert(key.clone(), session);
        }
        Ok(self.by_key.get_mut(key))
    }

    /// Writes the changed sessions, with the project and client of the last request that named one.
    pub(super) fn write(
        &mut self,
        connection: &Connection,
        described: &HashMap<i64, (i64, i64)>,
    ) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "UPDATE session SET started_at = ?2, ended_at = ?3, last_model = ?4, \
             model_switches = ?5, open = ?6, project = coalesce(nullif(?7, 0), project), \
             client = coalesce(nullif(?8, 0), client) WHERE id = ?1",
        )?;
        for session in self.by_key.values_mut().filter(|session| session.changed) {
            let (project, client) = described.get(&session.id).copied().unwrap_or_default();
            statement.execute((
                session.id,
                session.started_at,
                session.ended_at,
                session.last_model,
                session.switches,
                session.open,
                project,
                client,
            ))?;
            session.changed = false;
        }
        if self.by_key.len() > HELD {
            self.by_key.clear();
        }
        Ok(())
    }

    /// Forgets all sessions, since a transaction was rolled back or the table was changed.
    pub(super) fn forget(&mut self) {
        self.by_key.clear();
        self.spellings.differ.clear();
    }
}

/// Marks the sessions that have been idle since `before` as ended; at most `most` at once.
pub(super) fn end_idle(
    connection: &Connection,
    before: i64,
    most: i64,
) -> rusqlite::Result<Vec<LlmSessionEnded>> {
    let mut ended = Vec::new();
    let mut select = connection.prepare_cached(
        "SELECT s.id, s.key, s.started_at, s.ended_at, \
         (SELECT coalesce(sum(requests), 0) FROM usage_session u WHERE u.session = s.id) \
         FROM session s WHERE s.open = 1 AND s.ended_at < ?1 ORDER BY s.ended_at LIMIT ?2",
    )?;
    let mut rows = select.query((before, most))?;
    let mut ids: Vec<i64> = Vec::new();
    while let Some(row) = rows.next()? {
        ids.push(row.get(0)?);
        ended.push(LlmSessionEnded {
            session_id: row.get(1)?,
            started_at: row.get(2)?,
            ended_at: row.get(3)?,
            requests: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
        });
    }
    let mut update = connection.prepare_cached("UPDATE session SET open = 0 WHERE id = ?1")?;
    for id in ids {
        update.execute([id])?;
    }
    Ok(ended)
}

/// The models of the requests before and after a position in a session.
struct Neighbours {
    before: Option<i64>,
    after: Option<i64>,
}

impl Neighbours {
    fn of(connection: &Connection, session: i64, at: i64, id: i64) -> rusqlite::Result<Self> {
        let find = |sql| {
            connection
                .prepare_cached(sql)?
                .query_row((session, at, id), |row| row.get(0))
                .optional()
        };
        Ok(Self {
            before: find(
                "SELECT coalesce(response_model, routed_model, request_model) AS model \
                 FROM request WHERE session = ?1 AND (ended_at, id) < (?2, ?3) \
                 AND model IS NOT NULL ORDER BY ended_at DESC, id DESC LIMIT 1",
            )?,
            after: find(
                "SELECT coalesce(response_model, routed_model, request_model) AS model \
                 FROM request WHERE session = ?1 AND (ended_at, id) > (?2, ?3) \
                 AND model IS NOT NULL ORDER BY ended_at, id LIMIT 1",
            )?,
        })
    }

    /// Returns the number of switches that a request with `model` between them adds.
    fn switches(
        &self,
        connection: &Connection,
        spellings: &mut Spellings,
        model: i64,
    ) -> rusqlite::Result<i64> {
        let mut differ = |one: Option<i64>, two: Option<i64>| match one.zip(two) {
            Some((one, two)) => spellings.differ(connection, one, two).map(i64::from),
            None => Ok(0),
        };
        Ok(differ(self.before, Some(model))? + differ(Some(model), self.after)?
            - differ(self.before, self.after)?)
    }
}

/// The known pairs of model names, by whether they differ in more than spelling.
#[derive(Debug, Default)]
struct Spellings {
    /// Known answers by the numbers of two names. A tool alternates between a few models.
    differ: HashMap<(i64, i64), bool>,
}

impl Spellings {
    /// Returns whether two names are of two models.
    fn differ(&mut self, connection: &Connection, one: i64, two: i64) -> rusqlite::Result<bool> {
        if one == two {
            return Ok(false);
        }
        if let Some(known) = self.differ.get(&(one, two)) {
            return Ok(*known);
        }
        let texts = (name(connection, one)?, name(connection, two)?);
        let differ = match &texts {
            (Some(one), Some(two)) => ModelName::of(one).model() != ModelName::of(two).model(),
            _ => true,
        };
        if self.differ.len() >= HELD {
            self.differ.clear();
        }
        self.differ.insert((one, two), differ);
        Ok(differ)
    }
}

fn load(connection: &Connection, key: &str) -> rusqlite::Result<Option<Session>> {
    connection
        .prepare_cached(
            "SELECT id, started_at, ended_at, last_model, model_switches, open \
             FROM session WHERE key = ?1",
        )?
        .query_row([key], |row| {
            Ok(Session {
                id: row.get(0)?,
                started_at: row.get(1)?,
                ended_at: row.get(2)?,
                last_model: row.get(3)?,
                switches: row.get(4)?,
                open: row.get(5)?,
                changed: false,
            })
        })
        .optional()
}

fn create(
    connection: &Connection,
    key: &str,
    started_at: i64,
    ended_at: i64,
) -> rusqlite::Result<Session> {
    connection
        .prepare_cached(
            "INSERT INTO session (key, started_at, ended_at, model_switches, open) \
             VALUES (?1, ?2, ?3, 0, 0)",
        )?
        .execute((key, started_at, ended_at))?;
    let id = connection.last_insert_rowid();
    let (last_model, switches, open, changed) = (None, 0, false, true);
    Ok(Session { id, started_at, ended_at, last_model, switches, open, changed })
}

fn name(connection: &Connection, id: i64) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT text FROM name WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()
}

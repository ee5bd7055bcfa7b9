//! The database: alerts and their history, silences, and what waits to be told.

use std::path::Path;

use module_sdk::{Result, events::AlertSeverity, jiff::Timestamp};
use module_sqlite::{
    Database, DatabaseError, Options, Spec,
    rusqlite::{self, Connection, Row, params},
};

use crate::alert::{Alert, Transition};

/// The database.
pub const SPEC: Spec = Spec {
    setting: Some("database"),
    product: "Lodestar",
    meanwhile: "alerts are told, and not kept",
    ..Spec::new(
        "database of health",
        "health.db",
        *b"LSHM",
        &[include_str!("../migrations/0001_health.sql")],
    )
};

/// An alert of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The alert.
    pub alert: Alert,
    /// Its end; `None` while it fires.
    pub resolved_at: Option<Timestamp>,
    /// Person who works on it.
    pub acknowledged_by: Option<String>,
}

/// Alerts and what belongs to them, in SQLite.
#[derive(Debug)]
pub struct Store {
    database: Database,
    /// Transitions that could not be written yet, oldest first.
    waiting: Vec<Transition>,
}

/// Function that writes what belongs to the transitions.
pub type Also<'a> = &'a dyn Fn(&Connection) -> rusqlite::Result<()>;

/// Transitions that wait at most while the database is not available.
const WAITING: usize = 10_000;

impl Store {
    /// Opens the database, or begins without it where a later attempt may succeed.
    ///
    /// # Errors
    ///
    /// When the file must not be written: damaged, newer, or of another program.
    pub fn open(options: Options) -> Result<Self> {
        Ok(Self { database: Database::open_with(options, SPEC)?, waiting: Vec::new() })
    }

    /// Returns the options for the file that the operator named, or that in the data directory.
    #[must_use]
    pub fn options(data_dir: &Path, named: Option<&Path>) -> Options {
        let usual = Options::in_directory(data_dir, &SPEC);
        match named {
            Some(path) => Options { path: data_dir.join(path), ..usual },
            None => usual,
        }
    }

    /// Returns the alerts that fired when the database was written last.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn firing(&mut self) -> Result<Vec<Alert>, DatabaseError> {
        let sql = "SELECT * FROM alert WHERE resolved_at IS NULL ORDER BY raised_at";
        let all = self.database.read(|connection| {
            connection.prepare_cached(sql)?.query_map([], recorded)?.collect::<Result<Vec<_>, _>>()
        })?;
        Ok(all.into_iter().map(|recorded| recorded.alert).collect())
    }

    /// Writes down what began and ended, and with it whatever else belongs to it. What cannot be
    /// written waits for the next time.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub fn record(
        &mut self,
        transitions: &[Transition],
        also: Option<Also<'_>>,
    ) -> Result<(), DatabaseError> {
        let room = WAITING.saturating_sub(self.waiting.len());
        self.waiting.extend(transitions.iter().take(room).cloned());
        if self.waiting.is_empty() && also.is_none() {
            return Ok(());
        }
        let waiting = &self.waiting;
        self.database.write(|transaction| {
            waiting.iter().try_for_each(|transition| write(transaction, transition))?;
            also.map_or(Ok(()), |also| also(transaction))
        })?;
        self.waiting.clear();
        Ok(())
    }

    /// Returns the alerts that were raised within a time, newest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn history(
        &mut self,
        from_ms: i64,
        to_ms: i64,
        limit: u32,
    ) -> Result<Vec<Recorded>, DatabaseError> {
        let sql = "SELECT * FROM alert WHERE raised_at >= ?1 AND raised_at < ?2 \
                   ORDER BY raised_at DESC, id LIMIT ?3";
        self.database.read(|connection| {
            let mut all = connection.prepare_cached(sql)?;
            all.query_map(params![from_ms, to_ms, limit], recorded)?.collect()
        })
    }

    /// Deletes alerts that ended before a time, in small pieces.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub fn delete_before(&mut self, before_ms: i64) -> Result<usize, DatabaseError> {
        let sql = "DELETE FROM alert WHERE id IN \
                   (SELECT id FROM alert WHERE resolved_at < ?1 LIMIT 1000)";
        self.database.write(|transaction| transaction.prepare_cached(sql)?.execute([before_ms]))
    }

    /// Returns the database itself, for what other parts keep in it.
    pub fn database(&mut self) -> &mut Database {
        &mut self.database
    }

    /// Returns the health of the database.
    #[must_use]
    pub fn health(&self) -> module_sdk::Health {
        self.database.health()
    }

    /// Closes the database.
    ///
    /// # Errors
    ///
    /// When it cannot be closed.
    pub fn close(&mut self) -> Result<(), DatabaseError> {
        self.database.close()
    }
}

fn write(connection: &Connection, transition: &Transition) -> rusqlite::Result<()> {
    match transition {
        Transition::Raised(alert) => {
            // What fires already, after a crash before its end was written, ends now.
            let end = "UPDATE alert SET resolved_at = ?1 \
                       WHERE rule = ?2 AND labels = ?3 AND resolved_at IS NULL";
            let labels = serde_json::json!(alert.labels).to_string();
            let since = alert.since.as_millisecond();
            connection.prepare_cached(end)?.execute(params![since, &*alert.name, labels])?;
            let begin = "INSERT OR REPLACE INTO alert \
                         (id, rule, component, severity, labels, message, value, raised_at) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            connection.prepare_cached(begin)?.execute(params![
                alert.id,
                &*alert.name,
                &*alert.component,
                alert.severity.as_str(),
                labels,
                alert.message,
                alert.value.filter(|value| value.is_finite()),
                since,
            ])?;
        }
        Transition::Resolved(alert, at) => {
            let end = "UPDATE alert SET resolved_at = ?1 WHERE id = ?2 AND resolved_at IS NULL";
            connection.prepare_cached(end)?.execute(params![at.as_millisecond(), alert.id])?;
        }
    }
    Ok(())
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or_default();
    let severity: String = row.get("severity")?;
    let labels: String = row.get("labels")?;
    let (rule, component): (String, String) = (row.get("rule")?, row.get("component")?);
    Ok(Recorded {
        alert: Alert {
            id: row.get("id")?,
            name: rule.into(),
            severity: severity.parse().unwrap_or(AlertSeverity::Warning),
            component: component.into(),
            labels: serde_json::from_str(&labels).unwrap_or_default(),
            message: row.get("message")?,
            value: row.get("value")?,
            since: time(row.get("raised_at")?),
        },
        resolved_at: row.get::<_, Option<i64>>("resolved_at")?.map(time),
        acknowledged_by: row.get("acknowledged_by")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(id: &str, component: &str, since_ms: i64) -> Alert {
        Alert {
            id: id.to_owned(),
            name: "disk_low".into(),
            severity: AlertSeverity::Warning,
            component: component.into(),
            labels: [("component".to_owned(), component.to_owned())].into(),
            message: "full".to_owned(),
            value: Some(0.9),
            since: Timestamp::from_millisecond(since_ms).expect("a time"),
        }
    }

    #[test]
    fn alerts_outlast_the_store() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = || Store::options(directory.path(), None);
        let mut store = Store::open(options()).expect("it opens");
        let (one, two) = (alert("a", "disk./", 1_000), alert("b", "disk./home", 2_000));
        let raised = [Transition::Raised(one.clone()), Transition::Raised(two.clone())];
        store.record(&raised, None).expect("it is written");
        let end = Timestamp::from_millisecond(5_000).expect("a time");
        store.record(&[Transition::Resolved(one.clone(), end)], None).expect("it is written");
        store.close().expect("it closes");
        let mut store = Store::open(options()).expect("it opens");
        assert_eq!(store.firing().expect("it is read"), [two]);
        let history = store.history(0, 10_000, 10).expect("it is read");
        assert_eq!(
            history[1],
            Recorded { alert: one, resolved_at: Some(end), acknowledged_by: None }
        );
        assert_eq!(store.delete_before(5_001).expect("it is written"), 1);
        assert_eq!(store.history(0, 10_000, 10).expect("it is read").len(), 1);
    }

    #[test]
    fn an_alert_whose_end_was_lost_does_not_fire_twice() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut store = Store::open(Store::options(directory.path(), None)).expect("it opens");
        for (id, at) in [("a", 1_000), ("b", 2_000)] {
            store
                .record(&[Transition::Raised(alert(id, "disk./", at))], None)
                .expect("it is written");
        }
        assert_eq!(store.firing().expect("it is read").len(), 1);
    }
}

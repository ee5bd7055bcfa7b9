//! Consents to learn from text, and statements of who answers for a model whose terms forbid it.

use module_sdk::Result;
use module_sqlite::rusqlite::{self, Connection, OptionalExtension as _, Row, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Store, new_id};

/// The table of who answers for answers that name no model.
pub(super) const UNATTRIBUTED: &str = include_str!("../../migrations/0015_unattributed.sql");

/// Ways in which text may be kept under a consent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// From requests and from files.
    #[default]
    All,
    /// From requests alone.
    Capture,
    /// From files alone.
    Import,
}

impl Scope {
    /// Returns the word in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Capture => "capture",
            Self::Import => "import",
        }
    }

    /// Returns whether one consent allows what another scope asks for.
    #[must_use]
    pub fn covers(self, asked: Self) -> bool {
        self == Self::All || self == asked
    }

    fn parse(word: &str) -> Self {
        match word {
            "capture" => Self::Capture,
            "import" => Self::Import,
            _ => Self::All,
        }
    }
}

/// A consent to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewConsent {
    /// The project.
    pub project: String,
    /// Name of the person.
    pub by: String,
    /// Ways that it allows.
    pub scope: Scope,
    /// Time of the consent.
    pub at: i64,
    /// Time at which it ends.
    pub expires_at: i64,
}

/// A record of who agreed to what, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Id of the record.
    pub id: String,
    /// The project.
    pub project: String,
    /// Name of the person.
    pub by: String,
    /// Ways that it allows.
    pub scope: Scope,
    /// Time of the consent.
    pub granted_at: i64,
    /// Time at which it ends.
    pub expires_at: i64,
    /// Time at which somebody took it back.
    pub revoked_at: Option<i64>,
    /// Name of that person.
    pub revoked_by: Option<String>,
}

impl Consent {
    /// Returns whether it holds at a time.
    #[must_use]
    pub fn holds_at(&self, at: i64) -> bool {
        self.revoked_at.is_none() && self.granted_at <= at && at < self.expires_at
    }

    /// Returns the word for how it stands now.
    #[must_use]
    pub fn state(&self, now: i64) -> &'static str {
        match self.revoked_at {
            Some(_) => "revoked",
            None if now >= self.expires_at => "expired",
            None => "active",
        }
    }
}

/// A person's statement that a model may be learnt from, or answers of a project that name none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The model, in the spelling that all its names have in common; empty for answers that name
    /// none.
    pub model: String,
    /// The project of such answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Name of the person.
    pub by: String,
    /// The statement.
    pub statement: String,
    /// Time of the statement.
    pub at: i64,
}

impl Attestation {
    /// Returns in words what it is about, with names as `shown` writes them.
    #[must_use]
    pub fn subject(&self, shown: impl Fn(&str) -> String) -> String {
        match &self.project {
            Some(project) => format!("answers of {} that name no model", shown(project)),
            None => shown(&self.model),
        }
    }
}

impl Store {
    /// Records a consent and returns it.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub fn grant(&self, new: &NewConsent) -> Result<Consent> {
        let consent = Consent {
            id: new_id(),
            project: new.project.clone(),
            by: new.by.clone(),
            scope: new.scope,
            granted_at: new.at,
            expires_at: new.expires_at,
            revoked_at: None,
            revoked_by: None,
        };
        let sql = "INSERT INTO consent (id, project, granted_by, scope, granted_at, expires_at) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.write(|transaction| {
            transaction.execute(
                sql,
                params![
                    consent.id,
                    consent.project,
                    consent.by,
                    consent.scope.as_str(),
                    consent.granted_at,
                    consent.expires_at,
                ],
            )
        })?;
        Ok(consent)
    }

    /// Takes back every consent of a project that holds, and makes the datasets stale that have
    /// text under one of them. Returns the ids of the consents and of the datasets.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub fn revoke(&self, project: &str, by: &str, now: i64) -> Result<(Vec<String>, Vec<String>)> {
        self.write(|transaction| {
            let sql = "UPDATE consent SET revoked_at = ?1, revoked_by = ?2 \
                       WHERE project = ?3 AND revoked_at IS NULL RETURNING id";
            let ids: Vec<String> = transaction
                .prepare_cached(sql)?
                .query_map(params![now, by, project], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let sql = "UPDATE dataset SET stale = 'consent was revoked', stale_at = ?1 \
                       WHERE stale IS NULL AND id IN \
                       (SELECT dataset FROM dataset_example WHERE consent = ?2) RETURNING id";
            let mut stale = Vec::new();
            for id in &ids {
                let mut statement = transaction.prepare_cached(sql)?;
                let found = statement.query_map(params![now, id], |row| row.get(0))?;
                stale.extend(found.collect::<rusqlite::Result<Vec<String>>>()?);
            }
            Ok((ids, stale))
        })
    }

    /// Returns all consents, the newest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn consents(&self) -> Result<Vec<Consent>> {
        self.read(all)
    }

    /// Returns the consent under which text of a project may be kept now.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn consent(&self, project: &str, scope: Scope, now: i64) -> Result<Option<Consent>> {
        let all = self.read(|connection| of_project(connection, project))?;
        Ok(all.into_iter().find(|one| one.holds_at(now) && one.scope.covers(scope)))
    }

    /// Records that a person answers for a model, or for answers that name none, in the place of an
    /// earlier statement.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub fn attest(&self, attestation: &Attestation) -> Result<()> {
        let Attestation { model, project, by, statement, at } = attestation;
        let (table, name) = match project {
            Some(project) => ("attestation_of_project", project),
            None => ("attestation", model),
        };
        let sql = format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2, ?3, ?4)");
        self.write(|transaction| transaction.execute(&sql, params![name, by, statement, at]))?;
        Ok(())
    }

    /// Returns all attestations, by project and by model.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn attestations(&self) -> Result<Vec<Attestation>> {
        self.read(attestations)
    }
}

pub(super) fn attestations(connection: &Connection) -> rusqlite::Result<Vec<Attestation>> {
    let sql = "SELECT '', project, attested_by, statement, attested_at
                   FROM attestation_of_project
               UNION ALL
               SELECT model, NULL, attested_by, statement, attested_at FROM attestation
               ORDER BY 1, 2";
    connection
        .prepare_cached(sql)?
        .query_map([], |row| {
            Ok(Attestation {
                model: row.get(0)?,
                project: row.get(1)?,
                by: row.get(2)?,
                statement: row.get(3)?,
                at: row.get(4)?,
            })
        })?
        .collect()
}

const COLUMNS: &str = "id, project, granted_by, scope, granted_at, expires_at, revoked_at, \
                       revoked_by";

pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<Consent>> {
    let sql = format!("SELECT {COLUMNS} FROM consent ORDER BY granted_at DESC, id DESC");
    connection.prepare_cached(&sql)?.query_map([], consent)?.collect()
}

pub(super) fn of_project(connection: &Connection, project: &str) -> rusqlite::Result<Vec<Consent>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM consent WHERE project = ?1 ORDER BY granted_at DESC, id DESC"
    );
    connection.prepare_cached(&sql)?.query_map([project], consent)?.collect()
}

/// Returns whether every consent of a list still holds.
pub(super) fn all_hold(connection: &Connection, ids: &[&str], now: i64) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM consent WHERE id = ?1 AND revoked_at IS NULL AND expires_at > ?2";
    let mut statement = connection.prepare_cached(sql)?;
    for id in ids {
        if statement.query_row(params![id, now], |_| Ok(())).optional()?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn consent(row: &Row<'_>) -> rusqlite::Result<Consent> {
    let scope: String = row.get(3)?;
    Ok(Consent {
        id: row.get(0)?,
        project: row.get(1)?,
        by: row.get(2)?,
        scope: Scope::parse(&scope),
        granted_at: row.get(4)?,
        expires_at: row.get(5)?,
        revoked_at: row.get(6)?,
        revoked_by: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consent_holds_from_its_beginning_to_its_end_unless_it_is_taken_back() {
        let mut consent = Consent {
            id: "c".to_owned(),
            project: "shop".to_owned(),
            by: "ada".to_owned(),
            scope: Scope::Capture,
            granted_at: 100,
            expires_at: 200,
            revoked_at: None,
            revoked_by: None,
        };
        for (at, holds, state) in
            [(99, false, "active"), (100, true, "active"), (200, false, "expired")]
        {
            assert_eq!((consent.holds_at(at), consent.state(at)), (holds, state), "{at}");
        }
        consent.revoked_at = Some(150);
        assert_eq!((consent.holds_at(120), consent.state(120)), (false, "revoked"));
    }

    #[test]
    fn scopes_cover_what_they_name() {
        let check = |scope: Scope, asked, covers| assert_eq!(scope.covers(asked), covers);
        check(Scope::All, Scope::Import, true);
        check(Scope::Import, Scope::Import, true);
        check(Scope::Capture, Scope::Import, false);
        for scope in [Scope::All, Scope::Capture, Scope::Import] {
            assert_eq!(Scope::parse(scope.as_str()), scope);
        }
    }
}
